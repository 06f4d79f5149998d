package ctl

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyward/keyward/hsmpool/hsmtest/faulty/control"
)

// faultOrder is one --fault.
type faultOrder struct {
	text     string // as it was given
	library  string // the module's path
	kind, fn string // fn is empty for orders that are not for a function
	standing bool   // for the whole run, and not again and again
	give     func(*control.File) error
}

// faultKinds are the orders, in the order of the help, and what stands behind the "=".
var faultKinds = []struct{ kind, argument string }{
	{"crash", "FUNCTION"}, {"exit", "FUNCTION"}, {"hang", "FUNCTION"}, {"fail", "FUNCTION:CODE"},
	{"delay", "FUNCTION:TIME"}, {"slow", "FUNCTION:FACTOR"}, {"sessions", "N"}, {"serialise", ""},
}

// faultExit is the status with which exit= ends a process: one that nothing else ends with.
const faultExit = 99

// parseFault reads one order.
func parseFault(text string) (o faultOrder, err error) {
	library, order, ok := strings.Cut(text, ":")
	if !ok || library == "" {
		return o, usagef("--fault takes MODULE:ORDER, such as bin/faulty/east.so:crash=C_Sign, not %q", text)
	}
	kind, argument, _ := strings.Cut(order, "=")
	o = faultOrder{text: text, library: library, kind: kind}
	i := slices.IndexFunc(faultKinds, func(k struct{ kind, argument string }) bool { return k.kind == kind })
	if i < 0 {
		var kinds []string
		for _, k := range faultKinds {
			kinds = append(kinds, k.kind)
		}
		return o, usagef("--fault %s: there is no order %q; there are %s", text, kind, strings.Join(kinds, ", "))
	}
	wanted := faultKinds[i].argument
	if wanted == "" && order != kind {
		return o, usagef("--fault %s: %s takes nothing more", text, kind)
	}
	if wanted != "" && argument == "" {
		return o, usagef("--fault %s: %s=%s is wanted", text, kind, wanted)
	}
	var value string
	if strings.HasPrefix(wanted, "FUNCTION") {
		var more bool
		o.fn, value, more = strings.Cut(argument, ":")
		if more != strings.Contains(wanted, ":") {
			return o, usagef("--fault %s: %s=%s is wanted", text, kind, wanted)
		}
		if !slices.Contains(control.Functions(), o.fn) {
			return o, usagef("--fault %s: PKCS#11 2.40 has no function %q; near to it are %s", text, o.fn, strings.Join(nearest(o.fn, "C_", control.Functions()), ", "))
		}
	}
	fn := o.fn
	switch kind {
	case "crash":
		o.give = func(f *control.File) error { return f.Crash(fn) }
	case "exit":
		o.give = func(f *control.File) error { return f.Exit(fn, faultExit) }
	case "hang":
		o.give = func(f *control.File) error { return f.Hang(fn) }
	case "fail":
		code, known := control.Code(strings.ToUpper(value))
		if !known {
			n, err := strconv.ParseUint(value, 0, 32)
			if err != nil {
				return o, usagef("--fault %s: the code %q is not known; give its number, such as 0x30, or one of these that are near to it: %s", text, value, strings.Join(nearest(value, "CKR_", control.Codes()), ", "))
			}
			code = uint(n)
		}
		o.give = func(f *control.File) error { return f.Fail(fn, code, control.Before, control.Always) }
	case "delay":
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 || d > time.Hour {
			return o, usagef("--fault %s: %q is not a time from 1ns to 1h; write it like 2ms", text, value)
		}
		o.standing = true
		o.give = func(f *control.File) error { return f.Delay(fn, d, 0) }
	case "slow":
		factor, err := strconv.ParseFloat(value, 64)
		if err != nil || !(factor > 1 && factor <= control.MaxSlow) {
			return o, usagef("--fault %s: %q is not a factor over 1, and up to %d; write it like 100", text, value, control.MaxSlow)
		}
		o.standing = true
		o.give = func(f *control.File) error { return f.Slow(fn, factor) }
	case "sessions":
		n, err := strconv.ParseUint(argument, 10, 32)
		if err != nil || n == 0 {
			return o, usagef("--fault %s: %q is not a number of sessions of 1 and more", text, argument)
		}
		o.standing = true
		o.give = func(f *control.File) error { f.SessionLimit(uint(n)); return nil }
	case "serialise":
		o.standing = true
		o.give = func(f *control.File) error { f.Serialise(true); return nil }
	}
	return o, nil
}

// nearest gives the five names that fewest changes make out of text, whatever their case, and with or without the prefix
// that all names have.
func nearest(text, prefix string, names []string) []string {
	bare := func(s string) string { return strings.TrimPrefix(strings.ToLower(s), strings.ToLower(prefix)) }
	sorted := slices.Clone(names)
	slices.SortStableFunc(sorted, func(a, b string) int {
		return changes(bare(text), bare(a)) - changes(bare(text), bare(b))
	})
	return sorted[:min(len(sorted), 5)]
}

// changes counts the octets to insert, remove or replace to make b out of a.
func changes(a, b string) int {
	row := make([]int, len(b)+1) // distances of what is done of a to each beginning of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := before
			if a[i] != b[j] {
				replaced++
			}
			before = row[j+1]
			row[j+1] = min(replaced, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// faultPlan is all --fault of a run. Its orders are given through files that are open from open to end.
type faultPlan struct {
	orders []faultOrder
	every  time.Duration
	files  map[string]*control.File // by library
}

// parseFaults reads the flags. throughput says whether there will be rows for orders that are given again and again.
func parseFaults(texts []string, every time.Duration, throughput bool) (*faultPlan, error) {
	if every < 100*time.Millisecond || every > time.Hour {
		return nil, usagef("--fault-every is 100ms to 1h")
	}
	p := &faultPlan{every: every}
	for _, text := range texts {
		o, err := parseFault(text)
		if err != nil {
			return nil, err
		}
		if !o.standing && !throughput {
			return nil, usagef("--fault %s: it is given in throughput mode only, which --mode leaves out", text)
		}
		for _, other := range p.orders {
			same := other.kind == o.kind || !other.standing && !o.standing // a function does one thing at a time
			if other.library == o.library && other.fn == o.fn && same {
				return nil, usagef("--fault %s and %s take one another's place; give one of them", other.text, text)
			}
		}
		p.orders = append(p.orders, o)
	}
	return p, nil
}

// any says whether there are faults at all.
func (p *faultPlan) any() bool { return len(p.orders) > 0 }

func (p *faultPlan) texts() (texts []string) {
	for _, o := range p.orders {
		texts = append(texts, o.text)
	}
	return texts
}

// open opens the control files, and frees the modules of what an earlier run left that was killed.
func (p *faultPlan) open(say func(string, ...any)) error {
	p.files = map[string]*control.File{}
	for _, o := range p.orders {
		if p.files[o.library] != nil {
			continue
		}
		f, err := control.Open(control.Path(o.library))
		if err != nil {
			err = fmt.Errorf("--fault %s: %w", o.text, err)
			if errors.Is(err, fs.ErrNotExist) {
				err = hint(err, `only a faulty module has a control file: "make faulty" in keyward's source tree makes some in bin/faulty`)
			}
			return errors.Join(err, p.end())
		}
		p.files[o.library] = f
		if f.Ordered() {
			say("%s: took back orders that were left there", o.library)
		}
		users, err := f.Processes()
		if err := errors.Join(err, f.Reset()); err != nil {
			return errors.Join(fmt.Errorf("--fault %s: %w", o.text, err), p.end())
		}
		if users == 0 {
			say("%s: no process has it open, so it meets no call; is it the module of a [[member]], and was keywardd started since? bench --help says more", o.library)
		}
	}
	return nil
}

// begin gives the standing orders.
func (p *faultPlan) begin() error {
	for _, o := range p.orders {
		if o.standing {
			if err := o.give(p.files[o.library]); err != nil {
				return fmt.Errorf("--fault %s: %w", o.text, err)
			}
		}
	}
	return nil
}

// end takes everything back and closes the files. It may be called again.
func (p *faultPlan) end() error {
	var all []error
	for library, f := range p.files {
		if err := errors.Join(f.Reset(), f.Close()); err != nil {
			all = append(all, fmt.Errorf("taking the orders to %s back: %w", library, err))
		}
	}
	p.files = nil
	return errors.Join(all...)
}

// give gives the other orders again and again, until the time that is given or until the function is called that it returns:
// that waits until all have been released, and says how many calls met one.
func (p *faultPlan) give(until time.Time) (end func() (uint64, error)) {
	stop, done := make(chan struct{}), make(chan struct{})
	var met uint64
	var err error
	go func() {
		defer close(done)
		over := time.NewTimer(time.Until(until))
		defer over.Stop()
		// wait is false when it is over.
		wait := func(d time.Duration) bool {
			timer := time.NewTimer(d)
			defer timer.Stop()
			select {
			case <-timer.C:
				return true
			case <-over.C:
			case <-stop:
			}
			return false
		}
		for {
			err = p.giveOnce()
			more := wait(p.every / 2)
			n, released := p.release()
			met += n
			if err = errors.Join(err, released); err != nil || !more || !wait(p.every/2) {
				return
			}
		}
	}()
	return func() (uint64, error) {
		close(stop)
		<-done
		return met, err
	}
}

func (p *faultPlan) giveOnce() error {
	for _, o := range p.orders {
		if !o.standing {
			if err := o.give(p.files[o.library]); err != nil {
				return fmt.Errorf("--fault %s: %w", o.text, err)
			}
		}
	}
	return nil
}

// release ends what giveOnce began, and counts the calls that met it.
func (p *faultPlan) release() (met uint64, err error) {
	for _, f := range p.files {
		err = errors.Join(err, f.Release())
	}
	for _, o := range p.orders {
		if !o.standing {
			n, counting := p.files[o.library].Fired(o.fn)
			met += uint64(n)
			err = errors.Join(err, counting)
		}
	}
	return met, err
}
