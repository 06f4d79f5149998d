package hsmpool_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/hsmpool/hsmtest/faulty"
)

// faultRig is a pool of two members under load, each behind a faulty module of its own, and driven by worker processes.
type faultRig struct {
	*testing.T
	h       *hsmtest.HSM
	p       *hsmpool.Pool
	modules [2]*faulty.Module
	keys    []faultKey
	done    atomic.Int64 // operations, all of them right
	failed  atomic.Int64
	rates   []float64 // operations a second without a fault: before the first, and in the long run after each
}

// faultKey is a key under load, and how to check what it does.
type faultKey struct {
	key   *hsmpool.Key
	check func(r *faultRig, ctx context.Context, k *hsmpool.Key, n uint64) error
}

// fault is one thing that goes wrong with one member. hold keeps it so for a while; what it began is taken back after it by
// Module.Reset and Restore.
type fault struct {
	name  string
	begin func(r *faultRig, victim int)
	met   func(r *faultRig, victim int) bool // it has been noticed, or can't be
	end   func(r *faultRig, victim int)      // nil: Reset is all
	long  time.Duration                      // how long it lasts at least, the first time in the long run
}

var memberNames = [2]string{"a", "b"}

// workerPIDs are the processes of a member.
func (r *faultRig) workerPIDs(victim int) (pids []int) {
	for _, w := range r.p.Status()[victim].Workers {
		if w.PID != 0 {
			pids = append(pids, w.PID)
		}
	}
	return pids
}

// signal sends a signal to the member's worker processes. One may be gone already.
func (r *faultRig) signal(victim int, s syscall.Signal) {
	for _, pid := range r.workerPIDs(victim) {
		if err := syscall.Kill(pid, s); err != nil && err != syscall.ESRCH {
			r.Errorf("kill: %v", err)
		}
	}
}

// notUp is for faults that take the member down.
func notUp(r *faultRig, victim int) bool {
	s := r.p.Status()[victim]
	return s.State == hsmpool.StateDown || s.Restarts > r.restarts(victim)
}

func fired(fns ...string) func(*faultRig, int) bool {
	return func(r *faultRig, victim int) bool {
		for _, fn := range fns {
			if r.modules[victim].Fired(fn) > 0 {
				return true
			}
		}
		return false
	}
}

// restartsBefore is set before each fault. It belongs to the goroutine of the test.
var restartsBefore [2]uint64

func (r *faultRig) restarts(victim int) uint64 { return restartsBefore[victim] }

// hotFunctions are those of the operations under load.
var hotFunctions = []string{"C_SignInit", "C_Sign", "C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt", "C_UnwrapKey"}

// failing makes all hot functions of a member return a code.
func failing(name string, code uint, when faulty.When) fault {
	return fault{name: name, met: fired(hotFunctions...), begin: func(r *faultRig, victim int) {
		for _, fn := range hotFunctions {
			r.modules[victim].Fail(fn, code, when, faulty.Always)
		}
	}}
}

// nowAndThen makes some calls of both members return a code.
func nowAndThen(name string, code uint, when faulty.When) fault {
	return fault{name: name, met: fired(hotFunctions...), begin: func(r *faultRig, _ int) {
		for _, m := range r.modules {
			for i, fn := range hotFunctions {
				m.FailEvery(fn, code, when, 97+i)
			}
		}
	}}
}

// reopening makes a function fail that is needed to open a member, and has the member opened.
func reopening(name, fn string, code uint) fault {
	return fault{name: name, met: fired(fn), begin: func(r *faultRig, victim int) {
		r.modules[victim].Fail(fn, code, faulty.Before, faulty.Always)
		r.signal(victim, syscall.SIGKILL)
	}}
}

// faultTable is what can go wrong.
var faultTable = []fault{
	{name: "worker SIGKILL", met: notUp, begin: func(r *faultRig, victim int) { r.signal(victim, syscall.SIGKILL) }},
	{name: "worker SIGSTOP", met: notUp, begin: func(r *faultRig, victim int) { r.signal(victim, syscall.SIGSTOP) }},
	{name: "SEGV in C_Sign", met: fired("C_Sign"), begin: func(r *faultRig, victim int) { r.modules[victim].Crash("C_Sign") }},
	{name: "SEGV in C_UnwrapKey", met: fired("C_UnwrapKey"), begin: func(r *faultRig, victim int) { r.modules[victim].Crash("C_UnwrapKey") }},
	{name: "exit in C_Encrypt", met: fired("C_Encrypt"), begin: func(r *faultRig, victim int) { r.modules[victim].Exit("C_Encrypt", 5) }},
	{name: "hang in C_Sign", met: notUp, begin: func(r *faultRig, victim int) { r.modules[victim].Hang("C_Sign") }},
	{name: "hang in C_EncryptInit", met: notUp, begin: func(r *faultRig, victim int) { r.modules[victim].Hang("C_EncryptInit") }},
	{name: "hang in C_Login", met: fired("C_Login"), begin: func(r *faultRig, victim int) {
		r.modules[victim].Hang("C_Login")
		r.signal(victim, syscall.SIGKILL)
	}},
	failing("CKR_DEVICE_REMOVED before", pkcs11.CKR_DEVICE_REMOVED, faulty.Before),
	failing("CKR_SESSION_HANDLE_INVALID after", pkcs11.CKR_SESSION_HANDLE_INVALID, faulty.After),
	failing("CKR_USER_NOT_LOGGED_IN before", pkcs11.CKR_USER_NOT_LOGGED_IN, faulty.Before),
	failing("CKR_TOKEN_NOT_PRESENT after", pkcs11.CKR_TOKEN_NOT_PRESENT, faulty.After),
	failing("CKR_DEVICE_MEMORY before", pkcs11.CKR_DEVICE_MEMORY, faulty.Before),
	failing("CKR_GENERAL_ERROR after", pkcs11.CKR_GENERAL_ERROR, faulty.After),
	failing("CKR_DEVICE_ERROR before", pkcs11.CKR_DEVICE_ERROR, faulty.Before),
	nowAndThen("CKR_SESSION_HANDLE_INVALID now and then", pkcs11.CKR_SESSION_HANDLE_INVALID, faulty.Before),
	nowAndThen("CKR_GENERAL_ERROR now and then", pkcs11.CKR_GENERAL_ERROR, faulty.After),
	nowAndThen("CKR_DEVICE_MEMORY now and then", pkcs11.CKR_DEVICE_MEMORY, faulty.Before),
	func() fault {
		f := reopening("C_Initialize fails", "C_Initialize", pkcs11.CKR_GENERAL_ERROR)
		f.long = time.Minute
		return f
	}(),
	reopening("C_Login fails", "C_Login", pkcs11.CKR_DEVICE_ERROR),
	reopening("C_OpenSession fails", "C_OpenSession", pkcs11.CKR_SESSION_COUNT),
	reopening("C_FindObjects fails", "C_FindObjects", pkcs11.CKR_DEVICE_ERROR),
	{name: "token files gone", met: notUp,
		begin: func(r *faultRig, victim int) { r.h.Remove(r.T, memberNames[victim]) },
		end:   func(r *faultRig, victim int) { r.h.Restore(r.T, memberNames[victim]) }},
	{name: "100 times as slow", met: func(*faultRig, int) bool { return true }, begin: func(r *faultRig, victim int) {
		for _, fn := range hotFunctions {
			r.modules[victim].Slow(fn, 100)
		}
	}},
	{name: "one session", met: notUp, begin: func(r *faultRig, victim int) {
		r.modules[victim].SessionLimit(1)
		r.signal(victim, syscall.SIGKILL)
	}},
	{name: "three sessions, said to be any number", met: notUp, begin: func(r *faultRig, victim int) {
		r.modules[victim].SessionLimitUnreported(3)
		r.signal(victim, syscall.SIGKILL)
	}},
}

// TestFaults has 64 callers use two members while one thing after the other goes wrong with one of them. No call may fail, no
// result may be wrong, no session may be left, and both members must be at work again after each fault.
//
// KEYWARD_TEST_FAULTS says how many faults there are to be at least; without it each happens once.
func TestFaults(t *testing.T) {
	want := len(faultTable)
	if v := os.Getenv("KEYWARD_TEST_FAULTS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatal(err)
		}
		want = n
	}
	r := newFaultRig(t)
	ctx, stop := context.WithCancel(context.Background())
	var callers sync.WaitGroup
	for i := range 64 {
		callers.Go(func() { r.call(ctx, i) })
	}
	long := want > len(faultTable)
	r.measure(time.Second)
	faults := 0
	for ; faults < want && !t.Failed(); faults++ {
		f := &faultTable[faults%len(faultTable)]
		hold := time.Duration(0)
		if long && faults < len(faultTable) {
			hold = f.long
		}
		r.suffer(f, (faults+faults/len(faultTable))%2, hold)
		if long {
			r.measure(200 * time.Millisecond)
		}
	}
	r.measure(time.Second)
	first, last, after := r.rates[0], r.rates[len(r.rates)-1], slices.Sorted(slices.Values(r.rates[1:]))
	t.Logf("operations a second without a fault: %.0f before the first, %.0f after the last, %.0f in the median after one", first, last, after[len(after)/2])
	if long && after[len(after)/2] < first/2 {
		t.Error("the pool does not come back to its rate")
	}
	stop()
	callers.Wait()
	if err := r.p.Close(); err != nil {
		t.Error(err)
	}
	for i, m := range r.modules {
		if n := m.Sessions(); n != 0 {
			t.Errorf("member %s: %d sessions are left", memberNames[i], n)
		}
	}
	t.Logf("%d faults, %d operations, %d failed", faults, r.done.Load(), r.failed.Load())
	if r.done.Load() < int64(100*faults) {
		t.Errorf("the test does not test: %d operations in %d faults", r.done.Load(), faults)
	}
}

func newFaultRig(t *testing.T) *faultRig {
	h := hsmtest.New(t, memberNames[:]...)
	h.Ceremony(t)
	c := h.Isolated(1)
	c.Members[1].Workers = 2
	c.Probe = 50 * time.Millisecond
	r := &faultRig{T: t, h: h}
	for i := range r.modules {
		r.modules[i] = faulty.New(t, hsmtest.Module)
		r.modules[i].Manufacturer("keyward tests")
		c.Members[i].Module = r.modules[i].Path
	}
	r.p = hsmtest.OpenConfig(t, c)
	add := func(kt hsmpool.KeyType, u hsmpool.Usage, n int, check func(g *hsmpool.Generated) func(*faultRig, context.Context, *hsmpool.Key, uint64) error) {
		for range n {
			k, g := wrappedKey(t, r.p, kt, u)
			k.ID = fmt.Sprint("key ", len(r.keys))
			r.keys = append(r.keys, faultKey{k, check(g)})
		}
	}
	add(hsmpool.AES256, hsmpool.UseEncrypt, 8, func(*hsmpool.Generated) func(*faultRig, context.Context, *hsmpool.Key, uint64) error {
		return (*faultRig).roundTrip
	})
	add(hsmpool.P256, hsmpool.UseSign, 6, func(g *hsmpool.Generated) func(*faultRig, context.Context, *hsmpool.Key, uint64) error {
		pub, err := x509.ParsePKIXPublicKey(g.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		return func(r *faultRig, ctx context.Context, k *hsmpool.Key, n uint64) error {
			digest := sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
			j := hsmpool.Job{Op: hsmpool.SignECDSA, Key: k, In: digest[:], Principal: fmt.Sprint(n % 5)}
			if err := r.p.Do(ctx, &j); err != nil {
				return err
			}
			if !ecdsa.Verify(pub.(*ecdsa.PublicKey), digest[:], new(big.Int).SetBytes(j.Out[:32]), new(big.Int).SetBytes(j.Out[32:])) {
				return fmt.Errorf("a wrong signature")
			}
			return nil
		}
	})
	add(hsmpool.RSA2048, hsmpool.UseSign, 1, func(g *hsmpool.Generated) func(*faultRig, context.Context, *hsmpool.Key, uint64) error {
		pub, err := x509.ParsePKIXPublicKey(g.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		return func(r *faultRig, ctx context.Context, k *hsmpool.Key, n uint64) error {
			digest := sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
			j := hsmpool.Job{Op: hsmpool.SignPKCS1SHA256, Key: k, In: digest[:]}
			if err := r.p.Do(ctx, &j); err != nil {
				return err
			}
			return rsa.VerifyPKCS1v15(pub.(*rsa.PublicKey), 5, digest[:], j.Out)
		}
	})
	return r
}

func (r *faultRig) roundTrip(ctx context.Context, k *hsmpool.Key, n uint64) error {
	text := make([]byte, n%1500)
	for i := range text {
		text[i] = byte(n) + byte(i)
	}
	nonce := binary.BigEndian.AppendUint64(make([]byte, 4), n)
	e := hsmpool.Job{Op: hsmpool.EncryptGCM, Key: k, In: text, Nonce: nonce}
	if err := r.p.Do(ctx, &e); err != nil {
		return fmt.Errorf("encrypt: %w", err)
	}
	d := hsmpool.Job{Op: hsmpool.DecryptGCM, Key: k, In: e.Out, Nonce: nonce}
	if err := r.p.Do(ctx, &d); err != nil {
		return fmt.Errorf("decrypt: %w", err)
	}
	if !bytes.Equal(d.Out, text) {
		return fmt.Errorf("a wrong plaintext")
	}
	return nil
}

// call is one caller, until ctx ends.
func (r *faultRig) call(ctx context.Context, caller int) {
	rnd := rand.New(rand.NewPCG(7, uint64(caller)))
	for n := uint64(caller) << 32; ctx.Err() == nil; n++ {
		k := r.keys[rnd.IntN(len(r.keys))]
		key := k.key
		if rnd.IntN(200) == 0 { // one that nobody has loaded
			fresh := *key
			fresh.ID = fmt.Sprint("fresh ", n)
			key = &fresh
		}
		mine, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		began := time.Now()
		err := k.check(r, mine, key, n)
		cancel()
		if err != nil {
			if r.failed.Add(1) <= 10 {
				r.Errorf("caller %d, after %v: %v", caller, time.Since(began).Round(time.Millisecond), err)
			}
			continue
		}
		r.done.Add(1)
	}
}

// measure notes the rate.
func (r *faultRig) measure(d time.Duration) {
	began, before := time.Now(), r.done.Load()
	time.Sleep(d)
	r.rates = append(r.rates, float64(r.done.Load()-before)/time.Since(began).Seconds())
}

// suffer has a member suffer a fault, for a while and at least so long that many operations have met it, and waits until all is well.
func (r *faultRig) suffer(f *fault, victim int, hold time.Duration) {
	for i, s := range r.p.Status() {
		restartsBefore[i] = s.Restarts
	}
	began := time.Now()
	before := r.done.Load()
	f.begin(r, victim)
	r.until(f.name+": nobody has noticed", func() bool { return f.met(r, victim) })
	met := time.Since(began)
	r.until(f.name+": nothing is done", func() bool { return r.done.Load() >= before+100 })
	time.Sleep(hold - time.Since(began))
	for _, m := range r.modules {
		m.Reset()
	}
	if f.end != nil {
		f.end(r, victim)
	}
	ended := time.Now()
	r.until(f.name+": not all is well afterwards", r.allUp)
	well := time.Since(ended)
	at := r.p.Status()
	r.until(f.name+": a member does not work afterwards", func() bool {
		for i, s := range r.p.Status() {
			if s.Done < at[i].Done+50 {
				return false
			}
		}
		return true
	})
	r.Logf("%-40s on %s: noticed after %v, well %v after its end", f.name, memberNames[victim], met.Round(time.Millisecond), well.Round(time.Millisecond))
}

func (r *faultRig) allUp() bool {
	for _, s := range r.p.Status() {
		for _, w := range s.Workers {
			if w.State != hsmpool.StateUp {
				return false
			}
		}
	}
	return true
}

// until waits for something under load.
func (r *faultRig) until(why string, ok func() bool) {
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			r.Fatalf("%s: %+v", why, r.p.Status())
		}
	}
}
