// Package p11rpctest is a client of the protocol, for tests and benchmarks of who speaks it.
package p11rpctest

import (
	"fmt"
	"io"
	"net"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// Client is one connection. It belongs to one goroutine.
type Client struct {
	Dialect p11rpc.Dialect
	Conn    net.Conn

	serial uint32 // of the last request
	in     p11rpc.Input
	last   bool   // an answer is in use
	out    []byte // requests that are not sent yet
	writer p11rpc.Writer
	reader p11rpc.Reader
	names  map[uint32]p11rpc.Call // of requests that are not answered yet, by serial
}

// Dial connects to a socket: NewClient.
func Dial(path string, offer byte) (*Client, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	c, err := NewClient(conn, offer)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// NewClient makes an offer (0, 1, 2 or p11rpc.OfferKeyward) over a new connection, which it takes over if the offer is accepted.
func NewClient(conn net.Conn, offer byte) (*Client, error) {
	d, want, ok := p11rpc.DialectOf(offer)
	if !ok {
		return nil, fmt.Errorf("no client offers %#x", offer)
	}
	if _, err := conn.Write([]byte{offer}); err != nil {
		return nil, err
	}
	got := []byte{0}
	if _, err := io.ReadFull(conn, got); err != nil {
		return nil, err
	}
	if got[0] != want {
		return nil, fmt.Errorf("the offer %#x was answered with %#x", offer, got[0])
	}
	return &Client{Dialect: d, Conn: conn, serial: 0x0f, names: map[uint32]p11rpc.Call{}}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.Conn.Close() }

// Put adds a request to those that the next Flush sends. arguments may be nil. It gives the serial.
func (c *Client) Put(id p11rpc.CallID, arguments func(*p11rpc.Writer)) uint32 {
	call := p11rpc.Calls[id-1]
	options := "test"
	if c.Dialect == p11rpc.Keyward {
		options = ""
	}
	c.serial++
	begin := len(c.out)
	c.writer.Reset(c.Dialect, p11rpc.AppendRequest(c.out, c.serial, options, id, call.Request))
	if arguments != nil {
		arguments(&c.writer)
	}
	c.out = c.writer.Bytes()
	p11rpc.FinishFrame(c.out[begin:])
	c.names[c.serial] = call
	return c.serial
}

// Flush sends, in one write.
func (c *Client) Flush() error {
	_, err := c.Conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// Receive waits for the next answer, of whichever request. The Reader and what it gives out are valid until the next Receive.
func (c *Client) Receive() (serial uint32, r *p11rpc.Reader, rv ck.RV, err error) {
	if c.last {
		c.in.Done()
		c.last = false
	}
	for {
		f, ok, err := c.in.Next()
		if err != nil {
			return 0, nil, 0, err
		}
		if ok {
			c.last = true
			rv, err := c.answer(f)
			return f.Serial, &c.reader, rv, err
		}
		if err := c.in.Fill(c.Conn); err != nil {
			return 0, nil, 0, err
		}
	}
}

func (c *Client) answer(f p11rpc.Frame) (ck.RV, error) {
	call, ok := c.names[f.Serial]
	if !ok {
		return 0, fmt.Errorf("an answer with the serial %d, which no request has", f.Serial)
	}
	delete(c.names, f.Serial)
	id, signature, results, ok := p11rpc.ParseBody(f.Body)
	if !ok || len(f.Options) > 0 {
		return 0, fmt.Errorf("%s: a malformed answer", call.Name)
	}
	c.reader.Reset(c.Dialect, results)
	switch {
	case id == p11rpc.ErrorReply && string(signature) == "u":
		rv := ck.RV(c.reader.Ulong())
		if err := c.reader.End(); err != nil || rv == ck.CKR_OK {
			return 0, fmt.Errorf("%s: a malformed error", call.Name)
		}
		return rv, nil
	case id != call.ID || string(signature) != p11rpc.Response(c.Dialect, call):
		return 0, fmt.Errorf("%s: the answer is of call %d with signature %q", call.Name, id, signature)
	}
	return ck.CKR_OK, nil
}

// Call makes a call and waits for its answer. err is of the connection or the protocol; what the call returns is rv.
func (c *Client) Call(id p11rpc.CallID, arguments func(*p11rpc.Writer)) (r *p11rpc.Reader, rv ck.RV, err error) {
	want := c.Put(id, arguments)
	if err := c.Flush(); err != nil {
		return nil, 0, err
	}
	serial, r, rv, err := c.Receive()
	if err == nil && serial != want {
		err = fmt.Errorf("the answer of %d has the serial %d", want, serial)
	}
	return r, rv, err
}

// handshake is what every client says in C_Initialize.
const handshake = "PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1"

// Initialize is C_Initialize, with a reserved string if it is not empty: the cookie of keyward's own module.
func (c *Client) Initialize(reserved string) (ck.RV, error) {
	_, rv, err := c.Call(1, func(w *p11rpc.Writer) {
		w.Octets([]byte(handshake))
		given := byte(0)
		if reserved != "" {
			given = 1
		}
		w.Byte(given)
		w.Octets([]byte(reserved + "\x00"))
	})
	return rv, err
}
