package pkcs11front

import (
	"crypto/rand"

	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// Messages (PKCS #11 3.0, §5.9 to §5.15): an Init, then any number of messages, each with its own parameter, then a Final. A message that fails does not end
// the operation. Encryption is AES-GCM for keyward's own module only: p11-kit's clients send the parameter as it is in their memory, with pointers, and
// nothing comes back. A message is encrypted in one call: one in parts would give out plaintext that nobody has checked.

// messageEncryptInit is C_MessageEncryptInit.
func (q *request) messageEncryptInit() ck.RV { return q.messageCipherInit(messageEncrypting) }

// messageDecryptInit is C_MessageDecryptInit.
func (q *request) messageDecryptInit() ck.RV { return q.messageCipherInit(messageDecrypting) }

// initUse is what an Init asks about: the IVs come with the messages.
var initUse = [operationKinds]*mechanism.Mechanism{
	messageEncrypting: {Kind: mechanism.AESGCM, TagBits: 128},
	messageDecrypting: {Kind: mechanism.AESGCM, IV: make([]byte, gcmIV), TagBits: 128},
}

func (q *request) messageCipherInit(kind operationKind) ck.RV {
	if q.dialect != p11rpc.Keyward {
		return ck.CKR_FUNCTION_NOT_SUPPORTED
	}
	op, k, param, rv := q.begin(kind)
	if rv != ck.CKR_OK || op == nil {
		return rv
	}
	if param != nil {
		return ck.CKR_MECHANISM_PARAM_INVALID
	}
	op.use = initUse[kind]
	return q.start(op, k)
}

// drawnIV says whether the IV of a message is to be made here: all of it, at random. A counter would have to outlive the daemon, and a part that the caller chooses leaves
// too few octets to draw.
func drawnIV(m *p11rpc.GCMMessage) (drawn bool, rv ck.RV) {
	switch {
	case m.Generator == ck.CKG_NO_GENERATE:
		return false, ck.CKR_OK
	case (m.Generator == ck.CKG_GENERATE || m.Generator == ck.CKG_GENERATE_RANDOM) && m.FixedBits == 0 && len(m.IV) == gcmIV:
		return true, ck.CKR_OK
	}
	return false, ck.CKR_MECHANISM_PARAM_INVALID
}

// message reads what C_EncryptMessage and C_DecryptMessage have in common.
func (q *request) message(kind operationKind) (op *operation, m p11rpc.GCMMessage, aad, text []byte, room p11rpc.Room, rv ck.RV) {
	param, _ := q.in.Octets()
	aad, _ = q.in.Octets()
	text, _ = q.in.Octets()
	room = q.in.Room()
	if rv = q.arguments(); rv != ck.CKR_OK {
		return
	}
	if op, rv = q.operation(kind); rv != ck.CKR_OK {
		return
	}
	m, ok := p11rpc.ParseGCMMessage(param)
	switch {
	case !ok:
		rv = ck.CKR_ARGUMENTS_BAD
	case len(text) > op.limit:
		rv = op.wrongLength()
	}
	return
}

// encryptMessage is C_EncryptMessage.
func (q *request) encryptMessage() ck.RV {
	op, m, aad, plaintext, room, rv := q.message(messageEncrypting)
	if rv != ck.CKR_OK {
		return rv
	}
	k, rv := q.keyOf(op)
	if rv != ck.CKR_OK {
		return q.done(op, rv)
	}
	drawn, rv := drawnIV(&m)
	if rv != ck.CKR_OK || !gcmSizes(len(m.IV), len(aad), m.TagBits, k.facts()) || !drawn && k.facts().sealsOnly {
		return ck.CKR_MECHANISM_PARAM_INVALID
	}
	if n := len(plaintext); n > 0 && !fits(room, n) {
		q.out.Parameter(&m)
		q.out.Needed(n)
		return ck.CKR_OK
	}
	use := &mechanism.Mechanism{Kind: mechanism.AESGCM, IV: m.IV, AAD: aad, TagBits: int(m.TagBits)}
	_, local := k.(localKey)
	switch {
	case drawn && local:
		use.IV = make([]byte, gcmIV)
		rand.Read(use.IV) // never fails
	case drawn:
		use.IV = nil // where the key is
	}
	sealed, rv := k.encrypt(q.ctx, use, plaintext, false)
	if rv != ck.CKR_OK {
		return rv
	}
	m.IV = use.IV
	if m.IV == nil {
		m.IV, sealed = sealed[:gcmIV], sealed[gcmIV:]
	}
	n := len(plaintext)
	m.Tag = sealed[n:]
	q.out.Parameter(&m)
	q.out.Result(room, sealed[:n])
	return ck.CKR_OK
}

// decryptMessage is C_DecryptMessage.
func (q *request) decryptMessage() ck.RV {
	op, m, aad, ciphertext, room, rv := q.message(messageDecrypting)
	if rv != ck.CKR_OK {
		return rv
	}
	k, rv := q.keyOf(op)
	if rv != ck.CKR_OK {
		return q.done(op, rv)
	}
	if !gcmSizes(len(m.IV), len(aad), m.TagBits, k.facts()) || len(m.Tag) != int(m.TagBits/8) {
		return ck.CKR_MECHANISM_PARAM_INVALID
	}
	if n := len(ciphertext); n > 0 && !fits(room, n) {
		q.out.Needed(n)
		return ck.CKR_OK
	}
	sealed := append(append(make([]byte, 0, len(ciphertext)+len(m.Tag)), ciphertext...), m.Tag...)
	plaintext, rv := k.decrypt(q.ctx, &mechanism.Mechanism{Kind: mechanism.AESGCM, IV: m.IV, AAD: aad, TagBits: int(m.TagBits)}, sealed, false)
	if rv == ck.CKR_ENCRYPTED_DATA_INVALID {
		return ck.CKR_AEAD_DECRYPT_FAILED
	}
	if rv != ck.CKR_OK {
		return rv
	}
	q.out.Result(room, plaintext)
	clear(plaintext)
	return ck.CKR_OK
}

// encryptMessageBegin is C_EncryptMessageBegin.
func (q *request) encryptMessageBegin() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// encryptMessageNext is C_EncryptMessageNext.
func (q *request) encryptMessageNext() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// decryptMessageBegin is C_DecryptMessageBegin.
func (q *request) decryptMessageBegin() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// decryptMessageNext is C_DecryptMessageNext.
func (q *request) decryptMessageNext() ck.RV { return ck.CKR_FUNCTION_NOT_SUPPORTED }

// messageEncryptFinal is C_MessageEncryptFinal.
func (q *request) messageEncryptFinal() ck.RV { return q.messageFinal(messageEncrypting) }

// messageDecryptFinal is C_MessageDecryptFinal.
func (q *request) messageDecryptFinal() ck.RV { return q.messageFinal(messageDecrypting) }

// messageSignFinal is C_MessageSignFinal.
func (q *request) messageSignFinal() ck.RV { return q.messageFinal(messageSigning) }

// messageVerifyFinal is C_MessageVerifyFinal.
func (q *request) messageVerifyFinal() ck.RV { return q.messageFinal(messageVerifying) }

func (q *request) messageFinal(kind operationKind) ck.RV {
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	op, rv := q.operation(kind)
	if rv != ck.CKR_OK {
		return rv
	}
	if op.parts { // a message is not finished
		return ck.CKR_OPERATION_ACTIVE
	}
	return q.done(op, ck.CKR_OK)
}

// messageSignInit is C_MessageSignInit.
func (q *request) messageSignInit() ck.RV { return q.signingInit(messageSigning) }

// messageVerifyInit is C_MessageVerifyInit.
func (q *request) messageVerifyInit() ck.RV { return q.signingInit(messageVerifying) }

// signMessage is C_SignMessage.
func (q *request) signMessage() ck.RV { return q.messageSigned(oneShot) }

// signMessageBegin is C_SignMessageBegin.
func (q *request) signMessageBegin() ck.RV { return q.messageBegin(messageSigning) }

// signMessageNext is C_SignMessageNext.
func (q *request) signMessageNext() ck.RV { return q.messageSigned(update) }

// verifyMessage is C_VerifyMessage.
func (q *request) verifyMessage() ck.RV { return q.messageVerified(oneShot) }

// verifyMessageBegin is C_VerifyMessageBegin.
func (q *request) verifyMessageBegin() ck.RV { return q.messageBegin(messageVerifying) }

// verifyMessageNext is C_VerifyMessageNext.
func (q *request) verifyMessageNext() ck.RV { return q.messageVerified(update) }

func (q *request) messageBegin(kind operationKind) ck.RV {
	param, _ := q.in.Octets()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	op, rv := q.operation(kind)
	switch {
	case rv != ck.CKR_OK:
		return rv
	case op.parts:
		return ck.CKR_OPERATION_ACTIVE
	case len(param) > 0: // no mechanism that signs has one by message
		return ck.CKR_MECHANISM_PARAM_INVALID
	}
	op.parts = true
	return ck.CKR_OK
}

// messageTurn checks that a call about a message comes in turn: one for all of it, or a part of one that was begun.
func (op *operation) messageTurn(call callName, param []byte) ck.RV {
	switch {
	case len(param) > 0:
		return ck.CKR_MECHANISM_PARAM_INVALID
	case call == oneShot && op.parts:
		return ck.CKR_OPERATION_ACTIVE
	case call == update && !op.parts:
		return ck.CKR_OPERATION_NOT_INITIALIZED
	}
	return ck.CKR_OK
}

// nextMessage readies the operation for another message.
func (op *operation) nextMessage() {
	op.parts = false
	op.forget()
	if op.hash != nil {
		op.hash.Reset()
	}
}

func (q *request) messageSigned(call callName) ck.RV {
	param, _ := q.in.Octets()
	in, _ := q.in.Octets()
	more := call == update && q.in.Byte() == 0
	room := q.in.Room()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	op, rv := q.operation(messageSigning)
	if rv != ck.CKR_OK {
		return rv
	}
	if rv = op.messageTurn(call, param); rv != ck.CKR_OK {
		return rv
	}
	if more {
		if rv = op.digested(in); rv != ck.CKR_OK {
			op.nextMessage()
			return rv
		}
		q.out.Result(room, nil)
		return ck.CKR_OK
	}
	if !fits(room, op.size) {
		q.out.Needed(op.size)
		return ck.CKR_OK
	}
	k, rv := q.keyOf(op)
	if rv != ck.CKR_OK {
		return q.done(op, rv)
	}
	signature, rv := op.signature(q, k, in)
	op.nextMessage()
	if rv == ck.CKR_OK {
		q.out.Result(room, signature)
	}
	return rv
}

func (q *request) messageVerified(call callName) ck.RV {
	param, _ := q.in.Octets()
	in, _ := q.in.Octets()
	signature, null := q.in.Octets()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	op, rv := q.operation(messageVerifying)
	if rv != ck.CKR_OK {
		return rv
	}
	if rv = op.messageTurn(call, param); rv != ck.CKR_OK {
		return rv
	}
	if call == update && null && len(signature) == 0 { // more of the message follows
		if rv = op.digested(in); rv != ck.CKR_OK {
			op.nextMessage()
		}
		return rv
	}
	rv = op.verified(q, in, signature)
	op.nextMessage()
	return rv
}
