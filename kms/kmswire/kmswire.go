// Package kmswire is the vocabulary of the KMS API: the parameters and answers of every action as Go types that carry
// their wire names, and the specs, usages and algorithms by their wire spelling. The service, the API door and the
// client share it, so that an action's parameters are written down once. It imports the standard library only.
//
// A request's fields are bound to wire parameters by the tag `param:"Name"`, with the option ",required", or ",present"
// where a parameter must be there and may be empty. The types of fields, and how a parameter's text becomes one:
//
//	string             as is
//	[]byte             standard base64 with padding; ASCII white space is dropped first (see DecodeBase64)
//	*int               decimal
//	int                decimal, and not 0, which a field has that was not given
//	bool               "true" or "false"; false counts as given where it is required
//	map[string]string  one JSON object of strings
//	[]T                Name.1, Name.2 ... (T a string or a struct, whose fields follow after another dot), or all of
//	                   them as one JSON array of strings or of objects of strings
//	json.RawMessage    JSON text, checked to be well formed
//
// Encode and Decode do that binding.
//
// An answer is encoded with encoding/json. Lists are nested objects with a singular inner name, as the original
// service does and as its SDKs require.
package kmswire

// APIVersion is the value of the Version parameter.
const APIVersion = "2016-01-20"

// KeySpec is what kind of key a key is.
type KeySpec string

// The specs of the seed set.
const (
	AES256  KeySpec = "Aliyun_AES_256"
	AES192  KeySpec = "Aliyun_AES_192" // hardware instances only
	AES128  KeySpec = "Aliyun_AES_128" // hardware instances only
	RSA2048 KeySpec = "RSA_2048"
	RSA3072 KeySpec = "RSA_3072"
	RSA4096 KeySpec = "RSA_4096"
	ECP256  KeySpec = "EC_P256"
	ECP256K KeySpec = "EC_P256K" // secp256k1
)

// KeyUsage is what a key may be used for.
type KeyUsage string

// The two usages.
const (
	EncryptDecrypt KeyUsage = "ENCRYPT/DECRYPT"
	SignVerify     KeyUsage = "SIGN/VERIFY"
)

// Algorithm names an asymmetric algorithm, or a way of wrapping.
type Algorithm string

// The algorithms of the seed set. Every digest is SHA-256, so a Digest has 32 octets.
const (
	RSAPSSSHA256   Algorithm = "RSA_PSS_SHA_256"   // salt length 32, MGF1 with SHA-256
	RSAPKCS1SHA256 Algorithm = "RSA_PKCS1_SHA_256" // RSASSA-PKCS1-v1_5, RFC 8017 section 8.2
	ECDSASHA256    Algorithm = "ECDSA_SHA_256"     // signature is ASN.1 DER
	RSAOAEPSHA256  Algorithm = "RSAES_OAEP_SHA_256"
	RSAOAEPSHA1    Algorithm = "RSAES_OAEP_SHA_1"
)

// KeyState is where a key stands in its life.
type KeyState string

// The states of reference section 5.1. A deleted key has none: it does not exist.
const (
	Enabled         KeyState = "Enabled"
	Disabled        KeyState = "Disabled"
	PendingDeletion KeyState = "PendingDeletion"
	PendingImport   KeyState = "PendingImport"
)

// Values of KeyMetadata fields.
const (
	OriginKMS      = "Aliyun_KMS"
	OriginExternal = "EXTERNAL"

	ProtectionSoftware = "SOFTWARE"
	ProtectionHSM      = "HSM"
	ProtectionExternal = "EXTERNAL" // keyward: another key manager has the key

	HsmInternal          = "HsmInternal"          // a token object on one HSM, never extractable
	HsmEncryptedDatabase = "HsmEncryptedDatabase" // made in an HSM, kept in the store under the wrap key
)

// Limits of the API (reference section 6.2). Sizes are in octets unless they say otherwise.
const (
	MaxPlaintext    = 6144
	MaxDataKey      = 1024
	MaxContextText  = 8192 // characters of the JSON text of an EncryptionContext
	MaxDescription  = 8192 // characters
	MaxBatchItems   = 1000 // in one JSON batch; streams have no such limit
	MaxBatchBody    = 16 << 20
	MaxPageSize     = 100
	DefaultPageSize = 10
	DigestSize      = 32
)

// Answer is embedded in every answer. The API door fills it in.
type Answer struct {
	RequestID string `json:"RequestId"`
}

// SetRequestID is called by the door once, before the answer is rendered.
func (a *Answer) SetRequestID(id string) { a.RequestID = id }

// EmptyResponse is the answer of actions that only say that they worked.
type EmptyResponse struct {
	Answer
}

// ErrorBody is the body of every error answer (reference section 1.10).
type ErrorBody struct {
	RequestID  string `json:"RequestId"`
	HostID     string `json:"HostId"`
	Code       string
	Message    string
	Recommend  string
	HTTPStatus int `json:"HttpStatus"`
}

// KeyMetadata describes a key (reference section 4.1). All values are strings on the wire; an empty one means that the
// field does not apply.
type KeyMetadata struct {
	KeyID                         string `json:"KeyId"`
	Arn                           string
	Creator                       string
	CreationDate                  string
	Description                   string
	KeySpec                       KeySpec
	KeyUsage                      KeyUsage
	KeyState                      KeyState
	Origin                        string
	ProtectionLevel               string
	DKMSInstanceID                string `json:"DKMSInstanceId"`
	PrimaryKeyVersion             string
	AutomaticRotation             string
	RotationInterval              string `json:",omitempty"`
	LastRotationDate              string
	NextRotationDate              string `json:",omitempty"`
	MaterialExpireTime            string
	DeleteDate                    string
	DeletionProtection            string
	DeletionProtectionDescription string   `json:",omitempty"`
	KeyStorageMechanism           string   `json:",omitempty"`
	SecondaryKeyUsage             KeyUsage `json:",omitempty"`
	ExternalKeyID                 string   `json:"ExternalKeyId,omitempty"`
}

// Tag is one label of a key.
type Tag struct {
	TagKey   string
	TagValue string
}

// KeyVersion describes one version of a key.
type KeyVersion struct {
	KeyID        string `json:"KeyId"`
	KeyVersionID string `json:"KeyVersionId"`
	CreationDate string
}

// Alias is a second name of a key. AliasName carries the "alias/" prefix.
type Alias struct {
	AliasName string
	AliasArn  string
	KeyID     string `json:"KeyId"`
}

// Page is embedded in requests that list.
type Page struct {
	PageNumber int `param:"PageNumber"` // from 1; left out: 1
	PageSize   int `param:"PageSize"`   // 1..100; left out: DefaultPageSize
}

// Paged is embedded in answers that list.
type Paged struct {
	PageNumber int
	PageSize   int
	TotalCount int
}
