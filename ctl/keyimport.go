package ctl

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/kms/kmswire"
)

// aboutImport is what everybody should know before they import.
const aboutImport = `Material that is imported stays yours to keep: keyward never gives it out, so your copy is the only backup that can be
read outside of it, and the only way back when the material has expired or was deleted. The first import decides for good what
the key is: later ones must bring the same. Such a key has one version and is never rotated.`

// importFlags are the flags that key import and key create share.
type importFlags struct {
	format, wrap, expires string
}

func (f *importFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.format, "format", "auto", "what the material's file is: auto, pem, der, raw, hex or base64")
	fs.StringVar(&f.wrap, "wrap", "", "how it is wrapped on its way; RSA-OAEP with SHA-256 if not given")
	fs.StringVar(&f.expires, "expires", "never", "when keyward destroys the material: a date (2027-01-31, or RFC 3339), a duration (90d, 12h) or never")
	choices(cmd, "format", "auto", "pem", "der", "raw", "hex", "base64")
	choices(cmd, "wrap", wrapAlgorithms...)
}

// expiry reads --expires as seconds since 1970; 0 is never.
func (f *importFlags) expiry(now time.Time) (int, error) {
	text := strings.TrimSpace(f.expires)
	if text == "" || strings.EqualFold(text, "never") {
		return 0, nil
	}
	at, err := parseExpiry(text, now)
	if err != nil {
		return 0, err
	}
	if !at.After(now) {
		return 0, usagef("--expires %s is over already", text)
	}
	return int(at.Unix()), nil
}

func parseExpiry(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n < 1<<20 {
			return now.Add(time.Duration(n) * 24 * time.Hour), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(d), nil
	}
	return time.Time{}, usagef("--expires is a date (2027-01-31, or RFC 3339), a duration (90d, 12h) or never, not %q", text)
}

func (c *cli) keyImportCmd() *cobra.Command {
	var material, wrapped, token string
	var flags importFlags
	cmd := &cobra.Command{
		Use:   "import KEY",
		Short: "Give a key its material from a file",
		Long: `Give a key that was made with --origin external its material.

A private key is read as PEM or DER (PKCS#8, PKCS#1 or SEC 1), the material of a symmetric key as octets, hex or base64. It is
wrapped here for this one key, and for a hardware key it is unwrapped inside an HSM only.

` + aboutImport + `

For material that must not come to this machine in the clear: keywardctl key import-parameters gives what to wrap it with
elsewhere, and --wrapped and --token bring it in.`,
		Example: `  keywardctl key import alias/mail --material mail.pem
  openssl pkey -in encrypted.pem | keywardctl key import alias/mail --material -
  keywardctl key import alias/db --material db.key --expires 90d
  keywardctl key import alias/db --wrapped db.wrapped --token import-token.b64`,
		Args:              args("KEY"),
		ValidArgsFunction: c.completeKeys,
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			expires, err := flags.expiry(time.Now())
			if err != nil {
				return err
			}
			byHand := wrapped != "" || token != ""
			switch {
			case byHand && material != "":
				return usagef("--material is in the clear and --wrapped is not: give one of them")
			case byHand && (wrapped == "" || token == ""):
				return usagef("--wrapped and --token belong together")
			case byHand && (cmd.Flags().Changed("format") || cmd.Flags().Changed("wrap")):
				return usagef("--format and --wrap are for --material: what is wrapped already goes as it is")
			case !byHand && material == "":
				return usagef("--material is missing")
			case wrapped == stdio && token == stdio:
				return usagef("--wrapped and --token can't both be stdin")
			}
			k, err := c.importable(ctx, a[0])
			if err != nil {
				return err
			}
			req := &kmswire.ImportKeyMaterialRequest{KeyID: k.KeyID, KeyMaterialExpireUnix: &expires}
			if byHand {
				if req.EncryptedKeyMaterial, err = c.readMaybeBase64(ctx, wrapped); err != nil {
					return err
				}
				if req.ImportToken, err = c.readMaybeBase64(ctx, token); err != nil {
					return err
				}
				return c.importWrapped(ctx, a[0], k, req)
			}
			secret, err := c.readMaterial(ctx, material, k.KeySpec, flags.format)
			if err != nil {
				return err
			}
			defer clear(secret)
			return c.importMaterial(ctx, a[0], k, secret, flags.wrap, req)
		},
	}
	f := cmd.Flags()
	f.StringVar(&material, "material", "", "file with the material; - for stdin")
	f.StringVar(&wrapped, "wrapped", "", "file with material that is wrapped already (binary or base64)")
	f.StringVar(&token, "token", "", "file with the import token of the public key it is wrapped with")
	flags.add(cmd)
	return cmd
}

// importable describes a key, and refuses one whose material keyward has made.
func (c *cli) importable(ctx context.Context, key string) (*kmswire.KeyMetadata, error) {
	k, err := c.describe(ctx, key)
	if err != nil {
		return nil, err
	}
	if k.Origin != kmswire.OriginExternal {
		return nil, &codedError{code: exitFailure, err: fmt.Errorf("the material of %s was made by keyward (Origin %s); only imported material can be replaced or deleted", key, k.Origin),
			next: "keywardctl key create --origin external makes a key that waits for yours"}
	}
	return k, nil
}

// importParameters asks for a key to wrap with.
func (c *cli) importParameters(ctx context.Context, k *kmswire.KeyMetadata, wrap string) (kmswire.Algorithm, *kmswire.GetParametersForImportResponse, error) {
	alg := wrapNamed(wrap, k.KeySpec)
	var answer kmswire.GetParametersForImportResponse
	err := c.call(ctx, "GetParametersForImport", &kmswire.GetParametersForImportRequest{KeyID: k.KeyID, WrappingAlgorithm: alg, WrappingKeySpec: kmswire.RSA2048}, &answer)
	return alg, &answer, err
}

// importMaterial wraps and imports. key is what the user calls the key.
func (c *cli) importMaterial(ctx context.Context, key string, k *kmswire.KeyMetadata, secret []byte, wrap string, req *kmswire.ImportKeyMaterialRequest) error {
	alg, p, err := c.importParameters(ctx, k, wrap)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if req.EncryptedKeyMaterial, err = wrapMaterial(p.PublicKey, alg, secret); err != nil {
		return err
	}
	req.ImportToken = p.ImportToken
	return c.importWrapped(ctx, key, k, req)
}

// importWrapped imports, and says what that means.
func (c *cli) importWrapped(ctx context.Context, key string, k *kmswire.KeyMetadata, req *kmswire.ImportKeyMaterialRequest) error {
	var answer kmswire.EmptyResponse
	if err := c.call(ctx, "ImportKeyMaterial", req, &answer); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	c.say("%s has its material; keep your own copy, keyward never gives it out", key)
	if at := *req.KeyMaterialExpireUnix; at != 0 {
		c.say("it expires at %s, and is destroyed then; the same can be imported again", time.Unix(int64(at), 0).UTC().Format(time.RFC3339))
	}
	if k.KeyState == kmswire.Disabled {
		c.say("next: keywardctl key enable %s (it was disabled before, and still is)", key)
	} else {
		c.sayNext(key, k.KeySpec, k.KeyUsage)
	}
	return c.print(answer, func() error { return nil })
}

func (c *cli) keyImportParametersCmd() *cobra.Command {
	var dir, wrap string
	var force bool
	cmd := &cobra.Command{
		Use:   "import-parameters KEY --out DIR",
		Short: "Get what to wrap key material with elsewhere",
		Long: `Write a public key and an import token, which are good for this KEY and for 24 hours, into a directory: wrapping-key.pem,
wrapping-key.der and import-token.b64. Material that is wrapped with that key comes in by key import --wrapped --token.
The token is no secret by itself.

` + aboutImport,
		Example:           "  keywardctl key import-parameters alias/db --out db-import",
		Args:              args("KEY"),
		ValidArgsFunction: c.completeKeys,
		RunE: func(cmd *cobra.Command, a []string) error {
			if err := required(cmd, "out"); err != nil {
				return err
			}
			ctx := cmd.Context()
			k, err := c.importable(ctx, a[0])
			if err != nil {
				return err
			}
			alg, p, err := c.importParameters(ctx, k, wrap)
			if err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			for name, data := range map[string][]byte{
				"wrapping-key.pem": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: p.PublicKey}),
				"wrapping-key.der": p.PublicKey,
				"import-token.b64": append(base64.StdEncoding.AppendEncode(nil, p.ImportToken), '\n'),
			} {
				if err := c.writeFile(filepath.Join(dir, name), data, force); err != nil {
					return err
				}
			}
			c.say("wrote wrapping-key.pem, wrapping-key.der and import-token.b64 to %s; they are good until %s", dir, p.TokenExpireTime)
			c.sayHowToWrap(a[0], dir, alg)
			return c.print(p, func() error { return nil })
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "out", "", "directory to write to; it is made if it is not there")
	f.StringVar(&wrap, "wrap", "", "how the material will be wrapped; RSA-OAEP with SHA-256 if not given")
	f.BoolVar(&force, "force", false, "replace files that are there")
	choices(cmd, "wrap", wrapAlgorithms...)
	return cmd
}

// writeFile writes a whole file that anybody may read.
func (c *cli) writeFile(name string, data []byte, force bool) error {
	out, err := c.createOutput(name, 0o644, force, true)
	if err != nil {
		return err
	}
	defer out.discard()
	if _, err := out.Write(data); err != nil {
		return err
	}
	return out.commit()
}

// sayHowToWrap tells how OpenSSL does it.
func (c *cli) sayHowToWrap(key, dir string, alg kmswire.Algorithm) {
	padding := "-pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256"
	switch alg {
	case kmswire.WrapPKCS1:
		padding = "-pkeyopt rsa_padding_mode:pkcs1"
	case kmswire.RSAOAEPSHA1, kmswire.WrapOAEPSHA1KWP:
		padding = "-pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha1"
	}
	encrypt := "openssl pkeyutl -encrypt -pubin -inkey wrapping-key.pem " + padding
	if !hybrid(alg) {
		c.say("next: %s -in MATERIAL -out wrapped", encrypt)
	} else {
		c.say("next: openssl pkcs8 -topk8 -nocrypt -outform DER -in KEY.pem -out key.der")
		c.say("      openssl rand -out temporary 32")
		c.say("      openssl enc -id-aes256-wrap-pad -iv A65959A6 -K $(od -An -v -tx1 temporary | tr -d ' \\n') -in key.der -out wrapped.2")
		c.say("      %s -in temporary -out wrapped.1", encrypt)
		c.say("      cat wrapped.1 wrapped.2 > wrapped")
	}
	c.say("      keywardctl key import %s --wrapped wrapped --token %s", key, filepath.Join(dir, "import-token.b64"))
}

// readMaybeBase64 reads a small file that is binary or base64.
func (c *cli) readMaybeBase64(ctx context.Context, name string) ([]byte, error) {
	in, err := c.openInput(ctx, name)
	if err != nil {
		return nil, err
	}
	defer in.close()
	data, err := readSmall(in, maxMaterialFile)
	if err != nil {
		return nil, err
	}
	if octets, err := kmswire.DecodeBase64(nil, data); err == nil && len(octets) > 0 {
		return octets, nil // what is wrapped, or sealed, has octets that base64 has not
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("%s is empty", in)
	}
	return data, nil
}

func (c *cli) keyDeleteMaterialCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "delete-material KEY",
		Short: "Destroy the imported material of a key; the same can be imported again",
		Long: `Destroy the imported material of a key, at once. The key stays, and nothing that it has encrypted can be read until the same
material is imported again: that is for you to have kept.`,
		Example:           "  keywardctl key delete-material alias/db",
		Args:              args("KEY"),
		ValidArgsFunction: c.completeKeys,
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			k, err := c.importable(ctx, a[0])
			if err != nil {
				return err
			}
			if err := c.confirm(ctx, fmt.Sprintf("Whatever uses %s stops working, until you import the same material again: keyward can't give it back. Destroy it?", a[0])); err != nil {
				return err
			}
			var answer kmswire.EmptyResponse
			if err := c.call(ctx, "DeleteKeyMaterial", &kmswire.DeleteKeyMaterialRequest{KeyID: k.KeyID}, &answer); err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			c.say("the material of %s is destroyed", a[0])
			c.say("next: keywardctl key import %s --material FILE brings it back", a[0])
			return c.print(answer, func() error { return nil })
		},
	}
}

// importNew imports the material of a key that was made a moment ago, and gives what is known of it then. file is where the
// material came from.
func (c *cli) importNew(ctx context.Context, name string, k *kmswire.KeyMetadata, secret []byte, file string, flags *importFlags, expires int) (*kmswire.KeyMetadata, error) {
	alg, p, err := c.importParameters(ctx, k, flags.wrap)
	req := &kmswire.ImportKeyMaterialRequest{KeyID: k.KeyID, KeyMaterialExpireUnix: &expires}
	if err == nil {
		req.ImportToken = p.ImportToken
		req.EncryptedKeyMaterial, err = wrapMaterial(p.PublicKey, alg, secret)
	}
	if err == nil {
		err = c.call(ctx, "ImportKeyMaterial", req, new(kmswire.EmptyResponse))
	}
	if err != nil {
		return nil, hint(fmt.Errorf("%s is made, but its material is not imported: %w", k.KeyID, err), "keywardctl key import %s --material %s goes on", name, file)
	}
	return c.describe(ctx, k.KeyID)
}

var errNoMaterial = errors.New("there is no key material in it")
