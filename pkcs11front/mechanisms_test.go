package pkcs11front

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// roundTrips has a test for each family: a row that has none is not done.
var roundTrips = map[family]func(*bench, *mechanismRow){
	familyBare:   testSigningRow,
	familyHashed: testSigningRow,
	familyHMAC:   testMACRow,
	familyRSA:    testRSACipherRow,
	familyBlocks: testBlocksRow,
	familyPadded: testBlocksRow,
	familyGCM:    testBlocksRow,
	familyDigest: testDigestRow,
	familyCMAC:   testCMACRow,
}

// elsewhere are families with tests of their own.
var elsewhere = map[family]string{
	familyKeyWrap:  "TestWrapVectors",
	familyECDH:     "TestDerive",
	familyGenerate: "the tests of keys that clients make",
}

// TestEveryMechanism runs what each row of the table promises against Go's cryptography: in one call and in parts.
func TestEveryMechanism(t *testing.T) {
	seen := map[ck.Mechanism]bool{}
	for i := range mechanismTable {
		row := &mechanismTable[i]
		if seen[row.mechanism] {
			t.Errorf("%v is there twice", row.mechanism)
		}
		seen[row.mechanism] = true
		if test := roundTrips[row.does]; test != nil {
			t.Run(row.mechanism.String(), func(t *testing.T) {
				test(newBench(t), row)
				t.Run("session keys", func(t *testing.T) {
					b := newBench(t)
					b.real = true
					test(b, row)
				})
			})
		} else if elsewhere[row.does] == "" {
			t.Errorf("%v has no test", row.mechanism)
		}
	}
}

// TestEveryMechanismOfTheKMS runs the rows that keys of the KMS can do, with keys in software and in HSMs.
func TestEveryMechanismOfTheKMS(t *testing.T) {
	e := newEnv(t, func(c *Config) { c.RawRSA = true })
	keys := keptKeys{}
	for _, instance := range []string{softwareID, hardwareID} {
		for i := range mechanismTable {
			row := &mechanismTable[i]
			if row.local() || instance == hardwareID && !row.inside {
				continue
			}
			t.Run(instance+"/"+row.mechanism.String(), func(t *testing.T) {
				roundTrips[row.does](newKMSBench(t, e, instance, keys), row)
			})
		}
	}
}

// rowParam is a parameter that belongs to a row.
func rowParam(row *mechanismRow) []byte {
	switch row.parameter {
	case parameterPSS:
		h := row.hash
		if h == 0 {
			h = crypto.SHA256
		}
		for _, p := range hashParameters {
			if p.hash == h {
				return numbers(uint64(p.mechanism), p.mgf, uint64(h.Size()))
			}
		}
	case parameterOAEP:
		return append(numbers(uint64(ck.CKM_SHA256), ck.CKG_MGF1_SHA256, ck.CKZ_DATA_SPECIFIED), sized([]byte("label"))...)
	case parameterIV:
		return bytes.Repeat([]byte{7}, blockSize)
	case parameterCTR:
		return append(numbers(128), bytes.Repeat([]byte{0xff}, blockSize-1)...)
	case parameterGCM:
		return gcmParam(bytes.Repeat([]byte{9}, gcmIV), []byte("aad"), 128)
	case parameterMAC:
		return numbers(10)
	}
	return nil
}

// parts cuts a message, with empty ones and single octets among them.
func parts(message []byte) (all [][]byte) {
	for _, n := range []int{0, 1, 15, 16, 17, 3, 32, 100} {
		n = min(n, len(message))
		all = append(all, message[:n])
		message = message[n:]
	}
	return append(all, message)
}

func message(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func testSigningRow(b *bench, row *mechanismRow) {
	t := b.t
	if b.env == nil {
		b.front.cfg.RawRSA = true
	}
	var prv, pub handle
	if row.keyType == ck.CKK_RSA {
		prv, pub = b.rsaPair(maySign, mayVerify)
	} else {
		prv, pub = b.ecPair(elliptic.P256())
	}
	in := message(1000)
	m := mech{m: row.mechanism, param: rowParam(row)}
	if row.does == familyBare {
		in = in[:32]
		in[0] = 0 // below any modulus
	}
	b.ok("C_SignInit", m, prv)
	one := b.do("C_Sign", octets(in), room(1000))
	b.ok("C_SignInit", m, prv)
	for _, p := range parts(in) {
		b.ok("C_SignUpdate", octets(p))
	}
	several := b.do("C_SignFinal", room(1000))
	if row.keyType == ck.CKK_RSA && row.parameter != parameterPSS && !bytes.Equal(one, several) {
		t.Error("in parts it is another signature")
	}
	for _, s := range [][]byte{one, several} {
		b.ok("C_VerifyInit", m, pub)
		b.ok("C_Verify", octets(in), octets(s))
		b.ok("C_VerifyInit", m, pub)
		for _, p := range parts(in) {
			b.ok("C_VerifyUpdate", octets(p))
		}
		b.ok("C_VerifyFinal", octets(s))
	}
	b.ok("C_MessageSignInit", m, prv)
	b.ok("C_MessageVerifyInit", m, pub)
	for range 2 {
		s := b.do("C_SignMessage", octets(nil), octets(in), room(1000))
		b.ok("C_VerifyMessage", octets(nil), octets(in), octets(s))
		b.ok("C_SignMessageBegin", octets(nil))
		b.do("C_SignMessageNext", octets(nil), octets(in[:5]), byte(0), room(-1))
		s = b.do("C_SignMessageNext", octets(nil), octets(in[5:]), byte(1), room(1000))
		b.ok("C_VerifyMessageBegin", octets(nil))
		b.ok("C_VerifyMessageNext", octets(nil), octets(in[:7]), octets(nil))
		b.ok("C_VerifyMessageNext", octets(nil), octets(in[7:]), octets(s))
	}
	b.ok("C_MessageSignFinal")
	b.ok("C_MessageVerifyFinal")
	// Go agrees that it is what its name says.
	k := b.keys[pub]
	switch {
	case row.does == familyHashed && row.parameter == parameterPSS:
		if err := rsa.VerifyPSS(&k.rsa.PublicKey, row.hash, hashOf(row.hash, in), one, nil); err != nil {
			t.Error(err)
		}
	case row.does == familyHashed && row.keyType == ck.CKK_RSA:
		if err := rsa.VerifyPKCS1v15(&k.rsa.PublicKey, row.hash, hashOf(row.hash, in), one); err != nil {
			t.Error(err)
		}
	}
	// A signature that is wrong anywhere is wrong, and one that is of another length too.
	one[len(one)/2] ^= 1
	b.ok("C_VerifyInit", m, pub)
	b.refused(ck.CKR_SIGNATURE_INVALID, "C_Verify", octets(in), octets(one))
	b.refused(ck.CKR_OPERATION_NOT_INITIALIZED, "C_Verify", octets(in), octets(one))
	b.ok("C_VerifyInit", m, pub)
	b.refused(ck.CKR_SIGNATURE_LEN_RANGE, "C_Verify", octets(in), octets(one[1:]))
}

func testMACRow(b *bench, row *mechanismRow) {
	t := b.t
	k := b.secret(ck.CKK_GENERIC_SECRET, message(40), maySign|mayVerify)
	in := message(1000)
	m := mech{m: row.mechanism, param: rowParam(row)}
	want := hmac.New(row.hash.New, b.keys[k].octets)
	want.Write(in)
	mac := want.Sum(nil)
	if row.parameter == parameterMAC {
		mac = mac[:10]
	}
	b.ok("C_SignInit", m, k)
	if got := b.do("C_Sign", octets(in), room(1000)); !bytes.Equal(got, mac) {
		t.Errorf("%x, want %x", got, mac)
	}
	b.ok("C_SignInit", m, k)
	for _, p := range parts(in) {
		b.ok("C_SignUpdate", octets(p))
	}
	if got := b.do("C_SignFinal", room(1000)); !bytes.Equal(got, mac) {
		t.Errorf("%x, want %x", got, mac)
	}
	b.ok("C_VerifyInit", m, k)
	b.ok("C_Verify", octets(in), octets(mac))
	mac[len(mac)-1] ^= 1
	b.ok("C_VerifyInit", m, k)
	b.ok("C_VerifyUpdate", octets(in))
	b.refused(ck.CKR_SIGNATURE_INVALID, "C_VerifyFinal", octets(mac))
}

func testDigestRow(b *bench, row *mechanismRow) {
	t := b.t
	in := message(1000)
	want := hashOf(row.hash, in)
	m := mech{m: row.mechanism}
	a := b.call("C_DigestInit", m)
	if !bytes.Equal(a.b, numbers(uint64(len(want)))) {
		t.Errorf("the Init tells %x", a.b)
	}
	if got := b.do("C_Digest", octets(in), room(64)); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	b.ok("C_DigestInit", m)
	for _, p := range parts(in) {
		b.ok("C_DigestUpdate", octets(p))
	}
	if got := b.do("C_DigestFinal", room(64)); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

func testRSACipherRow(b *bench, row *mechanismRow) {
	t := b.t
	prv, pub := b.rsaPair(mayDecrypt, mayEncrypt)
	m := mech{m: row.mechanism, param: rowParam(row)}
	in := message(100)
	b.ok("C_EncryptInit", m, pub)
	one := b.do("C_Encrypt", octets(in), room(256))
	b.ok("C_DecryptInit", m, prv)
	if got := b.do("C_Decrypt", octets(one), room(256)); !bytes.Equal(got, in) {
		t.Error("not what was encrypted")
	}
	b.ok("C_EncryptInit", m, pub)
	for _, p := range parts(in) {
		b.do("C_EncryptUpdate", octets(p), room(256))
	}
	one = b.do("C_EncryptFinal", room(256))
	b.ok("C_DecryptInit", m, prv)
	for _, p := range parts(one) {
		b.do("C_DecryptUpdate", octets(p), room(256))
	}
	if got := b.do("C_DecryptFinal", room(256)); !bytes.Equal(got, in) {
		t.Error("not what was encrypted")
	}
}

func TestRSABlocks(t *testing.T) {
	for _, m := range []ck.Mechanism{ck.CKM_RSA_PKCS, ck.CKM_RSA_X_509} {
		t.Run(m.String(), func(t *testing.T) {
			b := newBench(t)
			b.front.cfg.RawRSA = true
			prv, pub := b.rsaPair(mayDecrypt, mayEncrypt)
			in := message(100)
			b.ok("C_EncryptInit", mech{m: m}, pub)
			ct := b.do("C_Encrypt", octets(in), room(256))
			b.ok("C_DecryptInit", mech{m: m}, prv)
			got := b.do("C_Decrypt", octets(ct), room(256))
			if !bytes.Equal(got[len(got)-len(in):], in) {
				t.Error("not what was encrypted")
			}
		})
	}
	b := newBench(t)
	prv, pub := b.rsaPair(mayDecrypt|maySign, mayEncrypt|mayVerify)
	b.refused(ck.CKR_MECHANISM_INVALID, "C_SignInit", mech{m: ck.CKM_RSA_X_509}, prv)
	b.refused(ck.CKR_MECHANISM_INVALID, "C_EncryptInit", mech{m: ck.CKM_RSA_X_509}, pub)
}

func testBlocksRow(b *bench, row *mechanismRow) {
	t := b.t
	for _, size := range []int{16, 24, 32} {
		if b.session.instance == softwareID && b.env != nil && size != 32 {
			continue // there are no such keys in software
		}
		k := b.secret(ck.CKK_AES, message(size), mayEncrypt|mayDecrypt)
		block, _ := aes.NewCipher(b.keys[k].octets)
		m := mech{m: row.mechanism, param: rowParam(row)}
		if row.parameter == parameterCTR {
			m.param = append(m.param, 0xfe) // the second block carries over everything
		}
		for _, n := range []int{0, 16, 160, 3200, 150_000 / 16 * 16} {
			in := message(n)
			if row.does != familyBlocks || row.parameter == parameterCTR {
				in = append(in, message(5)...)
			}
			if b.session.instance == hardwareID && row.does == familyGCM && n > maxGatheredHardware {
				continue
			}
			b.ok("C_EncryptInit", m, k)
			one := b.do("C_Encrypt", octets(in), room(1<<20))
			want := goSealed(row, block, m.param, in)
			if !bytes.Equal(one, want) {
				t.Fatalf("%d octets: not what Go makes of it", len(in))
			}
			var several []byte
			b.ok("C_EncryptInit", m, k)
			for _, p := range parts(in) {
				several = append(several, b.do("C_EncryptUpdate", octets(p), room(1<<20))...)
			}
			several = append(several, b.do("C_EncryptFinal", room(100_000_0))...)
			if !bytes.Equal(several, want) {
				t.Fatalf("%d octets: in parts it is something else", len(in))
			}
			b.ok("C_DecryptInit", m, k)
			if got := b.do("C_Decrypt", octets(one), room(1<<20)); !bytes.Equal(got, in) {
				t.Fatal("not what was encrypted")
			}
			var back []byte
			b.ok("C_DecryptInit", m, k)
			for _, p := range parts(one) {
				back = append(back, b.do("C_DecryptUpdate", octets(p), room(1<<20))...)
			}
			back = append(back, b.do("C_DecryptFinal", room(1<<20))...)
			if !bytes.Equal(back, in) {
				t.Fatal("in parts it is not what was encrypted")
			}
		}
	}
}

func goSealed(row *mechanismRow, block cipher.Block, param, in []byte) []byte {
	if row.does == familyPadded {
		pad := blockSize - len(in)%blockSize
		in = append(slices.Clone(in), bytes.Repeat([]byte{byte(pad)}, pad)...)
	}
	out := make([]byte, len(in))
	switch row.parameter {
	case parameterNone:
		for i := 0; i < len(in); i += blockSize {
			block.Encrypt(out[i:], in[i:i+blockSize])
		}
	case parameterIV:
		cipher.NewCBCEncrypter(block, param).CryptBlocks(out, in)
	case parameterCTR:
		cipher.NewCTR(block, param[8:]).XORKeyStream(out, in)
	case parameterGCM:
		gcm, _ := cipher.NewGCM(block)
		return gcm.Seal(nil, bytes.Repeat([]byte{9}, gcmIV), in, []byte("aad"))
	}
	return out
}

// TestMechanismInfo: the truth for each kind of token.
func TestMechanismInfo(t *testing.T) {
	list := mechanismList(false)
	if len(list) != len(mechanismTable)-1 || len(mechanismList(true)) != len(mechanismTable) || slices.Contains(list, uint64(ck.CKM_RSA_X_509)) {
		t.Errorf("%d mechanisms of %d", len(list), len(mechanismTable))
	}
	for _, c := range []struct {
		m           ck.Mechanism
		hardware    bool
		least, most uint64
		has, hasNot ck.Flags
	}{
		{ck.CKM_RSA_PKCS, false, 1024, 4096, ck.CKF_SIGN | ck.CKF_DECRYPT | ck.CKF_UNWRAP, ck.CKF_HW | ck.CKF_WRAP | ck.CKF_SIGN_RECOVER},
		{ck.CKM_RSA_PKCS, true, 1024, 4096, ck.CKF_HW, ck.CKF_DERIVE},
		{ck.CKM_ECDSA_SHA256, true, 256, 521, ck.CKF_HW | ck.CKF_EC_F_P | ck.CKF_EC_OID | ck.CKF_EC_UNCOMPRESS | ck.CKF_SIGN | ck.CKF_VERIFY, ck.CKF_EC_COMPRESS},
		{ck.CKM_ECDH1_DERIVE, true, 256, 521, ck.CKF_DERIVE, ck.CKF_HW | ck.CKF_SIGN},
		{ck.CKM_AES_GCM, true, 16, 32, ck.CKF_HW | ck.CKF_ENCRYPT | ck.CKF_MESSAGE_DECRYPT, ck.CKF_WRAP},
		{ck.CKM_AES_CMAC, true, 16, 32, ck.CKF_SIGN, ck.CKF_HW},
		{ck.CKM_AES_KEY_WRAP, false, 16, 32, ck.CKF_WRAP | ck.CKF_UNWRAP, ck.CKF_ENCRYPT},
		{ck.CKM_SHA256_HMAC, true, 1, 512, ck.CKF_SIGN, ck.CKF_HW},
		{ck.CKM_GENERIC_SECRET_KEY_GEN, false, 8, 4096, ck.CKF_GENERATE, ck.CKF_GENERATE_KEY_PAIR},
		{ck.CKM_SHA3_512, true, 0, 0, ck.CKF_DIGEST, ck.CKF_HW},
	} {
		least, most, flags, rv := mechanismInfo(c.m, c.hardware, false)
		if rv != ck.CKR_OK || least != c.least || most != c.most || flags&c.has != c.has || flags&c.hasNot != 0 {
			t.Errorf("%v: %v, %d to %d, flags %#x", c.m, rv, least, most, flags)
		}
	}
	for _, m := range []ck.Mechanism{ck.CKM_RSA_X_509, ck.CKM_MD5, 99999} {
		if _, _, _, rv := mechanismInfo(m, false, false); rv != ck.CKR_MECHANISM_INVALID {
			t.Errorf("%v: %v", m, rv)
		}
	}
}

// TestAllowedMechanisms: an Init takes a mechanism for a key if and only if CKA_ALLOWED_MECHANISMS has it.
func TestAllowedMechanisms(t *testing.T) {
	b := newBench(t)
	prv, pub := b.rsaPair(maySign|mayDecrypt, mayVerify|mayEncrypt)
	ecPrv, ecPub := b.ecPair(elliptic.P256())
	kms := b.add(&goKey{cls: ck.CKO_SECRET_KEY, octets: message(32), f: keyFacts{keyType: ck.CKK_AES, bits: 256, token: true, usage: mayEncrypt | mayDecrypt}})
	inits := []string{"C_EncryptInit", "C_DecryptInit", "C_SignInit", "C_VerifyInit"}
	for _, h := range []handle{prv, pub, ecPrv, ecPub, kms, b.secret(ck.CKK_AES, message(16), mayEncrypt|mayDecrypt), b.secret(ck.CKK_AES, message(16), maySign|mayVerify),
		b.secret(ck.CKK_GENERIC_SECRET, message(16), maySign|mayVerify), b.secret(ck.CKK_AES, message(16), mayWrap|mayUnwrap)} {
		allowed := allowedMechanisms(&b.keys[h].f)
		for i := range mechanismTable {
			row := &mechanismTable[i]
			m := mech{m: row.mechanism, param: rowParam(row)}
			if row.parameter == parameterCTR {
				m.param = append(m.param, 0)
			}
			taken := row.does == familyKeyWrap && b.keys[h].f.usage&mayWrap != 0 || row.mechanism == ck.CKM_AES_GCM && b.keys[h].f.usage&mayEncrypt != 0 && b.keys[h].f.keyType == ck.CKK_AES
			for _, init := range inits {
				taken = taken || b.call(init, m, h).rv == ck.CKR_OK
				b.session.ops.wipe()
			}
			if taken != slices.Contains(allowed, row.mechanism) {
				t.Errorf("%v with %+v: %v", row.mechanism, b.keys[h].f, taken)
			}
		}
		if len(allowed) == 0 {
			t.Errorf("%+v can do nothing", b.keys[h].f)
		}
	}
}

// TestDocument: docs/pkcs11-mechanisms.md has each mechanism, by its name or as one of a series.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile("../docs/pkcs11-mechanisms.md")
	if err != nil {
		t.Fatal(err)
	}
	series := regexp.MustCompile(`^CKM_SHA(1|224|256|384|512|3_\d+)_RSA_PKCS(_PSS)?$|^CKM_ECDSA_SHA(1|224|256|384|512|3_\d+)$|^CKM_SHA.*_HMAC(_GENERAL)?$`)
	for i := range mechanismTable {
		name := mechanismTable[i].mechanism.String()
		if name == "CKM_EC_KEY_PAIR_GEN" {
			name = "CKM_EC_KEY_PAIR_GEN" // its newer name
		}
		if !series.MatchString(name) && !regexp.MustCompile(name+`\b`).Match(b) {
			t.Errorf("%s is missing", name)
		}
	}
}

// TestProtocolKnows: the protocol can carry every mechanism of the table, and gives each attribute the kind that objects have.
func TestProtocolKnows(t *testing.T) {
	for i := range mechanismTable {
		if m := mechanismTable[i].mechanism; !p11rpc.Known(m) {
			t.Errorf("%v can't be read", m)
		}
	}
	for _, table := range classTables {
		for _, row := range table.rows {
			if kind := p11rpc.KindOf(row.attribute); kind != row.kind {
				t.Errorf("%v of class %v has the kind %d, and %d in the protocol", row.attribute, table.class, row.kind, kind)
			}
		}
	}
}
