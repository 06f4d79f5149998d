package xki

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/keyward/keyward/xki/xkisign"
)

// XKIv1 is Alibaba Cloud's dialect (§3). Nobody published it: what is here comes from one vendor's code and, for the members of encrypt and
// decrypt, from our assumption. Both ends of keyward agree; With corrects names for a proxy that calls things otherwise.
var XKIv1 = &Dialect{
	name: "xki-v1", experimental: true, base: "/kms/xki/v1", contentType: "application/json; charset=utf-8", healthCheck: "kms:HealthCheck",
	schemes: []*xkisign.Scheme{xkisign.ACS4, xkisign.ACS4SM3},
	paths: [numOperations]string{OpMetadata: "/keys/{id}/meta", OpEncrypt: "/keys/{id}/encrypt", OpDecrypt: "/keys/{id}/decrypt", OpHealth: "/health",
		OpRandom: "/random"},
	metadata: []metadataMember{
		{"PrincipalArn", func(m *RequestMetadata) *string { return &m.PrincipalARN }, [numOperations]bool{}, false},
		{"SourceVpc", func(m *RequestMetadata) *string { return &m.SourceVPC }, [numOperations]bool{}, false},
		{"SourceIp", func(m *RequestMetadata) *string { return &m.SourceIP }, [numOperations]bool{}, false},
		{"KmsInstanceId", func(m *RequestMetadata) *string { return &m.InstanceID }, [numOperations]bool{}, false},
		{"KmsKeyArn", func(m *RequestMetadata) *string { return &m.KeyARN }, [numOperations]bool{}, false},
		{"KmsOperation", func(m *RequestMetadata) *string { return &m.Operation }, [numOperations]bool{}, false},
		{"KmsRequestId", func(m *RequestMetadata) *string { return &m.RequestID },
			[numOperations]bool{OpMetadata: true, OpEncrypt: true, OpDecrypt: true, OpHealth: true, OpRandom: true}, true},
		{"KmsViaService", func(m *RequestMetadata) *string { return &m.ViaService }, [numOperations]bool{}, false},
	},
	requests: [numOperations][]member{
		OpMetadata: {xkiMetadata},
		OpHealth:   {xkiMetadata},
		OpEncrypt: {xkiMetadata,
			octets("Plaintext", true, MaxText, func(m *message) *[]byte { return &m.Request.Plaintext }),
			word("Algorithm", true, AlgorithmGCM, func(m *message) *string { return &m.Algorithm }),
			octets("Aad", false, MaxAAD, func(m *message) *[]byte { return &m.AAD }),
		},
		OpDecrypt: {xkiMetadata,
			octets("Ciphertext", true, MaxText, func(m *message) *[]byte { return &m.Request.Sealed.Ciphertext }),
			word("Algorithm", true, AlgorithmGCM, func(m *message) *string { return &m.Algorithm }),
			octets("Iv", true, MaxAAD, func(m *message) *[]byte { return &m.Request.Sealed.IV }),
			octets("Tag", true, MaxAAD, func(m *message) *[]byte { return &m.Request.Sealed.Tag }),
			small("KeyVersion", false, MaxMetadata, func(m *message) *[]byte { return &m.Request.Sealed.Metadata }),
			octets("Aad", false, MaxAAD, func(m *message) *[]byte { return &m.AAD }),
		},
		OpRandom: {xkiMetadata,
			{name: "Length", value: func(m *message) any { return &m.Length }},
			text("OutputForm", false, func(m *message) *string { return &m.OutputForm }),
			octets("PublicKeyBlob", false, MaxText, func(m *message) *[]byte { return &m.PublicKey }),
			text("WrappingAlgorithm", false, func(m *message) *string { return &m.WrappingAlg }),
			text("WrappingKeySpec", false, func(m *message) *string { return &m.WrappingSpec }),
		},
	},
	answers: [numOperations][]member{
		OpMetadata: {xkiRequestID,
			text("KeySpec", true, func(m *message) *string { return &m.Key.Spec }),
			{name: "KeyUsage", required: true, max: maxUsages, value: func(m *message) any { return &m.Key.Usage }},
			text("KeyState", true, func(m *message) *string { return &m.Key.Status }),
		},
		OpEncrypt: {xkiRequestID,
			octets("Ciphertext", true, MaxText, func(m *message) *[]byte { return &m.Answer.Sealed.Ciphertext }),
			small("Iv", true, 16, func(m *message) *[]byte { return &m.Answer.Sealed.IV }),
			small("Tag", true, TagSize, func(m *message) *[]byte { return &m.Answer.Sealed.Tag }),
			small("KeyVersion", false, MaxMetadata, func(m *message) *[]byte { return &m.Answer.Sealed.Metadata }),
		},
		OpDecrypt: {xkiRequestID, octets("Plaintext", true, MaxText, func(m *message) *[]byte { return &m.Answer.Plaintext })},
		OpHealth: {xkiRequestID,
			text("XkiSpecification", true, func(m *message) *string { s := xkiSpecification; return &s }),
			text("XkiServerName", true, func(m *message) *string { return &m.Health.Vendor }),
			text("XkiServerVersion", true, func(m *message) *string { return &m.Health.Model }),
			text("XkiVendor", true, func(m *message) *string { return &m.Health.Manager }),
			text("XkiStatus", true, func(m *message) *string { return &m.Health.Status }),
			text("XkiMessage", false, func(m *message) *string { return &m.Health.Message }),
		},
		OpRandom: {xkiRequestID,
			text("OutputForm", true, func(m *message) *string { return &m.OutForm }),
			small("Output", true, MaxRandom, func(m *message) *[]byte { return &m.Random }),
		},
	},
	// Validation is named after the member: see xkiFailure.
	failures: [numCodes]failure{
		Validation:           {400, "InvalidRequest"},
		InvalidState:         {400, "InvalidKeyState"},
		InvalidCiphertext:    {400, "InvalidCiphertext"},
		InvalidKeyUsage:      {403, "KeyUsageForbidden"},
		AuthenticationFailed: {401, "Unauthorized"},
		AccessDenied:         {403, "AccessForbidden"},
		KeyNotFound:          {404, "KeyNotFound"},
		InvalidURIPath:       {404, "XkiNotFound"},
		MethodNotAllowed:     {405, "MethodNotAllowed"},
		Throttling:           {429, "TooManyRequests"},
		Internal:             {500, "InternalServerError"},
		Unsupported:          {400, "InvalidOperation"},
		DependencyTimeout:    {504, "Timeout"},
	},
	failure:     xkiFailure,
	readFailure: xkiReadFailure,
}

// xkiSpecification is the version of what XKIv1 is made after.
const xkiSpecification = "1.0.0"

// The headers of every answer of XKIv1.
const (
	headerSpecification = "X-Xki-Specification"
	headerServer        = "X-Xki-Server" // name/version
	headerKMSRequestID  = "X-Xki-Kms-Request-Id"
)

var (
	xkiMetadata  = member{name: "RequestMetadata", required: true, value: func(m *message) any { return &m.Request.Metadata }}
	xkiRequestID = text("RequestId", true, func(m *message) *string { return &m.Answer.RequestID })
)

// xkiError is the body of an error.
type xkiError struct {
	RequestID string `json:"RequestId"`
	Code      string
	Message   string
}

const (
	xkiBadDate     = "InvalidAcsDate"
	xkiDisabled    = "KeyDisabledForbidden"
	xkiPending     = "KeyPendingDeletionForbidden"
	xkiBadSign     = "InvalidSignature"
	xkiUnavailable = "ServiceUnavaiable" // as the vendor's code spells it
)

func xkiFailure(d *Dialect, e *Error, requestID string) (int, []byte) {
	f := d.failures[e.Code]
	switch {
	case e.Code == Validation && e.Member != "" && e.Absent:
		f.name = e.Member + "Required"
	case e.Code == Validation && e.Member != "":
		f.name = "Invalid" + e.Member
	case e.Code == AuthenticationFailed && errors.Is(e.Err, xkisign.ErrTime):
		f = failure{400, xkiBadDate}
	case e.Code == InvalidState && e.Disabled:
		f = failure{403, xkiDisabled}
	case e.Code == InvalidState && e.Pending:
		f.name = xkiPending
	}
	body, err := json.Marshal(xkiError{requestID, f.name, e.message()})
	if err != nil {
		panic(err) // of three strings
	}
	return f.status, body
}

// xkiCodes are names of errors that are read beside those that are written.
var xkiCodes = map[string]Code{xkiBadDate: AuthenticationFailed, xkiBadSign: AuthenticationFailed, xkiDisabled: InvalidState, xkiPending: InvalidState,
	xkiUnavailable: DependencyTimeout, "ServiceUnavailable": DependencyTimeout}

func xkiReadFailure(d *Dialect, status int, body []byte) *Error {
	var e xkiError
	if err := json.Unmarshal(body, &e); err != nil || e.Code == "" {
		return Errorf(statusCode(status), "status %d without the error that a proxy answers", status)
	}
	code, known := xkiCodes[e.Code]
	for c, f := range d.failures {
		if !known && f.name == e.Code {
			code, known = Code(c), true
		}
	}
	switch {
	case known:
		return Errorf(code, "%s", cut(e.Message))
	case status == 400 && (strings.HasPrefix(e.Code, "Invalid") || strings.HasSuffix(e.Code, "Required")):
		return Errorf(Validation, "%s: %s", cut(e.Code), cut(e.Message))
	}
	return Errorf(statusCode(status), "status %d, %s: %s", status, cut(e.Code), cut(e.Message))
}

// With gives an experimental dialect with other names for members of its messages, for a proxy that has them. Those that are named must be there. The error is Validation.
func (d *Dialect) With(names map[string]string) (*Dialect, error) {
	switch {
	case len(names) == 0:
		return d, nil
	case !d.experimental:
		return nil, Errorf(Validation, "%s is published, so its members have the names that they have", d.name)
	}
	own, used := *d, map[string]bool{}
	rename := func(list []member) []member {
		list = slices.Clone(list)
		for i := range list {
			if other, ok := names[list[i].name]; ok {
				used[list[i].name] = true
				list[i].name = other
			}
		}
		return list
	}
	for op := range own.requests {
		own.requests[op], own.answers[op] = rename(own.requests[op]), rename(own.answers[op])
		for _, list := range [][]member{own.requests[op], own.answers[op]} {
			seen := map[string]bool{}
			for _, m := range list {
				if seen[m.name] {
					return nil, Errorf(Validation, "two members would be called %.80q", m.name)
				}
				seen[m.name] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !used[name] || names[name] == "" {
			return nil, Errorf(Validation, "%s has no member %.80q that could be called %.80q", d.name, name, names[name])
		}
	}
	return &own, nil
}
