package keystore

import "time"

// Key is what is known of a key, apart from its versions. Values handed out by DB are shared and immutable: copy one to
// change it.
type Key struct {
	ID             string // key-<20 lower-case letters and digits>
	Account        string // owner
	Creator        string // the owner, or a service code
	Instance       string // kst-…; empty for default keys
	Spec           string
	Usage          string
	SecondaryUsage string `json:",omitempty"`
	Origin         string
	Protection     string // SOFTWARE or HSM
	Storage        string `json:",omitempty"` // HsmInternal or HsmEncryptedDatabase; hardware keys only
	State          string
	Description    string `json:",omitempty"`
	Created        time.Time
	Primary        string    `json:",omitempty"` // version that encrypts; symmetric keys only
	LastRotation   time.Time // creation of the newest version
	Versions       int       // how many there are
	Tags           []Tag     `json:",omitempty"`
	Policy         string    `json:",omitempty"` // JSON; empty means the default policy
	OtherAccounts  []string  `json:",omitempty"` // accounts besides the owners that Policy lets in; counted for the instance
	Role           string    `json:",omitempty"` // RoleDefault, RoleService, or empty
	ExternalID     string    `json:",omitempty"` // external keys: what the other key manager calls it

	AutoRotate       bool          `json:",omitempty"`
	RotationInterval time.Duration `json:",omitempty"` // kept while AutoRotate is off

	Fingerprint     []byte     `json:",omitempty"` // imported keys: of the material, keyed; binds later imports. See DB.Fingerprint
	MaterialExpires *time.Time `json:",omitempty"` // imported keys
	MaterialAfter   uint64     `json:",omitempty"` // as DeleteAfter, for MaterialExpires

	DeleteAt    *time.Time `json:",omitempty"` // PendingDeletion: the wall clock's say
	DeleteAfter uint64     `json:",omitempty"` // PendingDeletion: seconds of observed running time (Clock) before which it is not due
	ScheduledBy string     `json:",omitempty"` // PendingDeletion: principal
	Deleting    bool       `json:",omitempty"` // its material is being destroyed: no way back

	Protected       bool   `json:",omitempty"`
	ProtectedReason string `json:",omitempty"`
	Sequence        uint64 // place in the account's list, in order of creation; set by DB
	record          recordState
}

// Roles of keys that an account has once, beside its ordinary ones.
const (
	RoleDefault = "default" // the default CMK: one for each account
	RoleService = "service" // belongs to the service that is its Creator: one for each account and service
)

// NextRotation is when the key is rotated by itself, or zero.
func (k *Key) NextRotation() time.Time {
	if !k.AutoRotate || k.RotationInterval <= 0 {
		return time.Time{}
	}
	return k.LastRotation.Add(k.RotationInterval)
}

// Tag is one label of a key.
type Tag struct{ Key, Value string }

// Version is one generation of a key's material. Exactly one of Sealed, Wrapped and Member is set, and none while
// material is missing.
type Version struct {
	ID        string // <key id>-<10 lower-case letters and digits>
	KeyID     string
	Created   time.Time
	Sealed    []byte `json:",omitempty"` // software: material under the store key, see DB.Seal
	Wrapped   []byte `json:",omitempty"` // hardware, HsmEncryptedDatabase: material under the wrap key
	Member    string `json:",omitempty"` // hardware, HsmInternal: the member whose token holds it
	ObjectID  []byte `json:",omitempty"` // hardware, HsmInternal: CKA_ID
	PublicKey []byte `json:",omitempty"` // asymmetric: DER SubjectPublicKeyInfo
	record    recordState
}

// Alias is a second name of a key, unique in its account.
type Alias struct {
	Account string
	Name    string // with the alias/ prefix
	KeyID   string
	Created time.Time
	record  recordState
}

// Intent is the note that is written before work that spans the store and an HSM, and removed in the commit that ends
// it. What a start finds was cut off, and is finished or undone from what stands here.
type Intent struct {
	ID      string // 32 hex digits; its 16 octets are the CKA_ID of pinned objects
	Kind    string // what kind of work, in the words of whoever does it
	KeyID   string
	Version string
	Member  string `json:",omitempty"` // where a token object may have been made
	Started time.Time
	Actor   string `json:",omitempty"` // principal who wanted it
	record  recordState
}

// Tombstone is what stays of a deleted key. Its ID is never used again.
type Tombstone struct {
	ID       string
	Account  string
	Creator  string
	Instance string
	Spec     string
	Created  time.Time
	Deleted  time.Time // by the wall clock, for information only

	ScheduledBy string `json:",omitempty"` // principal who wanted it
	Fingerprint []byte `json:",omitempty"` // of imported material, as in Key
}
