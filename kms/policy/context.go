package policy

import (
	"net/netip"
	"time"
)

// Context has the values that conditions look at. What is empty or zero is absent, unless its comment says otherwise.
type Context struct {
	SourceIP            netip.Addr // acs:SourceIp: of a caller from the network
	SourceVPC           string     // acs:SourceVpc
	Time                time.Time  // acs:CurrentTime, compared by the second
	SecureTransport     bool       // acs:SecureTransport; never absent
	EncryptionAlgorithm string     // kms:EncryptionAlgorithm: of encrypting actions
	Tags                Tags       // kms:tag/<tag-key>: of the key; nil if there is none

	Unit       string // keyward:Unit: the systemd unit of a local caller
	Executable string // keyward:Executable: the path of a local caller's program
	Door       string // keyward:Door: API, PKCS11 or XKI
	UID        uint32 // keyward:Uid: the Unix user of a local caller
	HasUID     bool   // false: UID is absent
}

// Tags has the tags of a key. It is asked only when a condition needs a tag, and must not keep or change anything.
type Tags interface {
	// Tag gives the value of the tag with this key, and whether there is one.
	Tag(key string) (value string, ok bool)
}

// keyType is what the values of a condition key are, and so which operators fit it.
type keyType uint8

const (
	stringKey keyType = iota
	numericKey
	dateKey
	boolKey
	ipKey
)

const tagPrefix = "kms:tag/" // what follows is a tag key

// conditionKeys is every condition key with its type; kms:tag/ stands for all keys that begin so. Each has an accessor
// for its type; a test says so.
var conditionKeys = []conditionKey{
	{name: "acs:SourceIp", typ: ipKey},
	{name: "acs:SourceVpc", typ: stringKey, text: func(c *Context, _ string) (string, bool) { return c.SourceVPC, c.SourceVPC != "" }},
	{name: "acs:CurrentTime", typ: dateKey},
	{name: "acs:SecureTransport", typ: boolKey},
	{name: "kms:EncryptionAlgorithm", typ: stringKey, text: func(c *Context, _ string) (string, bool) { return c.EncryptionAlgorithm, c.EncryptionAlgorithm != "" }},
	{name: tagPrefix, typ: stringKey, text: func(c *Context, tag string) (string, bool) {
		if c.Tags == nil {
			return "", false
		}
		return c.Tags.Tag(tag)
	}},
	{name: "keyward:Unit", typ: stringKey, text: func(c *Context, _ string) (string, bool) { return c.Unit, c.Unit != "" }},
	{name: "keyward:Executable", typ: stringKey, text: func(c *Context, _ string) (string, bool) { return c.Executable, c.Executable != "" }},
	{name: "keyward:Uid", typ: numericKey},
	{name: "keyward:Door", typ: stringKey, values: []string{"API", "PKCS11", "XKI"}, text: func(c *Context, _ string) (string, bool) { return c.Door, c.Door != "" }},
}

type conditionKey struct {
	name   string
	typ    keyType
	values []string                                    // all that there can be, where that is known
	text   func(c *Context, tag string) (string, bool) // of a stringKey. The other types have one key each; condition.holds reads it
}
