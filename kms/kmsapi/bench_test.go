package kmsapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
)

// The benchmarks measure the door alone: the service behind it does next to nothing. In-process ones have no socket and
// no net/http server either.

var (
	benchPlaintext = bytes.Repeat([]byte("0123456789abcdef\xfb\xef\xbe"), 54)[:1024]
	benchBlob      = make([]byte, 1100)
	benchQuery     = "Action=Encrypt&EncryptionContext=" + url.QueryEscape(`{"tenant":"a","file":"b"}`) + "&Format=JSON&KeyId=alias%2Fbench&Plaintext=" +
		url.QueryEscape(base64.StdEncoding.EncodeToString(benchPlaintext)) + "&Version=2016-01-20"
)

func benchEncrypt(_ *kms.Service, _ context.Context, _ *kms.Actor, req *kmswire.EncryptRequest) (*kmswire.EncryptResponse, error) {
	return &kmswire.EncryptResponse{KeyID: "key-0123456789abcdefgh", KeyVersionID: "key-0123456789abcdefgh-0123456", CiphertextBlob: benchBlob}, nil
}

func benchBatch(_ *kms.Service, _ context.Context, _ *kms.Actor, req *kmswire.BatchEncryptRequest) (*kmswire.BatchEncryptResponse, error) {
	resp := &kmswire.BatchEncryptResponse{KeyID: "key-0123456789abcdefgh", KeyVersionID: "key-0123456789abcdefgh-0123456", Items: make([]kmswire.BatchEncryptResult, len(req.Items))}
	for i := range resp.Items {
		resp.Items[i].CiphertextBlob = benchBlob
	}
	return resp, nil
}

// discard is a ResponseWriter that keeps nothing but the status.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

func benchHandler(b *testing.B, row operation) {
	h := newHandler(nil, Options{}, []operation{row})
	r := httptest.NewRequestWithContext(WithActor(context.Background(), testActor), "POST", "/?"+benchQuery, nil)
	r.ContentLength = 0
	b.SetBytes(1024)
	b.ReportAllocs()
	for b.Loop() {
		w := &discard{header: make(http.Header, 8)}
		if h.ServeHTTP(w, r); w.status != 200 {
			b.Fatal(w.status)
		}
	}
}

func BenchmarkEncrypt1KiB(b *testing.B) {
	b.Run("hot", func(b *testing.B) { benchHandler(b, hotOp("Encrypt", benchEncrypt, decodeEncrypt, appendEncrypt)) })
	b.Run("ordinary", func(b *testing.B) { benchHandler(b, op("Encrypt", benchEncrypt)) })
}

func BenchmarkDecodeEncrypt1KiB(b *testing.B) {
	b.Run("hot", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if req := new(kmswire.EncryptRequest); !decodeEncrypt(benchQuery, req) {
				b.Fatal("not accepted")
			}
		}
	})
	b.Run("ordinary", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			values, err := url.ParseQuery(benchQuery)
			if err != nil || kmswire.Decode(values, new(kmswire.EncryptRequest)) != nil {
				b.Fatal("not accepted")
			}
		}
	})
}

// Each operation is one item of an endless stream.
func BenchmarkStreamItem1KiB(b *testing.B) {
	row := batchOp("BatchEncrypt", benchBatch, encryptItems)
	for _, c := range []struct{ name, mediaType, item string }{
		{"octets", typeOctets, item(string(benchPlaintext))},
		{"lines", typeLines, `{"Plaintext":"` + b64(string(benchPlaintext)) + `"}` + "\n"},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := newHandler(nil, Options{}, []operation{row})
			r := httptest.NewRequestWithContext(WithActor(context.Background(), testActor), "POST", "/?Action=BatchEncrypt&KeyId=k",
				io.LimitReader(&endless{text: []byte(strings.Repeat(c.item, 100))}, int64(b.N)*int64(len(c.item))))
			r.Header.Set("Content-Type", c.mediaType)
			b.SetBytes(1024)
			b.ReportAllocs()
			b.ResetTimer()
			w := &duplex{discard{header: make(http.Header, 8)}}
			if h.ServeHTTP(w, r); w.status != 200 {
				b.Fatal(w.status)
			}
		})
	}
}

func BenchmarkJSONBatchItem1KiB(b *testing.B) {
	const count = 100
	body := `{"Items":[` + strings.TrimSuffix(strings.Repeat(`{"Plaintext":"`+b64(string(benchPlaintext))+`"},`, count), ",") + `]}`
	h := newHandler(nil, Options{}, []operation{batchOp("BatchEncrypt", benchBatch, encryptItems)})
	b.Run("ours", func(b *testing.B) {
		b.SetBytes(1024)
		b.ReportAllocs()
		for i := 0; i < b.N; i += count {
			r := httptest.NewRequestWithContext(WithActor(context.Background(), testActor), "POST", "/?Action=BatchEncrypt&KeyId=k", strings.NewReader(body))
			r.Header.Set("Content-Type", typeJSON)
			w := &duplex{discard{header: make(http.Header, 8)}}
			if h.ServeHTTP(w, r); w.status != 200 {
				b.Fatal(w.status)
			}
		}
	})
	b.Run("encoding-json", func(b *testing.B) { // what it would cost to decode and encode the same
		b.SetBytes(1024)
		b.ReportAllocs()
		for i := 0; i < b.N; i += count {
			var req kmswire.BatchEncryptRequest
			if err := json.Unmarshal([]byte(body), &req); err != nil {
				b.Fatal(err)
			}
			resp, _ := benchBatch(nil, nil, nil, &req)
			if _, err := json.Marshal(resp); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// duplex is a discard that a stream can use.
type duplex struct{ discard }

func (*duplex) EnableFullDuplex() error          { return nil }
func (*duplex) SetReadDeadline(time.Time) error  { return nil }
func (*duplex) SetWriteDeadline(time.Time) error { return nil }
func (*duplex) FlushError() error                { return nil }

// endless gives the same text again and again.
type endless struct {
	text []byte
	at   int
}

func (e *endless) Read(p []byte) (n int, err error) {
	for n < len(p) {
		m := copy(p[n:], e.text[e.at:])
		n += m
		e.at = (e.at + m) % len(e.text)
	}
	return n, nil
}

// The whole way: a client, a Unix socket, the server, the door.
func BenchmarkEncrypt1KiBOverSocket(b *testing.B) {
	s := newTestServer(b, Options{})
	r := request(b, "POST", "/?Action=Encrypt&KeyId=k&Plaintext="+url.QueryEscape(b64(string(benchPlaintext))), "")
	b.SetBytes(1024)
	b.ReportAllocs()
	for b.Loop() {
		if status, _, body := s.do(b, r); status != 200 {
			b.Fatal(body)
		}
	}
}

// An octet stream over the socket; each operation is one item, answered.
func BenchmarkStreamItem1KiBOverSocket(b *testing.B) {
	s := newTestServer(b, Options{})
	text := item(string(benchPlaintext))
	req := request(b, "POST", encryptURL, "", headOctets)
	req.Body, req.ContentLength = io.NopCloser(io.LimitReader(&endless{text: []byte(strings.Repeat(text, 100))}, int64(b.N)*int64(len(text)))), -1
	b.SetBytes(1024)
	b.ResetTimer()
	resp, err := s.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(b.N)*int64(len(text)+1) {
		b.Fatal(n, err)
	}
}
