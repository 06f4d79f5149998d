package pkcs11front

import (
	"testing"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
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
