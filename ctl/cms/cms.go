// Package cms writes detached CMS SignedData (RFC 5652) over content of any size: it is given the content's SHA-256
// digest, not the content, and a function that signs a digest. The libraries at hand want the whole content in memory.
package cms

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"sort"
	"time"

	"github.com/keyward/keyward/kms/kmswire"
)

// The object identifiers used, with where each is laid down.
var (
	oidSignedData      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}     // RFC 5652 section 5.1
	oidData            = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}     // RFC 5652 section 4
	oidContentType     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}     // RFC 5652 section 11.1
	oidMessageDigest   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}     // RFC 5652 section 11.2
	oidSigningTime     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}     // RFC 5652 section 11.3
	oidSHA256          = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1} // RFC 5754 section 2.2
	oidRSAEncryption   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}     // RFC 3370 section 3.2
	oidRSASSAPSS       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}    // RFC 4056
	oidMGF1            = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}     // RFC 4055 section 2.2
	oidECDSAWithSHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}      // RFC 5754 section 3.3
)

type algorithmIdentifier struct {
	Algorithm  asn1.ObjectIdentifier
	Parameters asn1.RawValue `asn1:"optional"`
}

type contentInfo struct {
	ContentType asn1.ObjectIdentifier
	Content     asn1.RawValue // an explicit [0]
}

type encapContentInfo struct {
	ContentType asn1.ObjectIdentifier // no eContent: the signature is detached
}

type issuerAndSerial struct {
	Issuer asn1.RawValue
	Serial *big.Int
}

type signerInfo struct {
	Version            int
	SID                issuerAndSerial
	DigestAlgorithm    algorithmIdentifier
	SignedAttrs        asn1.RawValue
	SignatureAlgorithm algorithmIdentifier
	Signature          []byte
}

type signedData struct {
	Version          int
	DigestAlgorithms []algorithmIdentifier `asn1:"set"`
	EncapContentInfo encapContentInfo
	Certificates     asn1.RawValue
	SignerInfos      []signerInfo `asn1:"set"`
}

type attribute struct {
	Type   asn1.ObjectIdentifier
	Values asn1.RawValue // a SET
}

// Request says what to sign.
type Request struct {
	Digest       []byte              // SHA-256 of the content
	Algorithm    kmswire.Algorithm   // one of the three that sign
	Certificates []*x509.Certificate // the signer's first, then what else the receiver may need for its chain
	SigningTime  time.Time           // the signer's clock; nobody vouches for it
	// Sign signs a SHA-256 digest with the private key of the first certificate: an RSA block, or ECDSA in DER.
	Sign func(digest []byte) ([]byte, error)
}

// Sign gives the DER of a ContentInfo that holds a detached SignedData. The signed attributes are content type, message
// digest and signing time.
func Sign(req Request) ([]byte, error) {
	if len(req.Digest) != sha256.Size {
		return nil, fmt.Errorf("cms: a SHA-256 digest has %d octets, not %d", sha256.Size, len(req.Digest))
	}
	if len(req.Certificates) == 0 {
		return nil, errors.New("cms: the signer's certificate is needed")
	}
	signatureAlgorithm, err := signatureIdentifier(req.Algorithm)
	if err != nil {
		return nil, err
	}
	attributes, err := signedAttributes(req.Digest, req.SigningTime)
	if err != nil {
		return nil, err
	}
	// What is signed is the attributes as a SET; what is stored is the same octets under an implicit tag (RFC 5652
	// section 5.4).
	set, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSet, IsCompound: true, Bytes: attributes})
	if err != nil {
		return nil, fmt.Errorf("cms: %w", err)
	}
	digest := sha256.Sum256(set)
	signature, err := req.Sign(digest[:])
	if err != nil {
		return nil, err
	}
	var certificates []byte
	for _, c := range req.Certificates {
		certificates = append(certificates, c.Raw...)
	}
	signer := req.Certificates[0]
	digestAlgorithm := algorithmIdentifier{Algorithm: oidSHA256} // parameters absent, RFC 5754 section 2
	inner, err := asn1.Marshal(signedData{
		Version:          1,
		DigestAlgorithms: []algorithmIdentifier{digestAlgorithm},
		EncapContentInfo: encapContentInfo{ContentType: oidData},
		Certificates:     asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: certificates},
		SignerInfos: []signerInfo{{
			Version:            1,
			SID:                issuerAndSerial{Issuer: asn1.RawValue{FullBytes: signer.RawIssuer}, Serial: signer.SerialNumber},
			DigestAlgorithm:    digestAlgorithm,
			SignedAttrs:        asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: attributes},
			SignatureAlgorithm: signatureAlgorithm,
			Signature:          signature,
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("cms: %w", err)
	}
	outer, err := asn1.Marshal(contentInfo{ContentType: oidSignedData, Content: asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: inner}})
	if err != nil {
		return nil, fmt.Errorf("cms: %w", err)
	}
	return outer, nil
}

// signedAttributes gives the three attributes in DER's order of a SET OF, without the SET around them.
func signedAttributes(digest []byte, at time.Time) ([]byte, error) {
	values := []struct {
		oid   asn1.ObjectIdentifier
		value any
	}{
		{oidContentType, oidData},
		{oidSigningTime, at.UTC().Truncate(time.Second)},
		{oidMessageDigest, digest},
	}
	var encoded [][]byte
	for _, v := range values {
		inner, err := asn1.Marshal(v.value)
		if err != nil {
			return nil, fmt.Errorf("cms: %w", err)
		}
		der, err := asn1.Marshal(attribute{
			Type:   v.oid,
			Values: asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSet, IsCompound: true, Bytes: inner},
		})
		if err != nil {
			return nil, fmt.Errorf("cms: %w", err)
		}
		encoded = append(encoded, der)
	}
	sort.Slice(encoded, func(i, j int) bool { return bytes.Compare(encoded[i], encoded[j]) < 0 })
	return bytes.Join(encoded, nil), nil
}

func signatureIdentifier(a kmswire.Algorithm) (algorithmIdentifier, error) {
	null := asn1.RawValue{FullBytes: []byte{asn1.TagNull, 0}}
	switch a {
	case kmswire.RSAPKCS1SHA256:
		return algorithmIdentifier{Algorithm: oidRSAEncryption, Parameters: null}, nil
	case kmswire.ECDSASHA256:
		return algorithmIdentifier{Algorithm: oidECDSAWithSHA256}, nil
	case kmswire.RSAPSSSHA256:
		hash := algorithmIdentifier{Algorithm: oidSHA256, Parameters: null}
		hashDER, err := asn1.Marshal(hash)
		if err != nil {
			return algorithmIdentifier{}, fmt.Errorf("cms: %w", err)
		}
		params, err := asn1.Marshal(struct {
			Hash       algorithmIdentifier `asn1:"explicit,tag:0"`
			MGF        algorithmIdentifier `asn1:"explicit,tag:1"`
			SaltLength int                 `asn1:"explicit,tag:2"`
		}{hash, algorithmIdentifier{Algorithm: oidMGF1, Parameters: asn1.RawValue{FullBytes: hashDER}}, kmswire.DigestSize})
		if err != nil {
			return algorithmIdentifier{}, fmt.Errorf("cms: %w", err)
		}
		return algorithmIdentifier{Algorithm: oidRSASSAPSS, Parameters: asn1.RawValue{FullBytes: params}}, nil
	}
	return algorithmIdentifier{}, fmt.Errorf("cms: %s does not sign", a)
}
