package kms

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/keywrap"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/policy"
)

// tokenWindowDays is how long a key waits that was destroyed as an object of a token. PKCS #11 has no word for it.
const tokenWindowDays = 30

// NewTokenKey is a key that a client makes in a token, or brings along.
type NewTokenKey struct {
	Instance string
	Spec     kmswire.KeySpec
	Usage    kmswire.KeyUsage
	// Secondary is a second usage, of RSA keys; empty: none.
	Secondary kmswire.KeyUsage
	Pinned    bool // hardware instances: HsmInternal rather than HsmEncryptedDatabase
	// Names are what the client gave of them. A label that can be an alias and is free becomes one too.
	Names map[ObjectClass]ObjectNames
	// Material is that of a key that is brought along: PKCS#8 DER, or the octets of an AES key. The caller wipes it. nil: it is made.
	Material []byte
}

// CreateTokenKey makes a key: CreateKey, and with Material its import too, in one commit. It needs what these need.
func (s *Service) CreateTokenKey(ctx context.Context, actor *Actor, req *NewTokenKey) (*TokenKey, error) {
	return audited(s, ctx, actor, actCreateKey, false, func(c *call) (*TokenKey, error) {
		if err := c.authorizeContainer(policy.Key); err != nil {
			return nil, err
		}
		d, err := c.draftTokenKey(req)
		if err != nil {
			return nil, err
		}
		makeKey := func() (string, error) { return d.key.ID, c.create(d) }
		if req.Material != nil {
			g, err := c.authorize(d.key, actImportKeyMaterial)
			if err != nil {
				return nil, err
			}
			makeKey = func() (string, error) { return c.createImported(d, g, req.Material) }
		}
		if err := c.begun(); err != nil {
			return nil, err
		}
		id, err := makeKey()
		if errors.Is(err, AliasExists) && d.alias != nil { // somebody else was faster: it is only a label then
			d.alias, c.event.Detail = nil, ""
			id, err = makeKey()
		}
		if req.Material != nil {
			e := c.event
			e.Action = actImportKeyMaterial.name
			c.also(e, err)
		}
		if err != nil {
			return nil, err
		}
		c.ctx = context.WithoutCancel(ctx) // it is made
		k, err := s.store.Key(c.ctx, id)
		if err != nil {
			return nil, storeError(err)
		}
		place := KeyPlace{k.Sequence, 1}
		return c.show(k, c.place(place, k.ID, c.event.VersionID), place)
	})
}

// draftTokenKey checks what a client wants, and drafts the key as CreateKey does.
func (c *call) draftTokenKey(req *NewTokenKey) (*draft, error) {
	if req.Instance == "" {
		return nil, Missing("DKMSInstanceId")
	}
	create := &kmswire.CreateKeyRequest{DKMSInstanceID: req.Instance, KeySpec: req.Spec, KeyUsage: req.Usage,
		SecondaryKeyUsage: req.Secondary}
	if req.Pinned {
		create.KeyStorageMechanism = kmswire.HsmInternal
	}
	if req.Material != nil {
		create.Origin = kmswire.OriginExternal
	}
	if alias := aliasPrefix + aliasLabel(req.Names); checkAlias(alias) == nil {
		create.AliasName = alias
	}
	d, err := c.draft("", create)
	if errors.Is(err, AliasExists) {
		create.AliasName, c.event.Detail = "", ""
		d, err = c.draft("", create)
	}
	if err != nil {
		return nil, err
	}
	for _, class := range keyClasses(d.spec.name) {
		n := req.Names[class]
		if err := checkObjectNames(n.ID, n.Label, n.Subject); err != nil {
			return nil, err
		}
		if len(n.Mechanisms) > MaxObjectMechanisms {
			return nil, Invalid("Mechanisms", "there are %d, at most %d are allowed", len(n.Mechanisms), MaxObjectMechanisms)
		}
		set := keystore.ClassNames{Class: uint8(class), Mechanisms: n.Mechanisms}
		if n.ID != nil {
			set.ID = &n.ID
		}
		if n.Label != "" {
			set.Label = &n.Label
		}
		if n.Subject != nil {
			set.Subject = &n.Subject
		}
		if set.ID != nil || set.Label != nil || set.Subject != nil || set.Mechanisms != nil {
			d.names = append(d.names, set)
		}
	}
	for class := range req.Names {
		if !d.spec.has(class) {
			return nil, Invalid("Class", "a %s key is no object of class %d", d.spec.name, class)
		}
	}
	return d, nil
}

// aliasLabel is the label that a new key is known by: of the object that is used, else of its public half.
func aliasLabel(names map[ObjectClass]ObjectNames) string {
	for _, class := range []ObjectClass{ClassSecretKey, ClassPrivateKey, ClassPublicKey} {
		if label := names[class].Label; label != "" {
			return label
		}
	}
	return ""
}

// createImported makes the key of a draft with the material that its maker brings along, in one commit: there never is a key that waits
// for it. It gives the key's ID.
func (c *call) createImported(d *draft, g grant, material []byte) (string, error) {
	// A full instance is told before an HSM works for nothing. The commit decides.
	if err := c.roomForKey(c.ctx, d.key); err != nil {
		return "", err
	}
	m := &importedMaterial{grant: g, draft: d, key: *d.key}
	m.version = keystore.Version{ID: newVersionID(d.key.ID), KeyID: d.key.ID, Created: d.key.Created}
	m.key.State, m.key.Versions = string(kmswire.Enabled), 1
	if d.spec.symmetric() {
		m.key.Primary = m.version.ID
	}
	var err error
	if d.key.Protection == kmswire.ProtectionSoftware {
		err = c.createSoftware(m, material)
	} else {
		err = c.createHardware(m, material)
	}
	if err = c.createError(d, err); err != nil {
		return "", err
	}
	c.event.VersionID = m.version.ID
	return m.key.ID, nil
}

func (c *call) createSoftware(m *importedMaterial, material []byte) error {
	good, err := 0, error(nil)
	switch {
	case !m.spec.symmetric():
		good, err = c.bindPrivate(m, material)
	case len(material) == m.spec.aesBytes:
		good, err = c.bindSecret(m, material)
	}
	if err != nil {
		return err
	}
	if good != 1 {
		return c.refuse(m)
	}
	return c.keepImported(m)
}

// createHardware imports material that is in this process into an HSM, the way that wrapped material comes: so it is looked at there, and
// the object that it becomes has the pool's template.
func (c *call) createHardware(m *importedMaterial, material []byte) error {
	if m.spec.symmetric() && len(material) != m.spec.aesBytes || len(material) == 0 || len(material) > maxWrapped-2*transportSize {
		return c.refuse(m)
	}
	w, err := findWrapping(m.spec, &kmswire.GetParametersForImportRequest{WrappingKeySpec: transportSpec, WrappingAlgorithm: kmswire.WrapOAEPSHA256KWP})
	if err != nil {
		return err
	}
	t, public, err := c.newTransport(c.ctx, m.grant.key, w)
	if err != nil {
		return err
	}
	defer t.wipe()
	m.token = t
	if m.wrapped, err = wrapOAEPSHA256KWP(public, material); err != nil {
		return &Error{Code: Internal, Err: err}
	}
	return c.importHardware(m)
}

// wrapOAEPSHA256KWP wraps material for the private half of a public key, DER SubjectPublicKeyInfo.
func wrapOAEPSHA256KWP(public, material []byte) ([]byte, error) {
	parsed, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("kms: a transport key that is no RSA key")
	}
	temporary := make([]byte, 32)
	defer clear(temporary)
	rand.Read(temporary) // never fails
	wrapped, err := keywrap.Wrap(temporary, material)
	if err != nil {
		return nil, err
	}
	block, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key, temporary, nil)
	if err != nil {
		return nil, err
	}
	return append(block, wrapped...), nil
}

// errOwnMaterial is the answer to material that its own maker can't bring along.
func errOwnMaterial(g grant) *Error {
	if g.spec.symmetric() {
		return Errorf(InvalidKeyMaterial, "it must be %d octets", g.spec.aesBytes)
	}
	return Errorf(InvalidKeyMaterial, "it must be the PKCS#8 DER of a good %s private key", g.spec.name)
}

// DestroyTokenKey schedules the deletion of the key of a version, if it is the only one: as C_DestroyObject does. It needs
// kms:ScheduleKeyDeletion.
func (s *Service) DestroyTokenKey(ctx context.Context, actor *Actor, instance string, place KeyPlace) error {
	_, err := audited(s, ctx, actor, actScheduleKeyDeletion, false, func(c *call) (*struct{}, error) {
		t, err := c.tokenKey(instance, place)
		if err != nil {
			return nil, err
		}
		c.event.VersionID = t.VersionID
		return done(c.scheduleDeletion(t.KeyID, tokenWindowDays, func(k *keystore.Key) error {
			if k.Versions > 1 {
				return Errorf(StateNotAllowed, "%s has %d versions, of which this is one; destroy the whole key with keywardctl key delete %s", k.ID, k.Versions, k.ID)
			}
			return nil
		}))
	})
	return err
}

// nameTries is how often a change of names is decided anew because somebody else changed the same names first.
const nameTries = 5

// NameTokenKey sets names of one class of a version; those that are nil stay as they are. It needs kms:SetTokenNames.
func (s *Service) NameTokenKey(ctx context.Context, actor *Actor, instance string, place KeyPlace, class ObjectClass, names SomeNames) error {
	return s.changeTokenNames(ctx, actor, instance, place, class, func(set *keystore.ClassNames) error {
		text := ""
		if names.Label != nil {
			text = *names.Label
			set.Label = names.Label
		}
		if names.ID != nil {
			set.ID = &names.ID
		}
		if names.Subject != nil {
			set.Subject = &names.Subject
		}
		return checkObjectNames(names.ID, text, names.Subject)
	})
}

// DestroyTokenPublicKey takes the public half of a version out of its token, as C_DestroyObject does. The key stays as it is, with its private half in the
// token, and GetPublicKey still gives the public one. It needs kms:SetTokenNames.
func (s *Service) DestroyTokenPublicKey(ctx context.Context, actor *Actor, instance string, place KeyPlace) error {
	return s.changeTokenNames(ctx, actor, instance, place, ClassPublicKey, func(names *keystore.ClassNames) error {
		names.Gone = true
		return nil
	})
}

func (s *Service) changeTokenNames(ctx context.Context, actor *Actor, instance string, place KeyPlace, class ObjectClass, change func(*keystore.ClassNames) error) error {
	_, err := audited(s, ctx, actor, actSetTokenNames, false, func(c *call) (*struct{}, error) {
		for try := 0; ; try++ {
			err := c.changeTokenNames(instance, place, class, change, try == 0)
			if errors.Is(err, keystore.ErrConflict) && try < nameTries {
				continue
			}
			return done(storeErrorOrNil(err))
		}
	})
	return err
}

// changeTokenNames is one try. keystore.ErrConflict means that somebody else changed the names or the key meanwhile.
func (c *call) changeTokenNames(instance string, place KeyPlace, class ObjectClass, change func(*keystore.ClassNames) error, first bool) error {
	t, err := c.tokenKey(instance, place)
	if err != nil {
		return err
	}
	c.event.VersionID = t.VersionID
	g, err := c.authorizeManage(t.KeyID)
	if err != nil {
		return err
	}
	if !g.spec.has(class) {
		return Invalid("Class", "a %s key is no object of class %d", g.spec.name, class)
	}
	old, err := c.store.TokenNames(c.ctx, g.key.Account, instance, t.VersionID)
	if err != nil {
		return err
	}
	next := keystore.TokenNames{Account: g.key.Account, Instance: instance, KeyID: g.key.ID, Version: t.VersionID, Ordinal: uint64(place.Ordinal)}
	set := keystore.ClassNames{Class: uint8(class)}
	if old != nil {
		for _, n := range old.Names {
			if n.Class == set.Class {
				set = n
			} else {
				next.Names = append(next.Names, n)
			}
		}
	}
	if err := change(&set); err != nil {
		return err
	}
	if set.ID != nil || set.Label != nil || set.Subject != nil || set.Mechanisms != nil || set.Gone {
		next.Names = append(next.Names, set)
	}
	if first {
		if err := c.begun(); err != nil {
			return err
		}
	}
	return c.store.Change().SetTokenNames(old, &next).Commit(c.ctx)
}

// has says whether keys of the spec are objects of a class.
func (s *spec) has(class ObjectClass) bool {
	for _, c := range keyClasses(s.name) {
		if c == class {
			return true
		}
	}
	return false
}
