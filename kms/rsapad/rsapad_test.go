package rsapad

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"math/big"
	"slices"
	"testing"
)

// modelFake is the fake message by the text of the draft, sections 7.1 and 7.2, without any care for time.
func modelFake(k int, ciphertext, secret []byte) []byte {
	h := func(key []byte, in ...[]byte) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write(slices.Concat(in...))
		return mac.Sum(nil)
	}
	kdk := h(secret, ciphertext)
	prf := func(label string, bits int) (out []byte) {
		for i := 0; len(out)*8 < bits; i++ {
			out = append(out, h(kdk, binary.BigEndian.AppendUint16(nil, uint16(i)), []byte(label), binary.BigEndian.AppendUint16(nil, uint16(bits)))...)
		}
		return out[:bits/8]
	}
	candidates := prf("length", 128*2*8)
	mask := 1
	for mask-1 < k-11 {
		mask *= 2
	}
	length := 0
	for i := 127; i >= 0; i-- {
		if n := int(binary.BigEndian.Uint16(candidates[2*i:])) % mask; n < k-10 {
			length = n
			break
		}
	}
	return prf("message", 8*k)[k-length:]
}

// model is what Unpad must give.
func model(em, ciphertext, secret []byte) []byte {
	if len(em) < 11 {
		return nil
	}
	if rest, ok := bytes.CutPrefix(em, []byte{0, 2}); ok {
		if i := bytes.IndexByte(rest, 0); i >= 8 {
			return rest[i+1:]
		}
	}
	return modelFake(len(em), ciphertext, secret)
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// padded is a well padded block of k octets.
func padded(k int, message []byte) []byte {
	em := random(k)
	for i := range em {
		if em[i] == 0 {
			em[i] = 1
		}
	}
	em[0], em[1], em[k-1-len(message)] = 0, 2, 0
	copy(em[k-len(message):], message)
	return em
}

// unpad checks Unpad against the model, and what it leaves in em.
func unpad(t *testing.T, what string, em, ciphertext, secret []byte) []byte {
	t.Helper()
	want := slices.Clone(model(em, ciphertext, secret))
	got := Unpad(em, ciphertext, secret)
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %x, want %x", what, got, want)
	}
	if before := em[:len(em)-len(got)]; !bytes.Equal(before, make([]byte, len(before))) || !bytes.Equal(em[len(before):], got) {
		t.Errorf("%s: em is %x", what, em)
	}
	return got
}

func TestGoodPadding(t *testing.T) {
	secret := random(SecretSize)
	for _, k := range []int{11, 12, 64, 256, 384, 512} {
		for n := range k - 10 {
			message := random(n)
			if got := unpad(t, "good", padded(k, message), random(k), secret); !bytes.Equal(got, message) {
				t.Fatalf("%d of %d: %x, want %x", n, k, got, message)
			}
		}
	}
	// A message may begin with zeros: the first zero separates.
	if got := Unpad(padded(256, []byte{0, 0, 7}), nil, secret); !bytes.Equal(got, []byte{0, 0, 7}) {
		t.Errorf("%x", got)
	}
}

func TestBadPadding(t *testing.T) {
	for _, k := range []int{11, 256, 257, 384, 512} {
		// They are fixed, so that no two fakes are the same by chance: one of 246 is empty.
		secret, ciphertext := bytes.Repeat([]byte{1}, SecretSize), bytes.Repeat([]byte{2}, k)
		fake := modelFake(k, ciphertext, secret)
		bad := map[string][]byte{
			"nothing": make([]byte, k),
			"ones":    bytes.Repeat([]byte{0xff}, k),
			"no separator": func() []byte {
				em := padded(k, nil)
				em[k-1] = 1
				return em
			}(),
		}
		change := func(what string, at int, to byte) {
			em := padded(k, nil)
			em[at] = to
			bad[what] = em
		}
		change("first octet", 0, 1)
		change("first octet's top bit", 0, 0x80)
		change("signature", 1, 1)
		change("no type", 1, 0)
		change("type 3", 1, 3)
		for i := 2; i < 10; i++ {
			change("zero in the padding at "+string(rune('0'+i)), i, 0)
		}
		for what, em := range bad {
			if got := unpad(t, what, em, ciphertext, secret); !bytes.Equal(got, fake) {
				t.Errorf("%s: another fake", what)
			}
		}
		if k == 11 {
			continue // its fakes are empty
		}
		if again := modelFake(k, ciphertext, bytes.Repeat([]byte{3}, SecretSize)); bytes.Equal(again, fake) {
			t.Error("another secret gives the same fake")
		}
		ciphertext[k-1] ^= 1
		if again := modelFake(k, ciphertext, secret); bytes.Equal(again, fake) {
			t.Error("another ciphertext gives the same fake")
		}
	}
}

// The attack: with pairs of ciphertexts of which one is well padded, nothing that comes out tells which. Lengths of fakes are spread
// over all that are possible, octets too.
func TestFakesLookLikeMessages(t *testing.T) {
	const k, n = 256, 20000
	secret := []byte("the secret of this test, 32 long")
	lengths, octets := make([]int, k), make([]int, 256)
	total := 0
	for i := range n {
		got := Unpad(make([]byte, k), binary.BigEndian.AppendUint64(make([]byte, k-8), uint64(i)), secret)
		lengths[len(got)]++
		for _, b := range got {
			octets[b]++
			total++
		}
	}
	chi := func(counts []int, total int) (sum float64) {
		want := float64(total) / float64(len(counts))
		for _, c := range counts {
			sum += (float64(c) - want) * (float64(c) - want) / want
		}
		return sum
	}
	// The inputs are fixed, so this never fails by chance. 245 and 255 degrees of freedom: 5 deviations over the mean are 356 and 368.
	if c := chi(lengths[:k-10], n); c > 356 {
		t.Errorf("lengths are not even: chi squared %.0f", c)
	}
	if c := chi(octets, total); c > 368 {
		t.Errorf("octets are not even: chi squared %.0f", c)
	}
	for n, c := range lengths[k-10:] {
		if c != 0 {
			t.Errorf("%d fakes of %d octets", c, k-10+n)
		}
	}
}

func TestRealKey(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	secret := random(SecretSize)
	for _, n := range []int{0, 1, 32, 245} {
		message := random(n)
		c := new(big.Int).Exp(new(big.Int).SetBytes(padded(256, message)), big.NewInt(int64(key.E)), key.N).FillBytes(make([]byte, 256))
		em := new(big.Int).Exp(new(big.Int).SetBytes(c), key.D, key.N).FillBytes(make([]byte, 256))
		if got := unpad(t, "real", em, c, secret); !bytes.Equal(got, message) {
			t.Errorf("%d: %x, want %x", n, got, message)
		}
	}
}

func TestTooShort(t *testing.T) {
	for n := range 11 {
		em := bytes.Repeat([]byte{7}, n)
		if got := Unpad(em, em, nil); len(got) != 0 || !bytes.Equal(em, make([]byte, n)) {
			t.Errorf("%d: %x, %x", n, got, em)
		}
	}
}

func FuzzUnpad(f *testing.F) {
	f.Add(padded(64, []byte("message")), []byte("ciphertext"), []byte("secret"))
	f.Add(make([]byte, 11), []byte{}, []byte{})
	f.Add([]byte("\x00\x0212345678\x00"), []byte{1}, []byte{2})
	f.Add([]byte("\x00\x021234567\x00\x00"), []byte{1}, []byte{2})
	f.Fuzz(func(t *testing.T, em, ciphertext, secret []byte) {
		if len(em) > 600 {
			return
		}
		unpad(t, "fuzzed", slices.Clone(em), ciphertext, secret)
	})
}
