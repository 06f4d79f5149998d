package pkcs11front

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// A client of p11-kit can't connect again: when its connection ends, so does its use of the library, or the program by SIGPIPE. So its connections can outlive
// the daemon. One that stops holds them: it answers what has come, and gives each connection as a file, with what the next one must know of it: the sessions, and which
// operations were begun. Session objects and operations that have taken data are not among that, so nothing secret is but what has come of a request that is not whole; the client sees them as gone. Clients of
// keyward's own module come back by themselves and are not held.

// Held are connections that the next Front takes over.
type Held struct {
	State []byte     // for Restore
	Files []*os.File // whoever has them closes them
}

// heldConn is a connection, known by the number of its socket.
type heldConn struct {
	Inode     uint64
	Dialect   p11rpc.Dialect
	Rest      []byte `json:",omitempty"` // of a frame that has not come as a whole
	Joined    bool   // it has an application
	Principal string `json:",omitempty"`
	Sessions  []heldSession
	Logins    map[string]kms.PINName `json:",omitempty"` // by instance; the PIN's name, not the PIN
}

type heldSession struct {
	ID       uint64
	Instance string
	RW       bool
	Begun    [][]byte    `json:",omitempty"` // bodies of the Inits whose operations have not taken data yet
	Search   *heldSearch `json:",omitempty"`
}

type heldSearch struct {
	Begun []byte
	Found []handle // that were not fetched
	Keys  bool
	After kms.KeyPlace
}

// errHeld ends the service of a connection that is held.
var errHeld = errors.New("the connection is held for the next daemon")

// pokeEvery is how often a connection that waits for its client is reminded to stop.
const pokeEvery = 5 * time.Millisecond

// Hold is Shutdown, but for the connections of p11-kit clients, which it gives.
func (f *Front) Hold(ctx context.Context) (Held, error) {
	f.mu.Lock()
	f.holding = true
	f.mu.Unlock()
	err := f.Shutdown(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	state, jsonErr := json.Marshal(f.held)
	return Held{State: state, Files: f.heldFiles}, errors.Join(err, jsonErr)
}

// mayHold says whether a connection is one to hold. f.mu is held.
func (f *Front) mayHold(c *conn) bool {
	return f.holding && !c.refused && !c.strange && c.counted && c.dialect != p11rpc.Keyward && c.started.Load()
}

// freeze has a connection end when all that has come was answered.
func (c *conn) freeze() {
	c.frozen.Store(true)
	_ = c.net.SetReadDeadline(time.Unix(1, 0)) // if it is closed, it has ended
}

// poke freezes the connections that may be held, until ctx ends: one that was just setting a deadline of its own has missed it.
func (f *Front) poke(ctx context.Context) {
	tick := time.NewTicker(pokeEvery)
	defer tick.Stop()
	for {
		f.mu.Lock()
		for c := range f.conns {
			if f.mayHold(c) {
				c.freeze()
			}
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// hold keeps a connection that is frozen and has no call under way. It says whether it is kept; the caller closes its own file of it in any case.
func (c *conn) hold() bool {
	socket, ok := c.net.(*net.UnixConn)
	if !ok || c.broken != nil || c.in.Discarding() {
		return false
	}
	file, err := socket.File()
	if err != nil {
		c.front.cfg.Log.Warn().Err(err).Msg("a PKCS #11 connection can't be held")
		return false
	}
	inode, err := inodeOf(file)
	if err != nil {
		file.Close()
		return false
	}
	h := heldConn{Inode: inode, Dialect: c.dialect, Rest: c.in.Rest()}
	if c.app != nil {
		h.Joined = true
		c.app.hold(&h)
	}
	f := c.front
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held, f.heldFiles = append(f.held, h), append(f.heldFiles, file)
	return true
}

func inodeOf(f *os.File) (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return st.Ino, err
}

// hold notes the application's sessions and logins.
func (a *application) hold(h *heldConn) {
	a.mu.Lock()
	h.Principal, h.Logins = a.principal, map[string]kms.PINName{}
	for instance, l := range a.logins {
		if l.in {
			h.Logins[instance] = l.pin
		}
	}
	sessions := make([]*session, 0, len(a.sessions))
	for _, s := range a.sessions {
		sessions = append(sessions, s)
	}
	a.mu.Unlock()
	for _, s := range sessions {
		s.mu.Lock() // no call of it is under way
		held := heldSession{ID: s.id, Instance: s.instance, RW: s.rw}
		for _, op := range s.operations().active {
			if op != nil && op.begun != nil && !op.parts && !op.continued && len(op.data) == 0 {
				held.Begun = append(held.Begun, op.begun)
			}
		}
		if found := s.search; found != nil && found.begun != nil {
			held.Search = &heldSearch{Begun: found.begun, Found: found.found[found.fetched:], Keys: found.keys, After: found.after}
		}
		s.mu.Unlock()
		h.Sessions = append(h.Sessions, held)
	}
}

// begunOf copies what began an operation, for a client whose connection may be held.
func (q *request) begunOf() []byte {
	if q.dialect == p11rpc.Keyward {
		return nil
	}
	return slices.Clone(q.raw)
}

// Restore takes over connections that a Front before held, from files that it closes. who asks the kernel who is at the other end, again. It gives how many there
// were. What is not of a connection that State knows is closed.
func (f *Front) Restore(h Held, who func(net.Conn) (Peer, error)) (restored int, err error) {
	var all []heldConn
	if err := json.Unmarshal(h.State, &all); err != nil {
		err = fmt.Errorf("the state of PKCS #11 connections: %w", err)
		for _, file := range h.Files {
			err = errors.Join(err, file.Close())
		}
		return 0, err
	}
	byInode := make(map[uint64]*heldConn, len(all))
	for i := range all {
		byInode[all[i].Inode] = &all[i]
	}
	var errs []error
	for _, file := range h.Files {
		inode, err := inodeOf(file)
		was := byInode[inode]
		if err != nil || was == nil {
			errs = append(errs, err, file.Close())
			continue
		}
		nc, err := net.FileConn(file)
		errs = append(errs, err, file.Close())
		if err == nil && f.resume(nc, was, who) {
			restored++
		}
	}
	return restored, errors.Join(errs...)
}

// resume serves a held connection on.
func (f *Front) resume(nc net.Conn, was *heldConn, who func(net.Conn) (Peer, error)) bool {
	c := newConn(f, nc)
	peer, err := who(nc)
	f.mu.Lock()
	if err != nil || f.draining || len(f.conns) >= f.cfg.Connections {
		f.mu.Unlock()
		nc.Close()
		return false
	}
	f.conns[c] = struct{}{}
	f.mu.Unlock()
	c.peer, c.dialect = peer, was.Dialect
	c.started.Store(true)
	c.in.Restore(was.Rest)
	f.identified(c)
	if was.Joined && !c.refused {
		c.rejoin(was)
	}
	f.work.Go(func() {
		defer f.gone(c)
		defer c.end()
		if !c.refused {
			c.log(c.loop(false))
		}
	})
	return true
}

// rejoin gives the connection an application with the sessions that it had, if its peer is who it was.
func (c *conn) rejoin(was *heldConn) {
	actor, _ := c.peer.Identify()
	principal := ""
	if actor != nil {
		principal = actor.Principal
	}
	a, rv := c.front.join(c, "", actor)
	if rv != ck.CKR_OK {
		return // the client hears that it is not initialized
	}
	c.app = a
	if principal != was.Principal {
		return // what one principal had is nothing that another may use
	}
	a.mu.Lock()
	for instance, pin := range was.Logins {
		a.logins[instance] = login{in: true, pin: pin}
	}
	a.mu.Unlock()
	for i := range was.Sessions {
		h := &was.Sessions[i]
		if !c.front.takeSession(c.peer.UID) {
			return
		}
		s := &session{app: a, id: h.ID, instance: h.Instance, rw: h.RW}
		a.mu.Lock()
		a.sessions[s.id] = s
		a.mu.Unlock()
		for _, body := range h.Begun {
			c.replay(body)
		}
		if h.Search != nil {
			c.replay(h.Search.Begun)
			s.mu.Lock()
			if s.search != nil {
				s.search.found, s.search.fetched, s.search.keys, s.search.after = h.Search.Found, 0, h.Search.Keys, h.Search.After
			}
			s.mu.Unlock()
		}
	}
}

// replay does an Init once more, whose answer the client has had. If it can't be done now, the client's next call hears that nothing was begun.
func (c *conn) replay(body []byte) {
	q := &c.inline
	c.begin(q, p11rpc.Frame{Body: body})
	clear(q.answer(nil))
}
