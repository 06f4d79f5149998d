package kms

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

const (
	roundKeys = 64 // how many keys of a kind a round looks at; the next round goes on behind them
	roundRest = time.Second

	// deletionGap is the least time between two deletions, and between a start and the first: at most ten an hour, however
	// often keyward is started. If something is wrong with what is deleted, there is time to notice.
	deletionGap = 6 * time.Minute

	scheduledTimeout = time.Minute // for one act
	retryFirst       = time.Minute // then twice as long each time
	retryLast        = time.Hour
	maxProblems      = 1024 // that are remembered
	overdueAfter     = day  // a rotation that is later than that wants a person

	missedFor = time.Minute // between two looks for an object that is not there: until then an HSM that is away is known to be

	pruneTokens = 256 // client tokens in a round

	// scrubAfter is how long after a start, or after the last destruction of material, the store is made to overwrite what
	// it still holds of it. By then the clock has been written down several times, and the store wants one more commit.
	scrubAfter = 10 * time.Minute
)

// schedule is what the service does without being called: it rotates and deletes keys, lets imported material expire, undoes
// what was left unfinished and forgets client tokens. One goroutine does all of it, one thing after the other.
type schedule struct {
	wake   chan struct{} // with room for one
	driven chan struct{} // Config.Tick

	mu        sync.Mutex
	left      []*keystore.Intent       // unfinished work to undo
	deleting  map[string]bool          // keys whose destruction has begun
	worn      map[string]bool          // versions that have encrypted half of what they may
	problems  map[string]*problem      // by kind and name
	missing   map[string]time.Duration // objects that were not where they should be, by the boot clock
	overdue   int                      // rotations, in the last whole walk
	overdueAt string                   // the key of one of them
	scrubAt   time.Duration            // by the boot clock: when the store is scrubbed; 0: there is nothing to scrub

	// Of the goroutine alone.
	boot     func() time.Duration
	behind   map[keystore.DueKind]*keystore.Due // where a walk goes on
	deleted  time.Duration                      // by the boot clock: the last deletion, or the start
	late     int                                // overdue, in the walk under way
	lateAt   string
	hsmsAway bool // in this round
}

// problem is something that failed and is tried again.
type problem struct {
	code  Code
	tries int
	next  time.Duration // by the boot clock
	since time.Duration
}

// errLater says that there is nothing to do yet, and nothing is wrong.
var errLater = errors.New("kms: not yet")

func newSchedule(c *Config) *schedule {
	return &schedule{
		wake: make(chan struct{}, 1), driven: c.Tick, boot: c.Boot, deleted: c.Boot(),
		deleting: map[string]bool{}, worn: map[string]bool{}, problems: map[string]*problem{}, missing: map[string]time.Duration{},
		behind: map[keystore.DueKind]*keystore.Due{}, scrubAt: c.Boot() + scrubAfter, // an earlier process may not have come to it
	}
}

// poke has the schedule looked at soon.
func (d *schedule) poke() {
	select {
	case d.wake <- struct{}{}:
	default: // it is about to be
	}
}

// leave hands unfinished work over, which is undone as soon as it can be.
func (d *schedule) leave(intents ...*keystore.Intent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = append(d.left, intents...)
}

// wear notes that a version has encrypted half of what it may.
func (d *schedule) wear(version string) {
	d.mu.Lock()
	d.worn[version] = true
	d.mu.Unlock()
	d.poke()
}

// missed notes that an object was not found, and says whether that was so for long enough to be believed; without is it is forgotten.
func (d *schedule) missed(objectID []byte, is bool) (believed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, id := d.boot(), string(objectID)
	if !is {
		delete(d.missing, id)
		return false
	}
	first, known := d.missing[id]
	if !known {
		d.missing[id] = now
	}
	return known && now-first >= missedFor
}

// set copies one of the sets.
func (d *schedule) set(of map[string]bool) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := make([]string, 0, len(of))
	for name := range of {
		names = append(names, name)
	}
	return names
}

func (d *schedule) remove(of map[string]bool, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(of, name)
}

// ready says whether something that failed may be tried again.
func (d *schedule) ready(kind, name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.problems[kind+" "+name]
	return p == nil || d.boot() >= p.next
}

// outcome notes how something went and says whether that is news, which is worth a line in the log.
func (d *schedule) outcome(kind, name string, err error) (news bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id, now := kind+" "+name, d.boot()
	p := d.problems[id]
	if err == nil {
		delete(d.problems, id)
		return p != nil
	}
	code := AsError(err).Code
	if p == nil {
		p = &problem{code: code, since: now}
		if len(d.problems) < maxProblems {
			d.problems[id] = p
		}
		news = true
	}
	news = news || p.code != code
	p.code, p.next = code, now+min(retryLast, retryFirst<<min(p.tries, 16))
	p.tries++
	return news
}

// note is outcome with the log.
func (s *Service) note(kind, name string, err error) {
	if errors.Is(err, errLater) || errors.Is(err, keystore.ErrConflict) || errors.Is(err, Canceled) || errors.Is(err, context.Canceled) {
		return
	}
	switch news := s.schedule.outcome(kind, name, err); {
	case news && err == nil:
		s.log.Info().Str("work", kind).Str("on", name).Msg("scheduled work that had failed is done")
	case news:
		s.log.Warn().Err(err).Str("work", kind).Str("on", name).Msg("scheduled work failed and is tried again later")
	}
}

// keep runs the schedule until ctx ends.
func (s *Service) keep(ctx context.Context) {
	d := s.schedule
	if d.driven != nil {
		for {
			select {
			case <-ctx.Done():
				return
			case <-d.driven:
			}
			s.tick(ctx)
			for s.round(ctx) {
			}
			select {
			case <-ctx.Done():
				return
			case d.driven <- struct{}{}:
			}
		}
	}
	for {
		s.tick(ctx)
		pause := time.NewTimer(s.pause(ctx, s.round(ctx)))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		case <-d.wake:
			pause.Stop()
		}
	}
}

// pause is how long there is nothing to do.
func (s *Service) pause(ctx context.Context, more bool) time.Duration {
	if more {
		return roundRest
	}
	pause := tickEvery
	s.schedule.mu.Lock()
	if len(s.schedule.left) > 0 {
		pause = recoverEvery
	}
	s.schedule.mu.Unlock()
	for _, kind := range []keystore.DueKind{keystore.DueRotate, keystore.DueExpire, keystore.DueDelete} {
		now := s.now()
		first, err := s.store.Due(ctx, kind, now.Add(pause), nil, 1)
		if err == nil && len(first) > 0 && first[0].At.After(now) {
			pause = max(roundRest, first[0].At.Sub(now))
		}
	}
	return pause
}

// round does what is due, some of it if it is much; more says that the next round has something to do.
func (s *Service) round(ctx context.Context) (more bool) {
	d := s.schedule
	d.hsmsAway = false
	s.undoLeft(ctx)
	s.scrub(ctx)
	for _, id := range d.set(d.deleting) {
		if ctx.Err() == nil && d.ready("delete", id) {
			s.note("delete", id, s.purgeKey(ctx, id))
		}
	}
	if !s.clock.settled() {
		return false
	}
	for _, version := range d.set(d.worn) {
		if !d.ready("rotate", version) {
			continue
		}
		err := s.rotateEarly(ctx, version)
		if err == nil {
			d.remove(d.worn, version)
		}
		s.note("rotate", version, err)
	}
	more = s.walk(ctx, keystore.DueRotate, s.rotateDue)
	more = s.walk(ctx, keystore.DueExpire, s.expireDue) || more
	if d.boot() >= d.deleted+deletionGap {
		more = s.walk(ctx, keystore.DueDelete, s.deleteDue) || more
	}
	n, err := s.store.DropClientTokens(ctx, s.now(), pruneTokens)
	s.note("prune", "client tokens", err)
	return (more || n == pruneTokens) && ctx.Err() == nil
}

// walk does something with the next keys with which it is due. It says whether there are more behind them.
func (s *Service) walk(ctx context.Context, kind keystore.DueKind, do func(context.Context, *keystore.Key) error) bool {
	d := s.schedule
	now := s.now()
	due, err := s.store.Due(ctx, kind, now, d.behind[kind], roundKeys)
	s.note("list", string(kind), err)
	if err != nil {
		return false
	}
	for i := range due {
		id := due[i].KeyID
		if ctx.Err() != nil {
			return false
		}
		d.behind[kind] = &due[i]
		err := errLater
		if d.ready(string(kind), id) {
			err = s.doDue(ctx, id, do)
			s.note(string(kind), id, err)
		}
		if errors.Is(err, StoreUnavailable) || errors.Is(err, AuditUnavailable) {
			return false // and so it would be with all others
		}
		if errors.Is(err, HSMUnavailable) {
			d.hsmsAway = true // others need not try that in this round
		}
		if kind == keystore.DueRotate && err != nil && now.Sub(due[i].At) > overdueAfter {
			d.late++
			d.lateAt = id
		}
	}
	if len(due) == roundKeys {
		return true
	}
	d.behind[kind] = nil
	if kind == keystore.DueRotate {
		d.mu.Lock()
		d.overdue, d.overdueAt = d.late, d.lateAt
		d.mu.Unlock()
		d.late, d.lateAt = 0, ""
	}
	return false
}

func (s *Service) doDue(ctx context.Context, id string, do func(context.Context, *keystore.Key) error) error {
	k, err := s.store.PeekKey(ctx, id)
	switch {
	case errors.Is(err, keystore.ErrNotFound):
		return nil
	case err != nil:
		return storeError(err)
	case s.schedule.hsmsAway && k.Protection == kmswire.ProtectionHSM:
		return errLater
	}
	return do(ctx, k)
}

// scheduled does one act in the name of the scheduler. It passes keystore.ErrConflict and errLater on.
func (s *Service) scheduled(ctx context.Context, act *action, k *keystore.Key, do func(*call) error) error {
	inTime, cancel := context.WithTimeout(ctx, scheduledTimeout)
	defer cancel()
	_, err := audited(s, inTime, scheduler(k.Account), act, false, func(c *call) (*struct{}, error) {
		c.quiet, c.event.KeyID = true, k.ID
		err := do(c)
		if errors.Is(err, keystore.ErrConflict) {
			// Kept as the cause: the key was changed meanwhile, and is looked at again.
			err = &Error{Code: Throttled, Detail: "the key was changed meanwhile", Err: err}
		}
		if errors.Is(err, Canceled) && ctx.Err() == nil {
			err = &Error{Code: HSMUnavailable, Detail: "it took longer than " + scheduledTimeout.String(), Err: err}
		}
		return new(struct{}), err
	})
	return err
}

var actExpireMaterial = &action{name: "ExpireKeyMaterial", kind: kindManage}

// expireDue removes imported material whose time is over.
func (s *Service) expireDue(ctx context.Context, k *keystore.Key) error {
	if k.MaterialExpires == nil || !s.clock.due(*k.MaterialExpires, k.MaterialAfter) {
		return errLater
	}
	return s.scheduled(ctx, actExpireMaterial, k, func(c *call) error {
		if err := c.begun(); err != nil {
			return err
		}
		return c.forgetMaterial(k)
	})
}

var actDeleteKey = &action{name: "DeleteKey", kind: kindManage}

// deletable says whether the time of a key has come.
func (s *Service) deletable(k *keystore.Key) bool {
	return k.Deleting || k.State == string(kmswire.PendingDeletion) && k.DeleteAt != nil && s.clock.due(*k.DeleteAt, k.DeleteAfter)
}

// deleteDue begins the destruction of a key whose time has come.
func (s *Service) deleteDue(ctx context.Context, k *keystore.Key) error {
	d := s.schedule
	if now := d.boot(); !s.deletable(k) || now < d.deleted+deletionGap {
		return errLater
	} else if !k.Deleting {
		d.deleted = now // also if it fails: what fails now must not come with others later
	}
	return s.purgeKey(ctx, k.ID)
}

// purgeKey destroys a key, or goes on with it.
func (s *Service) purgeKey(ctx context.Context, id string) error {
	k, err := s.store.Key(ctx, id)
	if errors.Is(err, keystore.ErrNotFound) {
		s.schedule.remove(s.schedule.deleting, id)
		return nil
	} else if err != nil {
		return storeError(err)
	}
	if !s.deletable(k) {
		return errLater // it was taken back
	}
	err = s.scheduled(ctx, actDeleteKey, k, func(c *call) error {
		c.event.Detail = "wanted by " + k.ScheduledBy
		if err := c.begun(); err != nil {
			return err
		}
		return c.purge(k)
	})
	if err == nil {
		s.schedule.remove(s.schedule.deleting, id)
	}
	return err
}

// scrub has the store overwrite what it still holds of destroyed material.
func (s *Service) scrub(ctx context.Context) {
	d := s.schedule
	d.mu.Lock()
	due := d.scrubAt != 0 && d.boot() >= d.scrubAt
	d.mu.Unlock()
	if !due || !d.ready("scrub", "store") {
		return
	}
	err := s.store.Scrub(ctx)
	s.note("scrub", "store", err)
	if err == nil {
		d.mu.Lock()
		d.scrubAt = 0
		d.mu.Unlock()
	}
}

// condemn notes that the destruction of a key has begun.
func (d *schedule) condemn(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deleting[id] = true
}

// destroyed notes that the store may still hold material that was destroyed.
func (d *schedule) destroyed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.scrubAt = d.boot() + scrubAfter
}

// undoLeft undoes what was left unfinished, as far as that is possible now.
func (s *Service) undoLeft(ctx context.Context) {
	d := s.schedule
	d.mu.Lock()
	left := d.left
	d.left = nil
	d.mu.Unlock()
	for i, intent := range left {
		if ctx.Err() != nil {
			d.leave(left[i:]...)
			return
		}
		err := errLater
		if d.ready("undo", intent.ID) {
			err = s.undoInTime(ctx, intent)
			s.note("undo", intent.ID, err)
		}
		if err != nil {
			d.leave(intent)
		}
	}
}

// Problems are the things of the schedule that want a person, each with what to do.
func (s *Service) Problems() []string {
	var all []string
	if c := s.ClockStatus(); c.Problem != "" {
		all = append(all, c.Problem)
	}
	d := s.schedule
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.overdue > 0 {
		why := "the log says why"
		if p := d.problems[string(keystore.DueRotate)+" "+d.overdueAt]; p != nil {
			why = p.code.Error()
		}
		all = append(all, fmt.Sprintf("%d keys should have been rotated more than a day ago, such as %s (%s); it is tried again at least every hour", d.overdue, d.overdueAt, why))
	}
	now := d.boot()
	for _, id := range slices.Sorted(maps.Keys(d.problems)) {
		p := d.problems[id]
		kind, name, _ := strings.Cut(id, " ")
		if now-p.since > overdueAfter && (kind == string(keystore.DueDelete) || kind == "clock") {
			all = append(all, fmt.Sprintf("%s %s fails since more than a day (%s); the log says why", kind, name, p.code.Error()))
		}
	}
	return all
}
