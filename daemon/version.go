package daemon

import (
	"runtime/debug"
	"time"
)

// release is set by the Makefile with -ldflags -X.
var release string

// built is the day of the build, such as 2026-01-31, set by the Makefile with -ldflags -X.
var built string

// builtAt is a time before which no clock can be right that runs this program.
func builtAt() time.Time {
	if at, err := time.Parse(time.DateOnly, built); err == nil {
		return at
	}
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // there was no keyward before
}

// Version names this build: the release, or what the Go tool knows of the source.
func Version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
