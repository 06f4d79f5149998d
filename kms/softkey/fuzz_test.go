package softkey

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/keyward/keyward/kms/kmswire"
)

// FuzzParsePublicKey: what parses is written the same again.
func FuzzParsePublicKey(f *testing.F) {
	for _, spec := range []kmswire.KeySpec{kmswire.RSA2048, kmswire.ECP256, kmswire.ECP256K} {
		f.Add(testKey(f, spec).Public().Marshal())
	}
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		k, err := ParsePublicKey(der)
		if err != nil {
			if err != ErrMalformed {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(k.Marshal(), der) || specs[k.Spec()].bits == 0 {
			t.Fatalf("%s: read %x\nwrote %x", k.Spec(), der, k.Marshal())
		}
	})
}

// FuzzParsePrivateKey: what parses can be written, and read again as the same key.
func FuzzParsePrivateKey(f *testing.F) {
	for i, spec := range asymmetric {
		if spec == kmswire.RSA3072 || spec == kmswire.RSA4096 {
			continue
		}
		der, err := testKey(f, spec).Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), der)
	}
	f.Fuzz(func(t *testing.T, i uint8, der []byte) {
		spec := asymmetric[int(i)%len(asymmetric)]
		k, err := ParsePrivateKey(spec, der)
		if err != nil {
			if err != ErrMalformed {
				t.Fatal(err)
			}
			return
		}
		defer k.Close()
		again, err := k.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		same, err := ParsePrivateKey(spec, again)
		if err != nil || !bytes.Equal(same.Public().Marshal(), k.Public().Marshal()) {
			t.Fatalf("%v: wrote %x", err, again)
		}
		same.Close()
	})
}

// FuzzKoblitz: decred's library and OpenSSL agree on every secp256k1 signature.
func FuzzKoblitz(f *testing.F) {
	digest := sha256.Sum256([]byte("x"))
	s, err := testKey(f, kmswire.ECP256K).Sign(kmswire.ECDSASHA256, digest[:])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s, digest[:])
	f.Add([]byte{0x30, 6, 2, 1, 1, 2, 1, 1}, digest[:])
	f.Add([]byte{0x30, 0x80, 2, 1, 1, 2, 1, 1, 0, 0}, digest[:])
	f.Add([]byte{0x30, 7, 2, 2, 0, 1, 2, 1, 1}, make([]byte, 32))
	f.Fuzz(func(t *testing.T, signature, digest []byte) {
		public := testKey(t, kmswire.ECP256K).Public()
		got, gotErr := public.Verify(kmswire.ECDSASHA256, digest, signature)
		want, wantErr := public.key.VerifyDER(digest, signature)
		if got != want || gotErr != Translate(wantErr) {
			t.Fatalf("decred: %v, %v; OpenSSL: %v, %v", got, gotErr, want, wantErr)
		}
	})
}
