package xki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"hash"
	"testing"
)

func spki(t *testing.T, public any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestRandom(t *testing.T) {
	w := newWorld(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r Request) *Answer {
		t.Helper()
		r.Op = OpRandom
		return w.good(XKIv1, "", &r)
	}
	first := ask(Request{}).Random
	if again := ask(Request{OutputForm: FormPlain}).Random; len(first) != 32 || bytes.Equal(first, again) {
		t.Errorf("%x, then %x", first, again)
	}
	if a := ask(Request{Length: MaxRandom}); len(a.Random) != MaxRandom {
		t.Errorf("%d octets", len(a.Random))
	}
	if a := ask(Request{OutputForm: FormNone}); len(a.Random) != 0 {
		t.Errorf("%x", a.Random)
	}
	for alg, row := range map[string]struct {
		hash func() hash.Hash
		most int
	}{"RSAES_OAEP_SHA1": {sha1.New, 214}, "RSAES_OAEP_SHA256": {sha256.New, 190}} {
		for _, n := range []int{0, 1, row.most} {
			a := ask(Request{Length: n, OutputForm: FormWrapped, WrappingAlg: alg, WrappingSpec: "RSA_2048", PublicKey: spki(t, key.Public())})
			secret, err := rsa.DecryptOAEP(row.hash(), nil, key, a.Random, nil)
			if want := n; err != nil || want != 0 && len(secret) != want || want == 0 && len(secret) != 32 {
				t.Errorf("%s, %d: %d octets, %v", alg, n, len(secret), err)
			}
		}
		if _, err := random(&Request{Length: row.most + 1, OutputForm: FormWrapped, WrappingAlg: alg, WrappingSpec: "RSA_2048", PublicKey: spki(t, key.Public())}); AsError(err).Member != "Length" {
			t.Errorf("%s takes more than fits: %v", alg, err)
		}
	}
	// What is wrong, in the words of the dialect.
	small, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		want   string
		change func(*Request)
	}{
		{"InvalidLength", func(r *Request) { r.Length = MaxRandom + 1 }},
		{"InvalidLength", func(r *Request) { r.Length = -1 }},
		{"InvalidOutputForm", func(r *Request) { r.OutputForm = "plain" }},
		{"WrappingAlgorithmRequired", func(r *Request) { r.WrappingAlg = "" }},
		{"InvalidWrappingAlgorithm", func(r *Request) { r.WrappingAlg = "RSAES_PKCS1_V1_5" }},
		{"InvalidOperation", func(r *Request) { r.WrappingAlg, r.WrappingSpec = "SM2PKE", "EC_SM2" }},
		{"InvalidWrappingKeySpec", func(r *Request) { r.WrappingSpec = "RSA_4096" }},
		{"PublicKeyBlobRequired", func(r *Request) { r.PublicKey = nil }},
		{"InvalidPublicKeyBlob", func(r *Request) { r.PublicKey = []byte("x") }},
		{"InvalidPublicKeyBlob", func(r *Request) { r.PublicKey = spki(t, small.Public()) }},
		{"InvalidPublicKeyBlob", func(r *Request) { r.PublicKey = spki(t, curve.Public()) }},
	} {
		r := &Request{Op: OpRandom, OutputForm: FormWrapped, WrappingAlg: "RSAES_OAEP_SHA256", WrappingSpec: "RSA_2048", PublicKey: spki(t, key.Public()), Metadata: meta}
		row.change(r)
		status, body := w.call(XKIv1, "", r, nil)
		var e xkiError
		if err := json.Unmarshal(body, &e); err != nil || status != 400 || e.Code != row.want {
			t.Errorf("%s: %d %s", row.want, status, body)
		}
	}
	// What a proxy answers is held against what was asked.
	for _, a := range []*Answer{{OutForm: FormPlain, Random: make([]byte, 31)}, {OutForm: FormNone}, {OutForm: FormWrapped, Random: make([]byte, 256)}} {
		if checkRandom(&Request{}, a) == nil {
			t.Errorf("%+v is taken for 32 plain octets", a)
		}
	}
}
