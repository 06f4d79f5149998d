package xki

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/keyward/keyward/xki/xkisign"
)

// Dialect is a way in which the two ends talk. There are XKSv1 and XKIv1.
type Dialect struct {
	name         string
	experimental bool
	base         string // of all paths, behind the prefix
	schemes      []*xkisign.Scheme
	contentType  string
	healthCheck  string // the operation that a health check is for

	// paths by operation; {id} stands for the External Key ID. An operation that the dialect does not have has none.
	paths    [numOperations]string
	requests [numOperations][]member
	answers  [numOperations][]member
	metadata []metadataMember
	failures [numCodes]failure // of the codes that proxies answer

	failure     func(d *Dialect, e *Error, requestID string) (status int, body []byte)
	readFailure func(d *Dialect, status int, body []byte) *Error
}

// failure is how an error is answered.
type failure struct {
	status int
	name   string
}

// Name gives the name by which configurations call the dialect.
func (d *Dialect) Name() string { return d.name }

// is says whether d is a dialect, by whatever names its members go.
func (d *Dialect) is(of *Dialect) bool { return d.name == of.name }

// Experimental says that nobody published the dialect: its names are our assumption.
func (d *Dialect) Experimental() bool { return d.experimental }

// Base is the path of the dialect behind a prefix, such as /kms/xks/v1.
func (d *Dialect) Base() string { return d.base }

// Dialects are all, by name.
var Dialects = map[string]*Dialect{XKSv1.name: XKSv1, XKIv1.name: XKIv1}

// Has says whether the dialect has an operation.
func (d *Dialect) Has(op Operation) bool { return d.paths[op] != "" }

// Route finds the operation of a path behind prefix and base. ok: it is one.
func (d *Dialect) Route(path string) (op Operation, keyID string, ok bool) {
	for op := OpMetadata; op < numOperations; op++ {
		before, after, withKey := strings.Cut(d.paths[op], "{id}")
		switch {
		case d.paths[op] == "":
		case !withKey && path == before:
			return op, "", true
		case withKey && len(path) > len(before)+len(after) && strings.HasPrefix(path, before) && strings.HasSuffix(path, after):
			if id := path[len(before) : len(path)-len(after)]; goodKeyID(id) {
				return op, id, true
			}
		}
	}
	return 0, "", false
}

// path gives the path of a request behind the prefix.
func (d *Dialect) path(op Operation, keyID string) string {
	return d.base + strings.Replace(d.paths[op], "{id}", keyID, 1)
}

// goodKeyID says whether a text can be an External Key ID (§2.1).
func goodKeyID(id string) bool {
	return id != "" && len(id) <= maxKeyID && strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._") == ""
}

// DecodeRequest reads the body of a request; op and keyID are of its path.
func (d *Dialect) DecodeRequest(op Operation, keyID string, body []byte) (*Request, error) {
	r := &Request{Op: op, KeyID: keyID}
	err := decode(body, d.requests[op], &message{Request: r}, func(text json.RawMessage, m *RequestMetadata) error {
		return d.decodeMetadata(op, text, m)
	})
	return r, err
}

// EncodeRequest writes the body of a request.
func (d *Dialect) EncodeRequest(r *Request) ([]byte, error) {
	return encode(d.requests[r.Op], &message{Request: r}, func(m *RequestMetadata) map[string]string { return d.encodeMetadata(r.Op, m) })
}

// EncodeAnswer writes the body of a good answer.
func (d *Dialect) EncodeAnswer(op Operation, a *Answer) ([]byte, error) {
	return encode(d.answers[op], &message{Answer: a}, nil)
}

// DecodeAnswer reads the body of a good answer to r, and holds it against what was asked: lengths, and the integrity value. The error is a BadAnswer.
func (d *Dialect) DecodeAnswer(r *Request, body []byte) (*Answer, error) {
	a := &Answer{}
	err := decode(body, d.answers[r.Op], &message{Answer: a}, nil)
	if err == nil {
		err = a.check(r)
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return nil, &Error{Code: BadAnswer, Member: e.Member, Detail: e.Detail}
	}
	return a, err
}

// EncodeError writes an error as a proxy answers it.
func (d *Dialect) EncodeError(e *Error, requestID string) (status int, body []byte) {
	return d.failure(d, e, requestID)
}

// DecodeError reads the answer of a proxy that is no good one.
func (d *Dialect) DecodeError(status int, body []byte) *Error { return d.readFailure(d, status, body) }

func (d *Dialect) decodeMetadata(op Operation, text json.RawMessage, m *RequestMetadata) error {
	raw, err := object(text)
	if err != nil {
		return d.badMetadata("it must be a JSON object")
	}
	for _, f := range d.metadata {
		v, ok := raw[f.name]
		if !ok || string(v) == "null" {
			if f.required[op] {
				return d.badMetadata("it must have %s", f.name)
			}
			continue
		}
		s := f.value(m)
		if json.Unmarshal(v, s) != nil || len(*s) > maxARN {
			return d.badMetadata("%s must be a string of at most %d octets", f.name, maxARN)
		}
		if *s == "" && f.filled && f.required[op] {
			return d.badMetadata("%s must not be empty", f.name)
		}
	}
	return nil
}

func (d *Dialect) badMetadata(format string, args ...any) error {
	return &Error{Code: Validation, Member: d.requests[OpHealth][0].name, Detail: fmt.Sprintf(format, args...)}
}

func (d *Dialect) encodeMetadata(op Operation, m *RequestMetadata) map[string]string {
	out := map[string]string{}
	for _, f := range d.metadata {
		if v := *f.value(m); v != "" || f.required[op] {
			out[f.name] = v
		}
	}
	return out
}

// check holds an answer against the request.
func (a *Answer) check(r *Request) error {
	bad := func(format string, args ...any) error { return Errorf(BadAnswer, format, args...) }
	switch r.Op {
	case OpEncrypt:
		if len(a.Sealed.Ciphertext) != len(r.Plaintext) {
			return bad("a ciphertext of %d octets for a plaintext of %d", len(a.Sealed.Ciphertext), len(r.Plaintext))
		}
		if err := a.Sealed.check(); err != nil {
			return bad("%s", err.Detail)
		}
		if r.IntegrityAlgorithm != "" && !a.Sealed.hasIntegrity(r.AAD, a.Integrity) {
			return bad("the integrity value is not that of the ciphertext")
		}
	case OpDecrypt:
		if len(a.Plaintext) != len(r.Sealed.Ciphertext) {
			return bad("a plaintext of %d octets for a ciphertext of %d", len(a.Plaintext), len(r.Sealed.Ciphertext))
		}
	case OpRandom:
		return checkRandom(r, a)
	case OpHealth:
		if len(a.Health.Fleet) == 0 && a.Health.Status == "" {
			return bad("no status")
		}
		for _, m := range a.Health.Fleet {
			if m.Status != Active && m.Status != Degraded && m.Status != Unavailable {
				return bad("the status of a member is %.40q", m.Status)
			}
		}
	}
	return nil
}

// check holds a ciphertext's parts against their lengths. What is wrong is InvalidCiphertext.
func (s *Sealed) check() *Error {
	switch {
	case len(s.IV) != 12 && len(s.IV) != 16:
		return Errorf(InvalidCiphertext, "the initialization vector has %d octets; it must have 12 or 16", len(s.IV))
	case len(s.Tag) != TagSize:
		return Errorf(InvalidCiphertext, "the authentication tag has %d octets; it must have %d", len(s.Tag), TagSize)
	}
	return nil
}

// octets makes a member of base64.
func octets(name string, required bool, max int, value func(*message) *[]byte) member {
	return member{name: name, required: required, max: max, value: func(m *message) any { return value(m) }}
}

// small makes a member of base64 of which more than max octets are malformed, not unsupported.
func small(name string, required bool, max int, value func(*message) *[]byte) member {
	m := octets(name, required, max, value)
	m.small = true
	return m
}

func text(name string, required bool, value func(*message) *string) member {
	return member{name: name, required: required, max: maxARN, value: func(m *message) any { return value(m) }}
}

// word makes a member with one value that it may have.
func word(name string, required bool, only string, value func(*message) *string) member {
	m := text(name, required, value)
	m.only = only
	return m
}

// statusCode is what a status without a known error means to a client.
func statusCode(status int) Code {
	switch status {
	case http.StatusUnauthorized:
		return AuthenticationFailed
	case http.StatusTooManyRequests:
		return Throttling
	case http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return DependencyTimeout
	case http.StatusBadGateway: // of a load balancer whose connection to the proxy was refused or lost
		return Unreachable
	}
	return BadAnswer
}
