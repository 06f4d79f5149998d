package kmsapi

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
)

const form = "Content-Type: application/x-www-form-urlencoded"

func TestRequests(t *testing.T) {
	s := newTestServer(t, Options{})
	const good = "/?Action=Encrypt&KeyId=k&Plaintext=aGk%3D"
	for _, c := range []struct {
		name, method, target, body string
		head                       []string
		status                     int
		code                       string // of an error
	}{
		{"GET", "GET", good, "", nil, 200, ""},
		{"POST with all in the query", "POST", good, "", nil, 200, ""},
		{"POST as an SDK sends it", "POST", good + "&Version=2016-01-20&Format=json&RegionId=any&Timestamp=2026-01-02T03%3A04%3A05Z&DryRun=", "", []string{form, "x-acs-action: Encrypt", "x-acs-version: 2016-01-20"}, 200, ""},
		{"POST with a form", "POST", "/", good[2:], []string{form}, 200, ""},
		{"POST with half a form", "POST", "/?Action=Encrypt&KeyId=k", "Plaintext=aGk%3D", []string{form + "; charset=utf-8"}, 200, ""},
		{"the same twice", "POST", good, good[2:], []string{form}, 200, ""},
		{"action in the header", "GET", strings.Replace(good, "Action=Encrypt&", "", 1), "", []string{"X-Acs-Action: Encrypt"}, 200, ""},
		{"format in any case", "GET", good + "&Format=Json", "", nil, 200, ""},
		{"empty Content-Type and body", "POST", good, "", []string{"Content-Type: text/plain; ="}, 200, ""},

		{"query and form differ", "POST", good, "KeyId=other", []string{form}, 400, "InvalidParameter"},
		{"query and form name two actions", "POST", good, "Action=Decrypt", []string{form}, 400, "InvalidParameter"},
		{"header and parameter differ", "GET", good, "", []string{"X-Acs-Action: Decrypt"}, 400, "InvalidParameter"},
		{"header twice", "GET", good, "", []string{"X-Acs-Action: Encrypt", "X-Acs-Action: Decrypt"}, 400, "InvalidParameter"},
		{"parameter twice", "GET", good + "&KeyId=l", "", nil, 400, "InvalidParameter"},
		{"action twice", "GET", good + "&Action=Decrypt", "", nil, 400, "InvalidParameter"},
		{"version twice", "GET", good + "&Version=2016-01-20&Version=2017-01-20", "", nil, 400, "InvalidParameter"},
		{"other version", "GET", good + "&Version=2017-01-20", "", nil, 404, "InvalidVersion"},
		{"other version in the header", "GET", good, "", []string{"X-Acs-Version: 2017-01-20"}, 404, "InvalidVersion"},
		{"YAML", "GET", good + "&Format=YAML", "", nil, 400, "InvalidParameter"},
		{"no action", "GET", "/?KeyId=k", "", nil, 400, "MissingParameter"},
		{"nothing", "GET", "/", "", nil, 400, "MissingParameter"},
		{"unknown action", "GET", "/?Action=Encrypter", "", nil, 404, "InvalidAction.NotFound"},
		{"unknown action with a body", "POST", "/?Action=BatchEncrypter", "{}", []string{"Content-Type: application/json"}, 404, "InvalidAction.NotFound"},
		{"action of the original", "GET", "/?Action=CreateSecret", "", nil, 400, "UnsupportedOperation"},
		{"action in another case", "GET", "/?Action=encrypt", "", nil, 404, "InvalidAction.NotFound"},
		{"other path", "GET", "/kms" + good[1:], "", nil, 404, "InvalidPath.NotFound"},
		{"PUT", "PUT", good, "", nil, 405, "UnsupportedHTTPMethod"},
		{"missing parameter", "GET", "/?Action=Encrypt&KeyId=k", "", nil, 400, "MissingParameter"},
		{"missing parameter, dry run", "GET", "/?Action=Encrypt&KeyId=k&DryRun=true", "", nil, 400, "ValidationError"},
		{"dry run", "GET", good + "&DryRun=true", "", nil, 400, "DryRunOperationError"},
		{"bad base64", "GET", "/?Action=Encrypt&KeyId=k&Plaintext=a", "", nil, 400, "InvalidParameter"},
		{"NUL", "GET", "/?Action=Encrypt&KeyId=k%00&Plaintext=aGk%3D", "", nil, 400, "InvalidParameter"},
		{"not UTF-8", "GET", "/?Action=Encrypt&KeyId=k%FF&Plaintext=aGk%3D", "", nil, 400, "InvalidParameter"},
		{"bad escape", "GET", good + "&x=%zz", "", nil, 400, "ParseRequestParameterException"},
		{"semicolon", "GET", good + ";x=1", "", nil, 400, "ParseRequestParameterException"},
		{"bad escape in the form", "POST", good, "x=%zz", []string{form}, 400, "ParseRequestParameterException"},
		{"body of another type", "POST", good, "{}", []string{"Content-Type: application/json"}, 415, "UnsupportedMediaType"},
		{"body of no type", "POST", good, "{}", nil, 415, "UnsupportedMediaType"},
		{"body of a malformed type", "POST", good, "{}", []string{"Content-Type: a/b; ="}, 415, "UnsupportedMediaType"},
		{"form too large", "POST", "/", "x=" + strings.Repeat("y", maxForm), []string{form}, 413, "RequestEntityTooLarge"},
		{"unknown key", "GET", strings.Replace(good, "KeyId=k", "KeyId=l", 1), "", nil, 404, "Forbidden.KeyNotFound"},
		{"neither answer nor error", "GET", strings.Replace(good, "KeyId=k", "KeyId=nothing", 1), "", nil, 500, "InternalFailure"},
		{"panic", "GET", strings.Replace(good, "KeyId=k", "KeyId=panic", 1), "", nil, 500, "InternalFailure"},
		{"deadline", "GET", "/?Action=EnableKey&KeyId=wait", "", nil, 503, "ServiceUnavailableTemporary"},
		{"Origin", "POST", good, "", []string{"Origin: http://localhost"}, 403, "Forbidden.BrowserRequest"},
		{"Referer on another path", "GET", "/favicon.ico", "", []string{"Referer: http://keyward.test/"}, 403, "Forbidden.BrowserRequest"},
		{"Sec-Fetch-Site", "GET", good, "", []string{"Sec-Fetch-Site: same-origin"}, 403, "Forbidden.BrowserRequest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, header, body := s.do(t, request(t, c.method, c.target, c.body, c.head...))
			if status != c.status {
				t.Fatalf("got %d %s", status, body)
			}
			if c.code != "" {
				if code := errorCode(t, status, header, body); code != c.code {
					t.Fatalf("got %s", body)
				}
				return
			}
			var resp kmswire.EncryptResponse
			if err := json.Unmarshal([]byte(body), &resp); err != nil || string(flip(resp.CiphertextBlob)) != "hi" || resp.KeyVersionID != "k-1" ||
				!regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(resp.RequestID) ||
				header.Get("Content-Type") != "application/json;charset=utf-8" || header.Get("X-Acs-Request-Id") != resp.RequestID {
				t.Fatalf("%v %s", header, body)
			}
		})
	}
	if log := s.log.String(); strings.Count(log, "panicked") != 1 || !strings.Contains(log, "stub panics") || !strings.Contains(log, "neither an answer") || strings.Contains(log, "aGk") {
		t.Errorf("log:\n%s", log)
	}
}

func TestNoActor(t *testing.T) {
	s := newTestServerAs(t, Options{}, nil)
	status, header, body := s.do(t, request(t, "GET", "/?Action=Encrypt&KeyId=k&Plaintext=aGk%3D", ""))
	if status != 403 || errorCode(t, status, header, body) != "Forbidden.NoPermission" || !strings.Contains(body, "[[peer]]") {
		t.Fatalf("%d %s", status, body)
	}
}

// TestStranger sees that a caller without a principal is told who it is to the daemon.
func TestStranger(t *testing.T) {
	r := httptest.NewRequestWithContext(WithStranger(t.Context(), "uid 7 is nobody's"), "GET", "/?Action=ListKeys", nil)
	w := httptest.NewRecorder()
	newHandler(nil, Options{}, testTable()).ServeHTTP(w, r)
	if w.Code != 403 || !strings.Contains(w.Body.String(), "uid 7 is nobody's.") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestEveryCodeOfTheService(t *testing.T) {
	s := newTestServer(t, Options{})
	for _, code := range kms.Codes() {
		errForTest = &kms.Error{Code: code, Param: "P", Detail: "Some <detail>.", Err: fmt.Errorf("hidden cause")}
		status, header, body := s.do(t, request(t, "GET", "/?Action=Encrypt&KeyId=error&Plaintext=aGk%3D", ""))
		row := errorTable[code]
		if got := errorCode(t, status, header, body); got != row.code || status != row.status || strings.Contains(body, "hidden") {
			t.Errorf("%v: %d %s", code, status, body)
		}
		if code != kms.Internal && !strings.Contains(body, "detail") {
			t.Errorf("%v: the detail is lost: %s", code, body)
		}
	}
	if !strings.Contains(s.log.String(), "hidden cause") {
		t.Error("the cause of an internal failure is not in the log")
	}
}

func TestEmptyLists(t *testing.T) {
	s := newTestServer(t, Options{})
	_, _, body := s.do(t, request(t, "GET", "/?Action=ListKeys&PageNumber=2&PageSize=3", ""))
	if !strings.Contains(body, `"Keys":{"Key":[]}`) || !strings.Contains(body, `"PageNumber":2,"PageSize":3,"TotalCount":0`) {
		t.Error(body)
	}
	_, _, body = s.do(t, request(t, "GET", "/?Action=BatchGenerateDataKey&KeyId=k&Count=1", ""))
	if !strings.Contains(body, `"Items":[]`) {
		t.Error(body)
	}
	_, _, body = s.do(t, request(t, "GET", "/?Action=BatchGenerateDataKey&KeyId=k&Count=2", ""))
	if !strings.Contains(body, `"Items":[{"Plaintext":"AQ==","CiphertextBlob":"Ag=="},{"Code":"Throttling","Message":"The request`) {
		t.Error(body)
	}
}

// Every answer can be rendered, and none has null where clients want a list or text.
func TestNoNulls(t *testing.T) {
	for _, o := range operations {
		resp := reflect.New(o.response)
		fillLists(resp.Elem())
		body, err := json.Marshal(resp.Interface())
		if err != nil || strings.Contains(string(body), "null") || !strings.HasPrefix(string(body), `{"RequestId":""`) {
			t.Errorf("%s: %s %v", o.action, body, err)
		}
	}
}

// Requests are as long as they need to be, and no longer.
func TestLongRequestLines(t *testing.T) {
	s := newTestServer(t, Options{})
	plaintext := strings.Repeat("\xfb\xef\xbe", 128<<10/3/4) // every octet of its base64 needs escaping
	target := "/?Action=Encrypt&KeyId=k&Plaintext=" + url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(plaintext)))
	if len(target) < 128<<10 {
		t.Fatalf("only %d octets", len(target))
	}
	status, _, body := s.do(t, request(t, "POST", target, ""))
	var resp kmswire.EncryptResponse
	if err := json.Unmarshal([]byte(body), &resp); status != 200 || err != nil || string(flip(resp.CiphertextBlob)) != plaintext {
		t.Fatalf("%d %.200s %v", status, body, err)
	}
	status, header, body := s.do(t, request(t, "POST", "/?x="+strings.Repeat("y", maxQuery), ""))
	if status != 413 || errorCode(t, status, header, body) != "RequestEntityTooLarge" {
		t.Fatalf("%d %s", status, body)
	}
	resp2, err := s.Do(request(t, "POST", "/?x="+strings.Repeat("y", 5<<20), ""))
	if err == nil { // the server may also close the connection before the client has sent it all
		resp2.Body.Close()
		if resp2.StatusCode != 431 {
			t.Fatalf("got %d", resp2.StatusCode)
		}
	}
	if status, _, _ := s.do(t, request(t, "GET", "/?Action=ListKeys", "")); status != 200 {
		t.Error("the server does not serve any more")
	}
}

func TestManyParameters(t *testing.T) {
	s := newTestServer(t, Options{})
	const good = "/?Action=Encrypt&KeyId=k&Plaintext=aGk%3D"
	if status, _, body := s.do(t, request(t, "GET", good+strings.Repeat("&a=b", 1000), "")); status != 200 {
		t.Errorf("1,000 parameters: %d %s", status, body)
	}
	status, header, body := s.do(t, request(t, "GET", good+strings.Repeat("&a=b", 100_000), ""))
	if status != 400 || errorCode(t, status, header, body) != "ParseRequestParameterException" {
		t.Errorf("100,000 parameters: %d %s", status, body)
	}
}

// dial opens a connection on which a test can write what no client would.
func (s *testServer) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func readAnswer(t *testing.T, c net.Conn) (int, http.Header, string) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
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

func TestBodiesThatNeverEnd(t *testing.T) {
	s := newTestServer(t, Options{BodyTimeout: 200 * time.Millisecond})
	for name, c := range map[string]struct {
		request string
		status  int
		code    string
	}{
		"a body for no action":   {"POST /nowhere HTTP/1.1\r\nHost: keyward.test\r\n" + form + "\r\nContent-Length: 10\r\n\r\nPage", 404, "InvalidPath.NotFound"},
		"slow form":              {"POST /?Action=ListKeys HTTP/1.1\r\nHost: keyward.test\r\n" + form + "\r\nContent-Length: 10\r\n\r\nPage", 408, "RequestTimeout"},
		"slow batch":             {"POST /?Action=BatchSign&KeyId=k&KeyVersionId=v&Algorithm=a HTTP/1.1\r\nHost: keyward.test\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{", 408, "RequestTimeout"},
		"a length that lies":     {"POST /?Action=ListKeys HTTP/1.1\r\nHost: keyward.test\r\n" + form + "\r\nContent-Length: 99999999999\r\n\r\nPage", 413, "RequestEntityTooLarge"},
		"malformed chunks":       {"POST /?Action=ListKeys HTTP/1.1\r\nHost: keyward.test\r\n" + form + "\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "ParseRequestParameterException"},
		"a batch's lying length": {"POST /?Action=BatchSign&KeyId=k&KeyVersionId=v&Algorithm=a HTTP/1.1\r\nHost: keyward.test\r\nContent-Type: application/json\r\nContent-Length: 16777217\r\n\r\n{", 413, "RequestEntityTooLarge"},
	} {
		conn := s.dial(t)
		if _, err := io.WriteString(conn, c.request); err != nil {
			t.Fatal(err)
		}
		status, header, body := readAnswer(t, conn)
		if status != c.status || errorCode(t, status, header, body) != c.code {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}

// A caller that is slow between two requests is not cut off by the deadline of the first one's body.
func TestDeadlinesEndWithTheRequest(t *testing.T) {
	const limit = 300 * time.Millisecond // also for the server to come to the end of a request
	s := newTestServer(t, Options{BodyTimeout: limit, StreamIdle: limit})
	conn := s.dial(t)
	in := bufio.NewReader(conn)
	for i := range 4 {
		req := "POST /?Action=ListKeys HTTP/1.1\r\nHost: keyward.test\r\n" + form + "\r\nContent-Length: 10\r\n\r\nPageSize=1"
		if i%2 == 1 {
			req = "POST /?Action=BatchEncrypt&KeyId=k HTTP/1.1\r\nHost: keyward.test\r\nContent-Type: application/x-ndjson\r\nContent-Length: 21\r\n\r\n" + `{"Plaintext":"aGk="}` + "\n"
		}
		if _, err := io.WriteString(conn, req); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != 200 || err != nil || len(body) == 0 {
			t.Fatalf("request %d: %d %s %v", i, resp.StatusCode, body, err)
		}
		time.Sleep(limit * 4 / 3) // longer than either deadline
	}
}
