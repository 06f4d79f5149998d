package rsapad

import (
	"bytes"
	"testing"
)

// TestUnpadKey: a key of the expected length comes out whatever went in, and it is the right one if and only if the padding was good and the length the expected one.
func TestUnpadKey(t *testing.T) {
	const k = 128
	secret, ciphertext := bytes.Repeat([]byte{1}, SecretSize), bytes.Repeat([]byte{2}, k)
	block := func(message []byte) []byte {
		em := bytes.Repeat([]byte{0xff}, k)
		em[0], em[1], em[k-1-len(message)] = 0, 2, 0
		copy(em[k-len(message):], message)
		return em
	}
	key := bytes.Repeat([]byte{7}, 32)
	if got := UnpadKey(block(key), ciphertext, secret, 32); !bytes.Equal(got, key) {
		t.Errorf("%x", got)
	}
	fake := UnpadKey(make([]byte, k), ciphertext, secret, 32)
	if len(fake) != 32 || bytes.Equal(fake, make([]byte, 32)) {
		t.Errorf("%x stands in for a key", fake)
	}
	spoil := func(at int, b byte) []byte {
		em := block(key)
		em[at] = b
		return em
	}
	for name, em := range map[string][]byte{
		"a key of 31 octets": block(key[1:]), "a key of 33 octets": block(append([]byte{7}, key...)), "an empty message": block(nil),
		"01 in front": spoil(0, 1), "block type 1": spoil(1, 1), "a zero in the padding": spoil(9, 0), "no separator": spoil(k-33, 1),
	} {
		if got := UnpadKey(em, ciphertext, secret, 32); !bytes.Equal(got, fake) {
			t.Errorf("%s gives %x, and not always the same", name, got)
		}
		if !bytes.Equal(em[:k-32], make([]byte, k-32)) {
			t.Errorf("%s: something is left", name)
		}
	}
	if other := UnpadKey(make([]byte, k), ciphertext, bytes.Repeat([]byte{3}, SecretSize), 32); bytes.Equal(other, fake) {
		t.Error("two keys have the same fakes")
	}
	for _, size := range []int{-1, k - 10, k, 1 << 20} {
		if got := UnpadKey(block(key), ciphertext, secret, size); len(got) != 0 {
			t.Errorf("%d octets for %d", len(got), size)
		}
	}
}

// The attack: one ciphertext is unwrapped as a key of two sizes, and decrypted. If the fakes were parts of each other, it would show which answers are fakes.
func TestFakesOfTwoSizes(t *testing.T) {
	const k = 256
	secret := bytes.Repeat([]byte{1}, SecretSize)
	for i := range 20 { // fixed, so that this never fails by chance
		ciphertext := bytes.Repeat([]byte{byte(i)}, k)
		long, short := UnpadKey(make([]byte, k), ciphertext, secret, 32), UnpadKey(make([]byte, k), ciphertext, secret, 16)
		message := Unpad(make([]byte, k), ciphertext, secret)
		if bytes.Contains(long, short[:4]) || bytes.Contains(long, short[12:]) || bytes.Contains(message, short[:4]) || bytes.Contains(message, short[12:]) ||
			bytes.Contains(message, long[28:]) {
			t.Fatalf("%x\n%x\n%x", short, long, message)
		}
	}
}
