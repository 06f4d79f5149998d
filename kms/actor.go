package kms

import "net/netip"

// Door is where a call came in.
type Door uint8

// The doors.
const (
	DoorAPI Door = iota
	DoorPKCS11
	DoorXKI
)

// String gives the name used in audit events.
func (d Door) String() string { return [...]string{"API", "PKCS11", "XKI"}[d] }

// Actor is who is calling: a principal, and what is known of the process or peer behind it. Only Principal and Account
// decide what is allowed, but for conditions of policies, which can look at the rest; it is also for the audit. An Actor is
// immutable once made; there is one for each local connection, and one for each request from a network.
type Actor struct {
	Principal  string // acs:ram::<account>:root, :user/<name> or :role/<name>
	Account    string // the account that Principal belongs to
	Door       Door
	UID, GID   uint32 // of a local peer
	PID        int32  // of a local peer, as it connected; for the audit only
	Unit       string // systemd unit of a local peer, if any
	Executable string // of a local peer: a path, or in brackets the name that the process gives itself, or empty
	RemoteAddr string // of a network peer, with its port

	AccessKeyID string     // that the request was signed with, if it was
	SourceIP    netip.Addr // of a network peer; an IPv4 address is one, never mapped into IPv6
}
