package blob_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/keyward/keyward/kms/blob"
	"github.com/keyward/keyward/kms/softkey"
)

// octets is written in hexadecimal.
type octets []byte

func (o *octets) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	*o = b
	return err
}

type vector struct {
	Name       string
	Algorithm  blob.Algorithm
	KeyID      string
	VersionID  string
	Key        octets
	Nonce      octets
	Context    map[string]string
	Header     octets
	AAD        octets
	MessageKey octets
	Commitment octets
	Plaintext  octets
	Blob       octets
}

type vectorFile struct {
	About   string
	Vectors []vector
	Refused []vector
}

func readVectors(t testing.TB) vectorFile {
	t.Helper()
	data, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var f vectorFile
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		t.Fatal(err)
	}
	return f
}

var errRefused = errors.New("refused")

// open decrypts a blob as the service does, with a key of the test's. All failures are one error.
func open(key, b []byte, context map[string]string) ([]byte, error) {
	h, n, err := blob.Parse(b)
	if err != nil {
		return nil, errRefused
	}
	aad, err := blob.AppendAAD(nil, b[:n], context)
	if err != nil {
		return nil, errRefused
	}
	if h.Algorithm == blob.Software {
		k, err := softkey.NewAES(key)
		if err != nil {
			return nil, err
		}
		defer k.Close()
		plaintext, err := k.Open(nil, h.Nonce, b[n:], aad)
		if err == softkey.ErrDecrypt {
			return nil, errRefused
		}
		return plaintext, err
	}
	aead, err := gcm(key)
	if err != nil {
		return nil, err
	}
	plaintext, err := aead.Open(nil, h.Nonce, b[n:], aad)
	if err != nil {
		return nil, errRefused
	}
	return plaintext, nil
}

// gcm stands for CKM_AES_GCM.
func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func TestVectors(t *testing.T) {
	f := readVectors(t)
	if len(f.Vectors) != 5 || len(f.Refused) != 14 {
		t.Errorf("%d vectors, %d refused", len(f.Vectors), len(f.Refused))
	}
	for _, v := range f.Vectors {
		h := blob.Header{Algorithm: v.Algorithm, KeyID: v.KeyID, VersionID: v.VersionID, Nonce: v.Nonce}
		header, err := blob.AppendHeader(nil, h)
		if err != nil || !bytes.Equal(header, v.Header) {
			t.Errorf("%s: header %x, %v", v.Name, header, err)
		}
		aad, err := blob.AppendAAD(nil, header, v.Context)
		if err != nil || !bytes.Equal(aad, v.AAD) {
			t.Errorf("%s: aad %x, %v", v.Name, aad, err)
		}
		got := slices.Clone(header)
		if v.Algorithm == blob.Software {
			k, err := softkey.NewAES(v.Key)
			if err != nil {
				t.Fatal(err)
			}
			got = k.Seal(got, v.Nonce, v.Plaintext, aad)
			if !bytes.Equal(got[len(header):len(header)+softkey.CommitmentSize], v.Commitment) {
				t.Errorf("%s: commitment", v.Name)
			}
			message, err := gcm(v.MessageKey)
			if err != nil || !bytes.Equal(message.Seal(nil, make([]byte, 12), v.Plaintext, aad), got[len(header)+softkey.CommitmentSize:]) {
				t.Errorf("%s: message key", v.Name)
			}
		} else {
			k, err := gcm(v.Key)
			if err != nil {
				t.Fatal(err)
			}
			got = k.Seal(got, v.Nonce, v.Plaintext, aad)
		}
		if !bytes.Equal(got, v.Blob) || len(got) != v.Algorithm.Size(len(v.Plaintext)) {
			t.Errorf("%s:\ngot  %x\nwant %x", v.Name, got, []byte(v.Blob))
		}
		if plaintext, err := open(v.Key, v.Blob, v.Context); err != nil || !bytes.Equal(plaintext, v.Plaintext) {
			t.Errorf("%s: open: %x, %v", v.Name, plaintext, err)
		}
	}
	for _, v := range f.Refused {
		if plaintext, err := open(v.Key, v.Blob, v.Context); err != errRefused {
			t.Errorf("%s: %x, %v", v.Name, plaintext, err)
		}
	}
}

// Whatever single bit of a blob is flipped, it opens no more.
func TestFlippedBlob(t *testing.T) {
	for _, v := range readVectors(t).Vectors {
		for bit := range 8 * len(v.Blob) {
			b := bytes.Clone(v.Blob)
			b[bit/8] ^= 1 << (bit % 8)
			if plaintext, err := open(v.Key, b, v.Context); err != errRefused {
				t.Fatalf("%s: bit %d: %x, %v", v.Name, bit, plaintext, err)
			}
		}
		for n := range v.Blob {
			if plaintext, err := open(v.Key, v.Blob[:n], v.Context); err != errRefused {
				t.Fatalf("%s: cut at %d: %x, %v", v.Name, n, plaintext, err)
			}
		}
	}
}

// The document shows the same vectors as the file.
func TestVectorsAreInTheDocument(t *testing.T) {
	data, err := os.ReadFile("../../docs/ciphertext-blob.md")
	if err != nil {
		t.Fatal(err)
	}
	document := string(data)
	f := readVectors(t)
	for _, v := range f.Vectors {
		_, section, ok := strings.Cut(document, "### "+v.Name+"\n")
		if !ok {
			t.Errorf("%s is not in the document", v.Name)
			continue
		}
		section, _, _ = strings.Cut(section, "\n### ")
		for _, value := range []octets{v.Key, v.Nonce, v.Header, v.AAD, v.MessageKey, v.Commitment, v.Plaintext, v.Blob} {
			if len(value) > 0 && !strings.Contains(section, " "+hex.EncodeToString(value)+"\n") {
				t.Errorf("%s: the document lacks %x", v.Name, []byte(value))
			}
		}
		_, text, _ := strings.Cut(section, "context ")
		text, _, _ = strings.Cut(text, "\n")
		var context map[string]string
		if err := json.Unmarshal([]byte(strings.TrimSpace(text)), &context); err != nil || len(context) != len(v.Context) {
			t.Errorf("%s: context %q, %v", v.Name, text, err)
		}
		for k, value := range v.Context {
			if context[k] != value {
				t.Errorf("%s: context %q", v.Name, text)
			}
		}
	}
	for _, v := range f.Refused {
		if !strings.Contains(document, v.Name) {
			t.Errorf("refused %q is not in the document", v.Name)
		}
	}
}
