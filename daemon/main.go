// Package daemon assembles keyward and runs it.
package daemon

// Main is the program keywardd. It returns the exit code.
func Main() int { return 0 }
