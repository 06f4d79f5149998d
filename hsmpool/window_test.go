package hsmpool

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"
)

// tokenModel is an HSM behind a worker with lanes, in a time of its own: so many operations at once, each of which takes as long
// as service says at its beginning. The worker's queue, ahead and took are as the executor makes them; jobs come without end,
// and as many are with the worker as the window allows. Nothing here waits or depends on a real clock.
type tokenModel struct {
	lanes   int
	servers int                                     // operations that the HSM does at once; the others wait in it
	service func(at, n time.Duration) time.Duration // of the n-th operation, begun at

	w       window
	now     time.Duration
	ready   []modelTask // at the worker, wait for a lane
	calls   int         // in the HSM
	waiting []modelTask // in the HSM, wait for a server
	done    modelHeap   // being done
	jobs    int
	sizes   []int // after each job
}

// startOfModel is when the model's time begins.
var startOfModel = time.Unix(1_000_000_000, 0)

type modelTask struct {
	ahead int
	lane  time.Duration // when a lane took it
	end   time.Duration
}

type modelHeap []modelTask

func (h modelHeap) Len() int           { return len(h) }
func (h modelHeap) Less(i, j int) bool { return h[i].end < h[j].end }
func (h modelHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *modelHeap) Push(x any)        { *h = append(*h, x.(modelTask)) }
func (h *modelHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

func newTokenModel(lanes, servers int, service func(at, n time.Duration) time.Duration) *tokenModel {
	return &tokenModel{lanes: lanes, servers: servers, service: service, w: newWindow(lanes)}
}

func always(d time.Duration) func(at, n time.Duration) time.Duration {
	return func(time.Duration, time.Duration) time.Duration { return d }
}

// run goes on for d of the model's time.
func (m *tokenModel) run(d time.Duration) *tokenModel {
	end := m.now + d
	for m.now < end {
		m.move()
		x := heap.Pop(&m.done).(modelTask)
		m.now = x.end
		m.calls--
		m.jobs++
		m.w.add(&task{op: EncryptGCM, ahead: x.ahead, took: x.end - x.lane}, startOfModel.Add(m.now))
		m.sizes = append(m.sizes, m.w.size)
	}
	return m
}

// move fills the window, the lanes and the HSM, as far as there is room.
func (m *tokenModel) move() {
	for m.inHand() < m.w.size {
		m.ready = append(m.ready, modelTask{ahead: len(m.ready)})
	}
	m.w.limited = true // somebody always waits
	for len(m.ready) > 0 && m.calls < m.lanes {
		x := m.ready[0]
		m.ready = m.ready[1:]
		x.lane = m.now
		m.calls++
		m.waiting = append(m.waiting, x)
	}
	for len(m.waiting) > 0 && len(m.done) < m.servers {
		x := m.waiting[0]
		m.waiting = m.waiting[1:]
		x.end = m.now + m.service(m.now, time.Duration(m.jobs))
		heap.Push(&m.done, x)
	}
}

func (m *tokenModel) inHand() int { return len(m.ready) + m.calls }

// span gives the least and the greatest size of the last so many jobs.
func (m *tokenModel) span(jobs int) (least, most int) {
	last := m.sizes[len(m.sizes)-min(jobs, len(m.sizes)):]
	least, most = last[0], last[0]
	for _, n := range last {
		least, most = min(least, n), max(most, n)
	}
	return least, most
}

func TestWindowSettles(t *testing.T) {
	for _, c := range []struct {
		name           string
		lanes, servers int
		service        time.Duration
		run            time.Duration
		least, most    int
	}{
		// A serialised token: one job in it, and one or two that wait where nobody else can have them; a trial may make it four.
		{"100 ms, one at a time, 16 sessions", 16, 1, 100 * time.Millisecond, 20 * time.Minute, 1, 4},
		{"100 ms, one at a time, one session", 1, 1, 100 * time.Millisecond, 2 * time.Minute, 1, 3},
		{"20 ms, one at a time, 16 sessions", 16, 1, 20 * time.Millisecond, time.Minute, 1, 4},
		// A pipe: all sessions at work, and some jobs on their way.
		{"2 ms, 16 sessions", 16, 16, 2 * time.Millisecond, 30 * time.Second, 16, 48},
		{"20 ms, 16 sessions", 16, 16, 20 * time.Millisecond, 2 * time.Minute, 16, 48},
		{"2 ms, 4 at once of 16 sessions", 16, 4, 2 * time.Millisecond, 30 * time.Second, 4, 20},
		// A token on this machine: as many as take two milliseconds.
		{"60 us, 2 lanes", 2, 2, 60 * time.Microsecond, 5 * time.Second, 17, 160},
		{"10 us, 2 lanes", 2, 2, 10 * time.Microsecond, 5 * time.Second, 100, 2 * jobsPerLane},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newTokenModel(c.lanes, c.servers, always(c.service)).run(c.run)
			least, most := m.span(m.jobs / 2)
			t.Logf("between %d and %d", least, most)
			if least < c.least || most > c.most {
				t.Errorf("its size is between %d and %d, should be within %d and %d", least, most, c.least, c.most)
			}
			if most > c.lanes*jobsPerLane {
				t.Errorf("more than %d for each lane", jobsPerLane)
			}
		})
	}
}

// TestWindowFillsPipe never lets a token that can do 16 things at once do fewer for long.
func TestWindowFillsPipe(t *testing.T) {
	m := newTokenModel(16, 16, always(2*time.Millisecond)).run(30 * time.Second)
	few := 0
	for _, n := range m.sizes {
		if n < 16 {
			few++
		}
	}
	if few*100 > len(m.sizes) {
		t.Errorf("for %d of %d jobs the window had fewer places than the token sessions", few, len(m.sizes))
	}
	// What 16 sessions can do in 30 s of 2 ms.
	if best := 16 * 15_000; m.jobs < best*98/100 {
		t.Errorf("%d jobs were done of the %d that could be", m.jobs, best)
	}
}

// TestWindowSlower makes a token a hundred times slower in the middle, and then fast again: it must do all the time what it can.
func TestWindowSlower(t *testing.T) {
	for _, c := range []struct {
		name           string
		lanes, servers int
	}{{"16 sessions", 16, 16}, {"one at a time", 16, 1}} {
		t.Run(c.name, func(t *testing.T) {
			slow := false
			const fast, slower = 2 * time.Millisecond, 200 * time.Millisecond
			m := newTokenModel(c.lanes, c.servers, func(time.Duration, time.Duration) time.Duration {
				if slow {
					return slower
				}
				return fast
			})
			m.run(10 * time.Second)
			slow = true
			// At once, and when it has got used to it.
			for _, phase := range []time.Duration{30 * time.Second, 10 * time.Minute} {
				before := m.jobs
				m.run(phase)
				if done, best := m.jobs-before, int(phase/slower)*c.servers; done < best/2 {
					t.Errorf("within %v %d jobs were done of the %d that could be", phase, done, best)
				}
			}
			least, most := m.span(100)
			t.Logf("slow: between %d and %d", least, most)
			// A quarter of the rate may be lost by what a trial counts as no change.
			if least < int(rateKept*float64(c.servers)) || most > 3*c.lanes {
				t.Errorf("slow: its size is between %d and %d, with %d operations at once", least, most, c.servers)
			}
			if c.servers == 1 && most > 4 {
				t.Errorf("slow: %d jobs wait at a token that does one at a time", most)
			}
			slow = false
			m.run(10 * time.Second)
			before := m.jobs
			m.run(10 * time.Second)
			if done, best := m.jobs-before, int(10*time.Second/fast)*c.servers; done < best*9/10 {
				t.Errorf("fast again: %d jobs were done of the %d that could be", done, best)
			}
		})
	}
}

// TestWindowForgets looks at what jobs are measured by: the best pace of their kind, until one that was alone shows that it can't be
// kept any more.
func TestWindowForgets(t *testing.T) {
	w := newWindow(4)
	give := func(took time.Duration) { w.add(&task{op: EncryptGCM, took: took}, startOfModel) }
	p := &w.paces[(&task{op: EncryptGCM}).class()]
	give(time.Millisecond)
	give(100 * time.Millisecond)
	if p.lowest != time.Millisecond {
		t.Errorf("the least is %v", p.lowest)
	}
	w.size = 1
	give(100 * time.Millisecond) // may have begun when there were four
	if p.lowest != time.Millisecond {
		t.Errorf("with another beside it: %v", p.lowest)
	}
	w.size = 1
	give(90 * time.Millisecond)
	if p.lowest != 90*time.Millisecond {
		t.Errorf("after one that was alone: %v", p.lowest)
	}
	// Each kind of job has its own, and one that had to load its key says nothing.
	w.size = 4
	w.add(&task{op: SignECDSA, key: wireKeys[2], took: time.Second}, startOfModel)
	if p.lowest != 90*time.Millisecond || w.paces[(&task{op: SignECDSA, key: wireKeys[2]}).class()].lowest != time.Second {
		t.Error("one kind is measured by another")
	}
	before := w
	w.add(&task{op: EncryptGCM, took: 1, loaded: true}, startOfModel)
	if w != before {
		t.Error("a job that loaded its key was counted")
	}
}

// TestWindowVaries has tokens whose operations take now longer and now shorter, and callers with bad data, which take no time at all.
// Neither is waiting: as much must be done as the sessions can do.
func TestWindowVaries(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const mean = 20 * time.Millisecond
	for _, c := range []struct {
		name    string
		service func(n time.Duration) time.Duration
		part    int // percent
	}{
		{"15 to 25 ms", func(time.Duration) time.Duration { return mean*3/4 + time.Duration(r.Int64N(int64(mean/2))) }, 95},
		{"10 to 30 ms", func(time.Duration) time.Duration { return mean/2 + time.Duration(r.Int64N(int64(mean))) }, 90},
		{"0 to 40 ms", func(time.Duration) time.Duration { return time.Duration(r.Int64N(int64(2 * mean))) }, 85},
		{"exponential", func(time.Duration) time.Duration { return time.Duration(r.ExpFloat64() * float64(mean)) }, 80},
		{"one in ten with bad data", func(n time.Duration) time.Duration {
			if n%10 == 0 {
				return 100 * time.Microsecond
			}
			return mean
		}, 90},
		{"every other with bad data", func(n time.Duration) time.Duration { return 100*time.Microsecond + n%2*(mean*2) }, 80},
		{"one in a hundred takes half a second", func(n time.Duration) time.Duration {
			if n%100 == 0 {
				return 500 * time.Millisecond
			}
			return mean
		}, 70},
	} {
		t.Run(c.name, func(t *testing.T) {
			var taken time.Duration
			m := newTokenModel(16, 16, func(_, n time.Duration) time.Duration {
				d := c.service(n)
				taken += d
				return d
			})
			const span = 10 * time.Minute
			m.run(span)
			least, most := m.span(m.jobs / 2)
			busy := int(100 * taken / (16 * span))
			t.Logf("between %d and %d, %d%% busy", least, most, busy)
			if busy < c.part {
				t.Errorf("the sessions were at work for %d%% of the time, should be for %d%%", busy, c.part)
			}
			if most > 16*8 {
				t.Errorf("%d jobs for 16 sessions", most)
			}
		})
	}
}

// TestWindowGrowsOnlyIfLimited has nobody wait: a window that is large enough stays as it is.
func TestWindowGrowsOnlyIfLimited(t *testing.T) {
	w := newWindow(4)
	for i := range 1000 {
		w.add(&task{op: EncryptGCM, took: time.Millisecond}, startOfModel.Add(time.Duration(i)*time.Millisecond))
	}
	if w.size != 4 {
		t.Errorf("its size is %d", w.size)
	}
	// And it has a bound.
	for i := range 100_000 {
		w.limited = true
		w.add(&task{op: EncryptGCM, took: time.Microsecond}, startOfModel.Add(time.Hour+time.Duration(i)*time.Microsecond))
	}
	if w.size != 4*jobsPerLane {
		t.Errorf("its size is %d, and %d the most", w.size, 4*jobsPerLane)
	}
}
