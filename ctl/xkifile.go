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

// readXKIFile reads what text wrote, or AWS's documentation shows. The secret is a copy, which the caller wipes; so it does with text.
func readXKIFile(text []byte) (*xkiFile, error) {
	type credential struct {
		AccessKeyId        string
		RawSecretAccessKey json.RawMessage
	}
	var all struct {
		XksProxyUriPath                  string
		XksProxyAuthenticationCredential credential
		XkiProxyPath                     string
		CertificateFingerprint           string
		AccessKeyId                      string
		AccessKeySecret                  json.RawMessage
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, errors.New("it is not JSON as keywardctl xki export-config writes it")
	}
	defer clear(all.XksProxyAuthenticationCredential.RawSecretAccessKey)
	defer clear(all.AccessKeySecret)
	f := &xkiFile{path: all.XksProxyUriPath, accessKeyID: all.XksProxyAuthenticationCredential.AccessKeyId}
	secret := all.XksProxyAuthenticationCredential.RawSecretAccessKey
	if all.XkiProxyPath != "" {
		f.path, f.fingerprint, f.accessKeyID, secret = all.XkiProxyPath, strings.ToLower(all.CertificateFingerprint), all.AccessKeyId, all.AccessKeySecret
	}
	secret, ok := bytes.CutPrefix(secret, []byte(`"`))
	secret, ok2 := bytes.CutSuffix(secret, []byte(`"`))
	if !ok || !ok2 || len(secret) == 0 || f.accessKeyID == "" || bytes.ContainsAny(secret, "\"\\\r\n") {
		return nil, errNoSecret
	}
	f.secret = bytes.Clone(secret)
	return f, nil
}
