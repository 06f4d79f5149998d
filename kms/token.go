package kms

import (
	"context"
	"time"

	"github.com/keyward/keyward/kms/kmswire"
)

// An instance is a token to programs that know PKCS #11. This file is what they need beyond the API: keys by place, number and name,
// and the objects that they keep beside keys.

// ObjectClass is what an object of a token is. The values are those of PKCS #11.
type ObjectClass uint8

// The classes.
const (
	ClassData        ObjectClass = 0
	ClassCertificate ObjectClass = 1
	ClassPublicKey   ObjectClass = 2
	ClassPrivateKey  ObjectClass = 3
	ClassSecretKey   ObjectClass = 4
)

// KeyPlace names a version of a key by numbers that never change and are never used again: the key's place in its account, and the
// version's in its key. It fits into 60 bits (40 and 20), so that a handle can be one.
type KeyPlace struct {
	Sequence uint64 // of the key, from 1
	Ordinal  uint32 // of the version, from 1
}

// TokenKey is a version of a key as an object of a token.
type TokenKey struct {
	KeyPlace
	KeyID, VersionID string
	Instance         string
	Spec             kmswire.KeySpec
	Usage, Secondary kmswire.KeyUsage
	State            kmswire.KeyState
	Created          time.Time
	Newest           bool   // the version that a new use should take
	Imported         bool   // the material came from outside
	Hardware         bool   // the material is in an HSM
	PublicKey        []byte // of asymmetric keys: DER SubjectPublicKeyInfo. Read-only

	// ID is CKA_ID and Label is CKA_LABEL, by class: what a client has set, else 16 octets that encode the place, and the oldest alias
	// without its prefix (else the key ID; of a version that is not the newest, with "#" and the version's ordinal).
	Names map[ObjectClass]ObjectNames
}

// ObjectNames are the two attributes by which clients find an object.
type ObjectNames struct {
	ID    []byte
	Label string
}

// NameTokenKey sets CKA_ID, CKA_LABEL or both (nil: as it is) of one class of a version. It needs kms:SetTokenNames.
func (s *Service) NameTokenKey(ctx context.Context, actor *Actor, instance string, place KeyPlace, class ObjectClass, id []byte, label *string) error {
	return Errorf(UnsupportedOperation, "not yet")
}

// TokenObject is an object that a client keeps in a token beside the keys: a certificate, data, or a public key of somebody else's.
// Values handed out are shared and immutable.
type TokenObject struct {
	Number     uint64 // names it in its account; never used again
	Instance   string
	Class      ObjectClass
	Private    bool   // only for the principal that made it, and the root of its account
	Owner      string // principal that made it
	Modifiable bool
	ObjectNames
	Value   []byte // what else the object is, in the door's encoding; sealed at rest. At most MaxTokenObject octets
	Created time.Time
}

// Limits of the objects that clients keep.
const (
	MaxTokenObject  = 64 << 10 // octets of Value
	MaxTokenObjects = 10_000   // of an account in one instance
	MaxObjectID     = 256      // octets of CKA_ID
	MaxObjectLabel  = 256      // octets of CKA_LABEL
)

// TokenObjects lists the objects of an instance that the actor may see, with id, label and class if they are given. It reads memory.
func (s *Service) TokenObjects(ctx context.Context, actor *Actor, instance string, id []byte, label *string, class *ObjectClass) ([]*TokenObject, error) {
	return nil, Errorf(UnsupportedOperation, "not yet")
}

// TokenObject gives one by its number, ResourceNotFound if there is none that the actor may see.
func (s *Service) TokenObject(ctx context.Context, actor *Actor, instance string, number uint64) (*TokenObject, error) {
	return nil, Errorf(UnsupportedOperation, "not yet")
}

// CreateTokenObject keeps an object, whose Number, Owner and Created it sets. It needs kms:CreateTokenObject.
func (s *Service) CreateTokenObject(ctx context.Context, actor *Actor, o *TokenObject) (*TokenObject, error) {
	return nil, Errorf(UnsupportedOperation, "not yet")
}

// UpdateTokenObject replaces names and value of an object that is Modifiable. It needs kms:UpdateTokenObject.
func (s *Service) UpdateTokenObject(ctx context.Context, actor *Actor, old, o *TokenObject) (*TokenObject, error) {
	return nil, Errorf(UnsupportedOperation, "not yet")
}

// DeleteTokenObject removes one. It needs kms:DeleteTokenObject.
func (s *Service) DeleteTokenObject(ctx context.Context, actor *Actor, instance string, number uint64) error {
	return Errorf(UnsupportedOperation, "not yet")
}

// Token is an instance as a token.
type Token struct {
	Instance string
	Type     string // SoftwareInstance or HardwareInstance
	Name     string // for people
	PIN      bool   // the principal has a PIN, which C_Login must give before private objects are used
}

// CheckPIN holds a PIN against that of the actor's principal, in constant time, and counts failures durably before it answers: after
// MaxPINFailures in a row it is locked until it is set again. Denied if it is wrong, Throttled if it is locked. Without a PIN set
// every PIN is right.
func (s *Service) CheckPIN(ctx context.Context, actor *Actor, pin []byte) error {
	return Errorf(UnsupportedOperation, "not yet")
}

// Limits of PINs.
const (
	MinPIN         = 8 // octets
	MaxPIN         = 256
	MaxPINFailures = 10
)

// NewTokenKey is a key that a client makes in a token, or brings along.
type NewTokenKey struct {
	Instance string
	Spec     kmswire.KeySpec
	Usage    kmswire.KeyUsage
	Pinned   bool // hardware instances: HsmInternal rather than HsmEncryptedDatabase
	// Names are CKA_ID and CKA_LABEL, as far as the client gave them. A label that can be an alias and is free becomes one too.
	Names map[ObjectClass]ObjectNames
	// Material is that of a key that is brought along: PKCS#8 DER, or the octets of an AES key. The caller wipes it. nil: it is made.
	Material []byte
}

// CreateTokenKey makes a key: CreateKey, and with Material its import too, all of it or nothing that stays. It needs what these need.
func (s *Service) CreateTokenKey(ctx context.Context, actor *Actor, req *NewTokenKey) (*TokenKey, error) {
	return nil, Errorf(UnsupportedOperation, "not yet")
}

// DestroyTokenKey schedules the deletion of the key of a version, if it is the only one: as C_DestroyObject does. It needs
// kms:ScheduleKeyDeletion.
func (s *Service) DestroyTokenKey(ctx context.Context, actor *Actor, instance string, place KeyPlace) error {
	return Errorf(UnsupportedOperation, "not yet")
}

// Tokens lists the instances that the actor's account may see, but external ones, in order of configuration.
func (s *Service) Tokens(ctx context.Context, actor *Actor) ([]Token, error) {
	if _, err := s.looking(ctx, actor); err != nil {
		return nil, err
	}
	who, err := s.store.Principal(ctx, actor.Principal)
	if err != nil {
		return nil, storeError(err)
	}
	var tokens []Token
	for _, in := range s.instances.Load().all {
		if in.Type != ExternalInstance && in.sees(actor.Account) {
			tokens = append(tokens, Token{Instance: in.ID, Type: in.Type, Name: in.Name, PIN: who.PIN != nil})
		}
	}
	return tokens, nil
}
