package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	openapi "github.com/alibabacloud-go/darabonba-openapi/v2/client"
	openapiutil "github.com/alibabacloud-go/darabonba-openapi/v2/utils"
	tea "github.com/alibabacloud-go/kms-20160120/v3/client"
	"github.com/alibabacloud-go/tea/dara"
	teacore "github.com/alibabacloud-go/tea/tea"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/auth/credentials"
	sdkerrors "github.com/aliyun/alibaba-cloud-sdk-go/sdk/errors"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	old "github.com/aliyun/alibaba-cloud-sdk-go/services/kms"

	"github.com/keyward/keyward/kms/kmswire"
)

// The vendor's own SDKs, each driven through the types that it has for an action: an answer that does not fit its types fails
// there. Actions that an SDK does not know go through its call for any action.

// params are an action's parameters: strings, booleans, integers, maps, lists of strings and of params.
type params map[string]any

// vendor is one SDK, pointed at one listener.
type vendor interface {
	// call does one action and gives the answer as the SDK's own types have it. untyped says that the SDK has no types for the
	// action, or not for all of p.
	call(action string, p params) (answer map[string]any, untyped bool, err error)
}

// apiCode gives the Code of an error that keyward answered, as the SDK tells it.
func apiCode(err error) string {
	var fromTea *teacore.SDKError
	var fromDara *dara.SDKError
	var fromOld sdkerrors.Error
	switch {
	case errors.As(err, &fromTea) && fromTea.Code != nil:
		return *fromTea.Code
	case errors.As(err, &fromDara) && fromDara.Code != nil:
		return *fromDara.Code
	case errors.As(err, &fromOld):
		return fromOld.ErrorCode()
	}
	return ""
}

// teaSDK is alibabacloud-go/kms-20160120.
type teaSDK struct{ client *tea.Client }

// newTea makes a client for endpoint, which is host:port. signature is "" for ACS3, v2 for RPC HMAC-SHA1, v4 for ACS4.
func newTea(t *testing.T, endpoint string, secure bool, id, secret, signature, ca string) vendor {
	t.Helper()
	c := &openapi.Config{AccessKeyId: &id, AccessKeySecret: &secret, Endpoint: &endpoint, Protocol: teacore.String("http")}
	if secure {
		c.Protocol, c.Ca = teacore.String("https"), &ca
	}
	switch signature {
	case "v2":
		c.SignatureAlgorithm = teacore.String("v2")
	case "v4":
		c.SignatureVersion = teacore.String("v4")
	}
	client, err := tea.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	return teaSDK{client}
}

func (s teaSDK) call(action string, p params) (map[string]any, bool, error) {
	method := reflect.ValueOf(s.client).MethodByName(action + "WithOptions")
	if !method.IsValid() || !fits(method.Type(), p) {
		answer, err := s.any(action, p)
		return answer, true, err
	}
	answer, err := s.typed(method, p)
	return answer, false, err
}

func (s teaSDK) typed(method reflect.Value, p params) (map[string]any, error) {
	// Actions without parameters take the options only.
	in := make([]reflect.Value, method.Type().NumIn())
	for i := range in {
		in[i] = reflect.New(method.Type().In(i).Elem())
	}
	if len(in) == 2 {
		if err := setFields(in[0].Interface(), p); err != nil {
			return nil, err
		}
	}
	out := method.Call(in)
	if err, _ := out[1].Interface().(error); err != nil {
		return nil, err
	}
	return asMap(out[0].Elem().FieldByName("Body").Interface())
}

// fits says whether the action's request has all of p.
func fits(method reflect.Type, p params) bool {
	if method.NumIn() < 2 {
		return len(p) == 0
	}
	for name := range p {
		if _, ok := method.In(0).Elem().FieldByName(name); !ok {
			return false
		}
	}
	return true
}

// any is the SDK's call for actions that it does not know.
func (s teaSDK) any(action string, p params) (map[string]any, error) {
	str := teacore.String
	api := &openapiutil.Params{Action: str(action), Version: str(kmswire.APIVersion), Protocol: str("HTTPS"), Pathname: str("/"), Method: str("POST"),
		AuthType: str("AK"), Style: str("RPC"), ReqBodyType: str("formData"), BodyType: str("json")}
	query := map[string]*string{}
	for name, value := range flat(p) {
		query[name] = str(value)
	}
	answer, err := s.client.CallApi(api, &openapiutil.OpenApiRequest{Query: query}, &dara.RuntimeOptions{})
	if err != nil {
		return nil, err
	}
	return asMap(answer["body"])
}

// oldSDK is aliyun/alibaba-cloud-sdk-go, which the aliyun command line is built on too. It signs by RPC HMAC-SHA1.
type oldSDK struct {
	client *old.Client
	scheme string
}

func newOld(t *testing.T, endpoint string, secure bool, id, secret, ca string) vendor {
	t.Helper()
	client, err := old.NewClientWithOptions("dev", sdk.NewConfig(), credentials.NewAccessKeyCredential(id, secret))
	if err != nil {
		t.Fatal(err)
	}
	client.Domain = endpoint
	s := oldSDK{client, "HTTP"}
	if secure {
		s.scheme = "HTTPS"
		client.SetTransport(trusting(t, ca))
	}
	return s
}

func (s oldSDK) call(action string, p params) (map[string]any, bool, error) {
	method := reflect.ValueOf(s.client).MethodByName(action)
	if !method.IsValid() || method.Type().NumIn() != 1 || !fitsOld(method.Type(), p) {
		answer, err := s.any(action, p)
		return answer, true, err
	}
	answer, err := s.typed(action, method, p)
	return answer, false, err
}

func (s oldSDK) typed(action string, method reflect.Value, p params) (map[string]any, error) {
	request := reflect.New(method.Type().In(0).Elem())
	rpc := &requests.RpcRequest{}
	request.Elem().FieldByName("RpcRequest").Set(reflect.ValueOf(rpc))
	rpc.InitWithApiInfo("Kms", kmswire.APIVersion, action, "kms", "openAPI")
	rpc.Method = requests.POST
	if err := setFields(request.Interface(), texts(p)); err != nil {
		return nil, err
	}
	rpc.Scheme = s.scheme // of every request: the client's own is HTTP
	out := method.Call([]reflect.Value{request})
	if err, _ := out[1].Interface().(error); err != nil {
		return nil, err
	}
	answer := out[0].Elem()
	answer.FieldByName("BaseResponse").SetZero() // it is no part of the answer
	return asMap(answer.Addr().Interface())
}

func fitsOld(method reflect.Type, p params) bool {
	for name := range p {
		if name == "RegionId" {
			continue // every request has it
		}
		if _, ok := method.In(0).Elem().FieldByName(name); !ok {
			return false
		}
	}
	return true
}

func (s oldSDK) any(action string, p params) (map[string]any, error) {
	r := requests.NewCommonRequest()
	r.Method, r.Scheme, r.Domain, r.Version, r.ApiName = "POST", s.scheme, s.client.Domain, kmswire.APIVersion, action
	for name, value := range flat(p) {
		r.QueryParams[name] = value
	}
	answer, err := s.client.ProcessCommonRequest(r)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	return m, json.Unmarshal([]byte(answer.GetHttpContentString()), &m)
}

// setFields sets the fields of an SDK's request that are named like p.
func setFields(request any, p params) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, request)
}

func asMap(v any) (map[string]any, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	return m, json.Unmarshal(text, &m)
}

// texts gives p with every boolean and number as a text, as the old SDK has them.
func texts(p params) params {
	out := params{}
	for name, value := range p {
		switch value.(type) {
		case []string, []params, string:
			out[name] = value
		case map[string]any:
			out[name] = jsonText(value)
		default:
			out[name] = fmt.Sprint(value)
		}
	}
	return out
}

// flat gives p as parameters of a query.
func flat(p params) map[string]string {
	out := map[string]string{}
	for name, value := range p {
		switch value := value.(type) {
		case []string:
			for i, text := range value {
				out[fmt.Sprintf("%s.%d", name, i+1)] = text
			}
		case []params:
			for i, one := range value {
				for member, text := range flat(one) {
					out[fmt.Sprintf("%s.%d.%s", name, i+1, member)] = text
				}
			}
		case map[string]any:
			out[name] = jsonText(value)
		default:
			out[name] = fmt.Sprint(value)
		}
	}
	return out
}

func jsonText(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain data: can't be
	}
	return string(text)
}

// at walks into an answer: at(m, "Keys.Key.0.KeyId").
func at(m any, path string) any {
	for _, step := range strings.Split(path, ".") {
		switch v := m.(type) {
		case map[string]any:
			m = v[step]
		case []any:
			var i int
			if _, err := fmt.Sscan(step, &i); err != nil || i >= len(v) {
				return nil
			}
			m = v[i]
		default:
			return nil
		}
	}
	return m
}

// trusting is a transport that trusts the certificates of a PEM text.
func trusting(t *testing.T, ca string) *http.Transport {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(ca)) {
		t.Fatal("no certificate")
	}
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
}
