package faulty

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/hsmpool/hsmtest/faulty/control"
)

// childEnv makes the test binary a process that opens the module of that path. With childSessions it opens so many sessions
// of the token with the label childToken, makes a call that hangs, and waits to be killed; else it lists the slots.
const (
	childEnv      = "KEYWARD_FAULTY_TEST_CHILD"
	childSessions = "KEYWARD_FAULTY_TEST_SESSIONS"
	childToken    = "KEYWARD_FAULTY_TEST_TOKEN"
)

func TestMain(m *testing.M) {
	path := os.Getenv(childEnv)
	if path == "" {
		os.Exit(m.Run())
	}
	ctx := pkcs11.New(path)
	if ctx == nil {
		os.Exit(3)
	}
	if err := ctx.Initialize(); err != nil {
		os.Exit(4)
	}
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		os.Exit(5)
	}
	n, err := strconv.Atoi(os.Getenv(childSessions))
	if err != nil {
		os.Exit(0)
	}
	for _, slot := range slots {
		ti, err := ctx.GetTokenInfo(slot)
		if err != nil || ti.Label != os.Getenv(childToken) {
			continue
		}
		for range n {
			if _, err := ctx.OpenSession(slot, openFlags); err != nil {
				os.Exit(6)
			}
		}
		ctx.GetSlotInfo(slot)
	}
	os.Exit(7)
}

// open loads and initialises a module.
func open(t *testing.T, m *Module) *pkcs11.Ctx {
	t.Helper()
	ctx := pkcs11.New(m.Path)
	if ctx == nil {
		t.Fatal("the module can't be loaded")
	}
	if err := ctx.Initialize(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ctx.Finalize(); err != nil && err != pkcs11.Error(pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED) {
			t.Error(err)
		}
	})
	return ctx
}

func slotOf(t *testing.T, ctx *pkcs11.Ctx, label string) uint {
	t.Helper()
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range slots {
		if ti, err := ctx.GetTokenInfo(s); err == nil && ti.Label == label {
			return s
		}
	}
	t.Fatalf("no token %q", label)
	return 0
}

const openFlags = pkcs11.CKF_SERIAL_SESSION | pkcs11.CKF_RW_SESSION

func is(err error, code uint) bool { return errors.Is(err, pkcs11.Error(code)) }

// TestRefusesToLoad: without orders there is no module, rather than one that does nothing.
func TestRefusesToLoad(t *testing.T) {
	short := Build(t)
	if err := os.WriteFile(short+".control", []byte("KWFAULT1"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, path := range map[string]string{
		"no control file":      Build(t),
		"a short control file": short,
		"nothing to wrap":      New(t, filepath.Join(t.TempDir(), "none.so")).Path,
	} {
		_, err := hsmpool.Open(t.Context(), hsmpool.Config{Members: []hsmpool.MemberConfig{{Name: "a", Module: path, TokenLabel: "a"}}})
		if err == nil || !strings.Contains(err.Error(), "no PKCS#11 library that can be loaded") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestTwoCopies: copies in one process share what they wrap, and each sees its own state only.
func TestTwoCopies(t *testing.T) {
	h := hsmtest.New(t, "a")
	label := h.Members()[0].TokenLabel
	ma, mb := New(t, hsmtest.Module), New(t, hsmtest.Module)
	ma.Manufacturer("Somebody else")
	a, b := open(t, ma), pkcs11.New(mb.Path)
	if _, err := b.GetSlotList(true); !is(err, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED) {
		t.Errorf("the second copy before its C_Initialize: %v", err)
	}
	b = open(t, mb)
	if err := b.Initialize(); !is(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		t.Errorf("C_Initialize twice: %v", err)
	}
	ia, err := a.GetInfo()
	if err != nil || ia.ManufacturerID != "Somebody else" {
		t.Errorf("C_GetInfo: %q, %v", ia.ManufacturerID, err)
	}
	if ib, err := b.GetInfo(); err != nil || !strings.HasPrefix(ib.ManufacturerID, "SoftHSM") {
		t.Errorf("C_GetInfo of the other: %q, %v", ib.ManufacturerID, err)
	}
	slot := slotOf(t, a, label)
	var sa, sb pkcs11.SessionHandle
	if sa, err = a.OpenSession(slot, openFlags); err != nil {
		t.Fatal(err)
	}
	if sb, err = b.OpenSession(slot, openFlags); err != nil {
		t.Fatal(err)
	}
	if ma.Sessions() != 1 || mb.Sessions() != 1 || ma.Calls("C_OpenSession") != 1 {
		t.Errorf("sessions %d and %d, %d calls", ma.Sessions(), mb.Sessions(), ma.Calls("C_OpenSession"))
	}
	if err := a.Finalize(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.GetSessionInfo(sa); !is(err, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED) {
		t.Errorf("the first copy after its C_Finalize: %v", err)
	}
	if _, err := b.GetSessionInfo(sa); !is(err, pkcs11.CKR_SESSION_HANDLE_INVALID) {
		t.Errorf("a session of the finalised copy: %v", err)
	}
	if _, err := b.GetSessionInfo(sb); err != nil {
		t.Errorf("the other copy was disturbed: %v", err)
	}
	if ma.Sessions() != 0 || mb.Sessions() != 1 {
		t.Errorf("sessions %d and %d", ma.Sessions(), mb.Sessions())
	}
	if err := b.Finalize(); err != nil {
		t.Fatal(err)
	}
	// The wrapped library has been finalised with the last copy, exactly once: somebody else may begin.
	direct := pkcs11.New(hsmtest.Module)
	if err := direct.Initialize(); err != nil {
		t.Fatal(err)
	}
	// And what somebody else began is not ended by a copy.
	b = open(t, mb)
	if err := b.Finalize(); err != nil {
		t.Fatal(err)
	}
	if err := direct.Finalize(); err != nil {
		t.Errorf("a copy finalised what it had not initialised: %v", err)
	}
}

func TestReturnValues(t *testing.T) {
	h := hsmtest.New(t, "a")
	m := New(t, hsmtest.Module)
	ctx := open(t, m)
	slot := slotOf(t, ctx, h.Members()[0].TokenLabel)
	s, err := ctx.OpenSession(slot, openFlags)
	if err != nil {
		t.Fatal(err)
	}
	digest := func() error {
		return ctx.DigestInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_SHA256, nil)})
	}
	// Before: no operation is active afterwards. After: one is.
	m.Fail("C_DigestInit", pkcs11.CKR_DEVICE_ERROR, Before, 2)
	for range 2 {
		if err := digest(); !is(err, pkcs11.CKR_DEVICE_ERROR) {
			t.Errorf("before: %v", err)
		}
	}
	if _, err := ctx.Digest(s, []byte("x")); !is(err, pkcs11.CKR_OPERATION_NOT_INITIALIZED) {
		t.Errorf("the wrapped module was called: %v", err)
	}
	m.Fail("C_DigestInit", 0x80001234, After, 1)
	if err := digest(); !is(err, 0x80001234) {
		t.Errorf("after: %v", err)
	}
	if err := digest(); !is(err, pkcs11.CKR_OPERATION_ACTIVE) {
		t.Errorf("the wrapped module was not called: %v", err)
	}
	if _, err := ctx.Digest(s, []byte("x")); err != nil {
		t.Error(err)
	}
	if m.Fired("C_DigestInit") != 1 {
		t.Errorf("fired %d times", m.Fired("C_DigestInit"))
	}
	m.FailEvery("C_GenerateRandom", pkcs11.CKR_FUNCTION_FAILED, Before, 3)
	for i := 1; i <= 9; i++ {
		if _, err := ctx.GenerateRandom(s, 8); is(err, pkcs11.CKR_FUNCTION_FAILED) != (i%3 == 0) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	m.Fail("C_GenerateRandom", pkcs11.CKR_FUNCTION_FAILED, Before, Always)
	if _, err := ctx.GenerateRandom(s, 8); !is(err, pkcs11.CKR_FUNCTION_FAILED) {
		t.Errorf("always: %v", err)
	}
	m.Reset()
	if _, err := ctx.GenerateRandom(s, 8); err != nil {
		t.Errorf("after Reset: %v", err)
	}
	if n := m.Calls("C_GenerateRandom"); n != 11 {
		t.Errorf("%d calls counted", n)
	}
	// A session whose opening was hidden is nobody's to close, and ends with the library.
	m.Fail("C_OpenSession", pkcs11.CKR_DEVICE_ERROR, After, 1)
	if _, err := ctx.OpenSession(slot, openFlags); !is(err, pkcs11.CKR_DEVICE_ERROR) || m.Sessions() != 1 {
		t.Errorf("%v, %d sessions", err, m.Sessions())
	}
	m.SessionLimit(2)
	if _, err := ctx.OpenSession(slot, openFlags); !is(err, pkcs11.CKR_SESSION_COUNT) {
		t.Errorf("the hidden session is not there: %v", err)
	}
	if err := ctx.CloseAllSessions(slot); err != nil || m.Sessions() != 0 {
		t.Errorf("%v, %d sessions", err, m.Sessions())
	}
}

// TestTimesAmongMany: a fault for so many calls meets exactly so many, whoever calls.
func TestTimesAmongMany(t *testing.T) {
	h := hsmtest.New(t, "a")
	m := New(t, hsmtest.Module)
	ctx := open(t, m)
	slot := slotOf(t, ctx, h.Members()[0].TokenLabel)
	m.SessionLimit(5)
	if ti, err := ctx.GetTokenInfo(slot); err != nil || ti.MaxSessionCount != 5 || ti.MaxRwSessionCount != 5 {
		t.Errorf("limit %d, %d, %v", ti.MaxSessionCount, ti.MaxRwSessionCount, err)
	}
	m.SessionLimitUnreported(5)
	if ti, err := ctx.GetTokenInfo(slot); err != nil || ti.MaxSessionCount != pkcs11.CK_UNAVAILABLE_INFORMATION {
		t.Errorf("limit %d, %v", ti.MaxSessionCount, err)
	}
	m.Fail("C_GetSessionInfo", pkcs11.CKR_DEVICE_ERROR, Before, 33)
	var mu sync.Mutex
	opened, refused, failed := 0, 0, 0
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := ctx.OpenSession(slot, openFlags)
			mu.Lock()
			switch {
			case err == nil:
				opened++
			case is(err, pkcs11.CKR_SESSION_COUNT):
				refused++
			}
			mu.Unlock()
			if err != nil {
				return
			}
			for range 100 {
				if _, err := ctx.GetSessionInfo(s); is(err, pkcs11.CKR_DEVICE_ERROR) {
					mu.Lock()
					failed++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if opened != 5 || refused != 3 || failed != 33 || m.Sessions() != 5 || m.Calls("C_GetSessionInfo") != 500 {
		t.Errorf("%d opened, %d refused, %d failed, %d sessions, %d calls", opened, refused, failed, m.Sessions(), m.Calls("C_GetSessionInfo"))
	}
}

// await waits until something is true that is bound to come.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// times gives those of n calls, the shortest first. Only the shortest says what a call takes: a machine that does other things as well makes some calls
// longer, but none shorter.
func times(n int, call func()) []time.Duration {
	var all []time.Duration
	for range n {
		began := time.Now()
		call()
		all = append(all, time.Since(began))
	}
	slices.Sort(all)
	return all
}

// TestDelayIsPrecise: a delay is right in the mean, and no call takes much less. The kernel's 50 us of slack are not added to it. How long a
// machine takes to wake a thread up is its own business, so the slack is asked for, and the upper bound only says that nothing waits twice.
func TestDelayIsPrecise(t *testing.T) {
	hsmtest.New(t, "a")
	m := New(t, hsmtest.Module)
	ctx := open(t, m)
	const delay = 2 * time.Millisecond
	m.Delay("C_GetInfo", delay, 0)
	all := times(200, func() {
		if _, err := ctx.GetInfo(); err != nil {
			t.Error(err)
		}
	})
	mean := time.Duration(0)
	for _, d := range all {
		mean += d / time.Duration(len(all))
	}
	t.Logf("200 calls of 2 ms took %v too long in the mean, %v in the median", mean-delay, all[100]-delay)
	// The module sleeps shorter by what it was woken up too late before, by 100 us at most.
	if all[0] < delay-100*time.Microsecond || mean < delay-50*time.Microsecond || all[0] > 2*delay-time.Millisecond {
		t.Errorf("a call of %v took %v at least, and %v in the mean", delay, all[0], mean)
	}
	runtime.LockOSThread() // and not unlocked: the thread is not given back
	if _, err := ctx.GetInfo(); err != nil {
		t.Error(err)
	}
	const getTimerSlack = 30 // PR_GET_TIMERSLACK
	if slack, _, errno := syscall.Syscall(syscall.SYS_PRCTL, getTimerSlack, 0, 0); errno != 0 || slack != 1 {
		t.Errorf("timer slack %d ns, %v", slack, errno)
	}
}

// TestSlow: a function that is slower by a factor takes so many times as long as it takes, and its delay on top.
func TestSlow(t *testing.T) {
	h := hsmtest.New(t, "a")
	m := New(t, hsmtest.Module)
	ctx := open(t, m)
	s, err := ctx.OpenSession(slotOf(t, ctx, h.Members()[0].TokenLabel), openFlags)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 1<<20)
	digest := func() {
		if err := ctx.DigestInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_SHA256, nil)}); err != nil {
			t.Error(err)
		}
		if _, err := ctx.Digest(s, data); err != nil {
			t.Error(err)
		}
	}
	plain := times(21, digest)[0]
	m.Slow("C_Digest", 20)
	slow := times(7, digest)[0]
	t.Logf("%v, 20 times as slow %v", plain, slow)
	if slow < 10*plain { // on a busy machine the shortest is not quite what it takes
		t.Errorf("%v, and %v with a factor of 20", plain, slow)
	}
	m.Delay("C_Digest", slow, 0)
	if both := times(3, digest)[0]; both < slow+10*plain {
		t.Errorf("a delay of %v and the factor give %v", slow, both)
	}
	m.Reset()
	if again := times(21, digest)[0]; again > slow/2 {
		t.Errorf("after Reset %v", again)
	}
}

// TestKilled: what a process had that is gone is not counted, and its place in the control file is for others.
func TestKilled(t *testing.T) {
	h := hsmtest.New(t, "a")
	label := h.Members()[0].TokenLabel
	m := New(t, hsmtest.Module)
	ctx := open(t, m)
	if _, err := ctx.OpenSession(slotOf(t, ctx, label), openFlags); err != nil {
		t.Fatal(err)
	}
	m.Hang("C_GetSlotInfo")
	for round := range 3 {
		var children []*exec.Cmd
		for range 2 {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childEnv+"="+m.Path, childSessions+"=3", childToken+"="+label)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			children = append(children, cmd)
			t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() }) // for a test that ends early
		}
		await(t, "two processes with a call that hangs", func() bool { return m.Hanging() == 2 })
		if n := m.Sessions(); n != 1+2*3 {
			t.Errorf("round %d: %d sessions", round, n)
		}
		for i, cmd := range children {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
				t.Errorf("it ended by itself: %v", err)
			}
			left := 1 - i
			if n, hanging := m.Sessions(), m.Hanging(); n != 1+left*3 || hanging != left {
				t.Errorf("round %d, with %d processes left: %d sessions, %d calls hang", round, left, n, hanging)
			}
		}
		if n, err := m.file.Processes(); err != nil || n != 1 {
			t.Errorf("%d processes, %v", n, err)
		}
	}
}

// TestRows: a module that was unloaded keeps no row of the control file.
func TestRows(t *testing.T) {
	hsmtest.New(t, "a")
	m := New(t, hsmtest.Module)
	for range 300 {
		ctx := pkcs11.New(m.Path)
		if ctx == nil {
			t.Fatal("it can't be loaded again")
		}
		ctx.Destroy()
	}
	// It may be the copy that all the others of this process lean on, which stays.
	if n, err := m.file.Processes(); err != nil || n > 1 {
		t.Errorf("%d processes, %v", n, err)
	}
}

func TestDelaySerialiseHang(t *testing.T) {
	hsmtest.New(t, "a")
	m := New(t, hsmtest.Module)
	ctx := open(t, m)
	slots := func(n int) (d time.Duration) {
		start := time.Now()
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				if _, err := ctx.GetSlotList(true); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		return time.Since(start)
	}
	m.Delay("C_GetSlotList", 20*time.Millisecond, 5*time.Millisecond)
	if d := slots(1); d < 40*time.Millisecond { // the binding calls twice
		t.Errorf("two calls of 20 ms took %v", d)
	}
	together := slots(8)
	m.Serialise(true)
	if d := slots(8); d < 320*time.Millisecond {
		t.Errorf("16 calls of 20 ms one after the other took %v; at once %v", d, together)
	}
	m.Reset()

	m.Hang("C_GetSlotList")
	done := make(chan error, 1)
	go func() {
		_, err := ctx.GetSlotList(true)
		done <- err
	}()
	await(t, "one call hangs", func() bool { return m.Hanging() == 1 })
	if _, err := ctx.GetInfo(); err != nil { // others go on
		t.Error(err)
	}
	select {
	case err := <-done:
		t.Fatalf("a call that hangs returned: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	m.Release()
	if err := <-done; err != nil || m.Hanging() != 0 {
		t.Errorf("released: %v, %d hang", err, m.Hanging())
	}
}

// TestCrashAndExit: by orders to a module in another process.
func TestCrashAndExit(t *testing.T) {
	hsmtest.New(t, "a")
	m := New(t, hsmtest.Module)
	child := func() (int, string) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+m.Path)
		out, err := cmd.CombinedOutput()
		var ended *exec.ExitError
		if err != nil && !errors.As(err, &ended) {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(out)
	}
	if code, out := child(); code != 0 {
		t.Fatalf("exit %d\n%s", code, out)
	}
	m.Exit("C_GetSlotList", 77)
	if code, out := child(); code != 77 {
		t.Errorf("exit %d\n%s", code, out)
	}
	m.Crash("C_GetSlotList")
	if code, out := child(); code == 0 || !strings.Contains(out, "SIGSEGV") || !strings.Contains(out, "GetSlotList") {
		t.Errorf("exit %d\n%s", code, out)
	}
	if n := m.Calls("C_GetSlotList"); n != 2+1+1 {
		t.Errorf("%d calls counted over three processes", n)
	}
}

// TestCodes: the names of return values in package control mean what they do in PKCS#11.
func TestCodes(t *testing.T) {
	names := control.Codes()
	if len(names) < 30 {
		t.Errorf("only %v", names)
	}
	for _, name := range names {
		code, _ := control.Code(name)
		if text := pkcs11.Error(code).Error(); !strings.HasSuffix(text, ": "+name) {
			t.Errorf("%s is %#x, which is %s", name, code, text)
		}
	}
}
