package kms

import (
	"crypto"
	"slices"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/mechanism"
)

// keyFamily is what keys a mechanism works with.
type keyFamily uint8

const (
	rsaKeys keyFamily = iota + 1
	ecKeys
	aesKeys
)

func (s *spec) family() keyFamily {
	switch {
	case s.symmetric():
		return aesKeys
	case s.rsaBytes > 0:
		return rsaKeys
	}
	return ecKeys
}

// verbUsages says what a key must be for.
var verbUsages = [...]kmswire.KeyUsage{Sign: kmswire.SignVerify, Verify: kmswire.SignVerify,
	Encrypt: kmswire.EncryptDecrypt, Decrypt: kmswire.EncryptDecrypt}

// verbActions are the actions of the audit for what no key does.
var verbActions = [...]*action{Sign: actAsymmetricSign, Verify: actAsymmetricVerify, Encrypt: actEncrypt, Decrypt: actDecrypt}

// keyUse is what a verb by a kind of mechanism takes.
type keyUse struct {
	// rights are all needed. The first is the action of the audit.
	rights []*action
	op     hsmpool.Op // with a key in an HSM; 0: it is done with the public key

	// bothUsages are the rights in place of these with a key that is for signing and decrypting; nil: the same. The bare operation with
	// a private key is both: else whoever may only sign with such a key decrypts with it what is for others.
	bothUsages []*action
}

// mechanismRow is what there is to know of a kind of mechanism.
type mechanismRow struct {
	name string // in the audit; hashes follow
	keys keyFamily
	iv   int  // octets that the IV must have
	gcm  bool // has an IV, AAD and a tag of its own
	// hash, salt and label: what else it uses. A hash comes with that of MGF1.
	hash, salt, label bool
	verbs             [Decrypt + 1]*keyUse // nil: no key does that
}

// Rights. With a key of an HSM the API encrypts by AES-GCM under the key itself. Whoever may choose the IV, or the blocks, makes by
// encrypting what undoes that: counters and what the GCM of a blob counts are the same. So that takes both rights, in either direction,
// and only two uses take one: GCM that checks the tag before it gives anything, and GCM that draws its IV.
var (
	toSign      = []*action{actAsymmetricSign}
	toVerify    = []*action{actAsymmetricVerify}
	toEncrypt   = []*action{actAsymmetricEncrypt}
	toDecrypt   = []*action{actAsymmetricDecrypt}
	toCipher    = []*action{actEncrypt, actDecrypt}
	toDecipher  = []*action{actDecrypt, actEncrypt}
	toOpen      = []*action{actDecrypt}
	toSealDrawn = []*action{actEncrypt} // see rightsFor

	toSignRaw    = []*action{actAsymmetricSign, actAsymmetricDecrypt}
	toDecryptRaw = []*action{actAsymmetricDecrypt, actAsymmetricSign}
)

// keyUses has a row for each kind of mechanism.
var keyUses = [mechanism.AESGCM + 1]mechanismRow{
	mechanism.RSAPKCS1: {name: "RSA-PKCS1", keys: rsaKeys, verbs: [...]*keyUse{
		Sign: {rights: toSign, op: hsmpool.SignPKCS1}, Verify: {rights: toVerify},
		Encrypt: {rights: toEncrypt}, Decrypt: {rights: toDecrypt, op: hsmpool.DecryptRaw}}},
	mechanism.RSARaw: {name: "RSA-RAW", keys: rsaKeys, verbs: [...]*keyUse{
		Sign: {rights: toSign, bothUsages: toSignRaw, op: hsmpool.SignRaw}, Verify: {rights: toVerify},
		Encrypt: {rights: toEncrypt}, Decrypt: {rights: toDecrypt, bothUsages: toDecryptRaw, op: hsmpool.DecryptRaw}}},
	mechanism.RSAPSS: {name: "RSA-PSS", keys: rsaKeys, hash: true, salt: true, verbs: [Decrypt + 1]*keyUse{
		Sign: {rights: toSign, op: hsmpool.SignPSS}, Verify: {rights: toVerify}}},
	mechanism.RSAOAEP: {name: "RSA-OAEP", keys: rsaKeys, hash: true, label: true, verbs: [...]*keyUse{
		Encrypt: {rights: toEncrypt}, Decrypt: {rights: toDecrypt, op: hsmpool.DecryptOAEP}}},
	mechanism.ECDSA: {name: "ECDSA", keys: ecKeys, verbs: [Decrypt + 1]*keyUse{
		Sign: {rights: toSign, op: hsmpool.SignECDSA}, Verify: {rights: toVerify}}},
	mechanism.AESECB: {name: "AES-ECB", keys: aesKeys, verbs: [...]*keyUse{
		Encrypt: {rights: toCipher, op: hsmpool.EncryptECB}, Decrypt: {rights: toDecipher, op: hsmpool.DecryptECB}}},
	mechanism.AESCBC: {name: "AES-CBC", keys: aesKeys, iv: aesBlock, verbs: [...]*keyUse{
		Encrypt: {rights: toCipher, op: hsmpool.EncryptCBC}, Decrypt: {rights: toDecipher, op: hsmpool.DecryptCBC}}},
	mechanism.AESCTR: {name: "AES-CTR", keys: aesKeys, iv: aesBlock, verbs: [...]*keyUse{
		Encrypt: {rights: toCipher, op: hsmpool.CryptCTR}, Decrypt: {rights: toDecipher, op: hsmpool.CryptCTR}}},
	mechanism.AESGCM: {name: "AES-GCM", keys: aesKeys, gcm: true, verbs: [...]*keyUse{
		Encrypt: {rights: toCipher, op: hsmpool.EncryptGCM}, Decrypt: {rights: toOpen, op: hsmpool.DecryptGCM}}},
}

// Sizes in octets, but for tags.
const (
	aesBlock      = 16
	gcmIV         = 12 // of keys in HSMs, and of what is drawn (SP 800-38D §8.2)
	maxGCMIV      = 256
	minTagBits    = 96
	maxTagBits    = 128
	pkcs1Overhead = 11 // what the padding takes at least (RFC 8017 §7.2.1 and §9.2)
	maxLabel      = 1024
	maxDigest     = 64       // of ECDSA
	maxHSMText    = 64 << 10 // of a use of an AES key in an HSM
	maxHSMAAD     = 64 << 10
)

// rowOf gives a mechanism's row and what a verb by it takes. nil: no key does that.
func rowOf(verb Verb, m *mechanism.Mechanism) (*mechanismRow, *keyUse) {
	if m == nil || int(m.Kind) >= len(keyUses) || verb < Sign || verb > Decrypt {
		return nil, nil
	}
	row := &keyUses[m.Kind]
	return row, row.verbs[verb]
}

// draws says that the IV of an encryption is drawn where the key is.
func draws(verb Verb, m *mechanism.Mechanism) bool {
	return verb == Encrypt && m.Kind == mechanism.AESGCM && len(m.IV) == 0
}

// rightsFor gives the rights that a use needs, the audit's action first.
func (u *keyUse) rightsFor(verb Verb, m *mechanism.Mechanism) []*action {
	if draws(verb, m) {
		return toSealDrawn
	}
	return u.rights
}

// mechanismHashes are those that mechanisms may name. Not every HSM has all.
var mechanismHashes = []crypto.Hash{crypto.SHA1, crypto.SHA224, crypto.SHA256, crypto.SHA384, crypto.SHA512,
	crypto.SHA3_224, crypto.SHA3_256, crypto.SHA3_384, crypto.SHA3_512}

// hashedNames are the names of mechanisms with a hash, where MGF1 has the same.
var hashedNames = func() (names [len(keyUses)][crypto.SHA3_512 + 1]string) {
	for kind := range keyUses {
		for _, h := range mechanismHashes {
			names[kind][h] = keyUses[kind].name + "-" + h.String()
		}
	}
	return names
}()

// nameOf is what the audit calls a mechanism that is good: RSA-PSS-SHA-384, AES-CBC.
func (r *mechanismRow) nameOf(m *mechanism.Mechanism) string {
	switch {
	case !r.hash:
		return r.name
	case m.Hash == m.MGF:
		return hashedNames[m.Kind][m.Hash]
	}
	return hashedNames[m.Kind][m.Hash] + "-MGF1-" + m.MGF.String()
}

// algorithmOf is what conditions of policies call the mechanism of an encryption (kms:EncryptionAlgorithm): as the API does where it is
// the same, whatever the label. Other mechanisms go by the name that the audit gives them: a condition that wants an algorithm of the API
// is not met by another. That holds for AES too, none of whose modes makes a blob of the API.
func (r *mechanismRow) algorithmOf(m *mechanism.Mechanism) kmswire.Algorithm {
	if m.Kind == mechanism.RSAOAEP && m.Hash == m.MGF {
		switch m.Hash {
		case crypto.SHA1:
			return kmswire.RSAOAEPSHA1
		case crypto.SHA256:
			return kmswire.RSAOAEPSHA256
		}
	}
	return kmswire.Algorithm(r.nameOf(m))
}

// checkParameters looks at all of a mechanism that has nothing to do with the key.
func (r *mechanismRow) checkParameters(verb Verb, m *mechanism.Mechanism) error {
	bad := func(what string, args ...any) error { return Invalid("Mechanism", r.name+": "+what, args...) }
	if r.hash {
		if !slices.Contains(mechanismHashes, m.Hash) || !slices.Contains(mechanismHashes, m.MGF) {
			return bad("no such hash, or none for MGF1")
		}
	} else if m.Hash != 0 || m.MGF != 0 {
		return bad("it has no hash")
	}
	if m.Salt < 0 || m.Salt > 0 && !r.salt || len(m.Label) > maxLabel || len(m.Label) > 0 && !r.label {
		return bad("a salt or label that it has not, or a label of more than %d octets", maxLabel)
	}
	if !r.gcm {
		if len(m.IV) != r.iv || len(m.AAD) > 0 || m.TagBits != 0 {
			return bad("it has an IV of %d octets, and neither AAD nor tag", r.iv)
		}
		return nil
	}
	if n := len(m.IV); n > maxGCMIV || n == 0 && !draws(verb, m) {
		return bad("an IV has 1 to %d octets", maxGCMIV)
	}
	if m.TagBits < minTagBits || m.TagBits > maxTagBits || m.TagBits%8 != 0 {
		return bad("a tag has %d to %d bits", minTagBits, maxTagBits)
	}
	return nil
}

// checkFor looks at what depends on the key, and on whether it is done in an HSM.
func (r *mechanismRow) checkFor(m *mechanism.Mechanism, sp *spec, inHSM bool) error {
	if r.salt {
		if most := sp.rsaBytes - m.Hash.Size() - 2; m.Salt > most { // RFC 8017 §9.1.1, step 3
			return Invalid("Mechanism", "a salt has at most %d octets with %s and %s", most, sp.name, m.Hash)
		}
	}
	if !inHSM {
		return nil
	}
	if r.hash && (!hsmpool.KnownHash(m.Hash) || !hsmpool.KnownHash(m.MGF)) {
		return Errorf(UnsupportedOperation, "no key in an HSM does that by %s", r.nameOf(m))
	}
	if r.gcm && (len(m.IV) != 0 && len(m.IV) != gcmIV || len(m.AAD) > maxHSMAAD) {
		return Invalid("Mechanism", "with a key in an HSM AES-GCM has an IV of %d octets and at most %d of AAD", gcmIV, maxHSMAAD)
	}
	return nil
}

// inputSize gives the bounds of an input in octets. most is below 0 if there is none.
func inputSize(verb Verb, m *mechanism.Mechanism, k int, inHSM bool) (least, most int) {
	switch m.Kind {
	case mechanism.RSAPSS:
		return m.Hash.Size(), m.Hash.Size()
	case mechanism.ECDSA:
		return 1, maxDigest
	case mechanism.RSAPKCS1:
		switch verb {
		case Sign, Verify:
			return 1, k - pkcs1Overhead
		case Encrypt:
			return 0, k - pkcs1Overhead
		}
		return k, k
	case mechanism.RSAOAEP:
		if verb == Encrypt {
			return 0, k - 2*m.Hash.Size() - 2 // RFC 8017 §7.1.1
		}
		return k, k
	case mechanism.RSARaw:
		return k, k
	case mechanism.AESGCM:
		if verb == Decrypt {
			least = m.TagBits / 8
		}
	}
	if inHSM {
		return least, least + maxHSMText
	}
	return least, -1
}

// checkInput checks the length of an input: all of it that HSMs would have to refuse.
func checkInput(verb Verb, by *mechanism.Mechanism, m *material, inHSM bool, n int) error {
	least, most := inputSize(verb, by, m.spec.rsaBytes, inHSM)
	blocks := by.Kind == mechanism.AESECB || by.Kind == mechanism.AESCBC
	switch {
	case n >= least && (n <= most || most < 0) && (!blocks || n%aesBlock == 0):
		return nil
	case verb == Decrypt:
		return badCiphertext(m)
	case blocks:
		return Invalid("Input", "%d octets are no whole blocks, or too many", n)
	}
	return Invalid("Input", "%d octets; here it has %d to %d", n, least, most)
}
