package daemon

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/keyward/keyward/daemon/config"
	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
)

// maxPEM is the most octets a file with a certificate or key may have.
const maxPEM = 1 << 20

// certificate gives the certificate of a listener with its private key, which is in a file or a key of keyward.
func (s *server) certificate(ctx context.Context, l *config.Listener) (*tls.Certificate, error) {
	var cert *tls.Certificate
	var err error
	if l.KeyFile != "" {
		cert, err = readCertificate(l)
	} else {
		cert, err = keywardCertificate(ctx, l, s.signing, ownActor(s.config.Load().FirstAccount()))
	}
	if err != nil {
		return nil, err
	}
	if leaf := cert.Leaf; time.Now().After(leaf.NotAfter) || time.Now().Before(leaf.NotBefore) {
		s.log.Warn().Str("cert_file", l.CertFile).Time("not_before", leaf.NotBefore).Time("not_after", leaf.NotAfter).
			Msg("this certificate is not valid now, so clients will refuse it: put a new one there and reload")
	}
	return cert, nil
}

// readCertificate reads certificate and private key from files.
func readCertificate(l *config.Listener) (*tls.Certificate, error) {
	chain, err := readPEM(l.CertFile, false)
	if err != nil {
		return nil, err
	}
	key, err := readPEM(l.KeyFile, true)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", l.CertFile, l.KeyFile, err)
	}
	return &cert, nil
}

// readPEM reads a file. One with a private key must not be open to everybody.
func readPEM(path string, private bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case private && info.Mode().Perm()&0o027 != 0:
		return nil, fmt.Errorf("%s holds a private key and has mode %04o, so that others may touch it; run: chmod 0600 %[1]s, and have a new key certified if anybody could have read it", path, info.Mode().Perm())
	case info.Size() > maxPEM:
		return nil, fmt.Errorf("%s has %d octets, which is more than a certificate has", path, info.Size())
	}
	text := make([]byte, info.Size())
	if _, err := io.ReadFull(f, text); err != nil {
		clear(text)
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

// keyService is what a certificate needs of kms.Service when its private key is one of keyward's.
type keyService interface {
	ListKeyVersions(context.Context, *kms.Actor, *kmswire.ListKeyVersionsRequest) (*kmswire.ListKeyVersionsResponse, error)
	GetPublicKey(context.Context, *kms.Actor, *kmswire.GetPublicKeyRequest) (*kmswire.GetPublicKeyResponse, error)
	AsymmetricSign(context.Context, *kms.Actor, *kmswire.AsymmetricSignRequest) (*kmswire.AsymmetricSignResponse, error)
}

// ownActor is the daemon itself, as the root of an account.
func ownActor(account string) *kms.Actor {
	program, err := os.Executable()
	if err != nil {
		program = ownProgram // still itself, with a name that says less
	}
	return &kms.Actor{Principal: "acs:ram::" + account + ":root", Account: account, Door: kms.DoorAPI,
		UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: int32(os.Getpid()), Executable: program}
}

// keywardCertificate reads a certificate and finds the version of the listener's key that it is for.
func keywardCertificate(ctx context.Context, l *config.Listener, svc keyService, actor *kms.Actor) (*tls.Certificate, error) {
	text, err := readPEM(l.CertFile, false)
	if err != nil {
		return nil, err
	}
	cert := &tls.Certificate{}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			cert.Certificate = append(cert.Certificate, block.Bytes)
		}
	}
	if len(cert.Certificate) == 0 {
		return nil, fmt.Errorf("%s has no certificate in it", l.CertFile)
	}
	if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
		return nil, fmt.Errorf("%s: %w", l.CertFile, err)
	}
	signer := &keySigner{svc: svc, actor: actor, keyID: l.Key, public: cert.Leaf.PublicKey}
	switch public := signer.public.(type) {
	case *rsa.PublicKey:
		cert.SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.PSSWithSHA256, tls.PKCS1WithSHA256}
	case *ecdsa.PublicKey:
		if public.Curve != elliptic.P256() {
			return nil, fmt.Errorf("%s is for a key on %s; keyward's keys for TLS are RSA and P-256", l.CertFile, public.Curve.Params().Name)
		}
		cert.SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}
	default:
		return nil, fmt.Errorf("%s is for a key that keyward does not have: they are RSA and P-256", l.CertFile)
	}
	if err := signer.find(ctx, cert.Leaf.RawSubjectPublicKeyInfo); err != nil {
		return nil, fmt.Errorf("%s and the key %s: %w", l.CertFile, l.Key, err)
	}
	cert.PrivateKey = signer
	return cert, nil
}

// keySigner is a crypto.Signer whose private key is a version of a key of keyward. It signs SHA-256 digests.
type keySigner struct {
	svc            keyService
	actor          *kms.Actor
	keyID, version string
	public         crypto.PublicKey
	failed         atomic.Pointer[string] // why the last signature failed; nil if it did not
}

// find sets the version that has the public key spki.
func (k *keySigner) find(ctx context.Context, spki []byte) error {
	seen := 0
	for page := 1; ; page++ {
		list, err := k.svc.ListKeyVersions(ctx, k.actor, &kmswire.ListKeyVersionsRequest{KeyID: k.keyID, Page: kmswire.Page{PageNumber: page, PageSize: kmswire.MaxPageSize}})
		if err != nil {
			return err
		}
		for _, v := range list.KeyVersions.KeyVersion {
			answer, err := k.svc.GetPublicKey(ctx, k.actor, &kmswire.GetPublicKeyRequest{KeyID: k.keyID, KeyVersionID: v.KeyVersionID})
			if err != nil {
				return err
			}
			if block, _ := pem.Decode([]byte(answer.PublicKey)); block != nil && bytes.Equal(block.Bytes, spki) {
				k.keyID, k.version = answer.KeyID, answer.KeyVersionID
				return nil
			}
		}
		n := len(list.KeyVersions.KeyVersion)
		if seen += n; n == 0 || seen >= list.TotalCount {
			return errors.New("the certificate is for none of the key's versions")
		}
	}
}

// Public gives the certificate's public key.
func (k *keySigner) Public() crypto.PublicKey { return k.public }

// Sign signs a digest during a handshake, which has no context of its own: it takes as long as a handshake may at most.
func (k *keySigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 {
		return nil, fmt.Errorf("keyward signs SHA-256 digests, and not those of %v", opts.HashFunc())
	}
	algorithm := kmswire.ECDSASHA256
	if _, ok := k.public.(*rsa.PublicKey); ok {
		algorithm = kmswire.RSAPKCS1SHA256
		if pss, ok := opts.(*rsa.PSSOptions); ok {
			if pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != crypto.SHA256.Size() {
				return nil, fmt.Errorf("keyward's PSS signatures have a salt of %d octets", crypto.SHA256.Size())
			}
			algorithm = kmswire.RSAPSSSHA256
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), strangerTimes.head)
	defer cancel()
	answer, err := k.svc.AsymmetricSign(ctx, k.actor, &kmswire.AsymmetricSignRequest{KeyID: k.keyID, KeyVersionID: k.version, Algorithm: algorithm, Digest: digest})
	if err != nil {
		why := err.Error()
		k.failed.Store(&why)
		return nil, err
	}
	k.failed.Store(nil)
	return answer.Value, nil
}
