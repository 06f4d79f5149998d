package kms

import (
	"context"
	"crypto/sha256"
	encodingasn1 "encoding/asn1"
	"encoding/pem"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyward/keyward/kms/kmswire"
)

// GenerateCsr makes a certificate signing request (PKCS #10, RFC 2986) for a version of an asymmetric key that may sign. It asks for
// what the parameters say and for nothing else: no name is taken over from the subject into the alternative names.
func (s *Service) GenerateCsr(ctx context.Context, actor *Actor, req *kmswire.GenerateCsrRequest) (*kmswire.GenerateCsrResponse, error) {
	return audited(s, ctx, actor, actGenerateCsr, false, func(c *call) (*kmswire.GenerateCsrResponse, error) {
		subject, err := parseSubject(req)
		if err != nil {
			return nil, err
		}
		names, err := parseAlternativeNames(req.SubjectAlternativeNames)
		if err != nil {
			return nil, err
		}
		c.event.Detail = "CN=" + req.CommonName
		g, err := c.authorizeRef(req.KeyID)
		if err != nil {
			return nil, err
		}
		versionID := req.KeyVersionID
		if versionID == "" {
			if versionID, err = c.newestVersion(g); err != nil {
				return nil, err
			}
		}
		m, err := c.version(g, versionID, "KeyVersionId", kmswire.SignVerify, req.Algorithm, "Algorithm")
		if err != nil {
			return nil, err
		}
		defer m.release()
		der, err := c.certificationRequest(m, req.Algorithm, subject, names)
		if err != nil {
			return nil, err
		}
		return &kmswire.GenerateCsrResponse{
			KeyID: g.key.ID, KeyVersionID: m.version.ID,
			Csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})),
		}, nil
	})
}

// newestVersion gives the version of a key that was made last.
func (c *call) newestVersion(g grant) (string, error) {
	versions, _, err := c.store.Versions(c.ctx, g.key.ID, max(0, g.key.Versions-1), 1)
	if err != nil {
		return "", storeError(err)
	}
	if len(versions) == 0 {
		return "", Errorf(KeyUnavailable, "the newest version of %s is not there; restore it from a backup", g.key.ID)
	}
	return versions[0].ID, nil
}

// Object identifiers of certification requests.
var (
	oidExtensionRequest = encodingasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14} // RFC 2985 section 5.4.2
	oidAlternativeName  = encodingasn1.ObjectIdentifier{2, 5, 29, 17}
	oidSHA256           = encodingasn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidMGF1             = encodingasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
)

// signatureAlgorithms write the AlgorithmIdentifier of each algorithm that signs.
var signatureAlgorithms = map[kmswire.Algorithm]func(*cryptobyte.Builder){
	kmswire.RSAPKCS1SHA256: algorithm(encodingasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, (*cryptobyte.Builder).AddASN1NULL), // RFC 4055 section 5
	kmswire.RSAPSSSHA256:   algorithm(encodingasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}, addPSSParameters),
	kmswire.ECDSASHA256:    algorithm(encodingasn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, nil), // RFC 5758 section 3.2: no parameters
}

func algorithm(oid encodingasn1.ObjectIdentifier, parameters func(*cryptobyte.Builder)) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oid)
			if parameters != nil {
				parameters(b)
			}
		})
	}
}

// addPSSParameters adds RSASSA-PSS-params (RFC 4055 section 3.1): SHA-256, MGF1 with SHA-256, and a salt as long as the digest.
// The trailer field is the default, which DER leaves out.
func addPSSParameters(b *cryptobyte.Builder) {
	hash := algorithm(oidSHA256, (*cryptobyte.Builder).AddASN1NULL)
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(contextual(0), hash)
		b.AddASN1(contextual(1), algorithm(oidMGF1, hash))
		b.AddASN1(contextual(2), func(b *cryptobyte.Builder) { b.AddASN1Int64(sha256.Size) })
	})
}

func contextual(n uint8) asn1.Tag { return asn1.Tag(n).Constructed().ContextSpecific() }

// requestInfo encodes a CertificationRequestInfo. publicKey is a SubjectPublicKeyInfo.
func requestInfo(subject []attribute, publicKey []byte, names []alternativeName) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0) // the version
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, a := range subject {
				b.AddASN1(asn1.SET, a.add)
			}
		})
		b.AddBytes(publicKey)
		b.AddASN1(contextual(0), func(b *cryptobyte.Builder) { // always there, if need be empty
			if len(names) > 0 {
				addExtensionRequest(b, names)
			}
		})
	})
	return b.Bytes()
}

// addExtensionRequest adds the attribute that asks for the extension subjectAltName. It is not critical, as the subject is not empty
// (RFC 5280 section 4.2.1.6).
func addExtensionRequest(b *cryptobyte.Builder, names []alternativeName) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidExtensionRequest)
		b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { // the extensions
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidAlternativeName)
					b.AddASN1(asn1.OCTET_STRING, func(b *cryptobyte.Builder) {
						b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
							for _, n := range names {
								b.AddASN1(n.tag, func(b *cryptobyte.Builder) { b.AddBytes(n.value) })
							}
						})
					})
				})
			})
		})
	})
}

// certificationRequest encodes and signs a CertificationRequest. There is one way for all keys, as crypto/x509 knows no
// secp256k1. The signature is checked by the public key that stands in the request before it leaves.
func (c *call) certificationRequest(m *material, alg kmswire.Algorithm, subject []attribute, names []alternativeName) ([]byte, error) {
	info, err := requestInfo(subject, m.public.Marshal(), names)
	if err != nil {
		return nil, &Error{Code: Internal, Err: err}
	}
	digest := sha256.Sum256(info)
	signature, err := c.sign(m, alg, digest[:])
	if err != nil {
		return nil, err
	}
	if ok, err := m.public.Verify(alg, digest[:], signature); err != nil || !ok {
		return nil, &Error{Code: Internal, Detail: "the signature of the request does not verify", Err: err}
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(info)
		signatureAlgorithms[alg](b)
		b.AddASN1BitString(signature)
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, &Error{Code: Internal, Err: err}
	}
	return der, nil
}
