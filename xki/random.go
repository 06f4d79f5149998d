package xki

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // OAEP is sound with it, and the protocol has it
	"crypto/sha256"
	"crypto/x509"
	"hash"
)

// Random octets (§3.2): only xki-v1 has them. A KMS asks for them where the other key manager is to be the source of its data keys.

// The forms in which random octets are given.
const (
	FormPlain   = "PLAIN" // the default
	FormWrapped = "PUBLIC_KEY_WRAPPED"
	FormNone    = "NONE" // none are given: it is a test of whether they could be
)

const (
	defaultRandom = 32
	wrappingSpec  = "RSA_2048"
	wrappingBits  = 2048
)

// wrappings are the algorithms for FormWrapped. SM2's are known by name, and unsupported.
var wrappings = map[string]func() hash.Hash{"RSAES_OAEP_SHA1": sha1.New, "RSAES_OAEP_SHA256": sha256.New}

// random gives random octets as a request wants them.
func random(r *Request) (*Answer, error) {
	bad := func(member, detail string) (*Answer, error) {
		return nil, &Error{Code: Validation, Member: member, Detail: detail}
	}
	n := cmp.Or(r.Length, defaultRandom)
	if n < 1 || n > MaxRandom {
		return bad("Length", "it must be 1 to 1024")
	}
	switch r.OutputForm {
	case "", FormPlain:
		b := make([]byte, n)
		rand.Read(b) // never fails
		return &Answer{Random: b, OutForm: FormPlain}, nil
	case FormNone:
		return &Answer{OutForm: FormNone}, nil
	case FormWrapped:
	default:
		return bad("OutputForm", "it must be PLAIN, PUBLIC_KEY_WRAPPED or NONE")
	}
	switch r.WrappingAlg {
	case "":
		return nil, &Error{Code: Validation, Member: "WrappingAlgorithm", Absent: true, Detail: "it is missing"}
	case "SM2PKE":
		return nil, Errorf(Unsupported, "SM2 is not done here")
	}
	newHash := wrappings[r.WrappingAlg]
	if newHash == nil {
		return bad("WrappingAlgorithm", "it must be RSAES_OAEP_SHA256 or RSAES_OAEP_SHA1")
	}
	if r.WrappingSpec != wrappingSpec {
		return bad("WrappingKeySpec", "it must be "+wrappingSpec)
	}
	if len(r.PublicKey) == 0 {
		return nil, &Error{Code: Validation, Member: "PublicKeyBlob", Absent: true, Detail: "it is missing"}
	}
	parsed, err := x509.ParsePKIXPublicKey(r.PublicKey)
	public, ok := parsed.(*rsa.PublicKey)
	if err != nil || !ok || public.N.BitLen() != wrappingBits {
		return bad("PublicKeyBlob", "it must be an RSA key of 2048 bits, as DER SubjectPublicKeyInfo")
	}
	if most := wrappingBits/8 - 2*newHash().Size() - 2; n > most {
		return bad("Length", "it must fit into what is wrapped: 214 octets with SHA-1, 190 with SHA-256")
	}
	secret := make([]byte, n)
	rand.Read(secret) // never fails
	defer clear(secret)
	wrapped, err := rsa.EncryptOAEP(newHash(), rand.Reader, public, secret, nil) // MGF1 with the same hash
	if err != nil {
		return bad("PublicKeyBlob", "nothing can be encrypted with it")
	}
	return &Answer{Random: wrapped, OutForm: FormWrapped}, nil
}

// checkRandom holds an answer against what was asked.
func checkRandom(r *Request, a *Answer) error {
	want, n := cmp.Or(r.OutputForm, FormPlain), cmp.Or(r.Length, defaultRandom)
	switch want {
	case FormWrapped:
		n = wrappingBits / 8
	case FormNone:
		n = 0
	}
	if a.OutForm != want || len(a.Random) != n {
		return Errorf(BadAnswer, "%d random octets as %.40q instead of %d as %q", len(a.Random), a.OutForm, n, want)
	}
	return nil
}
