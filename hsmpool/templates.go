package hsmpool

import (
	"bytes"
	"fmt"

	"github.com/miekg/pkcs11"
)

// master key labels in the token.
const (
	labelSeal = "keyward seal key"
	labelWrap = "keyward wrap key"

	// What a ceremony makes carries this until every member has both keys.
	labelUnfinished = " (unfinished)"
)

// usageBits is what a key may do, as attributes. All are always given: no module's default decides.
type usageBits struct{ encrypt, decrypt, sign, verify, wrap, unwrap bool }

func (u usageBits) attributes(class uint) []*pkcs11.Attribute {
	a := []*pkcs11.Attribute{}
	add := func(t uint, v bool) { a = append(a, pkcs11.NewAttribute(t, v)) }
	if class != pkcs11.CKO_PRIVATE_KEY {
		add(pkcs11.CKA_ENCRYPT, u.encrypt)
		add(pkcs11.CKA_VERIFY, u.verify)
		add(pkcs11.CKA_WRAP, u.wrap)
	}
	if class != pkcs11.CKO_PUBLIC_KEY {
		add(pkcs11.CKA_DECRYPT, u.decrypt)
		add(pkcs11.CKA_SIGN, u.sign)
		add(pkcs11.CKA_UNWRAP, u.unwrap)
	}
	return append(a, pkcs11.NewAttribute(pkcs11.CKA_DERIVE, false))
}

// secretUsage is what the secret or private object of a key may do.
func secretUsage(t keyTypeRow, u Usage) usageBits {
	if t.class == classAES {
		return usageBits{encrypt: true, decrypt: true}
	}
	return usageBits{decrypt: u&UseEncrypt != 0, sign: u&UseSign != 0, unwrap: u&UseUnwrap != 0}
}

func publicUsage(t keyTypeRow, u Usage) usageBits {
	return usageBits{encrypt: t.class == classRSA && u&UseEncrypt != 0, verify: u&UseSign != 0, wrap: u&UseUnwrap != 0}
}

func secretClass(t keyTypeRow) (class, ckk uint) {
	switch t.class {
	case classRSA:
		return pkcs11.CKO_PRIVATE_KEY, pkcs11.CKK_RSA
	case classEC:
		return pkcs11.CKO_PRIVATE_KEY, pkcs11.CKK_EC
	}
	return pkcs11.CKO_SECRET_KEY, pkcs11.CKK_AES
}

// guard is what protects an object, apart from what it may do.
type guard struct{ token, sensitive, extractable bool }

func (g guard) attributes() []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, g.token),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, g.sensitive),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, g.extractable),
	}
}

var (
	// temporary is for a key between its generation and its wrapping, in one session: the only time that a key of the
	// user's can be wrapped.
	temporary = guard{sensitive: true, extractable: true}

	// loaded is for a key that came out of its wrapping. It is not extractable, so no key whatever can wrap it again. That is why
	// CKA_WRAP_WITH_TRUSTED, which modules treat differently and which needs a security officer, is not asked for: it
	// limits who may wrap an extractable key, and there is none.
	loaded = guard{sensitive: true}

	// kept is for token objects: pinned keys and master keys.
	kept = guard{token: true, sensitive: true}
)

// unwrapTemplate is for C_UnwrapKey of a user's key: all of it is ours, nothing of it comes with the wrapped key.
func unwrapTemplate(t keyTypeRow, u usageBits, g guard) []*pkcs11.Attribute {
	class, ckk := secretClass(t)
	a := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, class),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, ckk),
	}
	a = append(a, g.attributes()...)
	return append(a, u.attributes(class)...)
}

// wanted is what an attribute must read back as.
type wanted struct {
	attr  uint
	value bool
}

// wantedOf lists what must hold for an object.
func wantedOf(class uint, g guard, u usageBits) []wanted {
	w := []wanted{
		{pkcs11.CKA_TOKEN, g.token}, {pkcs11.CKA_PRIVATE, true},
		{pkcs11.CKA_SENSITIVE, g.sensitive}, {pkcs11.CKA_EXTRACTABLE, g.extractable},
	}
	for _, a := range u.attributes(class) {
		w = append(w, wanted{a.Type, len(a.Value) > 0 && a.Value[0] != 0})
	}
	return w
}

// generated adds what holds only for a key that was made here and never left.
func generated(w []wanted, g guard) []wanted {
	return append(w, wanted{pkcs11.CKA_LOCAL, true}, wanted{pkcs11.CKA_ALWAYS_SENSITIVE, true},
		wanted{pkcs11.CKA_NEVER_EXTRACTABLE, !g.extractable})
}

// readBack compares an object's attributes with what was asked for: a module may have its own idea.
func readBack(ctx *pkcs11.Ctx, s pkcs11.SessionHandle, h pkcs11.ObjectHandle, want []wanted) error {
	query := make([]*pkcs11.Attribute, len(want))
	for i, w := range want {
		query[i] = pkcs11.NewAttribute(w.attr, nil)
	}
	got, err := ctx.GetAttributeValue(s, h, query)
	if err != nil {
		return err
	}
	for i, w := range want {
		b := []byte{0}
		if w.value {
			b[0] = 1
		}
		if !bytes.Equal(got[i].Value, b) {
			return errorf(KindInternal, fateItem, "the module gave a key other attributes than it was told: %s is %x, not %x",
				attributeName(w.attr), got[i].Value, b)
		}
	}
	return nil
}

func attributeName(a uint) string {
	if n, ok := attributeNames[a]; ok {
		return n
	}
	return fmt.Sprintf("attribute %#x", a)
}

var attributeNames = map[uint]string{
	pkcs11.CKA_TOKEN: "CKA_TOKEN", pkcs11.CKA_PRIVATE: "CKA_PRIVATE", pkcs11.CKA_SENSITIVE: "CKA_SENSITIVE",
	pkcs11.CKA_EXTRACTABLE: "CKA_EXTRACTABLE", pkcs11.CKA_LOCAL: "CKA_LOCAL", pkcs11.CKA_ALWAYS_SENSITIVE: "CKA_ALWAYS_SENSITIVE",
	pkcs11.CKA_NEVER_EXTRACTABLE: "CKA_NEVER_EXTRACTABLE", pkcs11.CKA_ENCRYPT: "CKA_ENCRYPT", pkcs11.CKA_DECRYPT: "CKA_DECRYPT",
	pkcs11.CKA_SIGN: "CKA_SIGN", pkcs11.CKA_VERIFY: "CKA_VERIFY", pkcs11.CKA_WRAP: "CKA_WRAP", pkcs11.CKA_UNWRAP: "CKA_UNWRAP",
	pkcs11.CKA_DERIVE: "CKA_DERIVE",
}
