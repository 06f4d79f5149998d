package hsmpool

import (
	"context"
	"encoding/hex"
)

// Generate makes a key that is wrapped: a session object on one member, wrapped, loaded on another member if there is
// one, and used there. Nothing of it stays in an HSM but cached session objects, so a crash leaves nothing behind.
func (p *Pool) Generate(ctx context.Context, t KeyType, u Usage) (*Generated, error) {
	key := &Key{ID: newName("generate"), Type: t, Usage: u}
	if e := checkNew(key); e != nil {
		return nil, e
	}
	maker, e := p.anyUp(-1)
	if e != nil {
		return nil, e
	}
	made := task{op: opGenerate, key: key}
	if e := p.do(ctx, &made, maker); e != nil {
		return nil, e
	}
	wrapped := &Key{ID: newName("prove"), Type: t, Usage: u, Wrapped: made.out}
	proof := task{op: opProve, key: wrapped, pub: made.pub}
	if keyTypes[t].class == classAES {
		// What the maker encrypts the other must decrypt.
		if e := p.do(ctx, &proof, made.member); e != nil {
			return nil, e
		}
	}
	for tries := 1; ; tries++ {
		prover, e := p.anyUp(made.member)
		if e != nil {
			return nil, e
		}
		again := task{op: opProve, key: wrapped, pub: made.pub, tried: 1 << made.member}
		if len(proof.out) > 0 {
			again.nonce, again.in = proof.out[:gcmNonce], proof.out[gcmNonce:]
		}
		// The maker may stand in for a member that went down, and never for one that can't use the key.
		e = p.do(ctx, &again, prover)
		switch {
		case e == nil:
			return &Generated{Wrapped: made.out, PublicKey: made.pub}, nil
		case e.Kind != KindUnavailable || e.fate == fateData || tries == maxAttempts:
			return nil, e
		}
	}
}

// GeneratePinned makes a token object that can never be extracted, with objectID as CKA_ID, on member; an empty member
// lets the pool choose, but the caller should choose and note it first (see PinTarget), or a crash leaves an orphan that
// nobody can name. It refuses an objectID that is taken. It is never repeated by itself: after KindUnavailable the object
// may or may not be there, and DestroyPinned makes sure.
func (p *Pool) GeneratePinned(ctx context.Context, t KeyType, u Usage, objectID []byte, member string) (*Generated, error) {
	if member == "" {
		var err error
		if member, err = p.PinTarget(); err != nil {
			return nil, err
		}
	}
	key := &Key{ID: "pinned", Type: t, Usage: u, Member: member, ObjectID: objectID}
	if e := checkNew(key); e != nil {
		return nil, e
	}
	if len(objectID) == 0 || len(objectID) > maxObjectID {
		return nil, badInput("an object ID has 1 to %d octets, not %d", maxObjectID, len(objectID))
	}
	i, e := p.memberNamed(member)
	if e != nil {
		return nil, e
	}
	made := task{op: opGeneratePinned, key: key}
	if e := p.do(ctx, &made, i); e != nil {
		return nil, e
	}
	return &Generated{Member: member, ObjectID: objectID, PublicKey: made.pub}, nil
}

// PinTarget names the member that a pinned key should be made on.
func (p *Pool) PinTarget() (string, error) {
	i, e := p.anyUp(-1)
	if e != nil {
		return "", e
	}
	return p.members[i].cfg.Name, nil
}

// DestroyPinned destroys every object with that CKA_ID on member and looks again with a new session. That there are none
// is no error. It returns how many were destroyed.
func (p *Pool) DestroyPinned(ctx context.Context, member string, objectID []byte) (int, error) {
	if len(objectID) == 0 || len(objectID) > maxObjectID {
		return 0, badInput("an object ID has 1 to %d octets, not %d", maxObjectID, len(objectID))
	}
	i, e := p.memberNamed(member)
	if e != nil {
		return 0, e
	}
	t := task{op: opDestroyPinned, key: &Key{Member: member, ObjectID: objectID}}
	if e := p.do(ctx, &t, i); e != nil {
		return 0, e
	}
	return t.count, nil
}

// checkNew checks what a new key is to be.
func checkNew(k *Key) *Error {
	t, ok := keyTypes[k.Type]
	if !ok {
		return badInput("key type %d is not known", k.Type)
	}
	if k.Usage == 0 || k.Usage&^t.usages != 0 {
		return badInput("a key of type %s can't have usage %#x", t.name, uint8(k.Usage))
	}
	return nil
}

// anyUp gives a member that is up, in turn, and not that one if there is another.
func (p *Pool) anyUp(not int) (int, *Error) {
	p.mu.Lock()
	found := -1
	for range p.members {
		p.turn = (p.turn + 1) % len(p.members)
		if !p.members[p.turn].state {
			continue
		}
		found = p.turn
		if found != not {
			break
		}
	}
	p.mu.Unlock()
	if found < 0 {
		return 0, p.explain(errorf(KindUnavailable, fateDown, "no member is up"), -1)
	}
	return found, nil
}

// newName makes a name for a key that only lives for a moment.
func newName(what string) string {
	b := make([]byte, 16)
	random(b)
	return what + "-" + hex.EncodeToString(b)
}
