package softkey

import (
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyward/keyward/kms/kmswire"
)

// verifyKoblitz is PublicKey.Verify for secp256k1.
func verifyKoblitz(key *secp256k1.PublicKey, alg kmswire.Algorithm, digest, signature []byte) (bool, error) {
	if alg != kmswire.ECDSASHA256 {
		return false, ErrAlgorithm
	}
	if len(digest) != kmswire.DigestSize {
		return false, ErrSize
	}
	var in, pair cryptobyte.String = signature, nil
	var r, s secp256k1.ModNScalar
	if !in.ReadASN1(&pair, asn1.SEQUENCE) || !in.Empty() || !readScalar(&pair, &r) || !readScalar(&pair, &s) || !pair.Empty() {
		return false, nil
	}
	return ecdsa.NewSignature(&r, &s).Verify(digest, key), nil
}

// readScalar reads a DER INTEGER from 1 to n-1, n the order of the curve.
func readScalar(in *cryptobyte.String, out *secp256k1.ModNScalar) bool {
	var octets []byte // minimal, and not negative
	if !in.ReadASN1Integer(&octets) || len(octets) > 32 {
		return false
	}
	overflow := out.SetByteSlice(octets)
	return !overflow && !out.IsZero()
}
