package keystore

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// formatVersion is what this version reads and writes.
const formatVersion = 2

// bootstrap is the one record that is read before the store key is open. It is plain; the sealed key in it is bound to
// ID and group, and Sum tells a flipped bit from another group. It is kept twice and never changes.
type bootstrap struct {
	Format    int
	StoreID   string // 32 hex digits
	Group     string // of the Sealer
	SealedKey []byte
	Sum       []byte // SHA-256 over the rest
}

func (b *bootstrap) sum() []byte {
	h := sha256.New()
	for _, part := range [][]byte{[]byte{byte(b.Format)}, []byte(b.StoreID), []byte(b.Group), b.SealedKey} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	return h.Sum(nil)
}

// aad binds the sealed store key: purpose, store and group, each with its length in front.
func (b *bootstrap) aad() []byte {
	var aad []byte
	for _, part := range []string{"keyward store key v1", b.StoreID, b.Group} {
		aad = binary.BigEndian.AppendUint32(aad, uint32(len(part)))
		aad = append(aad, part...)
	}
	return aad
}

// Create makes the store key, seals it, and writes the first records into an empty store. A store that is not empty
// gives ErrConflict.
func Create(ctx context.Context, store Store, sealer Sealer) error {
	there, err := store.Scan(ctx, "", "", 1)
	if err != nil {
		return err
	}
	if len(there) > 0 {
		return fmt.Errorf("%w: the store is not empty", ErrConflict)
	}
	id, storeKey := make([]byte, 16), make([]byte, keySize)
	rand.Read(id)
	rand.Read(storeKey)
	defer clear(storeKey)
	boot := bootstrap{Format: formatVersion, StoreID: hex.EncodeToString(id), Group: sealer.Group()}
	if boot.SealedKey, err = sealer.Seal(ctx, storeKey, boot.aad()); err != nil {
		return fmt.Errorf("sealing the store key: %w", err)
	}
	// What cannot be opened again must not be used.
	opened, err := sealer.Open(ctx, boot.SealedKey, boot.aad())
	if err != nil {
		return fmt.Errorf("the sealed store key does not open again: %w", err)
	}
	defer clear(opened)
	if !hmac.Equal(opened, storeKey) {
		return errors.New("the sealed store key opens to another one: the HSM group's seal key is not what it should be")
	}
	boot.Sum = boot.sum()
	plain, err := encode(boot)
	if err != nil {
		return err
	}
	s, err := newSecrets(boot.StoreID, storeKey)
	if err != nil {
		return err
	}
	defer s.wipe()
	root, err := s.putRoot(rootState{})
	if err != nil {
		return err
	}
	return store.Commit(ctx, Txn{
		Checks: []Check{{Name: nameBootstrap}, {Name: nameBootstrap2}, {Name: nameRoot}},
		Puts:   []Put{{Name: nameBootstrap, Value: plain}, {Name: nameBootstrap2, Value: plain}, root},
	})
}

// readBootstrap returns the first of the two copies that is sound, and the names of those that are not, or that differ
// from it.
func readBootstrap(ctx context.Context, store Store) (boot *bootstrap, damaged []string, err error) {
	missing := 0
	for _, name := range []string{nameBootstrap, nameBootstrap2} {
		r, err := store.Get(ctx, name)
		var b bootstrap
		switch {
		case errors.Is(err, ErrNotFound):
			missing++
			damaged = append(damaged, name)
		case errors.Is(err, ErrDamaged):
			damaged = append(damaged, name)
		case err != nil:
			return nil, nil, err
		case decode(r.Value, &b) != nil || !bytes.Equal(b.Sum, b.sum()):
			damaged = append(damaged, name)
		case boot == nil:
			boot = &b
		case !bytes.Equal(b.Sum, boot.Sum):
			damaged = append(damaged, name)
		}
	}
	if boot != nil {
		return boot, damaged, nil
	}
	if missing == 2 {
		if there, err := store.Scan(ctx, "", "", 1); err == nil && len(there) == 0 {
			return nil, nil, fmt.Errorf("%w: the store is empty; it has to be created first", ErrNotFound)
		}
	}
	return nil, nil, fmt.Errorf("%w: both copies of its first record are unreadable; restore the newest backup", ErrDamaged)
}

// openSecrets opens the store key.
func openSecrets(ctx context.Context, boot *bootstrap, sealer Sealer) (*secrets, error) {
	if boot.Format != formatVersion {
		return nil, fmt.Errorf("keystore: the store has format %d; this program knows %d. Use the program that wrote it, or a newer one", boot.Format, formatVersion)
	}
	if group := sealer.Group(); boot.Group != group {
		return nil, fmt.Errorf("%w: it was sealed by group %q and the HSMs here are group %q. Connect the HSMs that the store was made with, or open the store that belongs to these", ErrForeign, boot.Group, group)
	}
	storeKey, err := sealer.Open(ctx, boot.SealedKey, boot.aad())
	if err != nil {
		return nil, fmt.Errorf("opening the store key: %w", err)
	}
	defer clear(storeKey)
	if len(storeKey) != keySize {
		return nil, fmt.Errorf("%w: the store key has %d octets, want %d", ErrDamaged, len(storeKey), keySize)
	}
	return newSecrets(boot.StoreID, storeKey)
}

// rootRecord says what the store must hold. Every commit changes it, and checks that nobody else has.
type rootRecord struct {
	Generation uint64 // number of commits
	Records    uint64 // all but the root and the bootstrap records
	Keys       uint64
	Nonce      []byte // of the pad that hides Census
	Census     []byte
}

// rootState is the root record, opened.
type rootState struct {
	generation, records, keys uint64
	census                    census
	revision                  uint64 // of the record in the Store
}

func (s *secrets) putRoot(r rootState) (Put, error) {
	nonce, hidden, err := s.hide(r.census)
	if err != nil {
		return Put{}, err
	}
	payload, err := encode(rootRecord{Generation: r.generation, Records: r.records, Keys: r.keys, Nonce: nonce, Census: hidden})
	if err != nil {
		return Put{}, err
	}
	tag, err := s.tag(nameRoot, r.generation, payload)
	if err != nil {
		return Put{}, err
	}
	st := stored{tag: tag, generation: r.generation, payload: payload}
	return Put{Name: nameRoot, Value: st.value()}, nil
}

func (s *secrets) readRoot(ctx context.Context, store Store) (rootState, error) {
	r, err := store.Get(ctx, nameRoot)
	if errors.Is(err, ErrNotFound) {
		return rootState{}, fmt.Errorf("%w: the root record is missing", ErrDamaged)
	}
	if err != nil {
		return rootState{}, err
	}
	st, err := s.check(r)
	if err != nil {
		return rootState{}, err
	}
	var root rootRecord
	if err := decode(st.payload, &root); err != nil {
		return rootState{}, fmt.Errorf("%w: the root record: %w", ErrDamaged, err)
	}
	if root.Generation != st.generation {
		return rootState{}, fmt.Errorf("%w: the root record contradicts itself", ErrDamaged)
	}
	sum, err := s.reveal(root.Nonce, root.Census)
	return rootState{generation: root.Generation, records: root.Records, keys: root.Keys, census: sum, revision: r.Revision}, err
}
