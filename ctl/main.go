// Package ctl is the command line of keyward.
package ctl

// Main is the program keywardctl. It returns the exit code.
func Main() int { return 0 }
