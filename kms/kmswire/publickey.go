package kmswire

// The actions that give out public keys. GenerateCsr is keyward's own.

type GetPublicKeyRequest struct {
	KeyID        string `param:"KeyId,required"`
	KeyVersionID string `param:"KeyVersionId,required"`
	DryRun       bool   `param:"DryRun"`
}

type GetPublicKeyResponse struct {
	Answer
	KeyID        string `json:"KeyId"`
	KeyVersionID string `json:"KeyVersionId"`
	PublicKey    string // PEM SubjectPublicKeyInfo
}

// GenerateCsrRequest asks for a certificate signing request (PKCS#10) that a version of an asymmetric key signs.
type GenerateCsrRequest struct {
	KeyID                   string    `param:"KeyId,required"`
	KeyVersionID            string    `param:"KeyVersionId"` // left out: the newest
	Algorithm               Algorithm `param:"Algorithm,required"`
	CommonName              string    `param:"CommonName,required"`
	OrganizationName        string    `param:"OrganizationName"`
	OrganizationalUnit      string    `param:"OrganizationalUnit"`
	Province                string    `param:"Province"`
	Locality                string    `param:"Locality"`
	Country                 string    `param:"Country"` // ISO 3166-1 alpha-2
	EmailAddress            string    `param:"EmailAddress"`
	SubjectAlternativeNames string    `param:"SubjectAlternativeNames"` // DNS:, IP:, URI: and email: names, commas between them
}

type GenerateCsrResponse struct {
	Answer
	KeyID        string `json:"KeyId"`
	KeyVersionID string `json:"KeyVersionId"`
	Csr          string // PEM
}
