package hsmpool_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/keyward/keyward/hsmpool"
)

type (
	session = pkcs11.SessionHandle
	object  = pkcs11.ObjectHandle
)

func mech(m uint, param any) []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(m, param)}
}

// testSeparation tries to take keys out with what the worker has in its hands: whoever owns this process must fail too.
func testSeparation(t *testing.T, p *hsmpool.Pool) {
	rsaKey, _ := wrappedKey(t, p, hsmpool.RSA2048, hsmpool.UseEncrypt|hsmpool.UseSign)
	ecKey, _ := wrappedKey(t, p, hsmpool.P256, hsmpool.UseSign)
	aesKey, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
	if _, err := p.GeneratePinned(testContext(t), hsmpool.AES256, hsmpool.UseEncrypt, []byte("separation"), "a"); err != nil {
		t.Fatal(err)
	}
	defer p.DestroyPinned(testContext(t), "a", []byte("separation"))
	pinned := &hsmpool.Key{ID: "p", Type: hsmpool.AES256, Usage: hsmpool.UseEncrypt, Member: "a", ObjectID: []byte("separation")}
	keys := map[string]object{}
	for name, k := range map[string]*hsmpool.Key{"RSA": rsaKey, "EC": ecKey, "AES": aesKey, "pinned": pinned} {
		h, err := hsmpool.LoadedHandle(p, "a", k)
		if err != nil {
			t.Fatal(name, err)
		}
		keys[name] = h
	}
	block := make([]byte, 48)
	kwp := mech(pkcs11.CKM_AES_KEY_WRAP_PAD, nil)
	must := func(what string, want pkcs11.Error, err error) {
		t.Helper()
		if err != want {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	err := hsmpool.WithLogin(p, "a", func(ctx *pkcs11.Ctx, s session, seal, wrap object) error {
		keys["seal"], keys["wrap"] = seal, wrap
		for name, h := range keys {
			_, err := ctx.WrapKey(s, kwp, wrap, h)
			must("wrap "+name+" by the wrap key", pkcs11.CKR_KEY_UNEXTRACTABLE, err)
			if name != "wrap" {
				_, err = ctx.WrapKey(s, kwp, h, keys["AES"])
				if err == nil {
					t.Errorf("%s wraps", name)
				}
			}
			// One-way attributes stay.
			for _, a := range []*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false),
			} {
				if ctx.SetAttributeValue(s, h, []*pkcs11.Attribute{a}) == nil {
					t.Errorf("%s: attribute %#x was weakened", name, a.Type)
				}
				if _, err := ctx.CopyObject(s, h, []*pkcs11.Attribute{a}); err == nil {
					t.Errorf("%s: attribute %#x was weakened in a copy", name, a.Type)
				}
			}
			value := uint(pkcs11.CKA_VALUE)
			if name == "RSA" {
				value = pkcs11.CKA_PRIVATE_EXPONENT
			}
			_, err = ctx.GetAttributeValue(s, h, []*pkcs11.Attribute{pkcs11.NewAttribute(value, nil)})
			must("read "+name, pkcs11.CKR_ATTRIBUTE_SENSITIVE, err)
			got, err := ctx.GetAttributeValue(s, h, []*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, nil), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, nil),
				pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, nil), pkcs11.NewAttribute(pkcs11.CKA_DERIVE, nil),
			})
			if err != nil {
				return err
			}
			for i, want := range []byte{1, 1, 0, 0} {
				if !bytes.Equal(got[i].Value, []byte{want}) {
					t.Errorf("%s: attribute %#x is %x", name, got[i].Type, got[i].Value)
				}
			}
		}
		must("encrypt with the wrap key", pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, ctx.EncryptInit(s, mech(pkcs11.CKM_AES_ECB, nil), wrap))
		must("decrypt with the wrap key", pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, ctx.DecryptInit(s, mech(pkcs11.CKM_AES_ECB, nil), wrap))
		must("sign with the wrap key", pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, ctx.SignInit(s, mech(pkcs11.CKM_AES_CMAC, nil), wrap))
		_, err := ctx.WrapKey(s, kwp, seal, keys["AES"])
		must("wrap with the seal key", pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, err)
		_, err = ctx.UnwrapKey(s, kwp, seal, block[:40], []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES)})
		must("unwrap with the seal key", pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, err)
		must("sign with the seal key", pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, ctx.SignInit(s, mech(pkcs11.CKM_AES_CMAC, nil), seal))
		// One usage each.
		must("decrypt with an EC key", pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, ctx.DecryptInit(s, mech(pkcs11.CKM_RSA_PKCS, nil), keys["EC"]))
		must("sign with an AES key", pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, ctx.SignInit(s, mech(pkcs11.CKM_AES_CMAC, nil), keys["AES"]))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// One usage, or both: only as asked for, however the key was made.
	transport, pub := transportKey(t, p)
	material := encryptMaterial(t, pub, hsmpool.ImportOAEPSHA256KWP, pairOf(t, hsmpool.RSA2048).pkcs8)
	for _, u := range []hsmpool.Usage{hsmpool.UseSign, hsmpool.UseEncrypt, hsmpool.UseBoth} {
		id := fmt.Appendf(nil, "separation %d", u)
		generated, _ := wrappedKey(t, p, hsmpool.RSA2048, u)
		generated.ID += fmt.Sprint(importCount())
		if _, err := p.GeneratePinned(testContext(t), hsmpool.RSA2048, u, id, "b"); err != nil {
			t.Fatal(err)
		}
		defer p.DestroyPinned(testContext(t), "b", id)
		keys := map[string]*hsmpool.Key{"generated": generated,
			"pinned": {ID: string(id), Type: hsmpool.RSA2048, Usage: u, Member: "b", ObjectID: id}}
		for name, pinned := range map[string]bool{"imported": false, "imported, pinned": true} {
			k, _, err := doImport(t, p, transport, hsmpool.ImportOAEPSHA256KWP, material, imported{hsmpool.RSA2048, u}, pinned)
			if err != nil {
				t.Fatal(err)
			}
			keys[name] = k
		}
		for name, k := range keys {
			h, err := hsmpool.LoadedHandle(p, "b", k)
			if err != nil {
				t.Fatal(name, err)
			}
			err = hsmpool.WithLogin(p, "b", func(ctx *pkcs11.Ctx, s session, _, _ object) error {
				got, err := ctx.GetAttributeValue(s, h, []*pkcs11.Attribute{
					pkcs11.NewAttribute(pkcs11.CKA_SIGN, nil), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, nil),
					pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, nil), pkcs11.NewAttribute(pkcs11.CKA_DERIVE, nil),
					pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, nil), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, nil),
					pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, nil), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, nil)})
				if err != nil {
					return err
				}
				bit := func(v bool) byte { return map[bool]byte{true: 1}[v] }
				want := []byte{bit(u&hsmpool.UseSign != 0), bit(u&hsmpool.UseEncrypt != 0), 0, 0, 0, 1, 1, bit(k.Member != "")}
				for i := range want {
					if !bytes.Equal(got[i].Value, want[i:i+1]) {
						t.Errorf("%s, usage %d: attribute %#x is %x", name, u, got[i].Type, got[i].Value)
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			err = hsmpool.Direct(p, "b", func(ctx *pkcs11.Ctx, s session) error { return ctx.SignInit(s, mech(pkcs11.CKM_RSA_PKCS, nil), h) })
			if (err == nil) != (u&hsmpool.UseSign != 0) || err != nil && err != pkcs11.Error(pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED) {
				t.Errorf("sign with a key that was %s, usage %d: %v", name, u, err)
			}
			err = hsmpool.Direct(p, "b", func(ctx *pkcs11.Ctx, s session) error { return ctx.DecryptInit(s, mech(pkcs11.CKM_RSA_X_509, nil), h) })
			if (err == nil) != (u&hsmpool.UseEncrypt != 0) || err != nil && err != pkcs11.Error(pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED) {
				t.Errorf("decrypt with a key that was %s, usage %d: %v", name, u, err)
			}
			err = hsmpool.WithLogin(p, "b", func(ctx *pkcs11.Ctx, s session, _, wrap object) error {
				_, err := ctx.WrapKey(s, kwp, wrap, h)
				return err
			})
			must("wrap a key that was "+name, pkcs11.CKR_KEY_UNEXTRACTABLE, err)
		}
	}
}

// testPinned looks at what pinned keys are in the token.
func testPinned(t *testing.T, p *hsmpool.Pool) {
	ctx := testContext(t)
	for _, c := range []struct {
		t      hsmpool.KeyType
		u      hsmpool.Usage
		class  uint
		usages [4]byte // decrypt, sign, unwrap, derive
	}{
		{hsmpool.AES256, hsmpool.UseEncrypt, pkcs11.CKO_SECRET_KEY, [4]byte{1, 0, 0, 0}},
		{hsmpool.RSA2048, hsmpool.UseSign, pkcs11.CKO_PRIVATE_KEY, [4]byte{0, 1, 0, 0}},
		{hsmpool.RSA2048, hsmpool.UseEncrypt, pkcs11.CKO_PRIVATE_KEY, [4]byte{1, 0, 0, 0}},
		{hsmpool.P256, hsmpool.UseSign, pkcs11.CKO_PRIVATE_KEY, [4]byte{0, 1, 0, 0}},
		{hsmpool.Secp256k1, hsmpool.UseSign, pkcs11.CKO_PRIVATE_KEY, [4]byte{0, 1, 0, 0}},
	} {
		id := fmt.Appendf(nil, "%v/%d", c.t, c.u)
		g, err := p.GeneratePinned(ctx, c.t, c.u, id, "b")
		if err != nil {
			t.Fatal(c.t, err)
		}
		if g.Member != "b" || !bytes.Equal(g.ObjectID, id) || g.Wrapped != nil {
			t.Errorf("%+v", g)
		}
		if _, err := p.GeneratePinned(ctx, c.t, c.u, id, "b"); err == nil {
			t.Error("made two keys with one ID")
		}
		// The refusal left the first alone.
		err = hsmpool.WithLogin(p, "b", func(ctx *pkcs11.Ctx, s session, _, _ object) error {
			if err := ctx.FindObjectsInit(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, id),
				pkcs11.NewAttribute(pkcs11.CKA_CLASS, c.class)}); err != nil {
				return err
			}
			found, _, err := ctx.FindObjects(s, 10)
			if err != nil || len(found) != 1 {
				t.Errorf("%v: %d objects, %v", c.t, len(found), err)
				return ctx.FindObjectsFinal(s)
			}
			if err := ctx.FindObjectsFinal(s); err != nil {
				return err
			}
			attributes := []uint{pkcs11.CKA_DECRYPT, pkcs11.CKA_SIGN, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE, pkcs11.CKA_TOKEN,
				pkcs11.CKA_PRIVATE, pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_LOCAL, pkcs11.CKA_ALWAYS_SENSITIVE,
				pkcs11.CKA_NEVER_EXTRACTABLE}
			want := append(c.usages[:4:4], 1, 1, 1, 0, 1, 1, 1)
			var query []*pkcs11.Attribute
			for _, a := range attributes {
				query = append(query, pkcs11.NewAttribute(a, nil))
			}
			query = append(query, pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil))
			got, err := ctx.GetAttributeValue(s, found[0], query)
			if err != nil {
				return err
			}
			for i, w := range want {
				if !bytes.Equal(got[i].Value, []byte{w}) {
					t.Errorf("%v: attribute %#x is %x", c.t, got[i].Type, got[i].Value)
				}
			}
			if label := string(got[len(want)].Value); label != fmt.Sprintf("kw/%x", id) {
				t.Errorf("label %q", label)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := p.DestroyPinned(ctx, "a", id); n != 0 || err != nil {
			t.Errorf("destroyed %d on the other member, %v", n, err)
		}
		if n, err := p.DestroyPinned(ctx, "b", id); n == 0 || err != nil {
			t.Errorf("destroyed %d, %v", n, err)
		}
	}
	target, err := p.PinTarget()
	if err != nil || target != "a" && target != "b" {
		t.Errorf("PinTarget %q, %v", target, err)
	}
}
