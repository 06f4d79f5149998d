// Command keywardd is the key management daemon. See package daemon.
package main

import (
	"os"

	"github.com/keyward/keyward/daemon"
)

func main() { os.Exit(daemon.Main()) }
