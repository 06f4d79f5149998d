package pkcs11front

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// Tests of what clients can make the daemon hold.

// held is what the user of all peers holds.
func (e *testEnv) held(c *testClient) int64 {
	e.front.mu.Lock()
	defer e.front.mu.Unlock()
	for _, u := range e.front.users {
		return u.memory.held.Load()
	}
	return 0
}

// searchTemplate is C_FindObjectsInit for objects with a long label.
func searchTemplate(s uint64, label []byte) args {
	return args{}.u(s).more(attrs{{Type: ck.CKA_LABEL, Value: octetsValue(label)}})
}

// The attack: a search in each of many sessions, each with a template as long as a frame. They count, and there is an end to them; what ends gives
// back what it held.
func TestSearchesCount(t *testing.T) {
	e := newEnv(t, func(c *Config) { c.MemoryPerUser = 8 << 20 })
	c := e.client(t, p11rpc.Keyward)
	// A search of which the label says nothing about where to look: all keys are paged, and the template is kept.
	long := bytes.Repeat([]byte{'x'}, 900<<10)
	begin := func(s uint64) args { return args{}.u(s).more(attrs{{Type: ck.CKA_ISSUER, Value: octetsValue(long)}}) }
	var sessions []uint64
	for {
		s := c.session(softwareID)
		if rv := c.call(26, begin(s)).rv; rv == ck.CKR_HOST_MEMORY {
			break
		} else if rv != ck.CKR_OK {
			t.Fatalf("%v", rv)
		}
		if sessions = append(sessions, s); len(sessions) > 20 {
			t.Fatalf("%d searches with templates of 900 KiB are held", len(sessions))
		}
	}
	if len(sessions) < 4 {
		t.Errorf("only %d searches are held", len(sessions))
	}
	// What is looked up by its name at once keeps no template.
	s := c.session(softwareID)
	c.ok(26, searchTemplate(s, []byte("a name")))
	before := e.held(c)
	c.ok(28, args{}.u(s))
	if after := e.held(c); after != before {
		t.Errorf("the end of an empty search gave back %d octets", before-after)
	}
	for i, s := range sessions {
		switch i % 3 {
		case 0:
			c.ok(28, args{}.u(s)) // C_FindObjectsFinal
		case 1:
			c.ok(11, args{}.u(s)) // C_CloseSession
		case 2:
			c.ok(67, args{}.u(s).u(uint64(ck.CKF_FIND_OBJECTS))) // C_SessionCancel
		}
	}
	if n := e.held(c); n != 0 {
		t.Errorf("%d octets are held still", n)
	}
}

// A logout ends searches that were begun while private objects were there.
func TestLogoutEndsSearches(t *testing.T) {
	e := newEnv(t)
	c := e.client(t, p11rpc.Offer2)
	s, other := c.session(softwareID), c.session(softwareID)
	c.ok(18, loginArgs(s, ck.CKU_USER, "any"))
	c.ok(26, args{}.u(s).more(attrs{}))
	c.ok(19, args{}.u(other))
	c.want(ck.CKR_OPERATION_NOT_INITIALIZED, 27, args{}.u(s).room(5))
}

// What one user may hold is shared by its applications; others have theirs.
func TestMemoryOfUsers(t *testing.T) {
	e := newEnv(t, func(c *Config) { c.MemoryPerUser = 2 << 20 })
	other := e.door(t, func(p *Peer) { p.UID += 7 })
	value := make([]byte, 200<<10)
	object := func(c *testClient) ck.RV {
		return c.call(20, args{}.u(c.session(softwareID)).more(attrs{{Type: ck.CKA_CLASS, Value: ulongValue(uint64(ck.CKO_DATA))}, {Type: ck.CKA_VALUE, Value: octetsValue(value)}})).rv
	}
	made := 0
	application := func(e *testEnv, n int) *testClient {
		c := e.dial(t, p11rpc.Keyward)
		c.ok(1, hello(fmt.Sprintf("%032x", n)))
		return c
	}
	for n := range 4 {
		c := application(e, n)
		for range 4 {
			switch rv := object(c); rv {
			case ck.CKR_OK:
				made++
			case ck.CKR_DEVICE_MEMORY:
			default:
				t.Fatalf("%v", rv)
			}
		}
	}
	if made < 5 || made > 10 {
		t.Errorf("%d objects of 200 KiB were made", made)
	}
	c := application(other, 5)
	if rv := object(c); rv != ck.CKR_OK {
		t.Errorf("another user's first object: %v", rv)
	}
	// Calls that wait for their turn count too: beyond that a client is told, and nobody waits.
	lanes := e.client(t, p11rpc.Offer2)
	s := lanes.session(softwareID)
	lanes.want(ck.CKR_HOST_MEMORY, 43, args{}.u(s).octets(make([]byte, 900<<10)).room(100))
}

// A frame that is too long is discarded as it comes, and answered; the connection goes on. Nothing is kept of it.
func TestLongFrames(t *testing.T) {
	e := newEnv(t)
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		c := e.client(t, d)
		s := c.session(softwareID)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for _, size := range []int{p11rpc.MaxBody + 1, 3 << 20} {
			c.want(ck.CKR_DATA_LEN_RANGE, 39, args{}.u(s).octets(make([]byte, size)))
			c.ok(3, nil)
		}
		runtime.ReadMemStats(&after)
		if grown := int64(after.TotalAlloc-before.TotalAlloc) - 4*(4<<20); grown > 8<<20 { // the test's own copies
			t.Errorf("%d octets were allocated", grown)
		}
		c.ok(13, args{}.u(s))
	})
}

// empty waits until the door has done with the connections that ended: it counts them until then.
func (e *testEnv) empty() {
	for e.front.Stats().Connections > 0 {
		time.Sleep(time.Millisecond)
	}
}

// Peers that keyward does not know have a part of the connections, send short requests, and are not waited for.
func TestStrangers(t *testing.T) {
	var log bytes.Buffer
	var mu sync.Mutex // over log: connections that end write to it to the last
	e := newEnv(t, func(c *Config) {
		c.Log = zerolog.New(&lockedWriter{&mu, &log})
		c.Connections = 4 * strangersPart
		c.times = standardTimes
		c.times.stranger = 2 * time.Second // longer than all that is done below takes: only the idle one is to be closed
	})
	known := e.actor.Load()
	e.actor.Store(nil)
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		if n := strings.Count(log.String(), "gets no token"); n == 0 || n > 1+2*strangersPart {
			t.Errorf("the log has %d lines of strangers", n)
		}
	}()
	idle := e.dial(t, p11rpc.Offer2)
	idle.ok(1, hello(""))
	idle.want(ck.CKR_DATA_LEN_RANGE, 39, args{}.u(1).octets(make([]byte, strangerFrame)))
	closes(t, idle.net, "an idle stranger")
	e.empty()
	for range 5 {
		c := e.dial(t, p11rpc.Offer2)
		c.ok(1, hello(""))
		c.net.Close()
		e.empty()
	}
	// Whom keyward gets to know is no stranger any more.
	late := e.dial(t, p11rpc.Keyward)
	late.ok(1, hello(testCookie))
	e.actor.Store(known)
	s := late.session(softwareID)
	late.ok(37, args{}.u(s).more(mech{m: ck.CKM_SHA256}))
	late.ok(39, args{}.u(s).octets(make([]byte, 8*strangerFrame)))
	late.net.Close()
	e.empty()
	e.actor.Store(nil)

	var uid uint32
	taken := 0
	for range 2 * strangersPart {
		uid++
		other := e.door(t, func(p *Peer) { p.UID += uid })
		other.actor.Store(nil)
		c := other.dial(t, p11rpc.Offer2)
		if rv := c.call(1, hello("")).rv; rv == ck.CKR_OK {
			taken++
		} else if rv != ck.CKR_HOST_MEMORY {
			t.Fatalf("%v", rv)
		}
	}
	if taken == 0 || taken > 2*strangersPart-1 {
		t.Errorf("%d connections of strangers were taken", taken)
	}
	e.actor.Store(known)
	for range 4 * strangersPart / 2 {
		e.client(t, p11rpc.Offer2) // all of those whom keyward knows
	}
}

// maxPerRequest is how many octets a request may make the daemon allocate, as a multiple of its size and beside that.
const (
	allocatedTimes = 64
	allocatedMore  = 8 << 10
)

// No request makes the daemon allocate more than a fixed multiple of its size: each call with the room and the counts that promise most.
func TestAllocation(t *testing.T) {
	e := newEnv(t)
	c := e.client(t, p11rpc.Keyward)
	s := c.session(softwareID)
	for _, call := range p11rpc.Calls {
		if call.Name == "C_Finalize" || call.Name == "C_CloseSession" || call.Name == "C_CloseAllSessions" {
			continue
		}
		a := mostPromising(call.Request, s)
		frame := c.request(call.ID, a)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		c.send(frame)
		c.read()
		runtime.ReadMemStats(&after)
		if n := int(after.TotalAlloc - before.TotalAlloc); n > allocatedTimes*len(frame)+allocatedMore {
			t.Errorf("%s of %d octets has %d allocated", call.Name, len(frame), n)
		}
	}
	// Random octets are what a short request gets most of.
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c.ok(64, args{}.u(s).room(maxRandom))
	runtime.ReadMemStats(&after)
	if n := int(after.TotalAlloc - before.TotalAlloc); n > 8*maxRandom { // half of it is the test's own
		t.Errorf("C_GenerateRandom of %d octets has %d allocated", maxRandom, n)
	}
	c.want(ck.CKR_DATA_LEN_RANGE, 64, args{}.u(s).room(maxRandom+1))
}

// mostPromising makes arguments of a signature in which every length is as large as it can be said.
func mostPromising(signature string, session uint64) args {
	a := args{}
	for i := 0; i < len(signature); i++ {
		switch signature[i] {
		case 'u':
			if i == 0 {
				a = a.u(session)
			} else {
				a = a.u(1<<32 - 2)
			}
		case 'y':
			a = a.y(1)
		case 'f':
			i++
			a = a.room(1<<32 - 2)
		case 'a':
			i++
			if signature[i] == 'y' {
				a = a.octets([]byte("some"))
			} else {
				a = a.more(attrs{{Type: ck.CKA_LABEL, Value: octetsValue([]byte("x"))}})
			}
		case 'M':
			a = a.more(mech{m: ck.CKM_SHA256})
		default:
			a = a.y(0)
		}
	}
	return a
}

// more appends arguments that need more than u, y, room and octets.
func (a args) more(v ...any) args { return append(a, (&bench{}).encode(v)...) }

// A key that is narrowed while an operation goes on is no key for it any more (P12).
func TestNarrowedKey(t *testing.T) {
	e := newEnv(t)
	c := e.client(t, p11rpc.Keyward)
	s := c.session(softwareID)
	yes, no := boolValue(true), boolValue(false)
	secret := c.ok(58, args{}.u(s).more(mech{m: ck.CKM_GENERIC_SECRET_KEY_GEN}, attrs{{Type: ck.CKA_SIGN, Value: yes}, {Type: ck.CKA_VALUE_LEN, Value: ulongValue(32)}})).Ulong()
	c.ok(42, args{}.u(s).more(mech{m: ck.CKM_SHA256_HMAC}).u(secret))
	c.ok(44, args{}.u(s).octets([]byte("pay")))
	other := c.session(softwareID)
	c.ok(25, args{}.u(other).u(secret).more(attrs{{Type: ck.CKA_SIGN, Value: no}}))
	c.want(ck.CKR_KEY_FUNCTION_NOT_PERMITTED, 45, args{}.u(s).room(32))
	c.want(ck.CKR_OPERATION_NOT_INITIALIZED, 45, args{}.u(s).room(32))
}

// A pair of which the public half has no room in the session leaves no key in the token.
func TestPairWithoutRoom(t *testing.T) {
	e := newEnv(t)
	c := e.client(t, p11rpc.Keyward)
	s := c.session(softwareID)
	p256 := octetsValue([]byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7})
	pair := args{}.u(s).more(mech{m: ck.CKM_EC_KEY_PAIR_GEN}, attrs{{Type: ck.CKA_TOKEN, Value: boolValue(false)}, {Type: ck.CKA_EC_PARAMS, Value: p256}},
		attrs{{Type: ck.CKA_TOKEN, Value: boolValue(true)}})
	var all []*application
	e.front.mu.Lock()
	for a := range e.front.all {
		all = append(all, a)
	}
	e.front.mu.Unlock()
	a := all[0]
	a.mu.Lock()
	a.reserved += maxSessionObjects
	a.mu.Unlock()
	c.want(ck.CKR_DEVICE_MEMORY, 59, pair)
	a.mu.Lock()
	a.reserved -= maxSessionObjects
	a.mu.Unlock()
	keys, _, _, err := e.service.TokenKeys(t.Context(), root, softwareID, kms.KeyPlace{}, 10)
	if err != nil || len(keys) != 0 {
		t.Errorf("%d keys are left, %v", len(keys), err)
	}
	c.ok(59, pair)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.reserved != 0 || len(a.objects) != 1 {
		t.Errorf("%d are reserved, %d are there", a.reserved, len(a.objects))
	}
}

// The audit has the first use of an operation in parts, and at its end how many there were and of how much: however it ends.
func TestPartsInAudit(t *testing.T) {
	e := newEnv(t)
	for _, instance := range []string{softwareID, hardwareID} {
		u := e.user(t, p11rpc.Keyward, instance)
		h, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), onToken)
		u.wantRV(ck.CKR_OK, rv)
		part := func(parts int) {
			u.must(29, u.in(func(w *p11rpc.Writer) {
				w.Mechanism(p11rpc.Mechanism{Type: ck.CKM_AES_CBC, Param: p11rpc.IV(make([]byte, 16))})
				w.Ulong(uint64(h))
			}))
			for range parts {
				u.must(31, u.in(func(w *p11rpc.Writer) { w.Octets(make([]byte, 64)); w.Room(p11rpc.Room{Size: 64}) }))
			}
		}
		for name, end := range map[string]func(){
			"final":   func() { u.must(32, u.in(func(w *p11rpc.Writer) { w.Room(p11rpc.Room{Size: 64}) })) },
			"cancel":  func() { u.must(67, u.in(func(w *p11rpc.Writer) { w.Ulong(uint64(ck.CKF_ENCRYPT)) })) },
			"session": func() { u.must(11, u.in(nil)); u.open(instance, true) },
		} {
			e.events.take()
			part(3)
			end()
			events := e.events.take()
			if len(events) != 2 || strings.Contains(events[0].Detail, "parts") || events[1].Detail != "AES-CBC, ended after 3 parts of 192 octets in all" ||
				events[1].KeyID != events[0].KeyID || events[1].RequestID == "" {
				t.Errorf("%s, %s: %+v", instance, name, events)
			}
			part(1)
			end()
			if events := e.events.take(); len(events) != 1 {
				t.Errorf("%s, %s, in one part: %+v", instance, name, events)
			}
		}
	}
}

// A use that the door refuses, as the key is not for it, is in the audit like one that a policy refuses.
func TestRefusalsInAudit(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Offer2, softwareID)
	public, private := u.pair(ck.CKM_RSA_PKCS_KEY_PAIR_GEN, all(number(ck.CKA_MODULUS_BITS, 2048), onToken), onToken) // which signs
	e.events.take()
	for h, init := range map[handle]p11rpc.CallID{private: p11rpc.C_DecryptInit, public: p11rpc.C_EncryptInit} {
		_, rv := u.call(init, u.in(func(w *p11rpc.Writer) { w.Mechanism(p11rpc.Mechanism{Type: ck.CKM_RSA_PKCS}); w.Ulong(uint64(h)) }))
		u.wantRV(ck.CKR_KEY_FUNCTION_NOT_PERMITTED, rv)
	}
	events := e.events.take()
	if len(events) != 2 {
		t.Fatalf("%d events", len(events))
	}
	for _, event := range events {
		if event.Outcome != kms.OperationRejected.Error() || !strings.HasPrefix(event.Action, "Asymmetric") || event.KeyID == "" || event.RequestID == "" || !strings.Contains(event.Detail, "CKM_RSA_PKCS: CKR_KEY_FUNCTION_NOT_PERMITTED") {
			t.Errorf("%+v", event)
		}
	}
}
