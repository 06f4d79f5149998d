package hsmpool

// fairQueue holds tickets that wait, a line for each principal, and gives them out in turn, as many at a time as a
// principal's weight says. So a flood from one makes nobody else wait longer than its share. The zero fairQueue has no
// shares. It is guarded by Pool.mu.
type fairQueue struct {
	shares map[string]Share
	lines  map[string]*line
	turn   []*line // lines with tickets in them, a ring that begins at at
	at     int
	n      int // tickets, abandoned ones included
	dead   int // abandoned ones
	spare  *line
}

// line is what one principal has waiting.
type line struct {
	principal string
	fifo      fifo
	share     Share
	credit    int // tickets that it may still have in this turn
	live      int // tickets that somebody wants
}

func (q *fairQueue) lineOf(principal string) *line {
	l := q.lines[principal]
	if l == nil {
		// A principal with one job after the other comes and goes all the time.
		if l, q.spare = q.spare, nil; l == nil {
			l = &line{}
		}
		l.principal, l.share = principal, q.shareOf(principal)
		if q.lines == nil {
			q.lines = map[string]*line{}
		}
		q.lines[principal] = l
		q.turn = append(q.turn, l)
		l.credit = l.share.Weight
	}
	return l
}

func (q *fairQueue) shareOf(principal string) Share {
	s := q.shares[principal]
	s.Weight = max(s.Weight, 1)
	return s
}

// setShares takes over other shares, for those who wait too.
func (q *fairQueue) setShares(shares map[string]Share) {
	q.shares = shares
	for _, l := range q.turn {
		l.share = q.shareOf(l.principal)
		l.credit = min(l.credit, l.share.Weight)
	}
}

// room says how many more tickets a principal may have waiting when free places are left. One alone may fill half the queue,
// and each newcomer half of what is then free, so there is always room for one more principal.
func (q *fairQueue) room(principal string, free int) int {
	waiting := 0
	if l := q.lines[principal]; l != nil {
		waiting = l.live
	}
	s := q.shareOf(principal)
	n := min(free, (s.Weight*(free+waiting)+s.Weight)/(s.Weight+1)-waiting)
	if s.Queue > 0 {
		n = min(n, s.Queue-waiting)
	}
	return max(n, 0)
}

func (q *fairQueue) push(t *ticket) {
	l := q.lineOf(t.principal)
	l.fifo.push(t)
	l.live++
	q.n++
	t.queued = true
}

// peek gives the ticket whose turn it is, and nil if none waits.
func (q *fairQueue) peek() *ticket {
	for len(q.turn) > 0 {
		l := q.turn[q.at]
		for l.fifo.n > 0 {
			t := l.fifo.head()
			if t.queued {
				if l.credit > 0 {
					return t
				}
				break
			}
			l.fifo.pop()
			q.n--
			q.dead--
		}
		if l.fifo.n == 0 {
			q.drop(q.at)
			continue
		}
		l.credit = l.share.Weight
		q.at = (q.at + 1) % len(q.turn)
	}
	return nil
}

// pop takes out the ticket that peek gave.
func (q *fairQueue) pop() {
	l := q.turn[q.at]
	t := l.fifo.pop()
	t.queued = false
	l.live--
	l.credit--
	q.n--
	if l.fifo.n == 0 {
		q.drop(q.at)
	}
}

// drop ends a line that is empty.
func (q *fairQueue) drop(i int) {
	q.spare = q.turn[i]
	delete(q.lines, q.spare.principal)
	q.turn = append(q.turn[:i], q.turn[i+1:]...)
	if i < q.at {
		q.at-- // whose turn it is has moved up
	}
	if q.at >= len(q.turn) {
		q.at = 0
	}
}

// abandon notes that nobody wants a ticket that waits here. Tickets like that are thrown out when there are many of them, so
// that callers who give up again and again don't fill the memory of a queue that stands still.
func (q *fairQueue) abandon(t *ticket, most int) {
	t.queued = false
	q.lines[t.principal].live--
	if q.dead++; q.dead <= most {
		return
	}
	for i := len(q.turn) - 1; i >= 0; i-- {
		l := q.turn[i]
		l.fifo.sweep()
		if l.fifo.n == 0 {
			q.drop(i)
		}
	}
	q.n -= q.dead
	q.dead = 0
}

// waiting counts the tickets that somebody wants.
func (q *fairQueue) waiting() int { return q.n - q.dead }

// all takes every ticket out that somebody wants.
func (q *fairQueue) all() (tickets []*ticket) {
	for t := q.peek(); t != nil; t = q.peek() {
		q.pop()
		tickets = append(tickets, t)
	}
	return tickets
}

// fifo is a ring of tickets.
type fifo struct {
	ring []*ticket
	at   int
	n    int
}

func (f *fifo) push(t *ticket) {
	if f.n == len(f.ring) {
		bigger := make([]*ticket, max(16, 2*f.n))
		for i := range f.n {
			bigger[i] = f.ring[(f.at+i)%len(f.ring)]
		}
		f.ring, f.at = bigger, 0
	}
	f.ring[(f.at+f.n)%len(f.ring)] = t
	f.n++
}

// head gives the first ticket. There must be one.
func (f *fifo) head() *ticket { return f.ring[f.at] }

// pop takes out the first ticket. There must be one.
func (f *fifo) pop() *ticket {
	t := f.ring[f.at]
	f.ring[f.at] = nil
	f.at = (f.at + 1) % len(f.ring)
	f.n--
	return t
}

// sweep throws the abandoned tickets out.
func (f *fifo) sweep() {
	for range f.n {
		if t := f.pop(); t.queued {
			f.push(t)
		}
	}
}
