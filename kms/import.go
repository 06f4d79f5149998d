package kms

import (
	"context"
	"crypto/rsa"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"time"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/softkey"
)

const (
	// materialPrint is what fingerprints of imported material are made for. Its end is the version of the rule by which they are made.
	materialPrint = "imported material 1"

	// minExponent is the least public exponent of an imported RSA key, as for those that hsmpool imports: FIPS 186-5 wants more than 2^16.
	minExponent = 1<<16 + 1

	// maxUnixTime is the last second that a time on the wire can say: the year has four digits.
	maxUnixTime = 253402300799

	// importTries is how often an import is decided anew because somebody else changed the key meanwhile.
	importTries = 5
)

// draftOrigin decides where the material comes from. A key whose material is imported has no version before the first import.
func (c *call) draftOrigin(d *draft, req *kmswire.CreateKeyRequest) error {
	switch req.Origin {
	case "", kmswire.OriginKMS:
		return nil
	case kmswire.OriginExternal:
	default:
		return Invalid("Origin", "%q is neither %s nor %s", req.Origin, kmswire.OriginKMS, kmswire.OriginExternal)
	}
	if d.key.Role == keystore.RoleDefault && !d.spec.symmetric() {
		return Invalid("Origin", "the default key is symmetric, %s is not", d.spec.name)
	}
	d.key.Origin, d.key.State = req.Origin, string(kmswire.PendingImport)
	return nil
}

// authorizeImported is authorizeManage for the actions that only keys with imported material know.
func (c *call) authorizeImported(keyID string) (grant, error) {
	g, err := c.authorizeManage(keyID)
	if err == nil && g.key.ExternalID != "" {
		err = Errorf(UnsupportedOrigin, "%s is kept by another key manager; nothing is imported into it", g.key.ID)
	}
	if err == nil && g.key.Origin != kmswire.OriginExternal {
		err = Errorf(UnsupportedOrigin, "%s was made with Origin %s; material is imported into keys that are made with %s", g.key.ID, g.key.Origin, kmswire.OriginExternal)
	}
	return g, err
}

// GetParametersForImport makes a key pair to wrap key material with, and a token that belongs to it. Both serve for 24 hours, as
// often as wanted. Nothing is kept: the token holds the private half, sealed.
func (s *Service) GetParametersForImport(ctx context.Context, actor *Actor, req *kmswire.GetParametersForImportRequest) (*kmswire.GetParametersForImportResponse, error) {
	return audited(s, ctx, actor, actGetParametersForImport, false, func(c *call) (*kmswire.GetParametersForImportResponse, error) {
		g, err := c.authorizeImported(req.KeyID)
		if err != nil {
			return nil, err
		}
		w, err := findWrapping(g.spec, req)
		if err != nil {
			return nil, err
		}
		if err := c.begun(); err != nil {
			return nil, err
		}
		t, public, err := s.newTransport(ctx, g.key, w)
		if err != nil {
			return nil, err
		}
		defer t.wipe()
		sealed, err := s.sealToken(g.key, t)
		if err != nil {
			return nil, storeError(err)
		}
		return &kmswire.GetParametersForImportResponse{
			KeyID: g.key.ID, PublicKey: public, ImportToken: sealed, TokenExpireTime: formatTime(t.expires),
		}, nil
	})
}

// findWrapping checks how the caller wants to wrap the material of a key.
func findWrapping(sp *spec, req *kmswire.GetParametersForImportRequest) (*wrapRow, error) {
	if req.WrappingKeySpec != transportSpec {
		return nil, Invalid("WrappingKeySpec", "%q is not available; %s is", req.WrappingKeySpec, transportSpec)
	}
	for _, w := range wrappings {
		if w.algorithm != req.WrappingAlgorithm {
			continue
		}
		if !w.kwp && !sp.symmetric() {
			return nil, Invalid("WrappingAlgorithm", "a private key does not fit into one block of %s; use %s", w.algorithm, kmswire.WrapOAEPSHA256KWP)
		}
		return w, nil
	}
	use := kmswire.RSAOAEPSHA256
	if !sp.symmetric() {
		use = kmswire.WrapOAEPSHA256KWP
	}
	return nil, Invalid("WrappingAlgorithm", "%q is not available; use %s", req.WrappingAlgorithm, use)
}

// ImportKeyMaterial gives a key the material that the caller has wrapped. The first import decides what the key is for good: later
// ones, which set the time of expiry anew, must bring the same. A Disabled key stays so, others become Enabled.
func (s *Service) ImportKeyMaterial(ctx context.Context, actor *Actor, req *kmswire.ImportKeyMaterialRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actImportKeyMaterial, false, func(c *call) (*kmswire.EmptyResponse, error) {
		for try := 1; ; try++ {
			err := c.importMaterial(req, try == 1)
			if errors.Is(err, keystore.ErrConflict) && try < importTries {
				continue
			}
			if err != nil {
				return nil, storeError(err)
			}
			return &kmswire.EmptyResponse{}, nil
		}
	})
}

// importMaterial is one try to import. keystore.ErrConflict means that somebody else changed the key meanwhile.
func (c *call) importMaterial(req *kmswire.ImportKeyMaterialRequest, first bool) error {
	g, err := c.authorizeImported(req.KeyID)
	if err != nil {
		return err
	}
	now := c.now().UTC().Truncate(time.Second)
	expires, err := materialExpiry(req.KeyMaterialExpireUnix, now)
	if err != nil {
		return err
	}
	t, err := c.openToken(g.key, req.ImportToken)
	if err != nil {
		return err
	}
	defer t.wipe()
	if first {
		if err := c.begun(); err != nil {
			return err
		}
	}
	old, err := c.importedVersion(g)
	if err != nil {
		return err
	}
	m := &importedMaterial{grant: g, token: t, wrapped: req.EncryptedKeyMaterial, old: old, key: *g.key}
	m.key.MaterialExpires, m.key.MaterialAfter = expires, 0
	if expires != nil {
		m.key.MaterialAfter = c.clock.after(expires.Sub(now))
	}
	if old == nil {
		// A full instance is told before anything is unwrapped, not by material that could be kept but for that.
		if err := c.roomForKey(c.ctx, g.key); err != nil {
			return err
		}
		m.version = keystore.Version{ID: newVersionID(g.key.ID), KeyID: g.key.ID, Created: now}
		m.key.Versions, m.key.LastRotation = 1, now
		if g.spec.symmetric() {
			m.key.Primary = m.version.ID
		}
	} else {
		m.version = *old
		m.version.Sealed, m.version.Wrapped, m.version.Member, m.version.ObjectID = nil, nil, "", nil
	}
	if m.key.State == string(kmswire.PendingImport) {
		m.key.State = string(kmswire.Enabled)
	}
	if g.key.Protection == kmswire.ProtectionSoftware {
		err = c.importSoftware(m)
	} else {
		err = c.importHardware(m)
	}
	if err != nil {
		return err
	}
	c.event.VersionID = m.version.ID
	c.materials.drop(m.version.ID)
	return nil
}

// materialExpiry reads KeyMaterialExpireUnix. nil is never.
func materialExpiry(unix *int, now time.Time) (*time.Time, error) {
	if unix == nil || *unix == 0 {
		return nil, nil
	}
	if *unix < 0 || *unix > maxUnixTime {
		return nil, Invalid("KeyMaterialExpireUnix", "it is seconds since 1970, or 0 for never")
	}
	at := time.Unix(int64(*unix), 0).UTC()
	if !at.After(now) {
		return nil, Invalid("KeyMaterialExpireUnix", "%s is over; it is %s now", formatTime(at), formatTime(now))
	}
	return &at, nil
}

// importedVersion gives the version of a key whose material was imported before, or nil.
func (c *call) importedVersion(g grant) (*keystore.Version, error) {
	if g.key.Versions == 0 {
		return nil, nil
	}
	versions, _, err := c.store.Versions(c.ctx, g.key.ID, 0, 1)
	if err != nil {
		return nil, storeError(err)
	}
	if len(versions) == 0 {
		return nil, Errorf(KeyUnavailable, "the version of %s is not there; restore it from a backup", g.key.ID)
	}
	return versions[0], nil
}

// importedMaterial is an import under way.
type importedMaterial struct {
	grant
	token   *importToken
	wrapped []byte
	draft   *draft            // nil unless the key is made with its material; see CreateTokenKey
	old     *keystore.Version // nil at the first import
	key     keystore.Key      // as it is to be
	version keystore.Version  // as it is to be; its material comes last
}

// bind makes the material that parts tell of the key's own if there was none before, or says whether it is the same as then: 1, else 0.
// It may be asked again.
func (s *Service) bind(m *importedMaterial, parts ...[]byte) (same int, err error) {
	print, err := s.store.Fingerprint(materialPrint, append([][]byte{[]byte(m.key.ID)}, parts...)...)
	if err != nil {
		return 0, storeError(err)
	}
	m.key.Fingerprint = print
	if m.grant.key.Fingerprint == nil {
		return 1, nil
	}
	return subtle.ConstantTimeCompare(print, m.grant.key.Fingerprint), nil
}

// refuse refuses material that is not good, after a commit that changes nothing. So if good material could not be kept now, because
// the disk is full or somebody else changed the key, that is the answer to any: it would tell good padding from bad as often
// as anybody likes, without the key being bound.
func (c *call) refuse(m *importedMaterial) error {
	if m.draft != nil { // who brings a key along has it in the clear
		return errOwnMaterial(m.grant)
	}
	err := c.store.Change().At(c.now()).UpdateKey(m.grant.key, m.grant.key).Commit(c.ctx)
	if err != nil {
		return c.commitError(m.grant.key, err)
	}
	return errMaterial(m.grant)
}

// recordImport puts what an import changes into ch.
func (c *call) recordImport(ch *keystore.Change, m *importedMaterial) {
	if m.draft != nil {
		c.putDraft(ch, m.draft, &m.key, &m.version)
		return
	}
	ch.UpdateKey(m.grant.key, &m.key)
	if m.old == nil {
		ch.CreateVersion(&m.version)
	} else {
		ch.UpdateVersion(m.old, &m.version)
	}
}

// importSoftware imports the material of a software key.
//
// PKCS#1 v1.5 must not tell whether a ciphertext is well padded: whoever has somebody's wrapped material and its token could find the
// material by asking often enough. So well padded or not, there is a secret, its fingerprint is made and compared, and it is
// sealed; and one answer comes of it. What can't be hidden is that an import works; but that binds the key to what it
// brought, and the token is good for this key only. So a stranger gets one "yes" at most, and after that only who has
// the very same material hears it.
func (c *call) importSoftware(m *importedMaterial) error {
	var good int
	var err error
	if m.spec.symmetric() {
		good, err = c.importSecret(m)
	} else {
		good, err = c.importPrivate(m)
	}
	if err != nil {
		return err
	}
	if good != 1 {
		return c.refuse(m)
	}
	return c.keepImported(m)
}

// keepImported commits the import of a software key's material.
func (c *call) keepImported(m *importedMaterial) error {
	ch := c.store.Change().At(c.now())
	c.recordImport(ch, m)
	return c.commitError(&m.key, c.limitKeys(ch, &m.key).Commit(c.ctx))
}

func (c *call) importSecret(m *importedMaterial) (good int, err error) {
	secret, good, err := m.token.unwrapSecret(m.wrapped, m.spec.aesBytes)
	if err != nil {
		return 0, err
	}
	defer clear(secret)
	same, err := c.bindSecret(m, secret)
	return good & same, err
}

// bindSecret seals the material of a symmetric key, and says whether it is the key's own.
func (c *call) bindSecret(m *importedMaterial, secret []byte) (same int, err error) {
	if same, err = c.bind(m, secret); err != nil {
		return 0, err
	}
	if m.version.Sealed, err = c.store.Seal(m.version.ID, secret); err != nil {
		return 0, storeError(err)
	}
	return same, nil
}

// importPrivate imports a private key. One key has many encodings, and what it is its public half tells: so that is what the
// fingerprint is of, here as for keys that an HSM imports.
func (c *call) importPrivate(m *importedMaterial) (good int, err error) {
	der, err := m.token.unwrap(m.wrapped)
	if err != nil || der == nil {
		return 0, err
	}
	defer clear(der)
	return c.bindPrivate(m, der)
}

// bindPrivate seals a private key, PKCS#8 DER, if it is good and the key's own.
func (c *call) bindPrivate(m *importedMaterial, der []byte) (good int, err error) {
	private, public, ok, err := parseImported(m.spec.name, der)
	if err != nil || !ok {
		return 0, err
	}
	defer private.Close()
	same, err := c.bind(m, public)
	if err != nil {
		return 0, err
	}
	own, err := private.Marshal()
	if err != nil {
		return 0, &Error{Code: Internal, Err: err}
	}
	defer clear(own)
	m.version.PublicKey = public
	if m.version.Sealed, err = c.store.Seal(m.version.ID, own); err != nil {
		return 0, storeError(err)
	}
	return same, nil
}

// parseImported reads a private key from outside, PKCS#8 DER, and checks that it is good: of the spec, its parts fitting each
// other, its primes prime, its exponent not small. The caller closes private.
func parseImported(sp kmswire.KeySpec, der []byte) (private *softkey.PrivateKey, public []byte, ok bool, err error) {
	private, err = softkey.ParsePrivateKey(sp, der)
	if errors.Is(err, softkey.ErrMalformed) {
		return nil, nil, false, nil
	}
	if err != nil {
		return nil, nil, false, &Error{Code: Internal, Err: err}
	}
	if err = private.Check(); err == nil {
		public = private.Public().Marshal()
		err = checkExponent(sp, public)
	}
	if err == nil {
		return private, public, true, nil
	}
	private.Close()
	if errors.Is(err, softkey.ErrMalformed) {
		return nil, nil, false, nil
	}
	return nil, nil, false, &Error{Code: Internal, Err: err}
}

// checkExponent refuses RSA keys whose public exponent is small, or larger than the HSM half takes.
func checkExponent(sp kmswire.KeySpec, public []byte) error {
	switch sp {
	case kmswire.RSA2048, kmswire.RSA3072, kmswire.RSA4096:
	default:
		return nil
	}
	parsed, err := x509.ParsePKIXPublicKey(public)
	if key, ok := parsed.(*rsa.PublicKey); err != nil || !ok || key.E < minExponent {
		return softkey.ErrMalformed
	}
	return nil
}

// importHardware imports the material of a hardware key: it is unwrapped inside an HSM.
func (c *call) importHardware(m *importedMaterial) error {
	request := hsmpool.ImportRequest{
		Transport: &hsmpool.Key{ID: newIntentID(), Type: hsmpool.RSA2048, Usage: hsmpool.UseUnwrap, Wrapped: m.token.private},
		Algorithm: m.token.wrapping.hsm, Ciphertext: m.wrapped, Type: m.spec.hsm, Usage: hsmUsage(&m.key),
	}
	var unknown error
	if m.grant.key.Fingerprint != nil {
		request.Same = func(check []byte) bool {
			same, err := c.bind(m, check)
			unknown = err
			return err == nil && same == 1
		}
	}
	var dropped *keystore.Intent
	err := c.announced(&m.key, &m.version, intentImport, func(intent *keystore.Intent) error {
		if intent.Member != "" {
			request.Member, request.ObjectID = intent.Member, intentObjectID(intent)
		}
		made, err := c.pool.Import(c.ctx, &request)
		if unknown != nil {
			return unknown
		}
		if err != nil {
			return poolError(err, errMaterial(m.grant))
		}
		if same, err := c.bind(m, made.Check); err != nil {
			return err
		} else if same != 1 { // Import has asked
			return errMaterial(m.grant)
		}
		m.version.Wrapped, m.version.Member, m.version.ObjectID, m.version.PublicKey = made.Wrapped, made.Member, made.ObjectID, made.PublicKey
		return nil
	}, func(ch *keystore.Change) {
		c.recordImport(ch.At(c.now()), m)
		if m.old != nil && m.old.Member != "" {
			dropped = c.dropObject(m.old)
			ch.PutIntent(dropped)
		}
	})
	if errors.Is(err, InvalidKeyMaterial) {
		return c.refuse(m)
	}
	if err == nil && dropped != nil {
		c.abandon(dropped)
	}
	return err
}

// DeleteKeyMaterial destroys the imported material of a key; the same may be imported again. Where there is none it changes nothing.
func (s *Service) DeleteKeyMaterial(ctx context.Context, actor *Actor, req *kmswire.DeleteKeyMaterialRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actDeleteKeyMaterial, false, func(c *call) (*kmswire.EmptyResponse, error) {
		for try := 1; ; try++ {
			g, err := c.authorizeImported(req.KeyID)
			if err != nil {
				return nil, err
			}
			if try == 1 {
				if err := c.begun(); err != nil {
					return nil, err
				}
			}
			err = c.forgetMaterial(g.key)
			if errors.Is(err, keystore.ErrConflict) && try < importTries {
				continue
			}
			if err != nil {
				return nil, storeError(err)
			}
			return &kmswire.EmptyResponse{}, nil
		}
	})
}
