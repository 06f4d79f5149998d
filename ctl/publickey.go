package ctl

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

// How a public key is written.
const (
	publicPEM = "pem" // SubjectPublicKeyInfo, RFC 7468
	publicDER = "der" // SubjectPublicKeyInfo
	publicJWK = "jwk" // RFC 7517
	publicSSH = "ssh" // a line of authorized_keys
)

var publicFormats = []string{publicPEM, publicDER, publicJWK, publicSSH}

func (c *cli) keyPublicKeyCmd() *cobra.Command {
	var version, format, out string
	var all, force bool
	cmd := &cobra.Command{
		Use:   "public-key KEY",
		Short: "Print or save the public key of an asymmetric key",
		Long: `Print or save the public key of an asymmetric key. The private key can't be had.

  --format pem   what OpenSSL and most programs take
  --format der   the same in binary
  --format jwk   a JSON Web Key, named (kid) by the version's id; with --all-versions a JWK Set of every version, oldest first
  --format ssh   a line for authorized_keys (not for EC_P256K, which SSH does not know)`,
		Example: `  keywardctl key public-key alias/release > release.pem
  keywardctl key public-key alias/release --format der --out release.der
  keywardctl key public-key alias/jwt --format jwk --all-versions --out jwks.json`,
		Args:              args("KEY"),
		ValidArgsFunction: c.completeKeys,
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			switch {
			case !slices.Contains(publicFormats, format):
				return usagef("--format is one of %s, not %q", strings.Join(publicFormats, ", "), format)
			case all && format != publicJWK:
				return usagef("--all-versions makes a JWK Set and goes with --format jwk")
			case all && version != "":
				return usagef("--all-versions and --key-version exclude each other")
			case c.format == "json" && out == stdio && format != publicPEM:
				return usagef("-o json prints keyward's answer, which has the key in PEM; leave one of -o json and --format out, or name a file with --out")
			}
			// A name that can't be written is found before the work, not after it.
			o, err := c.createOutput(out, 0o666, force, format == publicDER)
			if err != nil {
				return err
			}
			defer o.discard()
			if all {
				return c.savePublicKeys(ctx, o, a[0])
			}
			answer, err := c.publicKey(ctx, a[0], version)
			if err != nil {
				return err
			}
			if out == stdio && c.format == "json" {
				return c.json(answer)
			}
			data, err := c.formatPublicKey(ctx, answer, format)
			if err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			return c.savePublic(o, data, answer.KeyID, answer.KeyVersionID)
		},
	}
	f := cmd.Flags()
	f.StringVar(&version, "key-version", "", "version of the key; the newest if not given")
	f.StringVar(&format, "format", publicPEM, strings.Join(publicFormats, ", "))
	f.StringVar(&out, "out", stdio, `file to write; "-" for stdout`)
	f.BoolVar(&force, "force", false, "replace a file that is there")
	f.BoolVar(&all, "all-versions", false, "with --format jwk: a JWK Set of all versions")
	choices(cmd, "format", publicFormats...)
	return cmd
}

// publicKey gets the public key of a version, the newest when version is empty.
func (c *cli) publicKey(ctx context.Context, key, version string) (*kmswire.GetPublicKeyResponse, error) {
	if version == "" {
		var err error
		if version, err = c.newestVersion(ctx, key); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	var answer kmswire.GetPublicKeyResponse
	err := c.call(ctx, "GetPublicKey", &kmswire.GetPublicKeyRequest{KeyID: key, KeyVersionID: version}, &answer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return &answer, nil
}

// savePublic writes what was made of a public key.
func (c *cli) savePublic(o *output, data []byte, keyID, version string) error {
	if _, err := o.Write(data); err != nil {
		return err
	}
	if err := o.commit(); err != nil {
		return err
	}
	if o.name == stdio {
		return nil
	}
	of := version
	if of == "" {
		of = keyID
	}
	c.say("%s: public key of %s", o.name, of)
	return c.made(madeFile{File: o.name, KeyID: keyID, KeyVersionID: version})
}

// savePublicKeys writes the JWK Set (RFC 7517 section 5) of a key's versions.
func (c *cli) savePublicKeys(ctx context.Context, o *output, key string) error {
	k, err := c.describe(ctx, key)
	if err != nil {
		return err
	}
	listing, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var versions []string
	err = kmsclient.Versions(listing, c.client, k.KeyID, func(v kmswire.KeyVersion) error {
		versions = append(versions, v.KeyVersionID)
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	set := struct {
		Keys []*jwk `json:"keys"`
	}{[]*jwk{}}
	for _, version := range versions {
		answer, err := c.publicKey(ctx, k.KeyID, version)
		if err != nil {
			return err
		}
		public, err := parsePublic(answer.PublicKey)
		if err != nil {
			return fmt.Errorf("%s: %w", version, err)
		}
		set.Keys = append(set.Keys, public.jwk(version, k))
	}
	data, err := indented(set)
	if err != nil {
		return err
	}
	return c.savePublic(o, data, k.KeyID, "")
}

// formatPublicKey puts a public key into another form than keyward's answer has.
func (c *cli) formatPublicKey(ctx context.Context, answer *kmswire.GetPublicKeyResponse, format string) ([]byte, error) {
	if format == publicPEM {
		return []byte(answer.PublicKey), nil
	}
	public, err := parsePublic(answer.PublicKey)
	if err != nil {
		return nil, err
	}
	switch format {
	case publicDER:
		return public.der, nil
	case publicSSH:
		return public.ssh(answer.KeyVersionID)
	}
	k, err := c.describe(ctx, answer.KeyID)
	if err != nil {
		return nil, err
	}
	return indented(public.jwk(answer.KeyVersionID, k))
}

func indented(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", "  ")
	return append(data, '\n'), err
}

// publicCurve is what there is to know of a curve to write a point on it.
type publicCurve struct {
	jwk       string         // "crv"
	algorithm string         // "alg" of RFC 7518 and RFC 8812
	standard  elliptic.Curve // nil: the standard library has none
}

// publicCurves are the curves of keyward's keys by their object identifiers. crypto/x509 knows only one of them.
var publicCurves = map[string]*publicCurve{
	oidP256.String():      {"P-256", "ES256", elliptic.P256()},
	oidSecp256k1.String(): {"secp256k1", "ES256K", nil},
}

// publicKey is a SubjectPublicKeyInfo and what it holds: either an RSA key, or a point on a curve.
type publicKey struct {
	der   []byte
	rsa   *rsa.PublicKey
	curve *publicCurve
	point []byte // uncompressed: 4, x, y
}

// parsePublic reads PEM SubjectPublicKeyInfo.
func parsePublic(text string) (*publicKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New("keyward's answer holds no public key in PEM")
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if rest, err := asn1.Unmarshal(block.Bytes, &info); err != nil || len(rest) > 0 {
		return nil, errors.New("keyward's answer holds no public key that can be read")
	}
	p := &publicKey{der: block.Bytes}
	switch {
	case info.Algorithm.Algorithm.Equal(oidRSA):
		var err error
		if p.rsa, err = x509.ParsePKCS1PublicKey(info.Key.RightAlign()); err != nil {
			return nil, fmt.Errorf("keyward's answer holds an RSA key that can't be read: %w", err)
		}
		return p, nil
	case info.Algorithm.Algorithm.Equal(oidEC):
		var curve asn1.ObjectIdentifier
		if rest, err := asn1.Unmarshal(info.Algorithm.Parameters.FullBytes, &curve); err != nil || len(rest) > 0 {
			break
		}
		p.curve, p.point = publicCurves[curve.String()], info.Key.RightAlign()
		if p.curve != nil && len(p.point) == 1+2*scalarSize && p.point[0] == 4 {
			return p, nil
		}
	}
	return nil, errors.New("keyward's answer holds a key of a kind that keywardctl does not know; --format pem prints it")
}

// jwk is a public key in RFC 7517's form. The order of its members is always this.
type jwk struct {
	Type      string `json:"kty"`
	ID        string `json:"kid"`
	Use       string `json:"use,omitempty"`
	Algorithm string `json:"alg,omitempty"`
	Curve     string `json:"crv,omitempty"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
	N         string `json:"n,omitempty"`
	E         string `json:"e,omitempty"`
}

// jwk renders the key. "use" is there if the key is for one thing, "alg" if there is one algorithm that it can be used with: an RSA key
// has two for either.
func (p *publicKey) jwk(id string, k *kmswire.KeyMetadata) *jwk {
	text := base64.RawURLEncoding.EncodeToString
	j := &jwk{ID: id}
	switch {
	case k.SecondaryKeyUsage != "":
	case k.KeyUsage == kmswire.SignVerify:
		j.Use = "sig"
	case k.KeyUsage == kmswire.EncryptDecrypt:
		j.Use = "enc"
	}
	if p.rsa != nil {
		var e [8]byte
		binary.BigEndian.PutUint64(e[:], uint64(p.rsa.E))
		j.Type, j.N, j.E = "RSA", text(p.rsa.N.Bytes()), text(bytes.TrimLeft(e[:], "\x00"))
		return j
	}
	j.Type, j.Curve, j.Algorithm = "EC", p.curve.jwk, p.curve.algorithm
	j.X, j.Y = text(p.point[1:1+scalarSize]), text(p.point[1+scalarSize:])
	return j
}

// ssh renders the key as a line of authorized_keys.
func (p *publicKey) ssh(comment string) ([]byte, error) {
	var public crypto.PublicKey = p.rsa
	if p.rsa == nil {
		if p.curve.standard == nil {
			return nil, fmt.Errorf("SSH has no keys on the curve %s; %s and RSA keys have an SSH form", p.curve.jwk, kmswire.ECP256)
		}
		var err error
		if public, err = ecdsa.ParseUncompressedPublicKey(p.curve.standard, p.point); err != nil {
			return nil, err
		}
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	return append(bytes.TrimSuffix(ssh.MarshalAuthorizedKey(key), []byte("\n")), " "+comment+"\n"...), nil
}
