package ctl

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/ctl/cms"
	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

// How a signature is written.
const (
	formatRaw = "raw" // RSA: the block; ECDSA: r and s, 32 octets each
	formatDER = "der" // ECDSA: the ASN.1 SEQUENCE that OpenSSL and certificates use
	formatCMS = "cms" // detached SignedData
)

// signRequest is what sign and verify have in common.
type signRequest struct {
	key, version, algorithm, format string
}

func (r *signRequest) flags(c *cli, cmd *cobra.Command, formats ...string) {
	c.keyFlag(cmd, &r.key, "asymmetric key")
	f := cmd.Flags()
	f.StringVar(&r.version, "key-version", "", "version of the key; the newest if not given")
	f.StringVar(&r.algorithm, "algorithm", "", "RSA_PKCS1_SHA_256 (default for RSA), RSA_PSS_SHA_256, or ECDSA_SHA_256")
	f.StringVar(&r.format, "format", "", strings.Join(formats, ", ")+"; the default is what OpenSSL takes: raw for RSA, der for ECDSA")
	choices(cmd, "algorithm", kmswire.RSAPKCS1SHA256, kmswire.RSAPSSSHA256, kmswire.ECDSASHA256)
	choices(cmd, "format", formats...)
}

// complete fills in what was not given, from what the key is.
func (c *cli) complete(ctx context.Context, r *signRequest, formats ...string) (*kmswire.KeyMetadata, error) {
	k, err := c.describe(ctx, r.key)
	if err != nil {
		return nil, err
	}
	known, ok := signAlgorithms[k.KeySpec]
	if !ok {
		return nil, hint(fmt.Errorf("%s (%s) can't sign", r.key, k.KeySpec), "keywardctl key create --spec EC_P256 makes one that can")
	}
	if r.algorithm == "" {
		r.algorithm = string(known[0])
	}
	algorithm := anyCase(r.algorithm, known)
	if !slices.Contains(known, algorithm) {
		return nil, usagef("--algorithm %s is not for %s keys; they have %s", r.algorithm, k.KeySpec, join(known))
	}
	r.algorithm = string(algorithm)
	ecdsa := algorithm == kmswire.ECDSASHA256
	switch {
	case r.format == "" && ecdsa:
		r.format = formatDER
	case r.format == "":
		r.format = formatRaw
	case !slices.Contains(formats, r.format):
		return nil, usagef("--format is one of %s, not %q", strings.Join(formats, ", "), r.format)
	case r.format == formatDER && !ecdsa:
		return nil, usagef("--format der is for ECDSA; an RSA signature has one plain form, raw")
	}
	if r.version == "" {
		if r.version, err = c.newestVersion(ctx, k.KeyID); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func join[T ~string](list []T) string {
	var texts []string
	for _, v := range list {
		texts = append(texts, string(v))
	}
	return strings.Join(texts, ", ")
}

// digest hashes an input as it streams by.
func (c *cli) digest(ctx context.Context, in *input) ([]byte, error) {
	h := sha256.New()
	if _, err := c.stream(ctx, h, in, in.size, "hashing"); err != nil {
		return nil, fmt.Errorf("%s: %w", in, err)
	}
	return h.Sum(nil), nil
}

func (c *cli) signCmd() *cobra.Command {
	var r signRequest
	var out, certificate string
	var force bool
	cmd := &cobra.Command{
		Use:   "sign --key KEY [FILE]",
		Short: "Sign a file of any size",
		Long: `Sign a file. It is hashed here (SHA-256) and only the digest goes to keyward. FILE.sig is made (FILE.p7s with --format
cms); "-" or no FILE reads stdin and writes the signature to stdout.

  --format raw   RSA: the signature block. ECDSA: r and s, 32 octets each, as JWS and PKCS#11 have it
  --format der   ECDSA in ASN.1, as OpenSSL has it
  --format cms   a detached CMS signature (PKCS#7, S/MIME) with the signing time; needs --certificate, whose file holds the
                 signer's certificate first and may hold others of its chain after it (PEM)

How to verify with OpenSSL is printed on stderr.`,
		Example: `  keywardctl sign --key alias/release app.tar.gz
  keywardctl sign --key alias/release --format cms --certificate release.crt app.tar.gz
  keywardctl sign --key alias/jwt --format raw - < signing-input | base64`,
		Args: atMostOne("FILE"),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			if err := required(cmd, "key"); err != nil {
				return err
			}
			if (r.format == formatCMS) != (certificate != "") {
				return usagef("--format cms and --certificate go together")
			}
			k, err := c.complete(ctx, &r, formatRaw, formatDER, formatCMS)
			if err != nil {
				return err
			}
			var chain []*x509.Certificate
			if r.format == formatCMS {
				if chain, err = c.certificates(ctx, certificate, k.KeyID, r.version); err != nil {
					return err
				}
			}
			in, err := c.openInput(ctx, first(a))
			if err != nil {
				return err
			}
			defer in.close()
			if out == "" {
				if out = stdio; in.name != stdio {
					out = in.name + ".sig"
					if r.format == formatCMS {
						out = in.name + ".p7s"
					}
				}
			}
			// A name that can't be written is found before the work, not after it.
			o, err := c.createOutput(out, 0o666, force, true)
			if err != nil {
				return err
			}
			defer o.discard()
			digest, err := c.digest(ctx, in)
			if err != nil {
				return err
			}
			signature, err := c.signDigest(ctx, k.KeyID, &r, digest, chain)
			if err != nil {
				return err
			}
			if _, err := o.Write(signature); err != nil {
				return err
			}
			if err := o.commit(); err != nil {
				return err
			}
			c.sayVerify(&r, in.name, out, certificate)
			if out == stdio {
				return nil
			}
			return c.made(madeFile{File: out, KeyID: k.KeyID, KeyVersionID: r.version, Algorithm: r.algorithm})
		},
	}
	r.flags(c, cmd, formatRaw, formatDER, formatCMS)
	f := cmd.Flags()
	f.StringVar(&certificate, "certificate", "", "with --format cms: the signer's certificate (PEM)")
	f.StringVar(&out, "out", "", `file to write; "-" for stdout`)
	f.BoolVar(&force, "force", false, "replace a file that is there")
	return cmd
}

// signDigest signs and puts the signature into the wanted form.
func (c *cli) signDigest(ctx context.Context, keyID string, r *signRequest, digest []byte, chain []*x509.Certificate) ([]byte, error) {
	sign := func(digest []byte) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		signature, err := kmsclient.Sign(ctx, c.client, keyID, r.version, kmswire.Algorithm(r.algorithm), digest)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.key, err)
		}
		return signature, nil
	}
	switch {
	case r.format == formatCMS:
		return cms.Sign(cms.Request{
			Digest: digest, Algorithm: kmswire.Algorithm(r.algorithm), Certificates: chain, SigningTime: time.Now(), Sign: sign,
		})
	case r.format == formatRaw && r.algorithm == string(kmswire.ECDSASHA256):
		signature, err := sign(digest)
		if err != nil {
			return nil, err
		}
		return ecdsaRaw(signature)
	}
	return sign(digest)
}

// scalarSize is the octets of r and of s on both curves.
const scalarSize = 32

type ecdsaSignature struct{ R, S *big.Int }

// ecdsaRaw makes r and s of fixed length out of DER.
func ecdsaRaw(der []byte) ([]byte, error) {
	var sig ecdsaSignature
	rest, err := asn1.Unmarshal(der, &sig)
	if err != nil || len(rest) > 0 || sig.R.Sign() <= 0 || sig.S.Sign() <= 0 || sig.R.BitLen() > 8*scalarSize || sig.S.BitLen() > 8*scalarSize {
		return nil, errors.New("the signature is not ECDSA in DER over a curve of 256 bits")
	}
	raw := make([]byte, 2*scalarSize)
	sig.R.FillBytes(raw[:scalarSize])
	sig.S.FillBytes(raw[scalarSize:])
	return raw, nil
}

// ecdsaDER undoes ecdsaRaw.
func ecdsaDER(raw []byte) ([]byte, error) {
	if len(raw) != 2*scalarSize {
		return nil, fmt.Errorf("a raw ECDSA signature has %d octets, this one has %d", 2*scalarSize, len(raw))
	}
	return asn1.Marshal(ecdsaSignature{new(big.Int).SetBytes(raw[:scalarSize]), new(big.Int).SetBytes(raw[scalarSize:])})
}

// certificates reads a PEM file and makes sure that its first certificate is for the key that will sign.
func (c *cli) certificates(ctx context.Context, path, keyID, version string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d can't be used: %w", path, len(chain)+1, err)
		}
		chain = append(chain, cert)
	}
	if len(chain) == 0 {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	public, err := c.publicKey(ctx, keyID, version)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(public.PublicKey))
	if block == nil || !bytes.Equal(block.Bytes, chain[0].RawSubjectPublicKeyInfo) {
		return nil, fmt.Errorf("the first certificate of %s (%s) is not for version %s of the key", path, chain[0].Subject, version)
	}
	return chain, nil
}

// sayVerify prints how anybody can check the signature without keyward.
func (c *cli) sayVerify(r *signRequest, file, signature, certificate string) {
	if signature == stdio || file == stdio {
		return
	}
	c.say("%s: %s by %s", signature, r.algorithm, r.version)
	file, signature = quote(file), quote(signature)
	switch {
	case r.format == formatCMS:
		c.say("verify: openssl cms -verify -binary -inform DER -in %s -content %s -CAfile CA.pem -purpose any -out /dev/null", signature, file)
		c.say("        CA.pem is the root of %s, or %s itself when it is self-signed", quote(certificate), quote(certificate))
	case r.format == formatRaw && r.algorithm == string(kmswire.ECDSASHA256):
		c.say("verify: keywardctl verify --key %s --format raw --signature %s %s", quote(r.key), signature, file)
	default:
		options := ""
		if r.algorithm == string(kmswire.RSAPSSSHA256) {
			options = " -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:-1"
		}
		c.say("verify: keywardctl key public-key %s --key-version %s > public.pem", quote(r.key), r.version)
		c.say("        openssl dgst -sha256 -verify public.pem%s -signature %s %s", options, signature, file)
	}
}

func (c *cli) verifyCmd() *cobra.Command {
	var r signRequest
	var signatureFile string
	cmd := &cobra.Command{
		Use:   "verify --key KEY --signature FILE.sig [FILE]",
		Short: "Check the signature of a file",
		Long: `Check a signature that keywardctl sign or anything else made with the key. FILE.sig is looked for when --signature is not
given. The exit code is 0 when the signature is good and 1 when it is not. A CMS signature is checked by openssl cms -verify.`,
		Example: `  keywardctl verify --key alias/release app.tar.gz
  keywardctl verify --key alias/release --signature app.sig - < app.tar.gz`,
		Args: atMostOne("FILE"),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			if err := required(cmd, "key"); err != nil {
				return err
			}
			if r.format == formatCMS {
				return usagef("a CMS signature is checked with: openssl cms -verify -binary -inform DER -in FILE.p7s -content FILE -CAfile CA.pem -purpose any -out /dev/null")
			}
			if signatureFile == "" {
				if first(a) == stdio {
					return usagef("--signature is missing")
				}
				signatureFile = a[0] + ".sig"
			}
			if signatureFile == stdio && first(a) == stdio {
				return usagef("the file and its signature can't both come from stdin")
			}
			// The asked-for version decides; without one, any version may have signed, and the newest is tried first.
			anyVersion := r.version == ""
			k, err := c.complete(ctx, &r, formatRaw, formatDER)
			if err != nil {
				return err
			}
			sigIn, err := c.openInput(ctx, signatureFile)
			if err != nil {
				return err
			}
			defer sigIn.close()
			signature, err := readSmall(sigIn, 4096)
			if err != nil {
				return err
			}
			if r.format == formatRaw && r.algorithm == string(kmswire.ECDSASHA256) {
				if signature, err = ecdsaDER(signature); err != nil {
					return fmt.Errorf("%s: %w", signatureFile, err)
				}
			}
			in, err := c.openInput(ctx, first(a))
			if err != nil {
				return err
			}
			defer in.close()
			digest, err := c.digest(ctx, in)
			if err != nil {
				return err
			}
			version, good, err := c.verifyDigest(ctx, k.KeyID, &r, anyVersion, digest, signature)
			if err != nil {
				return err
			}
			answer := struct {
				Value        bool
				KeyId        string
				KeyVersionId string `json:",omitempty"`
				Algorithm    string
			}{good, k.KeyID, version, r.algorithm}
			if err := c.print(answer, func() error { return nil }); err != nil {
				return err
			}
			if !good {
				return &codedError{code: exitFailure,
					err:  fmt.Errorf("the signature is NOT good: %s is not what %s signed (%s), or %s is of another file", in, r.key, r.algorithm, signatureFile),
					next: "see that file, signature, --algorithm and --format belong together"}
			}
			c.say("the signature is good: %s, signed by %s", in, version)
			return nil
		},
	}
	r.flags(c, cmd, formatRaw, formatDER)
	cmd.Flags().StringVar(&signatureFile, "signature", "", "file that holds the signature (FILE.sig)")
	return cmd
}

// verifyDigest tries r.version, and the key's other versions when any may have signed. It tells which one did.
func (c *cli) verifyDigest(ctx context.Context, keyID string, r *signRequest, anyVersion bool, digest, signature []byte) (string, bool, error) {
	versions := []string{r.version}
	if anyVersion {
		listing, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		err := kmsclient.Versions(listing, c.client, keyID, func(v kmswire.KeyVersion) error {
			if v.KeyVersionID != r.version {
				versions = append(versions, v.KeyVersionID)
			}
			return nil
		})
		if err != nil {
			return "", false, fmt.Errorf("%s: %w", r.key, err)
		}
	}
	for _, version := range versions {
		var answer kmswire.AsymmetricVerifyResponse
		err := c.call(ctx, "AsymmetricVerify", &kmswire.AsymmetricVerifyRequest{
			KeyID: keyID, KeyVersionID: version, Algorithm: kmswire.Algorithm(r.algorithm), Digest: digest, Value: signature,
		}, &answer)
		if err != nil {
			return "", false, fmt.Errorf("%s: %w", r.key, err)
		}
		if answer.Value {
			return version, true, nil
		}
	}
	return "", false, nil
}
