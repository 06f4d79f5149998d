package hsmpool

import "testing"

// upQueue is a queue of members that are up, with one lane each that waits and that nobody runs: what is in wake tells who
// was called.
func upQueue(max, members int) (*queue, []*lane) {
	q := &queue{max: max, members: make([]memberQueue, members)}
	lanes := make([]*lane, members)
	for i := range lanes {
		lanes[i] = &lane{member: i, wake: make(chan struct{}, 1)}
		q.setUp(i, true, 1)
		q.members[i].idle = []*lane{lanes[i]}
	}
	return q, lanes
}

func newTasks(n int) []*task {
	tasks := make([]*task, n)
	for i := range tasks {
		tasks[i] = &task{op: EncryptGCM}
	}
	return tasks
}

// TestQueueOverfull makes the queue hold more than its bound, as second tries may, and then offers more.
func TestQueueOverfull(t *testing.T) {
	q, lanes := upQueue(4, 2)
	if rest, _ := q.push(newTasks(4), -1); len(rest) != 0 {
		t.Fatalf("%d tasks did not fit", len(rest))
	}
	taken := q.take(lanes[0], nil)
	if rest, _ := q.push(newTasks(len(taken)), -1); len(rest) != 0 {
		t.Fatalf("%d tasks did not fit", len(rest))
	}
	for _, x := range taken {
		if !q.again(x, 1) {
			t.Fatal("no second try")
		}
	}
	if q.waiting <= q.max {
		t.Fatalf("%d wait: the test does not test", q.waiting)
	}
	for _, n := range []int{1, 3} {
		rest, e := q.push(newTasks(n), -1)
		if len(rest) != n || e == nil || e.Kind != KindFull {
			t.Errorf("of %d tasks %d came back with %v", n, len(rest), e)
		}
	}
}

// TestQueueWakesAnother takes a member down between its lane being called and looking: somebody else must look instead.
func TestQueueWakesAnother(t *testing.T) {
	q, lanes := upQueue(4, 2)
	q.push(newTasks(1), -1)
	called := 0
	if len(lanes[1].wake) == 1 {
		called = 1
	}
	if len(lanes[called].wake) != 1 || len(lanes[1-called].wake) != 0 {
		t.Fatal("not one lane was called")
	}
	if stranded := q.setUp(called, false, 0); len(stranded) != 0 {
		t.Fatalf("%d tasks stranded with a member up", len(stranded))
	}
	if len(lanes[1-called].wake) != 1 {
		t.Error("a task waits and nobody was told")
	}
}
