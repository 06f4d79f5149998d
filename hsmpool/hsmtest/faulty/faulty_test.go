package faulty

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
)

// childEnv makes the test binary a process that opens the module of that path and asks for random octets.
const childEnv = "KEYWARD_FAULTY_TEST_CHILD"

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
	if _, err := ctx.GetSlotList(true); err != nil {
		os.Exit(5)
	}
	os.Exit(0)
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
	for end := time.Now().Add(10 * time.Second); m.Hanging() == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if m.Hanging() != 1 {
		t.Fatalf("%d calls hang", m.Hanging())
	}
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
