package pkcs11front

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// TestStoredEncoding holds the encoding against one that was written by hand: stores keep it for years.
func TestStoredEncoding(t *testing.T) {
	v := values{
		{Type: ck.CKA_VALUE, Value: octetsValue([]byte("abc"))},
		{Type: ck.CKA_CERTIFICATE_TYPE, Value: ulongValue(0x0102)},
		{Type: ck.CKA_TRUSTED, Value: boolValue(true)},
		{Type: ck.CKA_START_DATE, Value: p11rpc.Value{Kind: p11rpc.Date, Octets: []byte("20261231")}},
		{Type: ck.CKA_END_DATE, Value: p11rpc.Value{Kind: p11rpc.Date}},
	}
	want := "01" + "00000011" + "00" + "00000003" + "616263" + "00000080" + "02" + "00000008" + "0000000000000102" +
		"00000086" + "01" + "00000001" + "01" + "00000110" + "03" + "00000008" + "3230323631323331" + "00000111" + "03" + "00000000"
	b, err := encodeStored(v)
	if err != nil || hex.EncodeToString(b) != want {
		t.Fatalf("%x, %v", b, err)
	}
	back, err := decodeStored(b)
	if err != nil || len(back) != len(v) {
		t.Fatal(back, err)
	}
	for i := range v {
		if back[i].Type != v[i].Type || !sameValue(back[i].Value, v[i].Value) {
			t.Errorf("%v came back as %v", v[i], back[i])
		}
		if one, ok := storedValue(b, v[i].Type); !ok || !sameValue(one, v[i].Value) {
			t.Errorf("%v was not found", v[i].Type)
		}
	}
	if _, ok := storedValue(b, ck.CKA_SUBJECT); ok {
		t.Error("what is not there was found")
	}
	for _, bad := range []values{
		{v[1], v[0]}, {v[0], v[0]}, // order
		{{Type: ck.CKA_ALLOWED_MECHANISMS, Value: p11rpc.Value{Kind: p11rpc.Ulongs}}},
		{{Type: 1 << 32, Value: octetsValue(nil)}},
		make(values, maxStoredAttributes+1),
	} {
		if _, err := encodeStored(bad); err == nil {
			t.Errorf("%v was encoded", bad)
		}
	}
}

// FuzzStored reads whatever there is, and writes what it could read back to the same octets.
func FuzzStored(f *testing.F) {
	f.Add([]byte{storedVersion})
	whole, err := encodeStored(values{{Type: ck.CKA_VALUE, Value: octetsValue([]byte("abc"))}, {Type: ck.CKA_TRUSTED, Value: boolValue(true)},
		{Type: ck.CKA_START_DATE, Value: p11rpc.Value{Kind: p11rpc.Date, Octets: []byte("20261231")}}, {Type: ck.CKA_MODULUS_BITS, Value: ulongValue(2048)}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := decodeStored(b)
		for _, a := range []ck.Attribute{ck.CKA_VALUE, ck.CKA_TRUSTED, ck.CKA_MODULUS_BITS, 0, 1<<32 - 1} {
			one, ok := storedValue(b, a)
			if err == nil && ok != v.has(a) {
				t.Fatalf("%v is there by one and not by the other", a)
			}
			if whole, _ := v.get(a); err == nil && ok && !sameValue(one, whole) {
				t.Fatalf("%v has two values", a)
			}
		}
		// Whatever a store gives, looking at it ends with an answer.
		front := &Front{}
		for _, class := range []kms.ObjectClass{kms.ClassData, kms.ClassCertificate, kms.ClassPublicKey, kms.ClassSecretKey} {
			o, err := front.newStoredObject(&kms.TokenObject{Number: 1, Class: class, Value: b})
			if err != nil {
				continue
			}
			for _, row := range tableOfObject(o).rows {
				o.attribute(row.attribute)
			}
		}
		if err != nil {
			return
		}
		back, err := encodeStored(v)
		if err != nil || !bytes.Equal(back, b) {
			t.Fatalf("%x comes back as %x, %v", b, back, err)
		}
	})
}

// FuzzCertificate looks for the parts of whatever is said to be a certificate.
func FuzzCertificate(f *testing.F) {
	f.Add(testCertificate(f))
	f.Add([]byte{0x30, 0x80, 0, 0})
	f.Fuzz(func(t *testing.T, der []byte) {
		parts, ok := readCertificate(der)
		for _, p := range parts {
			if !bytes.Contains(der, p.Octets) || len(p.Octets) == 0 || !ok {
				t.Fatalf("%v is %x", p.Type, p.Octets)
			}
		}
	})
}
