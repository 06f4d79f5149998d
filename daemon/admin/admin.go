// Package admin is the administration of one appliance: the wire types of its HTTP API and a Client. The API is served on
// admin.sock only, never on a network; package daemon has the handler. It is JSON both ways, in lower case with
// underscores, but for the metrics. An error is an object with the field error, and an HTTP status from 400 up.
//
//	GET  /v1/status                  all   Status: is all well, and what is there
//	GET  /v1/members                 all   Members: the HSM members alone, and their pool
//	POST /v1/members/{name}/drain    root  DrainRequest, Drained: keep new jobs from a member, and wait for those it has
//	POST /v1/members/{name}/undrain  root  Member: give it jobs again
//	POST /v1/members/{name}/enroll   root  EnrollRequest, Enrolled: put the master keys on a token that has none
//	POST /v1/reload                  root  Reloaded: read the configuration again
//	POST /v1/clock/confirm           root  ClockConfirmed: the wall clock is right, in spite of its steps
//	GET  /metrics                    all   figures for Prometheus, in its text format
//
// Who there is, and what they may do. A root manages the principals of its own account, and the root of the first account those
// of all:
//
//	GET    /v1/accounts                  all   Accounts: those whose principals the caller may manage
//	GET    /v1/principals                root  Principals: a page of an account's, ?account=&offset=&limit=
//	POST   /v1/principals                root  PrincipalRequest, Principal: make a user or role
//	GET    /v1/principal                 root  Principal: one, ?arn=
//	DELETE /v1/principal                 root  remove a user or role with all that it has, ?arn=
//	GET    /v1/principal/policies        root  Policies: the identity policies of one, ?arn=
//	PUT    /v1/principal/policies        root  a policy document: attach it, ?arn=&name=
//	DELETE /v1/principal/policies        root  detach one, ?arn=&name=
//	PUT    /v1/principal/pin             root  a PIN, as it is: set it, and unlock it, ?arn=
//	DELETE /v1/principal/pin             root  remove it, ?arn=
//	GET    /v1/access-keys               root  AccessKeys: those of a principal, ?principal=
//	POST   /v1/access-keys               root  AccessKeyRequest, NewAccessKey: make one, and show its secret this once
//	POST   /v1/access-keys/{id}/enable   root  let requests be signed with it again
//	POST   /v1/access-keys/{id}/disable  root  refuse requests that are signed with it
//	POST   /v1/access-keys/{id}/rotate   root  RotateRequest, NewAccessKey: make another for the same principal
//	DELETE /v1/access-keys/{id}          root  remove one
//	POST   /v1/policies/simulate         root  Simulation, Simulated: may a principal do something, and why
//
// External keys, both ways: prefixes under which keys are served to other key management services, and the connections of external
// instances. A root manages its own account's, and the root of the first account those of all:
//
//	GET    /v1/xki/prefixes                          root  XKIPrefixes
//	POST   /v1/xki/prefixes                          root  XKIPrefixRequest, XKIPrefix: make one
//	PATCH  /v1/xki/prefixes/{name}                   root  XKIPrefixUpdate, XKIPrefix: change keys, quota or rules
//	DELETE /v1/xki/prefixes/{name}                   root  remove one, with its credentials
//	POST   /v1/xki/prefixes/{name}/credentials       root  NewAccessKey: make a credential
//	DELETE /v1/xki/prefixes/{name}/credentials/{id}  root  remove one
//	POST   /v1/xki/prefixes/{name}/export            root  NewAccessKey: show a credential with its secret, ?id=
//	GET    /v1/xki/listeners                         root  XKIListeners: where prefixes are served, and fingerprints of certificates
//	GET    /v1/xki/connections                       root  XKIConnections: of external instances, and how they are
//	PUT    /v1/xki/connections/{instance}            root  XKIConnectRequest and secrets, XKIConnection: set one
//	DELETE /v1/xki/connections/{instance}            root  remove one
//
// all: every caller that is mapped to a principal; one of another account than the first sees its own account's instances in the
// Status, and of problems only that there are some. root: a principal acs:ram::ACCOUNT:root, in the first list that of the first
// account only; their calls are audited.
//
// The statuses of errors: 403 the caller may not; 404 there is no such member, principal or whatever else was named, or no such
// call; 409 it can't be done now, and the text says why; 422 what was given (the body, the configuration, the shares) is wrong;
// 429 another call was faster, try again; 500 a fault of keyward; 503 the audit or the store can't be written. But for 503
// after the effect, which its text says, and 500, nothing was changed.
//
// The package imports the standard library only, so that keywardctl stays a static program that runs when an HSM library
// is broken.
package admin

import (
	"encoding/json"
	"time"
)

// The paths. {name} is a member's name.
const (
	StatusPath  = "/v1/status"
	MembersPath = "/v1/members"
	DrainPath   = "/v1/members/{name}/drain"
	UndrainPath = "/v1/members/{name}/undrain"
	EnrollPath  = "/v1/members/{name}/enroll"
	ReloadPath  = "/v1/reload"
	MetricsPath = "/metrics"

	ClockConfirmPath = "/v1/clock/confirm"
)

// Status is how the appliance is.
type Status struct {
	Version   string     `json:"version"`
	Region    string     `json:"region"`
	Principal string     `json:"principal"` // the caller's own, as the daemon sees it
	Started   time.Time  `json:"started"`
	Uptime    float64    `json:"uptime_seconds"`
	Reloads   int        `json:"reloads"` // how often the configuration was read again, with or without success
	State     State      `json:"state"`
	Problems  []string   `json:"problems"` // why State is not ok; each says what to do
	Store     Store      `json:"store"`
	Members   []Member   `json:"members"`
	Instances []Instance `json:"instances"`
	PKCS11    *PKCS11    `json:"pkcs11,omitempty"` // none: there is no such socket, or the caller's account does not run the appliance
}

// PKCS11 is how programs that know PKCS #11 are served.
type PKCS11 struct {
	Socket       string `json:"socket"`
	Connections  int    `json:"connections"`
	Applications int    `json:"applications"` // processes that have initialized the library
	Sessions     int    `json:"sessions"`
}

// State sums a Status up.
type State string

// The states.
const (
	OK          State = "ok"          // everything works
	Degraded    State = "degraded"    // it serves, but something needs a person
	Unavailable State = "unavailable" // no HSM member is up or half open, and there are no software keys that would go on
)

// Store is how the key store is.
type Store struct {
	Keys     int      `json:"keys"`
	Sequence uint64   `json:"sequence"` // number of commits so far
	Problem  string   `json:"problem,omitempty"`
	Damaged  []string `json:"damaged,omitempty"` // records that failed their check
}

// MemberState is what a member is good for at the moment.
type MemberState string

// The states of members and their workers.
const (
	Up       MemberState = "up"        // it serves
	HalfOpen MemberState = "half-open" // it is back, and gets one job at a time until some went well
	Draining MemberState = "draining"  // an operator wants no more jobs on it
	Down     MemberState = "down"      // it can't serve
)

// Serves says whether a member in this state does jobs.
func (s MemberState) Serves() bool { return s == Up || s == HalfOpen }

// Member is one HSM token. Counts are since the daemon started, or since the configuration of the member changed.
type Member struct {
	Name      string            `json:"name"`
	Token     string            `json:"token"` // label
	Serial    string            `json:"serial"`
	Module    string            `json:"module"`
	State     MemberState       `json:"state"`
	Reason    string            `json:"reason,omitempty"` // of not being up, with what to do
	Since     time.Time         `json:"since"`            // of State
	Sessions  int               `json:"sessions"`         // open
	Lanes     int               `json:"lanes"`            // sessions that may be at work at the same time
	Window    int               `json:"window"`           // jobs that may be in the hands of its workers
	InFlight  int               `json:"in_flight"`        // jobs that are
	Keys      int               `json:"keys"`             // loaded
	Queue     int               `json:"queue"`            // jobs that wait, and that it could do
	Done      uint64            `json:"done"`             // jobs, the ones with bad data included
	Failed    uint64            `json:"failed"`           // jobs that it could not do
	Failovers uint64            `json:"failovers"`        // of these, jobs that were given to another member
	Restarts  uint64            `json:"restarts"`         // workers that were started again
	Endings   map[string]uint64 `json:"endings"`          // ends of workers by reason: failed, crashed, stuck, silent, garbled
	Codes     map[string]uint64 `json:"codes"`            // PKCS#11 errors by name
	Latency   Latency           `json:"latency"`          // of its calls
	Workers   []Worker          `json:"workers"`
}

// Latency sums up how long calls took, in microseconds. The quantiles are as fine as the buckets of the metric
// keyward_hsm_operation_seconds.
type Latency struct {
	Count uint64  `json:"count"`
	P50   float64 `json:"p50_us"`
	P99   float64 `json:"p99_us"`
}

// Worker is one process that drives a member.
type Worker struct {
	PID      int         `json:"pid"` // 0: it has no process of its own, or none at the moment
	State    MemberState `json:"state"`
	Reason   string      `json:"reason,omitempty"`
	Sessions int         `json:"sessions"`
	Lanes    int         `json:"lanes"`
	Window   int         `json:"window"`
	InFlight int         `json:"in_flight"`
	Keys     int         `json:"keys"`
	Restarts uint64      `json:"restarts"`
}

// Pool are the figures of all members together. Counts are since the daemon started.
type Pool struct {
	Waiting    int    `json:"waiting"`    // jobs in the queue
	Room       int    `json:"room"`       // the bound of the queue
	Principals int    `json:"principals"` // who have jobs waiting
	Throttled  uint64 `json:"throttled"`  // jobs refused because the queue or their principal's part of it was full
	Retries    uint64 `json:"retries"`    // second and third tries
	NoBudget   uint64 `json:"no_budget"`  // tries that were not made because too many were made already
	Abandoned  uint64 `json:"abandoned"`  // jobs whose callers gave up before they ran
}

// Members is the answer of MembersPath.
type Members struct {
	Members []Member `json:"members"`
	Pool    Pool     `json:"pool"`
}

// DrainRequest is the body of DrainPath, which may be left out.
type DrainRequest struct {
	// Timeout is how long the answer may wait for the jobs that the member has, 0 to 3600 seconds; nil: 30. The drain itself
	// lasts until it is undone, or the daemon ends.
	Timeout *float64 `json:"timeout_seconds,omitempty"`
}

// Drained is the answer of DrainPath.
type Drained struct {
	Idle   bool   `json:"idle"` // the member has no more jobs, so it can be taken away; false: the time was over before
	Member Member `json:"member"`
}

// The bounds of an EnrollRequest.
const (
	MaxEnroll = 64 << 10 // octets of the body
	MaxShares = 64
)

// EnrollRequest is the body of EnrollPath. Both sides wipe it. A share is printable ASCII without quotes and backslashes,
// so its text in JSON is the share itself.
type EnrollRequest struct {
	Shares []json.RawMessage `json:"shares"` // texts, as init wrote them
}

// Enrolled is the answer of EnrollPath. The member serves soon after.
type Enrolled struct {
	Member string `json:"member"`
	Group  string `json:"group"` // whose master keys it has now
}

// Reloaded is the answer of ReloadPath.
type Reloaded struct {
	NeedRestart []string `json:"need_restart"` // keys that have changed too, and wait for a restart
}

// ClockConfirmed is the answer of ClockConfirmPath.
type ClockConfirmed struct {
	Time time.Time `json:"time"` // what the clock said
}

// Instance is a place where keys are created.
type Instance struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	Name string `json:"name"`
}

// Failure is the body of an error answer.
type Failure struct {
	Message string `json:"error"`
}
