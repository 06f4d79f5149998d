package keystore

// TokenNames are the names that clients have set for a version of a key, as objects of a token.
type TokenNames struct {
	Account  string
	Instance string
	KeyID    string
	Version  string // ID
	Ordinal  uint64 // of the version
	Names    []ClassNames
	record   recordState
}

// ClassNames are the names of a version in one class of objects. What is nil nobody has set.
type ClassNames struct {
	Class uint8
	ID    *[]byte `json:",omitempty"`
	Label *string `json:",omitempty"`
}
