package pkcs11front

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// succeed has a new Front take over what the door's holds, as the next daemon would.
func (e *testEnv) succeed(t *testing.T) (restored int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	held, err := e.front.Hold(ctx)
	if err != nil {
		t.Fatal(err)
	}
	e.serving.Wait()
	if s := e.front.Stats(); s.Connections != 0 || s.Applications != 0 || s.Sessions != 0 || len(e.front.users) != 0 {
		t.Errorf("the old door has %+v still, of %d users", s, len(e.front.users))
	}
	e.front = New(Config{Service: e.service, Log: e.front.cfg.Log, Version: "v1.2.4"})
	e.listen(t, func(*Peer) {})
	restored, err = e.front.Restore(held, func(net.Conn) (Peer, error) {
		return Peer{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), PID: int32(os.Getpid()), Identify: e.identify}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return restored
}

// signer makes a key in an instance, and gives its objects' handle.
func (e *testEnv) signer(t *testing.T, instance string, spec kmswire.KeySpec) {
	t.Helper()
	if _, err := e.service.CreateKey(t.Context(), root, &kmswire.CreateKeyRequest{DKMSInstanceID: instance, KeySpec: spec, KeyUsage: kmswire.SignVerify}); err != nil {
		t.Fatal(err)
	}
}

// A p11-kit client goes on where it was when the daemon is replaced: sessions, a login, an operation that was begun, a search that was fetched in part, half a
// request, requests that nobody had read.
func TestHandover(t *testing.T) {
	for d := p11rpc.Offer0; d < p11rpc.Keyward; d++ {
		t.Run(dialectNames[d], func(t *testing.T) {
			e := newEnv(t)
			for range 4 {
				e.signer(t, softwareID, kmswire.ECP256)
			}
			e.signer(t, hardwareID, kmswire.ECP256)
			u, idle := e.user(t, d, softwareID), e.user(t, d, hardwareID)
			keyward := e.user(t, p11rpc.Keyward, softwareID)
			reader := u.open(softwareID, false)
			u.s, reader = reader, u.s
			keys := u.find(10, class(ck.CKO_PRIVATE_KEY))
			if len(keys) != 4 {
				t.Fatalf("%x", keys)
			}
			u.must(18, u.in(func(w *p11rpc.Writer) { w.Ulong(uint64(ck.CKU_USER)); w.Octets([]byte("any")) }))
			digest := bytes.Repeat([]byte{7}, 32)
			begin := func() {
				u.must(p11rpc.C_SignInit, u.in(func(w *p11rpc.Writer) { w.Mechanism(p11rpc.Mechanism{Type: ck.CKM_ECDSA}); w.Ulong(uint64(keys[1])) }))
			}
			sign := func() ck.RV {
				_, rv := u.call(p11rpc.C_Sign, u.in(func(w *p11rpc.Writer) { w.Octets(digest); w.Room(p11rpc.Room{Size: 100}) }))
				return rv
			}
			fetch := func(n uint32) []uint64 {
				list, _ := u.must(27, u.in(func(w *p11rpc.Writer) { w.Room(p11rpc.Room{Size: n}) })).Ulongs()
				return list
			}
			begin()
			u.must(26, u.in(func(w *p11rpc.Writer) { w.Template(all(class(ck.CKO_PRIVATE_KEY))) }))
			first := fetch(1)
			// Half a request of another connection, and its rest when the other daemon is there.
			half := e.client(t, d)
			session := half.session(softwareID)
			request := half.request(13, args{}.u(session)) // C_GetSessionInfo
			half.send(request[:len(request)-5])
			if n := e.front.Stats().Connections; n != 4 {
				t.Errorf("there are %d connections", n)
			}

			if n := e.succeed(t); n != 3 {
				t.Errorf("%d connections were taken over", n)
			}
			if rv := sign(); rv != ck.CKR_OK {
				t.Errorf("the operation that was begun: %v", rv)
			}
			if rv := sign(); rv != ck.CKR_OPERATION_NOT_INITIALIZED {
				t.Errorf("it ends once: %v", rv)
			}
			if rest := slices.Concat(first, fetch(1), fetch(10)); len(rest) != 4 || handle(rest[0]) != keys[0] || handle(rest[3]) != keys[3] {
				t.Errorf("the search gives %x, not %x", rest, keys)
			}
			u.must(28, u.in(nil))
			info := u.must(13, u.in(nil))
			if info.Ulong(); ck.State(info.Ulong()) != ck.CKS_RW_USER_FUNCTIONS {
				t.Error("the login is gone")
			}
			u.s = reader
			u.must(13, u.in(nil))
			half.send(request[len(request)-5:])
			if a := half.read(); a.rv != ck.CKR_OK {
				t.Errorf("the half request: %v", a.rv)
			}
			idle.find(10)
			if _, _, err := keyward.Call(3, nil); err == nil {
				t.Error("the connection of a client that comes back by itself was held")
			}
			begin()
			if rv := sign(); rv != ck.CKR_OK {
				t.Errorf("%v", rv)
			}
		})
	}
}

// While clients use keys from many connections without a pause the daemon is replaced again and again, and no call fails.
func TestHandoverUnderLoad(t *testing.T) {
	e := newEnv(t)
	e.signer(t, softwareID, kmswire.ECP256)
	var clients []*tokenUser
	for i := range 8 {
		clients = append(clients, e.user(t, p11rpc.Dialect(i%3), softwareID))
	}
	key := clients[0].find(10, class(ck.CKO_PRIVATE_KEY))[0]
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var done [8]int
	for i, u := range clients {
		load.Go(func() {
			digest := bytes.Repeat([]byte{byte(i)}, 32)
			for ; ctx.Err() == nil; done[i]++ {
				for _, call := range []struct {
					id   p11rpc.CallID
					args func(*p11rpc.Writer)
				}{
					{p11rpc.C_SignInit, func(w *p11rpc.Writer) {
						w.Mechanism(p11rpc.Mechanism{Type: ck.CKM_ECDSA})
						w.Ulong(uint64(key))
					}},
					{p11rpc.C_Sign, func(w *p11rpc.Writer) { w.Octets(digest); w.Room(p11rpc.Room{Null: true}) }}, // how long it is
					{p11rpc.C_Sign, func(w *p11rpc.Writer) { w.Octets(digest); w.Room(p11rpc.Room{Size: 100}) }},
				} {
					if _, rv, err := u.Call(call.id, u.in(call.args)); err != nil || rv != ck.CKR_OK {
						t.Errorf("client %d, %s: %v, %v", i, p11rpc.Calls[call.id-1].Name, rv, err)
						return
					}
				}
			}
		})
	}
	for range 5 {
		time.Sleep(50 * time.Millisecond) // there is load
		if n := e.succeed(t); n != 8 {
			t.Errorf("%d connections were taken over", n)
		}
	}
	stop()
	load.Wait()
	for i, n := range done {
		if n == 0 {
			t.Errorf("client %d did nothing", i)
		}
	}
}

// What one principal had is nothing that another may use, and of who is nobody now nothing is taken over.
func TestHandoverToAnother(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Offer1, softwareID)
	e.actor.Store(&kms.Actor{Principal: "acs:ram::" + testAccount + ":user/other", Account: testAccount})
	// Nobody calls between the two, so that only the takeover can notice.
	e.succeed(t)
	if _, rv := u.call(13, u.in(nil)); rv != ck.CKR_SESSION_HANDLE_INVALID {
		t.Errorf("another's session: %v", rv)
	}
	e.actor.Store(nil)
	e.succeed(t)
	if _, _, err := u.Call(3, nil); err != nil && err != io.EOF {
		t.Errorf("%v", err)
	}
}

// State that is none, and files that nobody knows, are closed and told.
func TestRestoreNonsense(t *testing.T) {
	e := newEnv(t)
	who := func(net.Conn) (Peer, error) { return Peer{Identify: e.identify}, nil }
	for _, state := range []string{"", "x", "[]", `[{"Inode":1}]`, "null"} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		n, err := e.front.Restore(Held{State: []byte(state), Files: []*os.File{w}}, who)
		if n != 0 || (state == "" || state == "x") != (err != nil) {
			t.Errorf("%q: %d, %v", state, n, err)
		}
		if _, err := io.ReadAll(r); err != nil { // ends only if the other end is closed
			t.Error(err)
		}
		r.Close()
	}
}
