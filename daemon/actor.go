package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/kms"
)

// peerTable says which local callers are which principal: the [[peer]] rows, with names turned into numbers. It is
// immutable; a reload makes a new one.
type peerTable struct {
	account string // the account that root is the root of
	rows    []peerRow
	file    string // where rows can be added, for advice
}

type peerRow struct {
	uid, gid  *uint32
	unit      string
	principal string
	account   string
}

// newPeerTable looks the names of users and groups up. One that does not exist is an error, because a row that can never
// fit is a mistake.
func newPeerTable(c *config.Config) (*peerTable, error) {
	t := &peerTable{account: c.FirstAccount(), file: c.Path}
	var errs []error
	for _, p := range c.Peers {
		row := peerRow{uid: p.UID, gid: p.GID, unit: p.Unit, principal: p.Principal, account: config.AccountOf(p.Principal)}
		if p.User != "" {
			u, err := user.Lookup(p.User)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: [[peer]] for %s: there is no user %q on this machine", p.At, p.Principal, p.User))
				continue
			}
			row.uid = parseID(u.Uid)
		}
		if p.Group != "" {
			g, err := user.LookupGroup(p.Group)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: [[peer]] for %s: there is no group %q on this machine", p.At, p.Principal, p.Group))
				continue
			}
			row.gid = parseID(g.Gid)
		}
		if row.uid != nil && *row.uid == nobody || row.gid != nil && *row.gid == nobody {
			errs = append(errs, fmt.Errorf("%s: [[peer]] for %s: %d is nobody, which the kernel shows for every caller that it can't name", p.At, p.Principal, nobody))
			continue
		}
		t.rows = append(t.rows, row)
	}
	return t, errors.Join(errs...)
}

func parseID(s string) *uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		n = nobody // refused by the caller
	}
	id := uint32(n)
	return &id
}

// identify says who p is. The answer is kept in p while the table stays.
func (t *peerTable) identify(p *peer) *identity {
	if known := p.known.Load(); known != nil && known.table == t {
		return known
	}
	id := t.lookUp(p)
	p.known.Store(id)
	return id
}

func (t *peerTable) lookUp(p *peer) *identity {
	if p.uid == nobody {
		return &identity{table: t, why: fmt.Sprintf("uid %d is nobody: you run in a user namespace (a container, perhaps) whose users this daemon can't tell apart; call from outside of it", p.uid)}
	}
	actor := func(principal, account string) *identity {
		return &identity{table: t, actor: &kms.Actor{
			Principal: principal, Account: account, Door: p.door,
			UID: p.uid, GID: p.gid, PID: p.pid, Unit: p.unit, Executable: p.exe,
		}}
	}
	if p.uid == 0 {
		return actor("acs:ram::"+t.account+":root", t.account)
	}
	for _, r := range t.rows {
		if r.fits(p) {
			return actor(r.principal, r.account)
		}
	}
	return &identity{table: t, why: fmt.Sprintf("%v is not mapped to a principal; add to %s: [[peer]] uid = %d principal = \"acs:ram::%s:user/NAME\", and reload the daemon", p, t.file, p.uid, t.account)}
}

func (r *peerRow) fits(p *peer) bool {
	if r.uid == nil && r.gid == nil {
		return false
	}
	return (r.uid == nil || *r.uid == p.uid) &&
		(r.gid == nil || *r.gid == p.gid || slices.Contains(p.groups, *r.gid)) &&
		(r.unit == "" || r.unit == p.unit)
}

type peerKey struct{}

// withPeer is the http.Server's ConnContext: it asks the kernel once for each connection. A connection whose peer can't
// be told gets no peer, and so every request on it is refused.
func (s *server) withPeer(ctx context.Context, c net.Conn) context.Context {
	bounded, ok := c.(*boundedConn)
	if !ok {
		return ctx
	}
	p, err := peerOf(bounded.UnixConn, kms.DoorAPI)
	if err != nil {
		s.log.Warn().Err(err).Msg("a caller could not be identified")
		return ctx
	}
	if id := s.peers.Load().identify(p); id.actor == nil {
		s.log.Warn().Msg("a caller is refused: " + id.why)
	}
	return context.WithValue(ctx, peerKey{}, p)
}

// identify says who is behind a request.
func (s *server) identify(ctx context.Context) *identity {
	p, ok := ctx.Value(peerKey{}).(*peer)
	if !ok {
		return &identity{why: "the kernel did not say who you are; call through the Unix socket"}
	}
	return s.peers.Load().identify(p)
}

// checkUserNamespace refuses a user namespace in which uids are not the machine's own: what looks like root there can be
// anybody.
func checkUserNamespace() error {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return fmt.Errorf("user namespace: %w", err)
	}
	if !identityMap(text) {
		return errors.New("this is a user namespace in which uids are not the machine's own (a rootless container, or PrivateUsers= in the unit), " +
			"so callers can't be told apart; run keywardd outside of it")
	}
	return nil
}

func identityMap(text []byte) bool {
	return slices.Equal(strings.Fields(string(text)), []string{"0", "0", "4294967295"})
}
