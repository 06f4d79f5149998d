package pkcs11front

import (
	"testing"

	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// BenchmarkRoundTrip measures what a call costs before anything is done: over a socket, from one client that waits for each answer.
// C_GetInfo is answered by the connection's goroutine in all dialects, C_GetSessionInfo of p11-kit's in a lane.
func BenchmarkRoundTrip(b *testing.B) {
	for _, d := range []p11rpc.Dialect{p11rpc.Offer0, p11rpc.Keyward} {
		e := newEnv(b)
		c := e.client(b, d)
		s := c.session(softwareID)
		for _, call := range []struct {
			name string
			id   p11rpc.CallID
			args args
		}{{"C_GetInfo", 3, nil}, {"session", 39, args{}.u(s).octets([]byte("0123456789"))}} {
			b.Run(dialectNames[d]+"/"+call.name, func(b *testing.B) {
				b.ReportAllocs()
				f := c.request(call.id, call.args)
				buf := make([]byte, 4096)
				for b.Loop() {
					if _, err := c.net.Write(f); err != nil {
						b.Fatal(err)
					}
					if _, err := c.net.Read(buf); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
