package ctl

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

func TestBatchLines(t *testing.T) {
	d := startFake(t)
	d.must(t, "key", "create", "--alias", "a")
	var in strings.Builder
	for i := range 3000 {
		text := fmt.Sprint("item ", i)
		if i == 7 {
			text = "bad"
		}
		fmt.Fprintf(&in, "{\"Plaintext\":%q}\n", base64.StdEncoding.EncodeToString([]byte(text)))
	}
	code, out, talk := d.ctl(t, in.String(), "batch", "encrypt", "--key", "alias/a")
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if code != exitFailure || len(lines) != 3000 || talk != "3000 items, 1 failed\n" {
		t.Fatalf("%d, %d lines, %q", code, len(lines), talk)
	}
	for i, line := range lines {
		var result kmswire.BatchEncryptResult
		if err := json.Unmarshal([]byte(line), &result); err != nil {
			t.Fatal(err)
		}
		if i == 7 {
			if result.ItemError == nil {
				t.Error("the bad item has no error")
			}
			continue
		}
		if _, _, plaintext, no := d.open(result.CiphertextBlob, nil); no != nil || string(plaintext) != fmt.Sprint("item ", i) {
			t.Fatalf("item %d: %q %v", i, plaintext, no)
		}
	}
	if code, out, _ = d.ctl(t, "", "batch", "encrypt", "--key", "alias/a"); code != exitOK || out != "" {
		t.Errorf("no items: %d %q", code, out)
	}
	if code, _, stderr := d.ctl(t, in.String(), "batch", "encrypt", "--key", "alias/none"); code != exitNotFound {
		t.Errorf("no key: %d %q", code, stderr)
	}
}

// TestBatchAnswersAtOnce: a program that sends an item and waits for its result gets it while the input stays open.
func TestBatchAnswersAtOnce(t *testing.T) {
	d := startFake(t)
	d.must(t, "key", "create", "--alias", "a")
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(t.Context(), []string{"--socket", d.socket, "-q", "batch", "encrypt", "-k", "alias/a"}, inR, outW, io.Discard)
		outW.Close()
	}()
	out := bufio.NewReader(outR)
	for range 3 {
		io.WriteString(inW, `{"Plaintext":"YQ=="}`+"\n")
		if line, err := out.ReadString('\n'); err != nil || !strings.Contains(line, "CiphertextBlob") {
			t.Fatalf("%q, %v", line, err)
		}
	}
	inW.Close()
	if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 || <-code != exitOK {
		t.Errorf("%q, %v", rest, err)
	}
}

// TestBatchRefusedAtOnce: a refusal does not wait for input that never comes.
func TestBatchRefusedAtOnce(t *testing.T) {
	d := startFake(t)
	d.refuse["BatchEncrypt"] = problem(403, "Forbidden.NoPermission", "This operation is forbidden by permission system.")
	inR, inW := io.Pipe()
	defer inW.Close()
	if code, _, stderr := d.ctlFrom(t, inR, "batch", "encrypt", "-k", "alias/a"); code != exitDenied || !strings.Contains(stderr, "[[peer]]") {
		t.Errorf("%d %q", code, stderr)
	}
}

func TestBatchOctets(t *testing.T) {
	d := startFake(t)
	d.must(t, "key", "create", "--alias", "rsa", "--spec", "EC_P256")
	var in bytes.Buffer
	for i := range 50 {
		item := bytes.Repeat([]byte{byte(i)}, 32)
		if i == 3 {
			item = []byte("bad")
		}
		binary.Write(&in, binary.BigEndian, uint32(len(item)))
		in.Write(item)
	}
	code, out, talk := d.ctlFrom(t, &in, "batch", "sign", "--key", "alias/rsa", "--format", "octets")
	if code != exitFailure || talk != "50 items, 1 failed\n" {
		t.Fatalf("%d %q", code, talk)
	}
	r := strings.NewReader(out)
	for i := range 50 {
		status, octets, err := kmsclient.ReadOctetResult(r, nil)
		if err != nil || (status == 1) != (i == 3) {
			t.Fatalf("item %d: %d, %v", i, status, err)
		}
		if status == 0 && !d.keys[0].versions[0].verify(kmswire.ECDSASHA256, bytes.Repeat([]byte{byte(i)}, 32), octets) {
			t.Errorf("item %d has another signature", i)
		}
	}
	if r.Len() > 0 {
		t.Errorf("%d octets are left", r.Len())
	}
	// An item that is cut breaks the stream off, and that is told.
	code, _, stderr := d.ctl(t, "\x00\x00\x00\x20short", "batch", "sign", "--key", "alias/rsa", "--format", "octets")
	if code != exitFailure || stderr == "" {
		t.Errorf("cut: %d %q", code, stderr)
	}
}

func TestCopyLines(t *testing.T) {
	for in, want := range map[string]string{
		"{\"a\":1}\n{\"Code\":\"X\"}\n":   "2 1 <nil>",
		"{\"CiphertextBlob\":\"Code\"}\n": "1 0 <nil>",
		"{\"a\":1}\n{\"a\"":               "1 0 unexpected EOF",
		"":                                "0 0 <nil>",
	} {
		items, failed, err := copyLines(io.Discard, strings.NewReader(in))
		if got := fmt.Sprint(items, failed, err); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	if _, _, err := copyLines(io.Discard, io.LimitReader(readerFunc(func(p []byte) (int, error) { return len(p), nil }), 2*bufferSize)); err == nil {
		t.Error("a line without an end is accepted")
	}
}

func TestBench(t *testing.T) {
	d := startFake(t)
	dir := t.TempDir()
	reference := fmt.Sprintf("cd %s; echo x >> runs; echo '{\"seconds\":1,\"rates\":[{\"engine\":\"libcrypto\",\"operation\":\"sign EC_P256\",\"threads\":1,\"per_second\":1000},"+
		"{\"engine\":\"libcrypto\",\"operation\":\"sign EC_P256\",\"threads\":2,\"per_second\":2000}]}'; wc -l < runs >&2", dir)
	code, out, talk := d.ctl(t, "", "bench", "--row", "software (encrypt|sign p-256)", "--duration", "200ms", "--clients", "3", "--direct", reference, "-o", "json")
	if code != exitOK || !strings.Contains(talk, "(after)\n2\n") {
		t.Fatalf("%d %s", code, talk)
	}
	var whole struct{ Rows []benchResult }
	if err := json.Unmarshal([]byte(out), &whole); err != nil || len(whole.Rows) != 10 {
		t.Fatalf("%v %s", err, out)
	}
	for _, r := range whole.Rows {
		if r.Items == 0 || r.OpsPerSecond <= 0 || r.Failed != 0 || r.Calls == 0 {
			t.Errorf("%+v", r)
		}
		latency := r.Mode == "latency"
		if latency != (r.P50 > 0) || r.P50 > r.P90 || r.P90 > r.P99 || latency != (r.Clients == 1) {
			t.Errorf("%+v", r)
		}
		if want := r.Mode == "throughput" && strings.Contains(r.Name, "p-256"); want != (r.Direct == 2000) || want != (r.Ratio > 0) {
			t.Errorf("%+v", r)
		}
		if strings.Contains(r.Name, "json") && r.Items != 100*r.Calls {
			t.Errorf("%+v", r)
		}
	}
	keys := len(d.keys)
	out, talk = d.must(t, "bench", "--mode", "throughput", "--row", "encrypt 1KiB single", "--duration", "10ms")
	if len(d.keys) != keys || !strings.Contains(talk, "no hardware instance") || strings.Count(out, "\n") != 2 {
		t.Errorf("%d keys, %q\n%s", len(d.keys), talk, out)
	}
	d.refuse["Encrypt"] = problem(409, "Rejected.Disabled", "no")
	if code, _, stderr := d.ctl(t, "", "bench", "--row", "software encrypt 1KiB single", "--duration", "200ms"); code != exitFailure || !strings.Contains(stderr, "Rejected.Disabled") {
		t.Errorf("%d %q", code, stderr)
	}
	for command, want := range map[string]string{"exit 3": "exit status 3", "echo x": "not the JSON", "echo '{}'": "no rates"} {
		if code, _, stderr := d.ctl(t, "", "bench", "--row", "software encrypt", "--direct", command); code != exitFailure || !strings.Contains(stderr, want) {
			t.Errorf("%s: %d %q", command, code, stderr)
		}
	}
}

// TestBenchRows holds the names: people compare them between releases.
func TestBenchRows(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range benchRows {
		if seen[r.name] || !strings.HasPrefix(r.name, r.instance+" ") || !strings.HasSuffix(r.name, map[string]string{single: " single", jsonBatch: " json-100", octetFlow: " octets"}[r.form]) {
			t.Errorf("row %q", r.name)
		}
		seen[r.name] = true
		if (r.algorithm == "") != strings.Contains(r.name, "encrypt") || r.engine == "" || r.operation == "" {
			t.Errorf("row %q is %+v", r.name, r)
		}
	}
	for _, want := range []string{"software encrypt 1KiB single", "hardware encrypt 1KiB octets", "software sign rsa-2048 single", "hardware sign p-256 octets"} {
		if !seen[want] {
			t.Errorf("there is no row %q any more", want)
		}
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	if h.quantile(0.5) != 0 {
		t.Error("an empty histogram has a median")
	}
	for i := 1; i <= 1000; i++ {
		h.add(time.Duration(i) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0: time.Millisecond, 0.5: 500 * time.Millisecond, 0.99: 990 * time.Millisecond, 1: time.Second} {
		if got := h.quantile(q); float64(got) < 0.97*float64(want) || float64(got) > 1.03*float64(want) {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	h.add(0)
	h.add(-time.Second)
	h.add(1000 * time.Hour)
}
