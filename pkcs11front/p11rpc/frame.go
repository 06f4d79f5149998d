package p11rpc

import (
	"encoding/binary"
	"errors"

	"github.com/keyward/keyward/pkcs11front/ck"
)

// HeaderSize is the size of a frame's header in octets: serial, length of the options, length of the body.
const HeaderSize = 12

// Header is the beginning of a frame.
type Header struct {
	Serial        uint32 // of the request; its answer has the same. Never 0
	Options, Body int    // octets that follow
}

// ErrFrame is a header that can't be one: what follows can't be read either.
var ErrFrame = errors.New("p11rpc: no frame: its serial is 0, or it is too large")

// ParseHeader reads a header from at least HeaderSize octets.
func ParseHeader(b []byte) (Header, error) {
	serial, o, n := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	if serial == 0 || o > MaxOptions || n > MaxDiscarded {
		return Header{}, ErrFrame
	}
	return Header{serial, int(o), int(n)}, nil
}

// ParseBody reads the beginning of a body: the number of the call and the signature, both as the peer says them.
func ParseBody(b []byte) (call CallID, signature, arguments []byte, ok bool) {
	if len(b) < 8 {
		return 0, nil, nil, false
	}
	n := binary.BigEndian.Uint32(b[4:])
	if uint64(n) > uint64(len(b)-8) {
		return 0, nil, nil, false
	}
	return CallID(binary.BigEndian.Uint32(b)), b[8 : 8+n], b[8+n:], true
}

// AppendRequest begins the frame of a request, with options: the name by which a client of p11-kit knows its module. FinishFrame ends it.
func AppendRequest(b []byte, serial uint32, options string, call CallID, signature string) []byte {
	w := Writer{b: b}
	w.room(HeaderSize + len(options) + 8 + len(signature) + ulongSize)
	b = binary.BigEndian.AppendUint32(w.b, serial)
	b = binary.BigEndian.AppendUint32(b, uint32(len(options)))
	b = append(b, 0, 0, 0, 0)
	b = append(b, options...)
	b = binary.BigEndian.AppendUint32(b, uint32(call))
	b = binary.BigEndian.AppendUint32(b, uint32(len(signature)))
	return append(b, signature...)
}

// AppendAnswer begins the frame of an answer. FinishFrame ends it.
func AppendAnswer(b []byte, serial uint32, call CallID, signature string) []byte {
	return AppendRequest(b, serial, "", call, signature)
}

// AppendError begins the frame of an answer that is an error.
func AppendError(b []byte, serial uint32, rv ck.RV) []byte {
	return binary.BigEndian.AppendUint64(AppendAnswer(b, serial, ErrorReply, "u"), uint64(rv))
}

// FinishFrame sets the length of a frame that was begun.
func FinishFrame(frame []byte) {
	options := int(binary.BigEndian.Uint32(frame[4:]))
	binary.BigEndian.PutUint32(frame[8:], uint32(len(frame)-HeaderSize-options))
}
