package pkcs11front

import (
	"sync"

	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// A lane is the calls of one session of a p11-kit client that are under way: a list, of which one goroutine answers one after the other. It begins
// with a call that may take long, and ends when there are no more.

// quickCalls wait for no HSM, and for the disk only when a key is new to the daemon's memory. Answered at once they keep the other threads of a client
// waiting for less than a lane costs, which is 8 us.
var quickCalls = func() (quick [numCalls]bool) {
	for _, call := range []p11rpc.CallID{
		p11rpc.C_CloseSession, p11rpc.C_GetSessionInfo, p11rpc.C_Logout,
		p11rpc.C_GetObjectSize, p11rpc.C_GetAttributeValue, p11rpc.C_FindObjectsFinal,
		p11rpc.C_EncryptInit, p11rpc.C_DecryptInit, p11rpc.C_SignInit, p11rpc.C_VerifyInit,
		p11rpc.C_DigestInit, p11rpc.C_Digest, p11rpc.C_DigestUpdate, p11rpc.C_DigestKey, p11rpc.C_DigestFinal, p11rpc.C_SignUpdate, p11rpc.C_VerifyUpdate,
		p11rpc.C_SeedRandom, p11rpc.C_GenerateRandom, p11rpc.C_SessionCancel,
	} {
		quick[call] = true
	}
	return quick
}()

const quickOctets = 4 << 10 // of a body

// quick says whether a call of a session is answered at once: it must not overtake others of the session either.
func (c *conn) quick(q *request, f p11rpc.Frame) bool {
	if !quickCalls[q.number] || len(f.Body) > quickOctets {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lanes[q.sessionID] == nil
}

var requests = sync.Pool{New: func() any { return new(request) }}

// queue puts a request into the lane of its session, when there is room for it; false: its user may not hold so much, and nothing was done.
func (c *conn) queue(f p11rpc.Frame) bool {
	if !c.memory.take(len(f.Body)) {
		return false
	}
	q := requests.Get().(*request)
	q.body = append(q.body[:0], f.Body...)
	c.begin(q, p11rpc.Frame{Serial: f.Serial, Body: q.body})
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.inFlight > 0 && (c.inFlight >= maxInFlight || c.octets+len(q.body) > maxInFlightOctets) {
		c.room.Wait()
	}
	c.inFlight++
	c.octets += len(q.body)
	last := c.lanes[q.sessionID]
	c.lanes[q.sessionID] = q
	if last != nil {
		last.next = q
		return true
	}
	c.running.Add(1)
	go c.runLane(q)
	return true
}

// runLane answers the calls of a session, one after the other, until there are no more.
func (c *conn) runLane(q *request) {
	defer c.running.Done()
	for q != nil {
		q.frame = q.answer(q.frame[:0])
		if err := c.write(q.frame); err != nil {
			c.cancel() // nobody reads the answers of the others either
			c.net.Close()
		}
		c.mu.Lock()
		c.inFlight--
		c.octets -= len(q.body)
		c.memory.give(len(q.body))
		c.room.Signal()
		next := q.next
		if next == nil {
			delete(c.lanes, q.sessionID)
		}
		c.mu.Unlock()
		q.recycle()
		q = next
	}
}
