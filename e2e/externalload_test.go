package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/hsmpool/hsmtest/faulty"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/xki"
	"github.com/keyward/keyward/xki/xkisign"
)

// BenchmarkProxy sends a proxy 1,800 requests a second, AWS's quota of a key store, half of them to encrypt (with the integrity value that needs
// a second operation of the HSM) and half to decrypt, without waiting for answers to send the next. Its two members take 2 ms a call. Nothing is tried again,
// and what has no answer after 250 ms has failed, as AWS sees it. In "killed", the processes of one member are killed half-way, and their HSM is gone
// from then on. KEYWARD_BENCH_SECONDS is how long it lasts.
func BenchmarkProxy(b *testing.B) {
	seconds := 1
	if text := os.Getenv("KEYWARD_BENCH_SECONDS"); text != "" {
		var err error
		if seconds, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	for name, killed := range map[string]bool{"2ms": false, "killed": true} {
		b.Run(name, func(b *testing.B) {
			l := startLoaded(b)
			for b.Loop() {
				half := time.AfterFunc(time.Duration(seconds)*time.Second/2, func() {
					if killed {
						l.killEast()
					}
				})
				l.run(b, 1800, seconds)
				half.Stop()
				if east := l.members()[0]; killed && east.State.Serves() {
					b.Errorf("east was to be gone, and is %s", east.State)
				}
			}
		})
	}
}

// loaded is a proxy under load.
type loaded struct {
	b        *testing.B
	process  *process
	east     *faulty.Module
	endpoint string
	client   *http.Client
	id       string
	secret   []byte
	mu       sync.Mutex
	took     []time.Duration // guarded by mu, as are all below
	failures map[string]int
}

func startLoaded(b *testing.B) *loaded {
	b.Helper()
	programs, err := build()
	if err != nil {
		b.Fatal(err)
	}
	dir := shortDir(b)
	startDev(b, programs.keywardd, dir).stop()
	k := filepath.Join(dir, "k")
	path := filepath.Join(k, "keyward.toml")
	config, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	l := &loaded{b: b, east: faulty.New(b, hsmtest.Module)}
	west := faulty.New(b, hsmtest.Module)
	for _, m := range []*faulty.Module{l.east, west} {
		at := bytes.Index(config, []byte("module = \""))
		end := at + bytes.IndexByte(config[at:], '\n')
		// The next one found is the other member's.
		config = slices.Concat(config[:at], []byte(fmt.Sprintf("library = %q", m.Path)), config[end:])
	}
	config = bytes.ReplaceAll(config, []byte("library = "), []byte("module = "))
	address := freeAddress(b)
	ca := serverCertificate(b, dir)
	config = fmt.Appendf(config, "\n[[listener]]\naddress = %q\nserves = \"xki\"\ncert_file = \"%[2]s/cert.pem\"\nkey_file = \"%[2]s/key.pem\"\n", address, dir)
	if err := os.WriteFile(path, config, 0o600); err != nil {
		b.Fatal(err)
	}
	// From the start: what was fast before would teach the pool that they have become slow.
	for _, m := range []*faulty.Module{l.east, west} {
		m.Delay("C_Encrypt", 2*time.Millisecond, 0)
		m.Delay("C_Decrypt", 2*time.Millisecond, 0)
	}
	l.process = startDev(b, programs.keywardd, dir)
	key := createKey(b, l.process, kmswire.CreateKeyRequest{DKMSInstanceID: "kst-hardware"})
	client := admin.NewClient(l.process.socket)
	defer client.Close()
	if _, err := client.CreateXKIPrefix(b.Context(), &admin.XKIPrefixRequest{Name: "load", Keys: map[string]string{"k": key}}); err != nil {
		b.Fatal(err)
	}
	credential, err := client.CreateXKICredential(b.Context(), "load")
	if err != nil {
		b.Fatal(err)
	}
	l.id, l.secret, l.endpoint = credential.ID, credential.Secret, "https://"+address
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ca))
	// HTTP/1.1, as AWS speaks it: a connection for each request that is under way.
	l.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 1000}}
	b.Cleanup(l.client.CloseIdleConnections)
	return l
}

// killEast ends the processes of the member east, which can't come back.
func (l *loaded) killEast() {
	for _, fn := range []string{"C_Initialize", "C_GetSlotList", "C_OpenSession"} {
		l.east.Fail(fn, pkcs11.CKR_DEVICE_REMOVED, faulty.Before, faulty.Always)
	}
	killed := 0
	for _, w := range l.members()[0].Workers {
		killed++
		if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
			l.b.Error(err)
		}
	}
	if killed == 0 {
		l.b.Error("east has no process to kill")
	}
}

// members gives east and west.
func (l *loaded) members() []admin.Member {
	client := admin.NewClient(l.process.socket)
	defer client.Close()
	all, err := client.Members(context.Background())
	if err != nil || len(all.Members) != 2 || all.Members[0].Name != "east" {
		panic(fmt.Sprint("no east and west: ", all, err))
	}
	return all.Members
}

// run sends the requests, and reports what became of them.
func (l *loaded) run(b *testing.B, perSecond, seconds int) {
	l.took, l.failures = nil, map[string]int{}
	plaintext := make([]byte, 32)
	rand.Read(plaintext)
	first, err := l.do(&xki.Request{Op: xki.OpEncrypt, Plaintext: plaintext, IntegrityAlgorithm: xki.IntegritySHA256})
	if err != nil {
		b.Fatal(err)
	}
	// Connections as a cloud has kept them.
	var warm sync.WaitGroup
	for range 64 {
		warm.Go(func() { _, _ = l.do(&xki.Request{Op: xki.OpDecrypt, Sealed: first.Sealed}) }) // failures show below
	}
	warm.Wait()
	began := time.Now()
	var all sync.WaitGroup
	for i := range perSecond * seconds {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(perSecond))
		time.Sleep(time.Until(due))
		all.Go(func() {
			r := &xki.Request{Op: xki.OpDecrypt, Sealed: first.Sealed}
			if i%2 == 0 {
				r = &xki.Request{Op: xki.OpEncrypt, Plaintext: plaintext, IntegrityAlgorithm: xki.IntegritySHA256}
			}
			a, err := l.do(r)
			if err == nil && r.Op == xki.OpDecrypt && !bytes.Equal(a.Plaintext, plaintext) {
				err = errors.New("another plaintext")
			}
			took := time.Since(due)
			if err == nil && took > xki.Budget {
				err = errors.New("later than 250 ms after it was due")
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.took = append(l.took, took)
			if err != nil {
				l.failures[err.Error()]++
			}
		})
	}
	all.Wait()
	rate := float64(len(l.took)) / time.Since(began).Seconds()
	slices.Sort(l.took)
	failed := 0
	for text, n := range l.failures {
		failed += n
		b.Logf("%d failed: %s", n, text)
	}
	at := func(share float64) float64 {
		return l.took[int(share*float64(len(l.took)-1))].Seconds() * 1000
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(rate, "requests/s")
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
	b.ReportMetric(at(0.999), "p99.9-ms")
	b.ReportMetric(at(1), "max-ms")
	b.ReportMetric(float64(failed), "failed")
}

var loadMetadata = xki.RequestMetadata{PrincipalARN: "arn:aws:iam::123456789012:user/Alice", KeyARN: "arn:aws:kms:eu-west-1:123456789012:key/1", Operation: "Decrypt", RequestID: "request"}

// do makes one request.
func (l *loaded) do(r *xki.Request) (*xki.Answer, error) {
	r.KeyID, r.Metadata, r.Algorithm = "k", loadMetadata, xki.AlgorithmGCM
	body, err := xki.XKSv1.EncodeRequest(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), xki.Budget)
	defer cancel()
	path := l.endpoint + "/load" + xki.XKSv1.Base() + "/keys/k/" + r.Op.String()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	xkisign.SigV4.Sign(req, body, xkisign.Signing{AccessKeyID: l.id, Secret: l.secret, Region: "eu-west-1", Time: time.Now()})
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("no answer: %s", strings.TrimSpace(err.Error()[strings.LastIndexByte(err.Error(), ':')+1:]))
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		var e struct{ ErrorName, ErrorMessage string }
		_ = json.Unmarshal(answer, &e)
		return nil, fmt.Errorf("%d %s %s", resp.StatusCode, e.ErrorName, e.ErrorMessage)
	}
	return xki.XKSv1.DecodeAnswer(r, answer)
}
