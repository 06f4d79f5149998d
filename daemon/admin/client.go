package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxAnswer is the most octets that an answer may have.
const maxAnswer = 16 << 20

// Client talks to the administration of one daemon. It may be used from several goroutines.
type Client struct {
	http *http.Client
}

// NewClient makes a client for the socket at path. It connects with the first call.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	// The daemon drops idle connections after 30 s; letting go first avoids a request that meets the close.
	return &Client{&http.Client{Transport: &http.Transport{DialContext: dial, IdleConnTimeout: 20 * time.Second}}}
}

// Close lets idle connections go.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Error is an answer of the daemon that is no success.
type Error struct {
	Status  int // HTTP
	Message string
}

// Error says it in words.
func (e *Error) Error() string { return e.Message }

// Status asks how the appliance is.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return get[Status](ctx, c, StatusPath)
}

// Members asks for the HSM members and their pool.
func (c *Client) Members(ctx context.Context) (*Members, error) {
	return get[Members](ctx, c, MembersPath)
}

// Drain keeps new jobs from a member, and waits until it has none left, at most for wait, which is 0 to one hour. ctx must
// last longer.
func (c *Client) Drain(ctx context.Context, member string, wait time.Duration) (*Drained, error) {
	seconds := wait.Seconds()
	body, err := json.Marshal(DrainRequest{Timeout: &seconds})
	if err != nil {
		return nil, err
	}
	return postMember[Drained](ctx, c, DrainPath, member, bytes.NewReader(body), len(body))
}

// Undrain ends a drain.
func (c *Client) Undrain(ctx context.Context, member string) (*Member, error) {
	return postMember[Member](ctx, c, UndrainPath, member, http.NoBody, 0)
}

// Enroll puts the master keys on a member whose token has none, from recovery shares. The caller wipes them.
func (c *Client) Enroll(ctx context.Context, member string, shares [][]byte) (*Enrolled, error) {
	body := make([]byte, 0, MaxEnroll) // never grows, so no copy of it stays behind
	secret := &secretBody{all: body[:cap(body)]}
	defer secret.Close()
	body = append(body, `{"shares":[`...)
	for i, share := range shares {
		if len(share) == 0 || slices.ContainsFunc(share, func(b byte) bool { return b <= ' ' || b >= 0x7f || b == '"' || b == '\\' }) {
			return nil, fmt.Errorf("admin: share %d is not the text of a share", i+1)
		}
		if len(body)+len(share)+4 > cap(body) {
			return nil, fmt.Errorf("admin: the shares have more than %d octets", MaxEnroll)
		}
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, '"')
		body = append(body, share...)
		body = append(body, '"')
	}
	secret.rest = append(body, `]}`...)
	return postMember[Enrolled](ctx, c, EnrollPath, member, secret, len(secret.rest))
}

// secretBody is the body of a request, wiped when it is closed: http.Client may read on for a moment after a call that failed.
type secretBody struct {
	mu        sync.Mutex
	all, rest []byte // guarded by mu; rest is the part of all that was not read yet
}

// Read reads on.
func (b *secretBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// Close wipes it.
func (b *secretBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.all)
	b.rest = nil
	return nil
}

// Reload has the daemon read its configuration again.
func (c *Client) Reload(ctx context.Context) (*Reloaded, error) {
	return decoded[Reloaded](c.do(ctx, http.MethodPost, ReloadPath, http.NoBody, 0))
}

// ConfirmClock says that the machine's wall clock is right.
func (c *Client) ConfirmClock(ctx context.Context) (*ClockConfirmed, error) {
	return decoded[ClockConfirmed](c.do(ctx, http.MethodPost, ClockConfirmPath, http.NoBody, 0))
}

// Metrics asks for the figures that Prometheus reads, as text.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	return c.do(ctx, http.MethodGet, MetricsPath, http.NoBody, 0)
}

// postMember makes a call about one member. send is a reader of size octets.
func postMember[T any](ctx context.Context, c *Client, path, member string, send io.Reader, size int) (*T, error) {
	if member == "" || member == "." || member == ".." { // they would be another path
		return nil, &Error{http.StatusNotFound, fmt.Sprintf("there is no HSM member %q", member)}
	}
	return decoded[T](c.do(ctx, http.MethodPost, strings.Replace(path, "{name}", url.PathEscape(member), 1), send, size))
}

func get[T any](ctx context.Context, c *Client, path string) (*T, error) {
	return decoded[T](c.do(ctx, http.MethodGet, path, http.NoBody, 0))
}

func decoded[T any](body []byte, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	answer := new(T)
	if err := json.Unmarshal(body, answer); err != nil {
		return nil, fmt.Errorf("admin: the answer is not what this version expects: %w", err)
	}
	return answer, nil
}

// send makes one call with a body of size octets. The caller closes the body of the answer.
func (c *Client) send(ctx context.Context, method, path string, send io.Reader, size int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, send)
	if err != nil {
		return nil, err
	}
	if req.ContentLength = int64(size); size > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.http.Do(req)
}

// do makes one call with a body of size octets, and gives the body of a good answer.
func (c *Client) do(ctx context.Context, method, path string, send io.Reader, size int) ([]byte, error) {
	resp, err := c.send(ctx, method, path, send, size)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("admin: reading the answer: %w", err)
	}
	if len(body) > maxAnswer {
		return nil, fmt.Errorf("admin: the answer has more than %d octets", maxAnswer)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, failed(resp, body)
	}
	return body, nil
}

// failed makes the error of an answer that is no success.
func failed(resp *http.Response, body []byte) error {
	var f Failure
	if json.Unmarshal(body, &f) != nil || f.Message == "" {
		f.Message = "the daemon answered " + resp.Status
	}
	return &Error{resp.StatusCode, f.Message}
}
