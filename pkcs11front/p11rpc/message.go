package p11rpc

import "encoding/binary"

// GCMMessage is CK_GCM_MESSAGE_PARAMS, the parameter of one message (PKCS #11 3.0, C_EncryptMessage and its kin), as the dialect Keyward has it
// in an "ay": see docs/pkcs11-wire.md. p11-kit's clients send the structure as it is in their memory, with pointers, which is of no use.
type GCMMessage struct {
	IV        []byte
	FixedBits uint64
	Generator uint64
	Tag       []byte
	TagBits   uint64
}

// ParseGCMMessage reads one that is all of b; false if it is none.
func ParseGCMMessage(b []byte) (m GCMMessage, ok bool) {
	r := Reader{d: Keyward, b: b}
	m = GCMMessage{IV: r.bytes(), FixedBits: r.Ulong(), Generator: r.Ulong(), Tag: r.bytes(), TagBits: r.Ulong()}
	if r.End() != nil {
		return GCMMessage{}, false
	}
	return m, true
}

// Parameter writes the parameter of a message as an "ay": into a request, or back into an answer.
func (w *Writer) Parameter(m *GCMMessage) {
	w.Byte(1)
	at := len(w.b)
	w.u32(0)
	w.bytes(m.IV)
	w.Ulong(m.FixedBits)
	w.Ulong(m.Generator)
	w.bytes(m.Tag)
	w.Ulong(m.TagBits)
	w.setLength(at)
}

// setLength sets the length, written at at, to that of what follows it.
func (w *Writer) setLength(at int) {
	binary.BigEndian.PutUint32(w.b[at:], uint32(len(w.b)-at-4))
}
