// Package hsmpool makes several HSM tokens behave as one: it opens them, keeps sessions and key handles, runs jobs on
// whichever member can, and knows what each PKCS#11 error means. It knows nothing of key management.
//
// A group is the set of members that hold the same two master keys. The seal key only encrypts and decrypts, and opens
// the store key at start. The wrap key only wraps and unwraps: hardware keys live outside the HSM under it and are
// loaded into any member as session objects when they are first used.
package hsmpool

import (
	"context"
	"time"
)

// KeyType is what kind of key a job or a generation is about.
type KeyType uint8

// The key types.
const (
	AES128 KeyType = iota + 1
	AES192
	AES256
	RSA2048
	RSA3072
	RSA4096
	P256
	Secp256k1
)

// Usage is a set of what a key may be used for.
type Usage uint8

// The usages. They are combined only when the user asked for a secondary usage.
const (
	UseEncrypt Usage = 1 << iota // encrypt and decrypt
	UseSign                      // sign and verify
)

// Key tells a worker which key a job means, and how to load it on first use. Wrapped keys run on any member, pinned ones
// (Member set) on theirs. A Key is immutable and may be shared by any number of jobs.
type Key struct {
	ID       string // names it in the handle cache: the version id
	Type     KeyType
	Usage    Usage
	Wrapped  []byte // under the wrap key
	Member   string // pinned: the member whose token holds it
	ObjectID []byte // pinned: CKA_ID
}

// Op is what a job does. The table in ops.go gives each one's mechanism, key type and bounds.
type Op uint8

// The operations.
const (
	EncryptGCM      Op = iota + 1 // In: plaintext, Nonce: 12 octets, AAD; Out: ciphertext and 16 octets of tag
	DecryptGCM                    // In: ciphertext and tag, Nonce, AAD; Out: plaintext
	SignPKCS1SHA256               // In: 32-octet digest; Out: signature, the length of the modulus
	SignPSSSHA256                 // In: 32-octet digest; salt 32, MGF1 SHA-256
	SignECDSA                     // In: 32-octet digest; Out: r and s, 32 octets each
	DecryptOAEPSHA1               // In: ciphertext, the length of the modulus; label empty
	DecryptOAEPSHA256
)

// Job is one operation with one key. The caller fills the first group and hands it to Pool.Do; the second is written by
// a worker before Do returns and may be read after. AAD, In and Nonce must not change meanwhile.
type Job struct {
	Op        Op
	Key       *Key
	In        []byte
	Nonce     []byte
	AAD       []byte
	Principal string // for fairness between callers

	Out []byte
	Err error // *Error
}

// Kind is what an Error means to a caller of the pool.
type Kind uint8

// The kinds.
const (
	KindInternal    Kind = iota // a bug of ours, or an answer that can't be
	KindBadData                 // the ciphertext, signature or wrapped data is not valid: one kind, whatever was wrong
	KindUnsupported             // no member can do this
	KindUnavailable             // no member could serve it in time
	KindFull                    // the queue is full; nothing was done
	KindKeyMissing              // a pinned key is not on its member
	KindCanceled                // the caller gave up waiting
)

// Pool is a group of members. See Open.
type Pool struct{}

// Config says which members there are.
type Config struct {
	Members []MemberConfig
	Queue   int // jobs that may wait; 0: 4096

	// Group is the name of the group that the master keys must belong to, as Pool.Group gave it when the ceremony ran;
	// a member with other master keys is refused.
	Group string
}

// MemberConfig is one token of one PKCS#11 module. A token is named by label or serial, never by slot.
type MemberConfig struct {
	Name        string
	Module      string // path of the PKCS#11 library
	TokenLabel  string // exactly one of label and serial
	TokenSerial string
	MaxSessions int // 0: what the token says, at most 64

	// PIN is asked at each login. Its result is wiped after use. One refused PIN stops all logins of the member until
	// the pool is opened again, because HSMs lock.
	PIN func() ([]byte, error)
}

// Open opens the group. It succeeds when at least one member can serve; the others stay down with a reason in Status
// and are tried again in the background. A refused PIN, a missing token or foreign master keys on every member give an
// error that says so, and what to do.
func Open(ctx context.Context, c Config) (*Pool, error) { panic("contract") }

// Close ends the workers and closes the modules. Jobs that wait end with KindUnavailable.
func (p *Pool) Close() error { panic("contract") }

// Do runs the job and returns its Err. ctx bounds the waiting: a C call in flight runs to its end and its result is
// dropped, so the job must not be used again after a context error.
func (p *Pool) Do(ctx context.Context, j *Job) error { panic("contract") }

// DoAll runs the jobs, over all members at once, and returns when each has its Out or Err.
func (p *Pool) DoAll(ctx context.Context, jobs []*Job) { panic("contract") }

// Generated is a new key.
type Generated struct {
	Wrapped   []byte // wrapped keys: the material under the wrap key
	Member    string // pinned keys: where it is
	ObjectID  []byte // pinned keys: CKA_ID
	PublicKey []byte // asymmetric keys: DER SubjectPublicKeyInfo
}

// Generate makes a key that is wrapped: a session object on one member, wrapped, loaded on another member if there is
// one, and used there. Nothing of it stays in an HSM but cached session objects, so a crash leaves nothing behind.
func (p *Pool) Generate(ctx context.Context, t KeyType, u Usage) (*Generated, error) {
	panic("contract")
}

// GeneratePinned makes a token object that can never be extracted, with objectID as CKA_ID, on member; an empty member
// lets the pool choose, but the caller should choose and note it first (see PinTarget), or a crash leaves an orphan that
// nobody can name.
func (p *Pool) GeneratePinned(ctx context.Context, t KeyType, u Usage, objectID []byte, member string) (*Generated, error) {
	panic("contract")
}

// PinTarget names the member that a pinned key should be made on.
func (p *Pool) PinTarget() (string, error) { panic("contract") }

// DestroyPinned destroys every object with that CKA_ID on member and looks again with a new session. That there are none
// is no error. It returns how many were destroyed.
func (p *Pool) DestroyPinned(ctx context.Context, member string, objectID []byte) (int, error) {
	panic("contract")
}

// Group names the group by the check values of its master keys.
func (p *Pool) Group() string { panic("contract") }

// Seal encrypts at most 64 octets under the seal key. Pool is a keystore.Sealer.
func (p *Pool) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) { panic("contract") }

// Open undoes Seal.
func (p *Pool) Open(ctx context.Context, sealed, aad []byte) ([]byte, error) { panic("contract") }

// Status is a member's state.
type Status struct {
	Name     string
	Token    string // label
	Serial   string
	Module   string
	State    string // up, down
	Reason   string // of being down, with what to do
	Sessions int    // open
	Keys     int    // loaded
	Queue    int    // jobs that wait
	Done     uint64 // jobs
	Failed   uint64 // jobs
	Since    time.Time
}

// Status reports every member's.
func (p *Pool) Status() []Status { panic("contract") }

// Ceremony makes the two master keys and gives them to every member. No master key is ever an extractable token object,
// and neither is in this process's memory in the clear: they are made as session objects on the first member, leave it
// only under keys made in the targets (RSA-OAEP) and under the recovery key, and become token objects by unwrapping.
// It refuses when any member already has master keys.
func Ceremony(ctx context.Context, c Config, shares, threshold int) (*CeremonyResult, error) {
	panic("contract")
}

// CeremonyResult is what remains of a ceremony, for people to keep.
type CeremonyResult struct {
	Group string
	// Shares are the parts of the recovery key (Shamir); threshold of them open Recovery. Each is printable text with
	// its own check. The caller wipes them.
	Shares [][]byte
	// Recovery is the master keys under the recovery key. It is not secret without the shares.
	Recovery []byte
}
