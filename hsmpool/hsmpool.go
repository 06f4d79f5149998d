// Package hsmpool makes several HSM tokens behave as one: it opens them, keeps sessions and key handles, runs jobs on
// whichever member can, and knows what each PKCS#11 error means. It knows nothing of key management.
//
// A group is the set of members that hold the same two master keys. The seal key only encrypts and decrypts, and opens
// the store key at start. The wrap key only wraps and unwraps: hardware keys live outside the HSM under it and are
// loaded into any member as session objects when they are first used.
package hsmpool

import (
	"crypto"
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
	UseUnwrap                    // bring in what Pool.Import gets; only GenerateTransport makes such keys, and they do nothing else

	// UseBoth is for RSA keys that have a secondary usage.
	UseBoth = UseEncrypt | UseSign
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

// The operations. k is the length of the modulus, in octets.
const (
	EncryptGCM      Op = iota + 1 // In: plaintext, at most 64 KiB, Nonce: 12 octets, AAD, TagBits; Out: ciphertext and tag
	DecryptGCM                    // In: ciphertext and tag, Nonce, AAD, TagBits; Out: plaintext
	SignPKCS1SHA256               // In: 32-octet digest; Out: signature, k octets
	SignPSSSHA256                 // In: 32-octet digest; salt 32, MGF1 SHA-256
	SignECDSA                     // In: digest of 1 to 64 octets, of which the leftmost bits count; Out: r and s, each as long as the order
	DecryptOAEPSHA1               // In: ciphertext, k octets; label empty
	DecryptOAEPSHA256

	// What has more choices than the API. A module that has not the choice refuses it: KindUnsupported.

	SignPKCS1   // In: 1 to k-11 octets, which are padded as they are; Out: signature
	SignPSS     // In: digest of Hash; MGF, Salt; Out: signature
	SignRaw     // In: k octets, as a number smaller than the modulus, which the caller sees to; Out: k octets
	DecryptOAEP // In: ciphertext, k octets; Hash, MGF, Label
	DecryptRaw  // In: k octets; Out: k octets, with the padding. Whoever may not see it must not learn anything of it from what the caller does next
	EncryptECB  // In: whole blocks, at most 64 KiB; Out: as many octets
	DecryptECB
	EncryptCBC // as EncryptECB; Nonce: the IV, 16 octets
	DecryptCBC
	CryptCTR // In: at most 64 KiB; Nonce: the first counter, a whole block of 128 bits, and after the last comes zero. It is its own opposite
)

// Job is one operation with one key. The caller fills the first group and hands it to Pool.Do, which writes the second
// before it returns; workers never touch it. AAD, In, Label and Nonce must not change meanwhile.
type Job struct {
	Op        Op
	Key       *Key
	In        []byte
	Nonce     []byte
	AAD       []byte
	Hash      crypto.Hash // SHA-1, SHA-224, SHA-256, SHA-384 or SHA-512
	MGF       crypto.Hash // of MGF1, the same
	Salt      int         // octets
	Label     []byte      // at most 1024 octets
	TagBits   int         // 96, 104, 112, 120 or 128; 0: 128
	Principal string      // for fairness between callers

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

// Config says which members there are.
type Config struct {
	Members []MemberConfig
	Queue   int              // jobs that may wait; 0: 4096
	Shares  map[string]Share // by principal; who is not in it has weight 1 and no limit of its own

	// Worker is the command of a worker process: a program and arguments that end in WorkerMain. Empty: no isolation, the
	// libraries are loaded into this process.
	Worker []string

	// Group is the name of the group that the master keys must belong to, as Pool.Group gave it when the ceremony ran;
	// a member with other master keys is refused.
	Group string

	// Probe is how often a member is looked at: whether it still serves, or is back. 0: 5 s.
	Probe time.Duration
}

// Share is what a principal gets of the pool while others want it too.
type Share struct {
	Weight int // jobs in turn, against 1 of others; 0: 1
	Queue  int // jobs of it that may wait; 0: as many as places are free
}

// MemberConfig is one token of one PKCS#11 module. A token is named by label or serial, never by slot.
type MemberConfig struct {
	Name        string
	Module      string // path of the PKCS#11 library
	TokenLabel  string // exactly one of label and serial
	TokenSerial string
	MaxSessions int // of all its workers together; 0: what the token says, at most 64
	Workers     int // processes that drive it; 0: 1. Without isolation it is 1

	// Environment is added to that of the worker processes. Without isolation it must be set already.
	Environment map[string]string

	// Socket is where a worker that is nobody's child serves whoever connects: a unit of systemd, with a user and rights of its own. Then Environment is
	// the unit's affair, and so is the PIN: PIN gives an empty one, which stands for the worker's own. Workers is 1.
	Socket string

	// CallTimeout is how long one call into the library may take before its process is killed and its jobs go elsewhere;
	// making keys is not meant. 0: by the kind of operation, and never less than eight times what such calls took so far.
	CallTimeout time.Duration

	// PINName says where PIN comes from, so that Update sees when that is another place.
	PINName string

	// PIN is asked at each login. Its result is wiped after use. One refused PIN stops all logins of the member until
	// the pool is opened again, because HSMs lock.
	PIN func() ([]byte, error)

	// Refused is called once, when the token has refused the PIN, so that the owner of the pool can make that last. It
	// gives the words of what the operator must do. It may be nil.
	Refused func() (advice string, err error)
}

// Generated is a new key.
type Generated struct {
	Wrapped   []byte // wrapped keys: the material under the wrap key
	Member    string // pinned keys: where it is
	ObjectID  []byte // pinned keys: CKA_ID
	PublicKey []byte // asymmetric keys: DER SubjectPublicKeyInfo
}

// State is what a member is good for at the moment.
type State string

// The states.
const (
	StateUp       State = "up"        // it serves
	StateHalfOpen State = "half-open" // it is back, and gets one job at a time until some went well
	StateDraining State = "draining"  // an operator wants no more jobs on it
	StateDown     State = "down"      // it can't serve; it is tried again in the background, unless Reason says otherwise
)

// Status is how a member is. Counts are since the pool opened.
type Status struct {
	Name      string
	Token     string // label
	Serial    string
	Module    string
	State     State
	Reason    string            // of not being up, with what to do
	Since     time.Time         // of State
	Sessions  int               // open
	Lanes     int               // sessions that may be at work at the same time
	Window    int               // jobs that may be in the hands of its workers; see window.go
	InFlight  int               // jobs that are
	Keys      int               // loaded
	Queue     int               // jobs that wait, and that it could do
	Done      uint64            // jobs, the ones with bad data included
	Failed    uint64            // jobs that it could not do
	Failovers uint64            // of these, jobs that were given to another member
	Restarts  uint64            // workers that were started again
	Endings   map[string]uint64 // ends of workers by their reason: failed, crashed, stuck, silent, garbled
	Codes     map[string]uint64 // PKCS#11 errors by name, such as CKR_DEVICE_ERROR, those included that a second try mended
	Latency   Histogram         // of its calls
	Workers   []WorkerStatus
}

// WorkerStatus is how one worker of a member is.
type WorkerStatus struct {
	PID      int // 0: it has no process of its own, or none at the moment
	State    State
	Reason   string
	Sessions int
	Lanes    int
	Window   int
	InFlight int
	Keys     int
	Restarts uint64
}

// Histogram counts durations: Counts[i] those up to Bounds[i] and above Bounds[i-1], and one more for those above all.
type Histogram struct {
	Bounds []time.Duration // the same for every member, ascending
	Counts []uint64
	Sum    time.Duration
}

// Totals are the figures of the pool as a whole. Counts are since it opened.
type Totals struct {
	Waiting    int    // jobs in the queue
	Room       int    // the bound of the queue
	Principals int    // who have jobs waiting
	Throttled  uint64 // jobs refused because the queue or their principal's part of it was full
	Retries    uint64 // second and third tries
	NoBudget   uint64 // tries that were not made because too many were made already
	Abandoned  uint64 // jobs whose callers gave up before they ran
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
