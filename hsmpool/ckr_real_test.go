package hsmpool_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/big"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/hsmpool/hsmtest/faulty"
)

// faultyConfig puts every member behind a module of its own, of a maker that nobody knows, so that the table alone
// decides.
func faultyConfig(t testing.TB, h *hsmtest.HSM) (hsmpool.Config, []*faulty.Module) {
	t.Helper()
	c := h.Config()
	c.Probe = 20 * time.Millisecond // a member that goes down is back soon
	var modules []*faulty.Module
	for i := range c.Members {
		m := faulty.New(t, hsmtest.Module)
		m.Manufacturer("keyward tests")
		c.Members[i].Module = m.Path
		modules = append(modules, m)
	}
	return c, modules
}

// rig is a pool whose members fail to order, and what its operations must give.
type rig struct {
	*testing.T
	p       *hsmpool.Pool
	modules []*faulty.Module
	aes, ec *hsmpool.Key
	pub     *ecdsa.PublicKey
	nonce   []byte
	plain   []byte
	cipher  []byte
	fresh   int
}

func newRig(t *testing.T, maxSessions int) *rig {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	c, modules := faultyConfig(t, h)
	for i := range c.Members {
		c.Members[i].MaxSessions = maxSessions
	}
	r := &rig{T: t, modules: modules, nonce: make([]byte, 12), plain: []byte("some text")}
	r.p = hsmtest.OpenConfig(t, c)
	r.aes, _ = wrappedKey(t, r.p, hsmpool.AES256, hsmpool.UseEncrypt)
	var g *hsmpool.Generated
	r.ec, g = wrappedKey(t, r.p, hsmpool.P256, hsmpool.UseSign)
	pub, err := x509.ParsePKIXPublicKey(g.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	r.pub = pub.(*ecdsa.PublicKey)
	j := hsmpool.Job{Op: hsmpool.EncryptGCM, Key: r.aes, In: r.plain, Nonce: r.nonce}
	if err := r.p.Do(t.Context(), &j); err != nil {
		t.Fatal(err)
	}
	r.cipher = j.Out
	return r
}

// The operations. Each gives an error of the pool, or one that says that the result is wrong.

func (r *rig) sign(ctx context.Context) error {
	digest := sha256.Sum256([]byte("message"))
	j := hsmpool.Job{Op: hsmpool.SignECDSA, Key: r.ec, In: digest[:]}
	if err := r.p.Do(ctx, &j); err != nil {
		return err
	}
	if len(j.Out) != 64 || !ecdsa.Verify(r.pub, digest[:], new(big.Int).SetBytes(j.Out[:32]), new(big.Int).SetBytes(j.Out[32:])) {
		return fmt.Errorf("wrong result: the signature %x is not valid", j.Out)
	}
	return nil
}

func (r *rig) encrypt(ctx context.Context) error {
	return r.gcm(ctx, hsmpool.EncryptGCM, r.aes, r.plain, r.cipher)
}

func (r *rig) decrypt(ctx context.Context) error {
	return r.gcm(ctx, hsmpool.DecryptGCM, r.aes, r.cipher, r.plain)
}

// unwrap uses a key that no member has loaded.
func (r *rig) unwrap(ctx context.Context) error {
	k := *r.aes
	r.fresh++
	k.ID = fmt.Sprint("fresh ", r.fresh)
	return r.gcm(ctx, hsmpool.DecryptGCM, &k, r.cipher, r.plain)
}

func (r *rig) gcm(ctx context.Context, op hsmpool.Op, k *hsmpool.Key, in, want []byte) error {
	j := hsmpool.Job{Op: op, Key: k, In: in, Nonce: r.nonce}
	if err := r.p.Do(ctx, &j); err != nil {
		return err
	}
	if !bytes.Equal(j.Out, want) {
		return fmt.Errorf("wrong result: %x, not %x", j.Out, want)
	}
	return nil
}

// places are where a return value comes from, and the operation that gets there. Some functions are called by the pool on
// its own behalf too, so there it may be a look at the member that meets a fault.
var places = []struct {
	fn     string
	do     func(*rig, context.Context) error
	shared bool
}{
	{"C_SignInit", (*rig).sign, false}, {"C_Sign", (*rig).sign, false},
	{"C_EncryptInit", (*rig).encrypt, true}, {"C_Encrypt", (*rig).encrypt, true},
	{"C_DecryptInit", (*rig).decrypt, false}, {"C_Decrypt", (*rig).decrypt, false},
	{"C_UnwrapKey", (*rig).unwrap, false},
	{"C_OpenSession", (*rig).sign, true},
}

// prepare makes the next operation of a place call the function that is to fail.
func prepare(m *faulty.Module, fn string) {
	if fn == "C_OpenSession" {
		// The one work session of the member dies, so the next needs a new one.
		m.Fail("C_SignInit", pkcs11.CKR_SESSION_HANDLE_INVALID, faulty.Before, 1)
	}
}

// recovered waits until every member is up, has served, and is up still: a look at it that met the fault may end late. It
// finds no session too many.
func (r *rig) recovered(ctx context.Context, sessions int) error {
	hsmpool.ForgetRefusals(r.p) // the next fault is to be met, too
	before := r.p.Status()
	for served := false; !served || !r.allUp(); time.Sleep(200 * time.Microsecond) {
		if ctx.Err() != nil {
			return fmt.Errorf("not up again, or not serving: %+v", r.p.Status())
		}
		if !r.allUp() {
			continue
		}
		if err := r.decrypt(ctx); err != nil && r.allUp() {
			return fmt.Errorf("afterwards: %w", err)
		}
		after := r.p.Status()
		served = after[0].Done > before[0].Done && after[1].Done > before[1].Done
	}
	for i, m := range r.modules {
		if n := m.Sessions(); n > sessions {
			return fmt.Errorf("member %d has %d sessions open", i, n)
		}
	}
	return nil
}

func (r *rig) allUp() bool {
	return !slices.ContainsFunc(r.p.Status(), func(s hsmpool.Status) bool { return s.State != "up" })
}

// testedCodes are those of the table that are errors wherever they come from, a vendor's and one that is none.
func testedCodes(every int) (codes []uint) {
	for code := range hsmpool.CKRCodes() {
		if none, _, _ := hsmpool.CKRRow(code); !none {
			codes = append(codes, code)
		}
	}
	codes = append(codes, pkcs11.CKR_VENDOR_DEFINED+0x1234, 0x12345)
	slices.Sort(codes)
	var sample []uint
	for i := 0; i < len(codes); i += every {
		sample = append(sample, codes[i])
	}
	return sample
}

// raceDetector says whether the tests were built with it, which makes everything ten times as slow.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// TestCKREverywhere makes a module return every code of the table, from every call of an operation, before and after its
// effect. If one member does so once, the caller gets a right result all the same, unless the code blames the caller's
// data. If all members go on doing so, the caller gets the kind of error that the table says. Afterwards all serve again.
func TestCKREverywhere(t *testing.T) {
	defer hsmpool.NoRenewLimit()()
	every := 1
	if raceDetector() || testing.Short() {
		every = 5
	}
	const sessions = 3 // of crypto11, the anchor, and one to work in
	r := newRig(t, sessions)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	if err := r.recovered(ctx, sessions); err != nil {
		t.Fatal(err)
	}
	rows, met := 0, 0
	for i, code := range testedCodes(every) {
		_, data, kind := hsmpool.CKRRow(code)
		for k, at := range places {
			for _, when := range bothTimes {
				what := fmt.Sprintf("%v from %s (when %d)", pkcs11.Error(code), at.fn, when)
				rows++
				target := r.modules[(i+k)%2]
				prepare(target, at.fn)
				target.Fail(at.fn, code, when, 1)
				for target.Fired(at.fn) == 0 && ctx.Err() == nil {
					err := at.do(r, ctx)
					fired := target.Fired(at.fn) == 1
					switch {
					case err == nil && !(data && fired && !at.shared):
					case data && fired && hsmpool.KindOf(err) == hsmpool.KindBadData:
					default:
						t.Errorf("%s, once: %v", what, err)
					}
				}
				met += target.Fired(at.fn)
				target.Release()
				if err := r.recovered(ctx, sessions); err != nil {
					t.Fatalf("%s, once: %v", what, err)
				}
			}
			what := fmt.Sprintf("%v from %s, always", pkcs11.Error(code), at.fn)
			for _, m := range r.modules {
				prepare(m, at.fn)
				m.Fail(at.fn, code, faulty.Before, faulty.Always)
			}
			err := at.do(r, ctx)
			// Without new sessions the operation may find the anchor, or a member that can't be opened again.
			fits := err != nil && hsmpool.KindOf(err) == kind ||
				at.fn == "C_OpenSession" && (err == nil || hsmpool.KindOf(err) == hsmpool.KindUnavailable)
			if !fits {
				t.Errorf("%s: %v, want %v", what, err, kind)
			}
			for _, m := range r.modules {
				m.Release()
			}
			if err := r.recovered(ctx, sessions); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	if met != rows {
		t.Errorf("%d of %d faults were met", met, rows)
	}
	if err := r.p.Close(); err != nil {
		t.Fatal(err)
	}
	for i, m := range r.modules {
		if n := m.Sessions(); n != 0 {
			t.Errorf("member %d: %d sessions leaked", i, n)
		}
	}
	t.Logf("%d faults; sessions opened %d and %d times", rows, r.modules[0].Calls("C_OpenSession"), r.modules[1].Calls("C_OpenSession"))
}

// elsewhere are the functions that the pool calls around operations: to find out, to load, to open and to close. begin says
// that they are called when a member opens.
var elsewhere = []struct {
	fn    string
	begin bool
	codes func(code uint) bool // nil: all
	when  []faulty.When
}{
	{"C_GetSessionInfo", false, nil, bothTimes}, {"C_FindObjectsInit", false, nil, bothTimes},
	{"C_FindObjects", false, nil, bothTimes}, {"C_FindObjectsFinal", false, nil, bothTimes},
	{"C_GetAttributeValue", true, nil, bothTimes}, {"C_CreateObject", false, nil, bothTimes},
	{"C_WrapKey", false, nil, bothTimes}, {"C_DestroyObject", false, nil, bothTimes},
	{"C_CloseSession", true, nil, []faulty.When{faulty.After}}, // not closed is open, and no fault of ours
	{"C_GetSlotList", true, nil, bothTimes},
	{"C_GetTokenInfo", true, nil, bothTimes}, {"C_GetInfo", true, nil, bothTimes},
	{"C_Initialize", true, nil, []faulty.When{faulty.Before}}, {"C_Finalize", true, nil, []faulty.When{faulty.After}},
	{"C_GenerateKey", false, nil, bothTimes}, {"C_GenerateKeyPair", false, nil, bothTimes},
	// The operator's codes are for TestPINPresentedOnce.
	{"C_Login", true, hsmpool.CKRLoginAgain, bothTimes},
}

var bothTimes = []faulty.When{faulty.Before, faulty.After}

// TestCKRElsewhere: whatever one member's module returns from the functions around the operations, and three times, no caller
// notices, because there is another member; and the member comes back.
func TestCKRElsewhere(t *testing.T) {
	defer hsmpool.NoRenewLimit()()
	every := 24
	if raceDetector() || testing.Short() {
		every = 48
	}
	const sessions = 3
	r := newRig(t, sessions)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	met := map[string]int{}
	for i, code := range testedCodes(1) {
		for k, at := range elsewhere {
			// Each function has other codes of the sample.
			if (i+k)%every != 0 || at.codes != nil && !at.codes(code) {
				continue
			}
			for _, when := range at.when {
				what := fmt.Sprintf("%v from %s (when %d)", pkcs11.Error(code), at.fn, when)
				m := r.modules[0]
				if strings.HasPrefix(at.fn, "C_Generate") {
					m = r.maker(at.fn)
				}
				m.Fail(at.fn, code, when, 3)
				for range 2 {
					if err := r.unwrap(ctx); err != nil {
						t.Errorf("%s: %v", what, err)
					}
				}
				switch {
				case at.begin:
					m.Fail("C_Sign", pkcs11.CKR_DEVICE_REMOVED, faulty.Before, 1)
					for m.Fired("C_Sign") == 0 && ctx.Err() == nil {
						if err := r.sign(ctx); err != nil {
							t.Errorf("%s: %v", what, err)
						}
					}
				case strings.HasPrefix(at.fn, "C_Generate"):
					kt, usage := hsmpool.AES256, hsmpool.UseEncrypt
					if at.fn == "C_GenerateKeyPair" {
						kt, usage = hsmpool.P256, hsmpool.UseSign
					}
					if _, err := r.p.Generate(ctx, kt, usage); err != nil {
						t.Errorf("%s: %v", what, err)
					}
				}
				for end := time.Now().Add(time.Second); m.Fired(at.fn) == 0 && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
				met[at.fn] += m.Fired(at.fn)
				m.Release()
				if err := r.recovered(ctx, sessions); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
			}
		}
	}
	for _, at := range elsewhere {
		if met[at.fn] == 0 {
			t.Errorf("no fault of %s was met", at.fn)
		}
	}
	if err := r.p.Close(); err != nil {
		t.Fatal(err)
	}
	for i, m := range r.modules {
		if n := m.Sessions(); n != 0 {
			t.Errorf("member %d: %d sessions leaked", i, n)
		}
	}
	t.Log(met)
}

// maker is the member whose turn it was to make keys so far: every proof takes a turn too, so of two it is always the same.
func (r *rig) maker(fn string) *faulty.Module {
	if r.modules[1].Calls(fn) > r.modules[0].Calls(fn) {
		return r.modules[1]
	}
	return r.modules[0]
}

// TestFaultsUnderLoad: one member after the other fails every few calls, while many callers work. No call fails and no
// result is wrong.
func TestFaultsUnderLoad(t *testing.T) {
	defer hsmpool.NoRenewLimit()()
	r := newRig(t, 8)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	const callers = 16
	var done [callers]atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, do := range []func(*rig, context.Context) error{(*rig).sign, (*rig).encrypt, (*rig).decrypt} {
					if err := do(r, ctx); err != nil {
						t.Errorf("caller %d: %v", i, err)
						return
					}
				}
				done[i].Add(1)
			}
		})
	}
	// settled waits until nobody has a call that began before.
	settled := func() {
		var before [callers]int64
		for i := range done {
			before[i] = done[i].Load()
		}
		for i := range done {
			for done[i].Load() < before[i]+2 && ctx.Err() == nil && !t.Failed() {
				time.Sleep(time.Millisecond)
			}
		}
	}
	const each = 5 // faults of each kind at least
	fired, orders := 0, 0
	for i, code := range testedCodes(8) {
		if _, data, _ := hsmpool.CKRRow(code); data {
			continue
		}
		m := r.modules[i%2]
		at := places[i%6]
		orders++
		m.FailEvery(at.fn, code, bothTimes[i%2], 5)
		for m.Fired(at.fn) < each && ctx.Err() == nil && !t.Failed() {
			hsmpool.ForgetRefusals(r.p) // else it gets no such job for a while
			settled()
		}
		fired += m.Fired(at.fn)
		m.Release()
		settled()
		for !r.allUp() && ctx.Err() == nil && !t.Failed() {
			time.Sleep(time.Millisecond)
		}
		settled()
	}
	close(stop)
	wg.Wait()
	var total int64
	for i := range done {
		total += done[i].Load()
	}
	if ctx.Err() != nil || orders < 8 || fired < each*orders {
		t.Errorf("%d faults, %v", fired, ctx.Err())
	}
	t.Logf("%d faults in %d calls", fired, 3*total)
	if err := r.p.Close(); err != nil {
		t.Fatal(err)
	}
	for i, m := range r.modules {
		if n := m.Sessions(); n != 0 {
			t.Errorf("member %d: %d sessions leaked", i, n)
		}
	}
}

// TestPINPresentedOnce counts logins where it matters, at the module: every code that says that the PIN or the user is
// refused ends all logins.
func TestPINPresentedOnce(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	ctx := testContext(t)
	var codes []uint
	for code := range hsmpool.CKRCodes() {
		if hsmpool.CKROperator(code) {
			codes = append(codes, code)
		}
	}
	slices.Sort(codes)
	if !slices.Contains(codes, pkcs11.CKR_PIN_INCORRECT) || !slices.Contains(codes, pkcs11.CKR_PIN_LOCKED) {
		t.Fatalf("the operator's codes are %x", codes)
	}
	c, modules := faultyConfig(t, h)
	m := modules[0]
	for _, code := range codes {
		m.Fail("C_Login", code, faulty.Before, faulty.Always)
		before, probes := m.Calls("C_Login"), modules[1].Calls("C_EncryptInit")
		p, err := hsmpool.Open(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		// Other work goes on, and the other member is looked at many times.
		k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
		for modules[1].Calls("C_EncryptInit") < probes+20 {
			if err := roundTrip(ctx, p, k, 1); err != nil {
				t.Fatal(err)
			}
		}
		for end := time.Now().Add(8 * c.Probe); time.Now().Before(end); {
			if err := roundTrip(ctx, p, k, 1); err != nil {
				t.Fatal(err)
			}
		}
		if n := m.Calls("C_Login") - before; n != 1 {
			t.Errorf("%v: the PIN was presented %d times", pkcs11.Error(code), n)
		}
		if s, reason := state(p, "a"); s != "down" || !strings.Contains(reason, "tried once") {
			t.Errorf("%v: member a is %s: %s", pkcs11.Error(code), s, reason)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if m.Sessions() != 0 {
			t.Errorf("%v: %d sessions leaked", pkcs11.Error(code), m.Sessions())
		}
	}
}

// TestUnclearLogin: a code that does not tell whether the token looked at the PIN ends the logins too, at once or after a
// few, and one that says that it did not never does.
func TestUnclearLogin(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	ctx := testContext(t)
	c, modules := faultyConfig(t, h)
	m := modules[0]
	for _, row := range []struct {
		code uint
		most int // 0: no bound
	}{
		{0x80000042, 1}, {pkcs11.CKR_ARGUMENTS_BAD, 1}, {pkcs11.CKR_DATA_INVALID, 1},
		{pkcs11.CKR_GENERAL_ERROR, 3}, {pkcs11.CKR_DEVICE_ERROR, 3}, {pkcs11.CKR_DEVICE_REMOVED, 0},
	} {
		m.Fail("C_Login", row.code, faulty.Before, faulty.Always)
		before := m.Calls("C_Login")
		p, err := hsmpool.Open(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
		// One that is tried again without end is waited for: how often that is in a time, the machine decides.
		for end := time.Now().Add(12 * c.Probe); time.Now().Before(end) || row.most == 0 && m.Calls("C_Login")-before <= 3; {
			if err := roundTrip(ctx, p, k, 1); err != nil {
				t.Fatal(err)
			}
		}
		n := m.Calls("C_Login") - before
		if row.most > 0 && n > row.most || row.most == 0 && n <= 3 {
			t.Errorf("%v: the PIN was presented %d times, want at most %d (0: often)", pkcs11.Error(row.code), n, row.most)
		}
		m.Release()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSessionLimits: a token with few sessions serves many callers, whether it says how many it has or not.
func TestSessionLimits(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	for _, reported := range []bool{true, false} {
		for _, limit := range []uint{2, 3, 4, 8} {
			if limit == 2 && !reported {
				continue // TestTwoSessionsUnreported
			}
			c, modules := faultyConfig(t, h)
			c.Members = c.Members[:1]
			m := modules[0]
			// Slow enough that several sessions are wanted at once.
			m.Delay("C_Encrypt", 500*time.Microsecond, 500*time.Microsecond)
			if m.SessionLimit(limit); !reported {
				m.SessionLimitUnreported(limit)
			}
			what := fmt.Sprintf("%d sessions, reported %v", limit, reported)
			p, err := hsmpool.Open(testContext(t), c)
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					if err := roundTrip(testContext(t), p, k, 10); err != nil {
						t.Errorf("%s: %v", what, err)
					}
				})
			}
			wg.Wait()
			if n := m.Sessions(); n > int(limit) {
				t.Errorf("%s: %d are open", what, n)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			if m.Sessions() != 0 {
				t.Errorf("%s: %d leaked", what, m.Sessions())
			}
		}
	}
}

// TestTwoSessionsUnreported: that a token has two sessions only must be known before its first login, from the token or from
// the configuration.
func TestTwoSessionsUnreported(t *testing.T) {
	h := hsmtest.New(t, "a")
	h.Ceremony(t)
	c, modules := faultyConfig(t, h)
	modules[0].SessionLimitUnreported(2)
	if _, err := hsmpool.Open(testContext(t), c); hsmpool.KindOf(err) != hsmpool.KindUnavailable ||
		!strings.Contains(err.Error(), "CKR_SESSION_COUNT") {
		t.Errorf("Open: %v", err)
	}
	if modules[0].Sessions() != 0 {
		t.Errorf("%d sessions leaked", modules[0].Sessions())
	}
	c.Members[0].MaxSessions = 2
	p := hsmtest.OpenConfig(t, c)
	k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
	if err := roundTrip(testContext(t), p, k, 10); err != nil {
		t.Error(err)
	}
}

// BenchmarkSlowHSM is a network HSM of 2 ms and 16 sessions: 8,000 operations a second are the arithmetic limit of one.
func BenchmarkSlowHSM(b *testing.B) {
	const lanes, latency = 16, 2 * time.Millisecond
	for _, members := range []int{1, 2} {
		h := hsmtest.New(b, []string{"a", "b"}[:members]...)
		h.Ceremony(b)
		c, modules := faultyConfig(b, h)
		c.Probe = time.Second
		for i, m := range modules {
			c.Members[i].MaxSessions = lanes + 3
			m.Delay("C_Encrypt", latency, 0)
		}
		p := hsmtest.OpenConfig(b, c)
		k, _ := wrappedKey(b, p, hsmpool.AES256, hsmpool.UseEncrypt)
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) {
			b.SetParallelism(64)
			start := time.Now()
			b.RunParallel(func(pb *testing.PB) {
				j := hsmpool.Job{Op: hsmpool.EncryptGCM, Key: k, In: make([]byte, 64), Nonce: make([]byte, 12)}
				for pb.Next() {
					if err := p.Do(b.Context(), &j); err != nil {
						b.Error(err)
						return
					}
				}
			})
			rate := float64(b.N) / time.Since(start).Seconds()
			b.ReportMetric(rate, "ops/s")
			b.ReportMetric(100*rate/(float64(members*lanes)/latency.Seconds()), "%limit")
		})
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
