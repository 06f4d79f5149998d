package p11rpc

import (
	"encoding/binary"
	"errors"

	"github.com/keyward/keyward/pkcs11front/ck"
)

// HeaderSize is the size of a frame's header in octets.
const HeaderSize = 12

// Header is the beginning of a frame.
type Header struct {
	Serial        uint32 // of the request; its answer has the same
	Options, Body int    // octets that follow
}

// ErrFrame is a header that can't be one: what follows can't be read either.
var ErrFrame = errors.New("p11rpc: a frame is too large")

// ParseHeader reads a header from at least HeaderSize octets.
func ParseHeader(b []byte) (Header, error) {
	o, n := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	if o > MaxOptions || n > MaxBody {
		return Header{}, ErrFrame
	}
	return Header{binary.BigEndian.Uint32(b), int(o), int(n)}, nil
}

// DialectOf gives the dialect that follows from an offer, and the answer to it.
func DialectOf(offer byte) (d Dialect, answer byte, ok bool) {
	switch {
	case offer == OfferKeyward:
		return Keyward, OfferKeyward, true
	case offer <= 2:
		return Dialect(offer), offer, true
	case offer <= 0x7f:
		return Offer2, 2, true
	}
	return 0, 0, false
}

// ParseBody reads the beginning of a body.
func ParseBody(b []byte) (call CallID, signature, arguments []byte, ok bool) {
	if len(b) < 8 {
		return 0, nil, nil, false
	}
	n := binary.BigEndian.Uint32(b[4:])
	if int64(n) > int64(len(b)-8) {
		return 0, nil, nil, false
	}
	return CallID(binary.BigEndian.Uint32(b)), b[8 : 8+n], b[8+n:], true
}

// Response is the signature of a call's answer in a dialect.
func Response(d Dialect, c Call) string {
	if d == Keyward {
		switch c.Name {
		case "C_Initialize", "C_SignInit", "C_DigestInit", "C_EncryptInit", "C_DecryptInit":
			return "u"
		case "C_EncryptMessage", "C_EncryptMessageBegin":
			return "ayay"
		}
	}
	return c.Response
}

// AppendAnswer begins the frame of an answer. FinishFrame ends it.
func AppendAnswer(b []byte, serial uint32, call CallID, signature string) []byte {
	b = binary.BigEndian.AppendUint32(b, serial)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(call))
	b = binary.BigEndian.AppendUint32(b, uint32(len(signature)))
	return append(b, signature...)
}

// AppendError begins the frame of an answer that is an error.
func AppendError(b []byte, serial uint32, rv ck.RV) []byte {
	return binary.BigEndian.AppendUint64(AppendAnswer(b, serial, ErrorReply, "u"), uint64(rv))
}

// FinishFrame sets the length of a frame that was begun.
func FinishFrame(frame []byte) {
	binary.BigEndian.PutUint32(frame[8:], uint32(len(frame)-HeaderSize))
}
