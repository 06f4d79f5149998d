package hsmpool

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"testing"
)

// TestUnpadOAEP undoes what crypto/rsa padded, and breaks each octet of it once.
func TestUnpadOAEP(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	raw := func(c []byte) []byte {
		m := new(big.Int).Exp(new(big.Int).SetBytes(c), key.D, key.N)
		return m.FillBytes(make([]byte, 256))
	}
	for _, c := range []struct {
		hash, mgf crypto.Hash
		label     string
		n         int
	}{
		{crypto.SHA256, crypto.SHA256, "", 0}, {crypto.SHA256, crypto.SHA256, "", 1}, {crypto.SHA256, crypto.SHA256, "", 100},
		{crypto.SHA256, crypto.SHA256, "", 190}, {crypto.SHA1, crypto.SHA512, "label", 214}, {crypto.SHA512, crypto.SHA384, "", 126},
	} {
		h := c.hash.Size()
		want := bytes.Repeat([]byte{1}, c.n) // the separator's value too
		ciphertext, err := rsa.EncryptOAEPWithOptions(rand.Reader, &key.PublicKey, want, &rsa.OAEPOptions{Hash: c.hash, MGFHash: c.mgf, Label: []byte(c.label)})
		if err != nil {
			t.Fatal(err)
		}
		em := raw(ciphertext)
		got, ok := unpadOAEP(bytes.Clone(em), c.hash, c.mgf, []byte(c.label))
		if !ok || !bytes.Equal(got, want) {
			t.Fatalf("%+v: %x, %v", c, got, ok)
		}
		if _, ok := unpadOAEP(bytes.Clone(em), c.hash, c.mgf, []byte(c.label+"x")); ok {
			t.Errorf("%+v: another label is not noticed", c)
		}
		for i := range em {
			bad := bytes.Clone(em)
			bad[i] ^= 0x80
			got, ok := unpadOAEP(bad, c.hash, c.mgf, []byte(c.label))
			if ok && i < 1+2*h {
				t.Errorf("%+v: octet %d changed and not noticed", c, i)
			}
			if ok && bytes.Equal(got, want) && c.n > 0 && i >= 256-c.n {
				t.Errorf("%+v: octet %d of the message changed to no effect", c, i)
			}
			if !ok && !bytes.Equal(bad, make([]byte, 256)) {
				t.Fatal("a refused message is left in memory")
			}
		}
	}
	for n := range 67 {
		if _, ok := unpadOAEP(make([]byte, n), crypto.SHA256, crypto.SHA256, nil); ok {
			t.Errorf("%d octets accepted", n)
		}
	}
}

func FuzzUnpadOAEP(f *testing.F) {
	f.Add(make([]byte, 256), []byte(nil), byte(2), byte(2))
	f.Add([]byte("short"), []byte("label"), byte(0), byte(4))
	f.Fuzz(func(t *testing.T, em, label []byte, hash, mgf byte) {
		n, h := len(em), hashes[int(hash)%len(hashes)].hash
		if m, ok := unpadOAEP(em, h, hashes[int(mgf)%len(hashes)].hash, label); ok && len(m) > n-2*h.Size()-2 {
			t.Errorf("%d octets out of %d", len(m), n)
		}
	})
}
