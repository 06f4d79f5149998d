package p11rpc

import "github.com/keyward/keyward/pkcs11front/ck"

// Mechanism is a CK_MECHANISM.
type Mechanism struct {
	Type ck.Mechanism
	Null bool // there is no mechanism at all: an Init that ends an operation
	// Param is nil, or of the type that belongs to Type: *PSS, *OAEP, IV, *CTR, *GCM, *ECDH1, MACLength. Unread if there is one and it is not
	// known what it is.
	Param any
}

// The parameters.
type (
	// PSS is CK_RSA_PKCS_PSS_PARAMS.
	PSS struct {
		Hash ck.Mechanism
		MGF  uint64
		Salt uint64
	}
	// OAEP is CK_RSA_PKCS_OAEP_PARAMS.
	OAEP struct {
		Hash   ck.Mechanism
		MGF    uint64
		Source uint64
		Label  []byte
	}
	// IV is the initialisation vector of a block mode, or the value that a key wrap begins with.
	IV []byte
	// CTR is CK_AES_CTR_PARAMS.
	CTR struct {
		Bits    uint64
		Counter []byte // 16 octets
	}
	// GCM is CK_GCM_PARAMS.
	GCM struct {
		IV      []byte
		IVBits  uint64
		AAD     []byte
		TagBits uint64
	}
	// ECDH1 is CK_ECDH1_DERIVE_PARAMS.
	ECDH1 struct {
		KDF    uint64
		Shared []byte
		Public []byte
	}
	// MACLength is CK_MAC_GENERAL_PARAMS, in octets.
	MACLength uint64
	// Unread stands for a parameter of a mechanism of which it is not known what parameter it has.
	Unread struct{}
)

// parameter is what a mechanism has as its parameter.
type parameter uint8

const (
	unknown parameter = iota
	none
	pss
	oaep
	iv
	ctr
	gcm
	ecdh1
	macLength
	octets // the public value of Diffie-Hellman
)

// parameters are the mechanisms of p11-kit's tables up to 0.26.4 (reference p11kit-rpc.md, section 6), and those beyond them that keyward's own
// module sends.
var parameters = func() map[ck.Mechanism]parameter {
	all := map[ck.Mechanism]parameter{}
	for p, types := range map[parameter][]ck.Mechanism{
		none: {
			0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0xa, 0xb, 0xc, 0x10, 0x11, 0x12, 0x20, 0x30, 0x40, 0x41, 0x42, 0x46,
			0x48, 0x49, 0x4b, 0x4c, 0x4d, 0x4f, 0x50, 0x51, 0x53,
			0x100, 0x101, 0x103, 0x110, 0x111, 0x120, 0x121, 0x123, 0x130, 0x131, 0x132, 0x134, 0x138, 0x140, 0x141, 0x143,
			0x200, 0x201, 0x210, 0x211, 0x220, 0x221, 0x230, 0x231, 0x240, 0x241, 0x250, 0x251, 0x255, 0x256, 0x260, 0x261, 0x270, 0x271,
			0x300, 0x301, 0x303, 0x310, 0x311, 0x313, 0x320, 0x321, 0x330, 0x331, 0x333, 0x340, 0x341, 0x343, 0x350, 0x370, 0x374, 0x380, 0x381,
			0x392, 0x393, 0x394, 0x395, 0x396,
			0x400, 0x1000, 0x1008, 0x1010, 0x1020, 0x1030, 0x1036, 0x1040, 0x1041, 0x1042, 0x1043, 0x1044, 0x1045, 0x1046, 0x1060, 0x1065,
			0x1070, 0x1080, 0x1081, 0x1083, 0x108a, 0x2000, 0x2001, 0x2002,
			0x80010001, 0x80010002, 0x80010003, 0x80010004, 0x80010007, 0x8001001c, 0x8001001f, 0x80010023, 0x80010025, 0x80010026, 0x80010027, 0x80010028,
			// Of keyward's module only.
			ck.CKM_SHA3_224, ck.CKM_SHA3_256, ck.CKM_SHA3_384, ck.CKM_SHA3_512,
			ck.CKM_SHA3_224_HMAC, ck.CKM_SHA3_256_HMAC, ck.CKM_SHA3_384_HMAC, ck.CKM_SHA3_512_HMAC,
			ck.CKM_ECDSA_SHA3_224, ck.CKM_ECDSA_SHA3_256, ck.CKM_ECDSA_SHA3_384, ck.CKM_ECDSA_SHA3_512,
			ck.CKM_SHA3_224_RSA_PKCS, ck.CKM_SHA3_256_RSA_PKCS, ck.CKM_SHA3_384_RSA_PKCS, ck.CKM_SHA3_512_RSA_PKCS,
		},
		pss: {
			ck.CKM_RSA_PKCS_PSS, ck.CKM_SHA1_RSA_PKCS_PSS, ck.CKM_SHA224_RSA_PKCS_PSS, ck.CKM_SHA256_RSA_PKCS_PSS, ck.CKM_SHA384_RSA_PKCS_PSS,
			ck.CKM_SHA512_RSA_PKCS_PSS,
			ck.CKM_SHA3_224_RSA_PKCS_PSS, ck.CKM_SHA3_256_RSA_PKCS_PSS, ck.CKM_SHA3_384_RSA_PKCS_PSS, ck.CKM_SHA3_512_RSA_PKCS_PSS, // of keyward's
		},
		oaep: {ck.CKM_RSA_PKCS_OAEP},
		iv: {
			ck.CKM_AES_CBC, ck.CKM_AES_CBC_PAD, ck.CKM_AES_OFB, ck.CKM_AES_CFB64, ck.CKM_AES_CFB8, ck.CKM_AES_CFB128, ck.CKM_AES_CFB1, ck.CKM_AES_CTS,
			ck.CKM_DES_CBC, ck.CKM_DES_CBC_PAD, ck.CKM_DES3_CBC, ck.CKM_DES3_CBC_PAD, ck.CKM_DES_OFB64, ck.CKM_DES_CFB64, ck.CKM_DES_CFB8,
			ck.CKM_AES_KEY_WRAP, ck.CKM_AES_KEY_WRAP_PAD, ck.CKM_AES_KEY_WRAP_KWP, // of keyward's
		},
		ctr: {ck.CKM_AES_CTR},
		gcm: {ck.CKM_AES_GCM},
		ecdh1: {
			ck.CKM_ECDH1_DERIVE, 0x8001001b, 0x8001001e,
			ck.CKM_ECDH1_COFACTOR_DERIVE, // of keyward's
		},
		macLength: {
			ck.CKM_SHA_1_HMAC_GENERAL, ck.CKM_SHA224_HMAC_GENERAL, ck.CKM_SHA256_HMAC_GENERAL, ck.CKM_SHA384_HMAC_GENERAL, ck.CKM_SHA512_HMAC_GENERAL,
			ck.CKM_SHA512_224_HMAC_GENERAL, ck.CKM_SHA512_256_HMAC_GENERAL, ck.CKM_AES_MAC_GENERAL, ck.CKM_AES_CMAC_GENERAL, ck.CKM_DES3_MAC_GENERAL,
			ck.CKM_DES3_CMAC_GENERAL,
			ck.CKM_SHA3_224_HMAC_GENERAL, ck.CKM_SHA3_256_HMAC_GENERAL, ck.CKM_SHA3_384_HMAC_GENERAL, ck.CKM_SHA3_512_HMAC_GENERAL, // of keyward's
		},
		octets: {ck.CKM_DH_PKCS_DERIVE},
	} {
		for _, t := range types {
			all[t] = p
		}
	}
	return all
}()

// Known says whether the protocol can carry a mechanism.
func Known(m ck.Mechanism) bool { return parameters[m] != unknown }

// Mechanism reads an "M".
//
// What p11-kit's clients write follows from a table of theirs. They refuse what is not in it, so one that is not in ours comes from a later
// release. Where its parameter ends can't be told then (reference p11kit-rpc.md, section 6): Param is Unread, and what follows reads as zeros. That is
// enough to refuse the call with the right error.
func (r *Reader) Mechanism() Mechanism {
	t := r.u32()
	if t == null {
		return Mechanism{Null: true}
	}
	m := Mechanism{Type: ck.Mechanism(t)}
	p := parameters[m.Type]
	switch r.d {
	case Keyward:
		if b := r.bytes(); b != nil {
			m.Param = r.parameterOf(p, b)
		}
	case Offer2:
		m.Param = r.marked(p)
	default:
		m.Param = r.unmarked(p)
	}
	return m
}

// parameterOf reads a parameter that is all of b.
func (r *Reader) parameterOf(p parameter, b []byte) any {
	if p == unknown || p == none {
		return Unread{}
	}
	inner := Reader{d: r.d, b: b}
	param := inner.parameter(p)
	if inner.End() != nil {
		r.fail()
	}
	return param
}

// marked reads what follows the type since p11-kit 0.25.6: nothing if there is never a parameter, else an octet that says if there is one.
func (r *Reader) marked(p parameter) any {
	switch {
	case p == none:
		return nil
	case p == unknown:
		// In C_DigestInit nothing follows, and in C_SignInit and its kin a key.
		if n := len(r.b); n == 0 || n == 8 {
			return nil
		}
		r.lost = !r.bad
		return Unread{}
	}
	switch r.Byte() {
	case 0:
		return nil
	case 1:
		return r.parameter(p)
	}
	r.fail()
	return nil
}

// unmarked reads what follows the type up to p11-kit 0.25.5: the parameter, or NULL if there is never one.
func (r *Reader) unmarked(p parameter) any {
	switch {
	case p > none:
		return r.parameter(p)
	case r.u32() == null:
		return nil
	case p == none:
		r.fail()
		return nil
	}
	r.lost = !r.bad
	return Unread{}
}

// parameter reads a parameter. In the dialect Keyward a counter and an IV have no length: it is known, or that of the parameter.
func (r *Reader) parameter(p parameter) any {
	own := r.d == Keyward
	switch p {
	case pss:
		return &PSS{Hash: ck.Mechanism(r.Ulong()), MGF: r.Ulong(), Salt: r.Ulong()}
	case oaep:
		return &OAEP{Hash: ck.Mechanism(r.Ulong()), MGF: r.Ulong(), Source: r.Ulong(), Label: r.bytes()}
	case iv, octets:
		if own {
			return IV(r.take(uint64(len(r.b))))
		}
		return IV(r.bytes())
	case ctr:
		if own {
			return &CTR{Bits: r.Ulong(), Counter: r.take(16)}
		}
		return &CTR{Bits: r.Ulong(), Counter: r.bytes()}
	case gcm:
		return &GCM{IV: r.bytes(), IVBits: r.Ulong(), AAD: r.bytes(), TagBits: r.Ulong()}
	case ecdh1:
		return &ECDH1{KDF: r.Ulong(), Shared: r.bytes(), Public: r.bytes()}
	case macLength:
		return MACLength(r.Ulong())
	}
	return Unread{}
}

// Mechanism writes an "M". Its Param is not Unread.
func (w *Writer) Mechanism(m Mechanism) {
	if m.Null {
		w.u32(null)
		return
	}
	w.u32(uint32(m.Type))
	p := parameters[m.Type]
	switch {
	case w.d == Keyward && m.Param == nil:
		w.u32(null)
	case w.d == Keyward:
		at := len(w.b)
		w.u32(0)
		w.parameter(m.Param)
		w.setLength(at)
	case w.d == Offer2 && p > none && m.Param == nil:
		w.Byte(0)
	case w.d == Offer2 && p > none:
		w.Byte(1)
		w.parameter(m.Param)
	case w.d != Offer2 && p <= none:
		w.u32(null)
	case w.d != Offer2:
		w.parameter(m.Param)
	}
}

func (w *Writer) parameter(param any) {
	own := w.d == Keyward
	switch p := param.(type) {
	case *PSS:
		w.Ulong(uint64(p.Hash))
		w.Ulong(p.MGF)
		w.Ulong(p.Salt)
	case *OAEP:
		w.Ulong(uint64(p.Hash))
		w.Ulong(p.MGF)
		w.Ulong(p.Source)
		w.bytes(p.Label)
	case IV:
		if own {
			w.append(p)
		} else {
			w.bytes(p)
		}
	case *CTR:
		w.Ulong(p.Bits)
		if own {
			w.append(p.Counter)
		} else {
			w.bytes(p.Counter)
		}
	case *GCM:
		w.bytes(p.IV)
		w.Ulong(p.IVBits)
		w.bytes(p.AAD)
		w.Ulong(p.TagBits)
	case *ECDH1:
		w.Ulong(p.KDF)
		w.bytes(p.Shared)
		w.bytes(p.Public)
	case MACLength:
		w.Ulong(uint64(p))
	}
}
