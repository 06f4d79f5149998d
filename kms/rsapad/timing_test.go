package rsapad

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// BenchmarkTiming looks for a difference in time between good padding and bad, as dudect does: the two are mixed at random, each call is
// timed, slow ones are cut off at several limits, and Welch's t says how sure it is that the means differ. Over 10 is a leak; a few are
// noise. It reports the largest t of all limits; "leaky" is the same for an unpadding that stops early, to show that there is something to see.
//
// The figures are worth something with some 100,000 calls: -benchtime 200000x, on a quiet machine. The good messages have the lengths that
// their fakes would have, as the length is no secret.
func BenchmarkTiming(b *testing.B) {
	for name, spoil := range map[string]func(em []byte){
		"type":         func(em []byte) { em[1] = 1 },
		"early zero":   func(em []byte) { em[2] = 0 },
		"late zero":    func(em []byte) { em[9] = 0 },
		"no separator": func(em []byte) { em[len(em)-1-separated(em)] |= 1 },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportMetric(timing(b, b.N, spoil, func(em, c, secret []byte) { Unpad(em, c, secret) }), "t")
			b.ReportMetric(timing(b, min(b.N, 20000), spoil, leaky), "t-leaky")
		})
	}
}

// separated is the length of the message of a block that is well padded.
func separated(em []byte) int { return len(em) - 3 - slices.Index(em[2:], 0) }

// leaky gives up when it sees something wrong, and makes no fake.
func leaky(em, _, _ []byte) {
	if em[0] != 0 || em[1] != 2 {
		return
	}
	for i := 2; i < len(em); i++ {
		if em[i] == 0 {
			if i >= 10 {
				copy(em, em[i+1:])
			}
			return
		}
	}
}

func timing(b *testing.B, n int, spoil func([]byte), unpad func(em, c, secret []byte)) float64 {
	const k, blocks = 256, 512
	secret := random(SecretSize)
	type input struct{ em, ciphertext []byte }
	inputs := [2][]input{} // good, bad
	for i := range 2 * blocks {
		in := input{ciphertext: random(k)}
		for in.em == nil || separated(in.em) != len(modelFake(k, in.ciphertext, secret)) {
			in.em = padded(k, random(len(modelFake(k, in.ciphertext, secret))))
		}
		if i%2 == 1 {
			spoil(in.em)
		}
		inputs[i%2] = append(inputs[i%2], in)
	}
	times := [2][]float64{}
	em := make([]byte, k)
	for range n {
		class := rand.IntN(2)
		in := inputs[class][rand.IntN(blocks)]
		copy(em, in.em)
		start := time.Now()
		unpad(em, in.ciphertext, secret)
		times[class] = append(times[class], float64(time.Since(start)))
	}
	all := slices.Sorted(slices.Values(slices.Concat(times[0], times[1])))
	largest := 0.0
	for _, part := range []float64{0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1} {
		limit := all[int(part*float64(len(all)-1))]
		if t := math.Abs(welch(times[0], times[1], limit)); t > largest {
			largest = t
		}
	}
	return largest
}

// welch is Welch's t of the values up to a limit; 0 if there are too few.
func welch(a, b []float64, limit float64) float64 {
	mean := func(x []float64) (n, mean, variance float64) {
		for _, v := range x {
			if v <= limit {
				n++
				d := v - mean
				mean += d / n
				variance += d * (v - mean)
			}
		}
		return n, mean, variance / (n - 1)
	}
	na, ma, va := mean(a)
	nb, mb, vb := mean(b)
	if na < 100 || nb < 100 || va+vb == 0 {
		return 0
	}
	return (ma - mb) / math.Sqrt(va/na+vb/nb)
}

func BenchmarkUnpad(b *testing.B) {
	em, c, secret := padded(256, random(48)), random(256), random(SecretSize)
	b.ReportAllocs()
	for b.Loop() {
		Unpad(em, c, secret)
	}
}
