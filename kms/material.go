package kms

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/softkey"
)

// maxMaterials bounds the versions whose material is open at one time. An RSA-4096 key takes about 10 KiB.
const maxMaterials = 16384

// material is one version, parsed and ready to use. Which fields are set depends on where the key is:
// software symmetric: aes, calls; software asymmetric: private, public; hardware: hsm, and calls or public; external: outside.
//
// It is shared, and counted: whoever got it from the cache calls release when done. The last one out wipes it, after the
// cache has dropped it.
type material struct {
	version *keystore.Version
	spec    *spec
	aes     *softkey.AES
	private *softkey.PrivateKey
	public  *softkey.PublicKey
	hsm     *hsmpool.Key
	outside *outside
	calls   *callCounter

	// rejection is for decryption by PKCS#1 v1.5: see kms/rsapad. It is made of the public key, so that all copies of a key, such as
	// one that was imported twice, reject alike. nil: the key does not decrypt so.
	rejection []byte

	// forget takes what HSMs have loaded of the key out of them; nil: nothing is loaded. If the material was dropped while it was in use,
	// the last one out calls it: it may have loaded the key after whoever dropped the material had all HSMs forget it.
	forget  func()
	dropped atomic.Bool

	users atomic.Int64 // the cache counts as one; 0 means wiped
}

func (m *material) acquire() bool {
	for {
		n := m.users.Load()
		if n == 0 {
			return false
		}
		if m.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (m *material) release() {
	if m.leave() && m.forget != nil && m.dropped.Load() {
		m.forget()
	}
}

// leave is release for the cache, which must not wait for an HSM.
func (m *material) leave() (last bool) {
	if m.users.Add(-1) != 0 {
		return false
	}
	if m.aes != nil {
		m.aes.Close()
	}
	if m.private != nil {
		m.private.Close()
	}
	if m.public != nil {
		m.public.Close()
	}
	clear(m.rejection)
	return true
}

// materialCache keeps open materials by version ID.
type materialCache struct {
	load func(context.Context, grant, string) (*material, error)

	mu      sync.Mutex // guards entries and loading
	entries *lru.Cache[string, *material]
	loading map[string]*materialLoad
}

// materialLoad is one load under way. err may be read when done is closed.
type materialLoad struct {
	done    chan struct{}
	err     error
	dropped bool // guarded by the cache's mu: what is loaded is for the loader only
}

func newMaterialCache(load func(context.Context, grant, string) (*material, error)) *materialCache {
	c := &materialCache{load: load, loading: map[string]*materialLoad{}}
	c.entries, _ = lru.NewWithEvict(maxMaterials, func(_ string, m *material) { m.leave() }) // fails only for sizes below 1
	return c
}

// get returns the open material of a version of the granted key. The caller releases it. Several callers who miss at
// once cause one load.
func (c *materialCache) get(ctx context.Context, g grant, versionID string) (*material, error) {
	// A version's ID begins with its key's. A grant for one key must neither open a version of another nor make a load
	// fail that others wait for.
	if rest, ok := strings.CutPrefix(versionID, g.key.ID); !ok || !strings.HasPrefix(rest, "-") {
		return nil, versionNotFound(g, versionID)
	}
	for {
		c.mu.Lock()
		if m, ok := c.entries.Get(versionID); ok && m.acquire() {
			c.mu.Unlock()
			return m, nil
		}
		l := c.loading[versionID]
		if l == nil {
			l = &materialLoad{done: make(chan struct{})}
			c.loading[versionID] = l
			c.mu.Unlock()
			return c.fill(ctx, g, versionID, l)
		}
		c.mu.Unlock()
		select {
		case <-l.done:
			// A loader's cancellation is its own; other errors are everybody's.
			if l.err != nil && !errors.Is(l.err, Canceled) {
				return nil, l.err
			}
		case <-ctx.Done():
			return nil, &Error{Code: Canceled, Err: ctx.Err()}
		}
	}
}

func (c *materialCache) fill(ctx context.Context, g grant, versionID string, l *materialLoad) (m *material, err error) {
	l.err = Errorf(Internal, "loading a version panicked") // unless it is replaced
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.loading, versionID)
		if m != nil {
			m.users.Store(1) // the caller
			m.dropped.Store(l.dropped)
			if !l.dropped {
				m.users.Store(2) // and the cache
				c.entries.Add(versionID, m)
			}
		}
		close(l.done)
	}()
	m, err = c.load(ctx, g, versionID)
	l.err = err
	return m, err
}

// drop forgets a version, so that its secret does not stay in memory longer than it is wanted. A load that is under way
// will not be kept either. What HSMs have loaded of it is the caller's to take out, afterwards.
func (c *materialCache) drop(versionID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.loading[versionID]; l != nil {
		l.dropped = true
	}
	if m, ok := c.entries.Peek(versionID); ok {
		m.dropped.Store(true)
	}
	c.entries.Remove(versionID)
}

func (c *materialCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries.Purge()
}

func versionNotFound(g grant, versionID string) *Error {
	if len(versionID) > 64 {
		versionID = versionID[:64]
	}
	return Errorf(VersionNotFound, "%s has no version %q", g.key.ID, versionID)
}

// RejectionSecret is what implicit rejection needs of an RSA key (kms/rsapad), made of its public key, DER SubjectPublicKeyInfo. All copies of a key
// must reject alike, whether they are the KMS's or a program's own: else who may ask two of them sees which ciphertexts are well padded. The
// caller wipes it.
func (s *Service) RejectionSecret(publicKey []byte) ([]byte, error) {
	secret, err := s.store.Fingerprint("rejection of PKCS#1 v1.5", publicKey)
	if err != nil {
		return nil, storeError(err)
	}
	return secret, nil
}

// load opens one version: the only place where software material leaves its seal.
func (s *Service) load(ctx context.Context, g grant, versionID string) (*material, error) {
	v, err := s.store.Version(ctx, g.key.ID, versionID)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, versionNotFound(g, versionID)
	} else if err != nil {
		return nil, storeError(err)
	}
	m := &material{version: v, spec: g.spec}
	if g.spec.symmetric() {
		m.calls = &callCounter{store: s.store, log: s.log, version: v.ID, worn: func() { s.schedule.wear(v.ID) }}
	} else {
		if m.public, err = softkey.ParsePublicKey(v.PublicKey); err != nil {
			return nil, &Error{Code: KeyUnavailable, Detail: "the public key of " + v.ID + " can't be read", Err: err}
		}
	}
	switch {
	case g.key.ExternalID != "":
		m.outside = &outside{g.key.Instance, g.key.ExternalID, s.keyARN(g.key)}
	case v.Sealed != nil:
		err = s.unseal(m, v)
	case v.Wrapped != nil, v.Member != "":
		m.hsm = &hsmpool.Key{ID: v.ID, Type: g.spec.hsm, Usage: hsmUsage(g.key),
			Wrapped: v.Wrapped, Member: v.Member, ObjectID: v.ObjectID}
		if v.Wrapped != nil {
			m.forget = func() { s.unload(context.Background(), v.KeyID, v.ID) }
		}
	default:
		err = Errorf(KeyUnavailable, "%s has no material", v.ID)
	}
	if err == nil && g.spec.rsaBytes > 0 {
		m.rejection, err = s.RejectionSecret(v.PublicKey)
	}
	if err != nil {
		m.leaveUnused()
		return nil, err
	}
	return m, nil
}

// leaveUnused wipes material that nobody has got.
func (m *material) leaveUnused() {
	m.users.Store(1)
	m.leave()
}

func (s *Service) unseal(m *material, v *keystore.Version) error {
	secret, err := s.store.Unseal(v)
	if err != nil {
		return storeError(err)
	}
	defer clear(secret)
	if m.spec.symmetric() {
		m.aes, err = softkey.NewAES(secret)
	} else {
		m.private, err = softkey.ParsePrivateKey(m.spec.name, secret)
	}
	if err != nil {
		return &Error{Code: KeyUnavailable, Detail: "the material of " + v.ID + " can't be read", Err: err}
	}
	return nil
}
