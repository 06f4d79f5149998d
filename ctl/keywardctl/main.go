// Command keywardctl is keyward's command line. See package ctl.
package main

import (
	"os"

	"github.com/keyward/keyward/ctl"
)

func main() { os.Exit(ctl.Main()) }
