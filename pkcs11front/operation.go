package pkcs11front

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"hash"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// blockSize is that of AES, in octets.
const blockSize = 16

// Limits of what operations gather, in octets.
const (
	maxGathered            = p11rpc.MaxBody - 1024 // of one operation: the result fits into a frame
	maxGatheredHardware    = 64 << 10              // of one with a key in an HSM
	maxGatheredApplication = 16 << 20              // of all operations and searches of an application
)

// operationKind is a kind of operation of which a session has at most one.
type operationKind uint8

const (
	encrypting operationKind = iota
	decrypting
	digesting
	signing
	verifying
	messageEncrypting
	messageDecrypting
	messageSigning
	messageVerifying
	operationKinds
)

// kindRows say what goes with a kind: the flag of mechanisms that can do it and of C_SessionCancel, and the verb by which the service knows it.
var kindRows = [operationKinds]struct {
	mechanism, cancel ck.Flags
	verb              kms.Verb
}{
	encrypting:        {ck.CKF_ENCRYPT, ck.CKF_ENCRYPT, kms.Encrypt},
	decrypting:        {ck.CKF_DECRYPT, ck.CKF_DECRYPT, kms.Decrypt},
	digesting:         {ck.CKF_DIGEST, ck.CKF_DIGEST, 0},
	signing:           {ck.CKF_SIGN, ck.CKF_SIGN, kms.Sign},
	verifying:         {ck.CKF_VERIFY, ck.CKF_VERIFY, kms.Verify},
	messageEncrypting: {ck.CKF_MESSAGE_ENCRYPT, ck.CKF_MESSAGE_ENCRYPT, kms.Encrypt},
	messageDecrypting: {ck.CKF_MESSAGE_DECRYPT, ck.CKF_MESSAGE_DECRYPT, kms.Decrypt},
	messageSigning:    {ck.CKF_SIGN, ck.CKF_MESSAGE_SIGN, kms.Sign},
	messageVerifying:  {ck.CKF_VERIFY, ck.CKF_MESSAGE_VERIFY, kms.Verify},
}

// operations are what is active in a session, guarded by its mu. The zero value has none.
//
// An operation ends with its last call and with any error. It goes on after a call that only asked for a length, or gave too little room: those do not
// touch the key, or what they made is kept for the call that fetches it.
type operations struct {
	active [operationKinds]*operation

	// repeatable is the call that ended an operation with an empty result if the client gave no room: of some clients nobody can tell whether that
	// asked for the length (p11kit-rpc.md, section 5). The same call once more, as the next, succeeds again.
	repeatable callKey
}

// wipe ends all operations. The session's mu is held.
func (o *operations) wipe() {
	for kind := range operationKinds {
		o.finish(kind)
	}
	o.repeatable = callKey{}
}

// finish ends an operation, if there is one, and wipes what it holds.
func (o *operations) finish(kind operationKind) {
	if op := o.active[kind]; op != nil {
		o.active[kind] = nil
		op.wipe()
	}
}

// endKey ends the operations of a key, whose object is destroyed.
func (o *operations) endKey(h handle) {
	for kind, op := range o.active {
		if op != nil && op.key == h {
			o.finish(operationKind(kind))
		}
	}
}

// callKey says which call it was that an operation got, and with what input.
type callKey struct {
	kind  operationKind
	call  callName // 0: none
	input [sha256.Size]byte
}

// callName is one of the calls of an operation.
type callName uint8

const (
	oneShot callName = iota + 1
	update
	final
)

// operation is what a session does between an Init and the call that ends it. The key is named by its handle and found anew for each call: it may
// be gone by then, or no longer be the caller's to use.
type operation struct {
	app   *application
	kind  operationKind
	row   *mechanismRow
	key   handle
	begun []byte               // the body of the Init, which names no secret; nil for clients whose connections are not held
	use   *mechanism.Mechanism // nil: it is done here, with the key's octets
	size  int                  // octets of a signature, a MAC, a digest; of the modulus for RSA

	parts bool      // there was an Update
	hash  hash.Hash // a digest, HMAC or CMAC that is running
	pool  *hashPool // where hash goes back to, if it does
	limit int       // of data
	data  []byte    // what is gathered, or waits for a block to be full. Wiped when it grows and at the end
	held  int       // octets of data, of kept and of what came with the mechanism, as the application counts them

	// Of AES in parts.
	chain      [blockSize]byte              // the IV of the next part, or its counter
	offset     int                          // octets of the counter's block that are used already
	continued  bool                         // the key was used before
	uses       int                          // of the key
	octets     int64                        // that it was used for
	ended      func(uses int, octets int64) // tells the audit of more uses than the first; nil: nobody wants to know
	blocksLeft uint64                       // of the counter
	limited    bool                         // blocksLeft counts

	// kept is a result that had too little room, for the call keptFor. nil: none.
	kept    []byte
	keptFor callKey
}

// wipe forgets what the operation holds. It is the end of the operation.
func (op *operation) wipe() {
	if op.ended != nil && op.uses > 1 {
		op.ended(op.uses, op.octets)
	}
	op.ended = nil
	op.forget()
	clear(op.kept)
	op.kept = nil
	if op.pool != nil {
		op.pool.put(op.hash)
	}
	op.hash, op.pool = nil, nil
	op.release(op.held)
}

// forget wipes what is gathered.
func (op *operation) forget() {
	clear(op.data[:cap(op.data)])
	op.release(cap(op.data))
	op.data = nil
}

// hold counts octets that the operation is going to hold, and says whether the application may hold so many.
func (op *operation) hold(n int) ck.RV {
	if !op.app.holdMore(n) {
		return ck.CKR_HOST_MEMORY
	}
	op.held += n
	return ck.CKR_OK
}

// release undoes hold.
func (op *operation) release(n int) {
	op.app.holdLess(n)
	op.held -= n
}

// gather adds octets to data, within the limits.
func (op *operation) gather(in []byte) ck.RV {
	need := len(op.data) + len(in)
	if need > op.limit {
		return op.wrongLength()
	}
	if need > cap(op.data) {
		// Twice as much, so that many small parts don't copy again and again; not append, which leaves octets behind.
		grown := max(need, min(2*cap(op.data), op.limit))
		if rv := op.hold(grown); rv != ck.CKR_OK {
			return rv
		}
		b := make([]byte, len(op.data), grown)
		copy(b, op.data)
		op.forget()
		op.data = b
	}
	op.data = append(op.data, in...)
	return ck.CKR_OK
}

// keep keeps a result that had too little room, for the call that fetches it.
func (op *operation) keep(result []byte, call callKey) ck.RV {
	if op.kept != nil || len(result) == 0 {
		return ck.CKR_OK // it is kept already
	}
	if rv := op.hold(len(result)); rv != ck.CKR_OK {
		clear(result)
		return rv
	}
	op.kept, op.keptFor = result, call
	return ck.CKR_OK
}

// wrongLength is the error for input of a length that the operation does not take.
func (op *operation) wrongLength() ck.RV {
	if op.kind == decrypting || op.kind == messageDecrypting {
		return ck.CKR_ENCRYPTED_DATA_LEN_RANGE
	}
	return ck.CKR_DATA_LEN_RANGE
}

// arguments ends the reading of a call.
func (q *request) arguments() ck.RV {
	if q.in.End() != nil {
		return ck.CKR_ARGUMENTS_BAD
	}
	return ck.CKR_OK
}

// operation finds the active operation of a kind, for a call that is not an Init.
func (q *request) operation(kind operationKind) (*operation, ck.RV) {
	ops := q.session.operations()
	ops.repeatable = callKey{}
	if op := ops.active[kind]; op != nil {
		return op, ck.CKR_OK
	}
	return nil, ck.CKR_OPERATION_NOT_INITIALIZED
}

// begin reads and checks what each Init with a key has: mechanism and key. A nil operation with CKR_OK means that the Init was one that ends what is active
// (PKCS #11 3.0, §5.8.1), and is done. The operation is not active yet.
func (q *request) begin(kind operationKind) (op *operation, k key, param any, rv ck.RV) {
	m := q.in.Mechanism()
	h := handle(q.in.Ulong())
	if rv := q.arguments(); rv != ck.CKR_OK {
		return nil, nil, nil, rv
	}
	ops := q.session.operations()
	ops.repeatable = callKey{}
	if m.Null {
		ops.finish(kind)
		return nil, nil, nil, ck.CKR_OK
	}
	if ops.active[kind] != nil {
		return nil, nil, nil, ck.CKR_OPERATION_ACTIVE
	}
	row := mechanismRows[m.Type]
	if row == nil || row.flags&kindRows[kind].mechanism == 0 || !row.offered(q.front.cfg.RawRSA) {
		return nil, nil, nil, ck.CKR_MECHANISM_INVALID
	}
	if k, rv = q.key(h); rv != ck.CKR_OK {
		return nil, nil, nil, rv
	}
	facts := k.facts()
	if rv := q.allowed(row, k, kind); rv != ck.CKR_OK {
		return nil, nil, nil, rv
	}
	op = &operation{app: q.app, kind: kind, row: row, key: h, limit: maxGathered}
	if facts.token && facts.hardware {
		op.limit = maxGatheredHardware
	}
	return op, k, m.Param, ck.CKR_OK
}

// start asks whether the key may be used so, and makes the operation active.
func (q *request) start(op *operation, k key) ck.RV {
	if op.use != nil {
		if rv := k.may(q.ctx, kindRows[op.kind].verb, op.use); rv != ck.CKR_OK {
			op.wipe()
			return rv
		}
	}
	op.begun = q.begunOf()
	q.session.ops.active[op.kind] = op
	return ck.CKR_OK
}

// keyOf finds the operation's key again, and asks anew what it is for: C_SetAttributeValue may have narrowed that. A key that is gone took its
// operations with it.
func (q *request) keyOf(op *operation) (key, ck.RV) {
	k, rv := q.key(op.key)
	if rv == ck.CKR_KEY_HANDLE_INVALID {
		return nil, ck.CKR_OPERATION_NOT_INITIALIZED
	}
	if rv == ck.CKR_OK {
		rv = q.allowed(op.row, k, op.kind)
	}
	return k, rv
}

// allowed says whether a key is for an operation by a mechanism. Of a key of the KMS that is not, the audit is told, as of the API's refusals.
func (q *request) allowed(row *mechanismRow, k key, kind operationKind) ck.RV {
	rv := row.allows(k.facts(), kindRows[kind].mechanism)
	if rv != ck.CKR_OK {
		if k, ok := k.(*kmsKey); ok {
			k.service.UseRefused(q.ctx, q.actor(), kindRows[kind].verb, k.use(&mechanism.Mechanism{Kind: row.kind}, nil, false), fmt.Sprint(row.mechanism, ": ", rv))
		}
	}
	return rv
}

// done ends an operation after the call that may have been its last, and gives the call's return value on.
func (q *request) done(op *operation, rv ck.RV) ck.RV {
	q.session.ops.finish(op.kind)
	return rv
}

// keyFor names a call, for what is kept between two of them.
func keyFor(kind operationKind, call callName, in []byte) callKey {
	return callKey{kind, call, sha256.Sum256(in)}
}

func (k *callKey) is(other *callKey) bool {
	return k.kind == other.kind && k.call == other.call && subtle.ConstantTimeCompare(k.input[:], other.input[:]) == 1
}

// sessionCancel is C_SessionCancel (3.0, §5.6.8).
func (q *request) sessionCancel() ck.RV {
	flags := ck.Flags(q.in.Ulong())
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	ops := q.session.operations()
	ops.repeatable = callKey{}
	for kind := range operationKinds {
		if flags&kindRows[kind].cancel != 0 {
			ops.finish(kind)
		}
	}
	if flags&ck.CKF_FIND_OBJECTS != 0 {
		q.session.endSearch()
	}
	return ck.CKR_OK
}
