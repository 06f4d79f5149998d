package moduletest

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// stress runs ../test/stress.c and gives what it printed.
func stress(t *testing.T, d *daemon, variant string, meanwhile func(done <-chan struct{}), args ...string) {
	t.Helper()
	cmd := exec.Command(built(t, variant, "stress"), append([]string{built(t, variant, "module.so")}, args...)...)
	cmd.Env = environment(d, 20)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer kill.Stop()
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() { // ends with the program
		defer close(ended)
		meanwhile(done)
	}()
	err := cmd.Wait()
	close(done)
	<-ended
	if err != nil {
		t.Errorf("stress ended with %v\n%s", err, out.Bytes())
	}
	t.Logf("%s rounds, over %d connections", bytes.TrimSpace(out.Bytes()), d.connections())
}

func nothing(<-chan struct{}) {}

// Sixteen threads, whose daemon restarts again and again, or only hangs up: no call fails, and no answer gets to another's call.
func TestThreads(t *testing.T) {
	t.Parallel()
	d := start(t)
	stress(t, d, "thread", func(done <-chan struct{}) {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n, last := 0, 0; ; n++ {
			// A request that connections break under again and again is given up, so each thread gets some through in between.
			for came := last; came < last+500; came = d.came() {
				select {
				case <-done:
					return
				case <-tick.C:
				}
			}
			last = d.came()
			if n%3 == 2 {
				d.stop()
				d.start()
			} else {
				d.hangUp()
			}
		}
	}, "16", "2", "none")
}

// The pool has as many connections as there are calls at the same time, and no more than 16; and no more than the daemon lets in.
func TestPool(t *testing.T) {
	t.Parallel()
	for _, open := range []int{0, 3} {
		d := newDaemon(t)
		d.open = open
		d.start()
		stress(t, d, "plain", nothing, "40", "1", "none")
		if open == 0 && d.connections() > 16 {
			t.Errorf("there were %d connections", d.connections())
		}
		// One thread at a time needs one.
		d = start(t)
		stress(t, d, "plain", nothing, "1", "1", "none")
		if d.connections() != 1 {
			t.Errorf("one thread had %d connections", d.connections())
		}
	}
}

// Processes are forked while threads are at work. LeakSanitizer does not look into the children: what other threads held when they were copied
// stays where it is.
func TestForkingThreads(t *testing.T) {
	t.Parallel()
	for _, variant := range []string{"plain", "thread"} {
		stress(t, start(t), variant, nothing, "8", "1", "fork")
	}
}

// The library is finalized while threads are in it: their calls end with an error.
func TestFinalizeMeanwhile(t *testing.T) {
	t.Parallel()
	for _, variant := range []string{"address", "thread"} {
		stress(t, start(t), variant, nothing, "16", "1", "finalize")
	}
}

// TestCorpus feeds what reads the daemon's answers all that fuzzing has found (../test/fuzz.c).
func TestCorpus(t *testing.T) {
	t.Parallel()
	inputs, err := filepath.Glob("../test/corpus/*")
	if err != nil || len(inputs) == 0 {
		t.Fatal("no corpus: ", err)
	}
	if out, err := exec.Command(built(t, "address", "fuzz"), inputs...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
