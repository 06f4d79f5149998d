package ctl

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

// fakeDaemon is a daemon of a few hundred lines: real cryptography, no policy, no HSM.
type fakeDaemon struct {
	socket string
	status admin.Status

	mu      sync.Mutex
	keys    []*fakeKey
	aliases map[string]string
	calls   []string                      // actions, in order
	refuse  map[string]*kmswire.ErrorBody // by action

	usage fakeUse
	csrs  []*kmswire.GenerateCsrRequest

	filters         []string // of ListKeys, in order
	tokens          []string // of CreateKey, in order
	defaultInstance string

	needRestart []string
	busy        bool           // members never get idle
	refusal     *admin.Failure // of every call that changes the appliance; its status is 409
	managed     []string       // what was asked for, in order

	imported   map[string][]byte  // material by key
	principals []*admin.Principal // see people_test.go
	pin        string             // that was set last
	documents  map[string]string  // identity policies, by ARN and name
	disabled   map[string]bool    // access keys
	simulated  admin.Simulated
	asked      admin.Simulation // last
	policies   map[string]string
}

type fakeKey struct {
	kmswire.KeyMetadata
	tags     []kmswire.Tag
	versions []fakeVersion
}

type fakeVersion struct {
	id, created string
	gcm         cipher.AEAD
	signer      crypto.Signer
}

func startFake(t *testing.T) *fakeDaemon {
	t.Helper()
	d := &fakeDaemon{socket: filepath.Join(t.TempDir(), "s"), aliases: map[string]string{}, refuse: map[string]*kmswire.ErrorBody{},
		documents: map[string]string{}, disabled: map[string]bool{}, policies: map[string]string{},
		status: admin.Status{Version: "1.0", Principal: "acs:ram::" + fakeAccount + ":root", State: admin.OK, Members: []admin.Member{{Name: "hsm-a", State: "up"}, {Name: "hsm-b", State: "up"}}}}
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: d}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return d
}

// ctl runs one command line against the fake.
func (d *fakeDaemon) ctl(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return d.ctlFrom(t, strings.NewReader(stdin), args...)
}

func (d *fakeDaemon) ctlFrom(t *testing.T, stdin io.Reader, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, talk bytes.Buffer
	code = run(t.Context(), append([]string{"--socket", d.socket}, args...), stdin, &out, &talk)
	return code, out.String(), talk.String()
}

// must runs a command line that has to work.
func (d *fakeDaemon) must(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	code, stdout, stderr := d.ctl(t, "", args...)
	if code != exitOK {
		t.Fatalf("%v: exit code %d\n%s", args, code, stderr)
	}
	return stdout, stderr
}

func problem(status int, code, format string, a ...any) *kmswire.ErrorBody {
	return &kmswire.ErrorBody{RequestID: "req-1", Code: code, Message: fmt.Sprintf(format, a...), HTTPStatus: status}
}

func (d *fakeDaemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case admin.StatusPath:
		json.NewEncoder(w).Encode(d.status)
		return
	case admin.MembersPath:
		json.NewEncoder(w).Encode(admin.Members{Members: d.status.Members, Pool: admin.Pool{Waiting: 3, Room: 4096, Principals: 2}})
		return
	case admin.ReloadPath:
		d.manage(w, "reload", admin.Reloaded{NeedRestart: d.needRestart})
		return
	case admin.ClockConfirmPath:
		d.manage(w, "clock confirm", admin.ClockConfirmed{Time: time.Unix(0, 0).UTC()})
		return
	case admin.MetricsPath:
		io.WriteString(w, "keyward_hsm_up 1\n")
		return
	}
	if d.people(w, r) {
		return
	}
	if parts := strings.Split(r.URL.Path, "/"); len(parts) == 5 && parts[2] == "members" {
		d.member(w, parts[3], parts[4], r.Body)
		return
	}
	action := r.URL.Query().Get("Action")
	var answer any
	d.mu.Lock()
	d.calls = append(d.calls, action)
	refusal := d.refuse[action]
	d.mu.Unlock()
	if refusal == nil {
		if strings.HasPrefix(action, "Batch") && r.Header.Get("Content-Type") != "application/json" {
			d.stream(w, r, action)
			return
		}
		d.mu.Lock()
		answer, refusal = d.do(action, r.URL.Query(), r.Body)
		d.mu.Unlock()
	}
	if refusal != nil {
		w.WriteHeader(refusal.HTTPStatus)
		answer = refusal
	}
	json.NewEncoder(w).Encode(answer)
}

// manage answers a call of the administration that changes something.
func (d *fakeDaemon) manage(w http.ResponseWriter, what string, answer any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.managed = append(d.managed, what)
	if d.refusal != nil {
		w.WriteHeader(http.StatusConflict)
		answer = d.refusal
	}
	json.NewEncoder(w).Encode(answer)
}

// member does what is asked for with one member.
func (d *fakeDaemon) member(w http.ResponseWriter, name, verb string, body io.Reader) {
	i := slices.IndexFunc(d.status.Members, func(m admin.Member) bool { return m.Name == name })
	if i < 0 {
		w.WriteHeader(http.StatusNotFound)
		json.NewEncoder(w).Encode(admin.Failure{Message: "there is no HSM member \"" + name + "\""})
		return
	}
	m := &d.status.Members[i]
	given, err := io.ReadAll(body)
	if err != nil {
		panic(err)
	}
	var answer any
	switch verb {
	case "drain":
		m.State = admin.Draining
		answer = admin.Drained{Idle: !d.busy, Member: *m}
	case "undrain":
		m.State = admin.HalfOpen
		answer = m
	case "enroll":
		answer = admin.Enrolled{Member: name, Group: "g-1"}
	}
	d.manage(w, verb+" "+name+" "+string(given), answer)
}

func (d *fakeDaemon) key(ref string) (*fakeKey, *kmswire.ErrorBody) {
	if strings.HasPrefix(ref, "alias/") {
		id, ok := d.aliases[ref]
		if !ok {
			return nil, problem(404, "Forbidden.AliasNotFound", "The specified Alias is not found.")
		}
		ref = id
	}
	for _, k := range d.keys {
		if k.KeyID == ref {
			return k, nil
		}
	}
	return nil, problem(404, "Forbidden.KeyNotFound", "The specified Key is not found.")
}

// use gives a key that is to be used, and one of its versions.
func (d *fakeDaemon) use(ref, version string) (*fakeKey, *fakeVersion, *kmswire.ErrorBody) {
	k, no := d.key(ref)
	if no != nil {
		return nil, nil, no
	}
	if k.KeyState == kmswire.Disabled {
		return nil, nil, problem(409, "Rejected.Disabled", "The request was rejected because the key state is Disabled.")
	}
	for i := range k.versions {
		if v := &k.versions[i]; v.id == version || version == "" && i == len(k.versions)-1 {
			return k, v, nil
		}
	}
	return nil, nil, problem(404, "Forbidden.KeyVersionNotFound", "The specified Key version is not found.")
}

func (k *fakeKey) addVersion() {
	v := fakeVersion{id: fmt.Sprintf("%s-v%d", k.KeyID, len(k.versions)+1), created: fmt.Sprintf("2026-01-0%dT00:00:00Z", len(k.versions)+1)}
	var err error
	switch k.KeySpec {
	case kmswire.RSA2048:
		v.signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case kmswire.ECP256:
		v.signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		secret := make([]byte, 32)
		rand.Read(secret)
		var block cipher.Block
		if block, err = aes.NewCipher(secret); err == nil {
			v.gcm, err = cipher.NewGCM(block)
		}
		k.PrimaryKeyVersion = v.id
	}
	if err != nil {
		panic(err)
	}
	k.versions = append(k.versions, v)
}

// seal makes a blob that begins with its version's id.
func (v *fakeVersion) seal(plaintext []byte, ec map[string]string) []byte {
	nonce := make([]byte, 12)
	rand.Read(nonce)
	return append([]byte(v.id+"|"), v.gcm.Seal(nonce, nonce, plaintext, contextText(ec))...)
}

func contextText(ec map[string]string) []byte {
	text, err := json.Marshal(ec)
	if err != nil {
		panic(err)
	}
	if len(ec) == 0 {
		return nil
	}
	return text
}

func (d *fakeDaemon) open(blob []byte, ec map[string]string) (*fakeKey, *fakeVersion, []byte, *kmswire.ErrorBody) {
	bad := problem(400, "InvalidParameter", `The specified parameter "CiphertextBlob" is not valid.`)
	id, rest, ok := bytes.Cut(blob, []byte("|"))
	at := bytes.LastIndex(id, []byte("-v"))
	if !ok || at < 0 || len(rest) < 12 {
		return nil, nil, nil, bad
	}
	k, v, no := d.use(string(id[:at]), string(id))
	if no != nil {
		return nil, nil, nil, no
	}
	plaintext, err := v.gcm.Open(nil, rest[:12], rest[12:], contextText(ec))
	if err != nil {
		return nil, nil, nil, bad
	}
	return k, v, plaintext, nil
}

func (v *fakeVersion) sign(alg kmswire.Algorithm, digest []byte) []byte {
	var opts crypto.SignerOpts = crypto.SHA256
	if alg == kmswire.RSAPSSSHA256 {
		opts = &rsa.PSSOptions{SaltLength: 32, Hash: crypto.SHA256}
	}
	sig, err := v.signer.Sign(rand.Reader, digest, opts)
	if err != nil {
		panic(err)
	}
	return sig
}

func (v *fakeVersion) verify(alg kmswire.Algorithm, digest, sig []byte) bool {
	switch public := v.signer.Public().(type) {
	case *rsa.PublicKey:
		if alg == kmswire.RSAPSSSHA256 {
			return rsa.VerifyPSS(public, crypto.SHA256, digest, sig, &rsa.PSSOptions{SaltLength: 32}) == nil
		}
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest, sig) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(public, digest, sig)
	}
	return false
}

// page cuts a list as the API does.
func page[T any](all []T, p kmswire.Page) ([]T, kmswire.Paged) {
	from := min((p.PageNumber-1)*p.PageSize, len(all))
	return all[from:min(from+p.PageSize, len(all))], kmswire.Paged{PageNumber: p.PageNumber, PageSize: p.PageSize, TotalCount: len(all)}
}

func into[Req any](q url.Values) *Req {
	req := new(Req)
	if err := kmswire.Decode(q, req); err != nil {
		panic(err)
	}
	return req
}

func (d *fakeDaemon) aliasList(keyID string) []kmswire.Alias {
	list := []kmswire.Alias{}
	for name, id := range d.aliases {
		if keyID == "" || id == keyID {
			list = append(list, kmswire.Alias{AliasName: name, KeyID: id})
		}
	}
	slices.SortFunc(list, func(a, b kmswire.Alias) int { return strings.Compare(a.AliasName, b.AliasName) })
	return list
}

func (d *fakeDaemon) do(action string, q url.Values, body io.Reader) (any, *kmswire.ErrorBody) {
	switch action {
	case "CreateKey":
		req := into[kmswire.CreateKeyRequest](q)
		d.tokens = append(d.tokens, req.ClientToken)
		k := &fakeKey{KeyMetadata: kmswire.KeyMetadata{KeyID: fmt.Sprintf("key-%d", len(d.keys)+1), KeySpec: req.KeySpec, KeyUsage: req.KeyUsage,
			AutomaticRotation: rotationOf(req), RotationInterval: req.RotationInterval,
			KeyState: kmswire.Enabled, DKMSInstanceID: req.DKMSInstanceID, Description: req.Description, KeyStorageMechanism: req.KeyStorageMechanism, CreationDate: "2026-01-01T00:00:00Z"}}
		if _, signs := signAlgorithms[k.KeySpec]; k.KeyUsage == "" && signs {
			k.KeyUsage = kmswire.SignVerify
		} else if k.KeyUsage == "" {
			k.KeyUsage = kmswire.EncryptDecrypt
		}
		if len(req.Tags) > 0 {
			if err := json.Unmarshal(req.Tags, &k.tags); err != nil {
				panic(err)
			}
		}
		if req.AliasName != "" {
			if _, taken := d.aliases[req.AliasName]; taken {
				return nil, problem(400, "AliasAlreadyExists", "The specified Alias already exists.")
			}
			d.aliases[req.AliasName] = k.KeyID
		}
		if k.Origin = req.Origin; k.Origin == kmswire.OriginExternal {
			k.KeyState = kmswire.PendingImport
		} else {
			k.addVersion()
		}
		k.Creator = fakeAccount
		d.policies[k.KeyID] = string(req.Policy)
		d.keys = append(d.keys, k)
		return kmswire.CreateKeyResponse{KeyMetadata: k.KeyMetadata}, nil
	case "DescribeKey":
		k, no := d.key(into[kmswire.DescribeKeyRequest](q).KeyID)
		if no != nil {
			return nil, no
		}
		return kmswire.DescribeKeyResponse{KeyMetadata: k.KeyMetadata}, nil
	case "SetKeyPolicy", "GetKeyPolicy":
		k, no := d.key(q.Get("KeyId"))
		if no != nil {
			return nil, no
		}
		if action == "GetKeyPolicy" {
			answer := kmswire.GetKeyPolicyResponse{Policy: d.policies[k.KeyID]}
			answer.Owners.Account = []string{fakeAccount}
			if in := fakeInstances[slices.IndexFunc(fakeInstances, func(in kmswire.KmsInstanceSummary) bool { return in.KmsInstanceID == k.DKMSInstanceID })]; ownerOf(in.KmsInstanceArn) != fakeAccount {
				answer.Owners.Account = append(answer.Owners.Account, ownerOf(in.KmsInstanceArn))
			}
			return answer, nil
		}
		d.policies[k.KeyID] = q.Get("Policy")
		return kmswire.EmptyResponse{}, nil
	case "ListKeys":
		var answer kmswire.ListKeysResponse
		d.filters = append(d.filters, q.Get("Filters"))
		var some []*fakeKey
		some, answer.Paged = page(d.keys, into[kmswire.ListKeysRequest](q).Page)
		for _, k := range some {
			answer.Keys.Key = append(answer.Keys.Key, kmswire.KeySummary{KeyID: k.KeyID})
		}
		return answer, nil
	case "EnableKey", "DisableKey", "UpdateKeyDescription", "CreateKeyVersion", "ListResourceTags", "TagResource", "UntagResource":
		ref := q.Get("KeyId")
		if strings.HasPrefix(ref, "alias/") && action != "CreateKeyVersion" {
			return nil, problem(400, "Unsupported.Alias", "An alias is not accepted by this action.")
		}
		k, no := d.key(ref)
		if no != nil {
			return nil, no
		}
		switch action {
		case "EnableKey":
			k.KeyState = kmswire.Enabled
		case "DisableKey":
			k.KeyState = kmswire.Disabled
		case "UpdateKeyDescription":
			k.Description = q.Get("Description")
		case "CreateKeyVersion":
			k.addVersion()
			v := k.versions[len(k.versions)-1]
			return kmswire.CreateKeyVersionResponse{KeyVersion: kmswire.KeyVersion{KeyID: k.KeyID, KeyVersionID: v.id, CreationDate: v.created}}, nil
		case "TagResource":
			var tags []kmswire.Tag
			if err := json.Unmarshal([]byte(q.Get("Tags")), &tags); err != nil {
				panic(err)
			}
			k.tags = append(k.tags, tags...)
		case "UntagResource":
			var names []string
			if err := json.Unmarshal([]byte(q.Get("TagKeys")), &names); err != nil {
				panic(err)
			}
			k.tags = slices.DeleteFunc(k.tags, func(t kmswire.Tag) bool { return slices.Contains(names, t.TagKey) })
		case "ListResourceTags":
			var answer kmswire.ListResourceTagsResponse
			for _, t := range k.tags {
				answer.Tags.Tag = append(answer.Tags.Tag, kmswire.ResourceTag{KeyID: k.KeyID, TagKey: t.TagKey, TagValue: t.TagValue})
			}
			return answer, nil
		}
		return kmswire.EmptyResponse{}, nil
	case "StartKeyAssociationCheck", "ListKeyAssociations":
		return d.associations(action, q)
	case "ListKeyVersions":
		req := into[kmswire.ListKeyVersionsRequest](q)
		k, no := d.key(req.KeyID)
		if no != nil {
			return nil, no
		}
		var answer kmswire.ListKeyVersionsResponse
		var some []fakeVersion
		some, answer.Paged = page(k.versions, req.Page)
		for _, v := range some {
			answer.KeyVersions.KeyVersion = append(answer.KeyVersions.KeyVersion, kmswire.KeyVersion{KeyID: k.KeyID, KeyVersionID: v.id, CreationDate: v.created})
		}
		return answer, nil
	case "CreateAlias", "UpdateAlias":
		req := into[kmswire.CreateAliasRequest](q)
		if _, exists := d.aliases[req.AliasName]; exists != (action == "UpdateAlias") {
			if exists {
				return nil, problem(400, "AliasAlreadyExists", "The specified Alias already exists.")
			}
			return nil, problem(404, "Forbidden.AliasNotFound", "The specified Alias is not found.")
		}
		if _, no := d.key(req.KeyID); no != nil {
			return nil, no
		}
		d.aliases[req.AliasName] = req.KeyID
		return kmswire.EmptyResponse{}, nil
	case "DeleteAlias":
		delete(d.aliases, q.Get("AliasName"))
		return kmswire.EmptyResponse{}, nil
	case "ListAliases", "ListAliasesByKeyId":
		var answer kmswire.ListAliasesResponse
		answer.Aliases.Alias, answer.Paged = page(d.aliasList(q.Get("KeyId")), into[kmswire.ListAliasesRequest](q).Page)
		return answer, nil
	case "ListKmsInstances":
		var answer kmswire.ListKmsInstancesResponse
		answer.KmsInstances.KmsInstance, answer.Paged = page(fakeInstances, into[kmswire.ListKmsInstancesRequest](q).Page)
		return answer, nil
	case "GetDefaultKmsInstance":
		return kmswire.GetDefaultKmsInstanceResponse{DefaultKmsInstanceID: d.defaultInstance}, nil
	case "GetKmsInstance", "GetKmsInstanceQuotaInfos":
		return d.instance(action, q.Get("KmsInstanceId"))
	case "EnableDefaultKey":
		k := d.defaultKey()
		return kmswire.EnableDefaultKeyResponse{KeyMetadata: k.KeyMetadata}, nil
	case "GetParametersForImport", "ImportKeyMaterial", "DeleteKeyMaterial":
		return d.imports(action, q)
	case "GetRandomPassword":
		req := into[kmswire.GetRandomPasswordRequest](q)
		n := 32
		if req.PasswordLength != nil {
			n = *req.PasswordLength
		}
		return kmswire.GetRandomPasswordResponse{RandomPassword: strings.Repeat("x", n)}, nil
	}
	if answer, no, known := d.life(action, q); known {
		return answer, no
	}
	return d.crypto(action, q, body)
}

func (d *fakeDaemon) crypto(action string, q url.Values, body io.Reader) (any, *kmswire.ErrorBody) {
	switch action {
	case "Encrypt":
		req := into[kmswire.EncryptRequest](q)
		k, v, no := d.use(req.KeyID, "")
		if no != nil {
			return nil, no
		}
		return kmswire.EncryptResponse{KeyID: k.KeyID, KeyVersionID: v.id, CiphertextBlob: v.seal(req.Plaintext, req.EncryptionContext)}, nil
	case "Decrypt":
		req := into[kmswire.DecryptRequest](q)
		k, v, plaintext, no := d.open(req.CiphertextBlob, req.EncryptionContext)
		if no != nil {
			return nil, no
		}
		return kmswire.DecryptResponse{KeyID: k.KeyID, KeyVersionID: v.id, Plaintext: plaintext}, nil
	case "ReEncrypt":
		req := into[kmswire.ReEncryptRequest](q)
		_, _, plaintext, no := d.open(req.CiphertextBlob, req.SourceEncryptionContext)
		if no != nil {
			return nil, no
		}
		k, v, no := d.use(req.DestinationKeyID, "")
		if no != nil {
			return nil, no
		}
		return kmswire.ReEncryptResponse{KeyID: k.KeyID, KeyVersionID: v.id, CiphertextBlob: v.seal(plaintext, req.DestinationEncryptionContext)}, nil
	case "GenerateDataKey", "GenerateDataKeyWithoutPlaintext":
		req := into[kmswire.GenerateDataKeyRequest](q)
		k, v, no := d.use(req.KeyID, "")
		if no != nil {
			return nil, no
		}
		n := 32
		if req.NumberOfBytes != nil {
			n = *req.NumberOfBytes
		}
		plaintext := make([]byte, n)
		rand.Read(plaintext)
		answer := kmswire.GenerateDataKeyResponse{KeyID: k.KeyID, KeyVersionID: v.id, Plaintext: plaintext, CiphertextBlob: v.seal(plaintext, req.EncryptionContext)}
		if action != "GenerateDataKey" {
			answer.Plaintext = nil
		}
		return answer, nil
	case "GetPublicKey":
		req := into[kmswire.GetPublicKeyRequest](q)
		k, v, no := d.use(req.KeyID, req.KeyVersionID)
		if no != nil {
			return nil, no
		}
		der, err := x509.MarshalPKIXPublicKey(v.signer.Public())
		if err != nil {
			panic(err)
		}
		return kmswire.GetPublicKeyResponse{KeyID: k.KeyID, KeyVersionID: v.id, PublicKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}, nil
	case "GenerateCsr":
		return d.csr(q)
	case "AsymmetricSign":
		req := into[kmswire.AsymmetricSignRequest](q)
		k, v, no := d.use(req.KeyID, req.KeyVersionID)
		if no != nil {
			return nil, no
		}
		return kmswire.AsymmetricSignResponse{KeyID: k.KeyID, KeyVersionID: v.id, Value: v.sign(req.Algorithm, req.Digest)}, nil
	case "AsymmetricVerify":
		req := into[kmswire.AsymmetricVerifyRequest](q)
		k, v, no := d.use(req.KeyID, req.KeyVersionID)
		if no != nil {
			return nil, no
		}
		return kmswire.AsymmetricVerifyResponse{KeyID: k.KeyID, KeyVersionID: v.id, Value: v.verify(req.Algorithm, req.Digest, req.Value)}, nil
	case "AsymmetricEncrypt":
		req := into[kmswire.AsymmetricEncryptRequest](q)
		k, v, no := d.use(req.KeyID, req.KeyVersionID)
		if no != nil {
			return nil, no
		}
		blob, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, v.signer.Public().(*rsa.PublicKey), req.Plaintext, nil)
		if err != nil {
			panic(err)
		}
		return kmswire.AsymmetricEncryptResponse{KeyID: k.KeyID, KeyVersionID: v.id, CiphertextBlob: blob}, nil
	case "AsymmetricDecrypt":
		req := into[kmswire.AsymmetricDecryptRequest](q)
		k, v, no := d.use(req.KeyID, req.KeyVersionID)
		if no != nil {
			return nil, no
		}
		plaintext, err := rsa.DecryptOAEP(sha256.New(), nil, v.signer.(*rsa.PrivateKey), req.CiphertextBlob, nil)
		if err != nil {
			return nil, problem(400, "InvalidParameter", `The specified parameter "CiphertextBlob" is not valid.`)
		}
		return kmswire.AsymmetricDecryptResponse{KeyID: k.KeyID, KeyVersionID: v.id, Plaintext: plaintext}, nil
	case "BatchEncrypt":
		_, v, no := d.use(q.Get("KeyId"), "")
		if no != nil {
			return nil, no
		}
		var in struct{ Items []kmswire.BatchEncryptItem }
		if err := json.NewDecoder(body).Decode(&in); err != nil {
			return nil, problem(400, "InvalidParameter", "Items")
		}
		var answer kmswire.BatchEncryptResponse
		for _, item := range in.Items {
			answer.Items = append(answer.Items, kmswire.BatchEncryptResult{CiphertextBlob: v.seal(item.Plaintext, nil)})
		}
		return answer, nil
	}
	return nil, problem(404, "InvalidAction.NotFound", "The specified action is not found.")
}

// stream serves batches of encrypt and sign, in both formats. The item "bad" fails.
func (d *fakeDaemon) stream(w http.ResponseWriter, r *http.Request, action string) {
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil {
		panic(err)
	}
	defer rc.SetReadDeadline(time.Now())
	q := r.URL.Query()
	d.mu.Lock()
	_, v, no := d.use(q.Get("KeyId"), q.Get("KeyVersionId"))
	d.mu.Unlock()
	if no != nil {
		w.WriteHeader(no.HTTPStatus)
		json.NewEncoder(w).Encode(no)
		return
	}
	one := func(item []byte) ([]byte, *kmswire.ItemError) {
		switch {
		case string(item) == "bad":
			return nil, &kmswire.ItemError{Code: "InvalidParameter", Message: "bad item"}
		case action == "BatchSign":
			return v.sign(kmswire.Algorithm(q.Get("Algorithm")), item), nil
		}
		return v.seal(item, nil), nil
	}
	in := bufio.NewReader(r.Body)
	flush := func() {
		if in.Buffered() == 0 {
			rc.Flush()
		}
	}
	if r.Header.Get("Content-Type") == string(kmsclient.NDJSON) {
		lines := bufio.NewScanner(in)
		for lines.Scan() {
			var item struct{ Plaintext, Digest []byte }
			if err := json.Unmarshal(lines.Bytes(), &item); err != nil {
				json.NewEncoder(w).Encode(kmswire.ItemError{Code: "InvalidParameter", Message: "no JSON"})
				continue
			}
			result, failed := one(append(item.Plaintext, item.Digest...))
			json.NewEncoder(w).Encode(kmswire.BatchEncryptResult{CiphertextBlob: result, ItemError: failed})
			rc.Flush()
		}
		return
	}
	for {
		var head [4]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		item := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(in, item); err != nil {
			panic(http.ErrAbortHandler)
		}
		result, failed := one(item)
		status := byte(0)
		if failed != nil {
			status = 1
			result, _ = json.Marshal(failed)
		}
		if kmsclient.WriteOctetResult(w, status, result) != nil {
			return
		}
		flush()
	}
}
