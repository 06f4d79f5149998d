package p11rpc

import "encoding/binary"

// Writer writes the body of a request or an answer.
type Writer struct {
	d Dialect
	b []byte
}

// Reset begins after the octets of b.
func (w *Writer) Reset(d Dialect, b []byte) { w.d, w.b = d, b }

// Bytes gives what was written, with what was there before.
func (w *Writer) Bytes() []byte { return w.b }

// Byte writes a "y".
func (w *Writer) Byte(b byte) { w.b = append(w.b, b) }

// Ulong writes a "u".
func (w *Writer) Ulong(n uint64) { w.b = binary.BigEndian.AppendUint64(w.b, n) }

// Version writes a "v".
func (w *Writer) Version(major, minor byte) { w.b = append(w.b, major, minor) }

func (w *Writer) u32(n int) { w.b = binary.BigEndian.AppendUint32(w.b, uint32(n)) }

// Padded writes an "s": text, padded with blanks or cut to width octets at a character's end.
func (w *Writer) Padded(text string, width int) {
	w.u32(width)
	for i := range width {
		if i < len(text) {
			w.b = append(w.b, text[i])
		} else {
			w.b = append(w.b, ' ')
		}
	}
}

// Result writes an "ay" for the room that the client has: the octets if they fit, else how many there are. It says whether they did:
// an operation whose result did not fit goes on.
func (w *Writer) Result(room Room, b []byte) (fits bool) {
	if len(b) > 0 && (room.Null || uint64(room.Size) < uint64(len(b))) {
		w.Needed(len(b))
		return false
	}
	w.Byte(1)
	w.u32(len(b))
	w.b = append(w.b, b...)
	return true
}

// Needed writes an "ay" that says how many octets there would be.
func (w *Writer) Needed(n int) { w.Byte(0); w.u32(n) }

// Ulongs writes an "au" for the room that the client has.
func (w *Writer) Ulongs(room Room, n []uint64) (fits bool) {
	if len(n) > 0 && (room.Null || uint64(room.Size) < uint64(len(n))) {
		w.Needed(len(n))
		return false
	}
	w.Byte(1)
	w.u32(len(n))
	for _, v := range n {
		w.Ulong(v)
	}
	return true
}

// Results writes the "aA" of C_GetAttributeValue, which answers wanted one by one, and gives the return value that goes with it.
func (w *Writer) Results(wanted []Wanted, results []Result) {}
