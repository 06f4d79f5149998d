package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
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

// Members asks for the HSM members.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	m, err := get[Members](ctx, c, MembersPath)
	if err != nil {
		return nil, err
	}
	return m.Members, nil
}

func get[T any](ctx context.Context, c *Client, path string) (*T, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
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
		var f Failure
		if json.Unmarshal(body, &f) != nil || f.Message == "" {
			f.Message = "the daemon answered " + resp.Status
		}
		return nil, &Error{resp.StatusCode, f.Message}
	}
	answer := new(T)
	if err := json.Unmarshal(body, answer); err != nil {
		return nil, fmt.Errorf("admin: the answer is not what this version expects: %w", err)
	}
	return answer, nil
}
