package p11rpc

import (
	"encoding/binary"
	"unicode/utf8"
)

// Writer appends the arguments of a request, or the results of an answer, to a frame that was begun. It can be used again and again.
type Writer struct {
	d Dialect
	b []byte
}

// Reset begins after the octets of b.
func (w *Writer) Reset(d Dialect, b []byte) { w.d, w.b = d, b }

// Bytes gives what was written, with what was there before.
func (w *Writer) Bytes() []byte { return w.b }

// room makes room for n octets. What is left behind is wiped: there may be plaintexts and keys in it.
func (w *Writer) room(n int) {
	if cap(w.b)-len(w.b) >= n {
		return
	}
	grown := make([]byte, len(w.b), max(2*cap(w.b), len(w.b)+n, leastBuffer))
	copy(grown, w.b)
	clear(w.b)
	w.b = grown
}

// leastBuffer is what a buffer has at first: most answers fit.
const leastBuffer = 512

func (w *Writer) u32(n uint32) {
	w.room(4)
	w.b = binary.BigEndian.AppendUint32(w.b, n)
}

// bytes writes a length and the octets; nil is NULL.
func (w *Writer) bytes(b []byte) {
	if b == nil {
		w.u32(null)
		return
	}
	w.u32(uint32(len(b)))
	w.append(b)
}

func (w *Writer) append(b []byte) {
	w.room(len(b))
	w.b = append(w.b, b...)
}

// Byte writes a "y".
func (w *Writer) Byte(b byte) {
	w.room(1)
	w.b = append(w.b, b)
}

// Ulong writes a "u".
func (w *Writer) Ulong(n uint64) {
	w.room(8)
	w.b = binary.BigEndian.AppendUint64(w.b, n)
}

// Version writes a "v".
func (w *Writer) Version(major, minor byte) {
	w.Byte(major)
	w.Byte(minor)
}

// Padded writes an "s": text, padded with blanks or cut to width octets at a character's end.
func (w *Writer) Padded(text string, width int) {
	if len(text) > width {
		end := width
		for end > 0 && !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end]
	}
	w.u32(uint32(width))
	w.append([]byte(text))
	for range width - len(text) {
		w.Byte(' ')
	}
}

// Text writes a "z".
func (w *Writer) Text(text string) {
	w.u32(uint32(len(text)))
	w.append([]byte(text))
}

// Octets writes an "ay" of a request; nil is a NULL pointer.
func (w *Writer) Octets(b []byte) {
	if b == nil && w.d == Offer0 {
		w.Needed(0)
		return
	}
	w.Byte(1)
	w.bytes(b)
}

// Room writes an "fy" or "fu". A client that offers 0 can't tell no octets from NULL.
func (w *Writer) Room(room Room) {
	switch {
	case room.Null:
		w.u32(0)
	case room.Size == 0 && w.d != Offer0:
		w.u32(null)
	default:
		w.u32(room.Size)
	}
}

// Result writes an "ay" of an answer for the room that the client has: the octets if they fit, else how many there are. It says whether they
// did: an operation whose result did not fit goes on. No octets always fit: a client that offers 0 says the same for no octets of
// memory and for NULL, and would take a size of 0 for too little room (reference p11kit-rpc.md, section 5).
func (w *Writer) Result(room Room, b []byte) (fits bool) {
	if len(b) > 0 && (room.Null || uint64(room.Size) < uint64(len(b))) {
		w.Needed(len(b))
		return false
	}
	w.Byte(1)
	w.u32(uint32(len(b)))
	w.append(b)
	return true
}

// Needed writes an "ay" or "au" of an answer that says how many there would be.
func (w *Writer) Needed(n int) {
	w.Byte(0)
	w.u32(uint32(n))
}

// Ulongs writes an "au" of an answer for the room that the client has.
func (w *Writer) Ulongs(room Room, list []uint64) (fits bool) {
	if len(list) > 0 && (room.Null || uint64(room.Size) < uint64(len(list))) {
		w.Needed(len(list))
		return false
	}
	w.Byte(1)
	w.numbers(list)
	return true
}

func (w *Writer) numbers(list []uint64) {
	w.u32(uint32(len(list)))
	for _, n := range list {
		w.Ulong(n)
	}
}
