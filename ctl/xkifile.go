package ctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
)

// xkiFile is what one side of external keys gives the other. In xks-v1 it is the file of AWS's console (reference xki-proxy.md §2.12); Alibaba's is not
// published, and has the fields of its form.
type xkiFile struct {
	path        string
	fingerprint string // of the proxy's certificate; not in xks-v1
	accessKeyID string
	secret      []byte // whoever has the file wipes it
}

// text writes the file. The secret is put in by itself, as encoding/json keeps its buffers; it is base64 and needs no escapes. The caller wipes the text.
func (f *xkiFile) text(dialect string) ([]byte, error) {
	if bytes.ContainsAny(f.secret, "\"\\") || len(f.secret) == 0 {
		return nil, errors.New("the secret is not one that keyward makes")
	}
	var head any = struct{ XksProxyUriPath string }{f.path}
	middle, end := `,"XksProxyAuthenticationCredential":{"AccessKeyId":`, `}`
	secretName := "RawSecretAccessKey"
	if dialect != "xks-v1" {
		head = struct{ XkiProxyPath, CertificateFingerprint string }{f.path, f.fingerprint}
		middle, end, secretName = `,"AccessKeyId":`, ``, "AccessKeySecret"
	}
	before, err := json.Marshal(head)
	if err != nil {
		return nil, err
	}
	id, err := json.Marshal(f.accessKeyID)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(before)+len(middle)+len(id)+len(f.secret)+64) // never grows, so no copy of it stays behind
	out = append(out, bytes.TrimSuffix(before, []byte("}"))...)
	out = append(append(out, middle...), id...)
	out = append(append(out, `,"`...), secretName...)
	out = append(append(append(out, `":"`...), f.secret...), '"')
	return append(append(out, end...), "}\n"...), nil
}

// fileSecret is the secret in a file, however JSON writes it.
type fileSecret []byte

// UnmarshalText implements encoding.TextUnmarshaler. b is encoding/json's, and nobody reads it after this: what an escape was undone in would stay behind.
func (s *fileSecret) UnmarshalText(b []byte) error {
	clear(*s) // it may be there twice
	*s = bytes.Clone(b)
	clear(b)
	return nil
}

// readXKIFile reads what text wrote, or AWS's documentation shows. It wipes the secret in text; the caller wipes the one that it is given.
func readXKIFile(text []byte) (*xkiFile, error) {
	type credential struct {
		AccessKeyId        string
		RawSecretAccessKey fileSecret
	}
	var all struct {
		XksProxyUriPath                  string
		XksProxyAuthenticationCredential credential
		XkiProxyPath                     string
		CertificateFingerprint           string
		AccessKeyId                      string
		AccessKeySecret                  fileSecret
	}
	err := json.Unmarshal(text, &all)
	f := &xkiFile{path: all.XksProxyUriPath, accessKeyID: all.XksProxyAuthenticationCredential.AccessKeyId, secret: all.XksProxyAuthenticationCredential.RawSecretAccessKey}
	other := all.AccessKeySecret
	if all.XkiProxyPath != "" {
		f.path, f.fingerprint, f.accessKeyID = all.XkiProxyPath, strings.ToLower(all.CertificateFingerprint), all.AccessKeyId
		f.secret, other = other, f.secret
	}
	clear(other)
	switch {
	case err != nil:
		err = errors.New("it is not JSON as keywardctl xki export-config writes it")
	case len(f.secret) == 0 || f.accessKeyID == "" || bytes.ContainsAny(f.secret, "\"\\\r\n"):
		err = errNoSecret
	default:
		return f, nil
	}
	clear(f.secret)
	return nil, err
}
