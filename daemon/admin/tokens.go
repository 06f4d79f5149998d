package admin

// TokensCommand is the command of keywardd that lists the tokens of a PKCS #11 library, as Tokens in JSON.
const TokensCommand = "tokens"

// Tokens are the tokens that a library has.
type Tokens struct {
	Tokens []Token `json:"tokens"`
}

// Token is what a token says of itself.
type Token struct {
	Label        string `json:"label"`
	Serial       string `json:"serial"`
	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
	Initialized  bool   `json:"initialized"`
	UserPIN      bool   `json:"user_pin"` // one is set
	Locked       bool   `json:"locked"`
	FinalTry     bool   `json:"final_try"` // one more wrong PIN locks it
}

// SharesNotGiven is a file of the state directory from before the master keys are made by keywardctl init until their recovery shares were given to people.
const SharesNotGiven = "shares-not-given"
