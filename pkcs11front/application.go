package pkcs11front

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// application is one process's use of the library: what PKCS #11 calls an application. It is ended when its last connection is gone
// (for keyward's module a while later, so that it can come back).
type application struct {
	front *Front
	// identify says who is behind the application now: a reload may change it. nil: nobody that keyward knows, and why.
	identify func() (actor *kms.Actor, why string)

	mu       sync.Mutex // guards what follows; never held while a key is used or the store is read
	sessions map[uint64]*session
	objects  map[handle]*sessionObject // session objects
	loggedIn map[string]bool           // by instance

	gathered atomic.Int64 // octets that the operations of all sessions hold: at most maxGatheredApplication
}

// session is a PKCS #11 session.
type session struct {
	app      *application
	id       uint64
	instance string // its slot's
	rw       bool

	// mu is held while a call of the session is answered. It guards what follows.
	mu     sync.Mutex
	closed bool
	search *search    // between C_FindObjectsInit and C_FindObjectsFinal
	ops    operations // what is between an Init and its end
}

// request is a call that is being answered. It belongs to one goroutine.
type request struct {
	ctx     context.Context
	app     *application
	session *session // of calls that name one, with its mu held
	dialect p11rpc.Dialect
	in      *p11rpc.Reader
	out     *p11rpc.Writer
}

// actor is who is behind the request; never nil: without one no request gets here.
func (q *request) actor() *kms.Actor {
	a, _ := q.app.identify()
	return a
}
