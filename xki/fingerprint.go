package xki

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emmansun/gmsm/sm3"
)

// Fingerprints of a certificate, as clouds pin them: of all of it, and of its public key alone, by two hashes (§3.4).
type Fingerprints struct {
	CertificateSHA256, KeySHA256 string // sha256-<hex>
	CertificateSM3, KeySM3       string // sm3-<hex>
}

// FingerprintsOf gives the fingerprints of a certificate.
func FingerprintsOf(cert *x509.Certificate) Fingerprints {
	of := func(der []byte) (string, string) {
		a, b := sha256.Sum256(der), sm3.Sum(der)
		return "sha256-" + hex.EncodeToString(a[:]), "sm3-" + hex.EncodeToString(b[:])
	}
	var f Fingerprints
	f.CertificateSHA256, f.CertificateSM3 = of(cert.Raw)
	f.KeySHA256, f.KeySM3 = of(cert.RawSubjectPublicKeyInfo)
	return f
}

// has says whether a pin is one of them.
func (f Fingerprints) has(pin string) bool {
	return pin == f.CertificateSHA256 || pin == f.KeySHA256 || pin == f.CertificateSM3 || pin == f.KeySM3
}

// CheckPin says what is wrong with a pin, or nil.
func CheckPin(pin string) error {
	digits, ok := strings.CutPrefix(pin, "sha256-")
	if !ok {
		digits, ok = strings.CutPrefix(pin, "sm3-")
	}
	if b, err := hex.DecodeString(digits); !ok || err != nil || len(b) != 32 || digits != strings.ToLower(digits) {
		return fmt.Errorf("%.80q is no fingerprint: it is sha256- or sm3- and 64 digits of 0-9 a-f", pin)
	}
	return nil
}

// ClientTLS is how a client knows a proxy, and shows who it is. roots is PEM; without any and without pins the machine's own count. With pins a certificate of the
// chain must have one of them: the proxy's own, or one that it is signed by; and with roots too if there are any. cert may be nil.
func ClientTLS(roots []byte, pins []string, cert *tls.Certificate) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	if len(roots) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(roots) {
			return nil, errors.New("there is no certificate in the PEM of the roots")
		}
	}
	for _, pin := range pins {
		if err := CheckPin(pin); err != nil {
			return nil, err
		}
	}
	if len(pins) == 0 {
		return c, nil
	}
	if c.RootCAs == nil {
		c.InsecureSkipVerify = true // by roots; pinned does it by pins
	}
	c.VerifyConnection = func(s tls.ConnectionState) error { return pinned(s.PeerCertificates, s.ServerName, pins) }
	return c, nil
}

// pinned says whether a chain is one that pins allow: its first certificate has a pin, or is signed, for this name, by one that has.
func pinned(chain []*x509.Certificate, name string, pins []string) error {
	has := func(cert *x509.Certificate) bool { return slices.ContainsFunc(pins, FingerprintsOf(cert).has) }
	if len(chain) == 0 {
		return errors.New("the proxy shows no certificate")
	}
	if has(chain[0]) {
		return nil
	}
	o := x509.VerifyOptions{DNSName: name, Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	for _, cert := range chain[1:] {
		if has(cert) {
			o.Roots.AddCert(cert)
		} else {
			o.Intermediates.AddCert(cert)
		}
	}
	if _, err := chain[0].Verify(o); err != nil {
		return untrusted(chain[0], fmt.Errorf("neither it nor one that signed it has a fingerprint that is pinned: %w", err))
	}
	return nil
}

// untrusted says that a proxy shows a certificate that the connection is not set to take.
func untrusted(cert *x509.Certificate, why error) *Error {
	return Errorf(Misconfigured, "the proxy shows a certificate that this connection does not take (%.100q, %s): %v; if it is the right one, set --roots or --pin anew",
		cert.Subject, FingerprintsOf(cert).CertificateSHA256, why)
}

// Certificates reads all certificates of a PEM.
func Certificates(text []byte) (all []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, cert)
	}
	if len(bytes.TrimSpace(text)) > 0 || len(all) == 0 {
		return nil, errors.New("it is not PEM of certificates")
	}
	return all, nil
}
