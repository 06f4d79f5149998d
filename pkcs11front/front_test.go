package pkcs11front

import (
	"testing"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"github.com/keyward/keyward/pkcs11front/p11rpc/p11rpctest"
)

// TestFirstCalls does what every client does first.
func TestFirstCalls(t *testing.T) {
	e := newEnv(t)
	inDialects(t, func(t *testing.T, d p11rpc.Dialect) {
		c := e.dial(t, d)
		c.want(ck.CKR_CRYPTOKI_NOT_INITIALIZED, 3, nil)
		c.ok(1, hello(testCookie))
		c.want(ck.CKR_CRYPTOKI_ALREADY_INITIALIZED, 1, hello(testCookie))
		info := c.ok(3, nil)
		if major, minor := info.Byte(), info.Byte(); major != 2 || minor != 40 {
			t.Errorf("version %d.%d", major, minor)
		}
		if s := info.Text(); s != "keyward                         " {
			t.Errorf("manufacturer %q", s)
		}
		c.session(softwareID)
		c.session(hardwareID)
		c.ok(2, nil)
		c.want(ck.CKR_CRYPTOKI_NOT_INITIALIZED, 3, nil)
	})
}

// TestTestClient has the client that other packages' tests use speak to the door, several requests at a time.
func TestTestClient(t *testing.T) {
	e := newEnv(t)
	for d, offer := range offers {
		c, err := p11rpctest.Dial(e.path, offer)
		if err != nil {
			t.Fatal(err)
		}
		if rv, err := c.Initialize(testCookie); err != nil || rv != ck.CKR_OK {
			t.Fatalf("%s: %v %v", dialectNames[d], rv, err)
		}
		first := c.Put(3, nil)
		second := c.Put(10, func(w *p11rpc.Writer) { w.Ulong(slotIDOf(hardwareID)); w.Ulong(uint64(ck.CKF_SERIAL_SESSION)) })
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		for _, want := range []uint32{first, second} {
			if serial, _, rv, err := c.Receive(); err != nil || rv != ck.CKR_OK || serial != want {
				t.Errorf("%s: %d %v %v", dialectNames[d], serial, rv, err)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
