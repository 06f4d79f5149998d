// Package hsmpool makes several HSM tokens behave as one: it opens them, keeps sessions and key handles, runs jobs on
// whichever member can, and knows what each PKCS#11 error means. It knows nothing of key management.
//
// A group is the set of members that hold the same two master keys. The seal key only encrypts and decrypts, and opens
// the store key at start. The wrap key only wraps and unwraps: hardware keys live outside the HSM under it and are
// loaded into any member as session objects when they are first used.
package hsmpool

import "time"

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

// Job is one operation with one key. The caller fills the first group and hands it to Pool.Do, which writes the second
// before it returns; workers never touch it. AAD, In and Nonce must not change meanwhile.
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

// Config says which members there are.
type Config struct {
	Members []MemberConfig
	Queue   int // jobs that may wait; 0: 4096

	// Group is the name of the group that the master keys must belong to, as Pool.Group gave it when the ceremony ran;
	// a member with other master keys is refused.
	Group string

	// Probe is how often a member is looked at: whether it still serves, or is back. 0: 5 s.
	Probe time.Duration
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

// CeremonyResult is what remains of a ceremony, for people to keep.
type CeremonyResult struct {
	Group string
	// Shares are the parts of the recovery key (Shamir); threshold of them open Recovery. Each is printable text with
	// its own check. The caller wipes them.
	Shares [][]byte
	// Recovery is the master keys under the recovery key. It is not secret without the shares.
	Recovery []byte
}
