package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The paths of principals and what they have. {id} is an access key's. An ARN has slashes, so it is in the query.
const (
	AccountsPath         = "/v1/accounts"
	PrincipalsPath       = "/v1/principals" // GET: ?account=&offset=&limit=
	PrincipalPath        = "/v1/principal"  // ?arn=
	PoliciesPath         = "/v1/principal/policies"
	PINPath              = "/v1/principal/pin" // ?arn=
	AccessKeysPath       = "/v1/access-keys"   // GET: ?principal=
	AccessKeyPath        = "/v1/access-keys/{id}"
	EnableAccessKeyPath  = "/v1/access-keys/{id}/enable"
	DisableAccessKeyPath = "/v1/access-keys/{id}/disable"
	RotateAccessKeyPath  = "/v1/access-keys/{id}/rotate"
	SimulatePath         = "/v1/policies/simulate"
)

// The bounds of these calls.
const (
	MaxPrincipalsPage = 1000      // of one answer of PrincipalsPath
	MaxPolicy         = 32 << 10  // octets of a policy document
	MaxSimulation     = 256 << 10 // octets of the body of SimulatePath, which has a policy as a text with escapes
	MaxPINBody        = 256       // octets of a PIN, the body of PUT PINPath
	MaxPrincipalBody  = 16 << 10  // octets of the bodies of the other calls
)

// Accounts is the answer of AccountsPath.
type Accounts struct {
	Accounts []string `json:"accounts"` // the caller may manage the principals of; none for who is no root
}

// Principal is a user or role of an account, or the root of it.
type Principal struct {
	ARN         string    `json:"arn"`
	Account     string    `json:"account"`
	Description string    `json:"description,omitempty"`
	Recorded    bool      `json:"recorded"`    // it was created; false: nothing is attached to it
	Mapped      bool      `json:"mapped"`      // a [[peer]] row of the configuration says who it is on this machine
	Created     time.Time `json:"created"`     // zero if it is not recorded
	Policies    []string  `json:"policies"`    // names of its identity policies
	AccessKeys  []string  `json:"access_keys"` // IDs
	PIN         *PIN      `json:"pin,omitempty"`
}

// PIN is what is known of a principal's PIN.
type PIN struct {
	Set      time.Time `json:"set"`
	Failures int       `json:"failures"` // since it was right
	Locked   bool      `json:"locked"`   // until it is set again
}

// Principals is one page of the answer of PrincipalsPath: first the principals that are recorded, by name, then those that only
// [[peer]] rows name.
type Principals struct {
	Principals []Principal `json:"principals"`
	Total      int         `json:"total"` // on all pages
}

// PrincipalRequest is the body of POST PrincipalsPath.
type PrincipalRequest struct {
	ARN         string `json:"arn"`
	Description string `json:"description,omitempty"`
}

// IdentityPolicy is a policy that a principal has.
type IdentityPolicy struct {
	Name     string          `json:"name"`
	Document json.RawMessage `json:"document"`
}

// Policies is the answer of GET PoliciesPath.
type Policies struct {
	Policies []IdentityPolicy `json:"policies"`
}

// AccessKey is what a principal signs requests with, but for the secret.
type AccessKey struct {
	ID        string    `json:"id"`
	Principal string    `json:"principal"`
	Active    bool      `json:"active"`
	Created   time.Time `json:"created"`
}

// AccessKeys is the answer of GET AccessKeysPath.
type AccessKeys struct {
	AccessKeys []AccessKey `json:"access_keys"`
}

// AccessKeyRequest is the body of POST AccessKeysPath.
type AccessKeyRequest struct {
	Principal string `json:"principal"`
}

// RotateRequest is the body of RotateAccessKeyPath, which may be left out.
type RotateRequest struct {
	Disable bool `json:"disable,omitempty"` // the old one, in the same step
}

// NewAccessKey is a new access key. Its answer is the only one that ever has the secret, and both sides wipe it.
type NewAccessKey struct {
	ID        string `json:"id"`
	Principal string `json:"principal"`
	Advice    string `json:"advice,omitempty"` // after a rotation: what to do with the old one
	// Secret comes last, and is letters and digits, so its text in JSON is the secret itself. It is not written by encoding/json,
	// which keeps its buffers.
	Secret []byte `json:"-"`
}

// Simulation is the body of SimulatePath. What is left out, the request does not have; but the time is that of now, the
// algorithm that of the key if it is symmetric, and the tags are those of the key.
type Simulation struct {
	Principal  string     `json:"principal"`
	Action     string     `json:"action"`        // kms:<action>
	Key        string     `json:"key,omitempty"` // ID, alias or ARN; none for actions that are about no key
	SourceIP   netip.Addr `json:"source_ip,omitzero"`
	SourceVPC  string     `json:"source_vpc,omitempty"`
	Time       time.Time  `json:"time,omitzero"`
	Algorithm  string     `json:"algorithm,omitempty"`
	Unit       string     `json:"unit,omitempty"`
	Executable string     `json:"executable,omitempty"`
	UID        *uint32    `json:"uid,omitempty"`
	Door       string     `json:"door,omitempty"`   // API, PKCS11 or XKI
	Policy     string     `json:"policy,omitempty"` // a key policy to try in place of the key's own
}

// Simulated is the answer of SimulatePath.
type Simulated struct {
	Allowed  bool          `json:"allowed"`
	Reason   string        `json:"reason"`   // one sentence
	Policies []PolicyTrace `json:"policies"` // the key policy, then the identity policies
}

// PolicyTrace says what one policy said.
type PolicyTrace struct {
	Policy     string           `json:"policy"` // "key policy", or "identity policy NAME"
	Effect     string           `json:"effect"` // Allow, Deny or NoMatch
	Statements []StatementTrace `json:"statements"`
}

// StatementTrace says whether a statement matched.
type StatementTrace struct {
	Sid     string `json:"sid,omitempty"`
	Effect  string `json:"effect"` // what it would do
	Matched bool   `json:"matched"`
	Missed  string `json:"missed,omitempty"` // the first part that does not fit: Principal, Action, Resource or Condition
	Why     string `json:"why,omitempty"`
}

// Accounts lists the accounts whose principals the caller may manage.
func (c *Client) Accounts(ctx context.Context) (*Accounts, error) {
	return get[Accounts](ctx, c, AccountsPath)
}

// Principals lists at most limit principals of an account, 1 to MaxPrincipalsPage, from the offset on.
func (c *Client) Principals(ctx context.Context, account string, offset, limit int) (*Principals, error) {
	return get[Principals](ctx, c, PrincipalsPath+"?"+url.Values{"account": {account}, "offset": {strconv.Itoa(offset)}, "limit": {strconv.Itoa(limit)}}.Encode())
}

// Principal shows one principal. One that nobody has created is not Recorded, and no error.
func (c *Client) Principal(ctx context.Context, arn string) (*Principal, error) {
	return get[Principal](ctx, c, PrincipalPath+"?"+url.Values{"arn": {arn}}.Encode())
}

// CreatePrincipal makes a user or role.
func (c *Client) CreatePrincipal(ctx context.Context, req *PrincipalRequest) (*Principal, error) {
	return post[Principal](ctx, c, PrincipalsPath, req)
}

// DeletePrincipal removes a user or role, its identity policies and its access keys.
func (c *Client) DeletePrincipal(ctx context.Context, arn string) error {
	_, err := c.do(ctx, http.MethodDelete, PrincipalPath+"?"+url.Values{"arn": {arn}}.Encode(), http.NoBody, 0)
	return err
}

// Policies gives the identity policies of a principal.
func (c *Client) Policies(ctx context.Context, arn string) (*Policies, error) {
	return get[Policies](ctx, c, PoliciesPath+"?"+url.Values{"arn": {arn}}.Encode())
}

// AttachPolicy gives a principal an identity policy, in place of an earlier one of that name.
func (c *Client) AttachPolicy(ctx context.Context, arn, name string, document []byte) error {
	_, err := c.do(ctx, http.MethodPut, PoliciesPath+"?"+url.Values{"arn": {arn}, "name": {name}}.Encode(), bytes.NewReader(document), len(document))
	return err
}

// DetachPolicy takes an identity policy away.
func (c *Client) DetachPolicy(ctx context.Context, arn, name string) error {
	_, err := c.do(ctx, http.MethodDelete, PoliciesPath+"?"+url.Values{"arn": {arn}, "name": {name}}.Encode(), http.NoBody, 0)
	return err
}

// SetPIN gives a principal a PIN, in place of an earlier one, and unlocks it. The caller wipes pin.
func (c *Client) SetPIN(ctx context.Context, arn string, pin []byte) error {
	_, err := c.do(ctx, http.MethodPut, PINPath+"?"+url.Values{"arn": {arn}}.Encode(), bytes.NewReader(pin), len(pin))
	return err
}

// RemovePIN takes the PIN of a principal away.
func (c *Client) RemovePIN(ctx context.Context, arn string) error {
	_, err := c.do(ctx, http.MethodDelete, PINPath+"?"+url.Values{"arn": {arn}}.Encode(), http.NoBody, 0)
	return err
}

// AccessKeys lists the access keys of a principal, without secrets.
func (c *Client) AccessKeys(ctx context.Context, arn string) (*AccessKeys, error) {
	return get[AccessKeys](ctx, c, AccessKeysPath+"?"+url.Values{"principal": {arn}}.Encode())
}

// CreateAccessKey makes an access key for a principal. The caller wipes the secret, which nothing will ever show again.
func (c *Client) CreateAccessKey(ctx context.Context, arn string) (*NewAccessKey, error) {
	return c.newAccessKey(ctx, AccessKeysPath, &AccessKeyRequest{Principal: arn})
}

// RotateAccessKey makes another access key for the principal of the access key id, and disables that one if wanted. The caller
// wipes the secret.
func (c *Client) RotateAccessKey(ctx context.Context, id string, disable bool) (*NewAccessKey, error) {
	path, err := accessKeyPath(RotateAccessKeyPath, id)
	if err != nil {
		return nil, err
	}
	return c.newAccessKey(ctx, path, &RotateRequest{Disable: disable})
}

// SetAccessKeyActive enables or disables an access key.
func (c *Client) SetAccessKeyActive(ctx context.Context, id string, active bool) error {
	path := DisableAccessKeyPath
	if active {
		path = EnableAccessKeyPath
	}
	path, err := accessKeyPath(path, id)
	if err != nil {
		return err
	}
	_, err = c.do(ctx, http.MethodPost, path, http.NoBody, 0)
	return err
}

// DeleteAccessKey removes an access key.
func (c *Client) DeleteAccessKey(ctx context.Context, id string) error {
	path, err := accessKeyPath(AccessKeyPath, id)
	if err != nil {
		return err
	}
	_, err = c.do(ctx, http.MethodDelete, path, http.NoBody, 0)
	return err
}

// Simulate asks policies a question. Nothing is done.
func (c *Client) Simulate(ctx context.Context, q *Simulation) (*Simulated, error) {
	return post[Simulated](ctx, c, SimulatePath, q)
}

func accessKeyPath(path, id string) (string, error) {
	if id == "" || id == "." || id == ".." { // they would be another path
		return "", &Error{http.StatusNotFound, fmt.Sprintf("there is no access key %q", id)}
	}
	return strings.Replace(path, "{id}", url.PathEscape(id), 1), nil
}

func post[T any](ctx context.Context, c *Client, path string, req any) (*T, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	return decoded[T](c.do(ctx, http.MethodPost, path, bytes.NewReader(body), len(body)))
}

// maxNewAccessKey is more than the answer with a new access key has, in octets.
const maxNewAccessKey = 8 << 10

// secretMark is what stands before the secret in the answer with a new access key.
const secretMark = `,"secret":"`

// newAccessKey makes a call whose answer is a new access key. It keeps no copy of the secret but the one that it returns.
func (c *Client) newAccessKey(ctx context.Context, path string, req any) (*NewAccessKey, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	resp, err := c.send(ctx, http.MethodPost, path, bytes.NewReader(body), len(body))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer := make([]byte, maxNewAccessKey)
	defer clear(answer)
	n, err := io.ReadFull(resp.Body, answer)
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, fmt.Errorf("admin: the answer can't be read; delete the new access key, and make another: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, failed(resp, answer[:n])
	}
	return ParseNewAccessKey(answer[:n])
}

// Text writes the new access key as its answer is. The caller wipes it.
func (k *NewAccessKey) Text() ([]byte, error) {
	head, err := json.Marshal(k)
	if err != nil {
		return nil, err
	}
	text := make([]byte, 0, len(head)+len(secretMark)+len(k.Secret)+3) // never grows, so no copy of it stays behind
	text = append(text, head[:len(head)-1]...)
	text = append(text, secretMark...)
	text = append(text, k.Secret...)
	return append(text, "\"}\n"...), nil
}

// ParseNewAccessKey reads what Text wrote. The secret is a copy, which the caller wipes; so it does with text.
func ParseNewAccessKey(text []byte) (*NewAccessKey, error) {
	bad := errors.New("admin: the answer is not what this version expects; delete the new access key, and make another")
	text = bytes.TrimSuffix(text, []byte("\n"))
	at := bytes.LastIndex(text, []byte(secretMark))
	if at < 0 {
		return nil, bad
	}
	secret, ok := bytes.CutSuffix(text[at+len(secretMark):], []byte(`"}`))
	if !ok || len(secret) == 0 || bytes.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }) {
		return nil, bad
	}
	k := &NewAccessKey{}
	if err := json.Unmarshal(append(bytes.Clone(text[:at]), '}'), k); err != nil || k.ID == "" {
		return nil, bad
	}
	k.Secret = bytes.Clone(secret)
	return k, nil
}
