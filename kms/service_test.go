package kms

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/softkey"
)

const testAccount = "1000000000000001"

var (
	root  = &Actor{Principal: "acs:ram::" + testAccount + ":root", Account: testAccount}
	user  = &Actor{Principal: "acs:ram::" + testAccount + ":user/alice", Account: testAccount}
	other = &Actor{Principal: "acs:ram::2000000000000002:root", Account: "2000000000000002"}
)

// events is an Auditor that remembers, and fails on demand.
type events struct {
	mu   sync.Mutex
	all  []AuditEvent
	fail error
}

func (e *events) Record(_ context.Context, ev *AuditEvent) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fail != nil {
		return e.fail
	}
	e.all = append(e.all, *ev)
	return nil
}

func (e *events) last() AuditEvent {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.all[len(e.all)-1]
}

func (e *events) setFail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fail = err
}

// hsmTest is a test of a service with HSMs.
type hsmTest struct {
	name string
	run  func(*testing.T, *fixture)
}

// withHSMs runs tests over one pair of SoftHSM2 tokens, as making it costs a second; each has a store of its own.
func withHSMs(t *testing.T, tests ...hsmTest) {
	hsm := hsmtest.New(t, "north", "south")
	hsm.Ceremony(t)
	pool := hsm.Open(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, newFixture(t, pool)) })
	}
}

// TestService runs what needs HSMs.
func TestService(t *testing.T) {
	withHSMs(t, []hsmTest{
		{"SymmetricKeys", testSymmetricKeys},
		{"ChangedBlobs", testChangedBlobs},
		{"AsymmetricKeys", testAsymmetricKeys},
		{"Versions", testVersions},
		{"StatesAndPermissions", testStatesAndPermissions},
		{"DryRun", testDryRun},
		{"DataKeys", testDataKeys},
		{"ReEncryptFromPublicKey", testReEncryptFromPublicKey},
		{"Batches", testBatches},
		{"EveryKeyIsInTheAudit", testEveryKeyIsInTheAudit},
		{"AliasesAreInTheAudit", testAliasesAreInTheAudit},
		{"OneBadItemOfAVersion", testOneBadItemOfAVersion},
		{"LongNames", testLongNames},
		{"AliasesAndLists", testAliasesAndLists},
		{"CreateKeyRefusals", testCreateKeyRefusals},
		{"NoEventNoAnswer", testNoEventNoAnswer},
		{"UnfinishedWork", testUnfinishedWork},
		{"CallCounter", testCallCounter},
		{"Passwords", testPasswords},
		{"CreateTokenKeyInHSM", testCreateTokenKeyInHSM},
	}...)
}

type fixture struct {
	*Service
	t      testing.TB
	events *events
	pool   *hsmpool.Pool
	db     *keystore.DB
	wall   atomic.Pointer[time.Time] // what time it is, if a test says so
}

// time is the clock of the fixture's services.
func (f *fixture) time() time.Time {
	if at := f.wall.Load(); at != nil {
		return *at
	}
	return time.Now()
}

func newFixture(t testing.TB, pool *hsmpool.Pool) *fixture {
	t.Helper()
	f := &fixture{t: t, events: &events{}, pool: pool, db: newStore(t, keystore.NewMem(), pool)}
	f.Service = f.start()
	return f
}

// newStore makes a store of keys in an empty one, which is open until the test ends.
func newStore(t testing.TB, store keystore.Store, sealer keystore.Sealer) *keystore.DB {
	t.Helper()
	if err := keystore.Create(context.Background(), store, sealer); err != nil {
		t.Fatal(err)
	}
	return openStore(t, store, sealer)
}

func openStore(t testing.TB, store keystore.Store, sealer keystore.Sealer) *keystore.DB {
	t.Helper()
	db, err := keystore.Open(context.Background(), store, sealer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// start makes a service over the fixture's store, as a new process would.
func (f *fixture) start() *Service {
	f.t.Helper()
	s, err := New(context.Background(), Config{
		Store: f.db, Pool: f.pool, Region: "local", Account: testAccount, Audit: f.events, Log: zerolog.Nop(), Now: f.time,
		Tick:      make(chan struct{}), // nothing happens by itself, so that events are those of calls
		Instances: []Instance{{ID: "kst-software", Type: SoftwareInstance, Access: 8}, {ID: "kst-hardware", Type: HardwareInstance, Access: 8}},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(s.Close)
	return s
}

// kind is where a test key lives.
type kind struct{ instance, storage string }

var (
	software = kind{"kst-software", ""}
	wrapped  = kind{"kst-hardware", kmswire.HsmEncryptedDatabase}
	pinned   = kind{"kst-hardware", kmswire.HsmInternal}
	kinds    = []kind{software, wrapped, pinned}
)

func (k kind) String() string { return strings.TrimPrefix(k.instance, "kst-") + k.storage }

func (f *fixture) create(k kind, spec kmswire.KeySpec, usage kmswire.KeyUsage) kmswire.KeyMetadata {
	f.t.Helper()
	r, err := f.CreateKey(context.Background(), root, &kmswire.CreateKeyRequest{
		DKMSInstanceID: k.instance, KeyStorageMechanism: k.storage, KeySpec: spec, KeyUsage: usage,
	})
	if err != nil {
		f.t.Fatalf("CreateKey %s %s: %v", k, spec, err)
	}
	return r.KeyMetadata
}

func (f *fixture) onlyVersion(keyID string) string {
	f.t.Helper()
	r, err := f.ListKeyVersions(context.Background(), root, &kmswire.ListKeyVersionsRequest{KeyID: keyID})
	if err != nil || len(r.KeyVersions.KeyVersion) != 1 {
		f.t.Fatalf("ListKeyVersions: %+v %v", r, err)
	}
	return r.KeyVersions.KeyVersion[0].KeyVersionID
}

func wantCode(t testing.TB, what string, err error, want Code) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %q", what, err, want.Error())
	}
}

func testSymmetricKeys(t *testing.T, f *fixture) {
	ctx := context.Background()
	for _, k := range kinds {
		for _, spec := range []kmswire.KeySpec{kmswire.AES256, kmswire.AES192, kmswire.AES128} {
			if k == software && spec != kmswire.AES256 {
				_, err := f.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: k.instance, KeySpec: spec})
				wantCode(t, "software "+string(spec), err, InvalidParameter)
				continue
			}
			t.Run(fmt.Sprint(k, " ", spec), func(t *testing.T) {
				m := f.create(k, spec, "")
				plaintext := make([]byte, kmswire.MaxPlaintext)
				rand.Read(plaintext)
				ec := map[string]string{"a": "1", "b": "2"}
				e, err := f.Encrypt(ctx, user, &kmswire.EncryptRequest{KeyID: m.KeyID, Plaintext: plaintext, EncryptionContext: ec})
				if err != nil {
					t.Fatal(err)
				}
				if e.KeyVersionID != m.PrimaryKeyVersion || e.KeyID != m.KeyID {
					t.Errorf("got version %s of %s, want %s", e.KeyVersionID, e.KeyID, m.PrimaryKeyVersion)
				}
				d, err := f.Decrypt(ctx, user, &kmswire.DecryptRequest{CiphertextBlob: e.CiphertextBlob, EncryptionContext: map[string]string{"b": "2", "a": "1"}})
				if err != nil || !bytes.Equal(d.Plaintext, plaintext) || d.KeyVersionID != e.KeyVersionID {
					t.Fatalf("Decrypt: %v", err)
				}
				for name, bad := range map[string]map[string]string{"none": nil, "changed": {"a": "1", "b": "3"}, "less": {"a": "1"}} {
					_, err := f.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: e.CiphertextBlob, EncryptionContext: bad})
					wantCode(t, "context "+name, err, InvalidParameter)
				}
				again, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: m.KeyID, Plaintext: plaintext, EncryptionContext: ec})
				if err != nil || bytes.Equal(again.CiphertextBlob, e.CiphertextBlob) {
					t.Errorf("the same plaintext gave the same blob (%v)", err)
				}
				_, err = f.AsymmetricSign(ctx, root, &kmswire.AsymmetricSignRequest{KeyID: m.KeyID, KeyVersionID: m.PrimaryKeyVersion, Algorithm: kmswire.RSAPSSSHA256, Digest: make([]byte, 32)})
				wantCode(t, "sign with a symmetric key", err, OperationRejected)
			})
		}
	}
}

// Every single-bit change of a blob is refused, and none gives data.
func testChangedBlobs(t *testing.T, f *fixture) {
	ctx := context.Background()
	for _, k := range []kind{software, wrapped} {
		m := f.create(k, kmswire.AES256, "")
		e, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: m.KeyID, Plaintext: []byte("attack at dawn")})
		if err != nil {
			t.Fatal(err)
		}
		for bit := range len(e.CiphertextBlob) * 8 {
			changed := bytes.Clone(e.CiphertextBlob)
			changed[bit/8] ^= 1 << (bit % 8)
			d, err := f.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: changed})
			// A changed key ID names another key, which is not there.
			if d != nil || !errors.Is(err, InvalidParameter) && !errors.Is(err, KeyNotFound) {
				t.Fatalf("%s, bit %d: %v %v", k, bit, d, err)
			}
		}
		for n := range e.CiphertextBlob {
			if d, err := f.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: e.CiphertextBlob[:n]}); d != nil || err == nil {
				t.Fatalf("%s, cut to %d: %v", k, n, d)
			}
		}
		// Large blobs, at random places.
		large, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: m.KeyID, Plaintext: make([]byte, kmswire.MaxPlaintext)})
		if err != nil {
			t.Fatal(err)
		}
		places := mathrand.New(mathrand.NewPCG(1, 2))
		for range 5000 {
			bit := places.IntN(len(large.CiphertextBlob) * 8)
			large.CiphertextBlob[bit/8] ^= 1 << (bit % 8)
			d, err := f.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: large.CiphertextBlob})
			if d != nil || !errors.Is(err, InvalidParameter) && !errors.Is(err, KeyNotFound) {
				t.Fatalf("%s, bit %d of a large blob: %v", k, bit, err)
			}
			large.CiphertextBlob[bit/8] ^= 1 << (bit % 8)
		}
		if d, err := f.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: large.CiphertextBlob}); err != nil || len(d.Plaintext) != kmswire.MaxPlaintext {
			t.Errorf("%s: the blob as it was does not open any more: %v", k, err)
		}
		// The blob of one key put under the name of another.
		o := f.create(k, kmswire.AES256, "")
		moved := bytes.Replace(e.CiphertextBlob, []byte(m.KeyID), []byte(o.KeyID), 1)
		_, err = f.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: moved})
		wantCode(t, "blob of another key", err, InvalidParameter)
	}
}

func testAsymmetricKeys(t *testing.T, f *fixture) {
	ctx := context.Background()
	digest := sha256.Sum256([]byte("a release"))
	for _, k := range kinds {
		for _, spec := range []kmswire.KeySpec{kmswire.RSA2048, kmswire.RSA3072, kmswire.RSA4096, kmswire.ECP256, kmswire.ECP256K} {
			if testing.Short() && spec == kmswire.RSA4096 {
				continue
			}
			t.Run(fmt.Sprint(k, " ", spec), func(t *testing.T) {
				m := f.create(k, spec, "")
				if m.KeyUsage != kmswire.SignVerify || m.PrimaryKeyVersion != "" {
					t.Errorf("usage %s, primary %q", m.KeyUsage, m.PrimaryKeyVersion)
				}
				v := f.onlyVersion(m.KeyID)
				p, err := f.GetPublicKey(ctx, user, &kmswire.GetPublicKeyRequest{KeyID: m.KeyID, KeyVersionID: v})
				if err != nil {
					t.Fatal(err)
				}
				block, _ := pem.Decode([]byte(p.PublicKey))
				public, err := softkey.ParsePublicKey(block.Bytes)
				if err != nil || public.Spec() != spec {
					t.Fatalf("public key: %v", err)
				}
				for _, alg := range specs[spec].sign {
					s, err := f.AsymmetricSign(ctx, user, &kmswire.AsymmetricSignRequest{KeyID: m.KeyID, KeyVersionID: v, Algorithm: alg, Digest: digest[:]})
					if err != nil {
						t.Fatal(err)
					}
					if ok, err := public.Verify(alg, digest[:], s.Value); !ok || err != nil {
						t.Errorf("%s: the signature does not verify (%v)", alg, err)
					}
					changed := bytes.Clone(s.Value)
					changed[len(changed)-1] ^= 1
					for want, value := range map[bool][]byte{true: s.Value, false: changed} {
						r, err := f.AsymmetricVerify(ctx, user, &kmswire.AsymmetricVerifyRequest{KeyID: m.KeyID, KeyVersionID: v, Algorithm: alg, Digest: digest[:], Value: value})
						if err != nil || r.Value != want {
							t.Errorf("%s: verify gave %+v %v, want %v", alg, r, err, want)
						}
					}
				}
				_, err = f.AsymmetricSign(ctx, root, &kmswire.AsymmetricSignRequest{KeyID: m.KeyID, KeyVersionID: v, Algorithm: specs[spec].sign[0], Digest: digest[:31]})
				wantCode(t, "short digest", err, InvalidParameter)
				_, err = f.AsymmetricSign(ctx, root, &kmswire.AsymmetricSignRequest{KeyID: m.KeyID, KeyVersionID: v, Algorithm: kmswire.RSAOAEPSHA1, Digest: digest[:]})
				wantCode(t, "algorithm of another kind", err, InvalidParameter)
				_, err = f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: m.KeyID, Plaintext: digest[:]})
				wantCode(t, "Encrypt", err, UnsupportedOperation)
			})
		}
		t.Run(fmt.Sprint(k, " RSA decryption"), func(t *testing.T) {
			m := f.create(k, kmswire.RSA2048, kmswire.EncryptDecrypt)
			v := f.onlyVersion(m.KeyID)
			for _, alg := range rsaEncrypt {
				for _, n := range []int{1, 190} {
					e, err := f.AsymmetricEncrypt(ctx, user, &kmswire.AsymmetricEncryptRequest{KeyID: m.KeyID, KeyVersionID: v, Algorithm: alg, Plaintext: make([]byte, n)})
					if err != nil {
						t.Fatal(err)
					}
					d, err := f.AsymmetricDecrypt(ctx, user, &kmswire.AsymmetricDecryptRequest{KeyID: m.KeyID, KeyVersionID: v, Algorithm: alg, CiphertextBlob: e.CiphertextBlob})
					if err != nil || !bytes.Equal(d.Plaintext, make([]byte, n)) {
						t.Fatalf("%s %d: %v", alg, n, err)
					}
					e.CiphertextBlob[100] ^= 1
					_, err = f.AsymmetricDecrypt(ctx, root, &kmswire.AsymmetricDecryptRequest{KeyID: m.KeyID, KeyVersionID: v, Algorithm: alg, CiphertextBlob: e.CiphertextBlob})
					wantCode(t, "changed ciphertext", err, InvalidParameter)
				}
				_, err := f.AsymmetricEncrypt(ctx, root, &kmswire.AsymmetricEncryptRequest{KeyID: m.KeyID, KeyVersionID: v, Algorithm: alg, Plaintext: make([]byte, 215)})
				wantCode(t, "too long", err, InvalidParameter)
			}
			_, err := f.AsymmetricSign(ctx, root, &kmswire.AsymmetricSignRequest{KeyID: m.KeyID, KeyVersionID: v, Algorithm: kmswire.RSAPSSSHA256, Digest: digest[:]})
			wantCode(t, "sign with an encryption key", err, OperationRejected)
		})
	}
}

func testVersions(t *testing.T, f *fixture) {
	ctx := context.Background()
	for _, k := range []kind{software, wrapped} {
		m := f.create(k, kmswire.AES256, "")
		old, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: m.KeyID, Plaintext: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		v, err := f.CreateKeyVersion(ctx, root, &kmswire.CreateKeyVersionRequest{KeyID: m.KeyID})
		if err != nil {
			t.Fatal(err)
		}
		now, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: m.KeyID, Plaintext: []byte("x")})
		if err != nil || now.KeyVersionID != v.KeyVersion.KeyVersionID {
			t.Errorf("%s: the new version is not primary: %v %v", k, now, err)
		}
		for _, e := range []*kmswire.EncryptResponse{old, now} {
			if d, err := f.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: e.CiphertextBlob}); err != nil || d.KeyVersionID != e.KeyVersionID {
				t.Errorf("%s: %v %v", k, d, err)
			}
		}
		re, err := f.ReEncrypt(ctx, root, &kmswire.ReEncryptRequest{CiphertextBlob: old.CiphertextBlob, DestinationKeyID: m.KeyID})
		if err != nil || re.KeyVersionID != now.KeyVersionID {
			t.Errorf("%s: ReEncrypt: %v %v", k, re, err)
		}
		l, err := f.ListKeyVersions(ctx, root, &kmswire.ListKeyVersionsRequest{KeyID: m.KeyID})
		if err != nil || l.TotalCount != 2 || l.KeyVersions.KeyVersion[1].KeyVersionID != now.KeyVersionID {
			t.Errorf("%s: %+v %v", k, l, err)
		}
	}
	m := f.create(pinned, kmswire.AES256, "")
	_, err := f.CreateKeyVersion(ctx, root, &kmswire.CreateKeyVersionRequest{KeyID: m.KeyID})
	wantCode(t, "version of a pinned key", err, OperationRejected)
}

func testStatesAndPermissions(t *testing.T, f *fixture) {
	ctx := context.Background()
	m := f.create(software, kmswire.AES256, "")
	e, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: m.KeyID, Plaintext: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // idempotent
		if _, err := f.DisableKey(ctx, root, &kmswire.DisableKeyRequest{KeyID: m.KeyID}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: m.KeyID, Plaintext: []byte("x")})
	wantCode(t, "Encrypt, disabled", err, KeyDisabled)
	_, err = f.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: e.CiphertextBlob})
	wantCode(t, "Decrypt, disabled", err, KeyDisabled)
	if _, err := f.EnableKey(ctx, root, &kmswire.EnableKeyRequest{KeyID: m.Arn}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: e.CiphertextBlob}); err != nil {
		t.Error(err)
	}

	// Another account can't tell a key that is not there from one that is not for it.
	_, err1 := f.DescribeKey(ctx, other, &kmswire.DescribeKeyRequest{KeyID: m.Arn})
	_, err2 := f.DescribeKey(ctx, other, &kmswire.DescribeKeyRequest{KeyID: strings.Replace(m.Arn, m.KeyID, "key-"+strings.Repeat("a", 20), 1)})
	wantCode(t, "foreign key", err1, KeyNotFound)
	wantCode(t, "no key", err2, KeyNotFound)
	_, err = f.Decrypt(ctx, other, &kmswire.DecryptRequest{CiphertextBlob: e.CiphertextBlob})
	wantCode(t, "foreign blob", err, KeyNotFound)

	// Nor an alias, and it does not learn the key's ID from one.
	if _, err := f.CreateAlias(ctx, root, &kmswire.CreateAliasRequest{AliasName: "alias/is-there", KeyID: m.KeyID}); err != nil {
		t.Fatal(err)
	}
	arn := strings.TrimSuffix(m.Arn, "key/"+m.KeyID) + "alias/is-"
	_, err1 = f.DescribeKey(ctx, other, &kmswire.DescribeKeyRequest{KeyID: arn + "there"})
	_, err2 = f.DescribeKey(ctx, other, &kmswire.DescribeKeyRequest{KeyID: arn + "nowhere"})
	wantCode(t, "foreign alias", err1, AliasNotFound)
	wantCode(t, "no alias", err2, AliasNotFound)
	if one, two := AsError(err1).Detail, AsError(err2).Detail; strings.Replace(one, "is-there", "is-nowhere", 1) != two {
		t.Errorf("%q and %q tell a foreign alias from none", one, two)
	}

	_, err = f.CreateKey(ctx, user, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software"})
	wantCode(t, "CreateKey by a user", err, Denied)
	_, err = f.ListKeys(ctx, nil, &kmswire.ListKeysRequest{})
	wantCode(t, "nobody", err, Denied)
}

func testDryRun(t *testing.T, f *fixture) {
	ctx := context.Background()
	m := f.create(software, kmswire.AES256, "")
	for _, c := range []struct {
		req   kmswire.EncryptRequest
		actor *Actor
		want  Code
	}{
		{kmswire.EncryptRequest{KeyID: m.KeyID, Plaintext: []byte("x")}, root, DryRunSucceeded},
		{kmswire.EncryptRequest{KeyID: m.KeyID}, root, DryRunInvalid},
		{kmswire.EncryptRequest{KeyID: "key-none", Plaintext: []byte("x")}, root, DryRunInvalid},
	} {
		c.req.DryRun = true
		r, err := f.Encrypt(ctx, c.actor, &c.req)
		if r != nil {
			t.Error("a dry run gave an answer")
		}
		wantCode(t, "dry run", err, c.want)
	}

	// What would fail as a whole or in one item does not pass a dry run.
	key, err := softkey.GenerateKey(kmswire.RSA2048)
	if err != nil {
		t.Fatal(err)
	}
	size := 200
	_, err = f.GenerateAndExportDataKey(ctx, root, &kmswire.GenerateAndExportDataKeyRequest{KeyID: m.KeyID, NumberOfBytes: &size, DryRun: true,
		PublicKeyBlob: key.Public().Marshal(), WrappingAlgorithm: kmswire.RSAOAEPSHA256, WrappingKeySpec: kmswire.RSA2048})
	wantCode(t, "a data key that can't be wrapped", err, DryRunInvalid)
	_, err = f.BatchEncrypt(ctx, root, &kmswire.BatchEncryptRequest{KeyID: m.KeyID, DryRun: true, Items: []kmswire.BatchEncryptItem{
		{Plaintext: []byte("x")}, {Plaintext: make([]byte, kmswire.MaxPlaintext+1)}}})
	wantCode(t, "a bad item", err, DryRunInvalid)
	ec := f.create(software, kmswire.ECP256, "").KeyID
	digest := make([]byte, kmswire.DigestSize)
	_, err = f.BatchSign(ctx, root, &kmswire.BatchSignRequest{KeyID: ec, KeyVersionID: f.onlyVersion(ec), Algorithm: kmswire.ECDSASHA256, DryRun: true,
		Items: []kmswire.BatchSignItem{{Digest: digest}, {Digest: digest[1:]}}})
	wantCode(t, "a bad digest", err, DryRunInvalid)
	_, err = f.BatchVerify(ctx, root, &kmswire.BatchVerifyRequest{KeyID: ec, KeyVersionID: f.onlyVersion(ec), Algorithm: kmswire.ECDSASHA256, DryRun: true,
		Items: []kmswire.BatchVerifyItem{{Digest: digest}}})
	wantCode(t, "no signature", err, DryRunInvalid)
}

func testDataKeys(t *testing.T, f *fixture) {
	ctx := context.Background()
	for _, k := range []kind{software, wrapped} {
		m := f.create(k, kmswire.AES256, "")
		for _, c := range []struct {
			spec string
			n    int // 0: not given
			want int
		}{{"", 0, 32}, {"AES_256", 0, 32}, {"AES_128", 0, 16}, {"AES_128", 1024, 1024}, {"", 1, 1}} {
			req := &kmswire.GenerateDataKeyRequest{KeyID: m.KeyID, KeySpec: c.spec}
			if c.n > 0 {
				req.NumberOfBytes = &c.n
			}
			r, err := f.GenerateDataKey(ctx, user, req)
			if err != nil || len(r.Plaintext) != c.want {
				t.Fatalf("%+v: %v", c, err)
			}
			d, err := f.Decrypt(ctx, user, &kmswire.DecryptRequest{CiphertextBlob: r.CiphertextBlob})
			if err != nil || !bytes.Equal(d.Plaintext, r.Plaintext) {
				t.Errorf("%+v: %v", c, err)
			}
		}
		for _, n := range []int{0, 1025, -1} {
			_, err := f.GenerateDataKey(ctx, user, &kmswire.GenerateDataKeyRequest{KeyID: m.KeyID, NumberOfBytes: &n})
			wantCode(t, fmt.Sprint("NumberOfBytes ", n), err, InvalidParameter)
		}

		w, err := f.GenerateDataKeyWithoutPlaintext(ctx, user, &kmswire.GenerateDataKeyWithoutPlaintextRequest{KeyID: m.KeyID})
		if err != nil {
			t.Fatal(err)
		}
		private, err := softkey.GenerateKey(kmswire.RSA2048)
		if err != nil {
			t.Fatal(err)
		}
		spki := private.Public().Marshal()
		for _, alg := range rsaEncrypt {
			x, err := f.ExportDataKey(ctx, user, &kmswire.ExportDataKeyRequest{CiphertextBlob: w.CiphertextBlob, PublicKeyBlob: spki, WrappingAlgorithm: alg, WrappingKeySpec: kmswire.RSA2048})
			if err != nil {
				t.Fatal(err)
			}
			got, err := private.Decrypt(alg, x.ExportedDataKey)
			d, _ := f.Decrypt(ctx, user, &kmswire.DecryptRequest{CiphertextBlob: w.CiphertextBlob})
			if err != nil || !bytes.Equal(got, d.Plaintext) {
				t.Errorf("%s: %v", alg, err)
			}
			g, err := f.GenerateAndExportDataKey(ctx, user, &kmswire.GenerateAndExportDataKeyRequest{KeyID: m.KeyID,
				PublicKeyBlob: []byte(private.Public().PEM()), WrappingAlgorithm: alg, WrappingKeySpec: kmswire.RSA2048})
			if err != nil {
				t.Fatal(err)
			}
			got, err = private.Decrypt(alg, g.ExportedDataKey)
			d, _ = f.Decrypt(ctx, user, &kmswire.DecryptRequest{CiphertextBlob: g.CiphertextBlob})
			if err != nil || !bytes.Equal(got, d.Plaintext) {
				t.Errorf("%s: %v", alg, err)
			}
		}
		_, err = f.ExportDataKey(ctx, user, &kmswire.ExportDataKeyRequest{CiphertextBlob: w.CiphertextBlob, PublicKeyBlob: spki[:100], WrappingAlgorithm: kmswire.RSAOAEPSHA1, WrappingKeySpec: kmswire.RSA2048})
		wantCode(t, "cut public key", err, InvalidParameter)
	}
}

func testReEncryptFromPublicKey(t *testing.T, f *fixture) {
	ctx := context.Background()
	for _, k := range []kind{software, wrapped} {
		rsa := f.create(k, kmswire.RSA2048, kmswire.EncryptDecrypt)
		aes := f.create(k, kmswire.AES256, "")
		v := f.onlyVersion(rsa.KeyID)
		e, err := f.AsymmetricEncrypt(ctx, root, &kmswire.AsymmetricEncryptRequest{KeyID: rsa.KeyID, KeyVersionID: v, Algorithm: kmswire.RSAOAEPSHA256, Plaintext: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		r, err := f.ReEncrypt(ctx, root, &kmswire.ReEncryptRequest{CiphertextBlob: e.CiphertextBlob, DestinationKeyID: aes.KeyID,
			SourceKeyID: rsa.KeyID, SourceKeyVersionID: v, SourceEncryptionAlgorithm: kmswire.RSAOAEPSHA256})
		if err != nil {
			t.Fatal(err)
		}
		if d, err := f.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: r.CiphertextBlob}); err != nil || string(d.Plaintext) != "x" {
			t.Errorf("%v %v", d, err)
		}
	}
}

func testBatches(t *testing.T, f *fixture) {
	ctx := context.Background()
	for _, k := range []kind{software, wrapped} {
		m := f.create(k, kmswire.AES256, "")
		items := []kmswire.BatchEncryptItem{
			{Plaintext: []byte("one")},
			{Plaintext: nil},
			{Plaintext: []byte("three"), EncryptionContext: map[string]string{"own": "1"}},
			{Plaintext: make([]byte, kmswire.MaxPlaintext+1)},
			{Plaintext: []byte("five")},
		}
		e, err := f.BatchEncrypt(ctx, user, &kmswire.BatchEncryptRequest{KeyID: m.KeyID, Items: items, EncryptionContext: map[string]string{"all": "1"}})
		if err != nil || len(e.Items) != 5 {
			t.Fatal(err)
		}
		if e.Items[1].ItemError == nil || !errors.Is(e.Items[1].Err, MissingParameter) || e.Items[3].ItemError == nil {
			t.Errorf("%s: bad items passed: %+v", k, e.Items)
		}
		for i, ec := range map[int]map[string]string{0: {"all": "1"}, 2: {"own": "1"}, 4: {"all": "1"}} {
			d, err := f.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: e.Items[i].CiphertextBlob, EncryptionContext: ec})
			if err != nil || !bytes.Equal(d.Plaintext, items[i].Plaintext) {
				t.Errorf("%s item %d: %v", k, i, err)
			}
		}
		o := f.create(software, kmswire.AES256, "")
		oe, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: o.KeyID, Plaintext: []byte("other")})
		if err != nil {
			t.Fatal(err)
		}
		d, err := f.BatchDecrypt(ctx, user, &kmswire.BatchDecryptRequest{EncryptionContext: map[string]string{"all": "1"}, Items: []kmswire.BatchDecryptItem{
			{CiphertextBlob: e.Items[0].CiphertextBlob},
			{CiphertextBlob: []byte("rubbish")},
			{CiphertextBlob: e.Items[2].CiphertextBlob, EncryptionContext: map[string]string{"own": "1"}},
			{CiphertextBlob: oe.CiphertextBlob, EncryptionContext: map[string]string{}},
			{CiphertextBlob: e.Items[4].CiphertextBlob, EncryptionContext: map[string]string{"wrong": "1"}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"one", "", "three", "other", ""} {
			if string(d.Items[i].Plaintext) != want || (want == "") != (d.Items[i].ItemError != nil) {
				t.Errorf("%s item %d: %+v", k, i, d.Items[i])
			}
		}
		if ev := f.events.last(); ev.Action != "Decrypt" || ev.Items != 5 || ev.Outcome != "ok" {
			t.Errorf("event %+v", ev)
		}

		g, err := f.BatchGenerateDataKey(ctx, user, &kmswire.BatchGenerateDataKeyRequest{KeyID: m.KeyID, Count: 3})
		if err != nil || len(g.Items) != 3 || len(g.Items[2].Plaintext) != 32 || bytes.Equal(g.Items[0].Plaintext, g.Items[1].Plaintext) {
			t.Errorf("%s: %+v %v", k, g, err)
		}

		s := f.create(k, kmswire.ECP256, "")
		v := f.onlyVersion(s.KeyID)
		good := sha256.Sum256([]byte("x"))
		b, err := f.BatchSign(ctx, user, &kmswire.BatchSignRequest{KeyID: s.KeyID, KeyVersionID: v, Algorithm: kmswire.ECDSASHA256,
			Items: []kmswire.BatchSignItem{{Digest: good[:]}, {Digest: []byte("short")}, {Digest: good[:]}}})
		if err != nil || b.Items[1].ItemError == nil || b.Items[2].ItemError != nil {
			t.Fatalf("%s: %+v %v", k, b, err)
		}
		bad := sha256.Sum256([]byte("y"))
		vr, err := f.BatchVerify(ctx, user, &kmswire.BatchVerifyRequest{KeyID: s.KeyID, KeyVersionID: v, Algorithm: kmswire.ECDSASHA256,
			Items: []kmswire.BatchVerifyItem{{Digest: good[:], Value: b.Items[0].Value}, {Digest: bad[:], Value: b.Items[0].Value}, {Digest: good[:]}}})
		if err != nil || !*vr.Items[0].Value || *vr.Items[1].Value || vr.Items[2].ItemError == nil {
			t.Errorf("%s: %+v %v", k, vr, err)
		}
	}
	_, err := f.BatchEncrypt(ctx, root, &kmswire.BatchEncryptRequest{KeyID: "x", Items: make([]kmswire.BatchEncryptItem, kmswire.MaxBatchItems+1)})
	wantCode(t, "too many items", err, InvalidParameter)
}

func testAliasesAndLists(t *testing.T, f *fixture) {
	ctx := context.Background()
	r, err := f.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", AliasName: "alias/app/db"})
	if err != nil {
		t.Fatal(err)
	}
	a, b := r.KeyMetadata, f.create(software, kmswire.AES256, "")
	_, err = f.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", AliasName: "alias/app/db"})
	wantCode(t, "taken alias", err, AliasExists)
	_, err = f.CreateAlias(ctx, root, &kmswire.CreateAliasRequest{AliasName: "alias/app/db", KeyID: b.KeyID})
	wantCode(t, "taken alias", err, AliasExists)
	if _, err := f.CreateAlias(ctx, root, &kmswire.CreateAliasRequest{AliasName: "alias/second", KeyID: a.KeyID}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.UpdateAlias(ctx, root, &kmswire.UpdateAliasRequest{AliasName: "alias/app/db", KeyID: b.KeyID}); err != nil {
		t.Fatal(err)
	}
	d, err := f.DescribeKey(ctx, root, &kmswire.DescribeKeyRequest{KeyID: "alias/app/db"})
	if err != nil || d.KeyMetadata.KeyID != b.KeyID {
		t.Errorf("%v %v", d, err)
	}
	_, err = f.EnableKey(ctx, root, &kmswire.EnableKeyRequest{KeyID: "alias/app/db"})
	wantCode(t, "EnableKey with an alias", err, UnsupportedAlias)
	of, err := f.ListAliasesByKeyID(ctx, root, &kmswire.ListAliasesByKeyIDRequest{KeyID: a.KeyID})
	if err != nil || of.TotalCount != 1 || of.Aliases.Alias[0].AliasName != "alias/second" {
		t.Errorf("%+v %v", of, err)
	}
	if _, err := f.DeleteAlias(ctx, root, &kmswire.DeleteAliasRequest{AliasName: "alias/second"}); err != nil {
		t.Fatal(err)
	}
	_, err = f.DescribeKey(ctx, root, &kmswire.DescribeKeyRequest{KeyID: "alias/second"})
	wantCode(t, "deleted alias", err, AliasNotFound)

	l, err := f.ListKeys(ctx, root, &kmswire.ListKeysRequest{Page: kmswire.Page{PageNumber: 2, PageSize: 1}})
	if err != nil || l.TotalCount != 2 || len(l.Keys.Key) != 1 || l.Keys.Key[0].KeyID != b.KeyID {
		t.Errorf("%+v %v", l, err)
	}
	l, err = f.ListKeys(ctx, root, &kmswire.ListKeysRequest{Page: kmswire.Page{PageNumber: 3, PageSize: 1}})
	if err != nil || l.Keys.Key == nil || len(l.Keys.Key) != 0 {
		t.Errorf("page past the end: %+v %v", l, err)
	}
	_, err = f.ListKeys(ctx, root, &kmswire.ListKeysRequest{Page: kmswire.Page{PageSize: 101}})
	wantCode(t, "page size", err, InvalidParameter)
}

func testCreateKeyRefusals(t *testing.T, f *fixture) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		req  kmswire.CreateKeyRequest
		want Code
	}{
		"unknown instance": {kmswire.CreateKeyRequest{DKMSInstanceID: "kst-x"}, InvalidParameter},
		"unknown spec":     {kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", KeySpec: "DES"}, InvalidParameter},
		"wrong usage":      {kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", KeySpec: kmswire.ECP256, KeyUsage: kmswire.EncryptDecrypt}, InvalidParameter},
		"storage":          {kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", KeyStorageMechanism: kmswire.HsmInternal}, InvalidParameter},
		"tags":             {kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", Tags: []byte(`[{"TagKey":"aliyun-x"}]`)}, InvalidParameter},
		"description":      {kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", Description: strings.Repeat("ä", 8193)}, InvalidParameter},
	} {
		_, err := f.CreateKey(ctx, root, &c.req)
		wantCode(t, name, err, c.want)
	}
	l, err := f.ListKeys(ctx, root, &kmswire.ListKeysRequest{})
	if err != nil || l.TotalCount != 0 {
		t.Errorf("refused creates left keys: %+v %v", l, err)
	}
}

// A call whose event can't be kept gives nothing, and a management call does nothing.
func testNoEventNoAnswer(t *testing.T, f *fixture) {
	ctx := context.Background()
	m := f.create(software, kmswire.AES256, "")
	f.events.setFail(errors.New("the log is full"))
	r, err := f.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: m.KeyID, Plaintext: []byte("x")})
	if r != nil {
		t.Error("Encrypt answered without an event")
	}
	wantCode(t, "Encrypt without an event", err, AuditUnavailable)
	_, err = f.DisableKey(ctx, root, &kmswire.DisableKeyRequest{KeyID: m.KeyID})
	wantCode(t, "DisableKey without an event", err, AuditUnavailable)
	f.events.setFail(nil)
	d, err := f.DescribeKey(ctx, root, &kmswire.DescribeKeyRequest{KeyID: m.KeyID})
	if err != nil || d.KeyMetadata.KeyState != kmswire.Enabled {
		t.Errorf("DisableKey worked without an event: %+v %v", d, err)
	}
}

// What a process that died left behind is undone at the next start.
func testUnfinishedWork(t *testing.T, f *fixture) {
	ctx := context.Background()
	member, err := f.pool.PinTarget()
	if err != nil {
		t.Fatal(err)
	}
	left := &keystore.Intent{ID: newIntentID(), Kind: intentCreateKey, KeyID: newKeyID(), Member: member}
	if err := f.db.Change().PutIntent(left).Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := f.pool.GeneratePinned(ctx, hsmpool.P256, hsmpool.UseSign, intentObjectID(left), member); err != nil {
		t.Fatal(err)
	}
	strange := &keystore.Intent{ID: newIntentID(), Kind: "of a later version", KeyID: newKeyID(), Member: member}
	if err := f.db.Change().PutIntent(strange).Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := f.pool.GeneratePinned(ctx, hsmpool.P256, hsmpool.UseSign, intentObjectID(strange), member); err != nil {
		t.Fatal(err)
	}
	f.start()
	if intents, err := f.db.Intents(ctx); err != nil || len(intents) != 1 || intents[0].ID != strange.ID {
		t.Errorf("intents left: %v %v", intents, err)
	}
	if n, err := f.pool.DestroyPinned(ctx, member, intentObjectID(left)); err != nil || n != 0 {
		t.Errorf("%d objects left, %v", n, err)
	}
	if n, err := f.pool.DestroyPinned(ctx, member, intentObjectID(strange)); err != nil || n == 0 {
		t.Errorf("%d objects of unfinished work that is not known, %v", n, err)
	}
}

// TestUndoneWorkCannotEnd: two services have one store. What one of them takes for unfinished may be the other's work that is still
// going on; once its token object is about to be destroyed, that can't be committed any more.
func TestUndoneWorkCannotEnd(t *testing.T) {
	ctx := context.Background()
	f := newPolicyFixture(t)
	i := &keystore.Intent{ID: newIntentID(), Kind: intentCreateKey, KeyID: newKeyID(), Member: "north"}
	if err := f.db.Change().PutIntent(i).Commit(ctx); err != nil {
		t.Fatal(err)
	}
	theirs := *i
	if err := f.takeOver(ctx, &theirs); err != nil || theirs.Kind != intentUndo {
		t.Fatal(theirs.Kind, err)
	}
	k := &keystore.Key{ID: i.KeyID, Account: testAccount}
	if err := f.db.Change().CreateKey(k).DeleteIntent(i).Commit(ctx); !errors.Is(err, keystore.ErrConflict) {
		t.Errorf("the work was committed: %v", err)
	}
	if err := f.undo(ctx, i); err != nil { // there is no HSM here, so it would fail if it tried
		t.Errorf("whoever announced it: %v", err)
	}
	if left, err := f.db.Intents(ctx); err != nil || len(left) != 1 {
		t.Errorf("intents left: %v %v", left, err)
	}
}

func testCallCounter(t *testing.T, f *fixture) {
	ctx := context.Background()
	m := f.create(wrapped, kmswire.AES256, "")
	c := &callCounter{store: f.db, log: zerolog.Nop(), version: m.PrimaryKeyVersion}
	for range minBlock + 1 {
		if err := c.take(ctx, 1); err != nil {
			t.Fatal(err)
		}
	}
	if total, err := f.db.ReserveCalls(ctx, c.version, 0); err != nil || total != minBlock+2*minBlock {
		t.Errorf("reserved %d, %v", total, err)
	}
	if _, err := f.db.ReserveCalls(ctx, c.version, maxCalls-3*minBlock-10); err != nil {
		t.Fatal(err)
	}
	c.left = 0
	wantCode(t, "call 2^32", c.take(ctx, 11), LimitExceeded)
	// Calls that are refused after it cost no writing.
	total, err := f.db.ReserveCalls(ctx, c.version, 0)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, "another one", c.take(ctx, 1), LimitExceeded)
	if after, err := f.db.ReserveCalls(ctx, c.version, 0); err != nil || after != total {
		t.Errorf("%d calls are reserved, and then %d (%v)", total, after, err)
	}
}

func testPasswords(t *testing.T, f *fixture) {
	ctx := context.Background()
	seen := map[string]bool{}
	for range 200 {
		n := 8
		r, err := f.GetRandomPassword(ctx, user, &kmswire.GetRandomPasswordRequest{PasswordLength: &n, ExcludePunctuation: true, ExcludeCharacters: "abc1", RequireEachIncludedType: true})
		if err != nil {
			t.Fatal(err)
		}
		p := r.RandomPassword
		if len(p) != 8 || strings.ContainsAny(p, "abc1!") || seen[p] ||
			!strings.ContainsAny(p, "023456789") || !strings.ContainsAny(p, "defghijklmnopqrstuvwxyz") || !strings.ContainsAny(p, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
			t.Fatalf("password %q", p)
		}
		seen[p] = true
	}
	for _, n := range []int{7, 129} {
		_, err := f.GetRandomPassword(ctx, user, &kmswire.GetRandomPasswordRequest{PasswordLength: &n})
		wantCode(t, fmt.Sprint("length ", n), err, InvalidParameter)
	}
	_, err := f.GetRandomPassword(ctx, user, &kmswire.GetRandomPasswordRequest{ExcludeLowercase: true, ExcludeUppercase: true, ExcludePunctuation: true, ExcludeCharacters: "0123456789"})
	wantCode(t, "nothing left", err, InvalidParameter)
}
