// Package p11rpc is the RPC protocol of p11-kit, and a dialect of it that keyward's own PKCS #11 module speaks: frames and values,
// nothing of what they mean. It is pure: octets in, values out, and back. What it decodes, it encodes to the same octets, or, where p11-kit's
// clients have two ways to say NULL, to those of the same meaning.
//
// It believes nothing: every length and count is held against the octets that are left before anything is allocated, templates nest to a
// depth of MaxDepth, and decoding a frame allocates at most a fixed multiple of its size.
package p11rpc

// Limits.
const (
	MaxOptions    = 1024     // octets of a frame's options
	MaxBody       = 1 << 20  // octets of a frame's body
	MaxDiscarded  = 64 << 20 // of one that is too long: it is discarded, and answered with an error
	MaxDepth      = 2        // of templates: one in another
	MaxAttributes = 256      // of one template, with what it nests
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

// Room is where a result is to go: nil of the client's memory, or so many octets or elements of it. It is the client's claim:
// nothing is ever allocated by it.
type Room struct {
	Null bool
	Size uint32
}
