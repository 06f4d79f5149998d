package moduletest

import (
	"fmt"
	"strings"
	"testing"
)

// An Init that has succeeded before goes with the call that uses it, and sizes that are known cost nothing.
func TestInitTravels(t *testing.T) {
	t.Parallel()
	v := drive(t, start(t), "address")
	s := v.open(1)
	sign := func(init, call string) {
		t.Helper()
		v.want("0", "C_SignInit %s m0x251 0", s)
		v.sent(init)
		v.want("0 "+digest("a"), "C_Sign %s x61 @32", s)
		v.sent(call)
	}
	sign("SignInit", "Sign")
	sign("", "SignInit+Sign")
	sign("", "SignInit+Sign")

	// The size.
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.want("0 32", "C_Sign %s x61 @-", s)
	v.want("0x150 32", "C_Sign %s x61 @31", s)
	v.want("0x90", "C_SignInit %s m0x251 0", s)
	v.sent("")
	v.want("0 "+digest("a"), "C_Sign %s x61 @40", s)
	v.want("0x91 40", "C_Sign %s x61 @40", s)
	v.sent("SignInit+Sign")

	// A size that is not known is asked for, and the operation goes on.
	v.want("0", "C_SignInit %s m0x1041 0", s)
	v.want("0 32", "C_Sign %s x61 @-", s)
	v.want("0 "+digest("a"), "C_Sign %s x61 @32", s)
	v.sent("SignInit Sign Sign")
	v.want("0", "C_SignInit %s m0x1041 0", s)
	v.want("0x150 32", "C_Sign %s x61 @3", s)
	v.want("0 "+digest("a"), "C_Sign %s x61 @32", s)
	v.sent("SignInit+Sign Sign")

	// In parts.
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.want("0", "C_SignUpdate %s x61", s)
	v.want("0", "C_SignUpdate %s x62", s)
	v.want("0 32", "C_SignFinal %s @-", s)
	v.want("0 "+digest("ab"), "C_SignFinal %s @32", s)
	v.sent("SignInit+SignUpdate SignUpdate SignFinal")
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.want("0 "+digest(""), "C_SignFinal %s @32", s)
	v.sent("SignInit+SignFinal")

	// Another key, another mechanism and another parameter are others; another IV is not.
	v.want("0", "C_SignInit %s m0x251 5", s)
	v.want("0", "C_SignInit %s - 0", s)
	v.want("0", "C_SignInit %s m0x250 0", s)
	v.want("0", "C_SignInit %s - 0", s)
	v.sent("SignInit SignInit SignInit SignInit")
	for i, sent := range []string{"EncryptInit Encrypt", "EncryptInit+Encrypt", "EncryptInit Encrypt"} {
		v.want("0", "C_EncryptInit %s m0x1087:gcm,x00010203040506070809%02x%02x,96,x%s,%d 1", s, i, i, strings.Repeat("61", i), 128-i/2*8)
		v.want("0 x5457", "C_Encrypt %s x0102 @2", s)
		v.sent(sent)
	}

	// Others that travel: digests, RSA, verification. What RSA decrypts to may be shorter than it says.
	for range 2 {
		v.want("0", "C_DigestInit %s m0x250", s)
		v.want("0 "+digest("a"), "C_Digest %s x61 @32", s)
		v.want("0", "C_VerifyInit %s m0x251 0", s)
		v.want("0", "C_Verify %s x61 %s", s, digest("a"))
		v.want("0", "C_DecryptInit %s m1 1", s)
		v.want("0 32", "C_Decrypt %s x54 @-", s)
		v.want("0 x01", "C_Decrypt %s x54 @1", s)
	}
	v.sent("DigestInit Digest VerifyInit Verify DecryptInit Decrypt DigestInit+Digest VerifyInit+Verify DecryptInit+Decrypt")

	// Two operations at once.
	v.want("0", "C_DigestInit %s m0x250", s)
	v.want("0", "C_EncryptInit %s m0x1087:gcm,x000000000000000000000000,96,x,128 1", s)
	v.d.took()
	v.want("0 x54", "C_DigestEncryptUpdate %s x01 @1", s)
	v.sent("DigestInit+EncryptInit+DigestEncryptUpdate")
}

// What an Init would have said, the call that it went with says.
func TestInitFails(t *testing.T) {
	t.Parallel()
	v := drive(t, start(t), "address")
	s := v.open(2)
	v.want("0x101", "C_SignInit %s m0x251 0", s)
	v.want("0x91 32", "C_Sign %s x61 @32", s)
	v.want("0", "C_Login %s 1 x31323334", s)
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.want("0 "+digest("a"), "C_Sign %s x61 @32", s)
	v.d.took()

	// After a logout nothing is believed any more, in no session.
	other := v.session(2)
	v.want("0", "C_SignInit %s m0x251 0", other)
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.want("0", "C_Logout %s", other)
	v.want("0x91 32", "C_Sign %s x61 @32", s)
	v.want("0x91 32", "C_Sign %s x61 @32", other)
	v.want("0x101", "C_SignInit %s m0x251 0", s)
	v.sent("Logout SignInit")

	// The key goes away without our knowing.
	v.want("0", "C_Login %s 1 x31323334", s)
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.want("0 "+digest("a"), "C_Sign %s x61 @32", s)
	v.d.mu.Lock()
	for _, a := range v.d.apps {
		clear(a.loggedIn)
	}
	v.d.mu.Unlock()
	v.d.took()
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.want("0x101 32", "C_Sign %s x61 @32", s)
	v.sent("SignInit+Sign")
	v.want("0x91 32", "C_Sign %s x61 @32", s)
	v.want("0x101", "C_SignInit %s m0x251 0", s)
	v.sent("SignInit")

	// Nor is it after objects change.
	s = v.session(1)
	for _, change := range []string{"C_DestroyObject %s 9", "C_SetAttributeValue %s 9 [3:x61]"} {
		v.want("0", "C_SignInit %s m0x251 0", s)
		v.want("0 "+digest("a"), "C_Sign %s x61 @32", s)
		v.want("0", change, s)
		v.d.took()
		v.want("0", "C_SignInit %s m0x251 0", s)
		v.sent("SignInit")
		v.want("0", "C_SessionCancel %s 0x800", s)
		v.sent("SessionCancel")
	}

	// An operation that the daemon has, and the module does not know of, is in the way once only.
	v.want("0", "C_SignInit %s m0x251 8", s)
	v.want("0 "+"x"+fmt.Sprintf("%x", sign(8, []byte("a"))), "C_Sign %s x61 @32", s)
	v.d.mu.Lock()
	for _, a := range v.d.apps {
		for _, s := range a.sessions {
			s.ops["Sign"] = &op{}
		}
	}
	v.d.mu.Unlock()
	v.want("0", "C_SignInit %s m0x251 8", s)
	v.want("0x90 32", "C_Sign %s x61 @32", s)
	v.d.took()
	v.want("0", "C_SignInit %s m0x251 8", s)
	v.sent("SignInit+SignInit")
}

// C_SignInit and its like with NULL, and C_SessionCancel, end operations (3.0), the module's and the daemon's.
func TestCancel(t *testing.T) {
	t.Parallel()
	v := drive(t, start(t), "address")
	s := v.open(1)
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.want("0", "C_SignInit %s - 0", s)
	v.want("0x91 32", "C_Sign %s x61 @32", s)
	v.sent("SignInit SignInit")
	v.want("0", "C_SignInit %s m0x251 0", s) // only remembered
	v.want("0", "C_SignInit %s - 0", s)
	v.want("0x91 32", "C_Sign %s x61 @32", s)
	v.sent("")
	v.want("0", "C_DigestInit %s m0x250", s)
	v.want("0", "C_DigestInit %s -", s)
	v.want("0x91 32", "C_Digest %s x61 @32", s)
	v.sent("DigestInit DigestInit")
	v.want("0", "C_FindObjectsInit %s []", s)
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.want("0", "C_SignUpdate %s x61", s)
	v.want("0", "C_SessionCancel %s 0x840", s)
	v.want("0x91", "C_FindObjectsFinal %s", s)
	v.want("0x91 32", "C_SignFinal %s @32", s)
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.want("0 "+digest(""), "C_SignFinal %s @32", s)
	v.sent("FindObjectsInit+FindObjects SignInit+SignUpdate SessionCancel SignInit+SignFinal")
}

// A search costs one round trip, and a large one a few.
func TestFind(t *testing.T) {
	t.Parallel()
	d := start(t)
	v := drive(t, d, "address")
	s := v.open(1)
	all := func(n int) {
		t.Helper()
		d.mu.Lock()
		d.objects = n
		d.mu.Unlock()
		v.want("0", "C_FindObjectsInit %s []", s)
		v.want("0x90", "C_FindObjectsInit %s []", s)
		for got := 0; got < n; got += 1000 {
			v.want("0 "+handles(got, min(got+1000, n)), "C_FindObjects %s @1000", s)
		}
		v.want("0 ", "C_FindObjects %s @1000", s)
		v.want("0", "C_FindObjectsFinal %s", s)
	}
	all(0)
	v.sent("FindObjectsInit+FindObjects")
	all(511)
	v.sent("FindObjectsFinal+FindObjectsInit+FindObjects")
	all(512)
	v.sent("FindObjectsFinal+FindObjectsInit+FindObjects FindObjects")
	all(20000)
	v.sent("FindObjectsFinal+FindObjectsInit+FindObjects FindObjects FindObjects")

	// The daemon restarts in the middle: the search goes on where it was.
	v.want("0", "C_FindObjectsInit %s []", s)
	v.want("0 "+handles(0, 600), "C_FindObjects %s @600", s)
	d.stop()
	d.start()
	for got := 600; got < 20000; got += 1000 {
		v.want("0 "+handles(got, min(got+1000, 20000)), "C_FindObjects %s @1000", s)
	}
	v.want("0 ", "C_FindObjects %s @1000", s)
	v.want("0", "C_FindObjectsFinal %s", s)
	d.hangUp()
	all(3)
}

func handles(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		if i > from {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%#x", i+1)
	}
	return b.String()
}

// Data that is longer than a frame goes in parts.
func TestParts(t *testing.T) {
	t.Parallel()
	d := start(t)
	v := drive(t, d, "address")
	s := v.open(1)
	const n = 1<<20 + 100000 // three parts
	data := strings.Repeat("\x07", n)
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.want("0 32", "C_Sign %s z%d @-", s, n)
	v.want("0 "+digest(data), "C_Sign %s z%d @32", s, n)
	v.sent("SignInit SignUpdate SignUpdate SignUpdate SignFinal")
	v.want("0", "C_SignInit %s m0x1041 0", s)
	v.want("0 32", "C_Sign %s z%d @-", s, n) // of unknown size: all of it is done for that
	v.d.took()
	v.want("0x150 32", "C_Sign %s z%d @5", s, n)
	v.want("0 "+digest(data), "C_Sign %s z%d @32", s, n)
	v.sent("SignInit+SignInit+SignUpdate SignUpdate SignUpdate SignFinal SignInit+SignInit+SignUpdate SignUpdate SignUpdate SignFinal")
	v.want("0", "C_DigestInit %s m0x250", s)
	v.want("0 "+digest(data), "C_Digest %s z%d @32", s, n)
	v.want("0", "C_VerifyInit %s m0x251 0", s)
	v.want("0", "C_Verify %s z%d %s", s, n, digest(data))
	v.want("0", "C_VerifyInit %s m0x251 0", s)
	v.want("0xc0", "C_Verify %s z%d %s", s, n, digest(""))
	v.want("0", "C_DigestInit %s m0x250", s)
	v.want("0", "C_DigestUpdate %s z%d", s, n)
	v.want("0", "C_DigestUpdate %s z%d", s, 2*n)
	v.want("0 "+digest(strings.Repeat(data, 3)), "C_DigestFinal %s @32", s)
	v.d.took()

	encrypted := func(n int) string { return "0 x" + strings.Repeat("52", n) }
	// A stream: exactly as much room as there is output.
	v.want("0", "C_EncryptInit %s m0x1086:ctr,128,x00 1", s)
	v.want(fmt.Sprint("0 ", n+32), "C_Encrypt %s z%d @-", s, n)
	v.want(fmt.Sprint("0x150 ", n+32), "C_Encrypt %s z%d @%d", s, n, n-1)
	v.want("0x90", "C_EncryptInit %s m0x1086:ctr,128,x00 1", s)
	v.want(encrypted(n), "C_Encrypt %s z%d @%d", s, n, n)
	v.want("0", "C_EncryptInit %s m0x1086:ctr,128,x00 1", s)
	v.want(fmt.Sprint("0 ", n), "C_EncryptUpdate %s z%d @-", s, n)
	v.want(fmt.Sprint("0x150 ", n), "C_EncryptUpdate %s z%d @%d", s, n, n-1)
	v.want(encrypted(n), "C_EncryptUpdate %s z%d @%d", s, n, n)
	v.want("0 x", "C_EncryptFinal %s @0", s)
	// Blocks, with some octets held back.
	v.want("0", "C_EncryptInit %s m0x1085:x00 1", s)
	v.want("0 x", "C_EncryptUpdate %s x070707 @0", s)
	v.want(fmt.Sprint("0 ", n-n%16), "C_EncryptUpdate %s z%d @-", s, n)
	v.want(encrypted(n-n%16), "C_EncryptUpdate %s z%d @%d", s, n, n-n%16)
	v.want(encrypted(3+n%16)+strings.Repeat("00", 16-(3+n%16)%16), "C_EncryptFinal %s @32", s)
	v.want("0", "C_DecryptInit %s m0x1085:x00 1", s)
	v.want(encrypted(n), "C_Decrypt %s z%d @%d", s, n, n)

	// The daemon restarts in the middle of what is one call.
	v.d.failWith(once("SignUpdate", restart))
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.want("0 "+digest(data), "C_Sign %s z%d @32", s, n)
	v.d.failWith(func() func(string) fault {
		updates := 0
		return func(call string) fault {
			if call == "EncryptUpdate" {
				updates++
			}
			if call == "EncryptUpdate" && updates == 2 {
				return restart
			}
			return none
		}
	}())
	v.want("0", "C_EncryptInit %s m0x1086:ctr,128,x00 1", s)
	v.want(encrypted(n), "C_Encrypt %s z%d @%d", s, n, n)

	v.want("0 x"+strings.Repeat("04", n), "C_GenerateRandom %s @%d", s, n)
	v.want("0", "C_SeedRandom %s z%d", s, 1<<20-64)
	v.want("0x21", "C_SeedRandom %s z%d", s, 1<<20)
}
