package ctl

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/kms/kmswire"
)

func (c *cli) dataKeyCmd() *cobra.Command {
	return group("data-key", "Make keys for data that is encrypted elsewhere",
		`A data key is random octets that come in two forms: as they are, to encrypt with here and forget, and encrypted under a
KEY (CiphertextBlob), to be kept beside the data. decrypt --direct turns the second into the first.`,
		`  keywardctl data-key generate --key alias/app/db -o json
  keywardctl data-key generate --key alias/app/db --without-plaintext > next.kms
  keywardctl data-key export next.kms --to partner.pem > next.rsa`,
		c.dataKeyGenerateCmd(), c.dataKeyExportCmd())
}

// wrapping is the public key that a data key is exported under.
type wrapping struct {
	blob []byte // DER SubjectPublicKeyInfo
	spec kmswire.KeySpec
	alg  kmswire.Algorithm
}

func readWrapping(path, algorithm string) (*wrapping, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, hint(fmt.Errorf("%s is not a public key in PEM (BEGIN PUBLIC KEY)", path), "openssl pkey -in PRIVATE.pem -pubout makes one")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	k, ok := public.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%s is not an RSA public key", path)
	}
	alg := kmswire.RSAOAEPSHA256
	if algorithm != "" {
		alg = anyCase(algorithm, []kmswire.Algorithm{kmswire.RSAOAEPSHA256, kmswire.RSAOAEPSHA1})
	}
	return &wrapping{block.Bytes, kmswire.KeySpec(fmt.Sprintf("RSA_%d", k.N.BitLen())), alg}, nil
}

func (c *cli) dataKeyGenerateCmd() *cobra.Command {
	var key, spec, exportTo, algorithm string
	var size int
	var without bool
	var encryptionContext contextFlag
	cmd := &cobra.Command{
		Use:   "generate --key KEY",
		Short: "Make a data key",
		Long: `Make a data key of 32 octets, or as many as --bytes says, and print it in both forms. --without-plaintext prints the
encrypted form only. --export-to prints it encrypted for the owner of an RSA key too, and not as it is.`,
		Example: `  keywardctl data-key generate --key alias/app/db
  keywardctl data-key generate --key alias/app/db --without-plaintext > next.kms
  keywardctl data-key generate --key alias/app/db --export-to partner.pem -o json`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if err := required(cmd, "key"); err != nil {
				return err
			}
			if without && exportTo != "" {
				return usagef("--without-plaintext and --export-to do not go together: an exported key is never printed as it is")
			}
			if algorithm != "" && exportTo == "" {
				return usagef("--wrapping-algorithm goes with --export-to")
			}
			var bytes *int
			if cmd.Flags().Changed("bytes") {
				bytes = &size
			}
			ec, err := encryptionContext.parse("context")
			if err != nil {
				return err
			}
			b64 := base64.StdEncoding.EncodeToString
			switch {
			case without:
				var answer kmswire.GenerateDataKeyWithoutPlaintextResponse
				err := c.call(ctx, "GenerateDataKeyWithoutPlaintext", &kmswire.GenerateDataKeyWithoutPlaintextRequest{
					KeyID: key, KeySpec: spec, NumberOfBytes: bytes, EncryptionContext: ec}, &answer)
				if err != nil {
					return fmt.Errorf("%s: %w", key, err)
				}
				return c.print(answer, func() error { return c.line(b64(answer.CiphertextBlob)) })
			case exportTo != "":
				w, err := readWrapping(exportTo, algorithm)
				if err != nil {
					return err
				}
				var answer kmswire.GenerateAndExportDataKeyResponse
				err = c.call(ctx, "GenerateAndExportDataKey", &kmswire.GenerateAndExportDataKeyRequest{
					KeyID: key, PublicKeyBlob: w.blob, WrappingAlgorithm: w.alg, WrappingKeySpec: w.spec,
					KeySpec: spec, NumberOfBytes: bytes, EncryptionContext: ec}, &answer)
				if err != nil {
					return fmt.Errorf("%s: %w", key, err)
				}
				return c.print(answer, func() error {
					return c.fields([2]string{"CiphertextBlob", b64(answer.CiphertextBlob)}, [2]string{"ExportedDataKey", b64(answer.ExportedDataKey)})
				})
			}
			var answer kmswire.GenerateDataKeyResponse
			err = c.call(ctx, "GenerateDataKey", &kmswire.GenerateDataKeyRequest{
				KeyID: key, KeySpec: spec, NumberOfBytes: bytes, EncryptionContext: ec}, &answer)
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			defer clear(answer.Plaintext)
			return c.print(answer, func() error {
				return c.fields([2]string{"Plaintext", b64(answer.Plaintext)}, [2]string{"CiphertextBlob", b64(answer.CiphertextBlob)})
			})
		},
	}
	c.keyFlag(cmd, &key, "symmetric key to encrypt it under")
	encryptionContext.add(cmd, "context", "NAME=VALUE bound to the data key; may be given again")
	f := cmd.Flags()
	f.StringVar(&spec, "spec", "", "AES_256 (default) or AES_128")
	f.IntVar(&size, "bytes", 32, fmt.Sprintf("how many octets, 1 to %d; wins over --spec", kmswire.MaxDataKey))
	f.BoolVar(&without, "without-plaintext", false, "print the encrypted form only")
	f.StringVar(&exportTo, "export-to", "", "RSA public key (PEM) to encrypt it for too")
	f.StringVar(&algorithm, "wrapping-algorithm", "", "with --export-to: RSAES_OAEP_SHA_256 (default) or RSAES_OAEP_SHA_1")
	choices(cmd, "spec", "AES_256", "AES_128")
	choices(cmd, "wrapping-algorithm", kmswire.RSAOAEPSHA256, kmswire.RSAOAEPSHA1)
	return cmd
}

func (c *cli) dataKeyExportCmd() *cobra.Command {
	var to, algorithm string
	var encryptionContext contextFlag
	cmd := &cobra.Command{
		Use:     "export [FILE] --to PUBLIC.pem",
		Short:   "Encrypt an existing data key for the owner of an RSA key",
		Long:    "Take a data key in its encrypted form (base64, from FILE or stdin) and print it encrypted under an RSA public key, in base64. It is never seen as it is.",
		Example: "  keywardctl data-key export next.kms --to partner.pem > next.rsa",
		Args:    atMostOne("FILE"),
		RunE: func(cmd *cobra.Command, a []string) error {
			if err := required(cmd, "to"); err != nil {
				return err
			}
			ec, err := encryptionContext.parse("context")
			if err != nil {
				return err
			}
			w, err := readWrapping(to, algorithm)
			if err != nil {
				return err
			}
			blob, err := c.readBlob(cmd.Context(), first(a))
			if err != nil {
				return err
			}
			var answer kmswire.ExportDataKeyResponse
			err = c.call(cmd.Context(), "ExportDataKey", &kmswire.ExportDataKeyRequest{
				CiphertextBlob: blob, PublicKeyBlob: w.blob, WrappingAlgorithm: w.alg, WrappingKeySpec: w.spec, EncryptionContext: ec}, &answer)
			if err != nil {
				return fmt.Errorf("%s: %w", shown(first(a), "stdin"), err)
			}
			return c.print(answer, func() error { return c.line(base64.StdEncoding.EncodeToString(answer.ExportedDataKey)) })
		},
	}
	encryptionContext.add(cmd, "context", "NAME=VALUE that the data key was made with; may be given again")
	cmd.Flags().StringVar(&to, "to", "", "RSA public key (PEM)")
	cmd.Flags().StringVar(&algorithm, "wrapping-algorithm", "", "RSAES_OAEP_SHA_256 (default) or RSAES_OAEP_SHA_1")
	choices(cmd, "wrapping-algorithm", kmswire.RSAOAEPSHA256, kmswire.RSAOAEPSHA1)
	return cmd
}

// readBlob reads a ciphertext in base64.
func (c *cli) readBlob(ctx context.Context, name string) ([]byte, error) {
	in, err := c.openInput(ctx, name)
	if err != nil {
		return nil, err
	}
	defer in.close()
	text, err := readSmall(in, 64<<10)
	if err != nil {
		return nil, err
	}
	blob, err := unbase64(text)
	if err != nil || len(blob) == 0 {
		return nil, fmt.Errorf("%s is not a ciphertext in base64", in)
	}
	return blob, nil
}

func (c *cli) reEncryptCmd() *cobra.Command {
	var to string
	var from, toContext contextFlag
	cmd := &cobra.Command{
		Use:   "re-encrypt --to KEY [FILE]",
		Short: "Move a small ciphertext to another key",
		Long: `Take the output of encrypt --direct or of data-key (base64, from FILE or stdin) and print it encrypted under another key,
or under the newest version of the same. The plaintext never leaves keyward.`,
		Example: "  keywardctl re-encrypt --to alias/app/db-2027 password.kms > password.new",
		Args:    atMostOne("FILE"),
		RunE: func(cmd *cobra.Command, a []string) error {
			if err := required(cmd, "to"); err != nil {
				return err
			}
			source, err := from.parse("context")
			if err != nil {
				return err
			}
			destination, err := toContext.parse("to-context")
			if err != nil {
				return err
			}
			blob, err := c.readBlob(cmd.Context(), first(a))
			if err != nil {
				return err
			}
			var answer kmswire.ReEncryptResponse
			err = c.call(cmd.Context(), "ReEncrypt", &kmswire.ReEncryptRequest{
				CiphertextBlob: blob, DestinationKeyID: to, SourceEncryptionContext: source, DestinationEncryptionContext: destination}, &answer)
			if err != nil {
				return fmt.Errorf("%s: %w", shown(first(a), "stdin"), err)
			}
			return c.print(answer, func() error { return c.line(base64.StdEncoding.EncodeToString(answer.CiphertextBlob)) })
		},
	}
	from.add(cmd, "context", "NAME=VALUE that the ciphertext was made with; may be given again")
	toContext.add(cmd, "to-context", "NAME=VALUE for the new ciphertext; may be given again")
	cmd.Flags().StringVar(&to, "to", "", "symmetric key to encrypt under")
	must(cmd.RegisterFlagCompletionFunc("to", c.completeKeys))
	return cmd
}

func (c *cli) randomPasswordCmd() *cobra.Command {
	var req kmswire.GetRandomPasswordRequest
	var length int
	cmd := &cobra.Command{
		Use:     "random-password",
		Short:   "Print a random password",
		Example: "  keywardctl random-password\n  keywardctl random-password --length 16 --no-punctuation --each",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("length") {
				req.PasswordLength = &length
			}
			var answer kmswire.GetRandomPasswordResponse
			if err := c.call(cmd.Context(), "GetRandomPassword", &req, &answer); err != nil {
				return err
			}
			return c.print(answer, func() error { return c.line(answer.RandomPassword) })
		},
	}
	f := cmd.Flags()
	f.IntVar(&length, "length", 32, "how many characters, 8 to 128")
	f.StringVar(&req.ExcludeCharacters, "exclude", "", "characters to leave out")
	f.BoolVar(&req.ExcludeLowercase, "no-lowercase", false, "no a-z")
	f.BoolVar(&req.ExcludeUppercase, "no-uppercase", false, "no A-Z")
	f.BoolVar(&req.ExcludeNumbers, "no-numbers", false, "no 0-9")
	f.BoolVar(&req.ExcludePunctuation, "no-punctuation", false, "no punctuation")
	f.BoolVar(&req.RequireEachIncludedType, "each", false, "at least one of each kind that is not left out")
	return cmd
}
