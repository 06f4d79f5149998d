package ctl

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestBarRate looks at the first frame of a progress bar: it comes when a rate can be told, and tells a true one.
func TestBarRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var screen bytes.Buffer
		b := newBar(&screen, 100<<20, "encrypting")
		for range 4 {
			b.add(1 << 20)
			if screen.Len() > 0 {
				t.Fatalf("after %v: %q", time.Since(b.begun), &screen)
			}
			time.Sleep(barDelay / 4)
		}
		b.add(1 << 20)
		if got := screen.String(); !strings.Contains(got, "5.0/100 MiB, 10 MiB/s") {
			t.Errorf("the first frame is %q", got)
		}
		b.done()
	})
	synctest.Test(t, func(t *testing.T) {
		var screen bytes.Buffer
		b := newBar(&screen, -1, "encrypting")
		time.Sleep(barDelay)
		b.add(1 << 20)
		b.done()
		shown := screen.Len()
		time.Sleep(time.Minute)
		if shown == 0 || screen.Len() != shown {
			t.Errorf("after its end a bar without a size went on: %q", screen.String()[shown:])
		}
	})
	var none *bar
	none.add(1)
	none.done()
}
