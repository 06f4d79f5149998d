package pkcs11front

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

const (
	serial = uint64(ck.CKF_SERIAL_SESSION)
	rw     = uint64(ck.CKF_RW_SESSION)
)

// state asks for the state of a session.
func (c *testClient) state(s uint64) ck.State {
	c.t.Helper()
	a := c.ok(13, args{}.u(s))
	a.Ulong()
	return ck.State(a.Ulong())
}

func loginArgs(s uint64, user ck.UserType, pin string) args {
	return args{}.u(s).u(uint64(user)).octets([]byte(pin))
}

// TestSlotCalls reads what the slots and tokens say of themselves.
func TestSlotCalls(t *testing.T) {
	e := newEnv(t)
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		c := e.client(t, d)
		for _, present := range []byte{0, 1} {
			a := c.ok(4, args{}.y(present).room(0)) // how many
			if a.Byte() != 0 || [4]byte{a.Byte(), a.Byte(), a.Byte(), a.Byte()} != [4]byte{0, 0, 0, 2} {
				t.Error("the count of slots")
			}
			if a := c.ok(4, args{}.y(present).room(1)); a.Byte() != 0 {
				t.Error("two slots came into the room of one")
			}
			if got := c.ok(4, args{}.y(present).room(2)).ulongs(t); len(got) != 2 || got[0] == got[1] {
				t.Errorf("slots %v", got)
			}
		}
		for _, test := range []struct {
			id, model string
			slotFlags ck.Flags
		}{{softwareID, "software", ck.CKF_TOKEN_PRESENT}, {hardwareID, "hardware", ck.CKF_TOKEN_PRESENT | ck.CKF_HW_SLOT}} {
			slot := c.slot(test.id)
			a := c.ok(5, args{}.u(slot))
			if s := a.Text(); len(s) != widthSlot {
				t.Errorf("slot description %q", s)
			}
			if s := a.Text(); trim(s) != "keyward" {
				t.Errorf("manufacturer %q", s)
			}
			if f := ck.Flags(a.Ulong()); f != test.slotFlags {
				t.Errorf("slot flags %#x", f)
			}
			opened := c.ok(10, args{}.u(slot).u(serial|rw)).Ulong()
			c.ok(10, args{}.u(slot).u(serial))

			a = c.ok(6, args{}.u(slot))
			texts := []string{trim(a.Text()), trim(a.Text()), trim(a.Text()), a.Text()}
			if texts[0] != test.id || texts[1] != "keyward" || texts[2] != test.model || len(texts[3]) != 16 || strings.Contains(texts[3], " ") {
				t.Errorf("token %q", texts)
			}
			var n [11]uint64
			for i := range n {
				n[i] = a.Ulong()
			}
			flags := ck.Flags(n[0])
			if flags&ck.CKF_LOGIN_REQUIRED != 0 || flags&ck.CKF_PROTECTED_AUTHENTICATION_PATH != 0 || flags&(ck.CKF_RNG|ck.CKF_TOKEN_INITIALIZED|ck.CKF_USER_PIN_INITIALIZED) == 0 {
				t.Errorf("token flags %#x", flags)
			}
			if n[1] != 1024 || n[2] != 2 || n[3] != 1024 || n[4] != 1 {
				t.Errorf("sessions: %v", n)
			}
			if hw, fw := [2]byte{a.Byte(), a.Byte()}, [2]byte{a.Byte(), a.Byte()}; hw != [2]byte{} || fw != [2]byte{1, 2} {
				t.Errorf("versions %v %v", hw, fw)
			}
			at, err := time.Parse("20060102150405", strings.TrimSuffix(a.Text(), "00"))
			if err != nil || time.Since(at).Abs() > time.Minute || a.End() != nil {
				t.Errorf("time %v %v", at, err)
			}

			a = c.ok(13, args{}.u(opened))
			if got := [4]uint64{a.Ulong(), a.Ulong(), a.Ulong(), a.Ulong()}; got != [4]uint64{slot, uint64(ck.CKS_RW_PUBLIC_SESSION), serial | rw, 0} {
				t.Errorf("session info %v", got)
			}
			c.ok(7, args{}.u(slot).room(1000))
			c.want(ck.CKR_MECHANISM_INVALID, 8, args{}.u(slot).u(0xfffff))
			c.want(ck.CKR_FUNCTION_NOT_SUPPORTED, 9, args{}.u(slot).octets([]byte("1234")).room(0))
			c.want(ck.CKR_FUNCTION_NOT_SUPPORTED, 14, args{}.u(opened).octets([]byte("1234")))
			c.want(ck.CKR_SESSION_PARALLEL_NOT_SUPPORTED, 10, args{}.u(slot).u(rw))
		}
		for call, a := range map[p11rpc.CallID]args{5: args{}.u(1), 6: args{}.u(1), 7: args{}.u(1).room(9), 8: args{}.u(1).u(1), 10: args{}.u(1).u(serial), 12: args{}.u(1)} {
			c.want(ck.CKR_SLOT_ID_INVALID, call, a)
		}
		c.want(ck.CKR_NO_EVENT, 65, args{}.u(uint64(ck.CKF_DONT_BLOCK)))
		c.want(ck.CKR_FUNCTION_NOT_SUPPORTED, 65, args{}.u(0))
	})
}

// TestSessions opens and closes.
func TestSessions(t *testing.T) {
	e := newEnv(t)
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		c := e.client(t, d)
		first, second, elsewhere := c.session(softwareID), c.session(softwareID), c.session(hardwareID)
		c.ok(18, loginArgs(first, ck.CKU_USER, ""))
		if c.state(second) != ck.CKS_RW_USER_FUNCTIONS || c.state(elsewhere) != ck.CKS_RW_PUBLIC_SESSION {
			t.Error("a login is of all sessions with a token, and of no other token")
		}
		c.ok(11, args{}.u(first))
		c.want(ck.CKR_SESSION_HANDLE_INVALID, 11, args{}.u(first))
		c.want(ck.CKR_SESSION_HANDLE_INVALID, 13, args{}.u(first))
		c.want(ck.CKR_SESSION_HANDLE_INVALID, 13, args{}.u(0))
		if c.state(second) != ck.CKS_RW_USER_FUNCTIONS {
			t.Error("the login went with a session that was not the last one")
		}
		c.ok(11, args{}.u(second))
		third := c.session(softwareID)
		if c.state(third) != ck.CKS_RW_PUBLIC_SESSION {
			t.Error("the login did not go with the last session")
		}
		c.ok(18, loginArgs(third, ck.CKU_USER, ""))
		c.ok(12, args{}.u(c.slot(softwareID)))
		c.want(ck.CKR_SESSION_HANDLE_INVALID, 13, args{}.u(third))
		c.ok(13, args{}.u(elsewhere))
		reader := c.ok(10, args{}.u(c.slot(softwareID)).u(serial)).Ulong()
		if c.state(reader) != ck.CKS_RO_PUBLIC_SESSION {
			t.Error("C_CloseAllSessions left the login")
		}
		c.ok(18, loginArgs(reader, ck.CKU_USER, ""))
		if c.state(reader) != ck.CKS_RO_USER_FUNCTIONS {
			t.Error("the state of a session for reading, logged in")
		}
	})
}

// TestLoginWithoutPIN says that any PIN is right where there is none.
func TestLoginWithoutPIN(t *testing.T) {
	e := newEnv(t)
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		c := e.client(t, d)
		s := c.session(softwareID)
		c.want(ck.CKR_USER_TYPE_INVALID, 18, loginArgs(s, ck.CKU_SO, "12345678"))
		c.want(ck.CKR_OPERATION_NOT_INITIALIZED, 18, loginArgs(s, ck.CKU_CONTEXT_SPECIFIC, "12345678"))
		c.want(ck.CKR_USER_TYPE_INVALID, 18, loginArgs(s, 7, "12345678"))
		c.want(ck.CKR_USER_NOT_LOGGED_IN, 19, args{}.u(s))
		c.ok(18, loginArgs(s, ck.CKU_USER, "whatever"))
		c.want(ck.CKR_USER_ALREADY_LOGGED_IN, 18, loginArgs(s, ck.CKU_USER, "something else"))
		c.ok(19, args{}.u(s))
		null := args{}.y(1).room(1<<32 - 1)
		if d == p11rpc.Offer0 {
			null = args{}.y(0).room(0)
		}
		c.ok(18, append(args{}.u(s).u(uint64(ck.CKU_USER)), null...))
		c.ok(19, args{}.u(s))
		c.ok(66, loginArgs(s, ck.CKU_USER, "").octets([]byte("alice"))) // C_LoginUser
		c.ok(19, args{}.u(s))
	})
}

// TestLoginWithPIN says what a PIN does: until it is given private objects do not exist, and wrong ones are counted.
func TestLoginWithPIN(t *testing.T) {
	var log bytes.Buffer
	var mu sync.Mutex
	e := newEnv(t, func(c *Config) {
		c.Log = zerolog.New(&lockedWriter{&mu, &log})
		c.times = standardTimes
		c.times.login = 0
	})
	handleWith(t, 67, func(q *request) ck.RV { // C_SessionCancel
		if q.privateAllowed() {
			return ck.CKR_OK
		}
		return ck.CKR_USER_NOT_LOGGED_IN
	})
	private := func(s uint64) args { return args{}.u(s).u(0) }
	tokenFlags := func(c *testClient) ck.Flags {
		a := c.ok(6, args{}.u(c.slot(hardwareID)))
		for range 4 {
			a.Text()
		}
		return ck.Flags(a.Ulong())
	}
	admin := e.service.Principals()
	if _, err := admin.Create(t.Context(), root, alice.Principal, ""); err != nil {
		t.Fatal(err)
	}
	e.actor.Store(alice)
	early := e.client(t, p11rpc.Offer0)
	earlySession := early.session(softwareID)
	early.ok(67, private(earlySession))
	early.ok(18, loginArgs(earlySession, ck.CKU_USER, "anything"))
	early.want(ck.CKR_USER_PIN_NOT_INITIALIZED, 15, args{}.u(earlySession).octets([]byte("old")).octets([]byte("new-PIN-1")))

	const pin, next = "sesame-open", "sesame-close"
	if err := admin.SetPIN(t.Context(), root, alice.Principal, []byte(pin)); err != nil {
		t.Fatal(err)
	}
	for _, d := range []p11rpc.Dialect{p11rpc.Offer0, p11rpc.Keyward} { // a PIN takes long
		c := e.dial(t, d)
		c.ok(1, hello(strings.Repeat("a", cookieLength)))
		if f := tokenFlags(c); f&ck.CKF_LOGIN_REQUIRED == 0 {
			t.Errorf("flags %#x", f)
		}
		s, hardware := c.session(softwareID), c.session(hardwareID)
		c.want(ck.CKR_USER_NOT_LOGGED_IN, 67, private(s))
		c.want(ck.CKR_PIN_INCORRECT, 18, loginArgs(s, ck.CKU_USER, pin+"!"))
		c.want(ck.CKR_PIN_INCORRECT, 18, loginArgs(s, ck.CKU_USER, ""))
		c.want(ck.CKR_USER_TYPE_INVALID, 18, loginArgs(s, ck.CKU_SO, pin))
		c.want(ck.CKR_USER_NOT_LOGGED_IN, 67, private(s))
		c.ok(18, loginArgs(s, ck.CKU_USER, pin))
		c.want(ck.CKR_USER_ALREADY_LOGGED_IN, 18, loginArgs(s, ck.CKU_USER, pin))
		c.ok(67, private(s))
		c.want(ck.CKR_USER_NOT_LOGGED_IN, 67, private(hardware)) // another token
		c.ok(19, args{}.u(s))
		c.want(ck.CKR_USER_NOT_LOGGED_IN, 67, private(s))
		c.ok(18, loginArgs(hardware, ck.CKU_USER, pin))
		c.ok(11, args{}.u(hardware)) // the last one
		c.want(ck.CKR_USER_NOT_LOGGED_IN, 67, private(c.session(hardwareID)))
		c.ok(2, nil)
	}
	// A login from before there was a PIN is no login with it.
	early.want(ck.CKR_USER_NOT_LOGGED_IN, 67, private(earlySession))
	early.ok(18, loginArgs(earlySession, ck.CKU_USER, pin))
	early.ok(67, private(earlySession))

	setPIN := func(s uint64, old, pin string) args { return args{}.u(s).octets([]byte(old)).octets([]byte(pin)) }
	early.want(ck.CKR_PIN_LEN_RANGE, 15, setPIN(earlySession, pin, "short"))
	early.want(ck.CKR_PIN_INCORRECT, 15, setPIN(earlySession, "", next))
	early.want(ck.CKR_PIN_INCORRECT, 15, setPIN(earlySession, pin+"?", next))
	reader := early.ok(10, args{}.u(slotIDOf(softwareID)).u(serial)).Ulong()
	early.want(ck.CKR_SESSION_READ_ONLY, 15, setPIN(reader, pin, next))
	early.ok(15, setPIN(earlySession, pin, next))
	early.ok(19, args{}.u(reader))
	early.want(ck.CKR_PIN_INCORRECT, 18, loginArgs(earlySession, ck.CKU_USER, pin))
	early.ok(18, loginArgs(earlySession, ck.CKU_USER, next))
	early.ok(19, args{}.u(earlySession))

	// A PIN that somebody else changes ends the logins with the old one; who changes it stays logged in.
	early.ok(18, loginArgs(earlySession, ck.CKU_USER, next))
	other := e.client(t, p11rpc.Offer2)
	otherSession := other.session(softwareID)
	other.ok(18, loginArgs(otherSession, ck.CKU_USER, next))
	other.ok(15, setPIN(otherSession, next, pin))
	other.ok(67, private(otherSession))
	early.want(ck.CKR_USER_NOT_LOGGED_IN, 67, private(earlySession))
	if s := early.state(earlySession); s != ck.CKS_RW_PUBLIC_SESSION {
		t.Errorf("state %d with a login of before", s)
	}
	early.ok(18, loginArgs(earlySession, ck.CKU_USER, pin))
	early.ok(15, setPIN(earlySession, pin, next))
	early.ok(19, args{}.u(earlySession))
	if f := tokenFlags(early); f&(ck.CKF_USER_PIN_COUNT_LOW|ck.CKF_USER_PIN_FINAL_TRY|ck.CKF_USER_PIN_LOCKED) != 0 {
		t.Errorf("flags %#x before wrong PINs", f)
	}

	// The attack: trying all PINs, from as many applications as one likes.
	for i := range kms.MaxPINFailures {
		c := e.client(t, p11rpc.Offer2)
		c.want(ck.CKR_PIN_INCORRECT, 18, loginArgs(c.session(softwareID), ck.CKU_USER, "wrong PIN"))
		want := ck.CKF_USER_PIN_COUNT_LOW
		switch i {
		case kms.MaxPINFailures - 2:
			want |= ck.CKF_USER_PIN_FINAL_TRY
		case kms.MaxPINFailures - 1:
			want |= ck.CKF_USER_PIN_LOCKED
		}
		if f := tokenFlags(c) & (ck.CKF_USER_PIN_COUNT_LOW | ck.CKF_USER_PIN_FINAL_TRY | ck.CKF_USER_PIN_LOCKED); f != want {
			t.Errorf("after %d wrong PINs the flags are %#x", i+1, f)
		}
	}
	early.want(ck.CKR_PIN_LOCKED, 18, loginArgs(earlySession, ck.CKU_USER, next))
	early.want(ck.CKR_USER_NOT_LOGGED_IN, 67, private(earlySession))

	mu.Lock()
	defer mu.Unlock()
	events := e.events.take()
	for _, secret := range []string{pin, next, "wrong PIN", "anything"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log has %q:\n%s", secret, log.String())
		}
		for _, event := range events {
			if strings.Contains(fmt.Sprintf("%+v", event), secret) {
				t.Errorf("the audit has %q: %+v", secret, event)
			}
		}
	}
}

// lockedWriter is a log that a test reads.
type lockedWriter struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

// TestSessionLimits says that there is an end to sessions, of an application and of a user, and that clients that wait for nothing but their end
// do not keep others from opening.
func TestSessionLimits(t *testing.T) {
	e := newEnv(t, func(c *Config) {
		c.SessionsPerApplication, c.SessionsPerUser, c.ApplicationsPerUser = 4, 6, 3
	})
	c := e.client(t, p11rpc.Offer0)
	slot := c.slot(softwareID)
	open := args{}.u(slot).u(serial)
	for range 4 {
		c.ok(10, open)
	}
	c.want(ck.CKR_SESSION_COUNT, 10, open)
	gone := e.client(t, p11rpc.Keyward)
	gone.ok(10, open)
	gone.ok(10, open)
	third := e.client(t, p11rpc.Offer1)
	third.want(ck.CKR_SESSION_COUNT, 10, open)
	fourth := e.dial(t, p11rpc.Offer1)
	fourth.want(ck.CKR_HOST_MEMORY, 1, hello(testCookie))
	gone.net.Close()
	for e.front.Stats().Connections != 3 {
		time.Sleep(time.Millisecond)
	}
	third.ok(10, open)
	third.ok(10, open)
	third.want(ck.CKR_SESSION_COUNT, 10, open)
	if s := e.front.Stats(); s.Sessions != 6 || s.Applications != 2 {
		t.Errorf("%+v", s)
	}
	fourth.ok(1, hello(testCookie))
	other := e.door(t, func(p *Peer) { p.UID++ }).client(t, p11rpc.Offer0)
	other.ok(10, open)
}

// TestOtherApplications is attack P11: the sessions of one application are nothing to another, though the user is the same.
func TestOtherApplications(t *testing.T) {
	e := newEnv(t)
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		victim := e.client(t, d)
		s := victim.session(softwareID)
		victim.ok(18, loginArgs(s, ck.CKU_USER, ""))
		attacker := e.dial(t, d)
		attacker.ok(1, hello(strings.Repeat("e", cookieLength)))
		for _, call := range p11rpc.Calls {
			if callTable[call.ID].row.session {
				attacker.want(ck.CKR_SESSION_HANDLE_INVALID, call.ID, args{}.u(s).u(s).octets(nil))
			}
		}
		if own := attacker.session(softwareID); attacker.state(own) != ck.CKS_RW_PUBLIC_SESSION {
			t.Error("the login of one application is another's")
		}
		attacker.ok(12, args{}.u(attacker.slot(softwareID)))
		attacker.ok(2, nil)
		victim.ok(13, args{}.u(s))
	})
}

// TestCookies says who may join an application: a process of the same user, group and number that knows the cookie.
func TestCookies(t *testing.T) {
	e := newEnv(t, func(c *Config) {
		c.times = standardTimes
		c.times.linger = 2 * time.Second // within which a client comes back below
	})
	first := e.dial(t, p11rpc.Keyward)
	epoch := first.ok(1, hello(testCookie)).Ulong()
	s := first.session(softwareID)
	second := e.dial(t, p11rpc.Keyward)
	if got := second.ok(1, hello(testCookie)).Ulong(); got != epoch {
		t.Error("the epoch of one application changed")
	}
	second.ok(13, args{}.u(s))
	second.ok(18, loginArgs(s, ck.CKU_USER, ""))
	if first.state(s) != ck.CKS_RW_USER_FUNCTIONS {
		t.Error("a login is of one connection only")
	}
	if got := e.client(t, p11rpc.Offer2); got.call(13, args{}.u(s)).rv != ck.CKR_SESSION_HANDLE_INVALID {
		t.Error("a client of p11-kit joined by a cookie")
	}

	// The attack: others that have got hold of the cookie.
	for what, change := range map[string]func(*Peer){
		"user": func(p *Peer) { p.UID++ }, "group": func(p *Peer) { p.GID++ }, "process": func(p *Peer) { p.PID++ },
	} {
		c := e.door(t, change).dial(t, p11rpc.Keyward)
		c.want(ck.CKR_ARGUMENTS_BAD, 1, hello(testCookie))
		c.want(ck.CKR_CRYPTOKI_NOT_INITIALIZED, 13, args{}.u(s))
		c.ok(1, hello(strings.Repeat("0", cookieLength)))
		if got := c.call(13, args{}.u(s)).rv; got != ck.CKR_SESSION_HANDLE_INVALID {
			t.Errorf("another %s: %v", what, got)
		}
		c.ok(2, nil)
	}
	for _, cookie := range []string{"", "0", strings.Repeat("0", 31), strings.Repeat("0", 33), strings.Repeat("A", 32), strings.Repeat("\x00", 32)} {
		e.dial(t, p11rpc.Keyward).want(ck.CKR_ARGUMENTS_BAD, 1, hello(cookie))
	}
	e.dial(t, p11rpc.Keyward).want(ck.CKR_ARGUMENTS_BAD, 1, args{}.octets([]byte(handshake)).y(0).octets([]byte{0}))
	e.dial(t, p11rpc.Offer0).want(ck.CKR_GENERAL_ERROR, 1, args{}.octets([]byte(handshake+"0")).y(0).octets([]byte{0}))

	// All connections go and the client comes back in time.
	first.net.Close()
	second.net.Close()
	for e.front.Stats().Connections > 12 {
		time.Sleep(time.Millisecond)
	}
	third := e.dial(t, p11rpc.Keyward)
	if got := third.ok(1, hello(testCookie)).Ulong(); got != epoch || third.state(s) != ck.CKS_RW_USER_FUNCTIONS {
		t.Error("the application did not wait for its client")
	}
	// It does not come back in time.
	before := e.front.Stats().Sessions
	third.net.Close()
	for before == e.front.Stats().Sessions {
		time.Sleep(time.Millisecond)
	}
	fourth := e.dial(t, p11rpc.Keyward)
	if got := fourth.ok(1, hello(testCookie)).Ulong(); got == epoch {
		t.Error("the application waited for ever")
	}
	fourth.want(ck.CKR_SESSION_HANDLE_INVALID, 13, args{}.u(s))

	// C_Finalize of one connection is one of all.
	s = fourth.session(softwareID)
	fifth := e.client(t, p11rpc.Keyward)
	fifth.ok(13, args{}.u(s))
	fourth.ok(2, nil)
	fifth.want(ck.CKR_CRYPTOKI_NOT_INITIALIZED, 13, args{}.u(s))
	fifth.want(ck.CKR_CRYPTOKI_NOT_INITIALIZED, 2, nil)
	fifth.ok(1, hello(testCookie))
	fifth.want(ck.CKR_SESSION_HANDLE_INVALID, 13, args{}.u(s))
}

// TestAfterFinalize says that nothing works, and that a new beginning has nothing of the old one.
func TestAfterFinalize(t *testing.T) {
	e := newEnv(t)
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		c := e.client(t, d)
		s := c.session(softwareID)
		c.ok(2, nil)
		for _, call := range p11rpc.Calls[1:] {
			if got := c.call(call.ID, args{}.u(s)); got.rv != ck.CKR_CRYPTOKI_NOT_INITIALIZED {
				t.Errorf("%s: %v", call.Name, got.rv)
			}
		}
		c.ok(1, hello(testCookie))
		c.want(ck.CKR_SESSION_HANDLE_INVALID, 13, args{}.u(s))
	})
}

// TestReload says that what a peer has as one principal is gone when a reload makes it another, or nobody.
func TestReload(t *testing.T) {
	e := newEnv(t)
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		e.actor.Store(root)
		c := e.client(t, d)
		s := c.session(softwareID)
		c.ok(18, loginArgs(s, ck.CKU_USER, ""))
		same := *root
		e.actor.Store(&same) // a reload that changes nothing
		if c.state(s) != ck.CKS_RW_USER_FUNCTIONS {
			t.Error("the login is gone")
		}
		e.actor.Store(alice)
		c.want(ck.CKR_SESSION_HANDLE_INVALID, 13, args{}.u(s))
		s = c.session(softwareID)
		if c.state(s) != ck.CKS_RW_PUBLIC_SESSION {
			t.Error("the login of one principal is another's")
		}
		e.actor.Store(nil)
		for call, rv := range map[p11rpc.CallID]ck.RV{13: ck.CKR_SESSION_HANDLE_INVALID, 5: ck.CKR_SLOT_ID_INVALID} {
			c.want(rv, call, args{}.u(s))
		}
		e.actor.Store(alice)
		c.want(ck.CKR_SESSION_HANDLE_INVALID, 13, args{}.u(s)) // it does not come back
	})
}

// TestStranger is a client that is nobody to keyward: it works, and there is no token.
func TestStranger(t *testing.T) {
	e := newEnv(t)
	e.actor.Store(nil)
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		c := e.client(t, d)
		c.ok(3, nil)
		if got := c.ok(4, args{}.y(1).room(9)).ulongs(t); len(got) != 0 {
			t.Errorf("slots %v", got)
		}
		c.want(ck.CKR_SLOT_ID_INVALID, 10, args{}.u(slotIDOf(softwareID)).u(serial))
		c.ok(2, nil)
	})
}

func slotIDOf(instance string) uint64 { return uint64(slotNumber(instance)) }

// TestWhileReloading opens sessions, logs in and closes while the principal changes: whatever was begun as one principal is nothing of
// the other's. The race detector looks on.
func TestWhileReloading(t *testing.T) {
	e := newEnv(t)
	c := e.client(t, p11rpc.Keyward)
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range 4 {
		other := e.client(t, p11rpc.Keyward)
		all.Go(func() {
			for ctx.Err() == nil {
				if got := other.call(10, args{}.u(slotIDOf(softwareID)).u(serial)); got.rv == ck.CKR_OK {
					s := got.Ulong()
					other.call(18, loginArgs(s, ck.CKU_USER, ""))
					other.call(13, args{}.u(s))
					other.call(19, args{}.u(s))
					other.call(11, args{}.u(s))
				}
			}
		})
	}
	actors := []*kms.Actor{root, alice, nil}
	for i := range 300 {
		e.actor.Store(actors[i%3])
		c.ok(3, nil)
	}
	cancel()
	all.Wait()
	c.ok(2, nil)
	if n := e.front.Stats().Sessions; n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// weighed is a session object that says what it weighs.
type weighed struct {
	*sessionData
	octets int
}

func (w weighed) weight() int { return w.octets }

// TestSessionObjects says whose they are, and when they end.
func TestSessionObjects(t *testing.T) {
	e := newEnv(t)
	c := e.client(t, p11rpc.Offer0)
	ids := []uint64{c.session(softwareID), c.session(softwareID), c.session(hardwareID)}
	var a *application
	for one := range e.front.all {
		a = one
	}
	var sessions []*session
	for _, id := range ids {
		sessions = append(sessions, a.sessions[id])
	}
	weighing := func(octets int) sessionObject {
		data := newSessionData(tableOf(ck.CKO_DATA, noKey), nil)
		return weighed{&data, octets}
	}
	add := func(i, octets int) handle {
		t.Helper()
		h, rv := a.addObject(sessions[i], weighing(octets))
		if rv != ck.CKR_OK {
			t.Fatal(rv)
		}
		return h
	}
	first, second, elsewhere := add(0, 1), add(1, 10), add(2, 100)
	if a.object(softwareID, first) == nil || a.object(hardwareID, first) != nil || a.object(hardwareID, elsewhere) == nil {
		t.Error("an object is of the token of its session, and of no other")
	}
	if a.removeObject(hardwareID, first) || !a.removeObject(softwareID, first) || a.removeObject(softwareID, first) {
		t.Error("an object is removed once, as one of its token")
	}
	first = add(0, 1)
	n := 0
	a.eachObject(softwareID, func(h handle, _ sessionObject) { n++ })
	if n != 2 {
		t.Errorf("%d objects", n)
	}
	c.ok(11, args{}.u(ids[0]))
	if a.object(softwareID, first) != nil || a.object(softwareID, second) == nil || a.octets != 110 {
		t.Error("the objects of a session end with it, and others do not")
	}
	if _, rv := a.addObject(sessions[0], weighing(1)); rv != ck.CKR_SESSION_HANDLE_INVALID {
		t.Errorf("a closed session made an object: %v", rv)
	}
	if _, rv := a.addObject(sessions[1], weighing(maxSessionObjectOctets)); rv != ck.CKR_DEVICE_MEMORY {
		t.Errorf("too many octets: %v", rv)
	}
	for len(a.objects) < maxSessionObjects {
		add(1, 0)
	}
	if _, rv := a.addObject(sessions[1], weighing(0)); rv != ck.CKR_DEVICE_MEMORY {
		t.Errorf("too many objects: %v", rv)
	}
	c.ok(12, args{}.u(uint64(slotNumber(softwareID))))
	if len(a.objects) != 1 || a.octets != 100 {
		t.Errorf("%d objects, %d octets are left", len(a.objects), a.octets)
	}
	c.ok(2, nil)
	if len(a.objects) != 0 || a.octets != 0 {
		t.Errorf("after the end %d objects, %d octets are left", len(a.objects), a.octets)
	}
}
