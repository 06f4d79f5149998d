package hsmpool

import (
	"crypto"
	"time"
)

// task is a job as a worker sees it: plain data, that goes to a process and back as well as to a goroutine. Who makes it sets
// the first group and does not change it while a worker has the task; the worker sets the second.
type task struct {
	id    uint64 // names it between the pool and one worker
	op    Op
	key   *Key
	in    []byte
	nonce []byte
	aad   []byte
	told  *choices // nil: nothing
	pub   []byte   // SubjectPublicKeyInfo: of the key to prove, or the answer of a generation

	from      *Key // an import's transport key
	algorithm ImportAlgorithm

	out   []byte
	count int  // of destroyed objects
	begun bool // a token object may exist
	err   *Error

	// What the worker saw: how many others were before the task when it came, how long it ran, and whether it had to load the key.
	ahead  int
	took   time.Duration
	loaded bool

	lane *execLane // that runs it; nil: nobody looks how long it takes
}

// waits runs f, in which the task waits for others of its worker. That is not a call that does not return: theirs may be. t may be
// nil.
func (t *task) waits(f func()) {
	if t == nil || t.lane == nil {
		f()
		return
	}
	t.lane.began.Store(0)
	f()
	t.lane.began.Store(sinceEpoch())
}

// repeatable says whether the task may be run again after it failed half-way. Making a token object may not once it has begun:
// the first try may have left one, which the caller finds by its object ID. Destroying looks again each time.
func (t *task) repeatable() bool {
	return t.op != opGeneratePinned && t.op != opImportPinned || !t.begun
}

// slow says whether the task may take seconds and so goes a way of its own.
func (t *task) slow() bool {
	switch t.op {
	case opGenerate, opProve, opGeneratePinned, opDestroyPinned, opImport, opImportPinned:
		return true
	}
	return false
}

// taskClass numbers what tasks of one kind are likely to take alike, and what modules can do or can't.
type taskClass uint16

// hashVariants is how many classes an operation has for what it may be told: each hash with MGF1 of the same, and all the rest.
const (
	keyTypesCount = int(Secp256k1) + 1
	hashVariants  = len(hashes) + 1
	opNumbers     = opsOfJobs + int(opForget) - int(opGenerate) + 1
	taskClasses   = (opNumbers + 2*hashVariants) * keyTypesCount
)

func (t *task) class() taskClass {
	op := int(t.op)
	switch {
	case t.op >= opGenerate:
		op -= int(opGenerate) - opsOfJobs
	case t.op == SignPSS:
		op = opNumbers + t.hashVariant()
	case t.op == DecryptOAEP:
		op = opNumbers + hashVariants + t.hashVariant()
	}
	if t.key == nil {
		return taskClass(op * keyTypesCount)
	}
	return taskClass(op*keyTypesCount + int(t.key.Type))
}

func (t *task) hashVariant() int {
	c := t.choices()
	if i := hashPlace(c.hash); i >= 0 && c.mgf == c.hash && len(c.label) == 0 {
		return i
	}
	return len(hashes)
}

// oaep gives the hashes of an operation that is OAEP.
func (t *task) oaep() (hash, mgf crypto.Hash) {
	if h := ops[t.op].hash; h != 0 {
		return h, h
	}
	c := t.choices()
	return c.hash, c.mgf
}

// toldNothing is not changed.
var toldNothing choices

// choices gives what the task is told besides data.
func (t *task) choices() *choices {
	if t.told == nil {
		return &toldNothing
	}
	return t.told
}

// tag is the size of the tag of AES-GCM, in octets.
func (t *task) tag() int {
	if t.told == nil || t.told.tagBits == 0 {
		return gcmTag
	}
	return t.told.tagBits / 8
}
