// Package p11rpc is the RPC protocol of p11-kit, and a dialect of it that keyward's own PKCS #11 module speaks: frames and values,
// nothing of what they mean. It is pure: octets in, values out, and back. What it decodes, it encodes to the same octets.
//
// It believes nothing: every length and count is held against the octets that are left before anything is allocated, templates nest to a
// depth of MaxDepth, and decoding a frame allocates at most a fixed multiple of its size.
package p11rpc

import "github.com/keyward/keyward/pkcs11front/ck"

// Limits.
const (
	MaxOptions    = 1024    // octets of a frame's options
	MaxBody       = 1 << 20 // octets of a frame's body
	MaxDepth      = 2       // of templates in templates
	MaxAttributes = 256     // of one template
)

// Dialect is how both ends write what the protocol's versions write differently. It follows from the octet that the client sends first
// (the offer).
type Dialect uint8

// The dialects.
const (
	Offer0  Dialect = iota // p11-kit up to 0.24.1
	Offer1                 // p11-kit 0.25.0 to 0.25.5
	Offer2                 // p11-kit 0.25.6 and later
	Keyward                // keyward's own module: see docs/pkcs11-wire.md
)

// OfferKeyward is the octet by which keyward's own module says that it speaks the dialect Keyward.
const OfferKeyward = 0xa1

// Kind is how the value of an attribute is written.
type Kind uint8

// The kinds.
const (
	Bytes    Kind = iota // octets
	Bool                 // CK_BBOOL
	Ulong                // CK_ULONG
	Date                 // CK_DATE, 8 digits, or empty
	Ulongs               // CK_MECHANISM_TYPE array
	Template             // CK_ATTRIBUTE array
)

// KindOf is the kind of an attribute: p11-kit's table, and for the dialect Keyward what PKCS #11 says.
func KindOf(d Dialect, a ck.Attribute) Kind { return kindOf(d, a) }

// Value is the value of an attribute. Which field counts, Kind says.
type Value struct {
	Kind    Kind
	Octets  []byte      // Bytes, Date: a part of the frame that it came in
	Number  uint64      // Bool (0 or 1), Ulong
	Numbers []uint64    // Ulongs
	Nested  []Attribute // Template
}

// Attribute is an element of a template.
type Attribute struct {
	Type ck.Attribute
	Value
}

// Result is an attribute in the answer of C_GetAttributeValue.
type Result struct {
	Type        ck.Attribute
	Unavailable bool  // the length is CK_UNAVAILABLE_INFORMATION, there is no value
	Value       Value // as it is, whatever room there was: the writer looks at Wanted
}

// Wanted is an attribute that a client asks for, and how much room it has in its own memory's terms: 8 for a CK_ULONG, 1 for a CK_BBOOL.
type Wanted struct {
	Type ck.Attribute
	Null bool // only the length is asked for
	Room uint32
	// Nested is what is asked for inside an attribute array.
	Nested []Wanted
}

// Room is where a result is to go: nil of the client's memory, or so many octets or elements of it. It is the client's claim:
// nothing is ever allocated by it.
type Room struct {
	Null bool
	Size uint32
}

// Mechanism is a CK_MECHANISM.
type Mechanism struct {
	Type ck.Mechanism
	Null bool // there is no mechanism at all: an Init that ends an operation
	// Param is nil, or of the type that belongs to Type: *PSS, *OAEP, IV, *CTR, *GCM, *ECDH1, MACLength.
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
	// IV is the initialisation vector of a block mode.
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
)

func kindOf(d Dialect, a ck.Attribute) Kind { return Bytes } // not yet
