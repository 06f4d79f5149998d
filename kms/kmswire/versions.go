package kmswire

// The actions about versions and rotation.

type CreateKeyVersionRequest struct {
	KeyID string `param:"KeyId,required"`
}

type CreateKeyVersionResponse struct {
	Answer
	KeyVersion KeyVersion
}

type DescribeKeyVersionRequest struct {
	KeyID        string `param:"KeyId,required"`
	KeyVersionID string `param:"KeyVersionId,required"`
}

type DescribeKeyVersionResponse struct {
	Answer
	KeyVersion KeyVersion
}

type ListKeyVersionsRequest struct {
	KeyID string `param:"KeyId,required"`
	Page
}

type ListKeyVersionsResponse struct {
	Answer
	Paged
	KeyVersions struct{ KeyVersion []KeyVersion }
}

type UpdateRotationPolicyRequest struct {
	KeyID                   string `param:"KeyId,required"`
	EnableAutomaticRotation bool   `param:"EnableAutomaticRotation,required"`
	RotationInterval        string `param:"RotationInterval"` // required when it is switched on: 30d, 604800s
}
