package keystore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math/bits"
	"sync"
)

const (
	tagSize    = sha256.Size
	headerSize = tagSize + 8 // of a stored value: tag, then generation (big-endian), then the payload
	keySize    = 32
	padNonce   = 24 // octets; random, so 2^96 commits before a repeat is to be feared

	sealVersion = 1
	sealNonce   = 12
)

// secrets are the keys of a store, all derived from the store key.
type secrets struct {
	storeID string
	tags    keyedHash // over records
	census  keyedHash // over tags, see census
	pads    keyedHash // hides the census in the root record
	prints  keyedHash // fingerprints, see DB.Fingerprint

	mu    sync.RWMutex
	seal  []byte // material; a key per version is derived from it. Guarded by mu, nil when wiped
	wiped bool
}

// newSecrets derives the keys. The caller wipes storeKey.
func newSecrets(storeID string, storeKey []byte) (*secrets, error) {
	s := &secrets{storeID: storeID}
	for _, d := range []struct {
		purpose string
		to      func([]byte)
	}{
		{"keyward record tag v1", func(k []byte) { s.tags.key = k }},
		{"keyward record census v1", func(k []byte) { s.census.key = k }},
		{"keyward census pad v1", func(k []byte) { s.pads.key = k }},
		{"keyward fingerprint v1", func(k []byte) { s.prints.key = k }},
		{"keyward material v1", func(k []byte) { s.seal = k }},
	} {
		key, err := hkdf.Key(sha256.New, storeKey, []byte(storeID), d.purpose, keySize)
		if err != nil {
			return nil, err
		}
		d.to(key)
	}
	return s, nil
}

// wipe clears the keys. Copies inside hash states go with the garbage collector.
func (s *secrets) wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.seal)
	s.wiped = true
	s.tags.wipe()
	s.census.wipe()
	s.pads.wipe()
	s.prints.wipe()
}

// keyedHash is HMAC-SHA-256 under one key, with its states kept for use again.
type keyedHash struct {
	mu     sync.RWMutex
	key    []byte // guarded by mu
	states sync.Pool
}

func (k *keyedHash) wipe() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.key)
	k.key = nil
}

// sum hashes parts, each with its length in front, so that nothing can move from one part to the next.
func (k *keyedHash) sum(out *[tagSize]byte, parts ...[]byte) error {
	h, _ := k.states.Get().(hash.Hash)
	if h == nil {
		k.mu.RLock()
		if k.key != nil {
			h = hmac.New(sha256.New, k.key)
		}
		k.mu.RUnlock()
		if h == nil {
			return ErrClosed
		}
	}
	h.Reset()
	var size [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write(p)
	}
	h.Sum(out[:0])
	k.states.Put(h)
	return nil
}

// stored is a record as DB keeps it: a payload, the generation of the commit that wrote it, and a tag that binds both to
// the name and the store.
type stored struct {
	name       string
	revision   uint64
	tag        [tagSize]byte
	generation uint64
	payload    []byte
}

func (s *secrets) tag(name string, generation uint64, payload []byte) (tag [tagSize]byte, err error) {
	var g [8]byte
	binary.BigEndian.PutUint64(g[:], generation)
	err = s.tags.sum(&tag, []byte(s.storeID), []byte(name), g[:], payload)
	return tag, err
}

// split takes a stored value apart. The tag is not checked.
func split(r Record) (stored, error) {
	if len(r.Value) < headerSize {
		return stored{}, fmt.Errorf("%w: the record %q is cut off", ErrDamaged, r.Name)
	}
	return stored{
		name: r.Name, revision: r.Revision, tag: [tagSize]byte(r.Value),
		generation: binary.BigEndian.Uint64(r.Value[tagSize:]), payload: r.Value[headerSize:],
	}, nil
}

// check takes a stored value apart and checks its tag.
func (s *secrets) check(r Record) (stored, error) {
	st, err := split(r)
	if err != nil {
		return stored{}, err
	}
	want, err := s.tag(st.name, st.generation, st.payload)
	if err != nil {
		return stored{}, err
	}
	if !hmac.Equal(want[:], st.tag[:]) {
		return stored{}, fmt.Errorf("%w: the record %q fails its check", ErrDamaged, r.Name)
	}
	return st, nil
}

// value is the opposite of check.
func (st *stored) value() []byte {
	v := make([]byte, 0, headerSize+len(st.payload))
	v = append(v, st.tag[:]...)
	v = binary.BigEndian.AppendUint64(v, st.generation)
	return append(v, st.payload...)
}

// census is a digest of a set of records: the sum modulo 2^256 of a keyed hash of each record's name and tag. It is
// brought up to date by adding what comes and subtracting what goes, so a commit does not read the whole set. The hash
// is a second one and the sum is never stored in the clear: who sees neither cannot look for other sets with the same
// sum.
type census [4]uint64 // little-endian words

func (s *secrets) element(name string, tag [tagSize]byte) (census, error) {
	var sum [tagSize]byte
	err := s.census.sum(&sum, []byte(name), tag[:])
	return toCensus(sum[:]), err
}

func toCensus(b []byte) (c census) {
	for i := range c {
		c[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return c
}

func (c census) plus(d census) census {
	var carry uint64
	for i := range c {
		c[i], carry = bits.Add64(c[i], d[i], carry)
	}
	return c
}

func (c census) minus(d census) census {
	var borrow uint64
	for i := range c {
		c[i], borrow = bits.Sub64(c[i], d[i], borrow)
	}
	return c
}

// hide returns c under a pad that is used once. The tag of the root record keeps it from being changed.
func (s *secrets) hide(c census) (nonce, hidden []byte, err error) {
	nonce = make([]byte, padNonce)
	rand.Read(nonce) // never fails: crypto/rand ends the process instead
	hidden, err = s.pad(c, nonce)
	return nonce, hidden, err
}

func (s *secrets) pad(c census, nonce []byte) ([]byte, error) {
	var pad [tagSize]byte
	if err := s.pads.sum(&pad, nonce); err != nil {
		return nil, err
	}
	for i, word := range c {
		binary.LittleEndian.PutUint64(pad[8*i:], binary.LittleEndian.Uint64(pad[8*i:])^word)
	}
	return pad[:], nil
}

// reveal undoes hide.
func (s *secrets) reveal(nonce, hidden []byte) (census, error) {
	if len(nonce) != padNonce || len(hidden) != tagSize {
		return census{}, fmt.Errorf("%w: the census of the root record is malformed", ErrDamaged)
	}
	clear, err := s.pad(toCensus(hidden), nonce)
	if err != nil {
		return census{}, err
	}
	return toCensus(clear), nil
}

// sealing returns AES-256-GCM under the key of one purpose: a version, or a secret with a name. Nonces are random and of 96
// bits, so one purpose may be sealed 2^32 times (SP 800-38D); a version is sealed once, or a few times when the store key changes.
func (s *secrets) sealing(purpose string) (cipher.AEAD, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.wiped {
		return nil, ErrClosed
	}
	key, err := hkdf.Expand(sha256.New, s.seal, purpose, keySize)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// What purposes begin with, so that no secret can be taken for the material of a version.
const (
	forVersion = "version "
	forSecret  = "secret "
)

func (s *secrets) sealFor(kind, name string, secret []byte) ([]byte, error) {
	if name == "" {
		return nil, fmt.Errorf("keystore: a secret without a name")
	}
	aead, err := s.sealing(kind + name)
	if err != nil {
		return nil, err
	}
	sealed := make([]byte, 1+sealNonce, 1+sealNonce+len(secret)+aead.Overhead())
	sealed[0] = sealVersion
	rand.Read(sealed[1:])
	return aead.Seal(sealed, sealed[1:], secret, []byte(name)), nil
}

func (s *secrets) openFor(kind, name string, sealed []byte) ([]byte, error) {
	if len(sealed) < 1+sealNonce || sealed[0] != sealVersion {
		return nil, fmt.Errorf("%w: the secret of %q is malformed", ErrDamaged, name)
	}
	aead, err := s.sealing(kind + name)
	if err != nil {
		return nil, err
	}
	secret, err := aead.Open(nil, sealed[1:1+sealNonce], sealed[1+sealNonce:], []byte(name))
	if err != nil {
		return nil, fmt.Errorf("%w: the secret of %q fails its check", ErrDamaged, name)
	}
	return secret, nil
}

// Seal encrypts material for the version called versionID, which is bound to it.
func (db *DB) Seal(versionID string, material []byte) ([]byte, error) {
	return db.secrets.sealFor(forVersion, versionID, material)
}

// Unseal undoes Seal for v.Sealed. The caller wipes the result. ErrDamaged when it was not sealed for v in this store.
func (db *DB) Unseal(v *Version) ([]byte, error) {
	return db.secrets.openFor(forVersion, v.ID, v.Sealed)
}

// SealSecret encrypts a secret that is no material, such as that of an access key, and binds it to name.
func (db *DB) SealSecret(name string, secret []byte) ([]byte, error) {
	return db.secrets.sealFor(forSecret, name, secret)
}

// OpenSecret undoes SealSecret. The caller wipes the result. ErrDamaged when it was not sealed under that name in this store.
func (db *DB) OpenSecret(name string, sealed []byte) ([]byte, error) {
	return db.secrets.openFor(forSecret, name, sealed)
}

// Fingerprint is a keyed hash of parts, 32 octets, by which something can be known again that is not kept, such as imported
// material. Only this store can make it.
func (db *DB) Fingerprint(purpose string, parts ...[]byte) ([]byte, error) {
	var sum [tagSize]byte
	err := db.secrets.prints.sum(&sum, append([][]byte{[]byte(purpose)}, parts...)...)
	return sum[:], err
}
