package daemon

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/softkey"
)

// referenceThreads are the numbers of threads that are measured.
var referenceThreads = []int{1, 2}

func cmdReference(args []string) error {
	var seconds float64
	var module string
	err := parse("reference", args, func(fs *flag.FlagSet) {
		fs.Float64Var(&seconds, "seconds", 1, "length of each of the 12 measurements, 0.1 to 60 `seconds`")
		fs.StringVar(&module, "module", "", "the PKCS#11 module `file` of SoftHSM2")
	})
	if err != nil {
		return err
	}
	if seconds < 0.1 || seconds > 60 {
		return fmt.Errorf("%w: --seconds must be 0.1 to 60", errUsage)
	}
	if module, err = findSoftHSM(module); err != nil {
		return err
	}
	out := admin.Reference{Seconds: seconds}
	each := time.Duration(seconds * float64(time.Second))
	for _, measure := range []func(*admin.Reference, time.Duration) error{
		measureLibcrypto,
		func(r *admin.Reference, d time.Duration) error { return measureSoftHSM(r, d, module) },
	} {
		if err := measure(&out, each); err != nil {
			return err
		}
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

// worker does one operation each time it is called; it belongs to one thread.
type worker func() error

// measure runs the workers at the same time for about d, and notes how often they came around in a second. A first call
// of each is not counted.
func measure(r *admin.Reference, d time.Duration, engine, operation string, workers []worker) error {
	for _, w := range workers {
		if err := w(); err != nil {
			return fmt.Errorf("%s: %s: %w", engine, operation, err)
		}
	}
	var done atomic.Uint64
	errs := make([]error, len(workers))
	var group sync.WaitGroup
	begin := time.Now()
	for i, w := range workers {
		group.Go(func() {
			for time.Since(begin) < d && errs[i] == nil {
				errs[i] = w()
				done.Add(1)
			}
		})
	}
	group.Wait()
	rate := float64(done.Load()) / time.Since(begin).Seconds()
	r.Rates = append(r.Rates, admin.Rate{Engine: engine, Operation: operation, Threads: len(workers), PerSecond: rate})
	return errors.Join(errs...)
}

func repeat(n int, w worker) []worker {
	all := make([]worker, n)
	for i := range all {
		all[i] = w
	}
	return all
}

// measureLibcrypto measures the engines of software keys by themselves.
func measureLibcrypto(r *admin.Reference, d time.Duration) error {
	digest := make([]byte, kmswire.DigestSize)
	sign := func(spec kmswire.KeySpec, alg kmswire.Algorithm) (worker, func(), error) {
		key, err := softkey.GenerateKey(spec)
		if err != nil {
			return nil, nil, err
		}
		return func() error { _, err := key.Sign(alg, digest); return err }, key.Close, nil
	}
	rsa, closeRSA, err := sign(kmswire.RSA2048, kmswire.RSAPKCS1SHA256)
	if err != nil {
		return err
	}
	defer closeRSA()
	ec, closeEC, err := sign(kmswire.ECP256, kmswire.ECDSASHA256)
	if err != nil {
		return err
	}
	defer closeEC()
	secret := make([]byte, 32)
	rand.Read(secret)
	aes, err := softkey.NewAES(secret)
	if err != nil {
		return err
	}
	defer aes.Close()
	plaintext := make([]byte, 1024)
	seal := func() error {
		nonce := make([]byte, softkey.NonceSize)
		rand.Read(nonce)
		aes.Seal(nil, nonce, plaintext, nil)
		return nil
	}
	for i, w := range []worker{rsa, ec, seal} {
		for _, n := range referenceThreads {
			if err := measure(r, d, admin.Libcrypto, admin.Operations()[i], repeat(n, w)); err != nil {
				return err
			}
		}
	}
	return nil
}

// measureSoftHSM measures the best plain use of SoftHSM2 by one process: session objects, their handles kept, a session
// for each thread. It uses a token of its own in a temporary directory.
func measureSoftHSM(r *admin.Reference, d time.Duration, module string) (err error) {
	dir, err := os.MkdirTemp("", "keyward-reference-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := softHSMConfig(conf, filepath.Join(dir, "tokens")); err != nil {
		return err
	}
	if err := os.Setenv("SOFTHSM2_CONF", conf); err != nil {
		return err
	}
	const label = "keyward-reference"
	pin := rand.Text()[:16]
	if err := makeToken(module, label, pin, pin); err != nil {
		return err
	}
	ctx := pkcs11.New(module)
	if ctx == nil {
		return fmt.Errorf("%s can't be loaded as a PKCS#11 module", module)
	}
	defer ctx.Destroy()
	if err := ctx.Initialize(); err != nil {
		return fmt.Errorf("C_Initialize: %w", err)
	}
	defer func() { err = errors.Join(err, ctx.Finalize()) }()
	slot, err := slotOf(ctx, label)
	if err != nil {
		return err
	}
	most := referenceThreads[len(referenceThreads)-1]
	sessions := make([]pkcs11.SessionHandle, most)
	for i := range sessions {
		if sessions[i], err = ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION); err != nil {
			return fmt.Errorf("C_OpenSession: %w", err)
		}
	}
	if err := ctx.Login(sessions[0], pkcs11.CKU_USER, pin); err != nil {
		return fmt.Errorf("C_Login: %w", err)
	}
	return measureSessions(r, d, ctx, sessions)
}

func measureSessions(r *admin.Reference, d time.Duration, ctx *pkcs11.Ctx, sessions []pkcs11.SessionHandle) error {
	attr := pkcs11.NewAttribute
	pair := func(mechanism uint, public ...*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
		_, private, err := ctx.GenerateKeyPair(sessions[0], []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)},
			append(public, attr(pkcs11.CKA_VERIFY, true), attr(pkcs11.CKA_TOKEN, false)),
			[]*pkcs11.Attribute{attr(pkcs11.CKA_SIGN, true), attr(pkcs11.CKA_TOKEN, false), attr(pkcs11.CKA_PRIVATE, true), attr(pkcs11.CKA_SENSITIVE, true)})
		return private, err
	}
	rsa, err := pair(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, attr(pkcs11.CKA_MODULUS_BITS, 2048), attr(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}))
	if err != nil {
		return fmt.Errorf("C_GenerateKeyPair: %w", err)
	}
	p256 := []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07} // OID prime256v1
	ec, err := pair(pkcs11.CKM_EC_KEY_PAIR_GEN, attr(pkcs11.CKA_EC_PARAMS, p256))
	if err != nil {
		return fmt.Errorf("C_GenerateKeyPair: %w", err)
	}
	aes, err := ctx.GenerateKey(sessions[0], []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
		attr(pkcs11.CKA_VALUE_LEN, 32), attr(pkcs11.CKA_ENCRYPT, true), attr(pkcs11.CKA_TOKEN, false),
		attr(pkcs11.CKA_PRIVATE, true), attr(pkcs11.CKA_SENSITIVE, true)})
	if err != nil {
		return fmt.Errorf("C_GenerateKey: %w", err)
	}
	// DigestInfo of SHA-256 (RFC 8017 section 9.2), then the digest.
	digestInfo := append([]byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}, make([]byte, 32)...)
	sign := func(s pkcs11.SessionHandle, mechanism uint, key pkcs11.ObjectHandle, in []byte) worker {
		m := []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}
		return func() error {
			if err := ctx.SignInit(s, m, key); err != nil {
				return err
			}
			_, err := ctx.Sign(s, in)
			return err
		}
	}
	encrypt := func(s pkcs11.SessionHandle) worker {
		plaintext := make([]byte, 1024)
		return func() error {
			nonce := make([]byte, 12)
			rand.Read(nonce)
			params := pkcs11.NewGCMParams(nonce, nil, 128)
			defer params.Free()
			if err := ctx.EncryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, aes); err != nil {
				return err
			}
			_, err := ctx.Encrypt(s, plaintext)
			return err
		}
	}
	for i, of := range []func(pkcs11.SessionHandle) worker{
		func(s pkcs11.SessionHandle) worker { return sign(s, pkcs11.CKM_RSA_PKCS, rsa, digestInfo) },
		func(s pkcs11.SessionHandle) worker { return sign(s, pkcs11.CKM_ECDSA, ec, make([]byte, 32)) },
		encrypt,
	} {
		for _, n := range referenceThreads {
			var workers []worker
			for _, s := range sessions[:n] {
				workers = append(workers, of(s))
			}
			if err := measure(r, d, admin.SoftHSM2, admin.Operations()[i], workers); err != nil {
				return err
			}
		}
	}
	return nil
}
