package ctl

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/keyward/keyward/daemon/admin"
)

func TestXKIFile(t *testing.T) {
	secret := "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3I="
	for dialect, want := range map[string]string{
		// The form of the reference, xki-proxy.md §2.12.
		"xks-v1": `{"XksProxyUriPath":"/ks1/kms/xks/v1","XksProxyAuthenticationCredential":{"AccessKeyId":"ABC","RawSecretAccessKey":"` + secret + `"}}` + "\n",
		"xki-v1": `{"XkiProxyPath":"/ks1/kms/xki/v1","CertificateFingerprint":"sha256-00","AccessKeyId":"ABC","AccessKeySecret":"` + secret + `"}` + "\n",
	} {
		f := &xkiFile{path: "/ks1/kms/" + dialect[:3] + "/v1", fingerprint: "sha256-00", accessKeyID: "ABC", secret: []byte(secret)}
		text, err := f.text(dialect)
		if err != nil || string(text) != want {
			t.Errorf("%s is %s, %v", dialect, text, err)
		}
		back, err := readXKIFile(text)
		if err != nil || back.path != f.path || back.accessKeyID != "ABC" || string(back.secret) != secret || back.fingerprint != map[string]string{"xki-v1": "sha256-00"}[dialect] {
			t.Errorf("%+v, %v", back, err)
		}
		clear(text)
		if string(back.secret) != secret {
			t.Error("the secret is not a copy")
		}
	}
	// As people write it: other order, spaces, members that nobody knows.
	f, err := readXKIFile([]byte(`{ "Later": 1, "XksProxyAuthenticationCredential": { "RawSecretAccessKey" : "s" ,
		"AccessKeyId" : "A" }, "XksProxyUriPath": "/kms/xks/v1" }`))
	if err != nil || f.path != "/kms/xks/v1" || string(f.secret) != "s" {
		t.Errorf("%+v, %v", f, err)
	}
	// As other programs write JSON.
	for written, want := range map[string]string{`ab\/c+d=`: "ab/c+d=", `ab\u002Fc\u002bd\u003d`: "ab/c+d="} {
		f, err := readXKIFile([]byte(`{"XksProxyUriPath":"/kms/xks/v1","XksProxyAuthenticationCredential":{"AccessKeyId":"A","RawSecretAccessKey":"` + written + `"}}`))
		if err != nil || string(f.secret) != want {
			t.Errorf("%s: %+v, %v", written, f, err)
		}
		f, err = readXKIFile([]byte(`{"XkiProxyPath":"/x","AccessKeyId":"A","AccessKeySecret":"twice","AccessKeySecret":"` + written + `"}`))
		if err != nil || string(f.secret) != want {
			t.Errorf("%s: %+v, %v", written, f, err)
		}
	}
	for _, bad := range []string{`{}`, `{"XksProxyUriPath":"/kms/xks/v1"}`, `{"XkiProxyPath":"/x","AccessKeyId":"A","AccessKeySecret":""}`, `{"XkiProxyPath":"/x","AccessKeyId":"A","AccessKeySecret":"a\\b"}`,
		`{"XkiProxyPath":"/x","AccessKeyId":"","AccessKeySecret":"s"}`, `{"XkiProxyPath":"/x","AccessKeyId":"A","AccessKeySecret":"s\n"}`, `{"XkiProxyPath":"/x","AccessKeyId":"A","AccessKeySecret":null}`} {
		if _, err := readXKIFile([]byte(bad)); !errors.Is(err, errNoSecret) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for _, bad := range []string{``, `x`, `[]`, `"secret"`, `{"XksProxyUriPath":5}`, `{"XkiProxyPath":"/x","AccessKeyId":"A","AccessKeySecret":5}`} {
		if _, err := readXKIFile([]byte(bad)); err == nil || strings.Contains(err.Error(), "secret") && !errors.Is(err, errNoSecret) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for _, secret := range []string{"", `a"b`, `a\b`} {
		if _, err := (&xkiFile{path: "/x", secret: []byte(secret)}).text("xks-v1"); err == nil {
			t.Errorf("%q is written", secret)
		}
	}
}

// Whatever is read, what is written of it is read as the same.
func FuzzXKIFile(f *testing.F) {
	f.Add([]byte(`{"XksProxyUriPath":"/ks1/kms/xks/v1","XksProxyAuthenticationCredential":{"AccessKeyId":"ABC","RawSecretAccessKey":"x"}}`))
	f.Add([]byte(`{"XkiProxyPath":"/kms/xki/v1","CertificateFingerprint":"SHA256-00","AccessKeyId":"ABC","AccessKeySecret":"x"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		in, err := readXKIFile(bytes.Clone(text))
		if err != nil {
			return
		}
		dialect := "xks-v1"
		if in.fingerprint != "" {
			dialect = "xki-v1"
		}
		out, err := in.text(dialect)
		if err != nil {
			t.Fatal(err)
		}
		again, err := readXKIFile(out)
		if err != nil {
			if in.path == "" { // xki-v1's is known by its path
				return
			}
			t.Fatalf("%q: %v", out, err)
		}
		if again.path != in.path || again.accessKeyID != in.accessKeyID || !bytes.Equal(again.secret, in.secret) || again.fingerprint != in.fingerprint {
			t.Errorf("%+v is read as %+v", in, again)
		}
	})
}

func TestProxyName(t *testing.T) {
	for _, row := range [][3]string{{"keyward", "keyward 1.0", "keyward 1.0"}, {"Keyward", "keyward 1.0", "keyward 1.0"}, {"Acme", "Proxy 2", "Acme Proxy 2"}, {"", "", ""}} {
		if got := proxyName(&admin.XKIConnection{Vendor: row[0], Model: row[1]}); got != row[2] {
			t.Errorf("%q of %q is %q", row[1], row[0], got)
		}
	}
}
