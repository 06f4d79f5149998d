package hsmtest

import (
	"fmt"
	"testing"
)

// WholeRun is a testing.TB that lasts as long as all tests of a package, for tokens that they share; its failures panic. TestMain calls Close after m.Run.
// It is for one goroutine at a time, such as a sync.Once.
type WholeRun struct {
	testing.TB // nil: only what is here may be called
	cleanups   []func()
}

// Helper does nothing.
func (*WholeRun) Helper() {}

// Error panics, as does Fatal: there is no test that could be marked as failed.
func (*WholeRun) Error(args ...any) { panic(fmt.Sprint(args...)) }

// Fatal panics.
func (*WholeRun) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// Fatalf panics.
func (*WholeRun) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// Cleanup has Close call f.
func (r *WholeRun) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

// Close calls what Cleanup was given, the last first; a function may give it more.
func (r *WholeRun) Close() {
	for len(r.cleanups) > 0 {
		last := r.cleanups[len(r.cleanups)-1]
		r.cleanups = r.cleanups[:len(r.cleanups)-1]
		last()
	}
}
