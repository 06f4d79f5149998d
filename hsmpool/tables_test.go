package hsmpool

import (
	"crypto"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"
)

// ckrConstants reads every CKR constant of the binding from its source.
func ckrConstants(t *testing.T) map[string]uint {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/miekg/pkcs11").Output()
	if err != nil {
		t.Fatal(err)
	}
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "zconst.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	constants := map[string]uint{}
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Names) != 1 || len(v.Values) != 1 || !strings.HasPrefix(v.Names[0].Name, "CKR_") {
			return true
		}
		lit, ok := v.Values[0].(*ast.BasicLit)
		if !ok {
			t.Fatalf("%s is not a number", v.Names[0].Name)
		}
		x, err := strconv.ParseUint(lit.Value, 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		constants[v.Names[0].Name] = uint(x)
		return true
	})
	return constants
}

func TestCKRTableIsComplete(t *testing.T) {
	constants := ckrConstants(t)
	if len(constants) < 90 {
		t.Fatalf("%d constants found", len(constants))
	}
	known := map[uint]bool{}
	for name, code := range constants {
		known[code] = true
		if _, ok := ckrTable[code]; !ok {
			t.Errorf("%s (%#x) has no row", name, code)
		}
	}
	for code, r := range ckrTable {
		if !known[code] {
			t.Errorf("row %#x is no code", code)
		}
		if r.fate == fateData && r.kind != KindBadData || r.fate == fateNone && code != pkcs11.CKR_OK && code != pkcs11.CKR_USER_ALREADY_LOGGED_IN {
			t.Errorf("row %#x: %v", code, r)
		}
		if (r.fate == fateLogin || r.fate == fateModule || r.fate == fateDown || r.fate == fateOperator) && r.kind != KindUnavailable {
			t.Errorf("row %#x: the data of a caller is not to blame: %v", code, r)
		}
	}
}

func TestCKRClassify(t *testing.T) {
	soft := quirksOf("SoftHSM project")
	for _, c := range []struct {
		q    *quirks
		code uint
		fn   function
		st   stage
		want ckrRow
	}{
		{noQuirks, pkcs11.CKR_GENERAL_ERROR, fnDecrypt, stageOp, ckrRow{fateSession, KindUnavailable}},
		{soft, pkcs11.CKR_GENERAL_ERROR, fnDecrypt, stageOp, ckrRow{fateData, KindBadData}},
		{soft, pkcs11.CKR_GENERAL_ERROR, fnDecrypt, stageInit, ckrRow{fateSession, KindUnavailable}},
		{soft, pkcs11.CKR_GENERAL_ERROR, fnSign, stageOp, ckrRow{fateSession, KindUnavailable}},
		{noQuirks, 0x80001234, fnSign, stageOp, unknownCKR},
		{noQuirks, 0x12345, fnSign, stageOp, unknownCKR},
		{noQuirks, pkcs11.CKR_PIN_LOCKED, fnLogin, stageOther, ckrRow{fateOperator, KindUnavailable}},
		{noQuirks, pkcs11.CKR_TOKEN_NOT_PRESENT, fnSign, stageInit, ckrRow{fateDown, KindUnavailable}},
	} {
		if got := c.q.classify(c.code, c.fn, c.st); got != c.want {
			t.Errorf("%#x in %d/%d: %v, want %v", c.code, c.fn, c.st, got, c.want)
		}
	}
	if e := noQuirks.fail(pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN), fnLogin, stageOther, "x"); e != nil {
		t.Errorf("already logged in is an error: %v", e)
	}
	// From any other function it is an answer that can't be, and no success.
	if e := noQuirks.fail(pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN), fnSign, stageOp, "x"); e == nil || e.Kind != KindUnavailable {
		t.Errorf("a signature that is already logged in: %v", e)
	}
	if e := noQuirks.fail(errImpossible, fnOther, stageOther, "x"); e == errImpossible {
		t.Error("a shared error is given to somebody who may add to it")
	}
	if quirksOf("Another maker") != noQuirks {
		t.Error("quirks for anybody")
	}
}

func TestOpTable(t *testing.T) {
	classes := map[taskClass]Op{}
	for o := EncryptGCM; int(o) < opsOfJobs; o++ {
		r, ok := ops[o]
		if !ok || r.out == nil || r.fn == fnOther || r.class == 0 || r.usage == 0 || r.name != o.String() ||
			!r.modulus && r.max == 0 && r.pad == 0 && r.takes != hashAndSalt {
			t.Errorf("operation %d: %+v", o, r)
		}
		variants := []choices{{}}
		if r.takes == hashAndSalt || r.takes == hashAndLabel {
			variants = []choices{{hash: crypto.SHA1, mgf: crypto.SHA1}, {hash: crypto.SHA512, mgf: crypto.SHA512}, {hash: crypto.SHA512, mgf: crypto.SHA1}}
		}
		for _, kt := range []KeyType{AES128, Secp256k1} {
			for _, v := range variants {
				c := (&task{op: o, key: &Key{Type: kt}, told: &v}).class()
				if other, ok := classes[c]; ok || int(c) >= taskClasses {
					t.Errorf("%v is of class %d of %d, as %v", o, c, taskClasses, other)
				}
				classes[c] = o
			}
		}
	}
	if _, ok := ops[Op(opsOfJobs)]; ok || opsOfJobs >= int(opGenerate) {
		t.Error("an operation that has no constant")
	}
	for o, r := range ops {
		// A module that decrypts PKCS#1 v1.5 itself tells by its error whether the padding was good.
		if r.mech == pkcs11.CKM_RSA_PKCS && r.fn == fnDecrypt || r.mech == pkcs11.CKM_RSA_X_509 && o != DecryptRaw && o != SignRaw {
			t.Errorf("%v decrypts PKCS#1 v1.5, or uses raw RSA", o)
		}
	}
	for k := AES128; k <= Secp256k1; k++ {
		r, ok := keyTypes[k]
		if !ok || r.octets == 0 || r.usages == 0 || r.class == classEC && r.ecParams == nil || r.name != k.String() {
			t.Errorf("key type %d: %+v", k, r)
		}
	}
	for a := ImportPKCS1; a <= ImportOAEPSHA256KWP; a++ {
		r, ok := imports[a]
		if !ok || r.name == "" || r.name != a.String() || r.mech == 0 || (r.param == nil) != (a == ImportPKCS1) {
			t.Errorf("import algorithm %d: %+v", a, r)
		}
	}
	if len(imports) != int(ImportOAEPSHA256KWP) {
		t.Errorf("%d import algorithms", len(imports))
	}
	for o := opGenerate; o <= opForget; o++ {
		if o.String() == "unknown operation" {
			t.Errorf("operation %d has no name", o)
		}
		c := (&task{op: o, key: &Key{Type: Secp256k1}}).class()
		if other, ok := classes[c]; ok || int(c) >= taskClasses {
			t.Errorf("%v is of class %d of %d, as %v", o, c, taskClasses, other)
		}
		classes[c] = o
	}
	if len(keyTypes) != int(Secp256k1) {
		t.Errorf("%d key types", len(keyTypes))
	}
	for k := KindInternal; k <= KindCanceled; k++ {
		if strings.HasPrefix(k.String(), "kind ") {
			t.Errorf("kind %d has no name", k)
		}
	}
}

// TestUsages holds each usage to its attributes, and no more: two usages are on an object only if both were asked for.
func TestUsages(t *testing.T) {
	const e, s, w = UseEncrypt, UseSign, UseUnwrap
	for kt, r := range keyTypes {
		for u := Usage(0); u < 16; u++ {
			may := u == e && r.class != classEC || u == s && r.class != classAES || u == e|s && r.class == classRSA
			if got := checkNew(&Key{Type: kt, Usage: u}) == nil; got != may {
				t.Errorf("a new key of type %v and usage %d: %v", kt, u, got)
			}
			transport := u == w && kt == RSA2048
			if got := checkTransport(&Key{Type: kt, Usage: u}) == nil; got != transport {
				t.Errorf("a transport key of type %v and usage %d: %v", kt, u, got)
			}
			if got := checkKey(&Key{ID: "k", Type: kt, Usage: u, Wrapped: make([]byte, 40)}) == nil; got != (may || transport) {
				t.Errorf("a key of type %v and usage %d: %v", kt, u, got)
			}
			if !may && !transport {
				continue
			}
			want := usageBits{encrypt: r.class == classAES, decrypt: u&e != 0, sign: u&s != 0, unwrap: u == w}
			if got := secretUsage(r, u); got != want {
				t.Errorf("the secret half of type %v and usage %d: %+v", kt, u, got)
			}
			want = usageBits{encrypt: r.class == classRSA && u&e != 0, verify: u&s != 0, wrap: u == w}
			if got := publicUsage(r, u); r.class != classAES && got != want {
				t.Errorf("the public half of type %v and usage %d: %+v", kt, u, got)
			}
		}
	}
	for o, r := range ops {
		if r.usage != e && r.usage != s {
			t.Errorf("%v is done with a key of usage %d", o, r.usage)
		}
	}
}

func TestPlanSessions(t *testing.T) {
	const none = ^uint(0)
	for _, c := range []struct {
		rw, all uint
		most    int
		alone   bool
		want    sessionPlan
	}{
		{0, 0, 0, true, sessionPlan{lanes: 16}},       // no limit
		{none, none, 0, true, sessionPlan{lanes: 16}}, // does not say
		{none, none, 64, true, sessionPlan{lanes: 61}},
		{none, none, 1000, true, sessionPlan{lanes: 61}}, // said so, but 64 are the most
		{16, 16, 0, true, sessionPlan{lanes: 16, scarce: true}},
		{16, 16, 0, false, sessionPlan{lanes: 15, scarce: true}}, // crypto11 has one
		{64, 0, 16, true, sessionPlan{lanes: 16, scarce: true}},
		{none, 4, 0, true, sessionPlan{lanes: 4, scarce: true}},
		{2, 0, 0, true, sessionPlan{lanes: 2, scarce: true}},
		{2, 0, 0, false, sessionPlan{lanes: 1, shared: true}},
		{1, 100, 0, true, sessionPlan{lanes: 1, shared: true}},
		{1, 100, 0, false, sessionPlan{lanes: 1, shared: true}},
		{0, 0, 1, true, sessionPlan{lanes: 1, shared: true}},
	} {
		if got := planSessions(pkcs11.TokenInfo{MaxRwSessionCount: c.rw, MaxSessionCount: c.all}, c.most, c.alone); got != c.want {
			t.Errorf("%+v: %+v", c, got)
		}
	}
}
