package kmsapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
)

// A service of our own stands behind the door in these tests. Key "k" works; key "code" fails with the code that the
// description of the actor's unit names; key "panic" panics.

var testActor = &kms.Actor{Principal: "acs:ram::1000000000000001:root", Account: "1000000000000001"}

var errForTest error // what key "error" fails with; tests that use it do not run in parallel

func stubKey(actor *kms.Actor, keyID string, dryRun bool) error {
	switch {
	case actor.Principal != testActor.Principal || actor.Account != testActor.Account:
		return errors.New("another actor came through")
	case keyID == "panic":
		panic("stub panics")
	case keyID == "error":
		return errForTest
	case keyID == "nothing":
		return nil
	case keyID != "k":
		return kms.Errorf(kms.KeyNotFound, "")
	case dryRun:
		return kms.Errorf(kms.DryRunSucceeded, "")
	}
	return nil
}

// flip is the stub's cipher: it is its own inverse.
func flip(b []byte) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[i] = ^b[i]
	}
	return out
}

func stubEncrypt(_ *kms.Service, _ context.Context, actor *kms.Actor, req *kmswire.EncryptRequest) (*kmswire.EncryptResponse, error) {
	if err := stubKey(actor, req.KeyID, req.DryRun); err != nil || req.KeyID == "nothing" {
		return nil, err
	}
	return &kmswire.EncryptResponse{KeyID: "k", KeyVersionID: "k-1", CiphertextBlob: append(flip(req.Plaintext), req.EncryptionContext["a"]...)}, nil
}

func stubDecrypt(_ *kms.Service, _ context.Context, _ *kms.Actor, req *kmswire.DecryptRequest) (*kmswire.DecryptResponse, error) {
	return &kmswire.DecryptResponse{KeyID: "k", KeyVersionID: "k-1", Plaintext: flip(req.CiphertextBlob)}, nil
}

func stubListKeys(_ *kms.Service, _ context.Context, _ *kms.Actor, req *kmswire.ListKeysRequest) (*kmswire.ListKeysResponse, error) {
	return &kmswire.ListKeysResponse{Paged: kmswire.Paged{PageNumber: req.PageNumber, PageSize: req.PageSize}}, nil
}

func stubEnableKey(_ *kms.Service, ctx context.Context, actor *kms.Actor, req *kmswire.EnableKeyRequest) (*kmswire.EmptyResponse, error) {
	if req.KeyID == "wait" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &kmswire.EmptyResponse{}, stubKey(actor, req.KeyID, false)
}

func stubDataKeys(_ *kms.Service, _ context.Context, _ *kms.Actor, req *kmswire.BatchGenerateDataKeyRequest) (*kmswire.BatchGenerateDataKeyResponse, error) {
	if req.Count == 1 {
		return &kmswire.BatchGenerateDataKeyResponse{}, nil
	}
	return &kmswire.BatchGenerateDataKeyResponse{Items: []kmswire.BatchDataKey{
		{Plaintext: []byte{1}, CiphertextBlob: []byte{2}}, {ItemError: &kmswire.ItemError{Err: kms.Errorf(kms.Throttled, "")}}}}, nil
}

// The batch stubs fail an item whose first octet is 'x', and the whole call as stubKey does, or from the item "stop" on.

func stubBatchEncrypt(_ *kms.Service, ctx context.Context, actor *kms.Actor, req *kmswire.BatchEncryptRequest) (*kmswire.BatchEncryptResponse, error) {
	if err := stubKey(actor, req.KeyID, req.DryRun); err != nil {
		return nil, err
	}
	if len(req.Items) == 0 || len(req.Items) > kmswire.MaxBatchItems {
		return nil, errors.New("bad number of items")
	}
	resp := &kmswire.BatchEncryptResponse{KeyID: "k", KeyVersionID: "k-1"}
	for _, item := range req.Items {
		var r kmswire.BatchEncryptResult
		switch {
		case string(item.Plaintext) == "stop":
			return nil, kms.Errorf(kms.KeyDisabled, "")
		case string(item.Plaintext) == "hang":
			<-ctx.Done()
			return nil, ctx.Err()
		case item.Plaintext[0] == 'x':
			r.ItemError = &kmswire.ItemError{Err: kms.Errorf(kms.Throttled, "")}
		default:
			aad := item.EncryptionContext
			if aad == nil {
				aad = req.EncryptionContext
			}
			r.CiphertextBlob = append(flip(item.Plaintext), aad["a"]...)
		}
		resp.Items = append(resp.Items, r)
	}
	return resp, nil
}

func stubBatchDecrypt(_ *kms.Service, _ context.Context, _ *kms.Actor, req *kmswire.BatchDecryptRequest) (*kmswire.BatchDecryptResponse, error) {
	resp := &kmswire.BatchDecryptResponse{}
	for _, item := range req.Items {
		resp.Items = append(resp.Items, kmswire.BatchDecryptResult{KeyID: "k", KeyVersionID: "k-1", Plaintext: flip(item.CiphertextBlob)})
	}
	return resp, nil
}

var panicked atomic.Bool // makes stubBatchSign panic

func stubBatchSign(_ *kms.Service, _ context.Context, _ *kms.Actor, req *kmswire.BatchSignRequest) (*kmswire.BatchSignResponse, error) {
	if panicked.Load() {
		panic("stub panics")
	}
	resp := &kmswire.BatchSignResponse{KeyID: req.KeyID, KeyVersionID: req.KeyVersionID}
	if req.KeyVersionID == "short" {
		return resp, nil // fewer results than items
	}
	for _, item := range req.Items {
		resp.Items = append(resp.Items, kmswire.BatchSignResult{Value: flip(item.Digest)})
	}
	return resp, nil
}

func stubBatchVerify(_ *kms.Service, _ context.Context, _ *kms.Actor, req *kmswire.BatchVerifyRequest) (*kmswire.BatchVerifyResponse, error) {
	resp := &kmswire.BatchVerifyResponse{}
	for _, item := range req.Items {
		good := bytes.Equal(item.Digest, flip(item.Value))
		resp.Items = append(resp.Items, kmswire.BatchVerifyResult{Value: &good})
	}
	return resp, nil
}

func testTable() []operation {
	return []operation{
		batchOp("BatchDecrypt", stubBatchDecrypt, decryptItems),
		batchOp("BatchEncrypt", stubBatchEncrypt, encryptItems).within(2 * time.Second),
		op("BatchGenerateDataKey", stubDataKeys),
		batchOp("BatchSign", stubBatchSign, signItems),
		batchOp("BatchVerify", stubBatchVerify, verifyItems),
		hotOp("Decrypt", stubDecrypt, decodeDecrypt, appendDecrypt),
		op("EnableKey", stubEnableKey).within(50 * time.Millisecond),
		hotOp("Encrypt", stubEncrypt, decodeEncrypt, appendEncrypt),
		op("ListKeys", stubListKeys),
	}
}

// testServer is a real HTTP server at a Unix socket, and a client for it.
type testServer struct {
	*http.Client
	socket string
	log    *bytes.Buffer // to be read when no call is running
}

func newTestServer(t testing.TB, opts Options) *testServer {
	return newTestServerAs(t, opts, testActor)
}

func newTestServerAs(t testing.TB, opts Options, actor *kms.Actor) *testServer {
	s := &testServer{socket: filepath.Join(t.TempDir(), "s"), log: &bytes.Buffer{}}
	opts.Log = zerolog.New(zerolog.SyncWriter(s.log))
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: newHandler(nil, opts, testTable()), ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
		if actor == nil {
			return ctx
		}
		return WithActor(ctx, actor)
	}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l)
	}()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.socket)
	}}
	s.Client = &http.Client{Transport: transport, Timeout: 30 * time.Second}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = server.Close()
		<-ended
	})
	return s
}

// request makes a request; head is "Name: value" lines.
func request(t testing.TB, method, target, body string, head ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, "http://keyward.test"+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range head {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	return r
}

// do gives status, header and body.
func (s *testServer) do(t testing.TB, r *http.Request) (int, http.Header, string) {
	t.Helper()
	resp, err := s.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

// errorCode checks that an answer is a whole error body, and gives its code.
func errorCode(t testing.TB, status int, header http.Header, body string) string {
	t.Helper()
	var e kmswire.ErrorBody
	d := json.NewDecoder(strings.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		t.Fatalf("%d %q: %v", status, body, err)
	}
	if e.HTTPStatus != status || e.Code == "" || e.Message == "" || e.HostID != "keyward.test" || len(e.RequestID) != 36 ||
		header.Get("X-Acs-Request-Id") != e.RequestID || header.Get("Content-Type") != "application/json;charset=utf-8" {
		t.Fatalf("%d %v %q", status, header, body)
	}
	return e.Code
}
