package keywrap

import (
	"bytes"
	"crypto/aes"
	"encoding/hex"
	"errors"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The two examples of RFC 5649, section 6, and one of 32 octets under AES-256 that OpenSSL made (id-aes256-wrap-pad).
func TestVectors(t *testing.T) {
	for _, v := range []struct{ key, plaintext, wrapped string }{
		{"5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8", "c37b7e6492584340bed12207808941155068f738",
			"138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a"},
		{"5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8", "466f7250617369", "afbeb0f07dfbf5419200f2ccb50bb24f"},
		{"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f",
			"4a8029243027353b0694cf1bd8fc745bb0ce8a739b19b1960b12426d4c39cfeda926d103ab34e9f6"},
	} {
		got, err := Wrap(unhex(t, v.key), unhex(t, v.plaintext))
		if err != nil || hex.EncodeToString(got) != v.wrapped {
			t.Errorf("Wrap: %x %v, want %s", got, err, v.wrapped)
		}
		back, err := Unwrap(unhex(t, v.key), unhex(t, v.wrapped))
		if err != nil || hex.EncodeToString(back) != v.plaintext {
			t.Errorf("Unwrap: %x %v, want %s", back, err, v.plaintext)
		}
	}
}

// The examples of RFC 3394 sections 4.1, 4.5 and 4.6.
func TestWholeVectors(t *testing.T) {
	for _, v := range []struct{ key, plaintext, wrapped string }{
		{"000102030405060708090a0b0c0d0e0f", "00112233445566778899aabbccddeeff", "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5"},
		{"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "00112233445566778899aabbccddeeff0001020304050607",
			"a8f9bc1612c68b3ff6e6f4fbe30e71e4769c8b80a32cb8958cd5d17d6b254da1"},
		{"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f",
			"28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"},
	} {
		key := unhex(t, v.key)
		got, err := WrapWhole(key, unhex(t, v.plaintext))
		if err != nil || hex.EncodeToString(got) != v.wrapped {
			t.Errorf("WrapWhole: %x %v, want %s", got, err, v.wrapped)
		}
		back, err := UnwrapWhole(key, unhex(t, v.wrapped))
		if err != nil || hex.EncodeToString(back) != v.plaintext {
			t.Errorf("UnwrapWhole: %x %v, want %s", back, err, v.plaintext)
		}
		for bit := range len(got) * 8 {
			got[bit/8] ^= 1 << (bit % 8)
			if back, err := UnwrapWhole(key, got); !errors.Is(err, ErrIntegrity) || back != nil {
				t.Fatalf("bit %d: %x %v", bit, back, err)
			}
			got[bit/8] ^= 1 << (bit % 8)
		}
		// What one way wrapped the other does not take.
		if back, err := Unwrap(key, got); !errors.Is(err, ErrIntegrity) {
			t.Errorf("Unwrap: %x %v", back, err)
		}
	}
	key := make([]byte, 32)
	for _, n := range []int{0, 1, 7, 8, 15, 17, MaxPlaintext + 8} {
		if _, err := WrapWhole(key, make([]byte, n)); !errors.Is(err, ErrSize) {
			t.Errorf("wrap %d octets: %v", n, err)
		}
	}
	for _, n := range []int{0, 8, 16, 23, 25, MaxPlaintext + 16} {
		if _, err := UnwrapWhole(key, make([]byte, n)); !errors.Is(err, ErrSize) {
			t.Errorf("unwrap %d octets: %v", n, err)
		}
	}
	if _, err := WrapWhole(key[:31], key); !errors.Is(err, ErrSize) {
		t.Errorf("a bad key: %v", err)
	}
	if _, err := UnwrapWhole(key[:31], key); !errors.Is(err, ErrSize) {
		t.Errorf("a bad key: %v", err)
	}
}

func TestAnyLengthAndNoChange(t *testing.T) {
	key := make([]byte, 32)
	for n := 1; n <= 70; n++ {
		plaintext := bytes.Repeat([]byte{0xab}, n)
		wrapped, err := Wrap(key, plaintext)
		if err != nil || len(wrapped) != (n+7)/8*8+8 {
			t.Fatalf("%d octets: %d %v", n, len(wrapped), err)
		}
		back, err := Unwrap(key, wrapped)
		if err != nil || !bytes.Equal(back, plaintext) {
			t.Fatalf("%d octets: %x %v", n, back, err)
		}
		for bit := range len(wrapped) * 8 {
			wrapped[bit/8] ^= 1 << (bit % 8)
			if back, err := Unwrap(key, wrapped); !errors.Is(err, ErrIntegrity) || back != nil {
				t.Fatalf("%d octets, bit %d: %x %v", n, bit, back, err)
			}
			wrapped[bit/8] ^= 1 << (bit % 8)
		}
		other := bytes.Clone(key)
		other[31] ^= 1
		if _, err := Unwrap(other, wrapped); !errors.Is(err, ErrIntegrity) {
			t.Fatalf("%d octets under another key: %v", n, err)
		}
	}
}

// What the holder of the key can make wrong: the length and the padding, with a constant that is right.
func TestDishonestHeads(t *testing.T) {
	key := make([]byte, 16)
	b, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, clearText := range map[string]string{
		"length 0":           "a65959a600000000" + "0000000000000000",
		"length 9 of 8":      "a65959a600000009" + "0000000000000000",
		"length 2^32-1":      "a65959a6ffffffff" + "0000000000000000",
		"length 2^31":        "a65959a680000000" + "0000000000000000",
		"padding not zero":   "a65959a600000007" + "0000000000000001",
		"padding not zero 2": "a65959a600000001" + "0001000000000000",
		"another constant":   "a65959a700000008" + "0000000000000000",
		"plain key wrap":     "a6a6a6a6a6a6a6a6" + "0000000000000000",
	} {
		wrapped := make([]byte, 16)
		b.Encrypt(wrapped, unhex(t, clearText))
		if back, err := Unwrap(key, wrapped); !errors.Is(err, ErrIntegrity) || back != nil {
			t.Errorf("%s: %x %v", name, back, err)
		}
	}
	good := make([]byte, 16)
	b.Encrypt(good, unhex(t, "a65959a6000000010100000000000000"))
	if back, err := Unwrap(key, good); err != nil || !bytes.Equal(back, []byte{1}) {
		t.Errorf("one octet: %x %v", back, err)
	}
}

func TestSizes(t *testing.T) {
	key := make([]byte, 32)
	for _, n := range []int{0, MaxPlaintext + 1} {
		if _, err := Wrap(key, make([]byte, n)); !errors.Is(err, ErrSize) {
			t.Errorf("Wrap of %d octets: %v", n, err)
		}
	}
	for _, n := range []int{0, 1, 8, 15, 17, 23, MaxPlaintext + 16} {
		if _, err := Unwrap(key, make([]byte, n)); !errors.Is(err, ErrSize) {
			t.Errorf("Unwrap of %d octets: %v", n, err)
		}
	}
	if _, err := Wrap(key[:31], []byte{1}); !errors.Is(err, ErrSize) {
		t.Errorf("Wrap with a key of 31 octets: %v", err)
	}
	if _, err := Unwrap(key[:31], make([]byte, 16)); !errors.Is(err, ErrSize) {
		t.Errorf("Unwrap with a key of 31 octets: %v", err)
	}
	largest := make([]byte, MaxPlaintext)
	wrapped, err := Wrap(key, largest)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := Unwrap(key, wrapped); err != nil || !bytes.Equal(back, largest) {
		t.Errorf("the largest: %v", err)
	}
}

// FuzzUnwrap: what unwraps is wrapped the same again.
func FuzzUnwrap(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), unhex(f, "afbeb0f07dfbf5419200f2ccb50bb24f"))
	f.Add(unhex(f, "5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8"), unhex(f, "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a"))
	f.Fuzz(func(t *testing.T, key, wrapped []byte) {
		plaintext, err := Unwrap(key, wrapped)
		if err != nil {
			if plaintext != nil || err != ErrSize && err != ErrIntegrity {
				t.Fatalf("%x %v", plaintext, err)
			}
			return
		}
		again, err := Wrap(key, plaintext)
		if err != nil || !bytes.Equal(again, wrapped) {
			t.Fatalf("%x %v", again, err)
		}
	})
}

// FuzzWrap: what is wrapped unwraps.
func FuzzWrap(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), []byte("ForPasi"))
	f.Fuzz(func(t *testing.T, key, plaintext []byte) {
		wrapped, err := Wrap(key, plaintext)
		if err != nil {
			return
		}
		back, err := Unwrap(key, wrapped)
		if err != nil || !bytes.Equal(back, plaintext) {
			t.Fatalf("%x %v", back, err)
		}
	})
}
