package kmsapi

import (
	"context"
	"errors"
	"reflect"
	"time"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
)

// How long a call may take, from the moment when its request is complete; for a stream, how long each of its chunks
// may. A key pair on a slow HSM can need most of a minute.
const (
	useTimeout    = 30 * time.Second
	manageTimeout = 2 * time.Minute
)

// operation is one row of the table: an action, its limits, and how it is served.
type operation struct {
	action  string
	timeout time.Duration
	maxBody int64 // octets of a body that is read whole

	request, response reflect.Type // structs of kmswire

	run   func(c *call) error                   // decodes c.values, calls the service, answers
	hot   func(c *call) (done bool, err error)  // the same from the raw query, or false to leave it to run; nil for most
	batch func(c *call, mediaType string) error // instead of run, for actions whose items are in the body
}

// service is what the actions of kms.Service look like as method expressions.
type service[Req, Resp any] func(*kms.Service, context.Context, *kms.Actor, *Req) (*Resp, error)

// answer is a pointer to a struct that embeds kmswire.Answer.
type answer[Resp any] interface {
	*Resp
	SetRequestID(id string)
}

// op is an ordinary row.
func op[Req, Resp any, P answer[Resp]](action string, serve service[Req, Resp]) operation {
	return hotOp[Req, Resp, P](action, serve, nil, nil)
}

// hotOp is a row with a codec of its own. decode sets a zero Req from the raw query, or gives false if there is
// anything unusual about it: then it is decoded again in the ordinary way, which finds the error or understands it.
// encode appends what encoding/json would. Either may be nil.
func hotOp[Req, Resp any, P answer[Resp]](action string, serve service[Req, Resp],
	decode func(rawQuery string, req *Req) bool, encode func(dst []byte, resp *Resp) []byte) operation {

	if encode == nil {
		encode = appendAnswer[Resp]
	}
	finish := func(c *call, req *Req) error {
		ctx, cancel := context.WithTimeout(kms.WithRequestID(c.r.Context(), c.id), c.timeout())
		defer cancel()
		resp, err := serve(c.h.svc, ctx, c.actor, req)
		if err != nil {
			return err
		}
		if resp == nil {
			return errors.New("the service gave neither an answer nor an error")
		}
		P(resp).SetRequestID(c.id)
		c.nameItemErrors(resp)
		buf := takeBuffer()
		buf.b = encode(buf.b, resp)
		wipeAnswer(resp)
		c.write(200, buf.b)
		buf.release()
		return nil
	}
	row := operation{
		action: action, timeout: useTimeout, maxBody: maxForm,
		request: reflect.TypeFor[Req](), response: reflect.TypeFor[Resp](),
		run: func(c *call) error {
			req := new(Req)
			if err := c.decode(req); err != nil {
				return err
			}
			return finish(c, req)
		},
	}
	if decode != nil {
		row.hot = func(c *call) (bool, error) {
			req := new(Req)
			if !decode(c.r.URL.RawQuery, req) {
				return false, nil
			}
			return true, finish(c, req)
		}
	}
	return row
}

// within gives the row with another timeout.
func (o operation) within(timeout time.Duration) operation {
	o.timeout = timeout
	return o
}

// operations is the table of all actions that keyward does, by name. A test compares it with the methods of
// kms.Service.
var operations = []operation{
	hotOp("AsymmetricDecrypt", (*kms.Service).AsymmetricDecrypt, nil, appendDecrypt), // encoding/json would keep plaintext in its pools
	op("AsymmetricEncrypt", (*kms.Service).AsymmetricEncrypt),
	hotOp("AsymmetricSign", (*kms.Service).AsymmetricSign, decodeAsymmetricSign, appendAsymmetricSign),
	hotOp("AsymmetricVerify", (*kms.Service).AsymmetricVerify, decodeAsymmetricVerify, appendAsymmetricVerify),
	batchOp("BatchDecrypt", (*kms.Service).BatchDecrypt, decryptItems),
	batchOp("BatchEncrypt", (*kms.Service).BatchEncrypt, encryptItems),
	hotOp("BatchGenerateDataKey", (*kms.Service).BatchGenerateDataKey, nil, appendBatchGenerateDataKey), // the same
	batchOp("BatchSign", (*kms.Service).BatchSign, signItems),
	batchOp("BatchVerify", (*kms.Service).BatchVerify, verifyItems),
	op("CancelKeyDeletion", (*kms.Service).CancelKeyDeletion).within(manageTimeout),
	op("CreateAlias", (*kms.Service).CreateAlias).within(manageTimeout),
	op("CreateKey", (*kms.Service).CreateKey).within(manageTimeout),
	op("CreateKeyVersion", (*kms.Service).CreateKeyVersion).within(manageTimeout),
	hotOp("Decrypt", (*kms.Service).Decrypt, decodeDecrypt, appendDecrypt),
	op("DeleteAlias", (*kms.Service).DeleteAlias).within(manageTimeout),
	op("DeleteKeyMaterial", (*kms.Service).DeleteKeyMaterial).within(manageTimeout),
	op("DescribeAccountKmsStatus", (*kms.Service).DescribeAccountKmsStatus),
	op("DescribeKey", (*kms.Service).DescribeKey),
	op("DescribeKeyVersion", (*kms.Service).DescribeKeyVersion),
	op("DescribeRegions", (*kms.Service).DescribeRegions),
	op("DisableKey", (*kms.Service).DisableKey).within(manageTimeout),
	op("EnableDefaultKey", (*kms.Service).EnableDefaultKey).within(manageTimeout),
	op("EnableKey", (*kms.Service).EnableKey).within(manageTimeout),
	hotOp("Encrypt", (*kms.Service).Encrypt, decodeEncrypt, appendEncrypt),
	op("ExportDataKey", (*kms.Service).ExportDataKey),
	op("GenerateAndExportDataKey", (*kms.Service).GenerateAndExportDataKey),
	op("GenerateCsr", (*kms.Service).GenerateCsr),
	hotOp("GenerateDataKey", (*kms.Service).GenerateDataKey, decodeGenerateDataKey, appendGenerateDataKey),
	op("GenerateDataKeyWithoutPlaintext", (*kms.Service).GenerateDataKeyWithoutPlaintext),
	op("GetDefaultKmsInstance", (*kms.Service).GetDefaultKmsInstance),
	op("GetKeyPolicy", (*kms.Service).GetKeyPolicy),
	op("GetKmsInstance", (*kms.Service).GetKmsInstance),
	op("GetKmsInstanceQuotaInfos", (*kms.Service).GetKmsInstanceQuotaInfos),
	op("GetParametersForImport", (*kms.Service).GetParametersForImport).within(manageTimeout),
	op("GetPublicKey", (*kms.Service).GetPublicKey),
	op("GetRandomPassword", (*kms.Service).GetRandomPassword),
	op("ImportKeyMaterial", (*kms.Service).ImportKeyMaterial).within(manageTimeout),
	op("ListAliases", (*kms.Service).ListAliases),
	op("ListAliasesByKeyId", (*kms.Service).ListAliasesByKeyID),
	op("ListKeyAssociations", (*kms.Service).ListKeyAssociations),
	op("ListKeyVersions", (*kms.Service).ListKeyVersions),
	op("ListKeys", (*kms.Service).ListKeys),
	op("ListKmsInstances", (*kms.Service).ListKmsInstances),
	op("ListResourceTags", (*kms.Service).ListResourceTags),
	op("ListTagResources", (*kms.Service).ListTagResources),
	op("OpenKmsService", (*kms.Service).OpenKmsService).within(manageTimeout),
	op("ReEncrypt", (*kms.Service).ReEncrypt),
	op("ScheduleKeyDeletion", (*kms.Service).ScheduleKeyDeletion).within(manageTimeout),
	op("SetDeletionProtection", (*kms.Service).SetDeletionProtection).within(manageTimeout),
	op("SetKeyPolicy", (*kms.Service).SetKeyPolicy).within(manageTimeout),
	op("StartKeyAssociationCheck", (*kms.Service).StartKeyAssociationCheck),
	op("TagResource", (*kms.Service).TagResource).within(manageTimeout),
	op("TagResources", (*kms.Service).TagResources).within(manageTimeout),
	op("UntagResource", (*kms.Service).UntagResource).within(manageTimeout),
	op("UntagResources", (*kms.Service).UntagResources).within(manageTimeout),
	op("UpdateAlias", (*kms.Service).UpdateAlias).within(manageTimeout),
	op("UpdateKeyDescription", (*kms.Service).UpdateKeyDescription).within(manageTimeout),
	op("UpdateRotationPolicy", (*kms.Service).UpdateRotationPolicy).within(manageTimeout),
}

// notDone names the actions of the original service, and of keyward's own extensions, that keyward does not
// do. They are answered with UnsupportedOperation, so that a caller can tell them from a misspelt name.
var notDone = []string{
	"BatchGetSecretValue",
	"CertificatePrivateKeyDecrypt",
	"CertificatePrivateKeySign",
	"CertificatePublicKeyEncrypt",
	"CertificatePublicKeyVerify",
	"ConnectKmsInstance",
	"CreateApplicationAccessPoint",
	"CreateCertificate",
	"CreateClientKey",
	"CreateNetworkRule",
	"CreatePolicy",
	"CreateSecret",
	"DeleteApplicationAccessPoint",
	"DeleteCertificate",
	"DeleteClientKey",
	"DeleteNetworkRule",
	"DeletePolicy",
	"DeleteSecret",
	"DescribeApplicationAccessPoint",
	"DescribeCertificate",
	"DescribeNetworkRule",
	"DescribePolicy",
	"DescribeSecret",
	"GenerateMac",
	"GetCertificate",
	"GetClientKey",
	"GetManagedDataKey",
	"GetSecretPolicy",
	"GetSecretValue",
	"ListApplicationAccessPoints",
	"ListClientKeys",
	"ListManagedDataKeyVersions",
	"ListNetworkRules",
	"ListPolicies",
	"ListSecretVersionIds",
	"ListSecrets",
	"PutSecretValue",
	"ReleaseKmsInstance",
	"RestoreSecret",
	"RotateSecret",
	"SetSecretPolicy",
	"UpdateApplicationAccessPoint",
	"UpdateCertificateStatus",
	"UpdateKmsInstanceBindVpc",
	"UpdateNetworkRule",
	"UpdatePolicy",
	"UpdateSecret",
	"UpdateSecretRotationPolicy",
	"UpdateSecretVersionStage",
	"UploadCertificate",
	"VerifyMac",
}

// ActionInfo describes an action for a reference page or a command line.
type ActionInfo struct {
	Name       string
	Parameters []kmswire.Parameter
	Items      bool // it takes Items in the body of a POST, see the package comment
}

// Actions lists the actions that keyward does, by name.
func Actions() []ActionInfo {
	list := make([]ActionInfo, len(operations))
	for i, o := range operations {
		params, err := kmswire.Parameters(reflect.Zero(o.request).Interface())
		if err != nil { // a tag that kmswire does not understand; a test finds it
			panic(err)
		}
		list[i] = ActionInfo{Name: o.action, Parameters: params, Items: o.batch != nil}
	}
	return list
}
