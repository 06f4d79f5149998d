package pkcs11front

import (
	"bytes"
	"errors"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"github.com/keyward/keyward/pkcs11front/sessionkey"
)

// Keys that leave and come back. The rules stand against the attacks P1, P2, P3, P5 and P6 on tokens (reliability.md, section 2.2):
//
//   - Only session keys leave, and only those made extractable. Keys of the KMS never do.
//   - A key that is sensitive leaves only under a secret key that was made here and always was sensitive: never under a public key, whose private half
//     anybody may have, or under a key that the client brought along. What the client can read may leave under any key.
//   - A key with CKA_WRAP_WITH_TRUSTED never leaves: no client can make a key trusted.
//   - A key that wraps, unwraps or derives does not leave. Only a data key does: one that signs or encrypts.
//   - What comes in, by C_UnwrapKey or C_DeriveKey, is a data key too.
//
// A standard wrapping has no place for a key's attributes, so it can't bind them (P3). The last two rules do in their place: a copy of a key that comes back with
// other attributes is never one that wraps, so the two halves of a wrap/decrypt or an encrypt/unwrap can't be put together with a Trojan copy, not even in
// several steps. And what comes in is sensitive and not extractable, so no copy is weaker than its original (P4); the client may ask for something else only if it
// can read the key by which it came in, and so could do the same without us, or if it derives it: programs agree on secrets with others to use them themselves. But
// a key from which a secret one was derived gives none that can be read any more, nor does a copy of it, or the second derivation would read out the first.

// dataUsage is what a data key may do.
const dataUsage = mayEncrypt | mayDecrypt | maySign | mayVerify

// wrapKey is C_WrapKey.
func (q *request) wrapKey() ck.RV {
	m := q.in.Mechanism()
	wrapping, target := handle(q.in.Ulong()), handle(q.in.Ulong())
	room := q.in.Room()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	row := mechanismRows[m.Type]
	if m.Null || row == nil || row.flags&ck.CKF_WRAP == 0 {
		return ck.CKR_MECHANISM_INVALID
	}
	by, rv := q.key(wrapping)
	if rv != ck.CKR_OK {
		return inRole(rv, ck.CKR_WRAPPING_KEY_HANDLE_INVALID, ck.CKR_WRAPPING_KEY_TYPE_INCONSISTENT)
	}
	if rv = row.allows(by.facts(), ck.CKF_WRAP); rv != ck.CKR_OK {
		return inRole(rv, ck.CKR_WRAPPING_KEY_HANDLE_INVALID, ck.CKR_WRAPPING_KEY_TYPE_INCONSISTENT)
	}
	if tooShort(by) {
		return ck.CKR_WRAPPING_KEY_SIZE_RANGE
	}
	// A key that wraps does nothing else (P1). Its object was made so; this is where it matters.
	if by.facts().usage&^(mayWrap|mayUnwrap) != 0 || by.facts().token {
		return ck.CKR_KEY_FUNCTION_NOT_PERMITTED
	}
	k, rv := q.key(target)
	if rv != ck.CKR_OK {
		return rv
	}
	octets, rv := wrappable(k)
	if rv != ck.CKR_OK {
		return rv
	}
	defer clear(octets)
	if !readable(k) && !isSet(by, ck.CKA_ALWAYS_SENSITIVE) {
		return ck.CKR_KEY_NOT_WRAPPABLE
	}
	return q.wrapped(row, m.Param, by, k, octets, room)
}

// tooShort says of a key that it must not wrap, nor unwrap (P6).
func tooShort(k key) bool { return k.facts().keyType == ck.CKK_RSA && k.facts().bits < minRSAWrapping }

// wrappable gives the octets of a key that may leave. The caller wipes them.
func wrappable(k key) (octets []byte, rv ck.RV) {
	facts := k.facts()
	if facts.token || !facts.extractable {
		return nil, ck.CKR_KEY_UNEXTRACTABLE
	}
	// A key whose usage was narrowed to nothing may have wrapped before, and could come back as one that decrypts.
	if facts.usage&^dataUsage != 0 || facts.usage == 0 {
		return nil, ck.CKR_KEY_NOT_WRAPPABLE
	}
	if isSet(k, ck.CKA_WRAP_WITH_TRUSTED) {
		return nil, ck.CKR_KEY_NOT_WRAPPABLE
	}
	var err error
	if secret, private := secretOf(k), privateOf(k); secret != nil {
		octets, err = secret.Marshal()
	} else if private != nil {
		octets, err = private.Marshal()
	} else {
		return nil, ck.CKR_KEY_NOT_WRAPPABLE
	}
	return octets, keyError(err)
}

// isSet says whether an object has an attribute, and it is true.
func isSet(o object, a ck.Attribute) bool {
	v, rv := o.attribute(a)
	return rv == ck.CKR_OK && v.Number != 0
}

// readable says whether the value of a key is given out: it is neither sensitive nor unextractable.
func readable(k key) bool {
	v, rv := k.attribute(ck.CKA_SENSITIVE)
	return rv == ck.CKR_OK && v.Number == 0 && isSet(k, ck.CKA_EXTRACTABLE)
}

// wrapped wraps octets of a key and writes the result. Its size is known before.
func (q *request) wrapped(row *mechanismRow, param any, by, k key, octets []byte, room p11rpc.Room) ck.RV {
	n := len(octets)
	if row.does != familyKeyWrap { // RSA-OAEP
		use, rv := row.use(param, by.facts())
		if rv != ck.CKR_OK {
			return rv
		}
		op := &operation{kind: encrypting, row: row, use: use, size: (by.facts().bits + 7) / 8}
		if k.class() != ck.CKO_SECRET_KEY || n > op.longestPlaintext() {
			return ck.CKR_KEY_SIZE_RANGE
		}
		if !fits(room, op.size) {
			q.out.Needed(op.size)
			return ck.CKR_OK
		}
		blob, rv := by.encrypt(q.ctx, use, octets, false)
		if rv == ck.CKR_OK {
			q.out.Result(room, blob)
		}
		return rv
	}
	kek := secretOf(by)
	if kek == nil || !row.wrapIV(param) {
		return ck.CKR_MECHANISM_PARAM_INVALID
	}
	padded := row.mechanism != ck.CKM_AES_KEY_WRAP
	if !padded && (n%8 != 0 || n < 2*8) { // RFC 3394 §2
		return ck.CKR_KEY_SIZE_RANGE
	}
	if size := (n+7)/8*8 + 8; !fits(room, size) {
		q.out.Needed(size)
		return ck.CKR_OK
	}
	blob, err := kek.Wrap(padded, octets)
	if errors.Is(err, sessionkey.ErrSize) {
		return ck.CKR_KEY_SIZE_RANGE
	}
	if err == nil {
		q.out.Result(room, blob)
	}
	return keyError(err)
}

// wrapIV says whether a parameter of AES key wrap is none, or spells out the default (RFC 3394 §2.2.3.1; the constant half of RFC 5649 §3). With another
// value the blob's check would be the client's choice.
func (row *mechanismRow) wrapIV(param any) bool {
	if param == nil {
		return true
	}
	iv, ok := param.(p11rpc.IV)
	if row.mechanism == ck.CKM_AES_KEY_WRAP {
		return ok && string(iv) == "\xa6\xa6\xa6\xa6\xa6\xa6\xa6\xa6"
	}
	return ok && string(iv) == "\xa6\x59\x59\xa6"
}

// inRole gives the return values that C_WrapKey and C_UnwrapKey have for the key that wraps.
func inRole(rv, invalid, inconsistent ck.RV) ck.RV {
	switch rv {
	case ck.CKR_KEY_HANDLE_INVALID:
		return invalid
	case ck.CKR_KEY_TYPE_INCONSISTENT:
		return inconsistent
	}
	return rv
}

// unwrapKey is C_UnwrapKey.
func (q *request) unwrapKey() ck.RV {
	m := q.in.Mechanism()
	unwrapping := handle(q.in.Ulong())
	blob, _ := q.in.Octets()
	template := q.in.Template()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	row := mechanismRows[m.Type]
	if m.Null || row == nil || row.flags&ck.CKF_UNWRAP == 0 {
		return ck.CKR_MECHANISM_INVALID
	}
	by, rv := q.key(unwrapping)
	if rv == ck.CKR_OK {
		rv = row.allows(by.facts(), ck.CKF_UNWRAP)
	}
	if rv != ck.CKR_OK {
		return inRole(rv, ck.CKR_UNWRAPPING_KEY_HANDLE_INVALID, ck.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT)
	}
	if tooShort(by) {
		return ck.CKR_UNWRAPPING_KEY_SIZE_RANGE
	}
	if by.facts().usage&^(mayWrap|mayUnwrap) != 0 || by.facts().token {
		return ck.CKR_KEY_FUNCTION_NOT_PERMITTED
	}
	incoming, rv := readIncoming(template, readable(by))
	if rv != ck.CKR_OK {
		return rv
	}
	octets, rv := q.unwrapped(row, m.Param, by, blob, incoming)
	if rv != ck.CKR_OK {
		return rv
	}
	defer clear(octets)
	if incoming.class == ck.CKO_SECRET_KEY && incoming.length != 0 && incoming.length != uint64(len(octets)) {
		return ck.CKR_TEMPLATE_INCONSISTENT // never a part of a key (P6)
	}
	if incoming.class == ck.CKO_PRIVATE_KEY {
		octets = withoutZeros(octets)
	}
	h, rv := q.newSessionKey(octets, incoming.narrowed(template))
	if rv == ck.CKR_OK {
		q.out.Ulong(uint64(h))
	}
	return rv
}

// withoutZeros is a DER element without the zeros behind it, with which some wrap private keys to fill a block. What is not DER stays as it is.
func withoutZeros(octets []byte) []byte {
	rest := cryptobyte.String(octets)
	var element cryptobyte.String
	if !rest.ReadASN1Element(&element, asn1.SEQUENCE) || len(bytes.TrimLeft(rest, "\x00")) > 0 {
		return octets
	}
	return element
}

// unwrapped takes the wrapping off. The caller wipes the octets.
func (q *request) unwrapped(row *mechanismRow, param any, by key, blob []byte, incoming *incomingKey) ([]byte, ck.RV) {
	if row.does == familyKeyWrap {
		kek := secretOf(by)
		if kek == nil || !row.wrapIV(param) {
			return nil, ck.CKR_MECHANISM_PARAM_INVALID
		}
		octets, err := kek.Unwrap(row.mechanism != ck.CKM_AES_KEY_WRAP, blob)
		if errors.Is(err, sessionkey.ErrDecrypt) {
			return nil, ck.CKR_WRAPPED_KEY_INVALID
		}
		return octets, keyError(err)
	}
	use, rv := row.use(param, by.facts())
	if rv != ck.CKR_OK {
		return nil, rv
	}
	if incoming.class != ck.CKO_SECRET_KEY {
		return nil, ck.CKR_TEMPLATE_INCONSISTENT
	}
	if len(blob) != (by.facts().bits+7)/8 {
		return nil, ck.CKR_WRAPPED_KEY_LEN_RANGE
	}
	if row.mechanism == ck.CKM_RSA_PKCS {
		return q.unwrappedPKCS1(by, blob, incoming)
	}
	octets, rv := by.decrypt(q.ctx, use, blob, false)
	if rv == ck.CKR_ENCRYPTED_DATA_INVALID || rv == ck.CKR_ENCRYPTED_DATA_LEN_RANGE {
		rv = ck.CKR_WRAPPED_KEY_INVALID
	}
	return octets, rv
}

// unwrappedPKCS1 gives a key of the length that the template says whatever the ciphertext holds: the one in it, or a wrong one, always the same for the same
// ciphertext. Which it is shows only in what the key does (P7).
func (q *request) unwrappedPKCS1(by key, blob []byte, incoming *incomingKey) ([]byte, ck.RV) {
	private := privateOf(by)
	switch {
	case private == nil:
		return nil, ck.CKR_KEY_FUNCTION_NOT_PERMITTED
	case incoming.length == 0:
		return nil, ck.CKR_TEMPLATE_INCOMPLETE
	case incoming.length > uint64(len(blob)-pkcs1Overhead):
		return nil, ck.CKR_TEMPLATE_INCONSISTENT
	}
	octets, err := private.DecryptKey(blob, int(incoming.length))
	if errors.Is(err, sessionkey.ErrDecrypt) {
		return nil, ck.CKR_WRAPPED_KEY_INVALID // it is no number below the modulus, as anybody can see
	}
	return octets, keyError(err)
}

// incomingKey is what a template says of a key that is unwrapped or derived.
type incomingKey struct {
	class   ck.Class
	keyType ck.KeyType
	length  uint64 // CKA_VALUE_LEN; 0: not given
	// sensitive and extractable are what the key will be.
	sensitive, extractable bool
	asks                   usage // mayEncrypt for what a data key does, mayWrap for what it does not
}

// readIncoming reads a template and refuses what a key that comes in by another may never be. The caller's template only narrows what we give (P2): programs that
// ask for every usage get a data key, and those that want nothing else than to wrap or derive get none.
//
// mayRead: the key may be one that can be read or taken out.
func readIncoming(template []p11rpc.Attribute, mayRead bool) (*incomingKey, ck.RV) {
	in := &incomingKey{class: ck.CKO_SECRET_KEY, keyType: ck.KeyType(ck.Unavailable), sensitive: true}
	for i := range template {
		a := &template[i]
		yes := a.Number != 0
		switch a.Type {
		case ck.CKA_CLASS:
			in.class = ck.Class(a.Number)
		case ck.CKA_KEY_TYPE:
			in.keyType = ck.KeyType(a.Number)
		case ck.CKA_VALUE_LEN:
			in.length = a.Number
		case ck.CKA_SENSITIVE:
			in.sensitive = yes
		case ck.CKA_EXTRACTABLE:
			in.extractable = yes
		case ck.CKA_TOKEN, ck.CKA_TRUSTED:
			if yes {
				return nil, ck.CKR_TEMPLATE_INCONSISTENT
			}
		case ck.CKA_WRAP, ck.CKA_UNWRAP, ck.CKA_DERIVE:
			if yes {
				in.asks |= mayWrap
			}
		case ck.CKA_ENCRYPT, ck.CKA_DECRYPT, ck.CKA_SIGN, ck.CKA_VERIFY:
			if yes {
				in.asks |= mayEncrypt
			}
		case ck.CKA_VALUE, ck.CKA_LOCAL, ck.CKA_ALWAYS_SENSITIVE, ck.CKA_NEVER_EXTRACTABLE, ck.CKA_KEY_GEN_MECHANISM:
			return nil, ck.CKR_ATTRIBUTE_READ_ONLY
		}
	}
	switch {
	case in.open() && !mayRead, in.asks == mayWrap:
		return nil, ck.CKR_TEMPLATE_INCONSISTENT
	case in.keyType == ck.KeyType(ck.Unavailable):
		return nil, ck.CKR_TEMPLATE_INCOMPLETE
	case in.class == ck.CKO_SECRET_KEY && (in.keyType == ck.CKK_AES || in.keyType == ck.CKK_GENERIC_SECRET),
		in.class == ck.CKO_PRIVATE_KEY && (in.keyType == ck.CKK_RSA || in.keyType == ck.CKK_EC):
		return in, ck.CKR_OK
	}
	return nil, ck.CKR_TEMPLATE_INCONSISTENT
}

// open: it can be read or taken out.
func (in *incomingKey) open() bool { return !in.sensitive || in.extractable }

// narrowed is the template that the key gets: the caller's, but for what was decided here.
func (in *incomingKey) narrowed(template []p11rpc.Attribute) []p11rpc.Attribute {
	narrowed := []p11rpc.Attribute{
		{Type: ck.CKA_CLASS, Value: p11rpc.Value{Kind: p11rpc.Ulong, Number: uint64(in.class)}},
		{Type: ck.CKA_SENSITIVE, Value: p11rpc.Value{Kind: p11rpc.Bool}},
		{Type: ck.CKA_EXTRACTABLE, Value: p11rpc.Value{Kind: p11rpc.Bool}},
	}
	if in.sensitive {
		narrowed[1].Number = 1
	}
	if in.extractable {
		narrowed[2].Number = 1
	}
	for _, a := range template {
		switch a.Type {
		case ck.CKA_CLASS, ck.CKA_SENSITIVE, ck.CKA_EXTRACTABLE, ck.CKA_VALUE_LEN, ck.CKA_WRAP, ck.CKA_UNWRAP, ck.CKA_DERIVE:
		default:
			narrowed = append(narrowed, a)
		}
	}
	return narrowed
}
