package pkcs11front

import (
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// What a key may do is one of four sets, or the key could be made to give another away: wrap it with one, decrypt it with the other (attack P1,
// reliability.md section 2.2). Two sets that neither wrap nor unwrap can go together where a template asks for both: an RSA key may sign and decrypt, as a
// session key, and as a key of the KMS in a hardware instance, where that is its secondary usage; an EC session key may sign and derive.
//
// Programs ask for more: NSS wants RSA keys that do everything. They would not work at all if that were refused, and they take less: so a template is
// narrowed to what comes first of what it asks for and the key can have, and the object says what it may do. A template of which nothing is left is refused.

// The sets.
const (
	useSign    = maySign | mayVerify
	useEncrypt = mayEncrypt | mayDecrypt
	useWrap    = mayWrap | mayUnwrap
	useDerive  = mayDerive
)

// usageAttributes are the attributes that say what a key may do.
var usageAttributes = []struct {
	attribute ck.Attribute
	may       usage
}{
	{ck.CKA_ENCRYPT, mayEncrypt},
	{ck.CKA_DECRYPT, mayDecrypt},
	{ck.CKA_SIGN, maySign},
	{ck.CKA_VERIFY, mayVerify},
	{ck.CKA_WRAP, mayWrap},
	{ck.CKA_UNWRAP, mayUnwrap},
	{ck.CKA_DERIVE, mayDerive},
}

// usageOf gives the bit of an attribute, 0 if it says nothing of usage.
func usageOf(a ck.Attribute) usage {
	for _, u := range usageAttributes {
		if u.attribute == a {
			return u.may
		}
	}
	return 0
}

// halves says what objects of a class can do with a key: a public key has no secret to derive from.
var halves = map[ck.Class]usage{
	ck.CKO_PUBLIC_KEY:  mayEncrypt | mayVerify | mayWrap,
	ck.CKO_PRIVATE_KEY: mayDecrypt | maySign | mayUnwrap | mayDerive,
	ck.CKO_SECRET_KEY:  mayEncrypt | mayDecrypt | maySign | mayVerify | mayWrap | mayUnwrap,
}

// place is where a new key will be.
type place uint8

const (
	inSession  place = iota
	inSoftware       // an instance for software keys
	inHardware
)

// setsOf are the sets that a key can have, the one that it gets without being asked first.
func setsOf(t ck.KeyType, in place) []usage {
	token := in != inSession
	switch {
	case t == ck.CKK_RSA && token:
		return []usage{useSign, useEncrypt}
	case t == ck.CKK_RSA:
		return []usage{useSign, useEncrypt, useWrap}
	case t == ck.CKK_EC && token:
		return []usage{useSign}
	case t == ck.CKK_EC:
		return []usage{useSign, useDerive}
	case t == ck.CKK_AES && token:
		return []usage{useEncrypt}
	case t == ck.CKK_AES:
		return []usage{useEncrypt, useSign, useWrap}
	case t == ck.CKK_GENERIC_SECRET && !token:
		return []usage{useSign}
	}
	return nil
}

// pairOf are two sets that a key has together if the template asks for both; 0 if there are none.
func pairOf(t ck.KeyType, in place) usage {
	switch {
	case t == ck.CKK_RSA && in != inSoftware:
		return useSign | useEncrypt
	case t == ck.CKK_EC && in == inSession:
		return useSign | useDerive
	}
	return 0
}

// wish is what a template says of usage.
type wish struct{ asked, denied usage }

func wishOf(v values) (w wish) {
	for _, u := range usageAttributes {
		if value, ok := v.get(u.attribute); ok && value.Number != 0 {
			w.asked |= u.may
		} else if ok {
			w.denied |= u.may
		}
	}
	return w
}

// ofPair joins the wishes of a pair's templates. What the private key is to do counts; if that is left open, what the public one is.
func ofPair(private, public wish) wish {
	w := wish{asked: private.asked & halves[ck.CKO_PRIVATE_KEY], denied: private.denied&halves[ck.CKO_PRIVATE_KEY] | public.denied&halves[ck.CKO_PUBLIC_KEY]}
	if w.asked == 0 {
		w.asked = public.asked & halves[ck.CKO_PUBLIC_KEY]
	}
	return w
}

// choose decides what a new key may do. have is what its objects together can do; halves cuts out what one of them can.
func (w wish) choose(t ck.KeyType, in place, have usage) (usage, ck.RV) {
	sets, token := setsOf(t, in), in != inSession
	if pair := pairOf(t, in); w.asked&pair&useSign != 0 && w.asked&pair&^useSign != 0 {
		return w.granted(pair, token, have)
	}
	for _, set := range sets {
		if w.asked&set != 0 {
			return w.granted(set, token, have)
		}
	}
	if w.asked != 0 || len(sets) == 0 {
		return 0, ck.CKR_TEMPLATE_INCONSISTENT
	}
	for _, set := range sets {
		if w.denied&set&have == 0 {
			return set & have, ck.CKR_OK
		}
	}
	if token {
		return 0, ck.CKR_TEMPLATE_INCONSISTENT
	}
	return 0, ck.CKR_OK // it may do nothing, as the template wants it
}

// granted is a set without what the template denies. A key of the KMS can't be had by halves.
func (w wish) granted(set usage, token bool, have usage) (usage, ck.RV) {
	if token && w.denied&set&have != 0 {
		return 0, ck.CKR_TEMPLATE_INCONSISTENT
	}
	return set & have &^ w.denied, ck.CKR_OK
}

// choosePublic decides what somebody else's public key may do. It has no secret, so it may verify and encrypt; but what wraps does nothing else,
// since what it wraps must not be to decrypt for its owner.
func (w wish) choosePublic(t ck.KeyType, token bool) (usage, ck.RV) {
	can := mayVerify
	if t == ck.CKK_RSA {
		can |= mayEncrypt
	}
	switch asked := w.asked & can; {
	case asked != 0:
		return asked, ck.CKR_OK
	case w.asked&mayWrap != 0 && t == ck.CKK_RSA && !token:
		return mayWrap, ck.CKR_OK
	case w.asked&halves[ck.CKO_PUBLIC_KEY] != 0:
		return 0, ck.CKR_TEMPLATE_INCONSISTENT
	}
	return can &^ w.denied, ck.CKR_OK
}

// kmsUsages are usages in the words of the API.
func kmsUsages(u usage) (first, second kmswire.KeyUsage) {
	switch {
	case u&useSign == 0:
		return kmswire.EncryptDecrypt, ""
	case u&useEncrypt == 0:
		return kmswire.SignVerify, ""
	}
	return kmswire.SignVerify, kmswire.EncryptDecrypt
}

// ofKMS undoes kmsUsages.
func ofKMS(usages ...kmswire.KeyUsage) (u usage) {
	for _, name := range usages {
		switch name {
		case kmswire.SignVerify:
			u |= useSign
		case kmswire.EncryptDecrypt:
			u |= useEncrypt
		}
	}
	return u
}

// usageValue is the value of an attribute of usage.
func usageValue(u usage, a ck.Attribute) (p11rpc.Value, bool) {
	bit := usageOf(a)
	return boolValue(u&bit != 0), bit != 0
}
