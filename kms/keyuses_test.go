package kms

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/kms/blob"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/mechanism"
)

// The rights of each use, written out once more, by hand: to sign, verify, encrypt and decrypt. GCM is that with an IV of the caller's.
const keyUseTable = `
	RSA-PKCS1  AsymmetricSign  AsymmetricVerify  AsymmetricEncrypt  AsymmetricDecrypt
	RSA-RAW    AsymmetricSign  AsymmetricVerify  AsymmetricEncrypt  AsymmetricDecrypt
	RSA-PSS    AsymmetricSign  AsymmetricVerify  -                  -
	RSA-OAEP   -               -                 AsymmetricEncrypt  AsymmetricDecrypt
	ECDSA      AsymmetricSign  AsymmetricVerify  -                  -
	AES-ECB    -               -                 Encrypt+Decrypt    Decrypt+Encrypt
	AES-CBC    -               -                 Encrypt+Decrypt    Decrypt+Encrypt
	AES-CTR    -               -                 Encrypt+Decrypt    Decrypt+Encrypt
	AES-GCM    -               -                 Encrypt+Decrypt    Decrypt`

func TestKeyUseTable(t *testing.T) {
	want := map[string][]string{}
	for line := range strings.Lines(strings.TrimSpace(keyUseTable)) {
		cells := strings.Fields(line)
		want[cells[0]] = cells[1:]
	}
	if len(keyUses) != len(want)+1 || keyUses[0].name != "" {
		t.Errorf("%d kinds of mechanisms, want %d", len(keyUses)-1, len(want))
	}
	ops := map[hsmpool.Op]string{}
	for kind := mechanism.RSAPKCS1; int(kind) < len(keyUses); kind++ {
		row := &keyUses[kind]
		cells := want[row.name]
		if cells == nil || row.keys == 0 {
			t.Errorf("kind %d, %q, is not in this test", kind, row.name)
			continue
		}
		for verb := Sign; verb <= Decrypt; verb++ {
			got, entry := "-", row.verbs[verb]
			if entry != nil {
				names := []string{}
				for _, a := range entry.rights {
					names = append(names, a.name)
					if a.kind != kindCrypto || a.states != useOfKey {
						t.Errorf("%s: %s is no use of a key", row.name, a.name)
					}
				}
				got = strings.Join(names, "+")
				// With the public key it is done in the daemon, else in an HSM.
				public := row.keys != aesKeys && (verb == Verify || verb == Encrypt)
				if (entry.op == 0) != public {
					t.Errorf("%s, verb %d: operation %v", row.name, verb, entry.op)
				}
				if other := ops[entry.op]; entry.op != 0 && other != "" && entry.op != hsmpool.DecryptRaw && entry.op != hsmpool.CryptCTR {
					t.Errorf("%s: %v is of %s", row.name, entry.op, other)
				}
				ops[entry.op] = row.name
			}
			if got != cells[verb-1] {
				t.Errorf("%s, verb %d: %s, want %s", row.name, verb, got, cells[verb-1])
			}
		}
	}
	for verb := Sign; verb <= Decrypt; verb++ {
		if verbUsages[verb] == "" || verbActions[verb] == nil {
			t.Errorf("verb %d has no row", verb)
		}
	}
	names := map[string]bool{}
	for kind := range keyUses {
		for _, h := range mechanismHashes {
			n := hashedNames[kind][h]
			if names[n] || h.String() == "" {
				t.Errorf("two mechanisms are called %q", n)
			}
			names[n] = true
		}
	}
}

// anyUse is a use by each kind of mechanism that is good but for the key.
func anyUse(kind mechanism.Kind) *mechanism.Mechanism {
	m := &mechanism.Mechanism{Kind: kind}
	row := &keyUses[kind]
	if row.hash {
		m.Hash, m.MGF = crypto.SHA384, crypto.SHA384
	}
	if row.salt {
		m.Salt = 48
	}
	if row.iv > 0 {
		m.IV = make([]byte, row.iv)
	}
	if row.gcm {
		m.IV, m.TagBits = make([]byte, gcmIV), 128
	}
	return m
}

// Each right of each use is needed, no other helps, and no use goes on with less.
func TestKeyUseRights(t *testing.T) {
	ctx := context.Background()
	f := newPolicyFixture(t)
	keys := map[string]kmswire.KeyMetadata{
		"rsa sign": f.create(software, kmswire.RSA2048, kmswire.SignVerify), "rsa open": f.create(software, kmswire.RSA2048, kmswire.EncryptDecrypt),
		"ec sign": f.create(software, kmswire.ECP256, ""), "aes open": f.create(software, kmswire.AES256, ""),
	}
	families := map[keyFamily]string{rsaKeys: "rsa", ecKeys: "ec", aesKeys: "aes"}
	rights := []string{"AsymmetricSign", "AsymmetricVerify", "AsymmetricEncrypt", "AsymmetricDecrypt", "Encrypt", "Decrypt", "ReEncryptFrom", "ReEncryptTo", "GenerateDataKey", "DescribeKey"}
	allow := func(keyID string, actions []string) {
		all := []string{statement("Allow", "acs:ram::"+testAccount+":root", "kms:*", "")}
		for _, a := range actions {
			all = append(all, statement("Allow", bob.Principal, "kms:"+a, ""))
		}
		f.setPolicy(keyID, keyPolicyText(all...))
	}
	try := func(verb Verb, use *KeyUse) error {
		switch verb {
		case Sign:
			_, err := f.SignWith(ctx, bob, use)
			return err
		case Verify:
			_, err := f.VerifyWith(ctx, bob, use)
			return err
		case Encrypt:
			_, err := f.EncryptWith(ctx, bob, use)
			return err
		}
		_, err := f.DecryptWith(ctx, bob, use)
		return err
	}
	uses := 0
	for kind := mechanism.RSAPKCS1; int(kind) < len(keyUses); kind++ {
		for verb := Sign; verb <= Decrypt; verb++ {
			entry := keyUses[kind].verbs[verb]
			what := " open"
			if verbUsages[verb] == kmswire.SignVerify {
				what = " sign"
			}
			k, ok := keys[families[keyUses[kind].keys]+what]
			if !ok || entry == nil {
				continue
			}
			uses++
			by := anyUse(kind)
			forms := []*mechanism.Mechanism{by}
			if kind == mechanism.AESGCM && verb == Encrypt {
				drawn := *by
				drawn.IV = nil
				forms = append(forms, &drawn)
			}
			for _, by := range forms {
				use := &KeyUse{KeyID: k.KeyID, VersionID: f.onlyVersion(k.KeyID), Mechanism: by}
				need := map[string]bool{}
				for _, a := range entry.rightsFor(verb, by) {
					need[a.name] = true
				}
				name := fmt.Sprintf("%s, verb %d", keyUses[kind].name, verb)
				allow(k.KeyID, slices.Collect(maps.Keys(need)))
				if err := f.MayUse(ctx, bob, verb, use); err != nil {
					t.Errorf("%s with all rights: %v", name, err)
				}
				if err := try(verb, use); errors.Is(err, Denied) {
					t.Errorf("%s with all rights: %v", name, err)
				}
				for missing := range need {
					var others []string
					for _, r := range rights {
						if r != missing {
							others = append(others, r)
						}
					}
					allow(k.KeyID, others)
					n := f.events.len()
					if err := f.MayUse(ctx, bob, verb, use); !errors.Is(err, Denied) {
						t.Errorf("MayUse of %s without kms:%s: %v", name, missing, err)
					}
					if err := try(verb, use); !errors.Is(err, Denied) {
						t.Errorf("%s without kms:%s: %v", name, missing, err)
					}
					use.Continued = true
					if err := try(verb, use); !errors.Is(err, Denied) {
						t.Errorf("a later part of %s without kms:%s: %v", name, missing, err)
					}
					use.Continued = false
					for _, e := range f.events.since(n) {
						if e.Action != entry.rights[0].name || e.KeyID != k.KeyID || e.Outcome != Denied.Error() {
							t.Errorf("the event of %s without kms:%s: %+v", name, missing, e)
						}
					}
					if f.events.len() != n+3 {
						t.Errorf("%d events of three refusals", f.events.len()-n)
					}
				}
			}
		}
	}
	if uses != 22 {
		t.Errorf("%d uses", uses)
	}
}

// A policy that wants an algorithm is met by that and by nothing else.
func TestKeyUseAlgorithms(t *testing.T) {
	ctx := context.Background()
	f := newPolicyFixture(t)
	rsa, aes := f.create(software, kmswire.RSA2048, kmswire.EncryptDecrypt), f.create(software, kmswire.AES256, "")
	oaep := func(hash, mgf crypto.Hash, label string) *mechanism.Mechanism {
		return &mechanism.Mechanism{Kind: mechanism.RSAOAEP, Hash: hash, MGF: mgf, Label: []byte(label)}
	}
	all := map[string]*mechanism.Mechanism{
		"OAEP": oaep(crypto.SHA256, crypto.SHA256, ""), "OAEP with a label": oaep(crypto.SHA256, crypto.SHA256, "x"), "OAEP, SHA-1": oaep(crypto.SHA1, crypto.SHA1, ""),
		"OAEP, SHA-384": oaep(crypto.SHA384, crypto.SHA384, ""), "OAEP, mixed": oaep(crypto.SHA256, crypto.SHA1, ""), "PKCS1": {Kind: mechanism.RSAPKCS1}, "raw": {Kind: mechanism.RSARaw},
		"CBC": anyUse(mechanism.AESCBC), "CTR": anyUse(mechanism.AESCTR), "ECB": anyUse(mechanism.AESECB), "GCM": anyUse(mechanism.AESGCM),
		"GCM, drawn": {Kind: mechanism.AESGCM, TagBits: 128},
	}
	for _, c := range []struct {
		effect, operator, value string
		may                     []string
	}{
		{"Allow", "StringEquals", "RSAES_OAEP_SHA_256", []string{"OAEP", "OAEP with a label"}},
		{"Allow", "StringEquals", "RSAES_OAEP_SHA_1", []string{"OAEP, SHA-1"}},
		{"Allow", "StringEquals", "SYMMETRIC_DEFAULT", nil},
		{"Allow", "StringEquals", "RSA-PKCS1", []string{"PKCS1"}},
		{"Allow", "StringEquals", "RSA-OAEP-SHA-384", []string{"OAEP, SHA-384"}},
		{"Allow", "StringEquals", "AES-GCM", []string{"GCM", "GCM, drawn"}},
		{"Allow", "StringLike", "RSAES_*", []string{"OAEP", "OAEP with a label", "OAEP, SHA-1"}},
		{"Deny", "StringNotEquals", "RSAES_OAEP_SHA_256", []string{"OAEP", "OAEP with a label"}},
		{"Deny", "StringNotEquals", "SYMMETRIC_DEFAULT", nil},
	} {
		for _, k := range []kmswire.KeyMetadata{rsa, aes} {
			statements := []string{statement("Allow", "acs:ram::"+testAccount+":root", "kms:*", ""),
				statement(c.effect, bob.Principal, "kms:*", fmt.Sprintf(`,"Condition":{%q:{"kms:EncryptionAlgorithm":[%q]}}`, c.operator, c.value))}
			if c.effect == "Deny" {
				statements = append(statements, statement("Allow", bob.Principal, "kms:*", ""))
			}
			f.setPolicy(k.KeyID, keyPolicyText(statements...))
		}
		for name, by := range all {
			k := rsa
			if keyUses[by.Kind].keys == aesKeys {
				k = aes
			}
			for _, verb := range []Verb{Encrypt, Decrypt} {
				if verb == Decrypt && name == "GCM, drawn" {
					continue
				}
				err := f.MayUse(ctx, bob, verb, &KeyUse{KeyID: k.KeyID, VersionID: f.onlyVersion(k.KeyID), Mechanism: by})
				if may := slices.Contains(c.may, name); may && err != nil || !may && !errors.Is(err, Denied) {
					t.Errorf("%s if %s %s: %s, verb %d: %v", c.effect, c.operator, c.value, name, verb, err)
				}
			}
		}
	}
}

// testWriterReads has one who may only encrypt try to read the API's blobs, which a key of an HSM makes by AES-GCM: the IV that the caller
// chooses makes decryption of each encrypting mode. Then the same is done with both rights, to see that the attack is one.
func testWriterReads(t *testing.T, f *fixture) {
	ctx := context.Background()
	k := f.create(wrapped, kmswire.AES256, "")
	secret := []byte("sixteen octets, and more of them")
	made, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: k.KeyID, Plaintext: secret})
	if err != nil {
		t.Fatal(err)
	}
	h, n, err := blob.Parse(made.CiphertextBlob)
	if err != nil {
		t.Fatal(err)
	}
	text := made.CiphertextBlob[n : n+len(secret)]
	// GCM counts from 2 in the last 32 bits after an IV of 96 (SP 800-38D §7.1).
	counter := append(bytes.Clone(h.Nonce), 0, 0, 0, 2)
	next := append(bytes.Clone(h.Nonce), 0, 0, 0, 3)
	xor := func(a, b []byte) []byte {
		out := make([]byte, len(a))
		for i := range a {
			out[i] = a[i] ^ b[i%len(b)]
		}
		return out
	}
	type attack struct {
		verb  Verb
		by    *mechanism.Mechanism
		in    []byte
		reads func(out []byte) []byte
	}
	keystream := func(out []byte) []byte { return xor(text, out[:32]) }
	attacks := map[string]attack{
		"CTR":             {Encrypt, &mechanism.Mechanism{Kind: mechanism.AESCTR, IV: counter}, text, func(out []byte) []byte { return out }},
		"CTR, to decrypt": {Decrypt, &mechanism.Mechanism{Kind: mechanism.AESCTR, IV: counter}, text, func(out []byte) []byte { return out }},
		"ECB":             {Encrypt, &mechanism.Mechanism{Kind: mechanism.AESECB}, slices.Concat(counter, next), keystream},
		"CBC": {Encrypt, &mechanism.Mechanism{Kind: mechanism.AESCBC, IV: counter}, make([]byte, 16),
			func(out []byte) []byte { return append(xor(text[:16], out), secret[16:]...) }},
		"GCM": {Encrypt, &mechanism.Mechanism{Kind: mechanism.AESGCM, IV: h.Nonce, TagBits: 128}, text, func(out []byte) []byte { return out[:32] }},
	}
	root := "acs:ram::" + testAccount + ":root"
	rights := func(names ...string) {
		all := []string{statement("Allow", root, "kms:*", "")}
		for _, name := range names {
			all = append(all, statement("Allow", bob.Principal, "kms:"+name, ""))
		}
		f.setPolicy(k.KeyID, keyPolicyText(all...))
	}
	do := func(a attack) ([]byte, error) {
		use := &KeyUse{KeyID: k.KeyID, VersionID: h.VersionID, Mechanism: a.by, Input: a.in}
		if a.verb == Encrypt {
			return f.EncryptWith(ctx, bob, use)
		}
		return f.DecryptWith(ctx, bob, use)
	}
	for _, only := range []string{"Encrypt", "Decrypt"} { // one who may only decrypt makes no blobs either
		rights(only)
		for name, a := range attacks {
			if out, err := do(a); !errors.Is(err, Denied) || out != nil {
				t.Errorf("%s with kms:%s alone: %x, %v", name, only, out, err)
			}
		}
	}
	rights("Encrypt")
	// An IV that is drawn is no help: the text is not its keystream's.
	for _, in := range [][]byte{text, slices.Concat(counter, next)} {
		out, err := do(attack{verb: Encrypt, by: &mechanism.Mechanism{Kind: mechanism.AESGCM, TagBits: 128}, in: in})
		if err != nil || len(out) != gcmIV+len(in)+16 || bytes.Contains(out, secret[:8]) || bytes.Equal(out[:gcmIV], h.Nonce) {
			t.Errorf("with an IV that is drawn: %x, %v", out, err)
		}
	}
	// GCM that opens with a short tag is decryption, and needs that right.
	if _, err := do(attack{verb: Decrypt, by: &mechanism.Mechanism{Kind: mechanism.AESGCM, IV: h.Nonce, TagBits: 96}, in: text}); !errors.Is(err, Denied) {
		t.Errorf("GCM to decrypt: %v", err)
	}
	rights("Encrypt", "Decrypt")
	for name, a := range attacks {
		out, err := do(a)
		if err != nil || !bytes.Equal(a.reads(out), secret) {
			t.Errorf("%s with both rights is no attack: %x, %v", name, out, err)
		}
	}
}

// testRawOfBoth has a key that is for both: who may only sign must not decrypt by signing, nor the other way round.
func testRawOfBoth(t *testing.T, f *fixture) {
	ctx := context.Background()
	k := f.createBoth(wrapped, kmswire.RSA2048, kmswire.SignVerify, "")
	use := &KeyUse{KeyID: k.KeyID, VersionID: f.onlyVersion(k.KeyID), Mechanism: rawRSA, Input: make([]byte, 256)}
	use.Input[255] = 2
	var want []byte
	for _, c := range []struct {
		rights []string
		want   Code
	}{{[]string{"AsymmetricSign"}, Denied}, {[]string{"AsymmetricDecrypt"}, Denied}, {[]string{"AsymmetricSign", "AsymmetricDecrypt"}, pass}} {
		all := []string{statement("Allow", "acs:ram::"+testAccount+":root", "kms:*", "")}
		for _, r := range c.rights {
			all = append(all, statement("Allow", bob.Principal, "kms:"+r, ""))
		}
		f.setPolicy(k.KeyID, keyPolicyText(all...))
		for i, do := range []func(context.Context, *Actor, *KeyUse) ([]byte, error){f.SignWith, f.DecryptWith} {
			out, err := do(ctx, bob, use)
			switch {
			case c.want != pass:
				wantCode(t, fmt.Sprint(c.rights, i), err, c.want)
			case err != nil || want != nil && !bytes.Equal(out, want):
				t.Errorf("with both rights: %x, %v", out, err)
			default:
				want = out
			}
		}
	}
	// Services have no part in a secondary usage.
	f.SetServices([]ServicePrincipal{{Code: "volumes", Principals: []string{bob.Principal}, Unit: bob.Unit}})
	for i, do := range []func(context.Context, *Actor, *KeyUse) ([]byte, error){f.SignWith, f.DecryptWith} {
		_, err := do(ctx, bob, use)
		wantCode(t, fmt.Sprint("a service", i), err, OperationRejected)
	}
	digest := sha256.Sum256(nil)
	if _, err := f.SignWith(ctx, bob, &KeyUse{KeyID: k.KeyID, VersionID: use.VersionID, Mechanism: &mechanism.Mechanism{Kind: mechanism.RSAPKCS1}, Input: digest[:]}); err != nil {
		t.Errorf("a service signs: %v", err)
	}
}
