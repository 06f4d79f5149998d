// Package kmsclient calls the KMS API of keyward over its Unix socket. It needs the standard library and kms/kmswire
// only, so that a program which uses it stays small and static.
//
// A caller is known by the process that connects (SO_PEERCRED): there is nothing to configure but the socket.
//
//	c := &kmsclient.Client{}
//	var out kmswire.EncryptResponse
//	err := kmsclient.Call(ctx, c, "Encrypt", &kmswire.EncryptRequest{KeyID: "alias/app", Plaintext: secret}, &out)
//
// Call serves every action, also the batch actions in their JSON form. Stream, OctetBatch and LineBatch are the batch
// actions without a limit of items. Signer is a crypto.Signer whose key stays with keyward.
package kmsclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/keyward/keyward/kms/kmswire"
)

// DefaultSocket is where keywardd listens for the API when nothing else is said.
const DefaultSocket = "/run/keyward/admin.sock"

const (
	maxAnswer    = 64 << 20 // octets of one JSON answer: four times the largest JSON batch
	maxErrorBody = 1 << 20  // octets of one error answer
)

// Client talks to one keywardd. The zero value uses DefaultSocket. A Client may be used by many goroutines at the same
// time; it keeps connections open and uses them again. Its fields must not change after the first call.
type Client struct {
	// Socket is the path of the API's Unix socket; empty means DefaultSocket.
	Socket string
	// Dial opens a connection in place of the Unix socket. It is for tests; nil means Socket.
	Dial func(ctx context.Context) (net.Conn, error)

	once      sync.Once
	transport *http.Transport
}

// SocketPath is where the client connects to.
func (c *Client) SocketPath() string {
	if c.Socket == "" {
		return DefaultSocket
	}
	return c.Socket
}

// CloseIdle closes the connections that nobody uses at the moment.
func (c *Client) CloseIdle() { c.roundTripper().CloseIdleConnections() }

func (c *Client) roundTripper() *http.Transport {
	c.once.Do(func() {
		c.transport = &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				conn, err := c.dial(ctx)
				if err != nil {
					return nil, &UnreachableError{Socket: c.SocketPath(), Err: err}
				}
				return &watchedConn{Conn: conn, closed: make(chan struct{})}, nil
			},
			DisableCompression:  true,
			MaxIdleConns:        0, // the number of callers is the limit
			MaxIdleConnsPerHost: 1024,
			IdleConnTimeout:     20 * time.Second, // the daemon lets go after 30 s; going first avoids a race
			// Streams ask before they send: see newRequest.
			ExpectContinueTimeout: 10 * time.Second,
			WriteBufferSize:       64 << 10,
			ReadBufferSize:        64 << 10,
		}
	})
	return c.transport
}

// watchedConn is a connection that says when the transport has closed it, which it does when the other end has gone.
type watchedConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

// Close closes the connection.
func (c *watchedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	if c.Dial != nil {
		return c.Dial(ctx)
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", c.SocketPath())
}

// Call does one action. req is the action's request of kmswire, or nil for an action without parameters; resp points
// to its answer, or is nil when only success matters. For a batch action the Items of req travel as one JSON batch, at
// most kmswire.MaxBatchItems of them.
//
// Errors: *Error when keyward refused, *UnreachableError when nothing could be sent, otherwise the connection's error,
// and then it is not known whether the action was done.
func Call(ctx context.Context, c *Client, action string, req, resp any) error {
	params, err := encode(req)
	if err != nil {
		return err
	}
	items := batchItems(req)
	if items == nil {
		return c.call(ctx, action, params, "", nil, resp)
	}
	body, err := json.Marshal(struct{ Items any }{items})
	if err != nil {
		return fmt.Errorf("kmsclient: %s: %w", action, err)
	}
	return c.call(ctx, action, params, "application/json", body, resp)
}

// CallParams does one action whose parameters are given by their wire names, and returns the answer as it came. It is
// for programs that pass parameters on without knowing them.
func CallParams(ctx context.Context, c *Client, action string, params url.Values) (json.RawMessage, error) {
	own := url.Values{}
	for name, values := range params {
		own[name] = values
	}
	var answer json.RawMessage
	err := c.call(ctx, action, own, "", nil, &answer)
	return answer, err
}

func encode(req any) (url.Values, error) {
	if req == nil {
		return url.Values{}, nil
	}
	return kmswire.Encode(req)
}

// batchItems gives the items of a batch request that travel in the body, or nil for any other request.
func batchItems(req any) any {
	switch r := req.(type) {
	case *kmswire.BatchEncryptRequest:
		return orEmpty(r.Items)
	case *kmswire.BatchDecryptRequest:
		return orEmpty(r.Items)
	case *kmswire.BatchSignRequest:
		return orEmpty(r.Items)
	case *kmswire.BatchVerifyRequest:
		return orEmpty(r.Items)
	}
	return nil
}

// orEmpty makes a nil list an empty one, so that it is written as [] and not as null.
func orEmpty[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

// newRequest makes the POST of an action. The parameters travel in the query, as the vendor's SDKs send them.
func (c *Client) newRequest(ctx context.Context, action string, params url.Values, contentType string, body io.Reader) (*http.Request, error) {
	params.Set("Action", action)
	params.Set("Version", kmswire.APIVersion)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost/?"+params.Encode(), body)
	if err != nil {
		return nil, fmt.Errorf("kmsclient: %s: %w", action, err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("User-Agent", "keyward-kmsclient")
	if format := Format(contentType); format == NDJSON || format == Octets {
		// A server that refuses would otherwise first wait for some of a body that may be slow to come.
		req.Header.Set("Expect", "100-continue")
	}
	return req, nil
}

// send does one exchange and turns every answer that is not a success into an error. The caller closes the body.
func (c *Client) send(req *http.Request, action string) (*http.Response, error) {
	resp, err := c.roundTripper().RoundTrip(req)
	if err != nil {
		if unreachable, ok := errors.AsType[*UnreachableError](err); ok {
			return nil, unreachable
		}
		return nil, fmt.Errorf("kmsclient: %s: %w", action, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, readError(action, resp)
	}
	return resp, nil
}

func (c *Client) call(ctx context.Context, action string, params url.Values, contentType string, body []byte, answer any) error {
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := c.newRequest(ctx, action, params, contentType, reader)
	if err != nil {
		return err
	}
	resp, err := c.send(req, action)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := readAll(resp)
	if err != nil {
		return fmt.Errorf("kmsclient: %s: reading the answer: %w", action, err)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		// The text is not repeated: it may hold a plaintext.
		return fmt.Errorf("kmsclient: %s: the answer is not what this action answers: %w", action, err)
	}
	return nil
}

// readAll reads an answer to its end, so that the connection can be used again, and refuses one over maxAnswer.
func readAll(resp *http.Response) ([]byte, error) {
	if n := resp.ContentLength; n >= 0 && n <= maxAnswer {
		text := make([]byte, n)
		if _, err := io.ReadFull(resp.Body, text); err != nil {
			return nil, err
		}
		// One more read lets the transport see the end.
		_, err := io.Copy(io.Discard, resp.Body)
		return text, err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(text) > maxAnswer {
		err = fmt.Errorf("longer than %d octets", maxAnswer)
	}
	return text, err
}

// readError makes an Error of an answer that is not a success.
func readError(action string, resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		return fmt.Errorf("kmsclient: %s: reading the error answer (%s): %w", action, resp.Status, err)
	}
	e := &Error{Action: action, HTTPStatus: resp.StatusCode}
	var body kmswire.ErrorBody
	if err := json.Unmarshal(text, &body); err == nil {
		e.Code, e.Message, e.RequestID = body.Code, body.Message, body.RequestID
	}
	if e.Code == "" {
		e.Message = "unexpected HTTP answer: " + resp.Status
	}
	e.Message = strings.TrimSpace(e.Message)
	return e
}
