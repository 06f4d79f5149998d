package pkcs11front

import (
	"crypto"
	"hash"
	"sync"

	"github.com/keyward/keyward/pkcs11front/ck"
)

// hashPool keeps the states of one hash between operations, reset.
type hashPool struct {
	hash crypto.Hash
	pool sync.Pool
}

func (p *hashPool) get() hash.Hash {
	if h, ok := p.pool.Get().(hash.Hash); ok {
		return h
	}
	return p.hash.New()
}

// put takes a state back. It does not outlive what it has seen.
func (p *hashPool) put(h hash.Hash) {
	h.Reset()
	p.pool.Put(h)
}

// hashPools has a pool for each hash of the table.
var hashPools = func() map[crypto.Hash]*hashPool {
	pools := map[crypto.Hash]*hashPool{}
	for i := range mechanismTable {
		if h := mechanismTable[i].hash; h != 0 && pools[h] == nil {
			pools[h] = &hashPool{hash: h}
		}
	}
	return pools
}()

// digestInit is C_DigestInit.
func (q *request) digestInit() ck.RV {
	m := q.in.Mechanism()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	ops := q.session.operations()
	ops.repeatable = callKey{}
	if m.Null {
		ops.finish(digesting)
		return q.initialized(0)
	}
	if ops.active[digesting] != nil {
		return ck.CKR_OPERATION_ACTIVE
	}
	row := mechanismRows[m.Type]
	if row == nil || row.does != familyDigest {
		return ck.CKR_MECHANISM_INVALID
	}
	if m.Param != nil {
		return ck.CKR_MECHANISM_PARAM_INVALID
	}
	pool := hashPools[row.hash]
	ops.active[digesting] = &operation{app: q.app, kind: digesting, begun: q.begunOf(), row: row, size: row.hash.Size(), hash: pool.get(), pool: pool}
	return q.initialized(row.hash.Size())
}

// digest is C_Digest.
func (q *request) digest() ck.RV {
	in, _ := q.in.Octets()
	return q.digestLast(oneShot, in)
}

// digestUpdate is C_DigestUpdate.
func (q *request) digestUpdate() ck.RV {
	in, _ := q.in.Octets()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	op, rv := q.operation(digesting)
	if rv != ck.CKR_OK {
		return rv
	}
	op.parts = true
	op.hash.Write(in)
	return ck.CKR_OK
}

// digestKey is C_DigestKey. A digest of a secret is not the secret, but with a short one it is as good: only keys whose value can be read anyway are taken.
func (q *request) digestKey() ck.RV {
	h := handle(q.in.Ulong())
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	op, rv := q.operation(digesting)
	if rv != ck.CKR_OK {
		return rv
	}
	k, rv := q.key(h)
	if rv != ck.CKR_OK {
		return q.done(op, rv)
	}
	secret := secretOf(k)
	if secret == nil || !readable(k) {
		return q.done(op, ck.CKR_KEY_INDIGESTIBLE)
	}
	octets, err := secret.Marshal()
	if err != nil {
		return q.done(op, keyError(err))
	}
	op.parts = true
	op.hash.Write(octets)
	clear(octets)
	return ck.CKR_OK
}

// digestFinal is C_DigestFinal.
func (q *request) digestFinal() ck.RV { return q.digestLast(final, nil) }

func (q *request) digestLast(call callName, in []byte) ck.RV {
	room := q.in.Room()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	op, rv := q.operation(digesting)
	if rv != ck.CKR_OK {
		return rv
	}
	if call == oneShot && op.parts {
		return q.done(op, ck.CKR_OPERATION_ACTIVE)
	}
	if !fits(room, op.size) {
		q.out.Needed(op.size)
		return ck.CKR_OK
	}
	op.hash.Write(in)
	var sum [64]byte
	q.out.Result(room, op.hash.Sum(sum[:0]))
	return q.done(op, ck.CKR_OK)
}
