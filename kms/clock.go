package kms

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/keystore"
)

// Two clocks. The wall clock says what people mean, and anybody who may set it, or answers its time server, can move it. The
// boot clock only ever counts. So nothing that can't be undone happens by the wall clock alone: what waits for a time
// also waits until keyward has been running for as long (Observed), and time in which it did not run does not count.
// Late is safe, early is not.

const (
	tickEvery  = time.Minute     // how often the clock is looked at, and the running time written down: what a crash may lose
	stepNoted  = 2 * time.Second // a step of the wall clock that is audited
	stepFreeze = time.Minute     // a step after which nothing irreversible happens for freezeFor; also the way back that is no harm
	freezeFor  = 24 * time.Hour  // by both clocks
)

// bootTime is the time since the machine started, with its sleep.
func bootTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("kms: the machine has no boot clock: " + err.Error()) // Linux has had it since 2.6.39
	}
	return time.Duration(t.Nano())
}

// clock is what the service knows of time.
type clock struct {
	now   func() time.Time
	boot  func() time.Duration
	built time.Time // a wall clock before it is wrong

	turn     sync.Mutex // held from a look to what is written down of it
	frozenAt uint64     // FrozenAfter as last written down. Guarded by turn

	mu       sync.Mutex     // guards what follows
	state    keystore.Clock // Wall and Observed as last written down, the freeze as it is
	observed time.Duration  // running time, up to lastBoot
	lastWall time.Time
	lastBoot time.Duration
	written  time.Duration // lastBoot when state was written down
}

func newClock(ctx context.Context, c *Config) (*clock, error) {
	k := &clock{now: c.Now, boot: c.Boot, built: c.Built}
	k.lastWall, k.lastBoot = k.wall(), k.boot()
	switch state, err := c.Store.Clock(ctx); {
	case err == nil:
		k.state, k.observed, k.frozenAt = *state, time.Duration(state.Observed)*time.Second, state.FrozenAfter
	case errors.Is(err, keystore.ErrDamaged):
		// Begun again from nothing observed: everything happens later, and nothing before somebody had time to notice.
		k.freeze(k.lastWall, "the record of the clock is damaged; restore the newest backup")
	default:
		return nil, fmt.Errorf("kms: reading the clock: %w", err)
	}
	k.written = k.lastBoot
	return k, nil
}

// wall is the wall clock without the monotonic reading that time.Now adds: its steps are what counts here.
func (k *clock) wall() time.Time { return k.now().UTC().Round(0) }

// after is the Observed from which d has passed, rounded up.
func (k *clock) after(d time.Duration) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return uint64((k.running() + d + time.Second - 1) / time.Second)
}

// running is the running time now. Caller holds mu.
func (k *clock) running() time.Duration { return k.observed + max(0, k.boot()-k.lastBoot) }

// due says whether both clocks have passed a time, and may be believed. It needs a look shortly before.
func (k *clock) due(at time.Time, after uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	wall, running := k.wall(), k.running()
	return k.trouble(wall) == nil && !k.frozen(wall, running) && !wall.Before(at) && uint64(running/time.Second) >= after
}

// past says whether either clock has passed a time, believed or not: enough to refuse what is not lost by that.
func (k *clock) past(at time.Time, after uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.wall().Before(at) || uint64(k.running()/time.Second) >= after
}

// settled says whether the wall clock may be believed for things that can be undone, or done again.
func (k *clock) settled() bool { return k.due(time.Time{}, 0) }

// trouble says why the wall clock can't be right. Caller holds mu.
func (k *clock) trouble(wall time.Time) error {
	if wall.Before(k.built) {
		return fmt.Errorf("the clock says %s, which is before this program was made (%s)", formatTime(wall), formatTime(k.built))
	}
	if wall.Before(k.state.Wall.Add(-stepFreeze)) {
		return fmt.Errorf("the clock says %s, and it was %s already", formatTime(wall), formatTime(k.state.Wall))
	}
	return nil
}

// frozen says whether the last big step is too near. Caller holds mu.
func (k *clock) frozen(wall time.Time, running time.Duration) bool {
	return k.state.Frozen != nil && (wall.Before(*k.state.Frozen) || uint64(running/time.Second) < k.state.FrozenAfter)
}

// freeze keeps anything irreversible from happening for freezeFor. Caller holds mu.
func (k *clock) freeze(wall time.Time, reason string) {
	until := wall.Add(freezeFor)
	k.state.Frozen, k.state.FrozenAfter = &until, uint64((k.observed+freezeFor+time.Second-1)/time.Second)
	k.state.Reason = reason
}

// look takes both clocks' readings, and returns by how much the wall clock was set since the last look if that is worth a
// word. write says that the state wants to be written down.
func (k *clock) look() (step time.Duration, write bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	wall, boot := k.wall(), k.boot()
	passed := max(0, boot-k.lastBoot)
	step = wall.Sub(k.lastWall) - passed
	k.observed += passed
	k.lastWall, k.lastBoot = wall, boot
	write = boot-k.written >= tickEvery
	if k.state.Frozen != nil && !k.frozen(wall, k.observed) && k.trouble(wall) == nil {
		k.state.Frozen, k.state.FrozenAfter, k.state.Reason, write = nil, 0, "", true
	}
	if step.Abs() > stepFreeze {
		k.freeze(wall, stepText(step))
		write = true
	}
	if step.Abs() <= stepNoted {
		step = 0
	}
	return step, write
}

func stepText(step time.Duration) string {
	way := "forward"
	if step < 0 {
		way = "back"
	}
	return fmt.Sprintf("the clock was set %s by %s", way, step.Abs().Round(time.Second))
}

// write writes the state down. The latest wall time stays the latest, unless forget says that it was wrong.
//
// Another service over the same store may have written meanwhile. Both have counted the same time, so the longer running time
// is that of both, and no key comes due the sooner; a freeze that one of them began or ended goes for both.
func (k *clock) write(ctx context.Context, store *keystore.DB, forget bool) error {
	k.mu.Lock()
	own, wall, boot := k.state, k.lastWall, k.lastBoot
	own.Observed = uint64(k.observed / time.Second)
	k.mu.Unlock()
	var next keystore.Clock
	err := store.Change().EditClock(func(c *keystore.Clock) {
		if forget || wall.After(c.Wall) {
			c.Wall = wall
		}
		c.Observed = max(c.Observed, own.Observed)
		changedThere, changedHere := c.FrozenAfter != k.frozenAt, own.FrozenAfter != k.frozenAt
		if forget || !changedThere || changedHere && own.FrozenAfter > c.FrozenAfter {
			c.Frozen, c.FrozenAfter, c.Reason = own.Frozen, own.FrozenAfter, own.Reason
		}
		next = *c
	}).Commit(ctx)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state, k.frozenAt, k.written = next, next.FrozenAfter, boot
	k.observed = max(k.observed, time.Duration(next.Observed)*time.Second)
	return nil
}

// ClockStatus is what the service thinks of time.
type ClockStatus struct {
	Wall     time.Time
	Observed time.Duration // for how long keyward has been running, over all its starts
	Problem  string        // why nothing is deleted, expires or is rotated by the clock, and what to do; empty when all is well
}

// ClockStatus tells it without any I/O.
func (s *Service) ClockStatus() ClockStatus {
	k := s.clock
	k.mu.Lock()
	defer k.mu.Unlock()
	st := ClockStatus{Wall: k.wall(), Observed: k.running()}
	const rest = "nothing is deleted, expires or is rotated by the clock"
	if err := k.trouble(st.Wall); err != nil {
		st.Problem = fmt.Sprintf("%v: %s, and signed requests are refused. Set the clock right; if it is right now: keywardctl clock confirm", err, rest)
	} else if k.frozen(st.Wall, st.Observed) {
		left := max(k.state.Frozen.Sub(st.Wall), time.Duration(k.state.FrozenAfter)*time.Second-st.Observed).Round(time.Minute)
		st.Problem = fmt.Sprintf("%s: %s for another %s. If it is right now: keywardctl clock confirm", k.state.Reason, rest, left)
	}
	return st
}

// ClockTrusted says why the wall clock can't be right, or nil. Whoever believes it in a matter of security, such as the age
// of a signature, asks first.
func (s *Service) ClockTrusted() error {
	s.clock.mu.Lock()
	defer s.clock.mu.Unlock()
	return s.clock.trouble(s.clock.wall())
}

// What nobody calls for, as this and what the schedule does, is no action of the API, and has no row among them.
var actClockStep = &action{name: "ClockStep", kind: kindManage}

// ConfirmClock is an operator's word that the wall clock is right as it is, in spite of its steps. Only the root of the first
// account may give it, which is the appliance's administrator: all keys of all accounts hang on the clock. A clock from before the program was made is refused all the same. It keeps no event of it: whoever calls it does,
// as the administration does with all its calls.
func (s *Service) ConfirmClock(ctx context.Context, actor *Actor) error {
	if actor == nil || !isRoot(actor) || actor.Account != s.account {
		return Errorf(Denied, "only the root of account %s may vouch for the clock", s.account)
	}
	s.tick(ctx) // a step that was not seen yet is confirmed too
	k := s.clock
	k.turn.Lock()
	defer k.turn.Unlock()
	k.mu.Lock()
	wall, before := k.lastWall, k.state
	if wall.Before(k.built) {
		k.mu.Unlock()
		return Errorf(OperationRejected, "the clock says %s, and this program was made on %s: set the clock first", formatTime(wall), formatTime(k.built))
	}
	k.state.Frozen, k.state.FrozenAfter, k.state.Reason = nil, 0, ""
	k.mu.Unlock()
	if err := k.write(ctx, s.store, true); err != nil {
		k.mu.Lock()
		k.state = before
		k.mu.Unlock()
		return storeError(err)
	}
	s.log.Info().Str("by", actor.Principal).Time("time", wall).Msg("the clock was confirmed")
	s.schedule.poke()
	return nil
}

// scheduler is who does what nobody calls for, in the account of the key.
func scheduler(account string) *Actor {
	return &Actor{Principal: "acs:keyward:scheduler", Account: account}
}

// tick looks at the clock and writes down what it says.
func (s *Service) tick(ctx context.Context) {
	s.clock.turn.Lock()
	defer s.clock.turn.Unlock()
	step, write := s.clock.look()
	if step != 0 {
		text := stepText(step)
		s.log.Warn().Dur("step", step).Time("now", s.now()).Msg(text)
		_, err := audited(s, ctx, scheduler(s.account), actClockStep, false, func(c *call) (*struct{}, error) {
			c.event.Detail = text
			return new(struct{}), nil
		})
		s.note("clock", "audit", err)
	}
	if !write {
		return
	}
	s.note("clock", "write", s.clock.write(ctx, s.store, false))
}
