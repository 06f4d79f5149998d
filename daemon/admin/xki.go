package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// The paths of external keys. {name} is a prefix's name, {id} a credential's, {instance} an external instance's.
const (
	XKIPrefixesPath    = "/v1/xki/prefixes"
	XKIPrefixPath      = "/v1/xki/prefixes/{name}"
	XKICredentialsPath = "/v1/xki/prefixes/{name}/credentials"
	XKICredentialPath  = "/v1/xki/prefixes/{name}/credentials/{id}"
	XKIExportPath      = "/v1/xki/prefixes/{name}/export" // ?id=
	XKIListenersPath   = "/v1/xki/listeners"
	XKIConnectionsPath = "/v1/xki/connections"
	XKIConnectionPath  = "/v1/xki/connections/{instance}"
)

// MaxXKIBody is how many octets the bodies of these calls may have.
const MaxXKIBody = 256 << 10

// XKIPrefix is a logical key store that is served to another key management service.
type XKIPrefix struct {
	Name        string            `json:"name"`
	Account     string            `json:"account"`
	Principal   string            `json:"principal"` // as whom its keys are used
	Dialect     string            `json:"dialect"`
	Path        string            `json:"path"`              // of URLs, with the dialect's own
	Region      string            `json:"region,omitempty"`  // that signatures must be for; empty: any
	PerSecond   int               `json:"per_second"`        // requests; 0: no limit
	Keys        map[string]string `json:"keys"`              // key IDs by External Key ID
	Credentials []XKICredential   `json:"credentials"`       // without their secrets
	Rules       []XKIRule         `json:"rules"`             // that deny requests
	Warning     string            `json:"warning,omitempty"` // of the dialect
	Created     time.Time         `json:"created"`
}

// XKICredential is an access key of a prefix, but for its secret.
type XKICredential struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
}

// XKIRule denies requests: of its operations and keys, all if none are given, unless each of the members of their metadata is one of what it says.
type XKIRule struct {
	Name       string           `json:"name"`
	Operations []string         `json:"operations,omitempty"` // metadata, encrypt, decrypt, random
	Keys       []string         `json:"keys,omitempty"`       // External Key IDs
	Unless     map[string]OneOf `json:"unless,omitempty"`     // members as xks-v1 calls them; * at the end of a value stands for any rest
}

// OneOf are values of which one must fit. In JSON it is a list, and a value alone may stand for a list of one.
type OneOf []string

// UnmarshalJSON reads either form.
func (o *OneOf) UnmarshalJSON(text []byte) error {
	var one string
	if len(text) > 0 && text[0] == '"' {
		if err := json.Unmarshal(text, &one); err != nil {
			return err
		}
		*o = OneOf{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(o))
}

// XKIPrefixes is the answer of GET XKIPrefixesPath.
type XKIPrefixes struct {
	Prefixes []XKIPrefix `json:"prefixes"`
}

// XKIPrefixRequest is the body of POST XKIPrefixesPath.
type XKIPrefixRequest struct {
	Name      string            `json:"name"`
	Account   string            `json:"account,omitempty"`   // empty: the caller's
	Principal string            `json:"principal,omitempty"` // empty: the account's root
	Dialect   string            `json:"dialect,omitempty"`   // empty: xks-v1
	Prefix    *string           `json:"prefix,omitempty"`    // of paths; left out: / and the name
	Region    string            `json:"region,omitempty"`
	PerSecond int               `json:"per_second,omitempty"`
	Keys      map[string]string `json:"keys,omitempty"` // IDs, aliases or ARNs by External Key ID
}

// XKIPrefixUpdate is the body of PATCH XKIPrefixPath. What is left out stays.
type XKIPrefixUpdate struct {
	AddKeys    map[string]string `json:"add_keys,omitempty"`
	RemoveKeys []string          `json:"remove_keys,omitempty"`
	PerSecond  *int              `json:"per_second,omitempty"`
	Rules      *[]XKIRule        `json:"rules,omitempty"`
}

// XKIListener is where external keys are served.
type XKIListener struct {
	Address      string           `json:"address"`
	ClientNames  []string         `json:"client_names"` // that certificates of clients must be for
	MutualTLS    bool             `json:"mutual_tls"`   // clients must show a certificate
	Certificates []XKICertificate `json:"certificates"` // the listener's own first
}

// XKICertificate is a certificate with the fingerprints that clouds pin: of all of it, and of its public key alone.
type XKICertificate struct {
	Subject           string    `json:"subject"`
	NotAfter          time.Time `json:"not_after"`
	CertificateSHA256 string    `json:"certificate_sha256"`
	KeySHA256         string    `json:"key_sha256"`
	CertificateSM3    string    `json:"certificate_sm3"`
	KeySM3            string    `json:"key_sm3"`
}

// XKIListeners is the answer of XKIListenersPath.
type XKIListeners struct {
	Listeners []XKIListener `json:"listeners"`
}

// XKIConnection is the way to the key manager behind an external instance, and how it is.
type XKIConnection struct {
	Instance    string            `json:"instance"`
	Endpoint    string            `json:"endpoint"`
	Path        string            `json:"path"` // with the dialect's own
	Dialect     string            `json:"dialect"`
	Region      string            `json:"region"`
	AccessKeyID string            `json:"access_key_id"`
	Roots       bool              `json:"roots"` // it has roots of its own
	Pins        []string          `json:"pins"`
	Certificate string            `json:"certificate,omitempty"` // subject of the one that we show
	Names       map[string]string `json:"names,omitempty"`       // as in XKIConnectRequest
	Budget      float64           `json:"budget"`                // of a call, in milliseconds
	Changed     time.Time         `json:"changed"`

	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	Probed    time.Time `json:"probed"`            // zero: not yet
	Trouble   string    `json:"trouble,omitempty"` // the last that there was since the last good probe
	Vendor    string    `json:"vendor,omitempty"`  // of the proxy, as it says
	Model     string    `json:"model,omitempty"`
}

// XKIConnections is the answer of XKIConnectionsPath.
type XKIConnections struct {
	Connections []XKIConnection `json:"connections"`
}

// XKIConnectRequest is the body of PUT XKIConnectionPath, in one line; the secret of the access key is the line behind it, and what follows is the
// private key of Certificate in PEM, if there is one.
type XKIConnectRequest struct {
	Endpoint    string            `json:"endpoint"`
	Path        string            `json:"path"` // with the dialect's own, by which the dialect is known
	Region      string            `json:"region"`
	AccessKeyID string            `json:"access_key_id"`
	Roots       string            `json:"roots,omitempty"` // PEM
	Pins        []string          `json:"pins,omitempty"`
	Certificate string            `json:"certificate,omitempty"` // PEM
	Names       map[string]string `json:"names,omitempty"`       // of members, where the proxy has others than the dialect
	Budget      float64           `json:"budget,omitempty"`      // milliseconds
}

// XKIPrefixes lists the prefixes that the caller may manage.
func (c *Client) XKIPrefixes(ctx context.Context) (*XKIPrefixes, error) {
	return get[XKIPrefixes](ctx, c, XKIPrefixesPath)
}

// CreateXKIPrefix makes a prefix.
func (c *Client) CreateXKIPrefix(ctx context.Context, req *XKIPrefixRequest) (*XKIPrefix, error) {
	return post[XKIPrefix](ctx, c, XKIPrefixesPath, req)
}

// UpdateXKIPrefix changes a prefix.
func (c *Client) UpdateXKIPrefix(ctx context.Context, name string, req *XKIPrefixUpdate) (*XKIPrefix, error) {
	path, err := namedPath(XKIPrefixPath, "{name}", "prefix", name)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	return decoded[XKIPrefix](c.do(ctx, http.MethodPatch, path, bytes.NewReader(body), len(body)))
}

// DeleteXKIPrefix removes a prefix.
func (c *Client) DeleteXKIPrefix(ctx context.Context, name string) error {
	return c.deleteNamed(ctx, XKIPrefixPath, "{name}", "prefix", name)
}

// CreateXKICredential makes an access key for a prefix. The caller wipes the secret, which ExportXKI shows again.
func (c *Client) CreateXKICredential(ctx context.Context, name string) (*NewAccessKey, error) {
	path, err := namedPath(XKICredentialsPath, "{name}", "prefix", name)
	if err != nil {
		return nil, err
	}
	return c.newAccessKey(ctx, path, struct{}{})
}

// ExportXKI gives an access key of a prefix with its secret, which the caller wipes; without an ID the newest.
func (c *Client) ExportXKI(ctx context.Context, name, id string) (*NewAccessKey, error) {
	path, err := namedPath(XKIExportPath, "{name}", "prefix", name)
	if err != nil {
		return nil, err
	}
	return c.newAccessKey(ctx, path+"?"+url.Values{"id": {id}}.Encode(), struct{}{})
}

// DeleteXKICredential removes an access key of a prefix.
func (c *Client) DeleteXKICredential(ctx context.Context, name, id string) error {
	path, err := namedPath(XKICredentialPath, "{name}", "prefix", name)
	if err != nil {
		return err
	}
	return c.deleteNamed(ctx, path, "{id}", "credential", id)
}

// XKIListeners tells where external keys are served, and by which certificates.
func (c *Client) XKIListeners(ctx context.Context) (*XKIListeners, error) {
	return get[XKIListeners](ctx, c, XKIListenersPath)
}

// XKIConnections lists the connections of the external instances that the caller may manage.
func (c *Client) XKIConnections(ctx context.Context) (*XKIConnections, error) {
	return get[XKIConnections](ctx, c, XKIConnectionsPath)
}

// ConnectXKI sets the way to the key manager behind an external instance, and tells how it is then. key may be empty. The caller wipes secret and key.
func (c *Client) ConnectXKI(ctx context.Context, instance string, req *XKIConnectRequest, secret, key []byte) (*XKIConnection, error) {
	path, err := namedPath(XKIConnectionPath, "{instance}", "instance", instance)
	if err != nil {
		return nil, err
	}
	if len(secret) == 0 || bytes.ContainsAny(secret, "\r\n") {
		return nil, errors.New("admin: the secret of an access key is one line that is not empty")
	}
	head, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	body := make([]byte, 0, len(head)+len(secret)+len(key)+2) // never grows, so no copy of it stays behind
	send := &secretBody{all: body[:cap(body)]}
	defer send.Close()
	body = append(append(body, head...), '\n')
	body = append(append(body, secret...), '\n')
	send.rest = append(body, key...)
	return decoded[XKIConnection](c.do(ctx, http.MethodPut, path, send, len(send.rest)))
}

// DisconnectXKI removes the way to the key manager behind an external instance.
func (c *Client) DisconnectXKI(ctx context.Context, instance string) error {
	return c.deleteNamed(ctx, XKIConnectionPath, "{instance}", "instance", instance)
}

func (c *Client) deleteNamed(ctx context.Context, path, place, what, name string) error {
	path, err := namedPath(path, place, what, name)
	if err != nil {
		return err
	}
	_, err = c.do(ctx, http.MethodDelete, path, http.NoBody, 0)
	return err
}

// namedPath puts a name into a path.
func namedPath(path, place, what, name string) (string, error) {
	if name == "" || name == "." || name == ".." { // they would be another path
		return "", &Error{http.StatusNotFound, fmt.Sprintf("there is no %s %q", what, name)}
	}
	return strings.Replace(path, place, url.PathEscape(name), 1), nil
}
