package kmssign

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// DefaultRegion is what the SDKs sign for with ACS4 when the endpoint's name has no region in it.
const DefaultRegion = "center"

const formType = "application/x-www-form-urlencoded"

// Signing is what a signature is made of beside the request.
type Signing struct {
	AccessKeyID string
	Secret      []byte
	Time        time.Time // when the request is made; now if zero. Signatures have whole seconds
	Nonce       string    // never used before with this access key; a random one if empty
	Region      string    // ACS4 only; DefaultRegion if empty
}

// complete fills in what may be left out.
func (s *Signing) complete() error {
	if s.AccessKeyID == "" || len(s.Secret) == 0 {
		return errors.New("kmssign: an access key has an ID and a secret; one of them is empty")
	}
	if s.Time.IsZero() {
		s.Time = time.Now()
	}
	s.Nonce = cmp.Or(s.Nonce, rand.Text())
	s.Region = cmp.Or(s.Region, DefaultRegion)
	return nil
}

// SignRPC signs r in the RPC scheme: it sets the parameters of the signature in the query. The parameters Action and
// Version must be in the query or in a form in the body. A body that is no form can't be signed this way.
func SignRPC(r *http.Request, s Signing) error {
	if err := s.complete(); err != nil {
		return err
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return fmt.Errorf("kmssign: the query: %w", err)
	}
	body, err := bodyOf(r)
	if err != nil {
		return err
	}
	query.Del("Signature")
	for name, value := range map[string]string{
		"AccessKeyId": s.AccessKeyID, "SignatureMethod": rpcMethod, "SignatureVersion": rpcVersion,
		"SignatureNonce": s.Nonce, "Timestamp": s.Time.UTC().Format(timeForm),
	} {
		query.Set(name, value)
	}
	all := make(url.Values, len(query))
	for name, list := range query {
		all[name] = list
	}
	if len(body) > 0 {
		if mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mediaType != formType {
			return errors.New("kmssign: the RPC scheme does not sign a body that is no form; use ACS3")
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return fmt.Errorf("kmssign: the form: %w", err)
		}
		for name, list := range form {
			all[name] = append(slices.Clone(all[name]), list...)
		}
	}
	if name, twice := twiceIn(all); twice {
		return fmt.Errorf("kmssign: the parameter %q is there twice", name)
	}
	text := rpcString(cmp.Or(r.Method, http.MethodGet), all)
	defer clear(text)
	query.Set("Signature", rpcSignature(s.Secret, text))
	r.URL.RawQuery = query.Encode()
	return nil
}

// SignACS3 signs r with ACS3-HMAC-SHA256: it sets headers. Action and version are taken from the headers x-acs-action
// and x-acs-version, or else from the query. A body must be one that http.NewRequest can read again (GetBody).
func SignACS3(r *http.Request, s Signing) error { return signHeaders(ACS3, r, s) }

// SignACS4 is SignACS3 for ACS4-HMAC-SHA256.
func SignACS4(r *http.Request, s Signing) error { return signHeaders(ACS4, r, s) }

func signHeaders(scheme Scheme, r *http.Request, s Signing) error {
	if err := s.complete(); err != nil {
		return err
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return fmt.Errorf("kmssign: the query: %w", err)
	}
	if name, twice := twiceIn(query); twice {
		return fmt.Errorf("kmssign: the parameter %q is there twice", name)
	}
	body, err := bodyOf(r)
	if err != nil {
		return err
	}
	if r.Header == nil {
		r.Header = http.Header{}
	}
	for _, n := range named {
		if r.Header.Get(n.header) == "" {
			r.Header.Set(n.header, query.Get(n.param))
		}
		if r.Header.Get(n.header) == "" {
			return fmt.Errorf("kmssign: the request has no %s, in a header or in the query", n.param)
		}
	}
	day := s.Time.UTC().Format(dayForm)
	r.Header.Set(headerDate, s.Time.UTC().Format(timeForm))
	r.Header.Set(headerNonce, s.Nonce)
	r.Header.Set(headerContentHash, bodySum(body))

	signed := []string{"host"}
	for name, values := range r.Header {
		if !strings.HasPrefix(name, headerPrefix) && name != "Content-Type" {
			continue
		}
		if len(values) != 1 {
			return fmt.Errorf("kmssign: the header %s has %d values", name, len(values))
		}
		signed = append(signed, strings.ToLower(name))
	}
	slices.Sort(signed)
	host := hostOf(r)
	text := headerString(scheme, cmp.Or(r.Method, http.MethodGet), r.URL.EscapedPath(), query, signed, func(name string) string {
		if name == "host" {
			return host
		}
		return r.Header.Get(name)
	}, r.Header.Get(headerContentHash))
	credential := s.AccessKeyID
	if scheme == ACS4 {
		credential = strings.Join([]string{s.AccessKeyID, day, s.Region, acs4Product, acs4End}, "/")
	}
	r.Header.Set(headerAuthorization, fmt.Sprintf("%v Credential=%s,SignedHeaders=%s,Signature=%s",
		scheme, credential, strings.Join(signed, ";"), headerSignature(scheme, s.Secret, day, s.Region, text)))
	return nil
}

// bodyOf gives the body without using it up.
func bodyOf(r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if r.GetBody == nil {
		return nil, errors.New("kmssign: the body can be read once only, so it can't be signed; make the request with the body as a bytes.Reader")
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, fmt.Errorf("kmssign: the body: %w", err)
	}
	var buf bytes.Buffer
	_, err = io.Copy(&buf, body)
	if err = errors.Join(err, body.Close()); err != nil {
		return nil, fmt.Errorf("kmssign: the body: %w", err)
	}
	return buf.Bytes(), nil
}

// twiceIn names a parameter that has more than one value.
func twiceIn(params url.Values) (string, bool) {
	for name, list := range params {
		if len(list) != 1 {
			return name, true
		}
	}
	return "", false
}
