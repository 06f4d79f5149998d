package kmswire

// The actions about aliases.

type CreateAliasRequest struct {
	AliasName string `param:"AliasName,required"`
	KeyID     string `param:"KeyId,required"`
}

type UpdateAliasRequest struct {
	AliasName string `param:"AliasName,required"`
	KeyID     string `param:"KeyId,required"`
}

type DeleteAliasRequest struct {
	AliasName string `param:"AliasName,required"`
}

type ListAliasesRequest struct {
	Page
}

type ListAliasesByKeyIDRequest struct {
	KeyID string `param:"KeyId,required"`
	Page
}

type ListAliasesResponse struct {
	Answer
	Paged
	Aliases struct{ Alias []Alias }
}
