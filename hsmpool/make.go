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
	return p.generate(ctx, key)
}

// GenerateTransport makes an RSA2048 pair that does nothing but unwrap what Import brings in. Its private half is wrapped
// like that of a key that Generate makes.
func (p *Pool) GenerateTransport(ctx context.Context) (*Generated, error) {
	return p.generate(ctx, &Key{ID: newName("transport"), Type: RSA2048, Usage: UseUnwrap})
}

func (p *Pool) generate(ctx context.Context, key *Key) (*Generated, error) {
	made := &ticket{task: task{op: opGenerate, key: key}}
	if e := p.do(ctx, made); e != nil {
		return nil, e
	}
	if e := p.proveElsewhere(ctx, made); e != nil {
		return nil, e
	}
	return &Generated{Wrapped: made.out, PublicKey: made.pub}, nil
}

// proveElsewhere proves a wrapped key on another member than its maker, if there is one.
func (p *Pool) proveElsewhere(ctx context.Context, made *ticket) *Error {
	maker := made.to.m
	wrapped := &Key{ID: newName("prove"), Type: made.key.Type, Usage: made.key.Usage, Wrapped: made.out}
	proof := &ticket{task: task{op: opProve, key: wrapped, pub: made.pub}, prefer: maker}
	if keyTypes[wrapped.Type].class == classAES {
		// What the maker encrypts the other must decrypt.
		if e := p.do(ctx, proof); e != nil {
			return e
		}
	}
	// The maker may stand in for a member that went down, and never for one that can't use the key.
	again := &ticket{task: task{op: opProve, key: wrapped, pub: made.pub}, avoid: maker}
	if len(proof.out) > 0 {
		again.nonce, again.in = proof.out[:gcmNonce], proof.out[gcmNonce:]
	}
	return p.do(ctx, again)
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
	m, e := p.memberNamed(member)
	if e != nil {
		return nil, e
	}
	made := &ticket{task: task{op: opGeneratePinned, key: key}, only: m}
	if e := p.do(ctx, made); e != nil {
		return nil, e
	}
	return &Generated{Member: member, ObjectID: objectID, PublicKey: made.pub}, nil
}

// PinTarget names the member that a pinned key should be made on.
func (p *Pool) PinTarget() (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range p.members {
		p.turn = (p.turn + 1) % len(p.members)
		if m := p.members[p.turn]; m.takes() && m.usable() {
			return m.cfg.Name, nil
		}
	}
	return "", p.nobody(nil)
}

// DestroyPinned destroys every object with that CKA_ID on member and looks again with a new session. That there are none
// is no error. It returns how many were destroyed. Each of the member's workers does it, so that none goes on with an object that it
// has in memory.
func (p *Pool) DestroyPinned(ctx context.Context, member string, objectID []byte) (int, error) {
	if len(objectID) == 0 || len(objectID) > maxObjectID {
		return 0, badInput("an object ID has 1 to %d octets, not %d", maxObjectID, len(objectID))
	}
	m, e := p.memberNamed(member)
	if e != nil {
		return 0, e
	}
	destroy := func() *ticket {
		return &ticket{task: task{op: opDestroyPinned, key: &Key{Member: member, ObjectID: objectID}}, only: m}
	}
	first := destroy()
	if e := p.do(ctx, first); e != nil {
		return 0, e
	}
	count := first.count
	for _, w := range m.workers {
		if w == first.to {
			continue
		}
		t := destroy()
		t.wait = newWaiter(1)
		p.ask(w, t)
		select {
		case <-t.wait.done:
		case <-ctx.Done():
			return count, contextError(ctx)
		}
		// A worker that is not there has nothing in memory.
		if t.err != nil && t.err.fate != fateDown {
			return count, t.err
		}
		count += t.count
	}
	return count, nil
}

// checkNew checks what a new key is to be.
func checkNew(k *Key) *Error {
	t, ok := keyTypes[k.Type]
	if !ok {
		return badInput("key type %d is not known", k.Type)
	}
	if k.Usage == UseUnwrap || !t.may(k.Usage) {
		return badInput("a key of type %s can't have usage %#x", t.name, uint8(k.Usage))
	}
	return nil
}

// checkTransport checks what a transport key is to be.
func checkTransport(k *Key) *Error {
	if k.Usage != UseUnwrap || !keyTypes[k.Type].may(UseUnwrap) {
		return badInput("a key of type %s and usage %#x is no transport key", k.Type, uint8(k.Usage))
	}
	return nil
}

// newName makes a name for a key that only lives for a moment.
func newName(what string) string {
	b := make([]byte, 16)
	random(b)
	return what + "-" + hex.EncodeToString(b)
}
