package ctl

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"
	"strings"

	"github.com/keyward/keyward/kms/keywrap"
	"github.com/keyward/keyward/kms/kmswire"
)

// maxMaterialFile bounds files with key material, in octets.
const maxMaterialFile = 64 << 10

// symmetricSizes are the sizes of the material of symmetric keys, in octets.
var symmetricSizes = map[kmswire.KeySpec]int{kmswire.AES256: 32, kmswire.AES192: 24, kmswire.AES128: 16}

// wrapAlgorithms are the ways of wrapping that keywardctl knows.
var wrapAlgorithms = []kmswire.Algorithm{kmswire.RSAOAEPSHA256, kmswire.RSAOAEPSHA1, kmswire.WrapPKCS1, kmswire.WrapOAEPSHA256KWP, kmswire.WrapOAEPSHA1KWP}

func hybrid(alg kmswire.Algorithm) bool {
	return alg == kmswire.WrapOAEPSHA256KWP || alg == kmswire.WrapOAEPSHA1KWP
}

// wrapNamed takes a way of wrapping in any case; without one it is what fits the spec.
func wrapNamed(text string, spec kmswire.KeySpec) kmswire.Algorithm {
	if text != "" {
		return anyCase(text, wrapAlgorithms)
	}
	if _, symmetric := symmetricSizes[spec]; symmetric {
		return kmswire.RSAOAEPSHA256
	}
	return kmswire.WrapOAEPSHA256KWP
}

// wrapMaterial wraps material with a public key, DER SubjectPublicKeyInfo.
func wrapMaterial(publicKey []byte, alg kmswire.Algorithm, material []byte) ([]byte, error) {
	parsed, err := x509.ParsePKIXPublicKey(publicKey)
	if err != nil {
		return nil, fmt.Errorf("keywardd gave a public key that can't be read: %w", err)
	}
	public, ok := parsed.(*rsa.PublicKey)
	if !ok || public.Size() < 256 {
		return nil, errors.New("keywardd gave a public key to wrap with that is not RSA of 2048 bits or more")
	}
	var h hash.Hash
	switch alg {
	case kmswire.WrapPKCS1:
		//lint:ignore SA1019 the API has it, and the user has asked for it
		return rsa.EncryptPKCS1v15(rand.Reader, public, material)
	case kmswire.RSAOAEPSHA1, kmswire.WrapOAEPSHA1KWP:
		h = sha1.New()
	case kmswire.RSAOAEPSHA256, kmswire.WrapOAEPSHA256KWP:
		h = sha256.New()
	default:
		return nil, usagef("--wrap %s is not known to this keywardctl", alg)
	}
	if !hybrid(alg) {
		return rsa.EncryptOAEP(h, rand.Reader, public, material, nil)
	}
	temporary := make([]byte, 32)
	rand.Read(temporary)
	defer clear(temporary)
	wrapped, err := keywrap.Wrap(temporary, material)
	if err != nil {
		return nil, err
	}
	block, err := rsa.EncryptOAEP(h, rand.Reader, public, temporary, nil)
	return append(block, wrapped...), err
}

// readMaterial reads the material of a key of spec from a file: octets, or a private key as PKCS#8 DER. The caller wipes it.
func (c *cli) readMaterial(ctx context.Context, name string, spec kmswire.KeySpec, format string) ([]byte, error) {
	in, err := c.openInput(ctx, name)
	if err != nil {
		return nil, err
	}
	defer in.close()
	buf := make([]byte, maxMaterialFile+1) // one buffer, so that it can be wiped
	defer clear(buf)
	n, err := io.ReadFull(in, buf)
	switch {
	case err == nil:
		return nil, fmt.Errorf("%s has more than %d octets: that is no key", in, maxMaterialFile)
	case n == 0 && err == io.EOF:
		return nil, fmt.Errorf("%s is empty", in)
	case err != io.EOF && err != io.ErrUnexpectedEOF:
		return nil, fmt.Errorf("%s: %w", in, err)
	}
	material, err := parseMaterial(buf[:n], spec, strings.ToLower(format))
	var coded *codedError
	if err != nil && !errors.As(err, &coded) {
		err = fmt.Errorf("%s: %w", in, err)
	}
	return material, err
}

// parseMaterial makes material of a file's content.
func parseMaterial(data []byte, spec kmswire.KeySpec, format string) ([]byte, error) {
	size, symmetric := symmetricSizes[spec]
	_, asymmetric := signAlgorithms[spec]
	switch {
	case symmetric:
		return parseOctets(data, size, format)
	case !asymmetric:
		return nil, fmt.Errorf("this keywardctl does not know what a key of spec %s is made of; wrap it elsewhere: keywardctl key import-parameters", spec)
	}
	switch format {
	case "auto":
		format = "der"
		if bytes.Contains(data, []byte("-----BEGIN ")) {
			format = "pem"
		}
	case "pem", "der":
	case "hex", "base64":
		decoded, err := decodeText(data, format)
		if err != nil {
			return nil, err
		}
		defer clear(decoded)
		return parsePrivateKey(decoded, spec, nil)
	default:
		return nil, usagef("--format %s is not one for a private key: give pem, der, hex, base64 or auto", format)
	}
	if format == "der" {
		return parsePrivateKey(data, spec, nil)
	}
	return parsePEM(data, spec)
}

func decodeText(data []byte, format string) ([]byte, error) {
	var out []byte
	var err error
	if format == "hex" {
		text := bytes.Join(bytes.Fields(data), nil)
		defer clear(text)
		out = make([]byte, hex.DecodedLen(len(text)))
		_, err = hex.Decode(out, text)
	} else {
		out, err = kmswire.DecodeBase64(nil, data)
	}
	if err != nil {
		return nil, fmt.Errorf("it is not %s", format) // the library's words would quote the material
	}
	return out, nil
}

// parseOctets reads the material of a symmetric key. What may be one thing or another is refused: with a key there is no second guess.
func parseOctets(data []byte, size int, format string) ([]byte, error) {
	if format == "auto" {
		if bytes.Contains(data, []byte("-----BEGIN ")) {
			return nil, errors.New("it is PEM, and a symmetric key is made of plain octets; for a private key name its --spec when the key is made")
		}
		var fit []string
		for _, f := range []string{"raw", "hex", "base64"} {
			if m, err := parseOctets(data, size, f); err == nil {
				clear(m)
				fit = append(fit, f)
			}
		}
		isText := len(data) == size && len(bytes.TrimSpace(data)) > 0 && !bytes.ContainsFunc(data, func(r rune) bool { return r < ' ' || r > '~' })
		switch {
		case len(fit) == 1 && !isText:
			format = fit[0]
		case len(fit) >= 1:
			return nil, usagef("the material may be meant as it stands or as text for other octets: say --format raw, hex or base64")
		default:
			format = "raw"
		}
	}
	switch format {
	case "raw":
		if len(data) != size {
			more := ""
			if len(data) == size+1 && data[size] == '\n' {
				more = ": the last is a newline, which printf and head -c leave out"
			}
			return nil, fmt.Errorf("the key is made of %d octets, and this has %d%s", size, len(data), more)
		}
		return bytes.Clone(data), nil
	case "hex", "base64":
		out, err := decodeText(data, format)
		if err == nil && len(out) != size {
			clear(out)
			return nil, fmt.Errorf("the key is made of %d octets, and this is %s of %d", size, format, len(out))
		}
		return out, err
	}
	return nil, usagef("--format %s is not one for a symmetric key: give raw, hex, base64 or auto", format)
}

// parsePEM reads the one private key among PEM blocks.
func parsePEM(data []byte, spec kmswire.KeySpec) (material []byte, err error) {
	var key *pem.Block
	var curve []byte
	seen := ""
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		defer clear(block.Bytes)
		seen = block.Type
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return nil, hint(errors.New("the private key is encrypted with a passphrase, which keywardctl does not ask for"),
				"pipe openssl pkey -in FILE into the same command, with - for the file")
		case block.Type == "EC PARAMETERS":
			curve = block.Bytes
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			if key != nil {
				return nil, errors.New("there are two private keys in it; leave the one that is meant")
			}
			key = block
		}
	}
	switch {
	case key != nil:
		return parsePrivateKey(key.Bytes, spec, curve)
	case seen != "":
		return nil, fmt.Errorf("there is no private key in it, only a %s", seen)
	}
	return nil, errNoMaterial
}

// The object identifiers of algorithms and curves.
var (
	oidRSA       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidEC        = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidP256      = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidSecp256k1 = asn1.ObjectIdentifier{1, 3, 132, 0, 10}
)

// algorithmID is an AlgorithmIdentifier (RFC 5280).
type algorithmID struct {
	Algorithm  asn1.ObjectIdentifier
	Parameters asn1.RawValue `asn1:"optional"`
}

// pkcs8 is PrivateKeyInfo (RFC 5208).
type pkcs8 struct {
	Version    int
	Algorithm  algorithmID
	PrivateKey []byte
	Attributes asn1.RawValue `asn1:"optional,tag:0"`
}

// sec1 is ECPrivateKey (RFC 5915).
type sec1 struct {
	Version    int
	PrivateKey []byte
	Curve      asn1.RawValue  `asn1:"optional,explicit,tag:0"`
	Public     asn1.BitString `asn1:"optional,explicit,tag:1"`
}

// parsePrivateKey makes PKCS#8 DER of a private key in PKCS#8, PKCS#1 or SEC 1, and looks whether it is of the spec. Whether it is a good
// key keyward says. curve is the EC PARAMETERS block that came with it, if one did.
func parsePrivateKey(der []byte, spec kmswire.KeySpec, curve []byte) ([]byte, error) {
	var outer []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &outer); err != nil || len(rest) > 0 || len(outer) < 2 {
		return nil, errors.New("it is neither PEM nor DER of a private key")
	}
	if outer[0].Tag != asn1.TagInteger {
		return nil, hint(errors.New("it is no private key in the clear: a public key, or one encrypted with a passphrase"),
			"pipe openssl pkey -inform DER -in FILE into the same command, with - for the file")
	}
	switch outer[1].Tag {
	case asn1.TagInteger:
		return envelope(algorithmID{oidRSA, asn1.NullRawValue}, der, spec)
	case asn1.TagOctetString:
		var key sec1
		if _, err := asn1.Unmarshal(der, &key); err != nil {
			return nil, errors.New("it is no private key of a curve (SEC 1) that can be read")
		}
		clear(key.PrivateKey)
		id := key.Curve.FullBytes
		if len(key.Curve.Bytes) > 0 && key.Curve.Class == asn1.ClassContextSpecific {
			id = key.Curve.Bytes
		}
		if len(id) == 0 {
			id = curve
		}
		if len(id) == 0 {
			return nil, errors.New("it does not say its curve; openssl pkcs8 -topk8 -nocrypt writes a key that does")
		}
		return envelope(algorithmID{oidEC, asn1.RawValue{FullBytes: id}}, der, spec)
	case asn1.TagSequence:
		var key pkcs8
		if _, err := asn1.Unmarshal(der, &key); err != nil {
			return nil, errors.New("it is no PKCS#8 that can be read")
		}
		defer clear(key.PrivateKey)
		if err := fitsSpec(key.Algorithm, key.PrivateKey, spec); err != nil {
			return nil, err
		}
		return bytes.Clone(der), nil
	}
	return nil, errors.New("it is neither PKCS#8, nor PKCS#1, nor SEC 1")
}

// envelope puts a key's own encoding into PKCS#8.
func envelope(id algorithmID, key []byte, spec kmswire.KeySpec) ([]byte, error) {
	if err := fitsSpec(id, key, spec); err != nil {
		return nil, err
	}
	return asn1.Marshal(struct {
		Version    int
		Algorithm  algorithmID
		PrivateKey []byte
	}{0, id, key})
}

// fitsSpec says which key it is, if it is not one of spec.
func fitsSpec(id algorithmID, key []byte, spec kmswire.KeySpec) error {
	is := "of another algorithm (" + id.Algorithm.String() + ")"
	switch {
	case id.Algorithm.Equal(oidRSA):
		var numbers []asn1.RawValue
		var n *big.Int
		if _, err := asn1.Unmarshal(key, &numbers); err != nil || len(numbers) < 2 {
			return errors.New("it is no RSA key that can be read")
		}
		if _, err := asn1.Unmarshal(numbers[1].FullBytes, &n); err != nil {
			return errors.New("it is no RSA key that can be read")
		}
		is = fmt.Sprintf("RSA_%d", n.BitLen())
	case id.Algorithm.Equal(oidEC):
		var curve asn1.ObjectIdentifier
		if _, err := asn1.Unmarshal(id.Parameters.FullBytes, &curve); err != nil {
			return hint(errors.New("its curve is spelt out, not named"), "openssl ec -param_enc named_curve -in FILE | keywardctl key import KEY --material -")
		}
		switch {
		case curve.Equal(oidP256):
			is = string(kmswire.ECP256)
		case curve.Equal(oidSecp256k1):
			is = string(kmswire.ECP256K)
		default:
			is = "on another curve (" + curve.String() + ")"
		}
	}
	if is != string(spec) {
		return fmt.Errorf("the private key is %s, and the key was made as %s", is, spec)
	}
	return nil
}
