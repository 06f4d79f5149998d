package p11rpc

import (
	"encoding/binary"
	"errors"
)

// null stands in place of a length for a NULL pointer; in place of a room, in some dialects, for one that is not NULL and of no octets.
const null = 1<<32 - 1

var errMalformed = errors.New("p11rpc: malformed arguments")

// Reader reads the arguments of a request, or the results of an answer, straight down: after the first thing that is wrong it gives zeros, and
// End says so. What it gives out are parts of the frame.
type Reader struct {
	d   Dialect
	b   []byte // what is left
	bad bool
	// lost: there was a mechanism whose parameter can't be read, so that nobody knows where what follows begins. It reads as zeros.
	lost bool
}

// Reset begins to read the arguments b of a frame, whose signature the caller has compared with the table's.
func (r *Reader) Reset(d Dialect, b []byte) { *r = Reader{d: d, b: b} }

// End says whether all was read and nothing was wrong.
func (r *Reader) End() error {
	if r.bad || len(r.b) > 0 && !r.lost {
		return errMalformed
	}
	return nil
}

func (r *Reader) fail() { r.bad, r.b = true, nil }

// take gives the next n octets; nil if there are not so many.
func (r *Reader) take(n uint64) []byte {
	if r.bad || r.lost || n > uint64(len(r.b)) {
		if !r.lost {
			r.fail()
		}
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *Reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// bytes reads a length and so many octets; nil for NULL.
func (r *Reader) bytes() []byte {
	n := r.u32()
	if n == null {
		return nil
	}
	return r.take(uint64(n))
}

// Byte reads a "y".
func (r *Reader) Byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// Ulong reads a "u".
func (r *Reader) Ulong() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Version reads a "v".
func (r *Reader) Version() (major, minor byte) { return r.Byte(), r.Byte() }

// Octets reads an "ay" of a request. isNull: the client passed a NULL pointer.
//
// p11-kit's clients say that in two ways, up to 0.24.1 with presence 0. One that offers 0 may be a later one that tried again with less.
func (r *Reader) Octets() (b []byte, isNull bool) {
	switch r.Byte() {
	case 1:
		b = r.bytes()
	case 0:
		if r.u32() != 0 || r.d == Keyward {
			r.fail()
		}
	default:
		r.fail()
	}
	return b, b == nil
}

// Text reads a "z" or an "s".
func (r *Reader) Text() string { return string(r.take(uint64(r.u32()))) }

// Room reads an "fy" or "fu".
func (r *Reader) Room() Room {
	n := r.u32()
	if n == null && r.d != Offer0 { // up to 0.24.1 it is a size like others
		return Room{}
	}
	return Room{Null: n == 0, Size: n}
}

// Result reads an "ay" of an answer. If only a size came, b is nil and needed the size.
func (r *Reader) Result() (b []byte, needed int) {
	switch r.Byte() {
	case 1:
		if b = r.bytes(); b == nil {
			r.fail()
		}
		return b, len(b)
	case 0:
		return nil, int(r.u32())
	}
	r.fail()
	return nil, 0
}

// Ulongs reads an "au" of an answer. If only a count came, list is nil and needed the count.
func (r *Reader) Ulongs() (list []uint64, needed int) {
	switch r.Byte() {
	case 1:
		list = r.numbers()
		return list, len(list)
	case 0:
		return nil, int(r.u32())
	}
	r.fail()
	return nil, 0
}

// numbers reads a count and so many numbers; never nil, but after a failure.
func (r *Reader) numbers() []uint64 {
	n := uint64(r.u32())
	if r.bad || r.lost || n > uint64(len(r.b))/8 {
		if !r.lost {
			r.fail()
		}
		return nil
	}
	list := make([]uint64, n)
	for i := range list {
		list[i] = r.Ulong()
	}
	return list
}
