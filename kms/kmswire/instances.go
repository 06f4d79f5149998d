package kmswire

import "encoding/json"

// The actions about instances, the region, and the account's use of the service.

type ListKmsInstancesRequest struct {
	Page
	Filters json.RawMessage `param:"Filters"`
}

type KmsInstanceSummary struct {
	KmsInstanceID   string `json:"KmsInstanceId"`
	KmsInstanceArn  string
	KmsInstanceType string // keyward: software, hardware or external
}

type ListKmsInstancesResponse struct {
	Answer
	Paged
	KmsInstances struct{ KmsInstance []KmsInstanceSummary }
}

type DescribeRegionsRequest struct{}

type DescribeRegionsResponse struct {
	Answer
	Regions struct{ Region []Region }
}

type Region struct {
	RegionID string `json:"RegionId"`
}

type GetKmsInstanceRequest struct {
	KmsInstanceID string `param:"KmsInstanceId,required"`
}

// KmsInstance describes an instance. The original also has VswitchIds and ZoneIds, which SDKs of one generation read as
// text and those of the next as lists: either form would break the other, and none breaks nobody.
type KmsInstance struct {
	InstanceID                    string `json:"InstanceId"`
	InstanceName                  string
	KmsInstanceType               string // keyward: software, hardware or external
	Status                        string
	CreateTime                    string `json:",omitempty"`
	StartDate                     string `json:",omitempty"`
	EndDate                       string `json:",omitempty"`
	Spec                          int    // operations a second; 0: no limit
	KeyNum                        int    // key versions that may be in it
	SecretNum                     string // secrets that may be made
	VpcNum                        int    // other accounts that may be let in
	VpcID                         string `json:"VpcId,omitempty"`
	BindVpcs                      struct{ BindVpc []BindVpc }
	CaCertificateChainPem         string `json:",omitempty"`
	ChargeType                    string `json:",omitempty"`
	ProductType                   string `json:",omitempty"`
	ProductVersion                string `json:",omitempty"`
	SaleStatus                    string `json:",omitempty"`
	Log                           int
	LogStorage                    int
	DeletionProtection            bool
	DeletionProtectionDescription string                     `json:",omitempty"`
	Default                       bool                       // keyward: keys are made in it when no instance is named
	SharedWith                    struct{ Account []string } // keyward: other accounts that may make keys in it
}

// BindVpc is a network that reaches an instance. keyward has none; the list that SDKs expect stays empty.
type BindVpc struct {
	RegionID   string `json:"RegionId"`
	VpcID      string `json:"VpcId"`
	VSwitchID  string `json:"VSwitchId"`
	VpcOwnerID string `json:"VpcOwnerId"`
}

type GetKmsInstanceResponse struct {
	Answer
	KmsInstance KmsInstance
}

type GetDefaultKmsInstanceRequest struct{}

type GetDefaultKmsInstanceResponse struct {
	Answer
	DefaultKmsInstanceID string `json:"DefaultKmsInstanceId"`
}

type GetKmsInstanceQuotaInfosRequest struct {
	KmsInstanceID string `param:"KmsInstanceId"`
	ResourceType  string `param:"ResourceType"` // key, secret, qps or vpc
}

type KmsInstanceQuotaInfo struct {
	ResourceType  string
	ResourceQuota int
	UsedQuantity  int
}

// GetKmsInstanceQuotaInfosResponse has the one list that is not nested in an object.
type GetKmsInstanceQuotaInfosResponse struct {
	Answer
	KmsInstanceID         string `json:"KmsInstanceId"`
	KmsInstanceQuotaInfos []KmsInstanceQuotaInfo
}

type OpenKmsServiceRequest struct{}

type DescribeAccountKmsStatusRequest struct{}

type DescribeAccountKmsStatusResponse struct {
	Answer
	AccountStatus string // Enabled, NotEnabled, InDebt or Suspended
}
