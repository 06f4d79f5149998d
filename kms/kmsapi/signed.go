package kmsapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmssign"
)

// AccessKeys knows the access keys that requests are signed with, and whether the age of a signature can be told.
type AccessKeys interface {
	// ClockTrusted says why the wall clock can't be right, or nil. While it can't, no signed request is taken: one from long ago
	// would pass for new.
	ClockTrusted() error

	// AccessKey gives the secret of an access key, whose it is, and whether it may be used; an error with the code
	// kms.ResourceNotFound if there is none with this ID. The secret is the caller's, who wipes it. Callers make IDs up,
	// so it is bounded work and leaves no traces.
	AccessKey(ctx context.Context, id string) (secret []byte, principal, account string, enabled bool, err error)
}

// maxUnknownBodies is how many forms may be read at the same time of callers that are not known yet, because their signature
// is in the form or covers it. The SDKs send no bodies.
const maxUnknownBodies = 64

// errClock is the answer while the age of signatures can't be told. Local callers need no clock to be known.
var errClock = &kmssign.Error{Code: kmssign.TryAgain, Detail: "keyward's clock can't be right, so it can't tell how old a signature is. An operator must set the clock; keywardctl status says what is wrong."}

// signatures is how callers are known that the kernel does not know.
type signatures struct {
	keys     AccessKeys
	verifier *kmssign.Verifier
	bodies   chan struct{} // an element for each body of an unknown caller that is being read
}

func newSignatures(keys AccessKeys) *signatures {
	return &signatures{keys: keys, verifier: kmssign.NewVerifier(kmssign.Options{}), bodies: make(chan struct{}, maxUnknownBodies)}
}

// signStatus gives the HTTP status of what kmssign refuses.
var signStatus = map[kmssign.Code]int{
	kmssign.MissingAccessKeyID:    http.StatusBadRequest,
	kmssign.MissingSignature:      http.StatusBadRequest,
	kmssign.MissingParameter:      http.StatusBadRequest,
	kmssign.MissingTimestamp:      http.StatusBadRequest,
	kmssign.MissingSignatureNonce: http.StatusBadRequest,
	kmssign.IncompleteSignature:   http.StatusBadRequest,
	kmssign.SignatureDoesNotMatch: http.StatusBadRequest,
	kmssign.BadTimestamp:          http.StatusBadRequest,
	kmssign.ExpiredTimestamp:      http.StatusBadRequest,
	kmssign.NonceUsed:             http.StatusBadRequest,
	kmssign.UnknownAccessKey:      http.StatusNotFound,
	kmssign.DisabledAccessKey:     http.StatusForbidden,
	kmssign.TokenNotTaken:         http.StatusBadRequest,
	kmssign.TooManyRequests:       http.StatusBadRequest,
	kmssign.TryAgain:              http.StatusServiceUnavailable,
}

// authenticate finds out who the caller is by the signature, and leaves only what was signed of the request: a body is read
// whole, and compared with its hash, before anybody looks at it. Of a caller that is not known no more than a form is read.
func (c *call) authenticate() error {
	s := c.h.signatures
	query := c.r.URL.RawQuery
	if len(query) > maxQuery {
		return errTooLarge.with("The query may have %d octets.", maxQuery)
	}
	params, err := url.ParseQuery(query)
	if err != nil {
		return errParse.with("The query is malformed.")
	}
	c.xml = strings.EqualFold(params.Get("Format"), "XML") // so that what follows is answered in the caller's form
	signedByHeader := kmssign.Detect(c.r.Header, nil) != kmssign.Anonymous
	if !signedByHeader && c.r.ContentLength != 0 {
		if params, err = c.unknownForm(params); err != nil {
			return err
		}
	}
	if err := s.keys.ClockTrusted(); err != nil {
		return errClock // why is for the operator, who finds it in the status
	}
	var principal, account string
	lookup := func(ctx context.Context, id string) (kmssign.Secret, error) {
		var secret kmssign.Secret
		var err error
		secret.Key, principal, account, secret.Enabled, err = s.keys.AccessKey(ctx, id)
		if errors.Is(err, kms.ResourceNotFound) {
			err = kmssign.ErrUnknownKey
		}
		return secret, err
	}
	verified, err := s.verifier.Verify(c.r.Context(), c.r, params, lookup)
	if err != nil {
		return err
	}
	if signedByHeader && c.r.ContentLength != 0 {
		if err := c.signedBody(verified); err != nil {
			return err
		}
	}
	actor := &kms.Actor{Principal: principal, Account: account, Door: kms.DoorAPI, AccessKeyID: verified.AccessKeyID, RemoteAddr: c.r.RemoteAddr}
	if remote, err := netip.ParseAddrPort(c.r.RemoteAddr); err == nil {
		actor.SourceIP = remote.Addr().Unmap()
	}
	c.actor = actor
	return nil
}

// unknownForm reads a form that may have the signature in it, and gives its parameters together with those of the query.
func (c *call) unknownForm(query url.Values) (url.Values, error) {
	mediaType, err := c.mediaType()
	if err != nil {
		return nil, err
	}
	if mediaType != "application/x-www-form-urlencoded" {
		if kmssign.Detect(c.r.Header, query) == kmssign.Anonymous {
			return query, nil // its body does not matter
		}
		return nil, errMediaType.with("A signature in the parameters covers no body but application/x-www-form-urlencoded. Sign with ACS3-HMAC-SHA256.")
	}
	bodies := c.h.signatures.bodies
	wait := time.NewTimer(c.h.bodyTimeout)
	defer wait.Stop()
	select {
	case bodies <- struct{}{}:
		defer func() { <-bodies }()
	case <-wait.C:
		return nil, kms.Errorf(kms.Throttled, "too many forms are being sent; put the parameters into the query")
	case <-c.r.Context().Done():
		return nil, c.r.Context().Err()
	}
	body, err := c.takeBody(maxForm)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, errParse.with("The form in the body is malformed.")
	}
	for name, list := range query {
		form[name] = append(form[name], list...)
	}
	return form, nil
}

// signedBody reads the body and holds it against the hash that was signed.
func (c *call) signedBody(verified *kmssign.Verified) error {
	limit := int64(maxForm)
	if row := c.h.rows[c.r.Header.Get("X-Acs-Action")]; row != nil {
		limit = row.maxBody
	}
	body, err := c.takeBody(limit)
	if err != nil {
		return err
	}
	return verified.CheckBody(body)
}

// takeBody reads the whole body into memory of the call, and makes that the request's body.
func (c *call) takeBody(limit int64) ([]byte, error) {
	c.body = takeBuffer()
	if err := c.readBody(c.body, limit); err != nil {
		return nil, err
	}
	r := *c.r
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(c.body.b)), int64(len(c.body.b))
	c.r = &r
	return c.body.b, nil
}
