package hsmpool_test

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/hsmpool/hsmtest/faulty"
)

// transportKey makes a transport key.
func transportKey(t testing.TB, p *hsmpool.Pool) (*hsmpool.Key, *rsa.PublicKey) {
	t.Helper()
	g, err := p.GenerateTransport(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.ParsePKIXPublicKey(g.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return &hsmpool.Key{ID: fmt.Sprint("transport-", importCount()), Type: hsmpool.RSA2048, Usage: hsmpool.UseUnwrap, Wrapped: g.Wrapped},
		pub.(*rsa.PublicKey)
}

// keyWrapPad is RFC 5649 in the words of the RFC.
func keyWrapPad(t testing.TB, key, material []byte) []byte {
	t.Helper()
	b, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	a := binary.BigEndian.AppendUint32([]byte{0xa6, 0x59, 0x59, 0xa6}, uint32(len(material)))
	r := append(a, material...)
	r = append(r, make([]byte, (8-len(material)%8)%8)...)
	n := len(r)/8 - 1
	if n == 1 {
		b.Encrypt(r, r)
		return r
	}
	var block [16]byte
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(block[:8], r[:8])
			copy(block[8:], r[8*i:])
			b.Encrypt(block[:], block[:])
			binary.BigEndian.PutUint64(r, binary.BigEndian.Uint64(block[:8])^uint64(n*j+i))
			copy(r[8*i:], block[8:])
		}
	}
	return r
}

func isKWP(a hsmpool.ImportAlgorithm) bool { return a >= hsmpool.ImportOAEPSHA1KWP }

// encryptMaterial encrypts material for an import with Go's library.
func encryptMaterial(t testing.TB, pub *rsa.PublicKey, a hsmpool.ImportAlgorithm, material []byte) []byte {
	t.Helper()
	block, rest := material, []byte(nil)
	if isKWP(a) {
		block = make([]byte, 32)
		rand.Read(block)
		rest = keyWrapPad(t, block, material)
	}
	var c []byte
	var err error
	switch a {
	case hsmpool.ImportPKCS1:
		c, err = rsa.EncryptPKCS1v15(rand.Reader, pub, block) //nolint:staticcheck // what is tested
	case hsmpool.ImportOAEPSHA1, hsmpool.ImportOAEPSHA1KWP:
		c, err = rsa.EncryptOAEP(sha1.New(), rand.Reader, pub, block, nil)
	default:
		c, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, pub, block, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return append(c, rest...)
}

func TestImportSmoke(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	p := h.Open(t)
	k, pub := transportKey(t, p)
	for _, n := range []int{16, 17, 20, 23, 24, 25, 31, 32, 33, 40, 64} {
		for a := hsmpool.ImportPKCS1; a <= hsmpool.ImportOAEPSHA256KWP; a++ {
			m := make([]byte, n)
			for kt := hsmpool.AES128; kt <= hsmpool.AES256; kt++ {
				i, err := p.Import(testContext(t), &hsmpool.ImportRequest{Transport: k, Algorithm: a, Ciphertext: encryptMaterial(t, pub, a, m), Type: kt, Usage: hsmpool.UseEncrypt})
				if err == nil { t.Log(n, a, kt, "ok", len(i.Check)) } else { t.Log(n, a, kt, err, errors.Unwrap(err)) }
			}
		}
	}
	for _, s := range p.Status() { t.Log(s.Codes, s.Failed, s.Done) }
}
var _ = []any{bytes.Equal, crypto.SHA1, cipher.NewGCM, ecdsa.Verify, elliptic.P256, hash.Hash(nil), big.NewInt, os.Open, exec.Command, filepath.Join, slices.Index[[]int], strings.Index, sync.Mutex{}, pkcs11.CKA_ID, faulty.Always}
