package hsmpool

import (
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/miekg/pkcs11"
)

// Frames between the daemon and a worker process: length of what follows (32 bits, big-endian), kind, body. In bodies numbers are
// big-endian, and octets have their length (32 bits) before them. Both ends are of one build, which frameOpen makes sure of; yet
// the library in the worker is a stranger's code, so neither end believes the other: every length is held against what is
// there before anything is allocated, and what is left over is an error.

// frameKind says what a frame is.
type frameKind uint8

// Frames to a worker.
const (
	frameOpen    frameKind = iota + 1 // log in: openFrame
	frameEnroll                       // log in and take the master keys: openFrame, enrolFrame
	framePIN                          // the PIN
	frameVerdict                      // what became of the try
	frameTasks                        // tasks, each whole
	frameCancel                       // an ID: nobody wants that task any more
	frameClose                        // close the sessions and end
)

// Frames from a worker.
const (
	frameOpened  frameKind = iota + 64 // an identity
	frameFailed                        // an error: it can't be opened
	frameNeedPIN                       // asks for framePIN
	frameRefuse                        // the token says why its PIN must not be presented; asks for frameVerdict
	frameTried                         // what C_Login gave; asks for frameVerdict
	frameAnswers                       // answers, each whole
	frameAlive                         // figures; now and then while there is work
	frameStuck                         // a call does not return
)

const (
	wireVersion = 4

	// maxFrame bounds a frame; the largest task has some 140 KiB.
	maxFrame = 1 << 20
	// fullFrame is when a frame of tasks or answers is closed and another begun.
	fullFrame = 256 << 10
	headSize  = 5

	// wireSlots is how many keys a worker is told of at a time. A task names its key by the number that it was told under.
	wireSlots = defaultCachedKeys
	noSlot    = ^uint32(0)
)

var errWire = errors.New("a frame that can't be")

// beginFrame and endFrame stand around a body. start is what beginFrame gave.
func beginFrame(b []byte, kind frameKind) (_ []byte, start int) {
	return append(b, 0, 0, 0, 0, byte(kind)), len(b)
}

func endFrame(b []byte, start int) []byte {
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

func putOctets(b, v []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
	return append(b, v...)
}

func putText(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

func putBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// cursor reads a body. After the first thing that is wrong it gives zeros, and bad stays true.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n < 0 || n > len(c.b) {
		c.bad = true
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) u8() uint8 {
	if v := c.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (c *cursor) bool() bool {
	v := c.u8()
	c.bad = c.bad || v > 1
	return v == 1
}

func (c *cursor) u32() uint32 {
	if v := c.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if v := c.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// octets gives a part of the body, nil if it is empty.
func (c *cursor) octets() []byte {
	n := c.u32()
	if uint64(n) > uint64(len(c.b)) {
		c.bad = true
	}
	if c.bad || n == 0 {
		return nil
	}
	return c.take(int(n))
}

func (c *cursor) text() string { return string(c.octets()) }

// end is to be called at the end of a body.
func (c *cursor) end() error {
	if c.bad || len(c.b) > 0 {
		return errWire
	}
	return nil
}

// openFrame is what a worker is told of its member. The environment is that of its process.
type openFrame struct {
	module      string
	label       string
	serial      string
	maxSessions int
	workers     int // of the member
	callTimeout time.Duration
}

func putOpen(b []byte, f *openFrame) []byte {
	b = append(b, wireVersion)
	b = putText(b, f.module)
	b = putText(b, f.label)
	b = putText(b, f.serial)
	b = binary.BigEndian.AppendUint32(b, uint32(f.maxSessions))
	b = binary.BigEndian.AppendUint32(b, uint32(f.workers))
	return binary.BigEndian.AppendUint64(b, uint64(f.callTimeout))
}

func (c *cursor) open() *openFrame {
	if c.u8() != wireVersion {
		c.bad = true
	}
	f := &openFrame{module: c.text(), label: c.text(), serial: c.text(), maxSessions: int(c.u32()),
		workers: int(c.u32()), callTimeout: time.Duration(c.u64())}
	c.bad = c.bad || f.maxSessions > maxSessions || f.workers > maxWorkers || f.callTimeout < 0
	return f
}

// enrolFrame is what a worker needs to give its token the master keys.
type enrolFrame struct {
	key     []byte // the recovery key
	group   string
	wrapped [2][]byte
}

func putEnrol(b []byte, f *enrolFrame) []byte {
	b = slices.Grow(b, len(f.key)+len(f.group)+len(f.wrapped[0])+len(f.wrapped[1])+16)
	b = putOctets(b, f.key)
	b = putText(b, f.group)
	b = putOctets(b, f.wrapped[0])
	return putOctets(b, f.wrapped[1])
}

func (c *cursor) enrol() *enrolFrame {
	return &enrolFrame{key: c.octets(), group: c.text(), wrapped: [2][]byte{c.octets(), c.octets()}}
}

func putIdentity(b []byte, id *identity) []byte {
	b = putText(b, id.Token)
	b = putText(b, id.Serial)
	b = putText(b, id.Group)
	b = binary.BigEndian.AppendUint32(b, uint32(id.Lanes))
	return binary.BigEndian.AppendUint32(b, uint32(id.Width))
}

func (c *cursor) identity() *identity {
	id := &identity{Token: c.text(), Serial: c.text(), Group: c.text(), Lanes: int(c.u32()), Width: int(c.u32())}
	c.bad = c.bad || id.Lanes < 1 || id.Lanes > maxSessions || id.Width < 1 || id.Width > id.Lanes
	return id
}

// What the cause of an error is: nothing, a PKCS#11 code, one of the errors that are known by identity, or words.
const (
	causeNone = iota
	causeCode
	causeKnown
	causeText
)

// knownErrors are those that somebody asks for with errors.Is, so that they must be the same at both ends.
var knownErrors = []error{errNoMasterKeys, errUnknown}

func putError(b []byte, e *Error) []byte {
	if e == nil {
		return append(b, 0)
	}
	b = append(b, 1, byte(e.Kind), byte(e.fate))
	b = putText(b, e.Detail)
	var code pkcs11.Error
	known := slices.IndexFunc(knownErrors, func(k error) bool { return errors.Is(e.Err, k) })
	switch {
	case e.Err == nil:
		return append(b, causeNone)
	case errors.As(e.Err, &code):
		return binary.BigEndian.AppendUint64(append(b, causeCode), uint64(code))
	case known >= 0:
		return append(b, causeKnown, byte(known))
	}
	return putText(append(b, causeText), e.Err.Error())
}

func (c *cursor) error() *Error {
	if !c.bool() || c.bad {
		return nil
	}
	e := &Error{Kind: Kind(c.u8()), fate: fate(c.u8()), Detail: c.text()}
	c.bad = c.bad || int(e.Kind) >= len(kindNames) || e.fate == fateNone || e.fate > fateOperator
	switch c.u8() {
	case causeNone:
	case causeCode:
		e.Err = pkcs11.Error(c.u64())
	case causeKnown:
		if i := int(c.u8()); i < len(knownErrors) {
			e.Err = knownErrors[i]
		} else {
			c.bad = true
		}
	case causeText:
		e.Err = errors.New(c.text())
	default:
		c.bad = true
	}
	return e
}

func putKey(b []byte, k *Key) []byte {
	b = putText(b, k.ID)
	b = append(b, byte(k.Type), byte(k.Usage))
	b = putOctets(b, k.Wrapped)
	b = putText(b, k.Member)
	return putOctets(b, k.ObjectID)
}

func (c *cursor) key() *Key {
	return &Key{ID: c.text(), Type: KeyType(c.u8()), Usage: Usage(c.u8()), Wrapped: c.octets(), Member: c.text(), ObjectID: c.octets()}
}

// putChoices adds what there is besides data. Numbers that are too large for it were refused before.
func putChoices(b []byte, o *choices) []byte {
	if b = putBool(b, o != nil); o == nil {
		return b
	}
	b = append(b, byte(o.hash), byte(o.mgf), byte(o.tagBits))
	b = binary.BigEndian.AppendUint16(b, uint16(o.salt))
	return putOctets(b, o.label)
}

func (c *cursor) choices() *choices {
	if !c.bool() || c.bad {
		return nil
	}
	o := &choices{hash: crypto.Hash(c.u8()), mgf: crypto.Hash(c.u8()), tagBits: int(c.u8())}
	if v := c.take(2); v != nil {
		o.salt = int(binary.BigEndian.Uint16(v))
	}
	o.label = c.octets()
	return o
}

// putTask adds a task. Its key is what the worker knows under slot, or is told now if tell is set; with noSlot it comes along and
// is not kept.
func putTask(b []byte, t *task, slot uint32, tell bool) []byte {
	b = slices.Grow(b, len(t.in)+len(t.nonce)+len(t.aad)+len(t.choices().label)+len(t.pub)+64) // the key is public
	b = binary.BigEndian.AppendUint64(b, t.id)
	b = append(b, byte(t.op))
	tell = tell && t.key != nil
	b = putBool(b, tell)
	b = binary.BigEndian.AppendUint32(b, slot)
	if tell {
		b = putKey(b, t.key)
	}
	b = putOctets(b, t.in)
	b = putOctets(b, t.nonce)
	b = putOctets(b, t.aad)
	b = putChoices(b, t.told)
	b = putOctets(b, t.pub)
	if t.from != nil {
		b = append(putKey(b, t.from), byte(t.algorithm))
	}
	return b
}

// keySlots are the keys that a worker was told of.
type keySlots [wireSlots]*Key

// task reads one task, which keeps parts of the body.
func (c *cursor) task(slots *keySlots) *task {
	t := &task{id: c.u64(), op: Op(c.u8())}
	tell, slot := c.bool(), c.u32()
	if tell {
		k := c.key()
		if c.bad {
			return t
		}
		// Its own memory: it outlives the frame.
		k.Wrapped, k.ObjectID = slices.Clone(k.Wrapped), slices.Clone(k.ObjectID)
		t.key = k
		switch {
		case slot == noSlot:
		case slot < wireSlots:
			slots[slot] = k
		default:
			c.bad = true
		}
	} else if slot != noSlot {
		if slot >= wireSlots || slots[slot] == nil {
			c.bad = true
			return t
		}
		t.key = slots[slot]
	}
	t.in, t.nonce, t.aad = c.octets(), c.octets(), c.octets()
	t.told, t.pub = c.choices(), c.octets()
	if t.op == opImport || t.op == opImportPinned {
		t.from, t.algorithm = c.key(), ImportAlgorithm(c.u8())
	}
	if e := t.check(); e != nil {
		c.bad = true
	}
	return t
}

// check holds a task that came over a socket to what the pool would send: libraries end their process for some parameters.
func (t *task) check() *Error {
	if t.op >= opGenerate && t.told != nil {
		return badInput("choices that no task of this kind has")
	}
	switch t.op {
	case opCheck:
		if t.key != nil {
			return badInput("a look with a key")
		}
		return nil
	case opSealGCM, opOpenGCM:
		if r := ops[t.op]; t.key != nil || len(t.in) < r.min || len(t.in) > r.max || len(t.nonce) != gcmNonce || len(t.aad) > maxGCMAAD {
			return badInput("a sealing that can't be")
		}
		return nil
	case opGenerate:
		if t.key == nil {
			return badInput("a task without a key")
		}
		if t.key.Usage == UseUnwrap {
			return checkTransport(t.key)
		}
		return checkNew(t.key)
	case opGeneratePinned:
		if t.key == nil {
			return badInput("a task without a key")
		}
		return checkNew(t.key)
	case opImport, opImportPinned:
		if t.key == nil || (t.key.Member != "") != (t.op == opImportPinned) {
			return badInput("an import without its key")
		}
		return checkImport(t.key, t.from, t.algorithm, t.in)
	case opDestroyPinned:
		if t.key == nil || len(t.key.ObjectID) == 0 || len(t.key.ObjectID) > maxObjectID || int(t.key.Type) >= keyTypesCount {
			return badInput("a task without an object ID")
		}
		return nil
	case opProve, opLoad:
		return checkKey(t.key)
	case opForget:
		return checkForget(t)
	}
	if e := checkKey(t.key); e != nil {
		return e
	}
	// The input is what input() made of it.
	r, ok := ops[t.op]
	if !ok {
		return badInput("operation %d is not known", t.op)
	}
	n := len(t.in) - len(r.prefix)
	if n < 0 || r.digest && n != keyTypes[t.key.Type].octets {
		return badInput("a task without its prefix, or with a digest of another length")
	}
	return t.checkInput(n)
}

func putAnswer(b []byte, t *task) []byte {
	b = binary.BigEndian.AppendUint64(b, t.id)
	b = binary.BigEndian.AppendUint32(b, uint32(t.ahead))
	b = binary.BigEndian.AppendUint64(b, uint64(t.took))
	b = putBool(b, t.begun)
	b = putBool(b, t.loaded)
	b = putError(b, t.err)
	if t.err != nil {
		return b
	}
	b = slices.Grow(b, len(t.out)+len(t.pub)+12)
	b = binary.BigEndian.AppendUint32(b, uint32(t.count))
	b = putOctets(b, t.out)
	return putOctets(b, t.pub)
}

// answer reads one answer into a task of its own, which keeps nothing of the body.
func (c *cursor) answer() *task {
	t := &task{id: c.u64(), ahead: int(c.u32()), took: time.Duration(c.u64()), begun: c.bool(), loaded: c.bool(), err: c.error()}
	c.bad = c.bad || t.took < 0 || t.ahead > maxWindow
	if t.err != nil || c.bad {
		return t
	}
	t.count = int(c.u32())
	t.out, t.pub = slices.Clone(c.octets()), slices.Clone(c.octets())
	return t
}

func putID(b []byte, id uint64) []byte { return binary.BigEndian.AppendUint64(b, id) }

// figures is what a worker tells of itself.
type figures struct {
	load
	codes map[pkcs11.Error]uint64 // since the last time
}

type load struct{ sessions, keys, width int }

func putFigures(b []byte, f *figures) []byte {
	for _, n := range []int{f.sessions, f.keys, f.width, len(f.codes)} {
		b = binary.BigEndian.AppendUint32(b, uint32(n))
	}
	for code, n := range f.codes {
		b = binary.BigEndian.AppendUint64(b, uint64(code))
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

func (c *cursor) figures() *figures {
	f := &figures{load: load{sessions: int(c.u32()), keys: int(c.u32()), width: int(c.u32())}}
	n := c.u32()
	if c.bad || n > codesMost || f.width < 1 || f.width > maxSessions {
		c.bad = true
		return f
	}
	f.codes = make(map[pkcs11.Error]uint64, n)
	for range n {
		code := pkcs11.Error(c.u64())
		f.codes[code] += c.u64()
	}
	return f
}

func putStuck(b []byte, op Op, d time.Duration) []byte {
	return binary.BigEndian.AppendUint64(append(b, byte(op)), uint64(d))
}

func (c *cursor) stuck() *Error {
	op, d := Op(c.u8()), time.Duration(c.u64())
	c.bad = c.bad || d < 0
	return stuckError(op, d)
}

func wireError(what string) *Error {
	return &Error{Kind: KindUnavailable, fate: fateModule, ending: endGarbled, Detail: fmt.Sprintf("the worker process sent %s", what)}
}
