package kmswire

// Who uses a key. These actions are keyward's own.

// CheckStatus says how far the check of a key's associations is.
type CheckStatus string

// The statuses.
const (
	CheckRunning   CheckStatus = "Checking"
	CheckSucceeded CheckStatus = "Success"
	CheckFailed    CheckStatus = "Failed"
)

type StartKeyAssociationCheckRequest struct {
	KeyID string `param:"KeyId,required"`
}

type StartKeyAssociationCheckResponse struct {
	Answer
	CheckID     string `json:"CheckId"`
	CheckStatus CheckStatus
}

type ListKeyAssociationsRequest struct {
	KeyID string `param:"KeyId,required"`
	Page
}

// KeyAssociation is a caller of a key, as the audit knows it.
type KeyAssociation struct {
	ServiceName   string
	ServiceType   string // Service or Program
	PrincipalArn  string
	Unit          string `json:",omitempty"` // of systemd
	Executable    string `json:",omitempty"`
	UID           *int   `json:"Uid,omitempty"`
	Door          string // API, PKCS11 or XKI
	FirstCalledAt string
	LastCalledAt  string `json:",omitempty"` // left out when it is more than 365 days ago
	Calls         int
	ServiceEntry  string `json:",omitempty"`
}

type ListKeyAssociationsResponse struct {
	Answer
	Paged
	CheckID      string `json:"CheckId"`
	CheckStatus  CheckStatus
	CheckTime    string
	Associations struct{ Association []KeyAssociation }
}
