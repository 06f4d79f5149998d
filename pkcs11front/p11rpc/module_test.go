package p11rpc

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/keyward/keyward/pkcs11front/ck"
)

// The tests of this file hold the tables of keyward's own module, which is written in C, against those here.

// source reads a file of the module.
func source(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "module", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// cases gives what a function of the module, which is a switch, returns for each number, by the names that pkcs11.h gives.
func cases(t *testing.T, name, function string) map[uint64]string {
	t.Helper()
	numbers := map[string]uint64{}
	for _, m := range regexp.MustCompile(`(?m)^#define (CK[AM]_\w+) (0x[0-9a-f]+)UL$`).FindAllStringSubmatch(source(t, "pkcs11.h"), -1) {
		n, err := strconv.ParseUint(m[2], 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		numbers[m[1]] = n
	}
	_, body, found := strings.Cut(source(t, name), function)
	body, _, ended := strings.Cut(body, "\n}\n")
	if !found || !ended {
		t.Fatalf("%s has no %s", name, function)
	}
	all, waiting := map[uint64]string{}, []uint64{}
	for _, m := range regexp.MustCompile(`(?m)^\t(?:case (\w+):|default:|\treturn (\w+);)$`).FindAllStringSubmatch(body, -1) {
		switch {
		case m[2] != "":
			for _, n := range waiting {
				all[n] = m[2]
			}
			waiting = nil
		case m[1] != "":
			n, ok := numbers[m[1]]
			if !ok {
				t.Fatalf("pkcs11.h has no %s", m[1])
			}
			waiting = append(waiting, n)
		}
	}
	return all
}

func TestModuleCalls(t *testing.T) {
	rows := regexp.MustCompile(`CALL\((\d+), (\w+), "(\w*)", "(\w*)"`).FindAllStringSubmatch(source(t, "calls.h"), -1)
	if len(rows) < 80 {
		t.Fatalf("the module has %d calls", len(rows))
	}
	for _, row := range rows {
		n, err := strconv.Atoi(row[1])
		if err != nil || n < 1 || n > len(Calls) {
			t.Fatal(row)
		}
		if c := Calls[n-1]; "C_"+row[2] != c.Name || row[3] != c.Request || row[4] != Response(Keyward, c) {
			t.Errorf("the module's row is %v, and ours %+v with the answer %q", row[1:], c, Response(Keyward, c))
		}
	}
}

func TestModuleKinds(t *testing.T) {
	names := map[string]Kind{"KIND_BYTES": Bytes, "KIND_BOOL": Bool, "KIND_ULONG": Ulong, "KIND_DATE": Date, "KIND_MECHANISMS": Ulongs, "KIND_TEMPLATE": Template}
	theirs := cases(t, "attribute.c", "enum kind attribute_kind(")
	for a := range kinds {
		if theirs[uint64(a)] == "" {
			t.Errorf("the module takes %v for octets", a)
		}
	}
	for a, kind := range theirs {
		if ours := KindOf(ck.Attribute(a)); names[kind] != ours {
			t.Errorf("%v is %s in the module, and %d here", ck.Attribute(a), kind, ours)
		}
	}
}

func TestModuleParameters(t *testing.T) {
	names := map[string]parameter{"NONE": none, "PSS": pss, "OAEP": oaep, "IV": iv, "CTR": ctr, "GCM": gcm, "ECDH1": ecdh1, "MAC_LENGTH": macLength}
	theirs := cases(t, "mechanism.c", "enum parameter parameter_of(")
	if len(theirs) < 50 {
		t.Fatalf("the module has %d mechanisms", len(theirs))
	}
	for m, p := range theirs {
		if ours := parameters[ck.Mechanism(m)]; names[p] != ours {
			t.Errorf("the parameter of %v is %s in the module, and %d here", ck.Mechanism(m), p, ours)
		}
	}
}
