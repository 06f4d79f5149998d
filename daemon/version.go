package daemon

import "runtime/debug"

// release is set by the Makefile with -ldflags -X.
var release string

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
