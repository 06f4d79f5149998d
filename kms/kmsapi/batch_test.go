package kmsapi

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/kms/kmswire"
)

const (
	headJSON   = "Content-Type: application/json"
	headLines  = "Content-Type: application/x-ndjson"
	headOctets = "Content-Type: application/vnd.keyward.batch"
	encryptURL = "/?Action=BatchEncrypt&KeyId=k"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestJSONBatch(t *testing.T) {
	s := newTestServer(t, Options{})
	body := `{"Items":[{"Plaintext":"` + b64("hi") + `"}, {"Plaintext":"` + b64("xx") + `"},` + // the second fails in the service
		`{"Plaintext":"a"}, {"Plain":""}, 7, {}, {"Plaintext":"aGk=","Plaintext":"aGk="}, {"plaintext":"aGk="}, {"Plaintext":1},` +
		`{"Plaintext":"aGk=","EncryptionContext":{"a":1}}, {"Plaintext":"","EncryptionContext":{}},` +
		`{"EncryptionContext":{"a":"\u0021"},"Plaintext":"aG\u006b="}]}`
	status, header, answer := s.do(t, request(t, "POST", encryptURL+`&EncryptionContext={"a":"?"}`, body, headJSON))
	var resp struct {
		RequestID           string `json:"RequestId"`
		KeyID, KeyVersionID string
		Items               []struct {
			CiphertextBlob []byte
			Code, Message  string
		}
	}
	if err := json.Unmarshal([]byte(answer), &resp); err != nil || status != 200 || resp.KeyID != "k" || resp.KeyVersionID != "k-1" || resp.RequestID != header.Get("X-Acs-Request-Id") {
		t.Fatalf("%d %s %v", status, answer, err)
	}
	want := []string{"~hi?", "Throttling", "InvalidParameter", "InvalidParameter", "InvalidParameter", "MissingParameter", "InvalidParameter",
		"InvalidParameter", "InvalidParameter", "InvalidParameter", "MissingParameter", "~hi!"}
	if len(resp.Items) != len(want) {
		t.Fatalf("%d items: %s", len(resp.Items), answer)
	}
	for i, item := range resp.Items {
		got := item.Code
		if n := len(item.CiphertextBlob); n > 0 {
			got = "~" + string(flip(item.CiphertextBlob[:n-1])) + string(item.CiphertextBlob[n-1])
		}
		if got != want[i] || (item.Code != "") != (item.Message != "") {
			t.Errorf("item %d: %+v, want %s", i, item, want[i])
		}
	}
}

func TestOtherBatches(t *testing.T) {
	s := newTestServer(t, Options{})
	for _, c := range []struct{ query, body, want string }{
		{"Action=BatchDecrypt", `{"Items":[{"CiphertextBlob":"l5Y="}]}`, `"Items":[{"KeyId":"k","KeyVersionId":"k-1","Plaintext":"aGk="}]}`},
		{"Action=BatchSign&KeyId=a&KeyVersionId=b&Algorithm=c", `{"Items":[{"Digest":"l5Y="}]}`, `"KeyId":"a","KeyVersionId":"b","Items":[{"Value":"aGk="}]}`},
		{"Action=BatchSign&KeyId=a&KeyVersionId=b&Algorithm=c", `{"Items":[{"Digest":"l5Y=","EncryptionContext":{}}]}`, `"KeyId":"","KeyVersionId":"","Items":[{"Code":"InvalidParameter","Message":`},
		{"Action=BatchVerify&KeyId=a&KeyVersionId=b&Algorithm=c", `{"Items":[{"Value":"l5Y=","Digest":"aGk="},{"Value":"l5Y=","Digest":"aGo="}]}`, `"Items":[{"Value":true},{"Value":false}]}`},
	} {
		status, _, answer := s.do(t, request(t, "POST", "/?"+c.query, c.body, headJSON))
		if status != 200 || !strings.Contains(answer, c.want) {
			t.Errorf("%s: %d %s", c.query, status, answer)
		}
	}
}

func TestBatchesRefusedAsAWhole(t *testing.T) {
	s := newTestServer(t, Options{})
	many := func(n int) string {
		return `{"Items":[` + strings.TrimSuffix(strings.Repeat(`{"Plaintext":"aGk="},`, n), ",") + `]}`
	}
	for _, c := range []struct {
		method, target, body, head string
		status                     int
		code                       string
	}{
		{"POST", encryptURL, many(1000), headJSON, 200, ""},
		{"POST", encryptURL, many(1001), headJSON, 400, "InvalidParameter"},
		{"POST", encryptURL, many(0), headJSON, 400, "MissingParameter"},
		{"POST", encryptURL, strings.Repeat(" ", kmswire.MaxBatchBody-len(many(1))) + many(1), headJSON, 200, ""},
		{"POST", encryptURL, strings.Repeat(" ", kmswire.MaxBatchBody-len(many(1))+1) + many(1), headJSON, 413, "RequestEntityTooLarge"},
		{"POST", encryptURL, many(1) + "x", headJSON, 400, "ParseRequestParameterException"},
		{"POST", encryptURL, `{"Items":[{]}`, headJSON, 400, "ParseRequestParameterException"},
		{"POST", encryptURL, `{"Items":[],"Items":[]}`, headJSON, 400, "ParseRequestParameterException"},
		{"POST", encryptURL, `{"items":[]}`, headJSON, 400, "ParseRequestParameterException"},
		{"POST", encryptURL, `{"Items":` + strings.Repeat("[", 1<<20), headJSON, 400, "ParseRequestParameterException"},
		{"POST", encryptURL, "{\"Items\":[{\"Plaintext\":\"\xff\"}]}", headJSON, 400, "ParseRequestParameterException"},
		{"POST", encryptURL, ``, headJSON, 400, "ParseRequestParameterException"},
		{"POST", encryptURL, many(1), form, 415, "UnsupportedMediaType"},
		{"POST", encryptURL, many(1), "X: y", 415, "UnsupportedMediaType"},
		{"GET", encryptURL, "", headJSON, 405, "UnsupportedHTTPMethod"},
		{"POST", encryptURL + "&Items=[]", many(1), headJSON, 400, "InvalidParameter"},
		{"POST", "/?Action=BatchEncrypt", many(1), headJSON, 400, "MissingParameter"},
		{"POST", "/?Action=BatchEncrypt&DryRun=true", many(1), headJSON, 400, "ValidationError"},
		{"POST", encryptURL + "&DryRun=true", many(1), headJSON, 400, "DryRunOperationError"},
		{"POST", encryptURL + "&DryRun=true", `{"Items":[{}]}`, headJSON, 400, "ValidationError"},
		{"POST", encryptURL + "&DryRun=true", `{"Items":[{"Plaintext":"aGk="},{"Plaintext":"?"}]}`, headJSON, 400, "ValidationError"},
		{"POST", encryptURL + "&DryRun=true", `{"Plaintext":"?"}`, headLines, 400, "ValidationError"},
		{"POST", encryptURL + "x", many(1), headJSON, 404, "Forbidden.KeyNotFound"},
		{"POST", "/?Action=BatchEncrypt&KeyId=panic", many(1), headJSON, 500, "InternalFailure"},
		{"POST", "/?Action=BatchSign&KeyId=k&KeyVersionId=short&Algorithm=a", `{"Items":[{"Digest":"aGk="}]}`, headJSON, 500, "InternalFailure"},
		// Streams say it the same way, as long as nothing was answered.
		{"POST", encryptURL + "x", `{"Plaintext":"aGk="}`, headLines, 404, "Forbidden.KeyNotFound"},
		{"POST", encryptURL + "&DryRun=true", `{"Plaintext":"aGk="}`, headLines, 400, "DryRunOperationError"},
		{"POST", encryptURL + "x", "\x00\x00\x00\x01y", headOctets, 404, "Forbidden.KeyNotFound"},
		{"POST", "/?Action=BatchEncrypt", "\x00\x00\x00\x01y", headOctets, 400, "MissingParameter"},
		{"POST", "/?Action=BatchEncrypt&KeyId=panic", "\x00\x00\x00\x01y", headOctets, 500, "InternalFailure"},
	} {
		status, header, answer := s.do(t, request(t, c.method, c.target, c.body, c.head))
		if status != c.status || c.code != "" && errorCode(t, status, header, answer) != c.code {
			t.Errorf("%s %s %.40s: %d %.300s", c.method, c.target, c.body, status, answer)
		}
	}
}

// stream is a call whose body is written while its answer is read.
type stream struct {
	t    *testing.T
	in   *io.PipeWriter
	resp *http.Response
	out  *bufio.Reader
}

// openStream sends first, and gives the stream when its answer has begun.
func openStream(t *testing.T, s *testServer, target, head, first string) *stream {
	t.Helper()
	r, w := io.Pipe()
	req := request(t, "POST", target, "", head)
	req.Body, req.ContentLength = r, -1
	go func() { _, _ = io.WriteString(w, first) }()
	resp, err := s.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(); resp.Body.Close() })
	return &stream{t, w, resp, bufio.NewReader(resp.Body)}
}

func (s *stream) write(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.in, text); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stream) line() string {
	s.t.Helper()
	line, err := s.out.ReadString('\n')
	if err != nil {
		s.t.Fatalf("%q %v", line, err)
	}
	return line
}

// frame reads one answer in octet form.
func (s *stream) frame() (status byte, octets string) {
	s.t.Helper()
	var head [5]byte
	if _, err := io.ReadFull(s.out, head[:]); err != nil {
		s.t.Fatal(err)
	}
	b := make([]byte, binary.BigEndian.Uint32(head[1:]))
	if _, err := io.ReadFull(s.out, b); err != nil {
		s.t.Fatal(err)
	}
	return head[0], string(b)
}

// end checks that nothing more comes.
func (s *stream) end() {
	s.t.Helper()
	if rest, err := io.ReadAll(s.out); err != nil || len(rest) > 0 {
		s.t.Fatalf("at the end: %q %v", rest, err)
	}
}

func item(octets string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(octets)))) + octets
}

// A lone item is answered before the next is sent.
func TestLinesAreAnsweredAsTheyCome(t *testing.T) {
	s := newTestServer(t, Options{})
	st := openStream(t, s, encryptURL+`&EncryptionContext={"a":"?"}`, headLines, `{"Plaintext":"aGk="}`+"\n")
	if st.resp.StatusCode != 200 || st.resp.Header.Get("Content-Type") != "application/x-ndjson" || len(st.resp.Header.Get("X-Acs-Request-Id")) != 36 {
		t.Fatalf("%+v", st.resp)
	}
	if line := st.line(); line != `{"CiphertextBlob":"`+b64(string(flip([]byte("hi")))+"?")+`"}`+"\n" {
		t.Fatal(line)
	}
	for i, c := range []struct{ send, want string }{
		{`{"Plaintext":"aGk=","EncryptionContext":{"a":"!"}}` + "\r\n", `{"CiphertextBlob":"` + b64(string(flip([]byte("hi")))+"!")},
		{"\n \n{\n", `{"Code":"InvalidParameter","Message":"The specified parameter \"Items\" is not valid: an item is not well formed`},
		{`{"Plaintext":"` + b64("xx") + `"}` + "\n", `{"Code":"Throttling"`},
		{`{"Plaintext":"aGk="}{}` + "\n", `{"Code":"InvalidParameter"`},
		{"\x00\n", `{"Code":"InvalidParameter"`},
		{strings.Repeat("y", maxLine+1) + "\n", `{"Code":"InvalidParameter"`},
		{strings.Repeat("y", 1<<20) + "\n", `{"Code":"InvalidParameter"`},
		{`{"Plaintext":"` + b64("stop") + `"}` + "\n", `{"Code":"Rejected.Disabled"`},
		{`{"Plaintext":"aGk="}` + strings.Repeat(" ", maxLine-20) + "\n", `{"CiphertextBlob":"`},
	} {
		st.write(c.send)
		if line := st.line(); !strings.HasPrefix(line, c.want) {
			t.Errorf("%d: %s", i, line)
		}
	}
	st.write(`{"Plaintext":"aGk="}`) // the last line end may be missing
	st.in.Close()
	if line := st.line(); !strings.HasPrefix(line, `{"CiphertextBlob":"`) {
		t.Error(line)
	}
	st.end()
}

func TestOctets(t *testing.T) {
	s := newTestServer(t, Options{})
	st := openStream(t, s, encryptURL+`&EncryptionContext={"a":"?"}`, headOctets, item("hi")+item("")+item("xx")+"\x00")
	for i, want := range []struct {
		status byte
		prefix string
	}{{0, string(flip([]byte("hi"))) + "?"}, {1, `{"Code":"MissingParameter","Message":`}, {1, `{"Code":"Throttling"`}} {
		if status, got := st.frame(); status != want.status || !strings.HasPrefix(got, want.prefix) {
			t.Errorf("%d: %d %q", i, status, got)
		}
	}
	st.write("\x00\x00\x02h") // the rest of a length, one octet too early
	st.write("o")
	if status, got := st.frame(); status != 0 || got != string(flip([]byte("ho")))+"?" {
		t.Errorf("%d %q", status, got)
	}
	large := strings.Repeat("z", maxFrame)
	st.write(item(large))
	if status, got := st.frame(); status != 0 || got != string(flip([]byte(large)))+"?" {
		t.Errorf("%d, %d octets", status, len(got))
	}
	st.in.Close()
	st.end()
}

func TestOctetsOfOtherActions(t *testing.T) {
	s := newTestServer(t, Options{})
	for _, c := range []struct {
		query  string
		item   string
		status byte
		want   string
	}{
		{"Action=BatchDecrypt", string(flip([]byte("hi"))), 0, "hi"},
		{"Action=BatchSign&KeyId=a&KeyVersionId=b&Algorithm=c", "hi", 0, string(flip([]byte("hi")))},
		{"Action=BatchVerify&KeyId=a&KeyVersionId=b&Algorithm=c", "\x00\x02hi" + string(flip([]byte("hi"))), 0, "\x01"},
		{"Action=BatchVerify&KeyId=a&KeyVersionId=b&Algorithm=c", "\x00\x02hi" + string(flip([]byte("ho"))), 0, "\x00"},
		{"Action=BatchVerify&KeyId=a&KeyVersionId=b&Algorithm=c", "\xff\xffhi", 1, `{"Code":"InvalidParameter"`},
		{"Action=BatchVerify&KeyId=a&KeyVersionId=b&Algorithm=c", "\x00", 1, `{"Code":"InvalidParameter"`},
		{"Action=BatchVerify&KeyId=a&KeyVersionId=b&Algorithm=c", "\x00\x02hi", 1, `{"Code":"MissingParameter"`},
		{"Action=BatchVerify&KeyId=a&KeyVersionId=b&Algorithm=c", "\x00\x00hi", 1, `{"Code":"MissingParameter"`},
	} {
		st := openStream(t, s, "/?"+c.query, headOctets, item(c.item))
		if status, got := st.frame(); status != c.status || !strings.HasPrefix(got, c.want) || status == 0 && got != c.want {
			t.Errorf("%s %q: %d %q", c.query, c.item, status, got)
		}
		st.in.Close()
		st.end()
	}
}

// When the framing is lost, or the sender breaks off, a last answer says so.
func TestBrokenStreams(t *testing.T) {
	s := newTestServer(t, Options{StreamIdle: time.Second})
	for _, c := range []struct {
		send  string
		close bool
		want  string
	}{
		{"\xff\xff\xff\xff", false, "announces 4294967295 octets"},
		{"\x00\x01\x00\x01", false, "announces 65537 octets"},
		{"\x00\x00", true, "inside an item"},
		{"\x00\x00\x00\x02h", true, "inside an item"},
		{"\x00\x00\x00\x02h", false, `"Code":"RequestTimeout"`}, // StreamIdle
	} {
		st := openStream(t, s, encryptURL, headOctets, item("hi")+c.send)
		if c.close {
			st.in.Close()
		}
		if status, got := st.frame(); status != 0 || got != string(flip([]byte("hi"))) {
			t.Errorf("%q: %d %q", c.send, status, got)
		}
		if status, got := st.frame(); status != 1 || !strings.Contains(got, c.want) || !json.Valid([]byte(got)) {
			t.Errorf("%q: %d %q", c.send, status, got)
		}
		st.end()
	}
	// The same before any item.
	st := openStream(t, s, encryptURL, headOctets, "\xff\xff\xff\xff")
	if status, got := st.frame(); status != 1 || !strings.Contains(got, "ParseRequestParameterException") {
		t.Errorf("%d %q", status, got)
	}
	st.end()
	// A line that a broken connection cut is not an item.
	conn := s.dial(t)
	body := `{"Plaintext":"aGk="}` + "\n" + `{"Plaintext":"aGk="}`
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: keyward.test\r\n%s\r\nContent-Length: %d\r\n\r\n%s", encryptURL, headLines, len(body)+1, body); err != nil {
		t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	status, _, answer := readAnswer(t, conn)
	if lines := strings.Split(answer, "\n"); status != 200 || len(lines) != 3 || !strings.HasPrefix(lines[1], `{"Code":"ParseRequestParameterException"`) {
		t.Errorf("%d %q", status, answer)
	}
}

func TestEmptyStreams(t *testing.T) {
	s := newTestServer(t, Options{})
	for _, head := range []string{headLines, headOctets} {
		status, header, answer := s.do(t, request(t, "POST", encryptURL, "", head))
		if status != 200 || answer != "" || !strings.HasSuffix(head, header.Get("Content-Type")) {
			t.Errorf("%d %v %q", status, header, answer)
		}
	}
}

// A long stream gives one answer an item, in order, and the server stops reading while nobody reads its answers.
func TestLongStreams(t *testing.T) {
	s := newTestServer(t, Options{})
	const count = 20_000
	for _, head := range []string{headLines, headOctets} {
		r, w := io.Pipe()
		sent := make(chan error, 1)
		go func() {
			out := bufio.NewWriterSize(w, 32<<10)
			for i := range count {
				text := fmt.Sprintf("%08d", i)
				if head == headLines {
					text = `{"Plaintext":"` + b64(text) + `"}` + "\n"
				} else {
					text = item(text)
				}
				if _, err := out.WriteString(text); err != nil {
					sent <- err
					return
				}
			}
			out.Flush()
			sent <- w.Close()
		}()
		req := request(t, "POST", encryptURL, "", head)
		req.Body, req.ContentLength = r, -1
		resp, err := s.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		st := &stream{t, w, resp, bufio.NewReader(resp.Body)}
		for i := range count {
			want := string(flip(fmt.Appendf(nil, "%08d", i)))
			if head == headLines {
				if line := st.line(); line != `{"CiphertextBlob":"`+b64(want)+`"}`+"\n" {
					t.Fatalf("item %d: %s", i, line)
				}
			} else if status, got := st.frame(); status != 0 || got != want {
				t.Fatalf("item %d: %d %q", i, status, got)
			}
		}
		st.end()
		resp.Body.Close()
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	}
}

func TestNobodyReads(t *testing.T) {
	s := newTestServer(t, Options{StreamIdle: 300 * time.Millisecond})
	conn := s.dial(t)
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: keyward.test\r\n%s\r\nContent-Length: 1000000000\r\n\r\n", encryptURL, headOctets); err != nil {
		t.Fatal(err)
	}
	one := []byte(item(strings.Repeat("z", 4096)))
	sent := 0
	for ; sent < 1<<30; sent += len(one) {
		if _, err := conn.Write(one); err != nil {
			break // the server gave up
		}
	}
	if sent > 8<<20 {
		t.Errorf("%d octets went in without one answer being read", sent)
	}
}

// A chunk whose deadline passed fails item by item, its memory is not used again, and the stream goes on.
func TestChunkDeadline(t *testing.T) {
	s := newTestServer(t, Options{})
	st := openStream(t, s, encryptURL, headOctets, item("hi"))
	st.frame()
	st.write(item("hang") + "\x00")
	if status, got := st.frame(); status != 1 || !strings.Contains(got, "ServiceUnavailableTemporary") {
		t.Errorf("%d %q", status, got)
	}
	st.write("\x00\x00\x02ho")
	if status, got := st.frame(); status != 0 || got != string(flip([]byte("ho"))) {
		t.Errorf("%d %q", status, got)
	}
	st.in.Close()
	st.end()
}

// A panic in the middle of a stream breaks it off: the answer does not look complete.
func TestPanicInAStream(t *testing.T) {
	s := newTestServer(t, Options{})
	st := openStream(t, s, "/?Action=BatchSign&KeyId=k&KeyVersionId=v&Algorithm=a", headLines, `{"Digest":"aGk="}`+"\n")
	st.line()
	panicked.Store(true)
	defer func() { panicked.Store(false) }()
	st.write(`{"Digest":"aGk="}` + "\n")
	if rest, err := io.ReadAll(st.out); err == nil {
		t.Errorf("the stream ended as if all were well: %q", rest)
	}
}

func TestLinesFraming(t *testing.T) {
	for name, c := range map[string]struct {
		chunks []string // given one after the other, the last one at the end
		items  []string // "!" is a fault
	}{
		"cut anywhere":      {[]string{"a", "b\nc", "", "\n\nd"}, []string{"ab", "c", "d"}},
		"too long at once":  {[]string{strings.Repeat("x", maxLine+1) + "\ny\n"}, []string{"!", "y"}},
		"too long in parts": {[]string{strings.Repeat("x", maxLine), "xx", "xx", "x\ny\n"}, []string{"!", "y"}},
		"too long at end":   {[]string{strings.Repeat("x", maxLine+1)}, []string{"!"}},
		"as long as may be": {[]string{strings.Repeat("x", maxLine) + "\n"}, []string{strings.Repeat("x", maxLine)}},
	} {
		l := &lines{}
		var got []string
		var b []byte
		for i, chunk := range c.chunks {
			b = append(b, chunk...)
			for {
				used, item, fault, err := l.next(b, i == len(c.chunks)-1)
				if err != nil {
					t.Fatal(err)
				}
				if used == 0 {
					break
				}
				if fault != nil {
					got = append(got, "!")
				} else if item != nil {
					got = append(got, string(item))
				}
				b = b[used:]
			}
		}
		if strings.Join(got, "|") != strings.Join(c.items, "|") || len(b) > 0 {
			t.Errorf("%s: %.100q, %d left", name, got, len(b))
		}
	}
}

// However a body is cut, the same items are found, and never more octets used than there are.
func FuzzFraming(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01a{}\n"), 3)
	f.Add([]byte("a\n\nb"), 1)
	f.Fuzz(func(t *testing.T, body []byte, cut int) {
		find := func(frames framing, step int) (items [][]byte, broken bool) {
			var b []byte
			for at := 0; ; {
				next := min(at+step, len(body))
				b = append(b, body[at:next]...)
				at = next
				for {
					used, item, fault, err := frames.next(b, at == len(body))
					if err != nil {
						return items, true
					}
					if used == 0 {
						break
					}
					if fault != nil {
						item = []byte("!")
					}
					if item != nil {
						items = append(items, bytes.Clone(item))
					}
					b = b[used:]
				}
				if at == len(body) {
					if len(b) > 0 {
						t.Fatalf("%d octets were not looked at", len(b))
					}
					return items, false
				}
			}
		}
		step := max(1, cut%100)
		for _, fresh := range []func() framing{func() framing { return &lines{} }, func() framing { return octetFrames{} }} {
			whole, broken1 := find(fresh(), max(1, len(body)))
			parts, broken2 := find(fresh(), step)
			if broken1 != broken2 || len(whole) != len(parts) || !bytes.Equal(bytes.Join(whole, []byte("|")), bytes.Join(parts, []byte("|"))) {
				t.Fatalf("%q, %v\n%q, %v", whole, broken1, parts, broken2)
			}
		}
	})
}

// Items are read as strictly as encoding/json would with exact names, no name twice and no unknown member.
func FuzzItems(f *testing.F) {
	for _, text := range []string{`{"Digest":"aGk=","Value":"aGo="}`, `{"Digest":"aGk="}`, `{"Digest":"aGk=","Digest":""}`, `{"Value":null}`, `[]`, `{"\u0044igest":"a Gk=","Value":"aGo=\n"} `} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		b := &batch[kmswire.BatchVerifyRequest, kmswire.BatchVerifyResponse, kmswire.BatchVerifyItem, kmswire.BatchVerifyResult]{codec: verifyItems}
		b.addJSON(text)
		if len(b.items) == 0 {
			if b.faults[0] == nil {
				t.Fatal("neither an item nor a fault")
			}
			return
		}
		var want map[string]string
		if err := json.Unmarshal(text, &want); err != nil || len(want) != 2 {
			t.Fatalf("%q was accepted: %v", text, err)
		}
		for name, got := range map[string][]byte{"Digest": b.items[0].Digest, "Value": b.items[0].Value} {
			if octets, err := kmswire.DecodeBase64(nil, []byte(want[name])); err != nil || len(got) == 0 || !bytes.Equal(octets, got) {
				t.Fatalf("%q: %s is %q", text, name, got)
			}
		}
	})
}
