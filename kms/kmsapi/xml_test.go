package kmsapi

import (
	"strings"
	"testing"

	"github.com/keyward/keyward/kms/kmswire"
)

func TestXML(t *testing.T) {
	s := newTestServer(t, Options{})
	for _, c := range []struct {
		target string
		status int
		want   string // without what differs from call to call
	}{
		{"/?Format=XML&Action=Encrypt&KeyId=k&Plaintext=aGk%3D", 200, "<EncryptResponse><RequestId>…</RequestId><KeyId>k</KeyId>"},
		{"/?Format=xml&Action=ListKeys&PageNumber=2&PageSize=3", 200, "<ListKeysResponse><RequestId>…</RequestId><PageNumber>2</PageNumber><PageSize>3</PageSize><TotalCount>0</TotalCount><Keys></Keys></ListKeysResponse>"},
		{"/?Format=XML&Action=Encrypt&Plaintext=aGk%3D", 400, "<Error><RequestId>…</RequestId><HostId>keyward.test</HostId><Code>MissingParameter</Code><Message>The parameter &#34;KeyId&#34; is needed but not provided.</Message><Recommend></Recommend><HttpStatus>400</HttpStatus></Error>"},
		{"/?Format=XML&Action=Nothing", 404, "<Code>InvalidAction.NotFound</Code>"},
		{"/?Format=XML", 400, "<Code>MissingParameter</Code>"},
	} {
		status, header, body := s.do(t, request(t, "GET", c.target, ""))
		id := header.Get("X-Acs-Request-Id")
		if status != c.status || header.Get("Content-Type") != "application/xml" || id == "" ||
			!strings.Contains(strings.ReplaceAll(body, id, "…"), c.want) {
			t.Errorf("%s: %d %v %s", c.target, status, header, body)
		}
	}
	status, header, body := s.do(t, request(t, "POST", encryptURL+"&Format=XML", `{"Items":[]}`, headJSON))
	if status != 400 || header.Get("Content-Type") != "application/xml" || !strings.Contains(body, "<Code>UnsupportedOperation</Code>") {
		t.Errorf("a batch: %d %s", status, body)
	}
}

func TestXMLLists(t *testing.T) {
	resp := &kmswire.ListKeysResponse{}
	resp.Keys.Key = []kmswire.KeySummary{{KeyID: "a"}, {KeyID: "b<&\x01"}}
	got, err := appendXML(nil, "R", appendAnswer(nil, resp))
	want := "<Keys><Key><KeyId>a</KeyId><KeyArn></KeyArn></Key><Key><KeyId>b&lt;&amp;\uFFFD</KeyId><KeyArn></KeyArn></Key></Keys></R>\n"
	if err != nil || !strings.HasSuffix(string(got), want) {
		t.Errorf("%v\n got %s\nwant %s", err, got, want)
	}
	verify, err := appendXML(nil, "R", appendAsymmetricVerify(nil, &kmswire.AsymmetricVerifyResponse{Value: true}))
	if err != nil || !strings.Contains(string(verify), "<Value>true</Value>") {
		t.Errorf("%s %v", verify, err)
	}
}
