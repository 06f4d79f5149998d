package p11rpc

import (
	"encoding/binary"
	"errors"

	"github.com/keyward/keyward/pkcs11front/ck"
)

// Reader reads the arguments of a request, or the results of an answer, straight down: after the first thing that is wrong it gives zeros, and
// Err says so. What it gives out are parts of the frame.
type Reader struct {
	d   Dialect
	b   []byte
	bad bool
}

// Reset begins with new octets.
func (r *Reader) Reset(d Dialect, b []byte) { *r = Reader{d: d, b: b} }

func (r *Reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
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

// Octets reads an "ay". null: the client passed a NULL pointer, which not every dialect tells from no octets.
func (r *Reader) Octets() (b []byte, null bool) {
	p, n := r.Byte(), r.u32()
	if p == 0 || n == 1<<32-1 {
		return nil, true
	}
	return r.take(uint64(n)), false
}

// Text reads a "z" or an "s".
func (r *Reader) Text() string { return string(r.take(uint64(r.u32()))) }

// Room reads an "fy" or "fu".
func (r *Reader) Room() Room {
	n := r.u32()
	if n == 1<<32-1 {
		return Room{}
	}
	return Room{Null: n == 0, Size: n}
}

// Template reads an "aA".
func (r *Reader) Template() []Attribute { // of the dialect Keyward only, for now
	var all []Attribute
	for n := r.u32(); n > 0 && !r.bad && len(all) < MaxAttributes; n-- {
		a := Attribute{Type: ck.Attribute(r.u32())}
		r.Byte()
		a.Kind = Kind(r.Byte())
		r.u32()
		switch a.Kind {
		case Bool:
			a.Number = uint64(r.Byte())
		case Ulong:
			a.Number = r.Ulong()
		default:
			a.Octets = r.take(uint64(r.u32()))
		}
		all = append(all, a)
	}
	return all
}

// Wanted reads an "fA".
func (r *Reader) Wanted() []Wanted { return nil }

// Mechanism reads an "M".
func (r *Reader) Mechanism() Mechanism { // of the dialect Keyward only, for now
	m := Mechanism{Type: ck.Mechanism(r.u32())}
	if m.Type == 1<<32-1 {
		return Mechanism{Null: true}
	}
	n := r.u32()
	if n == 1<<32-1 {
		return m
	}
	p := Reader{d: r.d, b: r.take(uint64(n))}
	octets := func() []byte {
		if n := p.u32(); n != 1<<32-1 {
			return p.take(uint64(n))
		}
		return nil
	}
	switch m.Type {
	case ck.CKM_RSA_PKCS_OAEP:
		m.Param = &OAEP{ck.Mechanism(p.Ulong()), p.Ulong(), p.Ulong(), octets()}
	case ck.CKM_AES_CBC, ck.CKM_AES_CBC_PAD:
		m.Param = IV(p.take(uint64(n)))
	case ck.CKM_AES_CTR:
		m.Param = &CTR{p.Ulong(), p.take(16)}
	case ck.CKM_AES_GCM:
		m.Param = &GCM{octets(), p.Ulong(), octets(), p.Ulong()}
	case ck.CKM_ECDH1_DERIVE, ck.CKM_ECDH1_COFACTOR_DERIVE:
		m.Param = &ECDH1{p.Ulong(), octets(), octets()}
	default:
		switch n {
		case 24:
			m.Param = &PSS{ck.Mechanism(p.Ulong()), p.Ulong(), p.Ulong()}
		case 8:
			m.Param = MACLength(p.Ulong())
		default:
			r.bad = true
		}
	}
	if p.End() != nil {
		r.bad = true
	}
	return m
}

// End says whether all was read and nothing was wrong.
func (r *Reader) End() error {
	if r.bad || len(r.b) > 0 {
		return errors.New("p11rpc: malformed arguments")
	}
	return nil
}
