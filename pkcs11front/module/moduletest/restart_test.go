package moduletest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// The daemon restarts: the program sees nothing of it.
func TestRestart(t *testing.T) {
	t.Parallel()
	d := start(t)
	v := drive(t, d, "address")
	s := v.open(1)
	loggedIn := v.session(2)
	v.want("0", "C_Login %s 1 x31323334", loggedIn)
	other := v.session(2)
	again := func() {
		t.Helper()
		d.stop()
		d.start()
		d.took()
	}
	again()
	v.want("1 2 6 0 0", "C_GetSessionInfo %s", s)
	v.sent("Initialize OpenSession GetSessionInfo")
	v.want("2 3 6 0 0", "C_GetSessionInfo %s", other)
	v.sent("OpenSession Login GetSessionInfo")
	v.want("2 3 6 0 0", "C_GetSessionInfo %s", loggedIn)
	v.sent("OpenSession GetSessionInfo")

	// A new session comes first.
	again()
	third := v.session(2)
	v.want("2 3 6 0 0", "C_GetSessionInfo %s", third)

	// An Init that was made, and one that was only remembered.
	v.want("0", "C_SignInit %s m0x251 0", s)
	again()
	v.want("0 "+digest("a"), "C_Sign %s x61 @32", s)
	v.sent("Initialize OpenSession SignInit+Sign")
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.sent("")
	again()
	v.want("0 "+digest("a"), "C_Sign %s x61 @32", s)
	v.want("0", "C_MessageEncryptInit %s m0x1087 1", s)
	again()
	v.want("0 x00,x x54", "C_EncryptMessage %s g:x00,0,0,x,0 x x01 @1", s)
	v.sent("Initialize OpenSession MessageEncryptInit+EncryptMessage")

	// Parts of an operation are lost.
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.want("0", "C_SignUpdate %s x61", s)
	again()
	v.want("0x30", "C_SignUpdate %s x62", s)
	v.want("0x91", "C_SignUpdate %s x62", s)
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.want("0 "+digest("a"), "C_Sign %s x61 @32", s)

	// A closed session is not opened again, and a logout is one.
	again()
	v.want("0", "C_CloseSession %s", third)
	v.want("0", "C_Logout %s", other)
	again()
	v.want("2 2 6 0 0", "C_GetSessionInfo %s", other)
	v.want("0x101", "C_Logout %s", other)

	// Without PIN: it is not kept, but the login is.
	v.want("0", "C_Login %s 1 x31", s)
	again()
	v.want("1 3 6 0 0", "C_GetSessionInfo %s", s)
	v.want("0", "C_CloseAllSessions 1")
	again()
	s = v.session(1)
	v.want("1 2 6 0 0", "C_GetSessionInfo %s", s)

	// The last session's end is the login's.
	v.want("0", "C_Login %s 1 x31323334", other)
	v.want("0", "C_CloseSession %s", loggedIn)
	v.want("0", "C_CloseSession %s", other)
	again()
	other = v.session(2)
	v.want("2 2 6 0 0", "C_GetSessionInfo %s", other)
}

// A PIN that is not right any more is tried once.
func TestStalePIN(t *testing.T) {
	t.Parallel()
	d := start(t)
	v := drive(t, d, "address")
	s := v.open(2)
	v.want("0xa0", "C_Login %s 1 x31", s)
	v.want("0", "C_Login %s 1 x31323334", s)
	v.want("0x100", "C_Login %s 1 x31323334", s)
	v.want("0", "C_SetPIN %s x31323334 x39", s) // this daemon does not believe it
	d.stop()
	d.start()
	d.took()
	for range 3 {
		v.want("2 2 6 0 0", "C_GetSessionInfo %s", s)
	}
	v.sent("Initialize OpenSession Login GetSessionInfo GetSessionInfo GetSessionInfo")
	v.session(2)
	v.want("2 2 6 0 0", "C_GetSessionInfo %s", s)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range d.apps {
		if a.tries != 1 {
			t.Error("the PIN was tried", a.tries, "times")
		}
	}
}

// The connection breaks in the middle of a call.
func TestBroken(t *testing.T) {
	t.Parallel()
	d := start(t)
	v := drive(t, d, "address")
	s := v.open(1)
	for k, f := range []fault{closeBefore, closeAfter, closeHalf, restart} {
		for _, c := range []struct{ call, line, result string }{
			{"GetSlotList", "C_GetSlotList 1 @2", "0 0x1,0x2"},
			{"GetSessionInfo", "C_GetSessionInfo S", "1 2 6 0 0"},
			{"GetAttributeValue", "C_GetAttributeValue S 5 [3:@5]", "0 [0x3:x6c6162656c]"},
			{"GenerateRandom", "C_GenerateRandom S @2", "0 x0404"},
			{"SignInit", fmt.Sprint("C_SignInit S m0x251 ", 100+k), "0"},
			{"Sign", "C_Sign S x61 @32", fmt.Sprintf("0 x%x", sign(uint64(100+k), []byte("a")))},
			{"SignInit", "C_SignInit S m0x1041 0", "0"},
			{"SignUpdate", "C_SignUpdate S x61", "0"},
			{"", "C_SignFinal S @32", "0 " + digest("a")},
			{"VerifyInit", "C_VerifyInit S m0x251 0", "0"},
			{"Verify", "C_Verify S x61 " + digest("a"), "0"},
			{"EncryptInit", "C_EncryptInit S m0x1086:ctr,128,x00 1", "0"},
			{"Encrypt", "C_Encrypt S x01 @1", "0 x54"},
			{"FindObjectsInit", "C_FindObjectsInit S []", "0"},
			{"", "C_FindObjects S @9", "0 0x1,0x2,0x3"},
			{"", "C_FindObjectsFinal S", "0"},
			{"FindObjects", "C_FindObjectsInit S []", "0"},
			{"", "C_FindObjectsFinal S", "0"},
			{"WrapKey", "C_WrapKey S m0x2109 1 2 @3", "0 x090909"},
			{"OpenSession", "C_OpenSession 1 6 =", ""},
			{"Initialize", "C_GetSlotList 1 @2", "0 0x1,0x2"}, // after a hang-up
			// Not repeated: it may have been done.
			{"CreateObject", "C_CreateObject S [0:3] =", "0x30"},
			{"GenerateKey", "C_GenerateKey S m0x1080 [] =", "0x30"},
			{"GenerateKeyPair", "C_GenerateKeyPair S m0x1040 [] [] = =", "0x30"},
			{"UnwrapKey", "C_UnwrapKey S m0x2109 1 x01 [] =", "0x30"},
			{"DeriveKey", "C_DeriveKey S m0x1050:ecdh,1,x,x04 1 [] =", "0x30"},
			{"CopyObject", "C_CopyObject S 1 [] =", "0x30"},
			{"SetAttributeValue", "C_SetAttributeValue S 1 [3:x61]", "0x30"},
			{"DestroyObject", "C_DestroyObject S 1", "0x30"},
		} {
			if c.call == "Initialize" {
				d.hangUp()
			}
			d.failWith(once(c.call, f))
			got := v.do("%s", strings.Replace(c.line, " S", " "+s, 1))
			if c.result != "" && got != c.result || c.result == "" && !strings.HasPrefix(got, "0 ") {
				t.Errorf("fault %d: %s: %s, not %s", f, c.line, got, c.result)
			}
			d.failWith(nil)
		}
		// An operation that has begun is lost, whatever it was that broke.
		v.want("0", "C_SignInit %s m0x251 0", s)
		v.want("0", "C_SignUpdate %s x61", s)
		d.failWith(once("SignUpdate", f))
		v.want("0x30", "C_SignUpdate %s x62", s)
		v.want("0x91 32", "C_SignFinal %s @32", s)
		v.want("0", "C_SignInit %s m0x251 0", s)
		v.want("0 "+digest("a"), "C_Sign %s x61 @32", s)
	}

	// A connection that was closed while it was idle has taken nothing: everything goes on.
	d.hangUp()
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.want("0", "C_SignUpdate %s x61", s)
	for _, line := range []string{"C_CreateObject %s [0:3] =", "C_SignUpdate %s x62", "C_DestroyObject %s 1"} {
		d.hangUp()
		d.settle(t)
		if got := v.do(line, s); !strings.HasPrefix(got, "0") || strings.HasPrefix(got, "0x") {
			t.Errorf("%s: %s", line, got)
		}
	}
	v.want("0 "+digest("ab"), "C_SignFinal %s @32", s)

	// A request that ends the daemon each time is given up.
	d.failWith(func(call string) fault { return map[bool]fault{true: closeBefore}[call == "GenerateRandom"] })
	d.took()
	v.want("0x30 4", "C_GenerateRandom %s @4", s)
	if n := strings.Count(d.took(), "GenerateRandom"); n != mostBroken {
		t.Error("it was sent", n, "times")
	}
}

// mostBroken is how often the module sends a request that the daemon hangs up on.
const mostBroken = 8

// settle waits until the daemon has closed all connections.
func (d *daemon) settle(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		d.mu.Lock()
		n := len(d.conns)
		d.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(n, "connections are left")
		}
	}
}

// An answer that is none costs the call an error and the connection its life; nothing is repeated, and nothing is believed.
func TestNonsense(t *testing.T) {
	t.Parallel()
	d := start(t)
	v := drive(t, d, "address")
	s := v.open(1)
	for k, f := range []fault{badSerial, badCall, badTail, badLength, hugeBody, options} {
		for _, c := range []struct{ call, line string }{
			{"GetSlotList", "C_GetSlotList 1 @2"},
			{"GetTokenInfo", "C_GetTokenInfo 1"},
			{"GetSessionInfo", "C_GetSessionInfo S"},
			{"GetAttributeValue", "C_GetAttributeValue S 5 [3:@5,0x40000211:(0:@8;3:@5)]"},
			{"GenerateRandom", "C_GenerateRandom S @2"},
			{"SignInit", fmt.Sprint("C_SignInit S m0x251 ", 100+k)},
			{"FindObjects", "C_FindObjectsInit S []"},
			{"CreateObject", "C_CreateObject S [0:3] ="},
			{"OpenSession", "C_OpenSession 1 6 ="},
		} {
			d.failWith(once(c.call, f))
			before := d.connections()
			if got := v.do("%s", strings.Replace(c.line, " S", " "+s, 1)); !strings.HasPrefix(got, "0x30") {
				t.Errorf("fault %d: %s: %s", f, c.line, got)
			}
			d.failWith(nil)
			v.want("1 2 6 0 0", "C_GetSessionInfo %s", s)
			if d.connections() == before {
				t.Errorf("fault %d: %s: the connection lives on", f, c.line)
			}
		}
		v.want("0", "C_SignInit %s m0x251 0", s)
		d.failWith(once("Sign", f))
		if got := v.do("C_Sign %s x61 @32", s); !strings.HasPrefix(got, "0x30") {
			t.Error("C_Sign: ", got)
		}
		v.want("0", "C_SignInit %s m0x251 0", s)
		v.want("0 "+digest("a"), "C_Sign %s x61 @32", s)
	}
}

// A daemon that takes calls and does not answer them costs each caller so much time and no more, and is not asked again and again. What it may have begun is
// not believed.
func TestSilent(t *testing.T) {
	t.Parallel()
	d := start(t)
	v := drive(t, d, "impatient")
	s := v.open(1)
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.want("0", "C_SignUpdate %s x61", s)
	for _, c := range []struct{ call, line string }{
		{"GetSlotList", "C_GetSlotList 1 @2"}, {"GenerateRandom", "C_GenerateRandom S @2"}, {"CreateObject", "C_CreateObject S [0:3] ="}, {"SignUpdate", "C_SignUpdate S x62"},
	} {
		d.failWith(func(call string) fault { return map[bool]fault{true: silent}[call == c.call] })
		d.took()
		began := time.Now()
		if got := v.do("%s", strings.Replace(c.line, " S", " "+s, 1)); !strings.HasPrefix(got, "0x30") {
			t.Errorf("%s: %s", c.line, got)
		}
		if took := time.Since(began); took < time.Second || took > 5*time.Second {
			t.Errorf("%s took %v", c.line, took)
		}
		if n := strings.Count(d.took(), c.call); n != 1 {
			t.Errorf("%s was sent %d times", c.call, n)
		}
		d.failWith(nil)
	}
	v.want("0x91 32", "C_SignFinal %s @32", s) // CKR_OPERATION_NOT_INITIALIZED
	v.want("0 x0404", "C_GenerateRandom %s @2", s)
}

// A program may be up before the daemon, and the daemon may be away for a while.
func TestNoDaemon(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	const patience = 4 // seconds
	v := driveFor(t, d, "address", patience)
	v.want("0", "C_Initialize")
	v.want("0x191", "C_Initialize")
	began := time.Now()
	v.want("0 0", "C_GetSlotList 1 @-")
	v.want("0 ", "C_GetSlotList 1 @2")
	v.want("0x8", "C_WaitForSlotEvent 1 =")
	if took := time.Since(began); took >= patience*time.Second { // which any of them would have taken, had it waited
		t.Error("no slots took ", took)
	}
	began = time.Now()
	v.want("0x30", "C_OpenSession 1 6 =")
	if took := time.Since(began); took < patience*time.Second || took > 2*patience*time.Second {
		t.Error("patience lasted ", took)
	}
	d.start()
	v.want("0 0x1,0x2", "C_GetSlotList 1 @2")
	s := v.session(1)
	d.stop()
	v.tell("C_GenerateRandom %s @2", s)
	time.Sleep(500 * time.Millisecond) // the time that the daemon takes to start
	d.start()
	if got := v.answer(); got != "0 x0404" {
		t.Error(got)
	}
	d.stop()
	v.want("0x30 2", "C_GenerateRandom %s @2", s)
	v.want("0x30 2", "C_GetSlotList 1 @2") // there was one
	v.want("0", "C_CloseSession %s", s)
	v.want("0", "C_CloseAllSessions 1")
	v.want("0", "C_Finalize")
}

// A child of fork has a library that was never initialized, and no connection of its parent's. The parent goes on.
func TestFork(t *testing.T) {
	t.Parallel()
	for _, variant := range []string{"plain", "address", "thread"} {
		d := start(t)
		v := drive(t, d, variant)
		s := v.open(1)
		v.want("0", "C_SignInit %s m0x251 0", s)
		v.want("1", "sockets")
		v.want("child", "fork")
		v.want("0", "sockets")
		v.want("0x190 2", "C_GetSlotList 1 @2")
		v.want("0x190", "C_GetSessionInfo %s", s)
		v.want("0x190", "C_Finalize")
		v.want("0", "C_Initialize")
		v.want("0xb3", "C_GetSessionInfo %s", s)
		child := v.session(2)
		v.want("0x101", "C_SignInit %s m0x251 0", child)
		v.want("1", "sockets")
		v.want("child", "fork") // of the child
		v.want("0x190", "C_GetSessionInfo %s", child)
		v.want("parent 0", "exit")
		v.want("2 2 6 0 0", "C_GetSessionInfo %s", child)
		v.want("0", "C_Finalize")
		v.want("0", "sockets")
		v.want("parent 0", "exit")
		v.want("1", "sockets")
		v.want("0 "+digest("a"), "C_Sign %s x61 @32", s)
		if _, cookies := d.applications(); cookies != 2 {
			t.Error("there were", cookies, "cookies")
		}
		if variant == "plain" { // a child that never uses the library, and one that forgets to finalize
			v.want("child", "fork")
			v.want("parent 0", "exit")
			v.want("child", "fork")
			v.want("0", "C_Initialize")
			v.session(1)
			v.want("parent 0", "exit")
			v.want("1 2 6 0 0", "C_GetSessionInfo %s", s)
		}
		v.want("0", "C_Finalize")
	}
}

// A program that is executed inherits no connection.
func TestCloseOnExec(t *testing.T) {
	t.Parallel()
	v := drive(t, start(t), "plain")
	s := v.open(1)
	v.want("1", "sockets")
	v.want("0", "executed")
	v.want("1 2 6 0 0", "C_GetSessionInfo %s", s)
}

// The library can be finalized and initialized again, and then is another application.
func TestAgain(t *testing.T) {
	t.Parallel()
	d := start(t)
	v := drive(t, d, "address")
	for range 3 {
		s := v.open(2)
		v.want("0", "C_Login %s 1 x31323334", s)
		v.want("0", "C_SignInit %s m0x251 0", s)
		v.d.took()
		v.want("0", "C_Finalize")
		v.sent("Finalize")
		if apps, _ := d.applications(); apps != 0 {
			t.Error("the application lives on")
		}
		v.want("0x190", "C_GetSessionInfo %s", s)
	}
	if _, cookies := d.applications(); cookies != 3 {
		t.Error("there were", cookies, "cookies")
	}
}
