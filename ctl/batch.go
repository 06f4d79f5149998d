package ctl

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

func (c *cli) batchCmd() *cobra.Command {
	return group("batch", "Do the same to many small items, from stdin to stdout",
		`Send items from stdin and print the results, one for each and in order, while more are sent: any number of them.
A failed item has its error in its place and never stops its neighbours; the exit code is then 1.

  --format ndjson   one JSON object a line. encrypt: {"Plaintext":B64}, decrypt: {"CiphertextBlob":B64}, sign: {"Digest":B64},
                    verify: {"Digest":B64,"Value":B64}; results as the single actions answer, or {"Code":...,"Message":...}
  --format octets   for an item, its length (4 octets, big-endian) and its octets; for a result, 0 or 1 (failed), length and octets.
                    verify: the digest's length (2 octets), digest, signature`,
		`  jq -c '{Plaintext: (.card | @base64)}' cards.json | keywardctl batch encrypt --key alias/cards > cards.enc
  keywardctl batch decrypt < cards.enc`,
		c.batchSymmetricCmd("encrypt", "BatchEncrypt"), c.batchSymmetricCmd("decrypt", "BatchDecrypt"),
		c.batchAsymmetricCmd("sign", "BatchSign"), c.batchAsymmetricCmd("verify", "BatchVerify"))
}

func (c *cli) batchFormatFlag(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVar(format, "format", "ndjson", "ndjson or octets")
	choices(cmd, "format", "ndjson", "octets")
}

func (c *cli) batchSymmetricCmd(verb, action string) *cobra.Command {
	var key, format string
	var encryptionContext contextFlag
	use, example := verb, "  keywardctl batch decrypt < items.enc > items"
	if verb == "encrypt" {
		use, example = "encrypt --key KEY", "  keywardctl batch encrypt --key alias/cards < items > items.enc"
	}
	cmd := &cobra.Command{
		Use:     use,
		Short:   map[string]string{"encrypt": "Encrypt many items under one key", "decrypt": "Decrypt many items, of any keys"}[verb],
		Example: example,
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ec, err := encryptionContext.parse("context")
			if err != nil {
				return err
			}
			if verb == "decrypt" {
				return c.batch(cmd, action, &kmswire.BatchDecryptRequest{EncryptionContext: ec}, format)
			}
			if err := required(cmd, "key"); err != nil {
				return err
			}
			return c.batch(cmd, action, &kmswire.BatchEncryptRequest{KeyID: key, EncryptionContext: ec}, format)
		},
	}
	if verb == "encrypt" {
		c.keyFlag(cmd, &key, "key to encrypt under")
	}
	encryptionContext.add(cmd, "context", "NAME=VALUE for items that carry none; may be given again")
	c.batchFormatFlag(cmd, &format)
	return cmd
}

func (c *cli) batchAsymmetricCmd(verb, action string) *cobra.Command {
	var r signRequest
	var format string
	cmd := &cobra.Command{
		Use:     verb + " --key KEY",
		Short:   map[string]string{"sign": "Sign many SHA-256 digests", "verify": "Check many signatures"}[verb],
		Example: "  keywardctl batch " + verb + " --key alias/release < items > results",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "key"); err != nil {
				return err
			}
			k, err := c.complete(cmd.Context(), &r)
			if err != nil {
				return err
			}
			algorithm := kmswire.Algorithm(r.algorithm)
			if verb == "verify" {
				return c.batch(cmd, action, &kmswire.BatchVerifyRequest{KeyID: k.KeyID, KeyVersionID: r.version, Algorithm: algorithm}, format)
			}
			return c.batch(cmd, action, &kmswire.BatchSignRequest{KeyID: k.KeyID, KeyVersionID: r.version, Algorithm: algorithm}, format)
		},
	}
	c.keyFlag(cmd, &r.key, "asymmetric key")
	f := cmd.Flags()
	f.StringVar(&r.version, "key-version", "", "version of the key; the newest if not given")
	f.StringVar(&r.algorithm, "algorithm", "", "RSA_PKCS1_SHA_256 (default for RSA), RSA_PSS_SHA_256, or ECDSA_SHA_256")
	choices(cmd, "algorithm", kmswire.RSAPKCS1SHA256, kmswire.RSAPSSSHA256, kmswire.ECDSASHA256)
	c.batchFormatFlag(cmd, &format)
	return cmd
}

// batch passes stdin to the service and its results to stdout, and counts the failed ones.
func (c *cli) batch(cmd *cobra.Command, action string, req any, format string) error {
	wire, watch := kmsclient.NDJSON, copyLines
	switch format {
	case "ndjson":
	case "octets":
		if isTerminal(c.stdout) {
			return usagef("octets would go to the terminal; redirect stdout")
		}
		wire, watch = kmsclient.Octets, copyOctets
	default:
		return usagef("--format is ndjson or octets, not %q", format)
	}
	in, err := c.openInput(cmd.Context(), stdio)
	if err != nil {
		return err
	}
	results, err := c.client.Stream(cmd.Context(), action, req, wire, in)
	if err != nil {
		return err
	}
	defer results.Close()
	items, failed, err := watch(c.stdout, results)
	if err != nil {
		return fmt.Errorf("the batch stopped after %d results: %w", items, err)
	}
	c.say("%d items, %d failed", items, failed)
	if failed > 0 {
		return &codedError{code: exitFailure, err: errQuiet}
	}
	return nil
}

// copyLines passes NDJSON results on as they come. A failed one is an object with a Code.
func copyLines(dst io.Writer, src io.Reader) (items, failed int, err error) {
	r, w := bufio.NewReaderSize(src, bufferSize), bufio.NewWriterSize(dst, bufferSize)
	for {
		line, err := r.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			return items, failed, fmt.Errorf("a result is longer than %d octets", bufferSize)
		}
		if len(line) > 0 && err == nil {
			items++
			if isFailure(line) {
				failed++
			}
			if _, err := w.Write(line); err != nil {
				return items, failed, err
			}
		}
		if err == io.EOF && len(line) > 0 {
			return items, failed, io.ErrUnexpectedEOF
		}
		if err != nil || r.Buffered() == 0 { // nothing more is here: a reader may wait for what is
			if ferr := w.Flush(); ferr != nil {
				return items, failed, ferr
			}
		}
		if err == io.EOF {
			return items, failed, nil
		}
		if err != nil {
			return items, failed, err
		}
	}
}

// isFailure tells a failed result. Base64 has no quotes, so most lines need no parsing.
func isFailure(line []byte) bool {
	if !bytes.Contains(line, []byte(`"Code"`)) {
		return false
	}
	var result kmswire.ItemError
	return json.Unmarshal(line, &result) == nil && result.Code != ""
}

// copyOctets passes octet results on as they come.
func copyOctets(dst io.Writer, src io.Reader) (items, failed int, err error) {
	r, w := bufio.NewReaderSize(src, bufferSize), bufio.NewWriterSize(dst, bufferSize)
	var buf []byte
	for {
		status, octets, err := kmsclient.ReadOctetResult(r, buf)
		buf = octets
		if err != nil {
			if ferr := w.Flush(); ferr != nil {
				return items, failed, ferr
			}
			if err == io.EOF {
				err = nil
			}
			return items, failed, err
		}
		items++
		if status != 0 {
			failed++
		}
		if err := kmsclient.WriteOctetResult(w, status, octets); err != nil {
			return items, failed, err
		}
		if r.Buffered() == 0 {
			if err := w.Flush(); err != nil {
				return items, failed, err
			}
		}
	}
}
