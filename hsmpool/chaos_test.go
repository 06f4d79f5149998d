package hsmpool_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
)

// TestChaos has many callers, some of whom give up at any moment, while a member's sessions are closed and its login ends
// behind its worker's back, and the other's token goes away and comes back. Every job must end in time; a result must be
// right; valid data must never be called bad; and afterwards both members must be up.
func TestChaos(t *testing.T) {
	defer hsmpool.NoRenewLimit()()
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	p := h.Open(t)
	var keys []*hsmpool.Key
	for i := range 6 {
		k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
		k.ID += string('a' + rune(i))
		keys = append(keys, k)
	}
	signer, _ := wrappedKey(t, p, hsmpool.RSA2048, hsmpool.UseSign)
	for _, m := range []string{"a", "b"} {
		if err := hsmpool.SetCachedKeys(p, m, 4); err != nil { // so that keys are loaded all the time
			t.Fatal(err)
		}
	}
	var served, canceled, unavailable, generated atomic.Int64
	enough := func() bool { return served.Load() >= 100 && canceled.Load() > 0 && generated.Load() > 0 }
	ctx := untilDone(t, 2500*time.Millisecond, enough)
	check := func(what string, err error, patient bool) {
		switch hsmpool.KindOf(err) {
		case hsmpool.KindCanceled:
			if patient {
				t.Errorf("%s: %v", what, err)
			}
			canceled.Add(1)
		case hsmpool.KindUnavailable:
			if unavailable.Add(1) <= 3 {
				t.Logf("%s: %v", what, err)
			}
		default:
			t.Errorf("%s: %v", what, err)
		}
	}
	var wg sync.WaitGroup
	for caller := range 12 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(caller)))
			patient := caller%3 == 0
			for n := uint64(0); ctx.Err() == nil; n++ {
				mine, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				if !patient && r.IntN(3) == 0 {
					time.AfterFunc(time.Duration(r.IntN(3000))*time.Microsecond, cancel)
				}
				k := keys[r.IntN(len(keys))]
				nonce := binary.BigEndian.AppendUint64(make([]byte, 4), n)
				nonce[0] = byte(caller)
				text := make([]byte, r.IntN(2000))
				for i := range text {
					text[i] = byte(r.Uint32())
				}
				switch {
				case caller == 5 && n%20 == 0:
					if _, err := p.Generate(mine, hsmpool.P256, hsmpool.UseSign); err != nil {
						check("generate", err, patient)
					} else {
						generated.Add(1)
					}
				case caller == 7:
					j := &hsmpool.Job{Op: hsmpool.SignPKCS1SHA256, Key: signer, In: make([]byte, 32)}
					if err := p.Do(mine, j); err != nil {
						check("sign", err, patient)
					}
					clear(j.In) // the race detector sees who else still has it
				case caller == 6:
					jobs := make([]*hsmpool.Job, 100)
					for i := range jobs {
						jobs[i] = &hsmpool.Job{Op: hsmpool.EncryptGCM, Key: keys[i%len(keys)], In: text, Nonce: nonce}
					}
					p.DoAll(mine, jobs)
					for _, j := range jobs {
						if j.Err != nil {
							check("batch", j.Err, patient)
						} else if !bytes.Equal(j.Out, jobs[0].Out) && j.Key == jobs[0].Key && jobs[0].Err == nil {
							t.Error("one text, one key, one nonce, two ciphertexts")
						}
					}
				default:
					e := &hsmpool.Job{Op: hsmpool.EncryptGCM, Key: k, In: text, Nonce: nonce}
					if err := p.Do(mine, e); err != nil {
						check("encrypt", err, patient)
						break
					}
					d := &hsmpool.Job{Op: hsmpool.DecryptGCM, Key: k, In: e.Out, Nonce: nonce}
					if err := p.Do(mine, d); err != nil {
						check("decrypt", err, patient)
						break
					}
					if !bytes.Equal(d.Out, text) {
						t.Error("a wrong result")
					}
					served.Add(1)
				}
				cancel()
				p.Status()
			}
		})
	}
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			switch i % 5 {
			case 0, 2:
				_ = hsmpool.KillSessions(p, "a", false)
			case 1:
				_ = hsmpool.KillSessions(p, "a", true)
			case 3:
				_ = hsmpool.Logout(p, "a")
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			h.Remove(t, "b")
			time.Sleep(400 * time.Millisecond)
			h.Restore(t, "b")
			time.Sleep(400 * time.Millisecond)
		}
	})
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(2 * time.Minute):
		t.Fatal("jobs hang")
	}
	t.Logf("%d served, %d given up, %d found nobody, %d keys made", served.Load(), canceled.Load(), unavailable.Load(), generated.Load())
	if !enough() {
		t.Error("the test does not test")
	}
	if unavailable.Load()*10 > served.Load() {
		t.Error("too many found nobody")
	}
	await(t, p, "a", "up")
	await(t, p, "b", "up")
	if err := roundTrip(testContext(t), p, keys[0], 10); err != nil {
		t.Error(err)
	}
}
