package kmswire

// GetRandomPassword.

type GetRandomPasswordRequest struct {
	PasswordLength          *int   `param:"PasswordLength"` // 8..128, default 32
	ExcludeCharacters       string `param:"ExcludeCharacters"`
	ExcludeLowercase        bool   `param:"ExcludeLowercase"`
	ExcludeUppercase        bool   `param:"ExcludeUppercase"`
	ExcludeNumbers          bool   `param:"ExcludeNumbers"`
	ExcludePunctuation      bool   `param:"ExcludePunctuation"`
	RequireEachIncludedType bool   `param:"RequireEachIncludedType"`
}

type GetRandomPasswordResponse struct {
	Answer
	RandomPassword string
}
