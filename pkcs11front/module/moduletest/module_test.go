package moduletest

import (
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func start(t *testing.T) *daemon {
	d := newDaemon(t)
	d.start()
	return d
}

// everyCall has all calls that are sent, and what comes of them with this daemon. S is the session.
var everyCall = []struct{ line, result string }{
	{"C_GetSlotList 1 @-", "0 2"},
	{"C_GetSlotList 0 @1", "0x150 2"},
	{"C_GetSlotList 0 @2", "0 0x1,0x2"},
	{"C_GetSlotInfo 1", "1.2 3.4 1 slot; maker; 0"},
	{"C_GetTokenInfo 2", "5 0 9 token; model; serial; 2026; 0"},
	{"C_GetMechanismList 1 @9", "0 0x251,0x1087,0x1086"},
	{"C_GetMechanismInfo 1 0x251", "16 32 800 0"},
	{"C_InitToken 1 x31 x2020202020202020202020202020202020202020202020202020202020202020", "0"},
	{"C_OpenSession 3 6 =", "0x3"},
	{"C_InitPIN S x31", "0"},
	{"C_SetPIN S x31 -", "0"},
	{"C_GetSessionInfo S", "1 2 6 0 0"},
	{"C_GetOperationState S @-", "0 3"},
	{"C_GetOperationState S @3", "0 x010203"},
	{"C_SetOperationState S x01 2 3", "0"},
	{"C_Login S 1 x31", "0"},
	{"C_Logout S", "0"},
	{"C_LoginUser S 1 x31 x6d65", "0"},
	{"C_Logout S", "0"},
	{"C_CreateObject S [0:3,1:b1,3:x6162,0x40000600:m1;64,0x110:x3230323631313237,0x40000211:(0:4;3:x),0x172:b0,0x99999999:x00] =", "0 0x3ea"},
	{"C_CopyObject S 5 [] =", "0 0x6"},
	{"C_CopyObject S 5 - =", "0 0x6"},
	{"C_DestroyObject S 5", "0"},
	{"C_GetObjectSize S 5 =", "0 0x6"},
	{"C_GetAttributeValue S 5 [0:@8,1:@1,3:@9,0x110:@8,0x40000600:@16,0x102:@0]",
		"0 [0:x0300000000000000,0x1:x01,0x3:x6c6162656c,0x110:x3230323631313237,0x40000600:x01000000000000004000000000000000,0x102:x]"},
	{"C_GetAttributeValue S 5 [0:-,1:-,3:-,0x110:-,0x40000600:-,0x102:-,0x40000211:-]", "0 [0:8,0x1:1,0x3:5,0x110:8,0x40000600:16,0x102:0,0x40000211:48]"},
	{"C_GetAttributeValue S 5 [0:@4,3:@4,1:@1,0x11:@9]", "0x11 [0:unavailable,0x3:unavailable,0x1:x01,0x11:unavailable]"},
	{"C_GetAttributeValue S 5 [0:@4]", "0x150 [0:unavailable]"},
	{"C_GetAttributeValue S 5 [0x40000600:@8,0x7777:@1]", "0x12 [0x40000600:unavailable,0x7777:unavailable]"},
	{"C_GetAttributeValue S 5 [0x40000211:(0:@8;3:@5)]", "0 [0x40000211:[0:x0300000000000000,0x3:x6c6162656c]]"},
	{"C_GetAttributeValue S 5 [0x40000211:(0:@8)]", "0x150 [0x40000211:unavailable]"},
	{"C_SetAttributeValue S 5 [3:x61]", "0"},
	{"C_FindObjectsInit S [0:3,3:x6162]", "0"},
	{"C_FindObjects S @2", "0 0x1,0x2"},
	{"C_FindObjects S @2", "0 0x3"},
	{"C_FindObjects S @2", "0 "},
	{"C_FindObjectsFinal S", "0"},
	{"C_EncryptInit S m0x1086:ctr,128,x000102030405060708090a0b0c0d0e0f 1", "0"},
	{"C_Encrypt S x0102 @-", "0 2"},
	{"C_Encrypt S x0102 @1", "0x150 2"},
	{"C_Encrypt S x0102 @2", "0 x5457"},
	{"C_EncryptInit S m0x1085:x000102030405060708090a0b0c0d0e0f 1", "0"},
	{"C_EncryptUpdate S x0102 @9", "0 x"},
	{"C_EncryptFinal S @16", "0 x54570000000000000000000000000000"},
	{"C_DecryptInit S m0x1087:gcm,x000102030405060708090a0b,96,x,128 1", "0"},
	{"C_Decrypt S x5457 @9", "0 x0102"},
	{"C_DecryptInit S m0x1087:gcm240,x000102030405060708090a0b,x,128 1", "0"},
	{"C_Decrypt S x5457 @9", "0 x0102"},
	{"C_DecryptInit S m9:oaep,0x250,2,1,x4c 1", "0"},
	{"C_DecryptUpdate S x5457 @9", "0 x0102"},
	{"C_DecryptFinal S @9", "0 x"},
	{"C_DigestInit S m0x250", "0"},
	{"C_Digest S x61 @32", "0 " + digest("a")},
	{"C_DigestInit S m0x250", "0"},
	{"C_DigestUpdate S x61", "0"},
	{"C_DigestKey S 7", "0"},
	{"C_DigestFinal S @32", "0 " + digest("a\x00\x00\x00\x00\x00\x00\x00\x07")},
	{"C_SignInit S m0xd:pss,0x250,2,32 0", "0"},
	{"C_Sign S x61 @-", "0 32"},
	{"C_Sign S x61 @64", "0 " + digest("a")},
	{"C_SignInit S m0x252:mac,8 0", "0"},
	{"C_SignUpdate S x61", "0"},
	{"C_SignFinal S @32", "0 " + digest("a")},
	{"C_SignRecoverInit S m1 0", "0"},
	{"C_SignRecover S x61 @32", "0 " + digest("a")},
	{"C_VerifyInit S m0x251 0", "0"},
	{"C_Verify S x61 " + digest("a"), "0"},
	{"C_VerifyInit S m0x251 0", "0"},
	{"C_VerifyUpdate S x61", "0"},
	{"C_VerifyFinal S x00", "0xc0"},
	{"C_VerifyRecoverInit S m1 0", "0"},
	{"C_VerifyRecover S x61 @32", "0 " + digest("a")},
	{"C_DigestInit S m0x250", "0"},
	{"C_EncryptInit S m0x1081 1", "0"},
	{"C_DigestEncryptUpdate S x01 @1", "0 x54"},
	{"C_SignInit S m0x251 0", "0"},
	{"C_SignEncryptUpdate S x01 @1", "0 x54"},
	{"C_DecryptInit S m0x1081 1", "0"},
	{"C_DecryptDigestUpdate S x54 @1", "0 x01"},
	{"C_VerifyInit S m0x251 0", "0"},
	{"C_DecryptVerifyUpdate S x54 @1", "0 x01"},
	{"C_SessionCancel S 0x3f00", "0"},
	{"C_GenerateKey S m0x1080 [0x161:32] =", "0 0x3eb"},
	{"C_GenerateKeyPair S m0x1040 [] [2:b1] = =", "0 0x47 0x48"},
	{"C_WrapKey S m0x2109 1 2 @-", "0 3"},
	{"C_WrapKey S m0x2109:xa6a6a6a6a6a6a6a6 1 2 @3", "0 x090909"},
	{"C_UnwrapKey S m0x2109 1 x0102 [0:4] =", "0 0x3ec"},
	{"C_DeriveKey S m0x1050:ecdh,1,x,x04aabb 1 [0:4] =", "0 0x3ed"},
	{"C_DeriveKey S m0x1050:ecdh,1,-,x04aabb 1 [0:4] =", "0 0x3ee"},
	{"C_SeedRandom S x01", "0"},
	{"C_GenerateRandom S @4", "0 x04040404"},
	{"C_GenerateRandom S @0", "0 x"},
	{"C_WaitForSlotEvent 1 =", "0x8"},
	{"C_WaitForSlotEvent 0 =", "0x54"}, // CKR_FUNCTION_NOT_SUPPORTED
	{"C_GetFunctionStatus S", "0x51"},
	{"C_CancelFunction S", "0x51"},
	{"C_MessageEncryptInit S m0x1087 1", "0"},
	{"C_EncryptMessage S g:x000102030405060708090a0b,0,0,x00000000000000000000000000000000,128 x x0102 @2", "0 x000102030405060708090a0b,xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa x5457"},
	{"C_EncryptMessage S g:x000102030405060708090a0b,0,1,x00000000000000000000000000000000,128 - x @0", "0 xeeeeeeeeeeeeeeeeeeeeeeee,xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa x"},
	{"C_EncryptMessageBegin S g:x000102030405060708090a0b,0,0,x00,8 x61", "0 x000102030405060708090a0b,x00"},
	{"C_EncryptMessageNext S g:x000102030405060708090a0b,0,0,x00,8 x0102 @2 1", "0 x000102030405060708090a0b,x00 x5457"},
	{"C_MessageEncryptFinal S", "0"},
	{"C_MessageDecryptInit S m0x1087 1", "0"},
	{"C_DecryptMessage S g:x00,0,0,xaaaa,16 x x5457 @2", "0 x00,xaaaa x0102"},
	{"C_DecryptMessage S g:x00,0,0,xaaab,16 x x5457 @2", "0x42 x00,xaaab 2"},
	{"C_DecryptMessageBegin S g:x00,0,0,xaaaa,16 x61", "0 x00,xaaaa"},
	{"C_DecryptMessageNext S g:x00,0,0,xaaaa,16 x5457 @2 1", "0 x00,xaaaa x0102"},
	{"C_MessageDecryptFinal S", "0"},
	{"C_MessageSignInit S m0x251 0", "0"},
	{"C_SignMessage S - x61 @32", "0 " + digest("a")},
	{"C_SignMessageBegin S -", "0"},
	{"C_SignMessageNext S - x61 @!", "0"},
	{"C_SignMessageNext S - x62 @-", "0 32"},
	{"C_MessageSignFinal S", "0"},
	{"C_MessageVerifyInit S m0x251 0", "0"},
	{"C_VerifyMessage S - x61 " + digest("a"), "0"},
	{"C_VerifyMessageBegin S -", "0"},
	{"C_VerifyMessageNext S - x61 -", "0"},
	{"C_VerifyMessageNext S - x62 " + digest("ab"), "0"},
	{"C_MessageVerifyFinal S", "0"},
	{"C_CloseSession S", "0"},
	{"C_CloseSession S", "0xb3"},
	{"C_CloseAllSessions 1", "0"},
	{"C_CloseAllSessions 9", "0x3"},
	{"C_Finalize", "0"},
	{"C_Finalize", "0x190"},
	{"C_GetSlotInfo 1", "0x190"},
	{"C_CloseSession S", "0x190"},
}

// digest is what this daemon makes of data with key 0.
func digest(data string) string {
	sum := sha256.Sum256([]byte("\x00\x00\x00\x00\x00\x00\x00\x00" + data))
	return fmt.Sprintf("x%x", sum[:])
}

func everyCallOf(t *testing.T, v *driver) {
	s := v.open(1)
	for _, c := range everyCall {
		v.want(c.result, "%s", strings.Replace(c.line, " S", " "+s, 1))
	}
}

func TestEveryCall(t *testing.T) {
	t.Parallel()
	everyCallOf(t, drive(t, start(t), "address"))
}

// Answers may come in pieces of any size.
func TestSplit(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.split = true
	d.start()
	everyCallOf(t, drive(t, d, "address"))
}

func TestValgrind(t *testing.T) {
	t.Parallel()
	everyCallOf(t, drive(t, start(t), "plain", "valgrind", "-q", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=definite,indirect,possible"))
}

// What is wrong with a call by itself never gets to the daemon.
func TestArguments(t *testing.T) {
	t.Parallel()
	v := drive(t, start(t), "address")
	s := v.open(1)
	for _, line := range []string{
		"C_GetSlotList 1 @!", "C_GetMechanismList 1 @!", "C_OpenSession 1 6 =!", "C_InitToken 1 x31 -", "C_InitToken 1 -4 x", "C_InitPIN S -4",
		"C_SetPIN S -4 x31", "C_SetPIN S x31 -4", "C_GetOperationState S @!", "C_SetOperationState S -1 0 0", "C_Login S 1 -4",
		"C_LoginUser S 1 x31 -4", "C_CreateObject S -3 =", "C_CreateObject S [3:-5] =", "C_CreateObject S [] =!", "C_CopyObject S 1 [] =!",
		"C_GetObjectSize S 1 =!", "C_GetAttributeValue S 1 -", "C_GetAttributeValue S 1 -2", "C_GetAttributeValue S 1 []", "C_SetAttributeValue S 1 -2",
		"C_FindObjectsInit S -2", "C_FindObjects S @!", "C_GenerateKey S - [] =", "C_GenerateKey S m0 -1 =", "C_GenerateKey S m0 [] =!",
		"C_GenerateKeyPair S m0 [] [] =! =", "C_GenerateKeyPair S m0 [] [] = =!", "C_WrapKey S - 1 2 @-", "C_WrapKey S m1 1 2 @!",
		"C_UnwrapKey S m1 1 -4 [] =", "C_DeriveKey S - 1 [] =", "C_SeedRandom S -4", "C_WaitForSlotEvent 0 =!",
	} {
		if got := v.do("%s", strings.Replace(line, " S", " "+s, 1)); !strings.HasPrefix(got, "0x7") {
			t.Errorf("%s: %s", line, got)
		}
	}
	for line, result := range map[string]string{
		"C_OpenSession 1 2 =":                               "0xb4",
		"C_CreateObject S [0:x03] =":                        "0x13", // not as long as a CK_ULONG
		"C_CreateObject S [1:xffff] =":                      "0x13",
		"C_CreateObject S [0x110:x30] =":                    "0x13",
		"C_CreateObject S [0x40000600:x3030] =":             "0x13",
		"C_CreateObject S [0x40000211:x3030] =":             "0x13",
		"C_CreateObject S [0x100000000:x30] =":              "0x12",
		"C_CreateObject S [0x11:z1048577] =":                "0x13",
		"C_SignInit S m0x100000000 1":                       "0x70",
		"C_SignInit S m0xffffffff 1":                        "0x70",
		"C_SignInit S m0x40:x01 1":                          "0x71",
		"C_SignInit S m0x4321:x01 1":                        "0x70",
		"C_SignInit S m0xd:x01 1":                           "0x71",
		"C_SignInit S m0x252:x01 1":                         "0x71",
		"C_EncryptInit S m0x1082:-4 1":                      "0x71",
		"C_EncryptInit S m0x1082:z300 1":                    "0x71",
		"C_EncryptInit S m0x1086:z25 1":                     "0x71",
		"C_EncryptInit S m0x1087:gcm,-12,96,x,128 1":        "0x71",
		"C_DecryptInit S m9:oaep,0x250,2,1,-3 1":            "0x71",
		"C_DeriveKey S m0x1050:ecdh,1,-4,x04 1 [] =":        "0x71",
		"C_EncryptInit S m0x1087:gcm,z12,96,z1048600,128 1": "0x21",
		"C_Sign S x61 @9":                                   "0x91 9",
		"C_SignUpdate S x61":                                "0x91",
		"C_Digest S x61 @9":                                 "0x91 9",
		"C_FindObjects S @1":                                "0x91 1",
		"C_FindObjectsFinal S":                              "0x91",
		"C_DigestEncryptUpdate S x61 @9":                    "0x91 9",
		"C_EncryptMessage S - x x @9":                       "0x91 9",
		"C_SignInit S - 1":                                  "0x7", // there is nothing to cancel
		"C_SessionCancel S 0xffff":                          "0",
		"C_CloseSession 77":                                 "0xb3",
		"C_Sign 0 x61 @9":                                   "0xb3 9",
	} {
		v.want(result, "%s", strings.Replace(line, " S", " "+s, 1))
	}
	v.sent("")
	// In an operation, which such an error ends like any other (2.40 §5.8), wherever it is: known to the daemon or only remembered.
	for _, line := range []string{"C_Sign S -4 @32", "C_Sign S x61 @!", "C_SignUpdate S -4", "C_SignFinal S @!", "C_Sign S z2000000 @!"} {
		v.want("0", "C_SignInit %s m0x251 0", s)
		if got := v.do("%s", strings.Replace(line, " S", " "+s, 1)); !strings.HasPrefix(got, "0x7") {
			t.Errorf("%s: %s", line, got)
		}
		v.want("0x91 32", "C_Sign %s x61 @32", s)
	}
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.want("0", "C_SignUpdate %s x61", s)
	v.want("0x7", "C_SignUpdate %s -4", s)
	v.want("0", "C_SignInit %s m0x251 0", s)
	v.want("0 "+digest("b"), "C_Sign %s x62 @32", s)
	v.want("0", "C_MessageEncryptInit %s m0x1087:z48 1", s) // CK_GCM_MESSAGE_PARAMS, which has the size of CK_GCM_PARAMS
	v.want("0x7 9", "C_EncryptMessage %s x x -4 @9", s)
	v.want("0x71 9", "C_EncryptMessage %s x0102 x x @9", s) // an operation on messages goes on
}

// The module and the daemon must agree on what attributes are: the daemon refuses a kind that is not the attribute's.
func TestKinds(t *testing.T) {
	t.Parallel()
	var in strings.Builder
	var types []ck.Attribute
	for _, range_ := range []struct{ from, to ck.Attribute }{{0, 0x700}, {0x40000000, 0x40000700}} {
		for a := range_.from; a < range_.to; a++ {
			types = append(types, a)
			fmt.Fprintln(&in, uint64(a))
		}
	}
	cmd := exec.Command(built(t, "address", "kinds"))
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	kinds := strings.Fields(string(out))
	if len(kinds) != len(types) {
		t.Fatal(len(kinds), "kinds")
	}
	for i, a := range types {
		if want := fmt.Sprint(uint8(p11rpc.KindOf(a))); kinds[i] != want {
			t.Errorf("%v is of kind %s, not %s", a, kinds[i], want)
		}
	}
}

// What the library shows before it is used.
func TestLists(t *testing.T) {
	t.Parallel()
	for _, variant := range []string{"address", "plain"} {
		if out, err := exec.Command(built(t, variant, "lists"), built(t, variant, "module.so")).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// A PIN is kept in a page that is locked, not dumped, and empty in a child of fork; a token that asks for none has no such page.
func TestPINPage(t *testing.T) {
	t.Parallel()
	v := drive(t, start(t), "plain")
	pages := func() (n int) {
		t.Helper()
		smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", v.pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(smaps), "\n") {
			if strings.HasPrefix(line, "VmFlags:") && strings.Contains(line, " lo ") && strings.Contains(line, " wf ") && strings.Contains(line, " dd ") {
				n++
			}
		}
		return n
	}
	s := v.open(2)
	if n := pages(); n != 0 {
		t.Error(n, "pages before the login")
	}
	v.want("0", "C_Login %s 1 x31323334", s)
	if n := pages(); n != 1 {
		t.Error(n, "pages after it")
	}
	v.want("0", "C_Finalize")
	if n := pages(); n != 0 {
		t.Error(n, "pages at the end")
	}
}

// The library shows the functions of PKCS #11 and nothing else, and needs nothing but libc.
func TestSymbols(t *testing.T) {
	t.Parallel()
	f, err := elf.Open(built(t, "plain", "module.so"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF {
			shown++
			if !strings.HasPrefix(s.Name, "C_") {
				t.Error("shown: ", s.Name)
			}
		}
	}
	if shown != 92 {
		t.Errorf("%d functions are shown, not the 92 of PKCS #11 3.0", shown)
	}
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) != 1 || libraries[0] != "libc.so.6" {
		t.Error("needs ", libraries, err)
	}
}
