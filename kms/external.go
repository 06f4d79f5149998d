package kms

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"strings"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/blob"
	"github.com/keyward/keyward/kms/kmswire"
)

// ExternalKeys is the way to the key manager behind an external instance (package xki has it). All its methods may be called at the same time. Their
// errors are *Error: KeyNotFound when the key manager has no such key; InvalidParameter of CiphertextBlob for a ciphertext that does not open;
// HSMUnavailable and Throttled for what may work later; KeyUnavailable for all that an operator has to mend.
type ExternalKeys interface {
	// Connected says whether keys can be used: the proxy answers, and takes us for who we are.
	Connected() bool
	Describe(ctx context.Context, use *ExternalUse) (*ExternalKey, error)
	// Encrypt seals a plaintext. The tag covers aad too, of at most MaxExternalAAD octets.
	Encrypt(ctx context.Context, use *ExternalUse, plaintext, aad []byte) (*blob.Outside, error)
	// Decrypt undoes Encrypt. The caller wipes the plaintext.
	Decrypt(ctx context.Context, use *ExternalUse, sealed *blob.Outside, aad []byte) ([]byte, error)
}

// ExternalUse is what another key manager is told of a call.
type ExternalUse struct {
	ExternalID string
	KeyARN     string // of our key; empty before there is one
	Principal  string // who calls
	Action     string // of the API, without "kms:"
	RequestID  string
}

// ExternalKey is what another key manager says of a key.
type ExternalKey struct {
	AES256, Encrypts, Decrypts, Enabled bool
}

// MaxExternalAAD is how many octets of associated data all proxies take (reference xki-proxy.md §2.4).
const MaxExternalAAD = 8192

// externalAADTag stands before the hash of associated data that are longer. Others begin with a length of 4 octets below 2^24, so with a zero.
const externalAADTag = "keyward external AAD SHA-256:"

// externalAtOnce is how many items of one batch are with another key manager at the same time.
const externalAtOnce = 16

// SetExternal replaces the ways to other key managers, by the IDs of the instances. Calls that run go on with the old ones.
func (s *Service) SetExternal(all map[string]ExternalKeys) { s.external.Store(&all) }

// externalKeys gives the way to the key manager behind an instance, if it is connected.
func (s *Service) externalKeys(instance string) (ExternalKeys, error) {
	keys := (*s.external.Load())[instance]
	switch {
	case keys == nil:
		return nil, Errorf(KeyUnavailable, "%s is Disconnected: no proxy is configured for it; keywardctl xki connect %s", instance, instance)
	case !keys.Connected():
		return nil, Errorf(KeyUnavailable, "%s is Disconnected: its proxy does not answer, or refuses our access key; keywardctl xki connections says more", instance)
	}
	return keys, nil
}

// outside is where the material of an external key is.
type outside struct{ instance, externalID, keyARN string }

func (c *call) externalUse(o *outside) *ExternalUse {
	use := &ExternalUse{ExternalID: o.externalID, KeyARN: o.keyARN, Principal: c.actor.Principal, Action: c.action.name, RequestID: c.event.RequestID}
	if use.RequestID == "" {
		use.RequestID = rand.Text()
	}
	return use
}

// externalAAD gives associated data as a proxy takes them.
func externalAAD(aad []byte) []byte {
	if len(aad) <= MaxExternalAAD {
		return aad
	}
	sum := sha256.Sum256(aad)
	return append([]byte(externalAADTag), sum[:]...)
}

// encryptOutside makes one blob of an external key.
func (c *call) encryptOutside(m *material, plaintext []byte, encryptionContext map[string]string) ([]byte, error) {
	keys, err := c.externalKeys(m.outside.instance)
	if err != nil {
		return nil, err
	}
	head, err := blob.AppendHeader(nil, blob.Header{Algorithm: blob.External, KeyID: m.version.KeyID, VersionID: m.version.ID, ExternalID: m.outside.externalID})
	if err != nil {
		return nil, &Error{Code: Internal, Err: err}
	}
	aad, err := associated(nil, head, encryptionContext)
	if err != nil {
		return nil, err
	}
	sealed, err := keys.Encrypt(c.ctx, c.externalUse(m.outside), plaintext, externalAAD(aad))
	if err != nil {
		return nil, externalError(m.outside, err)
	}
	out, err := blob.AppendOutside(head, *sealed)
	if err != nil {
		return nil, &Error{Code: KeyUnavailable, Detail: "the proxy of " + m.outside.instance + " gave no ciphertext", Err: err}
	}
	return out, nil
}

// decryptOutside opens the body of a blob of an external key.
func (c *call) decryptOutside(m *material, body, aad []byte) ([]byte, error) {
	sealed, err := blob.ParseOutside(body)
	if err != nil {
		return nil, badBlob()
	}
	keys, err := c.externalKeys(m.outside.instance)
	if err != nil {
		return nil, err
	}
	plaintext, err := keys.Decrypt(c.ctx, c.externalUse(m.outside), &sealed, externalAAD(aad))
	if err != nil {
		return nil, externalError(m.outside, err)
	}
	return plaintext, nil
}

// externalError words an error of another key manager for who uses a key of it.
func externalError(o *outside, err error) error {
	switch e := AsError(err); {
	case e.Code == InvalidParameter && e.Param == "CiphertextBlob":
		return badBlob()
	case e.Code == KeyNotFound:
		return &Error{Code: KeyUnavailable, Detail: "the key manager behind " + o.instance + " has no key " + o.externalID + " for us any more", Err: e.Err}
	case e.Code == Internal && errors.Is(err, context.Canceled):
		return &Error{Code: Canceled, Err: err}
	default:
		return e
	}
}

// checkExternal asks the key manager that has it about the key of a draft: only a key that can be used is taken.
func (c *call) checkExternal(d *draft, _ *kmswire.CreateKeyRequest) error {
	if d.key.ExternalID == "" {
		return nil
	}
	keys, err := c.externalKeys(d.instance.ID)
	if err != nil {
		return err
	}
	o := &outside{instance: d.instance.ID, externalID: d.key.ExternalID}
	key, err := keys.Describe(c.ctx, c.externalUse(o))
	const param = "ExternalKeyId"
	switch {
	case errors.Is(err, KeyNotFound):
		return Invalid(param, "the key manager behind %s has no key %s, or not for us; make it there first", o.instance, o.externalID)
	case err != nil:
		return externalError(o, err)
	case !key.AES256:
		return Invalid(param, "%s is no AES key of 256 bits", o.externalID)
	case !key.Encrypts || !key.Decrypts:
		return Invalid(param, "%s may not both encrypt and decrypt, by what its key manager says", o.externalID)
	case !key.Enabled:
		return Invalid(param, "%s is not enabled at its key manager; enable it there", o.externalID)
	}
	return nil
}

// ownVersions refuses to tell of the versions of an external key, which are its key manager's.
func ownVersions(k *keystore.Key) error {
	if k.ExternalID == "" {
		return nil
	}
	return Errorf(UnsupportedOperation, "%s is kept by another key manager, which alone knows its versions", k.ID)
}

// An External Key ID has at most so many characters, of these (reference xki-proxy.md §2.1).
const (
	maxExternalID        = 128
	externalIDCharacters = idCharacters + "ABCDEFGHIJKLMNOPQRSTUVWXYZ-._"
)

// draftExternal reads the External Key ID: what another key manager calls the key. Keys of external instances have one, and no
// others; several keys may have the same one.
func (c *call) draftExternal(d *draft, req *kmswire.CreateKeyRequest) error {
	const param = "ExternalKeyId"
	id := req.ExternalKeyID
	if d.instance.Type != ExternalInstance {
		if id != "" {
			return Invalid(param, "only keys of external instances have one; name such an instance in DKMSInstanceId")
		}
		return nil
	}
	switch {
	case id == "":
		e := Missing(param)
		e.Detail = "a key of " + d.instance.ID + " is one of another key manager; make it there first, and name it by the ID that it has there"
		return e
	case len(id) > maxExternalID || strings.Trim(id, externalIDCharacters) != "":
		return Invalid(param, "it has 1 to %d letters, digits, hyphens, dots and underscores", maxExternalID)
	case d.spec.name != kmswire.AES256:
		return Invalid("KeySpec", "keys of external instances are %s, not %s", kmswire.AES256, d.spec.name)
	case req.Origin != "" && req.Origin != kmswire.OriginKMS:
		return Invalid("Origin", "the material of an external key stays where it is; nothing is imported")
	case req.EnableAutomaticRotation || req.RotationInterval != "":
		return Errorf(OperationRejected, "an external key is rotated by the key manager that has it")
	}
	d.key.ExternalID = id
	return nil
}
