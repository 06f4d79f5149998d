package kmswire

import "encoding/json"

// The actions about tags.

type TagResourceRequest struct {
	Tags          json.RawMessage `param:"Tags,required"` // [{"TagKey":"k","TagValue":"v"}]
	KeyID         string          `param:"KeyId"`
	SecretName    string          `param:"SecretName"`    // not supported
	CertificateID string          `param:"CertificateId"` // not supported
}

type UntagResourceRequest struct {
	TagKeys       string `param:"TagKeys,required"` // a JSON array of strings, or text with commas between the keys
	KeyID         string `param:"KeyId"`
	SecretName    string `param:"SecretName"`    // not supported
	CertificateID string `param:"CertificateId"` // not supported
}

type ListResourceTagsRequest struct {
	KeyID string `param:"KeyId,required"`
}

type ResourceTag struct {
	KeyID    string `json:"KeyId"`
	TagKey   string
	TagValue string
}

type ListResourceTagsResponse struct {
	Answer
	Tags struct{ Tag []ResourceTag }
}

// ResourceTypeKey is the ResourceType that keyward has.
const ResourceTypeKey = "key"

// TagParam is a tag among the parameters of an action: Tag.1.Key, Tag.1.Value.
type TagParam struct {
	Key   string `param:"Key,required"`
	Value string `param:"Value"`
}

type TagResourcesRequest struct {
	RegionID     string     `param:"RegionId,required"`
	ResourceType string     `param:"ResourceType,required"`
	ResourceIDs  []string   `param:"ResourceId,required"` // 1..50
	Tags         []TagParam `param:"Tag,required"`        // 1..20
}

type UntagResourcesRequest struct {
	RegionID     string   `param:"RegionId,required"`
	ResourceType string   `param:"ResourceType,required"`
	ResourceIDs  []string `param:"ResourceId,required"` // 1..50
	TagKeys      []string `param:"TagKey"`              // 0..20
	All          bool     `param:"All"`                 // counts only when there is no TagKey
}

type ListTagResourcesRequest struct {
	RegionID     string     `param:"RegionId,required"`
	ResourceType string     `param:"ResourceType,required"`
	ResourceIDs  []string   `param:"ResourceId"` // 0..50
	Tags         []TagParam `param:"Tag"`        // 0..20
	NextToken    string     `param:"NextToken"`
}

type TagResource struct {
	ResourceID   string `json:"ResourceId"`
	ResourceType string
	TagKey       string
	TagValue     string
}

type ListTagResourcesResponse struct {
	Answer
	TagResources struct{ TagResource []TagResource }
	NextToken    string // empty: there is no more
}
