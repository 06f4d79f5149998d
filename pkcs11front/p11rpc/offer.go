package p11rpc

// OfferKeyward is the octet by which keyward's own module says that it speaks the dialect Keyward.
const OfferKeyward = 0xa1

// DialectOf gives the dialect that follows from an offer, the first octet that a client sends, and the answer to it. false: it is the
// offer of no client. A client of p11-kit may offer more than is known here, and is content with less; what it sends follows from what it
// offered, not from the answer (reference p11kit-rpc.md, section 2), which is why the dialect does too.
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
