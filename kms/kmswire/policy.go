package kmswire

import "encoding/json"

// The actions about key policies.

// DefaultPolicyName is the one PolicyName that there is; left out means it.
const DefaultPolicyName = "default"

type SetKeyPolicyRequest struct {
	KeyID      string          `param:"KeyId,required"`
	PolicyName string          `param:"PolicyName"`
	Policy     json.RawMessage `param:"Policy,required"`
}

type GetKeyPolicyRequest struct {
	KeyID      string `param:"KeyId,required"`
	PolicyName string `param:"PolicyName"`
}

type GetKeyPolicyResponse struct {
	Answer
	Policy string // JSON text
	// keyward: the accounts that own the key: the one that made it, then the owner of the shared instance that it is in.
	Owners struct{ Account []string }
}
