package kms

import (
	"context"
	"testing"
	"time"
)

// TestClocksOfTwoServices: they have one store, and each its own machine. Neither takes back what the other wrote.
func TestClocksOfTwoServices(t *testing.T) {
	ctx := context.Background()
	f := newPolicyFixture(t)
	type machine struct {
		*clock
		wall time.Time
		boot time.Duration
	}
	start := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	begin := func() *machine {
		m := &machine{wall: start}
		var err error
		if m.clock, err = newClock(ctx, &Config{
			Store: f.db, Now: func() time.Time { return m.wall }, Boot: func() time.Duration { return m.boot },
		}); err != nil {
			t.Fatal(err)
		}
		return m
	}
	pass := func(m *machine, d time.Duration, forget bool) {
		t.Helper()
		m.wall, m.boot = m.wall.Add(d), m.boot+d
		m.look()
		if err := m.write(ctx, f.db, forget); err != nil {
			t.Fatal(err)
		}
	}
	here, there := begin(), begin()
	pass(here, 10*time.Hour, false)
	pass(there, time.Hour, false) // that machine was stopped for nine hours
	if saved, err := f.db.Clock(ctx); err != nil || saved.Observed < 36_000 || !saved.Wall.Equal(here.wall) {
		t.Errorf("the slower one left %+v, %v", saved, err)
	}
	// What is to wait an hour by one of them does so by the other.
	if after := there.after(time.Hour); here.due(start, after) {
		t.Errorf("it is due after %d s, and that is so at once on the other machine", after)
	}

	there.wall = here.wall.Add(30 * day) // somebody sets a clock
	pass(there, time.Minute, false)
	pass(here, time.Minute, false)
	if there.settled() || here.settled() {
		t.Error("a clock was set by a month, and they go on")
	}
	if again := begin(); again.state.Frozen == nil {
		t.Error("a start forgets that a clock was set")
	}
	// An operator's word for one of them counts for both, and does not come undone.
	there.wall = here.wall
	there.look()
	there.state.Frozen, there.state.FrozenAfter, there.state.Reason = nil, 0, ""
	pass(there, 0, true)
	pass(here, time.Minute, false)
	pass(there, time.Minute, false)
	if !there.settled() || !here.settled() {
		t.Errorf("after it was confirmed: %+v and %+v", there.state, here.state)
	}
}
