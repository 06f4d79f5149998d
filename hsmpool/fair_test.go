package hsmpool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func ticketOf(principal string) *ticket { return &ticket{principal: principal} }

// order takes everything out and gives whose turn it was.
func order(q *fairQueue) string {
	var b strings.Builder
	for _, t := range q.all() {
		b.WriteString(t.principal)
	}
	return b.String()
}

func TestFairOrder(t *testing.T) {
	for _, c := range []struct {
		shares map[string]Share
		pushed string
		want   string
	}{
		{nil, "", ""},
		{nil, "aaa", "aaa"},
		{nil, "aaaaabbb", "abababaa"},
		{nil, "aaaabcc", "abcacaa"},
		{map[string]Share{"a": {Weight: 3}}, "bbbbaaaaaaaa", "baaabaaabaab"},
		{map[string]Share{"a": {Weight: 2}, "b": {Weight: 3}}, "aaaaabbbbbbbcc", "aabbbcaabbbcab"},
		{map[string]Share{"a": {Weight: 0}, "b": {Weight: -5}}, "aabb", "abab"}, // no weight is 1
		{map[string]Share{"a": {Weight: 100}}, "aaab", "aaab"},
	} {
		var q fairQueue
		q.setShares(c.shares)
		for _, p := range c.pushed {
			q.push(ticketOf(string(p)))
		}
		if q.waiting() != len(c.pushed) {
			t.Errorf("%s: %d wait", c.pushed, q.waiting())
		}
		if got := order(&q); got != c.want {
			t.Errorf("%s: %s, want %s", c.pushed, got, c.want)
		}
		if q.n != 0 || q.dead != 0 || len(q.lines) != 0 || len(q.turn) != 0 || q.peek() != nil {
			t.Errorf("%s: left: %+v", c.pushed, q)
		}
	}
}

// TestFairFIFO keeps the order of one principal's own jobs over many turns and a growing ring.
func TestFairFIFO(t *testing.T) {
	var q fairQueue
	var in []*ticket
	out := 0
	for range 50 {
		for range 7 {
			x := ticketOf("a")
			in = append(in, x)
			q.push(x)
		}
		for range 5 {
			if x := q.peek(); x != in[out] {
				t.Fatalf("ticket %d is out of order", out)
			}
			q.pop()
			out++
		}
	}
	for _, x := range q.all() {
		if x != in[out] {
			t.Fatalf("ticket %d is out of order", out)
		}
		out++
	}
	if out != len(in) {
		t.Errorf("%d of %d came out", out, len(in))
	}
}

// fillQueue pushes for a principal as long as the queue has room for it, and says how many that were.
func fillQueue(q *fairQueue, principal string, room int) int {
	for n := 0; ; n++ {
		if q.room(principal, room-q.waiting()) == 0 {
			return n
		}
		q.push(ticketOf(principal))
	}
}

func TestFairRoom(t *testing.T) {
	const room = 4096
	var q fairQueue
	if n := fillQueue(&q, "a", room); n != room/2 {
		t.Errorf("one alone fills %d of %d", n, room)
	}
	// Half of what is left, again and again: ten newcomers more find room after the first ten.
	for i, left := 0, room/2; i < 11; i++ {
		name := fmt.Sprint("b", i)
		n := fillQueue(&q, name, room)
		if n != (left+1)/2 {
			t.Errorf("newcomer %d fills %d of the %d that are left", i, n, left)
		}
		left -= n
	}
	if q.waiting() > room {
		t.Errorf("%d wait in room for %d", q.waiting(), room)
	}
	// As long as a place is free, whoever has none gets it.
	for free := 1; free < 5; free++ {
		if q.room("new", free) == 0 {
			t.Errorf("no room for a newcomer with %d places free", free)
		}
	}
	if q.room("new", 0) != 0 || q.room("new", -3) != 0 {
		t.Error("room where none is")
	}
	// Weight is a part of the room too: three of four.
	q = fairQueue{}
	q.setShares(map[string]Share{"heavy": {Weight: 3}, "bounded": {Queue: 5}, "both": {Weight: 1000, Queue: 7}})
	if n := fillQueue(&q, "heavy", room); n != room*3/4 {
		t.Errorf("of weight 3 fills %d of %d", n, room)
	}
	if n := fillQueue(&q, "bounded", room); n != 5 {
		t.Errorf("a limit of 5 let %d wait", n)
	}
	if n := fillQueue(&q, "both", room); n != 7 {
		t.Errorf("a limit of 7 let %d wait", n)
	}
	// Who was served may wait again; who gave up too.
	gave := q.lines["bounded"].fifo.head()
	q.abandon(gave, 100)
	if q.room("bounded", 100) != 1 {
		t.Errorf("room for %d after one gave up", q.room("bounded", 100))
	}
}

func TestFairAbandoned(t *testing.T) {
	var q fairQueue
	var all []*ticket
	for i := range 30 {
		x := ticketOf(string("abc"[i%3]))
		all = append(all, x)
		q.push(x)
	}
	for i, x := range all {
		if i%3 == 0 || i%2 == 0 { // all of a, half of the others
			q.abandon(x, 100)
		}
	}
	if q.waiting() != 10 || q.n != 30 {
		t.Fatalf("%d wait, of %d that are kept", q.waiting(), q.n)
	}
	if got := order(&q); got != strings.Repeat("bc", 5) {
		t.Errorf("%s", got)
	}
	if q.n != 0 || q.dead != 0 || len(q.lines) != 0 {
		t.Errorf("left: %+v", q)
	}
	// Those who give up again and again don't fill the memory of a queue that stands still.
	for range 10_000 {
		x := ticketOf("a")
		q.push(x)
		q.abandon(x, 16)
		if q.n > 17 || q.waiting() != 0 {
			t.Fatalf("%d are kept, %d wait", q.n, q.waiting())
		}
	}
}

// TestFairSweepKeepsTurn has lines before the one whose turn it is swept away: it still is its turn.
func TestFairSweepKeepsTurn(t *testing.T) {
	var q fairQueue
	one := ticketOf("a")
	q.push(one)
	for _, p := range "bbccdd" {
		q.push(ticketOf(string(p)))
	}
	q.setShares(nil)
	// a's turn goes by: it has had its credit, and something of it still waits.
	more := ticketOf("a")
	q.push(more)
	q.peek()
	q.pop()
	if x := q.peek(); x.principal != "b" {
		t.Fatalf("it is the turn of %s", x.principal)
	}
	q.abandon(more, 0) // swept at once: a's line is dropped
	if got := order(&q); got != "bcdbcd" {
		t.Errorf("%s", got)
	}
}

func TestFairSetShares(t *testing.T) {
	var q fairQueue
	for range 12 {
		q.push(ticketOf("a"))
	}
	for range 4 {
		q.push(ticketOf("b"))
	}
	q.peek()
	q.pop() // a's turn is over
	q.setShares(map[string]Share{"a": {Weight: 3}})
	if got := order(&q); got != "baaabaaabaaabaa" {
		t.Errorf("%s", got)
	}
	for range 6 {
		q.push(ticketOf("a"))
	}
	q.push(ticketOf("b"))
	q.push(ticketOf("b"))
	q.peek()
	q.pop()          // two more by the old weight
	q.setShares(nil) // none more than one by the new
	if got := order(&q); got != "ababaaa" {
		t.Errorf("%s", got)
	}
}

// naiveFair is the queue as one would write it down: lines in a list, turns by counting.
type naiveFair struct {
	lines []*naiveLine
	at    int
	share func(string) Share
}

type naiveLine struct {
	principal string
	tickets   []*ticket
	credit    int
}

func (q *naiveFair) push(x *ticket) {
	for _, l := range q.lines {
		if l.principal == x.principal {
			l.tickets = append(l.tickets, x)
			return
		}
	}
	q.lines = append(q.lines, &naiveLine{x.principal, []*ticket{x}, max(q.share(x.principal).Weight, 1)})
}

func (q *naiveFair) remove(i int) {
	q.lines = slices.Delete(q.lines, i, i+1)
	if i < q.at {
		q.at--
	}
	if q.at >= len(q.lines) {
		q.at = 0
	}
}

func (q *naiveFair) pop() *ticket {
	for len(q.lines) > 0 {
		l := q.lines[q.at]
		for len(l.tickets) > 0 && !l.tickets[0].queued {
			l.tickets = l.tickets[1:]
		}
		if len(l.tickets) == 0 {
			q.remove(q.at)
			continue
		}
		if l.credit == 0 {
			l.credit = max(q.share(l.principal).Weight, 1)
			q.at = (q.at + 1) % len(q.lines)
			continue
		}
		l.credit--
		x := l.tickets[0]
		l.tickets = l.tickets[1:]
		if len(l.tickets) == 0 {
			q.remove(q.at)
		}
		return x
	}
	return nil
}

// TestFairModel does random things to the queue and to the naive one, and compares what comes out.
func TestFairModel(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(1, seed))
		var q fairQueue
		shares := map[string]Share{}
		naive := &naiveFair{share: func(p string) Share { return shares[p] }}
		live := map[*ticket]bool{}
		for step := range 2000 {
			switch n := r.IntN(100); {
			case n < 50:
				x := ticketOf(string('a' + rune(r.IntN(1+int(seed)%9))))
				q.push(x)
				naive.push(x)
				live[x] = true
			case n < 85:
				x := q.peek()
				if x != q.peek() {
					t.Fatal("a second look sees another ticket")
				}
				if x != nil {
					q.pop()
					x.queued = true // for the other, which looks at it too
				}
				want := naive.pop()
				if x != nil {
					x.queued = false
				}
				if x != want || x != nil && !live[x] {
					t.Fatalf("seed %d, step %d: not the ticket whose turn it is", seed, step)
				}
				delete(live, x)
			case n < 99:
				for x := range live {
					// Sweeping is the one thing that the naive one does not do: it changes nothing that can be seen, as long as no
					// line gets empty by it that would else be found empty later, and comes back meanwhile.
					q.abandon(x, 1<<30)
					delete(live, x)
					break
				}
			default:
				next := map[string]Share{}
				for p := 'a'; p < 'j'; p++ {
					next[string(p)] = Share{Weight: r.IntN(5)}
				}
				shares = next
				q.setShares(next)
				for _, l := range naive.lines {
					l.credit = min(l.credit, max(next[l.principal].Weight, 1))
				}
			}
			if q.waiting() != len(live) {
				t.Fatalf("seed %d, step %d: %d wait, not %d", seed, step, q.waiting(), len(live))
			}
			sum := 0
			for p, l := range q.lines {
				sum += l.live
				if l.principal != p || !slices.Contains(q.turn, l) {
					t.Fatalf("seed %d, step %d: line %s is lost", seed, step, p)
				}
			}
			if sum != len(live) || len(q.turn) != len(q.lines) {
				t.Fatalf("seed %d, step %d: %d live, not %d", seed, step, sum, len(live))
			}
		}
		if got := len(q.all()); got != len(live) {
			t.Errorf("seed %d: %d came out at the end, not %d", seed, got, len(live))
		}
	}
}

// heldPool is a pool of one worker whose jobs wait for release; log gets the principal of each job in the order in which they
// were run. A job says whose it is by its input.
func heldPool(t *testing.T, queue int, shares map[string]Share) (p *Pool, release func(), log func() string) {
	t.Helper()
	held := make(chan struct{})
	var once sync.Once
	release = func() { once.Do(func() { close(held) }) }
	var mu sync.Mutex
	var ran []byte
	w := &fakeWorker{lanes: 1, do: func(x *task) *Error {
		if len(x.in) > 0 {
			<-held
			mu.Lock()
			ran = append(ran, x.in[0])
			mu.Unlock()
		}
		return echo(x)
	}}
	p = fakePool(t, queue, w)
	t.Cleanup(release) // before the pool is closed
	if err := p.Update(Config{Members: []MemberConfig{*p.members[0].cfg}, Queue: queue, Shares: shares}); err != nil {
		t.Fatal(err)
	}
	return p, release, func() string {
		mu.Lock()
		defer mu.Unlock()
		return string(ran)
	}
}

// pushJobs queues n jobs of a principal one by one, as so many callers would, and says what became of them and how many were refused.
func pushJobs(p *Pool, principal string, n int) (tickets []*ticket, full int) {
	for range n {
		j := anyJob(principal)
		j.In = []byte(principal)
		x := &ticket{wait: newWaiter(1)}
		if e := p.prepare(j, x); e != nil {
			panic(e) // a mistake of the test
		}
		if _, e := p.push([]*ticket{x}); e != nil {
			if e.Kind != KindFull {
				panic(e)
			}
			full++
			continue
		}
		tickets = append(tickets, x)
	}
	return tickets, full
}

// TestFairPoolFlood has one principal flood the pool before another comes: the other is served as if half the pool were its own.
func TestFairPoolFlood(t *testing.T) {
	p, release, log := heldPool(t, 16_384, nil)
	flood, full := pushJobs(p, "A", 5000)
	if full != 0 {
		t.Fatalf("%d of the flood had no room", full)
	}
	others, full := pushJobs(p, "B", 500)
	if full != 0 {
		t.Fatalf("%d of B had no room", full)
	}
	p.mu.Lock()
	ahead := p.members[0].inFlight() // what the worker had before B came
	p.mu.Unlock()
	release()
	for _, x := range append(flood, others...) {
		within(t, "a job", 20*time.Second, x.wait.done)
		if x.err != nil {
			t.Fatal(x.err)
		}
	}
	ran := log()
	if len(ran) != 5500 {
		t.Fatalf("%d jobs were run", len(ran))
	}
	// From B's first to its last there is one of A for each of B.
	first, last := strings.IndexByte(ran, 'B'), strings.LastIndexByte(ran, 'B')
	if first > ahead+2 {
		t.Errorf("the first of B came after %d of A, of which %d were there before", first, ahead)
	}
	if between := strings.Count(ran[first:last], "A"); between > 505 || between < 495 {
		t.Errorf("%d of A between the 500 of B", between)
	}
	for n, i := 0, first; i <= last; i++ {
		if n++; ran[i] == 'B' {
			n = 0
		}
		if n > 2 {
			t.Fatalf("%d of A in a row while B waited", n)
		}
	}
}

// TestFairPoolFull has one principal fill its part of the queue: it is told so, and others still get in.
func TestFairPoolFull(t *testing.T) {
	const room = 256
	p, release, _ := heldPool(t, room, map[string]Share{"C": {Queue: 10}})
	a, full := pushJobs(p, "A", 5000)
	if n := p.Totals().Waiting; full != 5000-len(a) || n != room/2 {
		t.Errorf("%d of A wait in a room of %d, %d were refused", n, room, full)
	}
	j := anyJob("A")
	err := p.Do(t.Context(), j)
	if KindOf(err) != KindFull || !strings.Contains(err.Error(), "principal") {
		t.Errorf("one more: %v", err)
	}
	b, full := pushJobs(p, "B", 30)
	if full != 0 {
		t.Errorf("%d of B were refused", full)
	}
	c, full := pushJobs(p, "C", 30)
	if full != 20 {
		t.Errorf("%d of 30 were refused to C, which may have 10 waiting", full)
	}
	totals := p.Totals()
	if totals.Throttled != uint64(5000-len(a)+1+20) || totals.Principals != 3 || totals.Room != room {
		t.Errorf("%+v", totals)
	}
	// Newcomers until there is no place: never more than there are, and each gets in while there is one.
	got := 0
	for i := range 2 * room {
		x, _ := pushJobs(p, fmt.Sprint("n", i), 1)
		got += len(x)
		a = append(a, x...)
	}
	if n := p.Totals().Waiting; n != room || got != room-room/2-30-10 {
		t.Errorf("%d wait in a room of %d, %d newcomers got in", n, room, got)
	}
	if err := p.Do(t.Context(), anyJob("last")); KindOf(err) != KindFull || !strings.Contains(err.Error(), "the queue is full") {
		t.Errorf("into a full queue: %v", err)
	}
	release()
	for _, x := range slices.Concat(a, b, c) {
		within(t, "a job", 20*time.Second, x.wait.done)
	}
	if _, full := pushJobs(p, "A", 1); full != 0 {
		t.Error("no room in an empty queue")
	}
}

// TestFairPoolWeights has three principals wait with many jobs each: what is run is shared out by their weights.
func TestFairPoolWeights(t *testing.T) {
	p, release, log := heldPool(t, 1<<16, map[string]Share{"B": {Weight: 2}, "C": {Weight: 5}})
	var all []*ticket
	for _, name := range []string{"A", "B", "C"} {
		x, full := pushJobs(p, name, 2000)
		if full != 0 {
			t.Fatalf("%d of %s had no room", full, name)
		}
		all = append(all, x...)
	}
	release()
	for _, x := range all {
		within(t, "a job", 20*time.Second, x.wait.done)
	}
	ran := log()
	// As long as all three wait, from the first of C on.
	part := ran[strings.IndexByte(ran, 'C'):][:1600]
	for name, want := range map[string]int{"A": 200, "B": 400, "C": 1000} {
		if n := strings.Count(part, name); n < want-10 || n > want+10 {
			t.Errorf("%d of %s among 1600, want %d", n, name, want)
		}
	}
}

// TestFairPoolGiveUp has callers give up all the time while nothing moves: there is room for those who stay.
func TestFairPoolGiveUp(t *testing.T) {
	const room = 64
	p, release, _ := heldPool(t, room, nil)
	stuck, _ := pushJobs(p, "A", 1) // keeps the lane
	var gaveUp atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				ctx, cancel := context.WithCancel(context.Background())
				go cancel()
				if KindOf(p.Do(ctx, anyJob("B"))) == KindCanceled {
					gaveUp.Add(1)
				}
			}
		})
	}
	wg.Wait()
	p.mu.Lock()
	kept, waiting := p.shared.n, p.waiting()
	p.mu.Unlock()
	if waiting != 0 || kept > room+1 {
		t.Errorf("%d wait, %d are kept", waiting, kept)
	}
	if gaveUp.Load() == 0 {
		t.Error("nobody gave up")
	}
	if _, full := pushJobs(p, "B", room/2); full != 0 {
		t.Errorf("no room for %d", full)
	}
	release()
	within(t, "the first", 20*time.Second, stuck[0].wait.done)
}
