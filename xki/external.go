package xki

import (
	"context"
	"errors"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/blob"
	"github.com/keyward/keyward/kms/kmswire"
)

// External makes of a Connection what a kms.Service uses external keys through.
type External struct {
	*Connection
	Instance string // for messages
}

var _ kms.ExternalKeys = (*External)(nil)

// Describe implements kms.ExternalKeys.
func (e *External) Describe(ctx context.Context, use *kms.ExternalUse) (*kms.ExternalKey, error) {
	a, err := e.Do(ctx, e.request(OpMetadata, use))
	if err != nil {
		return nil, e.forKMS(use, err)
	}
	k := &kms.ExternalKey{AES256: a.Key.Spec == SpecAES256 || a.Key.Spec == string(kmswire.AES256), Enabled: a.Key.Status == StatusEnabled}
	for _, usage := range a.Key.Usage {
		k.Encrypts = k.Encrypts || usage == UsageEncrypt
		k.Decrypts = k.Decrypts || usage == UsageDecrypt
	}
	return k, nil
}

// Encrypt implements kms.ExternalKeys.
func (e *External) Encrypt(ctx context.Context, use *kms.ExternalUse, plaintext, aad []byte) (*blob.Outside, error) {
	r := e.request(OpEncrypt, use)
	r.Algorithm, r.Plaintext, r.AAD = AlgorithmGCM, plaintext, aad
	a, err := e.Do(ctx, r)
	if err != nil {
		return nil, e.forKMS(use, err)
	}
	s := &a.Sealed
	return &blob.Outside{IV: s.IV, Metadata: s.Metadata, Tag: s.Tag, Ciphertext: s.Ciphertext}, nil
}

// Decrypt implements kms.ExternalKeys.
func (e *External) Decrypt(ctx context.Context, use *kms.ExternalUse, o *blob.Outside, aad []byte) ([]byte, error) {
	r := e.request(OpDecrypt, use)
	r.Algorithm, r.AAD = AlgorithmGCM, aad
	r.Sealed = Sealed{Ciphertext: o.Ciphertext, IV: o.IV, Tag: o.Tag, Metadata: o.Metadata}
	a, err := e.Do(ctx, r)
	if err != nil {
		return nil, e.forKMS(use, err)
	}
	return a.Plaintext, nil
}

func (e *External) request(op Operation, use *kms.ExternalUse) *Request {
	action := use.Action
	if e.client.cfg.Dialect.is(XKIv1) {
		action = "kms:" + action
	}
	return &Request{Op: op, KeyID: use.ExternalID, Metadata: RequestMetadata{
		PrincipalARN: use.Principal, KeyARN: use.KeyARN, Operation: action, RequestID: use.RequestID,
	}}
}

// trouble is what an error of a proxy is to who uses a key behind it: the code of the service, and what to do.
type trouble struct {
	code   kms.Code
	advice string
}

// troubles has each Code; a test says so.
var troubles = [numCodes]trouble{
	Validation:           {kms.KeyUnavailable, "the proxy does not understand us; is it of the dialect that keywardctl xki connections shows?"},
	InvalidState:         {kms.KeyUnavailable, "the key can't be used at its key manager; enable it there"},
	InvalidCiphertext:    {kms.InvalidParameter, ""},
	InvalidKeyUsage:      {kms.KeyUnavailable, "the key may not do that at its key manager; allow it there"},
	AuthenticationFailed: {kms.KeyUnavailable, "the proxy refuses our access key, or our clock is wrong; the instance is Disconnected until that is mended: keywardctl xki connect"},
	AccessDenied:         {kms.Denied, "a rule of the proxy says no"},
	KeyNotFound:          {kms.KeyNotFound, "the proxy has no such key for us"},
	InvalidURIPath:       {kms.KeyUnavailable, "the proxy has no key store at the path that keywardctl xki connections shows"},
	MethodNotAllowed:     {kms.KeyUnavailable, "this is no proxy of that dialect"},
	Throttling:           {kms.Throttled, "the proxy has too much to do; try again"},
	Internal:             {kms.HSMUnavailable, "the proxy has a fault; try again"},
	Unsupported:          {kms.UnsupportedOperation, "the proxy does not do that, or not with so much"},
	DependencyTimeout:    {kms.HSMUnavailable, "the key manager behind the proxy did not answer in time; try again"},
	BadAnswer:            {kms.KeyUnavailable, "what the proxy answers can't be interpreted; keyward's log says more"},
	Unreachable:          {kms.HSMUnavailable, "the proxy can't be reached; try again"},
	Misconfigured:        {kms.KeyUnavailable, "keywardctl xki connect sets the connection anew"},
	NoSecret:             {kms.KeyUnavailable, "the secret of our access key can't be opened; keywardctl status may say why, and keywardctl xki connect sets it anew"},
}

// forKMS words an error for the service.
func (e *External) forKMS(use *kms.ExternalUse, err error) error {
	if errors.Is(err, context.Canceled) {
		return &kms.Error{Code: kms.Canceled, Err: err}
	}
	failure := AsError(err)
	t := troubles[failure.Code]
	if failure.Code == Misconfigured {
		t.advice = failure.Detail + "; " + t.advice
	}
	out := kms.Errorf(t.code, "the external key %s of %s: %s", use.ExternalID, e.Instance, t.advice)
	out.Err = failure
	if failure.Code == InvalidCiphertext {
		out.Param = "CiphertextBlob"
	}
	return out
}
