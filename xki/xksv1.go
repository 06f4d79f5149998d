package xki

import (
	"encoding/json"

	"github.com/keyward/keyward/xki/xkisign"
)

// XKSv1 is AWS's dialect (§2).
var XKSv1 = &Dialect{
	name: "xks-v1", base: "/kms/xks/v1", contentType: "application/json", healthCheck: "KmsHealthCheck", schemes: []*xkisign.Scheme{xkisign.SigV4},
	paths: [numOperations]string{OpMetadata: "/keys/{id}/metadata", OpEncrypt: "/keys/{id}/encrypt", OpDecrypt: "/keys/{id}/decrypt", OpHealth: "/health"},
	metadata: []metadataMember{
		{"awsPrincipalArn", func(m *RequestMetadata) *string { return &m.PrincipalARN }, [numOperations]bool{OpMetadata: true, OpEncrypt: true, OpDecrypt: true}, false},
		{"awsSourceVpc", func(m *RequestMetadata) *string { return &m.SourceVPC }, [numOperations]bool{}, false},
		{"awsSourceVpce", func(m *RequestMetadata) *string { return &m.SourceVPCE }, [numOperations]bool{}, false},
		{"kmsKeyArn", func(m *RequestMetadata) *string { return &m.KeyARN }, [numOperations]bool{OpEncrypt: true, OpDecrypt: true}, false},
		{"kmsOperation", func(m *RequestMetadata) *string { return &m.Operation }, [numOperations]bool{OpMetadata: true, OpEncrypt: true, OpDecrypt: true, OpHealth: true}, false},
		{"kmsRequestId", func(m *RequestMetadata) *string { return &m.RequestID }, [numOperations]bool{OpMetadata: true, OpEncrypt: true, OpDecrypt: true, OpHealth: true}, false},
		{"kmsViaService", func(m *RequestMetadata) *string { return &m.ViaService }, [numOperations]bool{}, false},
	},
	requests: [numOperations][]member{
		OpMetadata: {xksMetadata},
		OpHealth:   {xksMetadata},
		OpEncrypt: {xksMetadata,
			octets("plaintext", true, MaxText, func(m *message) *[]byte { return &m.Request.Plaintext }),
			word("encryptionAlgorithm", true, AlgorithmGCM, func(m *message) *string { return &m.Algorithm }),
			octets("additionalAuthenticatedData", false, MaxAAD, func(m *message) *[]byte { return &m.AAD }),
			word("ciphertextDataIntegrityValueAlgorithm", false, IntegritySHA256, func(m *message) *string { return &m.IntegrityAlgorithm }),
		},
		OpDecrypt: {xksMetadata,
			octets("ciphertext", true, MaxText, func(m *message) *[]byte { return &m.Request.Sealed.Ciphertext }),
			word("encryptionAlgorithm", true, AlgorithmGCM, func(m *message) *string { return &m.Algorithm }),
			octets("initializationVector", true, MaxAAD, func(m *message) *[]byte { return &m.Request.Sealed.IV }),
			octets("authenticationTag", true, MaxAAD, func(m *message) *[]byte { return &m.Request.Sealed.Tag }),
			small("ciphertextMetadata", false, MaxMetadata, func(m *message) *[]byte { return &m.Request.Sealed.Metadata }),
			octets("additionalAuthenticatedData", false, MaxAAD, func(m *message) *[]byte { return &m.AAD }),
		},
	},
	answers: [numOperations][]member{
		OpMetadata: {
			text("keySpec", true, func(m *message) *string { return &m.Key.Spec }),
			{name: "keyUsage", required: true, max: maxUsages, value: func(m *message) any { return &m.Key.Usage }},
			text("keyStatus", true, func(m *message) *string { return &m.Key.Status }),
		},
		OpEncrypt: {
			octets("ciphertext", true, MaxText, func(m *message) *[]byte { return &m.Answer.Sealed.Ciphertext }),
			small("initializationVector", true, 16, func(m *message) *[]byte { return &m.Answer.Sealed.IV }),
			small("authenticationTag", true, TagSize, func(m *message) *[]byte { return &m.Answer.Sealed.Tag }),
			small("ciphertextMetadata", false, MaxMetadata, func(m *message) *[]byte { return &m.Answer.Sealed.Metadata }),
			small("ciphertextDataIntegrityValue", false, integritySize, func(m *message) *[]byte { return &m.Integrity }),
		},
		OpDecrypt: {octets("plaintext", true, MaxText, func(m *message) *[]byte { return &m.Answer.Plaintext })},
		OpHealth: {
			{name: "xksProxyFleetSize", required: true, value: func(m *message) any { n := 1; return &n }},
			text("xksProxyVendor", true, func(m *message) *string { return &m.Health.Vendor }),
			text("xksProxyModel", true, func(m *message) *string { return &m.Health.Model }),
			text("ekmVendor", true, func(m *message) *string { return &m.Health.Manager }),
			{name: "ekmFleetDetails", required: true, max: maxFleet, value: func(m *message) any { return &m.Health.Fleet }},
		},
	},
	failures: [numCodes]failure{
		Validation:           {400, "ValidationException"},
		InvalidState:         {400, "InvalidStateException"},
		InvalidCiphertext:    {400, "InvalidCiphertextException"},
		InvalidKeyUsage:      {400, "InvalidKeyUsageException"},
		AuthenticationFailed: {401, "AuthenticationFailedException"},
		AccessDenied:         {403, "AccessDeniedException"},
		KeyNotFound:          {404, "KeyNotFoundException"},
		InvalidURIPath:       {404, "InvalidUriPathException"},
		MethodNotAllowed:     {405, ""},
		Throttling:           {429, "ThrottlingException"},
		Internal:             {500, "InternalException"},
		Unsupported:          {501, "UnsupportedOperationException"},
		DependencyTimeout:    {503, "DependencyTimeoutException"},
	},
	failure: func(d *Dialect, e *Error, _ string) (int, []byte) {
		f := d.failures[e.Code]
		body, err := json.Marshal(xksError{f.name, e.message()})
		if err != nil {
			panic(err) // of two strings
		}
		return f.status, body
	},
	readFailure: func(d *Dialect, status int, body []byte) *Error {
		var e xksError
		if err := json.Unmarshal(body, &e); err != nil || e.Name == "" {
			return Errorf(statusCode(status), "status %d without the error that a proxy answers", status)
		}
		for code, f := range d.failures {
			if f.name == e.Name {
				return Errorf(Code(code), "%s", cut(e.Message))
			}
		}
		return Errorf(statusCode(status), "status %d, %s: %s", status, cut(e.Name), cut(e.Message))
	},
}

var xksMetadata = member{name: "requestMetadata", required: true, value: func(m *message) any { return &m.Request.Metadata }}

// xksError is the body of an error (§2.9). The 405 has no name: the specification has none for it.
type xksError struct {
	Name    string `json:"errorName,omitempty"`
	Message string `json:"errorMessage,omitempty"`
}

// cut bounds what the other end says, for logs.
func cut(s string) string { return s[:min(len(s), maxMessage)] }
