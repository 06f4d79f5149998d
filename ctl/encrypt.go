package ctl

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/keyward/keyward/ctl/agefile"
	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

// suffix is what an encrypted file's name ends in.
const suffix = ".age"

// fileKMS is the service as age files need it.
type fileKMS struct{ c *cli }

func (k fileKMS) GenerateDataKey(ctx context.Context, keyID string, ec map[string]string) (string, []byte, []byte, error) {
	size := 32
	var answer kmswire.GenerateDataKeyResponse
	err := k.c.call(ctx, "GenerateDataKey", &kmswire.GenerateDataKeyRequest{KeyID: keyID, NumberOfBytes: &size, EncryptionContext: ec}, &answer)
	return answer.KeyID, answer.Plaintext, answer.CiphertextBlob, err
}

func (k fileKMS) Decrypt(ctx context.Context, blob []byte, ec map[string]string) (string, []byte, error) {
	var answer kmswire.DecryptResponse
	err := k.c.call(ctx, "Decrypt", &kmswire.DecryptRequest{CiphertextBlob: blob, EncryptionContext: ec}, &answer)
	return answer.KeyID, answer.Plaintext, err
}

func (c *cli) encryptCmd() *cobra.Command {
	var key, out, algorithm, version string
	var force, direct, binary bool
	var context contextFlag
	cmd := &cobra.Command{
		Use:   "encrypt --key KEY [FILE]",
		Short: "Encrypt a file of any size, or a small secret",
		Long: fmt.Sprintf(`Encrypt a file of any size. keyward makes a key for this one file; the file is an age file (docs/file-format.md) that
only keyward can open, with the same key. FILE.age is made; "-" or no FILE reads stdin and writes stdout.

--context pairs are bound to the file and are kept in it in the clear: decrypt needs no flags, and policies and the audit
see them. The new file appears when it is whole, and never replaces another without --force.

--direct sends the data itself to keyward, at most %d octets, and prints the ciphertext in base64: for secrets in scripts and
configuration. With an RSA key it is OAEP, which anybody with the public key can do too.`, kmswire.MaxPlaintext),
		Example: `  keywardctl encrypt --key alias/app/db backup.tar
  tar c photos | keywardctl encrypt --key alias/app/db > photos.tar.age
  printf %s "$PASSWORD" | keywardctl encrypt --key alias/app/db --direct > password.kms`,
		Args: atMostOne("FILE"),
		RunE: func(cmd *cobra.Command, a []string) error {
			if err := required(cmd, "key"); err != nil {
				return err
			}
			pairs, err := context.parse("context")
			if err != nil {
				return err
			}
			in, err := c.openInput(cmd.Context(), first(a))
			if err != nil {
				return err
			}
			defer in.close()
			if direct {
				return c.encryptDirect(cmd.Context(), in, directRequest{key: key, version: version, algorithm: algorithm, context: pairs, out: out, force: force, binary: binary})
			}
			if binary || algorithm != "" || version != "" {
				return usagef("--binary, --algorithm and --key-version go with --direct")
			}
			if err := agefile.CheckContext(pairs); err != nil {
				return usagef("--context: %v", err)
			}
			if out == "" {
				out = stdio
				if in.name != stdio {
					out = in.name + suffix
				}
			}
			o, err := c.createOutput(out, 0o666, force, true)
			if err != nil {
				return err
			}
			defer o.discard()
			recipient := &agefile.Recipient{Ctx: cmd.Context(), KMS: fileKMS{c}, KeyID: key, Context: pairs}
			w, err := age.Encrypt(o, recipient)
			if e, ok := errors.AsType[*writeError](err); ok {
				return e
			}
			if err != nil {
				return fmt.Errorf("%s: %w", key, cause(err))
			}
			n, err := c.stream(cmd.Context(), w, in, in.size, "encrypting")
			if err == nil {
				err = w.Close()
			}
			if e, ok := errors.AsType[*writeError](err); ok {
				return e
			}
			if err != nil {
				return fmt.Errorf("%s: %w", in, err)
			}
			if err := o.commit(); err != nil {
				return err
			}
			if out == stdio {
				return nil
			}
			c.say("%s: %s under %s", out, octets(n), recipient.UsedKeyID)
			c.say("next: keywardctl decrypt %s", decryptArguments(out))
			return c.made(madeFile{File: out, KeyID: recipient.UsedKeyID, PlaintextOctets: &n})
		},
	}
	c.keyFlag(cmd, &key, "key to encrypt under")
	context.add(cmd, "context", "NAME=VALUE bound to the data; may be given again")
	f := cmd.Flags()
	f.StringVar(&out, "out", "", `file to write; "-" for stdout`)
	f.BoolVar(&force, "force", false, "replace a file that is there")
	f.BoolVar(&direct, "direct", false, fmt.Sprintf("send the data itself, at most %d octets", kmswire.MaxPlaintext))
	f.BoolVar(&binary, "binary", false, "with --direct: write the ciphertext as it is, not in base64")
	f.StringVar(&algorithm, "algorithm", "", "with --direct and an RSA key: RSAES_OAEP_SHA_256 (default) or RSAES_OAEP_SHA_1")
	f.StringVar(&version, "key-version", "", "with --direct and an RSA key: version of the key; the newest if not given")
	choices(cmd, "algorithm", kmswire.RSAOAEPSHA256, kmswire.RSAOAEPSHA1)
	return cmd
}

func (c *cli) decryptCmd() *cobra.Command {
	var key, out, algorithm, version string
	var force, direct, binary bool
	var context contextFlag
	cmd := &cobra.Command{
		Use:   "decrypt [FILE]",
		Short: "Decrypt what keywardctl encrypt made",
		Long: `Decrypt a file that keywardctl encrypt made. FILE.age becomes FILE; "-" or no FILE reads stdin and writes stdout.

The file knows its key and its context. --key and --context are checks: a file under another key, or without such a
context, is refused. A file appears under its name only when all of it proved good, readable for you alone. To a pipe,
each piece of 64 KiB is checked before it is written; that the file was cut shows at the end only, by the exit code.

--direct opens the output of encrypt --direct. With an RSA key it needs --key, and opens what was encrypted under the
public key (OAEP), such as by OpenSSL.`,
		Example: `  keywardctl decrypt backup.tar.age
  keywardctl decrypt < photos.tar.age | tar x
  PASSWORD=$(keywardctl decrypt --direct password.kms)`,
		Args: atMostOne("FILE"),
		RunE: func(cmd *cobra.Command, a []string) error {
			pairs, err := context.parse("context")
			if err != nil {
				return err
			}
			in, err := c.openInput(cmd.Context(), first(a))
			if err != nil {
				return err
			}
			defer in.close()
			if direct {
				return c.decryptDirect(cmd.Context(), in, directRequest{key: key, version: version, algorithm: algorithm, context: pairs, out: out, force: force, binary: binary})
			}
			if binary || algorithm != "" || version != "" {
				return usagef("--binary, --algorithm and --key-version go with --direct")
			}
			if out == "" {
				out = stdio
				if in.name != stdio {
					if out = strings.TrimSuffix(in.name, suffix); out == in.name || filepath.Base(in.name) == suffix {
						return usagef("%s does not end in %s; name the new file with --out", in.name, suffix)
					}
				}
			}
			identity := &agefile.Identity{Ctx: cmd.Context(), KMS: fileKMS{c}, Expect: pairs}
			if key != "" {
				k, err := c.describe(cmd.Context(), key)
				if err != nil {
					return err
				}
				identity.ExpectKeyID = k.KeyID
			}
			o, err := c.createOutput(out, 0o600, force, false)
			if err != nil {
				return err
			}
			defer o.discard()
			src := &sourceReader{r: in}
			bar := c.progress(in.size, "decrypting")
			defer bar.done()
			src.seen = bar.add
			r, err := age.Decrypt(src, identity)
			if err != nil {
				return fmt.Errorf("%s: %w", in, src.blame(fileError(err)))
			}
			quiet := *c
			quiet.noProgress = true // the bar counts what is read, whose size is known
			n, err := quiet.stream(cmd.Context(), o, r, -1, "")
			if e, ok := errors.AsType[*writeError](err); ok {
				return e
			}
			switch {
			case errors.Is(err, io.ErrUnexpectedEOF):
				return fmt.Errorf("%s: %w%s", in, src.blame(errCut), partial(o))
			case err != nil:
				return fmt.Errorf("%s: %w%s", in, src.blame(errDamaged), partial(o))
			}
			if err := o.commit(); err != nil {
				return err
			}
			if out == stdio {
				return nil
			}
			c.say("%s: %s, was under %s", out, octets(n), identity.Opened.KeyID)
			return c.made(madeFile{File: out, KeyID: identity.Opened.KeyID, PlaintextOctets: &n})
		},
	}
	c.keyFlag(cmd, &key, "refuse a file that is not under this key")
	context.add(cmd, "context", "NAME=VALUE that must be bound to the data; may be given again")
	f := cmd.Flags()
	f.StringVar(&out, "out", "", `file to write; "-" for stdout`)
	f.BoolVar(&force, "force", false, "replace a file that is there")
	f.BoolVar(&direct, "direct", false, "open the output of encrypt --direct")
	f.BoolVar(&binary, "binary", false, "with --direct: the ciphertext is as it is, not in base64")
	f.StringVar(&algorithm, "algorithm", "", "with --direct and an RSA key: RSAES_OAEP_SHA_256 (default) or RSAES_OAEP_SHA_1")
	f.StringVar(&version, "key-version", "", "with --direct and an RSA key: version of the key; the newest if not given")
	choices(cmd, "algorithm", kmswire.RSAOAEPSHA256, kmswire.RSAOAEPSHA1)
	return cmd
}

// sourceReader remembers an error of the input, to tell a disk that can't be read from a file that is bad.
type sourceReader struct {
	r    io.Reader
	seen func(int)
	err  error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.seen(n)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// blame gives the error of the input, if there was one, else err.
func (s *sourceReader) blame(err error) error {
	if s.err != nil {
		return s.err
	}
	return err
}

var (
	errCut = errors.New("the file is cut: its end is missing")
	// errDamaged is all that can be known when a piece does not open: cut within a piece looks like changed.
	errDamaged = errors.New("the file is damaged: it was changed, or its end is missing")
)

// partial says that something already went down a pipe.
func partial(o *output) string {
	if o.temp == "" {
		return "; do not use what was written so far"
	}
	return "; nothing was written"
}

// cause takes off what age says around the service's answer.
func cause(err error) error {
	if e, ok := errors.AsType[*kmsclient.Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*kmsclient.UnreachableError](err); ok {
		return e
	}
	return err
}

// fileError says in keyward's words what age says in its own.
func fileError(err error) error {
	if e, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
		return fmt.Errorf("the file was encrypted without keyward, for %s", strings.Join(e.StanzaTypes, ", "))
	}
	if strings.HasSuffix(err.Error(), ": file is empty") {
		return errors.New("the file is empty, and so is no encrypted file")
	}
	// What is not an error of keyward is of age's parser, which has no types for it.
	if strings.HasPrefix(err.Error(), "failed to read header: ") {
		return errors.New("this is not an encrypted file of keywardctl, or its header is damaged or not all there")
	}
	return err
}

// directRequest is encrypt --direct or decrypt --direct.
type directRequest struct {
	key, version, algorithm string
	context                 map[string]string
	out                     string
	force, binary           bool
}

// asymmetric says whether the request is for an asymmetric key, and completes version and algorithm if so.
func (c *cli) asymmetric(ctx context.Context, r *directRequest) (bool, error) {
	k, err := c.describe(ctx, r.key)
	if err != nil {
		return false, err
	}
	if _, signs := signAlgorithms[k.KeySpec]; !signs {
		if r.version != "" || r.algorithm != "" {
			return false, usagef("%s is a symmetric key: it has no --algorithm and no --key-version", r.key)
		}
		return false, nil
	}
	if len(r.context) > 0 {
		return false, usagef("%s is an asymmetric key: it has no --context", r.key)
	}
	if r.version == "" {
		if r.version, err = c.newestVersion(ctx, k.KeyID); err != nil {
			return false, err
		}
	}
	if r.algorithm == "" {
		r.algorithm = string(kmswire.RSAOAEPSHA256)
	}
	r.algorithm = string(anyCase(r.algorithm, []kmswire.Algorithm{kmswire.RSAOAEPSHA256, kmswire.RSAOAEPSHA1}))
	return true, nil
}

func (c *cli) encryptDirect(ctx context.Context, in *input, r directRequest) error {
	plaintext, err := readSmall(in, kmswire.MaxPlaintext)
	if err != nil {
		return hint(err, "leave --direct out: a file may have any size")
	}
	defer clear(plaintext)
	asymmetric, err := c.asymmetric(ctx, &r)
	if err != nil {
		return err
	}
	var answer kmswire.EncryptResponse
	if asymmetric {
		err = c.call(ctx, "AsymmetricEncrypt", &kmswire.AsymmetricEncryptRequest{
			KeyID: r.key, KeyVersionID: r.version, Algorithm: kmswire.Algorithm(r.algorithm), Plaintext: plaintext,
		}, &answer)
	} else {
		err = c.call(ctx, "Encrypt", &kmswire.EncryptRequest{KeyID: r.key, Plaintext: plaintext, EncryptionContext: r.context}, &answer)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", r.key, err)
	}
	return c.putBlob(answer.CiphertextBlob, answer.KeyID, answer, r, 0o666)
}

// putBlob writes binary as one line of base64, or as it is.
func (c *cli) putBlob(blob []byte, keyID string, answer any, r directRequest, mode fs.FileMode) error {
	if r.out == "" {
		r.out = stdio
	}
	if c.format == "json" && !r.binary && r.out == stdio {
		return c.json(answer)
	}
	data := blob
	if !r.binary {
		data = append([]byte(base64.StdEncoding.EncodeToString(blob)), '\n')
	}
	if err := c.put(r.out, data, mode, r.force, r.binary); err != nil || r.out == stdio {
		return err
	}
	return c.made(madeFile{File: r.out, KeyID: keyID})
}

// put writes small data to a file or stdout.
func (c *cli) put(name string, data []byte, mode fs.FileMode, force, binary bool) error {
	o, err := c.createOutput(name, mode, force, binary)
	if err != nil {
		return err
	}
	defer o.discard()
	if _, err := o.Write(data); err != nil {
		return err
	}
	return o.commit()
}

func (c *cli) decryptDirect(ctx context.Context, in *input, r directRequest) error {
	blob, err := readSmall(in, 64<<10)
	if err != nil {
		return hint(err, "leave --direct out for a file that encrypt made without it")
	}
	if !r.binary {
		if blob, err = unbase64(blob); err != nil {
			return hint(fmt.Errorf("%s is not base64", in), "--binary takes a ciphertext as it is; leave --direct out for a file that encrypt made without it")
		}
	}
	asymmetric := false
	if r.key != "" {
		if asymmetric, err = c.asymmetric(ctx, &r); err != nil {
			return err
		}
	} else if r.algorithm != "" || r.version != "" {
		return usagef("--algorithm and --key-version go with --key")
	}
	var answer kmswire.DecryptResponse
	if asymmetric {
		err = c.call(ctx, "AsymmetricDecrypt", &kmswire.AsymmetricDecryptRequest{
			KeyID: r.key, KeyVersionID: r.version, Algorithm: kmswire.Algorithm(r.algorithm), CiphertextBlob: blob,
		}, &answer)
	} else {
		err = c.call(ctx, "Decrypt", &kmswire.DecryptRequest{CiphertextBlob: blob, EncryptionContext: r.context}, &answer)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	defer clear(answer.Plaintext)
	if r.key != "" && !asymmetric {
		k, err := c.describe(ctx, r.key)
		if err != nil {
			return err
		}
		if answer.KeyID != k.KeyID {
			return fmt.Errorf("%s is under key %s, not %s", in, answer.KeyID, k.KeyID)
		}
	}
	if r.out == "" {
		r.out = stdio
	}
	if c.format == "json" && r.out == stdio {
		return c.json(answer)
	}
	n := int64(len(answer.Plaintext))
	if err := c.put(r.out, answer.Plaintext, 0o600, r.force, false); err != nil || r.out == stdio {
		return err
	}
	return c.made(madeFile{File: r.out, KeyID: answer.KeyID, PlaintextOctets: &n})
}

// unbase64 reads base64 that may be wrapped.
func unbase64(text []byte) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(text)), ""))
}

// first gives the first argument, or "-".
func first(args []string) string {
	if len(args) == 0 {
		return stdio
	}
	return args[0]
}

// octets gives a size in words.
func octets(n int64) string {
	const unit = 1024
	if n == 1 {
		return "1 octet"
	}
	if n < unit {
		return fmt.Sprintf("%d octets", n)
	}
	value, names := float64(n)/unit, []string{"KiB", "MiB", "GiB", "TiB", "PiB"}
	for len(names) > 1 && value >= unit {
		value /= unit
		names = names[1:]
	}
	return fmt.Sprintf("%.1f %s", value, names[0])
}

// decryptArguments is what keywardctl decrypt needs to open a file, for a shell.
func decryptArguments(file string) string {
	if strings.HasSuffix(file, suffix) && filepath.Base(file) != suffix {
		return quote(file)
	}
	return "--out FILE " + quote(file)
}

// quote makes a name safe to paste into a shell.
func quote(name string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+=:,@%", r)
	}
	if name != "" && strings.IndexFunc(name, func(r rune) bool { return !plain(r) }) < 0 {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}
