// Package xki has both ends of the way between a KMS and the key manager that has its external keys: the proxy, which serves keys of a
// kms.Service, and the client, through which a kms.Service uses keys of others. One engine has two dialects: xks-v1 (AWS's
// external key store proxy API, version 1.0.3) and xki-v1 (Alibaba Cloud's, which is not published: experimental). The rules are in the
// reference xki-proxy.md; sections are named by §.
package xki

import "time"

// Operation is what a caller asks of a proxy.
type Operation uint8

// The operations.
const (
	OpMetadata Operation = iota + 1
	OpEncrypt
	OpDecrypt
	OpHealth
	OpRandom // xki-v1 only
	numOperations
)

// String gives the name that logs and metrics use.
func (o Operation) String() string {
	return [...]string{"", "metadata", "encrypt", "decrypt", "health", "random"}[o]
}

// ofKey says whether the operation is one of a key.
func (o Operation) ofKey() bool { return o == OpMetadata || o == OpEncrypt || o == OpDecrypt }

// Limits, in octets before base64 (§2.4, §2.5). A proxy must take texts and associated data of these lengths; longer ones are refused.
const (
	MaxText       = 6144 // keyward's own limit of a plaintext; the specification wants 4,300
	MaxAAD        = 8192
	MaxMetadata   = 20 // of a ciphertext's vendor octets
	TagSize       = 16
	MaxRandom     = 1024 // §3.2
	maxBody       = 64 << 10
	maxARN        = 2048
	maxMessage    = 511 // of an error, §2.9
	maxKeyID      = 128
	maxFleet      = 10
	maxUsages     = 10
	integritySize = 32
)

// Budget is how long a caller waits for an answer (§2.1), and ProxyDeadline when the proxy gives up before that.
const (
	Budget        = 250 * time.Millisecond
	ProxyDeadline = 200 * time.Millisecond
)

// RequestMetadata is what a caller tells of the call that it makes a request for. Nothing of it is true because it says so: it is for logs and
// for rules that the operator sets (§2.2, §3.2).
type RequestMetadata struct {
	PrincipalARN string
	SourceVPC    string
	SourceVPCE   string
	SourceIP     string
	KeyARN       string
	InstanceID   string
	Operation    string
	RequestID    string
	ViaService   string
}

// Request is a request. Which members it has depends on Op.
type Request struct {
	Op       Operation
	KeyID    string // External Key ID
	Metadata RequestMetadata

	Algorithm          string // of encrypt and decrypt
	Plaintext          []byte
	AAD                []byte
	IntegrityAlgorithm string // an integrity value is asked for
	Sealed             Sealed // of decrypt

	Length       int // of random
	OutputForm   string
	PublicKey    []byte // DER SubjectPublicKeyInfo
	WrappingAlg  string
	WrappingSpec string
}

// Sealed is a ciphertext with all that it takes to open it but key and associated data.
type Sealed struct {
	Ciphertext []byte // as long as the plaintext
	IV         []byte // 12 or 16 octets
	Tag        []byte // TagSize
	Metadata   []byte // the proxy's own, at most MaxMetadata; returned as they were
}

// Answer is a good answer. Which members it has depends on the operation.
type Answer struct {
	RequestID string // xki-v1 only: the proxy's own
	Key       KeyMetadata
	Sealed    Sealed
	Integrity []byte // of encrypt, if it was asked for
	Plaintext []byte
	Health    Health
	Random    []byte
	OutForm   string
}

// KeyMetadata describes an external key (§2.3).
type KeyMetadata struct {
	Spec   string   // SpecAES256
	Usage  []string // UsageEncrypt, UsageDecrypt and others
	Status string   // StatusEnabled or another word
}

// Words of both dialects.
const (
	SpecAES256      = "AES_256"
	UsageEncrypt    = "ENCRYPT"
	UsageDecrypt    = "DECRYPT"
	StatusEnabled   = "ENABLED"
	StatusDisabled  = "DISABLED"
	AlgorithmGCM    = "AES_GCM"
	IntegritySHA256 = "SHA_256"

	Active      = "ACTIVE"      // healthy
	Degraded    = "DEGRADED"    // ill, but serving
	Unavailable = "UNAVAILABLE" // not serving
)

// Health says how a proxy and the key managers behind it are (§2.8).
type Health struct {
	Vendor, Model string // of the proxy
	Manager       string // vendor of the key manager
	Fleet         []Member
	Status        string // of all; xki-v1 has this in place of Fleet
	Message       string
}

// Member is one key manager behind a proxy.
type Member struct {
	ID     string `json:"id"`
	Model  string `json:"model"`
	Status string `json:"healthStatus"` // Active, Degraded or Unavailable
}
