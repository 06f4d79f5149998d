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

	// Names has what clients have set, by class. Of what nobody has set, the ID is 16 octets that encode the place, and the label the oldest alias without its
	// prefix (else the key ID; of a version that is not the newest, with "#" and the version's ordinal). A class that is not there has no object.
	Names map[ObjectClass]ObjectNames
}

// ObjectNames are the attributes by which clients find an object, and what else of a key is theirs to say.
type ObjectNames struct {
	ID      []byte // CKA_ID
	Label   string // CKA_LABEL
	Subject []byte // CKA_SUBJECT, of keys: DER of the subject of the key's certificate
	// Mechanisms is CKA_ALLOWED_MECHANISMS as the maker of a key gave it; nil: whatever the key can do. The door of PKCS #11 holds its clients to it.
	Mechanisms []uint64
}

// SomeNames are names of an object, some of which may be left out: nil.
type SomeNames struct {
	ID      []byte
	Label   *string
	Subject []byte
}

// Token is an instance as a token.
type Token struct {
	Instance string
	Type     string  // SoftwareInstance or HardwareInstance
	Name     string  // for people
	PIN      PINName // of the PIN that the principal has, which C_Login must give before private objects are used; empty: none
	// PINFailures is how often it was wrong since it was right; with MaxPINFailures it is locked.
	PINFailures int
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
	failures := 0
	if who.PIN != nil {
		failures = who.PIN.Failures
	}
	pin := pinName(who.PIN)
	var tokens []Token
	for _, in := range s.instances.Load().all {
		if in.Type != ExternalInstance && in.sees(actor.Account) {
			tokens = append(tokens, Token{Instance: in.ID, Type: in.Type, Name: in.Name, PIN: pin, PINFailures: failures})
		}
	}
	return tokens, nil
}
