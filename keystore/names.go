package keystore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Names of records. Parts from outside never contain a slash, except an alias, which comes last.
const (
	nameBootstrap  = "store"  // plain, see bootstrap
	nameBootstrap2 = "~store" // its copy, far away in the order of names and so on another page
	nameRoot       = "root"

	prefixKey    = "key/"    // + id: Key
	prefixVer    = "ver/"    // + key/version: Version
	prefixAlias  = "alias/"  // + account/name: Alias
	prefixCalls  = "calls/"  // + version: callCount
	prefixIntent = "intent/" // + id: Intent
	prefixGone   = "gone/"   // + id: Tombstone

	prefixDefault   = "default/"   // + account: roleRow
	prefixService   = "service/"   // + account/service code: roleRow
	prefixDue       = "due/"       // + kind/time/key: dueRow
	prefixInstance  = "instance/"  // + id: InstanceUse
	prefixPrincipal = "principal/" // + account/kind/name: Principal
	prefixAccess    = "access/"    // + id: AccessKey
	prefixToken     = "token/"     // + account/hash: ClientToken
	prefixUse       = "use/"       // + key/caller: Usage
	prefixCheck     = "check/"     // + key: AssociationCheck
	prefixNames     = "names/"     // + account/instance/version: TokenNames
	prefixObject    = "object/"    // + account/instance/number: TokenObject
	prefixObjects   = "objects/"   // + account: objectCount
	nameClock       = "clock"      // Clock

	prefixXKIPrefix     = "xki-prefix/"     // + name: XKIPrefix
	prefixXKIConnection = "xki-connection/" // + instance: XKIConnection
)

func nameKey(id string) string              { return prefixKey + id }
func nameVer(key, version string) string    { return prefixVer + key + "/" + version }
func nameAlias(account, name string) string { return prefixAlias + account + "/" + name }
func nameCalls(version string) string       { return prefixCalls + version }
func nameIntent(id string) string           { return prefixIntent + id }
func nameGone(id string) string             { return prefixGone + id }

// keyOfVersion is the key in a version ID: all up to the last hyphen.
func keyOfVersion(version string) (string, bool) {
	i := strings.LastIndexByte(version, '-')
	if i < 1 {
		return "", false
	}
	return version[:i], true
}

// maxPart bounds an ID or account in a name.
const maxPart = 128

// checkPart refuses what may not stand between the slashes of a name.
func checkPart(what, s string) error {
	if s == "" || len(s) > maxPart {
		return fmt.Errorf("keystore: %s of %d octets; 1 to %d are allowed", what, len(s), maxPart)
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c == '/' || c >= 0x7f {
			return fmt.Errorf("keystore: %s %q has a character that is not allowed", what, s)
		}
	}
	return nil
}

// maxAlias bounds the name of an alias, so that every name made from it stays under MaxName.
const maxAlias = 512

func checkAlias(a *Alias) error {
	if a.Name == "" || len(a.Name) > maxAlias {
		return fmt.Errorf("keystore: an alias of %d octets; 1 to %d are allowed", len(a.Name), maxAlias)
	}
	if err := checkPart("account", a.Account); err != nil {
		return err
	}
	return checkPart("key", a.KeyID)
}

// encode is the JSON of a record.
func encode(v any) ([]byte, error) { return json.Marshal(v) }

// decode is strict: no unknown field, nothing after the end.
func decode(payload []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("something follows the record")
	}
	return nil
}
