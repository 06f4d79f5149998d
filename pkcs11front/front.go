package pkcs11front

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/rs/zerolog"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/turns"
	"github.com/keyward/keyward/pkcs11front/ck"
)

// Config is what a Front is made of.
type Config struct {
	Service *kms.Service
	Log     zerolog.Logger
	Version string // of keyward, for C_GetInfo
	RawRSA  bool   // CKM_RSA_X_509 is offered: a signing oracle for whatever the caller likes
	// NoRawAES: AES keys of hardware instances do GCM only, and encrypt with an IV that keyward draws. In modes of his own a caller can compute GCM's hash
	// key, by which the API's ciphertexts under the key are authenticated.
	NoRawAES bool

	// Limits; 0 is the default. Those of a user (uid) keep it from taking what others need.
	Connections            int // in all; 4,096
	ConnectionsPerUser     int // 256
	ApplicationsPerUser    int // 256
	SessionsPerApplication int // 1,024
	SessionsPerUser        int // 16,384
	MemoryPerUser          int // octets that calls, operations and session objects hold; 64 MiB

	times times // of tests
}

// Peer is the process at the other end of a connection, as the kernel named it.
type Peer struct {
	UID, GID uint32
	PID      int32
	// Identify says who that is now: a reload may change it. nil: nobody that keyward knows, and why. It is called for each request.
	Identify func() (actor *kms.Actor, why string)
}

// Front is the door. All its methods may be called at the same time.
type Front struct {
	cfg          Config
	major, minor byte     // of keyward
	mechanisms   []uint64 // C_GetMechanismList
	counters     counters
	computing    *turns.Turns[uint32]                   // work that takes the daemon's processor for long, by uid: see compute
	told         *lru.Cache[uint32, time.Time]          // when it was last logged of a uid that keyward does not know it
	publics      *lru.Cache[string, *publicParts]       // of keys of the KMS, by version
	rejection    func(publicKey []byte) ([]byte, error) // kms.Service.RejectionSecret

	ctx      context.Context // of all calls
	cancel   context.CancelFunc
	work     sync.WaitGroup // connections, and ends of applications
	refusing atomic.Int32   // connections over a limit that are being told so

	mu        sync.Mutex // guards what follows, and some of application and conn
	draining  bool       // Shutdown has begun
	holding   bool       // Hold has
	held      []heldConn // by Hold, and their files
	heldFiles []*os.File
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	users     map[uint32]*user
	all       map[*application]struct{}
	byCookie  map[string]*application
	sessions  int
	strangers int // connections of peers that keyward did not know when they connected
}

// Limits of those whom keyward does not know: all of them together have a part of the connections, so that users whom it knows find room
// whatever a namespace full of others does.
const (
	strangersPart    = 8       // of Config.Connections
	strangersPerUser = 16      // connections
	strangerFrame    = 4 << 10 // octets of a request's body
)

// user is what a uid has.
type user struct {
	conns, applications, sessions int
	memory                        *memory
}

// New makes a Front. Shutdown ends it.
func New(c Config) *Front {
	for _, limit := range []struct {
		n        *int
		standard int
	}{{&c.Connections, 4096}, {&c.ConnectionsPerUser, 256}, {&c.ApplicationsPerUser, 256}, {&c.SessionsPerApplication, 1024}, {&c.SessionsPerUser, 16384}, {&c.MemoryPerUser, 64 << 20}} {
		if *limit.n == 0 {
			*limit.n = limit.standard
		}
	}
	if c.times == (times{}) {
		c.times = standardTimes
	}
	f := &Front{cfg: c, rejection: c.Service.RejectionSecret, mechanisms: mechanismList(c.RawRSA), publics: newPublicCache(), listeners: map[net.Listener]struct{}{}, conns: map[*conn]struct{}{},
		users: map[uint32]*user{}, all: map[*application]struct{}{}, byCookie: map[string]*application{}}
	f.computing = turns.New[uint32](max(runtime.GOMAXPROCS(0)/2, 1))
	f.told, _ = lru.New[uint32, time.Time](maxTold) // its size is good
	f.ctx, f.cancel = context.WithCancel(context.Background())
	// A version that is no release has no numbers, and is 0.0.
	var major, minor byte
	if n, _ := fmt.Sscanf(c.Version, "v%d.%d", &major, &minor); n == 2 {
		f.major, f.minor = major, minor
	} else if n, _ := fmt.Sscanf(c.Version, "%d.%d", &major, &minor); n == 2 {
		f.major, f.minor = major, minor
	}
	return f
}

// Serve accepts connections from l until ctx or Shutdown ends that, or l fails. It closes l. Connections that are there go on until Shutdown.
// who asks the kernel who is at the other end.
func (f *Front) Serve(ctx context.Context, l net.Listener, who func(net.Conn) (Peer, error)) error {
	f.mu.Lock()
	draining := f.draining
	f.listeners[l] = struct{}{}
	f.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer func() {
		stop()
		l.Close()
		f.mu.Lock()
		delete(f.listeners, l)
		f.mu.Unlock()
	}()
	if draining {
		return nil
	}
	for pause := time.Duration(0); ; {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			f.accept(nc, who)
			continue
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return nil
		}
		// Such as too many open files: it passes when others close theirs.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		f.cfg.Log.Error().Err(err).Msg("the PKCS #11 socket can't accept a connection now")
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		case <-f.ctx.Done():
			return nil
		}
	}
}

// accept serves a connection in a goroutine of its own.
func (f *Front) accept(nc net.Conn, who func(net.Conn) (Peer, error)) {
	c := newConn(f, nc)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.draining || len(f.conns) >= 2*f.cfg.Connections {
		nc.Close()
		return
	}
	c.refused = len(f.conns) >= f.cfg.Connections
	f.conns[c] = struct{}{}
	f.work.Go(func() {
		defer f.gone(c)
		c.run(who)
	})
}

// gone forgets a connection that has ended.
func (f *Front) gone(c *conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
	if u := f.users[c.peer.UID]; c.counted {
		u.conns--
		if c.strange {
			f.strangers--
		}
		f.forget(c.peer.UID, u)
	}
}

// identified counts a connection for its user.
func (f *Front) identified(c *conn) {
	actor, _ := c.peer.Identify()
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.strange = actor == nil; c.strange {
		f.strangers++
		c.in.Limit = strangerFrame
	}
	u := f.user(c.peer.UID)
	u.conns++
	c.counted, c.memory = true, u.memory
	c.refused = c.refused || u.conns > f.cfg.ConnectionsPerUser || c.strange && (u.conns > strangersPerUser || f.strangers > max(f.cfg.Connections/strangersPart, 1))
}

// Of strangers the log tells once a minute for each uid, and of so many uids: nobody fills it by connecting.
const (
	tellStrangers = time.Minute
	maxTold       = 1024
)

// compute does what takes the daemon's processor for long, such as making an RSA key or looking at all keys of a token: of all users on half of the processors at most, and of each user one at a time.
func (q *request) compute(work func() ck.RV) ck.RV {
	leave, err := q.front.computing.Enter(q.ctx, q.app.peer.UID)
	if err != nil {
		return ck.CKR_FUNCTION_CANCELED
	}
	defer leave()
	return work()
}

// stranger logs that keyward does not know a peer.
func (f *Front) stranger(uid uint32, why string) {
	now := time.Now()
	if last, ok := f.told.Get(uid); ok && now.Sub(last) < tellStrangers {
		return
	}
	f.told.Add(uid, now)
	f.cfg.Log.Warn().Msg("a PKCS #11 client gets no token: " + why)
}

// recognize looks whether keyward knows a stranger by now, as it has been reloaded: then the connection is one like others. It is called by the connection's
// goroutine.
func (f *Front) recognize(c *conn) error {
	if actor, _ := c.peer.Identify(); actor == nil {
		return nil
	}
	f.mu.Lock()
	c.strange = false
	f.strangers--
	f.mu.Unlock()
	c.in.Limit, c.timed = 0, false
	return c.net.SetReadDeadline(time.Time{})
}

// user gives the figures of a uid. f.mu is held.
func (f *Front) user(uid uint32) *user {
	u := f.users[uid]
	if u == nil {
		u = &user{memory: &memory{max: int64(f.cfg.MemoryPerUser)}}
		f.users[uid] = u
	}
	return u
}

// forget drops the figures of a uid that has nothing. f.mu is held.
func (f *Front) forget(uid uint32, u *user) {
	if u.conns == 0 && u.applications == 0 && u.sessions == 0 {
		delete(f.users, uid)
	}
}

// join gives a connection its application: the one of its cookie, if there is one, or a new one.
func (f *Front) join(c *conn, cookie string, actor *kms.Actor) (*application, ck.RV) {
	principal := ""
	if actor != nil {
		principal = actor.Principal
	}
	for {
		f.mu.Lock()
		if a := f.byCookie[cookie]; a != nil {
			defer f.mu.Unlock()
			if !a.samePeer(c.peer) {
				return nil, ck.CKR_ARGUMENTS_BAD
			}
			a.conns++
			if a.linger != nil {
				a.linger.Stop()
				a.linger = nil
			}
			return a, ck.CKR_OK
		}
		u := f.user(c.peer.UID)
		if u.applications < f.cfg.ApplicationsPerUser {
			defer f.mu.Unlock()
			u.applications++
			a := newApplication(f, c.peer, u.memory, cookie, principal)
			a.conns = 1
			f.all[a] = struct{}{}
			if cookie != "" {
				f.byCookie[cookie] = a
			}
			return a, ck.CKR_OK
		}
		old := f.lingering(c.peer.UID)
		f.mu.Unlock()
		if old == nil {
			return nil, ck.CKR_HOST_MEMORY
		}
		f.endApplication(old)
	}
}

// lingering gives an application of the user that only waits for its client to come back, the one that waits longest. f.mu is held.
func (f *Front) lingering(uid uint32) (oldest *application) {
	for a := range f.all {
		if a.peer.UID == uid && a.linger != nil && (oldest == nil || a.left.Before(oldest.left)) {
			oldest = a
		}
	}
	return oldest
}

// leave takes a connection from its application, which ends with the last one: at once, or a while later if its client can come back.
func (f *Front) leave(a *application) {
	f.mu.Lock()
	a.conns--
	last := a.conns == 0
	if last && a.cookie != "" && !a.gone && !f.draining {
		a.left = time.Now()
		var t *time.Timer
		t = time.AfterFunc(f.cfg.times.linger, func() { f.expire(a, &t) })
		a.linger = t
		last = false
	}
	f.mu.Unlock()
	if last {
		f.endApplication(a)
	}
}

// expire ends an application whose client did not come back. t is the timer that has run out, and is read under f.mu: the client may have come and
// gone again meanwhile.
func (f *Front) expire(a *application, t **time.Timer) {
	f.mu.Lock()
	if a.linger == nil || a.linger != *t || f.draining { // it did, or Shutdown ends it
		f.mu.Unlock()
		return
	}
	f.work.Add(1)
	f.mu.Unlock()
	defer f.work.Done()
	f.endApplication(a)
}

// endApplication ends an application, if nobody else does. It waits for calls that are being answered.
func (f *Front) endApplication(a *application) {
	f.mu.Lock()
	if a.gone {
		f.mu.Unlock()
		return
	}
	a.gone = true
	if a.linger != nil {
		a.linger.Stop()
		a.linger = nil
	}
	delete(f.all, a)
	if a.cookie != "" {
		delete(f.byCookie, a.cookie)
	}
	u := f.users[a.peer.UID]
	u.applications--
	f.forget(a.peer.UID, u)
	f.mu.Unlock()
	a.end()
}

// takeSession counts a session of the user, if it may have one more.
func (f *Front) takeSession(uid uint32) bool {
	for {
		f.mu.Lock()
		u := f.user(uid)
		if u.sessions < f.cfg.SessionsPerUser {
			u.sessions++
			f.sessions++
			f.mu.Unlock()
			return true
		}
		old := f.lingering(uid)
		f.mu.Unlock()
		if old == nil {
			return false
		}
		f.endApplication(old)
	}
}

// giveSessions counts n sessions of the user less.
func (f *Front) giveSessions(uid uint32, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.user(uid)
	u.sessions -= n
	f.sessions -= n
	f.forget(uid, u)
}

func (f *Front) isDraining() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.draining
}

// Shutdown ends the door: nothing new is accepted, requests that have come are answered, then all is closed. When ctx ends first, calls are
// cancelled; its error is given then. It returns when all goroutines of the door have ended.
func (f *Front) Shutdown(ctx context.Context) error {
	f.mu.Lock()
	f.draining = true
	for l := range f.listeners {
		l.Close()
	}
	for c := range f.conns {
		if !f.mayHold(c) {
			c.drain()
		}
	}
	holding := f.holding
	f.mu.Unlock()
	poked, stopPoking := context.WithCancel(ctx)
	var poking sync.WaitGroup
	if holding {
		poking.Go(func() { f.poke(poked) })
	}
	defer poking.Wait()
	defer stopPoking()
	stop := context.AfterFunc(ctx, func() {
		f.cancel()
		f.mu.Lock()
		defer f.mu.Unlock()
		for c := range f.conns {
			c.net.Close()
		}
	})
	f.work.Wait()
	inTime := stop()
	f.cancel()
	f.mu.Lock()
	rest := make([]*application, 0, len(f.all))
	for a := range f.all {
		rest = append(rest, a)
	}
	f.mu.Unlock()
	for _, a := range rest {
		f.endApplication(a)
	}
	if !inTime {
		return ctx.Err()
	}
	return nil
}
