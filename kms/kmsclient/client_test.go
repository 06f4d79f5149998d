package kmsclient

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/kms/kmswire"
)

// serve runs a handler on a Unix socket and gives a client for it, and the number of connections that were made.
func serve(t *testing.T, handler http.HandlerFunc) (*Client, *atomic.Int32) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var conns atomic.Int32
	srv := &http.Server{Handler: handler, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	c := &Client{Socket: path}
	t.Cleanup(func() { c.CloseIdle(); srv.Close(); <-done })
	return c, &conns
}

func TestCall(t *testing.T) {
	c, conns := serve(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.Method != http.MethodPost || q.Get("Action") != "Encrypt" || q.Get("Version") != kmswire.APIVersion {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		plaintext, err := base64.StdEncoding.DecodeString(q.Get("Plaintext"))
		if err != nil {
			t.Error(err)
		}
		json.NewEncoder(w).Encode(kmswire.EncryptResponse{Answer: kmswire.Answer{RequestID: "r"}, KeyID: q.Get("KeyId"), CiphertextBlob: plaintext})
	})
	plaintext := bytes.Repeat([]byte{0xfb, 0xff, ' ', '+'}, kmswire.MaxPlaintext/4)
	for range 20 {
		var answer kmswire.EncryptResponse
		if err := Call(t.Context(), c, "Encrypt", &kmswire.EncryptRequest{KeyID: "alias/a b*~", Plaintext: plaintext}, &answer); err != nil {
			t.Fatal(err)
		}
		if answer.KeyID != "alias/a b*~" || answer.RequestID != "r" || !bytes.Equal(answer.CiphertextBlob, plaintext) {
			t.Fatalf("%+v", answer)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("20 calls took %d connections", n)
	}
}

func TestErrorAnswers(t *testing.T) {
	body, status := "", 0
	c, conns := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
	for _, row := range []struct {
		status int
		body   string
		want   Error
	}{
		{404, `{"RequestId":"r1","HostId":"h","Code":"Forbidden.KeyNotFound","Message":"The specified Key is not found.","HttpStatus":404}`,
			Error{"DescribeKey", "Forbidden.KeyNotFound", "The specified Key is not found.", "r1", 404}},
		{502, `<html>`, Error{"DescribeKey", "", "unexpected HTTP answer: 502 Bad Gateway", "", 502}},
		{500, ``, Error{"DescribeKey", "", "unexpected HTTP answer: 500 Internal Server Error", "", 500}},
		{204, ``, Error{"DescribeKey", "", "unexpected HTTP answer: 204 No Content", "", 204}},
	} {
		body, status = row.body, row.status
		err := Call(t.Context(), c, "DescribeKey", &kmswire.DescribeKeyRequest{KeyID: "x"}, nil)
		if e, ok := errors.AsType[*Error](err); !ok || *e != row.want {
			t.Errorf("%d %s: %#v", row.status, row.body, err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("error answers cost connections: %d", n)
	}
	for _, text := range []string{"", "null garbage", `{"KeyId": 3`, `[]`} {
		body, status = text, 200
		var answer kmswire.DescribeKeyResponse
		if err := Call(t.Context(), c, "DescribeKey", &kmswire.DescribeKeyRequest{KeyID: "x"}, &answer); err == nil {
			t.Errorf("the answer %q is taken for good", text)
		}
	}
}

func TestUnreachable(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	err := Call(t.Context(), &Client{Socket: missing}, "ListKeys", nil, nil)
	if e, ok := errors.AsType[*UnreachableError](err); !ok || e.Socket != missing || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if want := "cannot connect to " + missing + ": no such file or directory"; err.Error() != want {
		t.Errorf("%v", err)
	}
	own := errors.New("test dial")
	err = Call(t.Context(), &Client{Dial: func(context.Context) (net.Conn, error) { return nil, own }}, "ListKeys", nil, nil)
	if e, ok := errors.AsType[*UnreachableError](err); !ok || e.Socket != DefaultSocket || !errors.Is(err, own) {
		t.Errorf("%v", err)
	}
}

func TestDeadline(t *testing.T) {
	release := make(chan struct{})
	c, _ := serve(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := Call(ctx, c, "ListKeys", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestCallParams(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"Got":%q,"New":1}`, r.URL.Query().Get("Any"))
	})
	params := url.Values{"Any": {"x y"}}
	answer, err := CallParams(t.Context(), c, "Newer", params)
	if err != nil || string(answer) != `{"Got":"x y","New":1}` {
		t.Errorf("%s, %v", answer, err)
	}
	if len(params) != 1 {
		t.Errorf("the caller's parameters were changed: %v", params)
	}
}

func TestJSONBatch(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Items []kmswire.BatchSignItem }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Items == nil || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%v %v", err, r.Header)
		}
		answer := kmswire.BatchSignResponse{KeyID: r.URL.Query().Get("KeyId"), Items: []kmswire.BatchSignResult{}}
		for i, item := range body.Items {
			if i == 1 {
				answer.Items = append(answer.Items, kmswire.BatchSignResult{ItemError: &kmswire.ItemError{Code: "InvalidParameter", Message: "no"}})
				continue
			}
			answer.Items = append(answer.Items, kmswire.BatchSignResult{Value: item.Digest})
		}
		json.NewEncoder(w).Encode(answer)
	})
	var answer kmswire.BatchSignResponse
	req := &kmswire.BatchSignRequest{KeyID: "k", Items: []kmswire.BatchSignItem{{Digest: []byte("a")}, {}, {Digest: []byte("c")}}}
	if err := Call(t.Context(), c, "BatchSign", req, &answer); err != nil {
		t.Fatal(err)
	}
	if len(answer.Items) != 3 || string(answer.Items[2].Value) != "c" || answer.Items[1].ItemError == nil || answer.Items[1].Code != "InvalidParameter" {
		t.Errorf("%+v", answer)
	}
	if err := Call(t.Context(), c, "BatchSign", &kmswire.BatchSignRequest{KeyID: "k"}, &answer); err != nil || len(answer.Items) != 0 {
		t.Errorf("an empty batch: %v %+v", err, answer)
	}
}

// echoOctets answers every octet item at once: good with the item itself, or failed when it is "bad".
func echoOctets(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil {
		panic(err)
	}
	// Else the server would wait for more of a body that it was told to drop.
	defer rc.SetReadDeadline(time.Now())
	in := bufio.NewReader(r.Body)
	for {
		var head [4]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		item := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(in, item); err != nil {
			panic(http.ErrAbortHandler)
		}
		status := byte(0)
		switch string(item) {
		case "bad":
			status, item = 1, []byte(`{"Code":"InvalidParameter","Message":"bad item"}`)
		case "mute":
			status, item = 1, []byte(`{}`)
		case "abort":
			panic(http.ErrAbortHandler)
		}
		if err := WriteOctetResult(w, status, item); err != nil {
			return
		}
		if in.Buffered() == 0 {
			rc.Flush()
		}
	}
}

// TestOctetsPingPong sends an item only after the answer to the one before: both directions must be open at once.
func TestOctetsPingPong(t *testing.T) {
	c, _ := serve(t, echoOctets)
	b, err := c.OpenOctets(t.Context(), "BatchEncrypt", &kmswire.BatchEncryptRequest{KeyID: "k"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for i := range 50 {
		item := bytes.Repeat([]byte{byte(i)}, i*100)
		if err := errors.Join(b.Send(item), b.Flush()); err != nil {
			t.Fatal(err)
		}
		got, failed, err := b.Recv()
		if err != nil || failed != nil || !bytes.Equal(got, item) {
			t.Fatalf("item %d: %v %v", i, failed, err)
		}
	}
	if err := errors.Join(b.Send([]byte("bad")), b.CloseSend()); err != nil {
		t.Fatal(err)
	}
	if _, failed, err := b.Recv(); err != nil || failed == nil || failed.Code != "InvalidParameter" || failed.Message != "bad item" {
		t.Errorf("%v %v", failed, err)
	}
	if _, _, err := b.Recv(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
}

// TestOctetsManyAtOnce sends far more than any buffer holds while another goroutine receives.
func TestOctetsManyAtOnce(t *testing.T) {
	c, _ := serve(t, echoOctets)
	b, err := c.OpenOctets(t.Context(), "BatchEncrypt", &kmswire.BatchEncryptRequest{KeyID: "k"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	const items = 20000
	sent := make(chan error, 1)
	go func() {
		item := make([]byte, 1024)
		for i := range items {
			binary.BigEndian.PutUint32(item, uint32(i))
			if err := b.Send(item); err != nil {
				sent <- err
				return
			}
		}
		sent <- b.CloseSend()
	}()
	for i := range items {
		got, failed, err := b.Recv()
		if err != nil || failed != nil || binary.BigEndian.Uint32(got) != uint32(i) {
			t.Fatalf("item %d: %v %v", i, failed, err)
		}
	}
	if _, _, err := b.Recv(); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestOctetsBrokenOff(t *testing.T) {
	c, _ := serve(t, echoOctets)
	for last, want := range map[string]string{"abort": "", "mute": "carries no error"} {
		b, err := c.OpenOctets(t.Context(), "BatchEncrypt", &kmswire.BatchEncryptRequest{KeyID: "k"})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.Send([]byte("good")), b.Flush()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.Recv(); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.Send([]byte(last)), b.Flush()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.Recv(); err == nil || err == io.EOF || !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("%s: %v", last, err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A receiver that waits while nothing is sent hears of the end, of its context as of the connection, before and after the answer's head.
func TestOctetsEndWhileWaiting(t *testing.T) {
	var head string
	conns := make(chan net.Conn, 1)
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.ReadFull(r.Body, make([]byte, 4))
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
		}
		io.WriteString(conn, head)
		conns <- conn
	})
	for _, row := range []struct {
		head   string
		hangUp bool
	}{{"", false}, {"", true}, {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false}, {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true}} {
		head = row.head
		ctx, cancel := context.WithCancel(t.Context())
		b, err := c.OpenOctets(ctx, "BatchEncrypt", &kmswire.BatchEncryptRequest{KeyID: "k"})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.Send(nil), b.Flush()); err != nil {
			t.Fatal(err)
		}
		conn := <-conns
		if row.hangUp {
			conn.Close()
		} else {
			cancel()
		}
		if _, _, err := b.Recv(); err == nil || err == io.EOF || !row.hangUp && !errors.Is(err, context.Canceled) {
			t.Errorf("%+v: %v", row, err)
		}
		b.Close()
		conn.Close()
		cancel()
	}

	// The same of a stream whose items come from somebody who waits.
	head = ""
	items, end := io.Pipe()
	defer end.Close()
	go end.Write(make([]byte, 4))
	go func() { (<-conns).Close() }()
	if results, err := c.Stream(t.Context(), "BatchEncrypt", &kmswire.BatchEncryptRequest{KeyID: "k"}, Octets, items); err == nil {
		results.Close()
		t.Error("a stream goes on without its connection")
	}
}

// TestStreamRefused: the answer no comes before the items are read, and both sides of the client hear of it.
func TestStreamRefused(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(403)
		io.WriteString(w, `{"Code":"Forbidden.NoPermission","Message":"no"}`)
	})
	b, err := c.OpenOctets(t.Context(), "BatchEncrypt", &kmswire.BatchEncryptRequest{KeyID: "k"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, _, err := b.Recv(); !isCode(err, "Forbidden.NoPermission") {
		t.Errorf("receiving: %v", err)
	}
	item := make([]byte, 1<<16)
	for err == nil {
		err = b.Send(item)
	}
	if !isCode(err, "Forbidden.NoPermission") {
		t.Errorf("sending: %v", err)
	}
	pr, pw := io.Pipe() // a body that never comes
	defer pw.Close()
	if _, err := c.Stream(t.Context(), "BatchEncrypt", nil, NDJSON, pr); !isCode(err, "Forbidden.NoPermission") {
		t.Errorf("stream: %v", err)
	}
	gone := &Client{Socket: filepath.Join(t.TempDir(), "none")}
	if b, err = gone.OpenOctets(t.Context(), "BatchEncrypt", nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Recv(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no daemon: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func isCode(err error, code string) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == code
}

func TestLines(t *testing.T) {
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if err := rc.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		in := bufio.NewScanner(r.Body)
		for in.Scan() {
			var item kmswire.BatchEncryptItem
			if err := json.Unmarshal(in.Bytes(), &item); err != nil {
				fmt.Fprintln(w, `{"Code":"InvalidParameter","Message":"no JSON"}`)
			} else {
				json.NewEncoder(w).Encode(kmswire.BatchEncryptResult{CiphertextBlob: item.Plaintext})
			}
			rc.Flush()
		}
	})
	b, err := c.OpenLines(t.Context(), "BatchEncrypt", &kmswire.BatchEncryptRequest{KeyID: "k"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, text := range []string{"a", "b"} {
		if err := errors.Join(b.Send(&kmswire.BatchEncryptItem{Plaintext: []byte(text)}), b.Flush()); err != nil {
			t.Fatal(err)
		}
		var result kmswire.BatchEncryptResult
		if err := b.Recv(&result); err != nil || string(result.CiphertextBlob) != text {
			t.Fatalf("%+v, %v", result, err)
		}
	}
	if err := errors.Join(b.Send("x"), b.CloseSend()); err != nil {
		t.Fatal(err)
	}
	var result kmswire.BatchEncryptResult
	if err := b.Recv(&result); err != nil || result.ItemError == nil || result.Code != "InvalidParameter" {
		t.Errorf("%+v, %v", result, err)
	}
	if err := b.Recv(&result); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
}

func TestReadOctetResult(t *testing.T) {
	for name, row := range map[string]struct {
		in   string
		want error
	}{
		"nothing":   {"", io.EOF},
		"cut head":  {"\x00\x00", io.ErrUnexpectedEOF},
		"no octets": {"\x00\x00\x00\x00\x02", io.ErrUnexpectedEOF},
		"cut":       {"\x00\x00\x00\x00\x02a", io.ErrUnexpectedEOF},
	} {
		if _, _, err := ReadOctetResult(bytes.NewReader([]byte(row.in)), nil); err != row.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, in := range []string{"\x02\x00\x00\x00\x00", "\x00\xff\xff\xff\xff"} {
		if _, _, err := ReadOctetResult(bytes.NewReader([]byte(in)), nil); err == nil {
			t.Errorf("%x is accepted", in)
		}
	}
}

// FuzzReadOctetResult: whatever a peer sends is a result that writes back the same, or an error.
func FuzzReadOctetResult(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x01a"))
	f.Add([]byte("\x01\x00\x00\x00\x02{}"))
	f.Fuzz(func(t *testing.T, in []byte) {
		status, octets, err := ReadOctetResult(bytes.NewReader(in), nil)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := WriteOctetResult(&out, status, octets); err != nil || !bytes.HasPrefix(in, out.Bytes()) {
			t.Fatalf("%x became %x, %v", in, out.Bytes(), err)
		}
	})
}

// signerServer serves one key with two versions; private is the newer.
func signerServer(t *testing.T, private crypto.Signer) *Client {
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		switch q.Get("Action") {
		case "ListKeyVersions":
			var answer kmswire.ListKeyVersionsResponse
			answer.TotalCount = 2
			date := map[string]string{"1": "2026-01-02T00:00:00Z", "2": "2026-01-01T00:00:00Z"}[q.Get("PageNumber")]
			answer.KeyVersions.KeyVersion = []kmswire.KeyVersion{{KeyVersionID: "v" + q.Get("PageNumber"), CreationDate: date}}
			json.NewEncoder(w).Encode(answer)
		case "GetPublicKey":
			json.NewEncoder(w).Encode(kmswire.GetPublicKeyResponse{KeyID: "key-1", KeyVersionID: q.Get("KeyVersionId"),
				PublicKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))})
		case "AsymmetricSign":
			if q.Get("KeyVersionId") != "v1" {
				t.Errorf("signs with %s", q.Get("KeyVersionId"))
			}
			digest, err := base64.StdEncoding.DecodeString(q.Get("Digest"))
			if err != nil {
				t.Error(err)
			}
			var opts crypto.SignerOpts = crypto.SHA256
			if q.Get("Algorithm") == string(kmswire.RSAPSSSHA256) {
				opts = &rsa.PSSOptions{SaltLength: 32, Hash: crypto.SHA256}
			}
			value, err := private.Sign(rand.Reader, digest, opts)
			if err != nil {
				t.Error(err)
			}
			json.NewEncoder(w).Encode(kmswire.AsymmetricSignResponse{Value: value})
		}
	})
	return c
}

func TestSigner(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("message"))
	s, err := NewSigner(t.Context(), signerServer(t, rsaKey), "alias/r", "")
	if err != nil {
		t.Fatal(err)
	}
	if key, version := s.KeyVersion(); key != "key-1" || version != "v1" {
		t.Errorf("signs with %s, %s", key, version)
	}
	sig, err := s.Sign(nil, digest[:], crypto.SHA256)
	if err != nil || rsa.VerifyPKCS1v15(&rsaKey.PublicKey, crypto.SHA256, digest[:], sig) != nil {
		t.Errorf("PKCS1: %v", err)
	}
	pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	sig, err = s.Sign(nil, digest[:], pss)
	if err != nil || rsa.VerifyPSS(&rsaKey.PublicKey, crypto.SHA256, digest[:], sig, pss) != nil {
		t.Errorf("PSS: %v", err)
	}
	for name, bad := range map[string]struct {
		digest []byte
		opts   crypto.SignerOpts
	}{
		"SHA-384":     {make([]byte, 48), crypto.SHA384},
		"no options":  {digest[:], nil},
		"short":       {digest[:31], crypto.SHA256},
		"salt length": {digest[:], &rsa.PSSOptions{SaltLength: 20, Hash: crypto.SHA256}},
	} {
		if _, err := s.Sign(nil, bad.digest, bad.opts); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	s, err = NewSigner(t.Context(), signerServer(t, ecKey), "alias/e", "v1")
	if err != nil {
		t.Fatal(err)
	}
	sig, err = s.Sign(nil, digest[:], crypto.SHA256)
	if err != nil || !ecdsa.VerifyASN1(&ecKey.PublicKey, digest[:], sig) {
		t.Errorf("ECDSA: %v", err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewSigner(t.Context(), signerServer(t, p384), "alias/e", "v1"); err == nil {
		t.Error("a Signer of P-384")
	}
}
