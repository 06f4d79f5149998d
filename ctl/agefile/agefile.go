// Package agefile lets keyward hold the key of an age file. Recipient and Identity plug into filippo.io/age; what they
// write in the file's header is a stanza of type "keyward", laid down in docs/file-format.md.
//
// The file key is wrapped under a data key of 32 octets that keyward makes for this one file; the stanza carries that
// data key in the form that only keyward can open (its CiphertextBlob), the id of the key that can, and the file's
// EncryptionContext. The stanza has no secret in it.
package agefile

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/keyward/keyward/kms/kmswire"
)

// The parts of the stanza, and the limits that a reader holds them to.
const (
	StanzaType = "keyward"
	Version    = "v1"

	// PurposeName is added to the EncryptionContext of every file, with PurposeValue, and is not stored: the data key
	// of a file can be opened as that only, and a policy or an audit can tell files from other uses of a key. Names that
	// begin with ReservedPrefix cannot be given by users.
	PurposeName    = "keyward:purpose"
	PurposeValue   = "file"
	ReservedPrefix = "keyward:"

	MaxBlob         = 4096 // octets of a data key's CiphertextBlob
	MaxContextPairs = 64
	MaxKeyID        = 256 // octets

	dataKeySize = 32
	fileKeySize = 16 // fixed by age
	wrappedSize = fileKeySize + 16
	aadDomain   = "keyward age stanza v1\x00"
)

// KMS is what a file needs of a key management service.
type KMS interface {
	// GenerateDataKey makes a data key of 32 octets under a key and tells which key that is by its id.
	GenerateDataKey(ctx context.Context, keyID string, encryptionContext map[string]string) (usedKeyID string, plaintext, blob []byte, err error)
	// Decrypt opens a blob of GenerateDataKey.
	Decrypt(ctx context.Context, blob []byte, encryptionContext map[string]string) (usedKeyID string, plaintext []byte, err error)
}

// Stanza is a stanza of type "keyward", taken apart. None of it is secret, and none of it is proven before Decrypt.
type Stanza struct {
	KeyID   string            // the key that can open Blob
	Context map[string]string // the user's pairs, without the purpose
	Blob    []byte            // the data key's CiphertextBlob
	Wrapped []byte            // the file key under the data key
}

// CheckContext says whether a user's EncryptionContext can be used for a file.
func CheckContext(pairs map[string]string) error {
	if len(pairs) > MaxContextPairs {
		return fmt.Errorf("an encryption context of %d pairs is over the limit of %d", len(pairs), MaxContextPairs)
	}
	size := 0
	for name, value := range pairs {
		if name == "" {
			return errors.New("an encryption context has no pairs without a name")
		}
		if strings.HasPrefix(name, ReservedPrefix) {
			return fmt.Errorf("context name %q: names that begin with %q are keyward's own", name, ReservedPrefix)
		}
		size += len(name) + len(value)
	}
	// The JSON text adds a little more; the service has the last word on that.
	if size > kmswire.MaxContextText {
		return fmt.Errorf("an encryption context of %d octets is over the limit of %d", size, kmswire.MaxContextText)
	}
	return nil
}

// fullContext is what the service is given: the user's pairs and the purpose.
func fullContext(pairs map[string]string) map[string]string {
	full := map[string]string{PurposeName: PurposeValue}
	maps.Copy(full, pairs)
	return full
}

// head is the body of the stanza up to the wrapped key.
func (s *Stanza) head() []byte {
	b := []byte{byte(len(s.Context))}
	for _, name := range slices.Sorted(maps.Keys(s.Context)) {
		b = appendField(b, name)
		b = appendField(b, s.Context[name])
	}
	return appendField(b, string(s.Blob))
}

// aad binds the wrapped key to the rest of the stanza.
func (s *Stanza) aad() []byte {
	return append(appendField([]byte(aadDomain), s.KeyID), s.head()...)
}

func appendField(b []byte, field string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(field))), field...)
}

func (s *Stanza) marshal() *age.Stanza {
	return &age.Stanza{Type: StanzaType, Args: []string{Version, s.KeyID}, Body: append(s.head(), s.Wrapped...)}
}

// Parse takes a stanza apart. It accepts one spelling of each stanza only.
func Parse(st *age.Stanza) (*Stanza, error) {
	if st.Type != StanzaType {
		return nil, fmt.Errorf("a stanza of type %q is not keyward's", st.Type)
	}
	if len(st.Args) > 0 && st.Args[0] != Version {
		return nil, fmt.Errorf("the file has a keyward stanza of version %q; this program knows %s only: use a newer keywardctl", st.Args[0], Version)
	}
	if len(st.Args) != 2 || st.Args[1] == "" || len(st.Args[1]) > MaxKeyID {
		return nil, errMalformed
	}
	s := &Stanza{KeyID: st.Args[1], Context: map[string]string{}}
	r := bytes.NewReader(st.Body)
	pairs, err := r.ReadByte()
	if err != nil || pairs > MaxContextPairs {
		return nil, errMalformed
	}
	last := ""
	for range pairs {
		name, ok1 := readField(r, kmswire.MaxContextText)
		value, ok2 := readField(r, kmswire.MaxContextText)
		if !ok1 || !ok2 || string(name) <= last {
			return nil, errMalformed
		}
		last = string(name)
		s.Context[last] = string(value)
	}
	blob, ok := readField(r, MaxBlob)
	if !ok || len(blob) == 0 || r.Len() != wrappedSize {
		return nil, errMalformed
	}
	s.Blob = blob
	s.Wrapped = st.Body[len(st.Body)-wrappedSize:]
	if err := CheckContext(s.Context); err != nil {
		return nil, errMalformed
	}
	return s, nil
}

var errMalformed = errors.New("the file's keyward stanza is malformed: the file is damaged or was not made by keyward")

// readField reads a length and that many octets, at most limit.
func readField(r *bytes.Reader, limit int) ([]byte, bool) {
	var head [2]byte
	if n, err := r.Read(head[:]); err != nil || n != 2 {
		return nil, false
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > limit || n > r.Len() {
		return nil, false
	}
	field := make([]byte, n)
	if n == 0 {
		return field, true
	}
	_, err := r.Read(field)
	return field, err == nil
}

// aead is AES-256-GCM with a nonce of zeros: the data key is used for this one message and then forgotten.
func aead(dataKey []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(dataKey)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Recipient makes a file that keyward can open.
type Recipient struct {
	Ctx     context.Context // bounds the calls
	KMS     KMS
	KeyID   string            // id, alias or ARN of a symmetric key
	Context map[string]string // see CheckContext

	UsedKeyID string // set by Wrap: the key that was used
}

var _ age.Recipient = (*Recipient)(nil)

// Wrap gives the stanza for a file key. age.Encrypt calls it.
func (r *Recipient) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	if err := CheckContext(r.Context); err != nil {
		return nil, err
	}
	keyID, dataKey, blob, err := r.KMS.GenerateDataKey(r.Ctx, r.KeyID, fullContext(r.Context))
	if err != nil {
		return nil, err
	}
	defer clear(dataKey)
	if len(dataKey) != dataKeySize || len(blob) == 0 || len(blob) > MaxBlob || keyID == "" || len(keyID) > MaxKeyID {
		return nil, fmt.Errorf("the data key that was made for the file cannot be used: key of %d octets, blob of %d, key id %q", len(dataKey), len(blob), keyID)
	}
	s := &Stanza{KeyID: keyID, Context: r.Context, Blob: blob}
	gcm, err := aead(dataKey)
	if err != nil {
		return nil, err
	}
	s.Wrapped = gcm.Seal(nil, make([]byte, gcm.NonceSize()), fileKey, s.aad())
	r.UsedKeyID = keyID
	return []*age.Stanza{s.marshal()}, nil
}

// Identity opens files that keyward can open.
type Identity struct {
	Ctx context.Context // bounds the calls
	KMS KMS
	// Expect holds pairs that the file must have been made with; a file that has them not, or with another value, is
	// refused. Pairs that are not mentioned may be anything.
	Expect map[string]string
	// ExpectKeyID is the id of the key that the file must be under; empty means any.
	ExpectKeyID string

	Opened *Stanza // set by Unwrap: the stanza that was opened
}

var _ age.Identity = (*Identity)(nil)

// Unwrap gives the file key. age.Decrypt calls it.
func (i *Identity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	var mine *age.Stanza
	for _, st := range stanzas {
		if st.Type != StanzaType {
			continue
		}
		if mine != nil {
			return nil, errors.New("the file has more than one keyward stanza; keyward writes one")
		}
		mine = st
	}
	if mine == nil {
		return nil, age.ErrIncorrectIdentity
	}
	s, err := Parse(mine)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(i.Expect)) {
		switch value, ok := s.Context[name]; {
		case !ok:
			return nil, fmt.Errorf("the file was made without context %q", name)
		case value != i.Expect[name]:
			return nil, fmt.Errorf("the file was made with context %s=%q, not %q", name, value, i.Expect[name])
		}
	}
	if i.ExpectKeyID != "" && s.KeyID != i.ExpectKeyID {
		return nil, fmt.Errorf("the file is under key %s, not %s", s.KeyID, i.ExpectKeyID)
	}
	keyID, dataKey, err := i.KMS.Decrypt(i.Ctx, s.Blob, fullContext(s.Context))
	if err != nil {
		return nil, err
	}
	defer clear(dataKey)
	if keyID != s.KeyID || len(dataKey) != dataKeySize {
		return nil, errChanged
	}
	gcm, err := aead(dataKey)
	if err != nil {
		return nil, err
	}
	fileKey, err := gcm.Open(nil, make([]byte, gcm.NonceSize()), s.Wrapped, s.aad())
	if err != nil || len(fileKey) != fileKeySize {
		return nil, errChanged
	}
	i.Opened = s
	return fileKey, nil
}

var errChanged = errors.New("the file's header was changed after it was made; nothing was decrypted")
