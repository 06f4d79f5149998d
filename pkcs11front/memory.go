package pkcs11front

import "sync/atomic"

// memory is what the calls, operations, searches and session objects of one user hold of the daemon's memory, in octets. All that a client can
// make grow is counted here, so that no user takes what others need; what a call needs until its answer is bounded by the size of a frame. It
// belongs to the user's figures in Front, and to the connections and applications that were made with them.
type memory struct {
	held atomic.Int64
	max  int64
}

// take counts n octets, if the user may hold so many more.
func (m *memory) take(n int) bool {
	if m.held.Add(int64(n)) > m.max {
		m.held.Add(int64(-n))
		return false
	}
	return true
}

// give undoes take.
func (m *memory) give(n int) { m.held.Add(int64(-n)) }
