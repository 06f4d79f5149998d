package hsmpool

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secpecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// signRecovery makes a key and has it sign what an imported key signs.
func signRecovery(t testing.TB, kt KeyType) (spki []byte, signatures [len(recoveryDigests)][]byte) {
	t.Helper()
	var err error
	if kt == P256 {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		for i, d := range recoveryDigests {
			r, s, err := ecdsa.Sign(rand.Reader, k, d[:])
			if err != nil {
				t.Fatal(err)
			}
			signatures[i] = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}
		if spki, err = x509.MarshalPKIXPublicKey(&k.PublicKey); err != nil {
			t.Fatal(err)
		}
		return spki, signatures
	}
	k, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range recoveryDigests {
		signature := secpecdsa.Sign(k, d[:])
		r, s := signature.R(), signature.S()
		rb, sb := r.Bytes(), s.Bytes()
		signatures[i] = append(rb[:], sb[:]...)
		if i == 0 {
			// Half of all signers give the other s, which stands for the other R.
			other := new(big.Int).Sub(secp256k1.Params().N, new(big.Int).SetBytes(sb[:]))
			other.FillBytes(signatures[i][32:])
		}
	}
	if spki, err = marshalECPublic(kt, k.PubKey().SerializeUncompressed()); err != nil {
		t.Fatal(err)
	}
	return spki, signatures
}

func TestRecoverECPublic(t *testing.T) {
	for _, kt := range []KeyType{P256, Secp256k1} {
		for range 6 {
			want, good := signRecovery(t, kt)
			if got, err := recoverECPublic(kt, good); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v: %x, want %x, %v", kt, got, want, err)
			}
			for i := range good {
				for name, f := range map[string]func(b []byte) []byte{
					"changed r":  func(b []byte) []byte { b[5] ^= 1; return b },
					"changed s":  func(b []byte) []byte { b[40] ^= 1; return b },
					"no r":       func(b []byte) []byte { clear(b[:32]); return b },
					"no s":       func(b []byte) []byte { clear(b[32:]); return b },
					"r too much": func(b []byte) []byte { copy(b, bytes.Repeat([]byte{255}, 32)); return b },
					"s too much": func(b []byte) []byte { copy(b[32:], bytes.Repeat([]byte{255}, 32)); return b },
					"cut":        func(b []byte) []byte { return b[:63] },
					"none":       func(b []byte) []byte { return nil },
				} {
					bad := good
					bad[i] = f(bytes.Clone(good[i]))
					if got, err := recoverECPublic(kt, bad); err == nil {
						t.Errorf("%v, signature %d, %s: %x", kt, i, name, got)
					}
				}
			}
			// Signatures of two keys, or of one digest, are no proof of one key.
			_, others := signRecovery(t, kt)
			mixed := good
			mixed[2] = others[2]
			if _, err := recoverECPublic(kt, mixed); err == nil {
				t.Errorf("%v: the third signature was another key's", kt)
			}
			mixed = good
			mixed[1] = good[0]
			if _, err := recoverECPublic(kt, mixed); err == nil {
				t.Errorf("%v: a signature stood for another digest's", kt)
			}
		}
	}
}

// FuzzRecoverECPublic: what a module signs, whatever it is, gives an error or a key that has made it.
func FuzzRecoverECPublic(f *testing.F) {
	for _, kt := range []KeyType{P256, Secp256k1} {
		_, s := signRecovery(f, kt)
		f.Add(kt == P256, s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, p256 bool, a, b, c []byte) {
		kt := Secp256k1
		if p256 {
			kt = P256
		}
		signatures := [len(recoveryDigests)][]byte{a, b, c}
		spki, err := recoverECPublic(kt, signatures)
		if err != nil {
			return
		}
		for i, s := range signatures {
			if err := verifySignature(kt, spki, recoveryDigests[i][:], s); err != nil {
				t.Errorf("signature %d: %v", i, err)
			}
		}
	})
}
