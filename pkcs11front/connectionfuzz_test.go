package pkcs11front

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// placeholder stands in fuzzed octets for the number of a session that is open.
const placeholder = 0x1111111111111111

// FuzzConnection sends octets to a door after a good beginning. Whatever they are, the door answers with whole frames, one for each of the
// frames that it got, and closes the connection when they end.
func FuzzConnection(f *testing.F) {
	e := newEnv(f, func(c *Config) {
		c.Log = zerolog.Nop() // f's can't be written while it fuzzes
		c.times = standardTimes
		c.times.linger = time.Millisecond // so that applications don't add up
	})
	seed := &testClient{t: f, serial: 1}
	for _, call := range p11rpc.Calls {
		a := args{}.u(placeholder).u(1).octets([]byte("data")).room(64)
		one := seed.request(call.ID, a)
		f.Add(byte(0), one)
		f.Add(byte(3), append(one, seed.request(3, nil)...))
	}
	f.Add(byte(1), rawFrame(1, 99, "uuu", args{}.u(1)))
	f.Add(byte(2), []byte{0, 0, 0, 1, 0, 0, 4, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, dialect byte, stream []byte) {
		d := p11rpc.Dialect(dialect % 4)
		c := e.dial(t, d)
		c.ok(1, hello(fmt.Sprintf("%032x", draw())))
		s := c.session(softwareID)
		stream = bytes.ReplaceAll(stream, binary.BigEndian.AppendUint64(nil, placeholder), binary.BigEndian.AppendUint64(nil, s))
		go func() {
			c.net.Write(stream) // fails when the door closes first
			c.net.(*net.UnixConn).CloseWrite()
		}()
		if err := c.net.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		frames := countFrames(stream)
		answers := 0
		for {
			if _, err := c.tryRead(); err != nil {
				if err != io.EOF && !isReset(err) {
					t.Fatalf("after %d answers: %v", answers, err)
				}
				break
			}
			answers++
		}
		// When the client has gone its calls are cancelled, so some may have no answer; there is never one too many.
		if answers > frames {
			t.Errorf("%d answers to %d frames", answers, frames)
		}
		c.net.Close()
	})
}

// countFrames counts whole frames at the beginning of octets.
func countFrames(b []byte) (n int) {
	for len(b) >= p11rpc.HeaderSize {
		h, err := p11rpc.ParseHeader(b)
		if err != nil || len(b) < p11rpc.HeaderSize+h.Options+h.Body {
			break
		}
		b = b[p11rpc.HeaderSize+h.Options+h.Body:]
		n++
	}
	return n
}
