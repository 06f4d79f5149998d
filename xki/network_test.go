package xki

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// eventually waits until something is so, for much longer than it takes.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// accept hands each connection of a new listener to do, in a goroutine of its own, and closes it after that. It gives the address.
func accept(t *testing.T, do func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		tasks.Wait()
	})
	tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() {
				defer conn.Close()
				do(conn)
			})
		}
	})
	return l.Addr().String()
}

// A proxy that takes connections and never finishes TLS costs no connection for longer than a call may take.
func TestSilentListener(t *testing.T) {
	var came, open atomic.Int32
	address := accept(t, func(conn net.Conn) {
		came.Add(1)
		open.Add(1)
		_, _ = io.Copy(io.Discard, conn) // until the client closes it
		open.Add(-1)
	})
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	c := clientOf(t, server, XKSv1, "", func(c *ClientConfig) { c.Endpoint, c.Budget = "https://"+address, 50*time.Millisecond })
	for range 10 {
		if _, err := c.Do(t.Context(), &Request{Op: OpHealth, Metadata: meta}); AsError(err).Code != Unreachable {
			t.Errorf("%v", err)
		}
	}
	eventually(t, "all connections are closed", func() bool { return came.Load() > 0 && open.Load() == 0 })
}

// relay stands between a client and a server. After die, it swallows what comes over connections that there are, and keeps them open, as a firewall does that has
// forgotten them. New ones work.
type relay struct {
	address string
	epoch   atomic.Int32
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	r := &relay{}
	r.address = accept(t, func(near net.Conn) {
		far, err := net.Dial("tcp", to)
		if err != nil {
			t.Error(err)
			return
		}
		defer far.Close()
		born := r.epoch.Load()
		pass := func(to, from net.Conn) {
			b := make([]byte, 4096)
			for {
				n, err := from.Read(b)
				if err != nil {
					return
				}
				if r.epoch.Load() == born {
					_, _ = to.Write(b[:n]) // whoever is gone hears nothing
				}
			}
		}
		go func() {
			pass(near, far)
			near.Close()
		}()
		pass(far, near)
	})
	return r
}

func (r *relay) die() { r.epoch.Add(1) }

// A connection that has died without a word costs the one call that meets it.
func TestDeadConnection(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewUnstartedServer(w.proxy)
	server.EnableHTTP2 = true // which would have one connection for all calls, and keep it when they have no answer
	server.StartTLS()
	defer server.Close()
	r := newRelay(t, server.Listener.Addr().String())
	c := clientOf(t, server, XKSv1, "/ks1", func(c *ClientConfig) { c.Endpoint, c.Budget = "https://"+r.address, 2*time.Second })
	health := func() error {
		_, err := c.Do(t.Context(), &Request{Op: OpHealth, Metadata: meta})
		return err
	}
	if err := health(); err != nil {
		t.Fatal(err)
	}
	r.die()
	if err := health(); AsError(err).Code != Unreachable {
		t.Errorf("over a dead connection: %v", err)
	}
	if err := health(); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// The first probe decides, and calls go through before it.
func TestFirstProbe(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewTLSServer(w.proxy)
	n := NewConnection(clientOf(t, server, XKSv1, "/ks1"))
	if _, err := n.Do(t.Context(), &Request{Op: OpMetadata, KeyID: "hardware", Metadata: meta}); err != nil {
		t.Errorf("before it: %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := n.Probe(ended); err == nil || !n.Connected() || !n.Status().Probed.IsZero() {
		t.Errorf("a probe that was ended: %v, %+v", err, n.Status())
	}
	server.Close()
	if err := n.Probe(t.Context()); err == nil || n.Connected() || n.Status().Connected || n.Status().Trouble == "" {
		t.Errorf("a proxy that is away: %v, %+v", err, n.Status())
	}
}

// A proxy that throttles health checks is there. What it did not say, though, is that it takes our access key again.
func TestThrottledProbe(t *testing.T) {
	var status atomic.Int32
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(int(status.Load())) }))
	defer server.Close()
	n := NewConnection(clientOf(t, server, XKSv1, ""))
	for i, row := range []struct {
		status int32
		want   bool
	}{{429, true}, {429, true}, {429, true}, {429, true}, {500, true}, {500, true}, {429, true}, {500, true}, {500, true}, {500, false}, {429, false}} {
		status.Store(row.status)
		if err := n.Probe(t.Context()); err == nil || n.Connected() != row.want || n.Status().Connected != row.want {
			t.Errorf("probe %d: %v, connected: %v", i+1, err, n.Connected())
		}
	}
}
