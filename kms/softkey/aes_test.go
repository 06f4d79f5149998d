package softkey

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"slices"
	"sync"
	"testing"
)

func testAES(t testing.TB) (*AES, []byte) {
	t.Helper()
	k, err := NewAES(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k, bytes.Repeat([]byte{9}, NonceSize)
}

// The derivation is HKDF as crypto/hkdf has it.
func TestDeriveIsHKDF(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	k, nonce := testAES(t)
	want, err := hkdf.Key(sha256.New, key, []byte(extractSalt), expandInfo+string(nonce), 64)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // the first fills the pool
		aead, commitment, err := k.derive(nonce)
		if err != nil || !bytes.Equal(commitment[:], want[32:]) {
			t.Fatalf("commitment %x, %v, want %x", commitment, err, want[32:])
		}
		same, err := newGCM(want[:32])
		if err != nil {
			t.Fatal(err)
		}
		a, b := aead.Seal(nil, zeroNonce[:], []byte("x"), nil), same.Seal(nil, zeroNonce[:], []byte("x"), nil)
		if !bytes.Equal(a, b) {
			t.Error("another AES key")
		}
	}
}

func TestSealOpen(t *testing.T) {
	k, nonce := testAES(t)
	for _, n := range []int{0, 1, 16, 1024, 6144} {
		plaintext := bytes.Repeat([]byte{0x5a}, n)
		sealed := k.Seal([]byte("head"), nonce, plaintext, []byte("aad"))
		if len(sealed) != 4+CommitmentSize+n+TagSize || string(sealed[:4]) != "head" {
			t.Fatalf("%d: %d octets", n, len(sealed))
		}
		got, err := k.Open([]byte("pre"), nonce, sealed[4:], []byte("aad"))
		if err != nil || string(got[:3]) != "pre" || !bytes.Equal(got[3:], plaintext) {
			t.Errorf("%d: %v", n, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	k, nonce := testAES(t)
	other, err := NewAES(bytes.Repeat([]byte{8}, 32))
	if err != nil {
		t.Fatal(err)
	}
	sealed := k.Seal(nil, nonce, []byte("plaintext"), []byte("aad"))
	refuse := func(what string, k *AES, nonce, sealed, aad []byte) {
		t.Helper()
		if got, err := k.Open(nil, nonce, sealed, aad); err != ErrDecrypt || got != nil {
			t.Errorf("%s: %x, %v", what, got, err)
		}
	}
	for bit := range 8 * len(sealed) {
		b := slices.Clone(sealed)
		b[bit/8] ^= 1 << (bit % 8)
		refuse("bit of the body", k, nonce, b, []byte("aad"))
	}
	for bit := range 8 * len(nonce) {
		b := slices.Clone(nonce)
		b[bit/8] ^= 1 << (bit % 8)
		refuse("bit of the nonce", k, b, sealed, []byte("aad"))
	}
	for n := range sealed {
		refuse("cut", k, nonce, sealed[:n], []byte("aad"))
	}
	refuse("longer", k, nonce, append(slices.Clone(sealed), 0), []byte("aad"))
	refuse("other aad", k, nonce, sealed, []byte("aae"))
	refuse("no aad", k, nonce, sealed, nil)
	refuse("other key", other, nonce, sealed, []byte("aad"))
	refuse("short nonce", k, nonce[1:], sealed, []byte("aad"))
	refuse("long nonce", k, append(slices.Clone(nonce), 0), sealed, []byte("aad"))

	// A body whose tag fits under another key, but not its commitment: the thing that GCM alone would accept.
	aead, _, err := other.derive(nonce)
	if err != nil {
		t.Fatal(err)
	}
	forged := aead.Seal(slices.Clone(sealed[:CommitmentSize]), zeroNonce[:], []byte("forged"), []byte("aad"))
	refuse("commitment of another key", other, nonce, forged, []byte("aad"))
}

func TestAESClose(t *testing.T) {
	k, nonce := testAES(t)
	sealed := k.Seal(nil, nonce, []byte("x"), nil)
	k.Close()
	k.Close()
	if k.prk != [32]byte{} {
		t.Error("the key is still there")
	}
	if _, err := k.Open(nil, nonce, sealed, nil); err != ErrClosed {
		t.Errorf("open: %v", err)
	}
	mustPanic(t, "Seal when closed", func() { k.Seal(nil, nonce, nil, nil) })
	k, _ = testAES(t)
	mustPanic(t, "Seal with a short nonce", func() { k.Seal(nil, nonce[1:], nil, nil) })
	for _, n := range []int{0, 16, 24, 31, 33} {
		if _, err := NewAES(make([]byte, n)); err != ErrSize {
			t.Errorf("key of %d octets: %v", n, err)
		}
	}
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", what)
		}
	}()
	f()
}

func TestAESConcurrentUse(t *testing.T) {
	k, nonce := testAES(t)
	want := k.Seal(nil, nonce, []byte("plaintext"), nil)
	var wg, sealing sync.WaitGroup
	for range 8 {
		sealing.Add(1)
		wg.Go(func() {
			for range 200 {
				if !bytes.Equal(k.Seal(nil, nonce, []byte("plaintext"), nil), want) {
					t.Error("another result")
				}
			}
			sealing.Done()
			for {
				got, err := k.Open(nil, nonce, want, nil)
				if err == ErrClosed {
					return
				}
				if err != nil || string(got) != "plaintext" {
					t.Errorf("%q, %v", got, err)
					return
				}
			}
		})
	}
	sealing.Wait()
	k.Close() // the others are opening
	wg.Wait()
}
