// Package admin is the administration of one appliance: the wire types of its HTTP API and a Client. The API is served
// under /v1/ on admin.sock only, never on a network; package daemon has the handler. It is JSON both ways, in lower
// case with underscores. An error is an object with the field error, and an HTTP status from 400 up.
//
//	GET /v1/status   Status: is all well, and what is there
//	GET /v1/members  Members: the HSM members alone
//
// Every caller that is mapped to a principal may read both. The package imports the standard library only, so that
// keywardctl stays a static program that runs when an HSM library is broken.
package admin

import "time"

// The paths.
const (
	StatusPath  = "/v1/status"
	MembersPath = "/v1/members"
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
}

// State sums a Status up.
type State string

// The states.
const (
	OK          State = "ok"          // everything works
	Degraded    State = "degraded"    // it serves, but something needs a person
	Unavailable State = "unavailable" // no HSM member is up: hardware keys don't work
)

// Store is how the key store is.
type Store struct {
	Keys     int      `json:"keys"`
	Sequence uint64   `json:"sequence"` // number of commits so far
	Problem  string   `json:"problem,omitempty"`
	Damaged  []string `json:"damaged,omitempty"` // records that failed their check
}

// Member is one HSM token.
type Member struct {
	Name     string    `json:"name"`
	Token    string    `json:"token"`
	Serial   string    `json:"serial"`
	Module   string    `json:"module"`
	State    string    `json:"state"` // up or down
	Reason   string    `json:"reason,omitempty"`
	Sessions int       `json:"sessions"`
	Keys     int       `json:"keys"`
	Queue    int       `json:"queue"`
	Done     uint64    `json:"done"`
	Failed   uint64    `json:"failed"`
	Since    time.Time `json:"since"` // of State
}

// Members is the answer of MembersPath.
type Members struct {
	Members []Member `json:"members"`
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
