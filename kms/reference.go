package kms

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyward/keyward/keystore"
)

const (
	aliasPrefix   = "alias/"
	serviceAlias  = "alias/acs" // aliases that begin so belong to service keys
	maxAliasName  = 255         // characters after the prefix
	keyIDPrefix   = "key-"
	keyIDLen      = 20
	versionIDLen  = 10
	maxReference  = 512 // octets of a KeyId parameter
	idCharacters  = "abcdefghijklmnopqrstuvwxyz0123456789"
	timeFormat    = "2006-01-02T15:04:05Z"
	arnServiceKMS = "acs:kms:"
)

// newID draws n characters that are uniformly distributed over idCharacters.
func newID(n int) string {
	out := make([]byte, 0, n)
	var buf [32]byte
	for len(out) < n {
		rand.Read(buf[:]) // never fails
		for _, b := range buf {
			// 252 is the largest multiple of 36 in an octet: larger ones would favour some characters.
			if b < 252 && len(out) < n {
				out = append(out, idCharacters[b%36])
			}
		}
	}
	return string(out)
}

func newKeyID() string                 { return keyIDPrefix + newID(keyIDLen) }
func newVersionID(keyID string) string { return keyID + "-" + newID(versionIDLen) }
func formatTime(t time.Time) string    { return t.UTC().Format(timeFormat) }
func (s *Service) keyARN(k *keystore.Key) string {
	return fmt.Sprintf("%s%s:%s:key/%s", arnServiceKMS, s.region, k.Account, k.ID)
}

func (s *Service) aliasARN(a *keystore.Alias) string {
	return fmt.Sprintf("%s%s:%s:%s", arnServiceKMS, s.region, a.Account, a.Name)
}

// reference is a parsed KeyId parameter.
type reference struct {
	account string // of an ARN; otherwise the caller's own
	id      string
	alias   string // with its prefix
}

// parseReference reads a key ID, alias or ARN (reference section 2). An ID or alias is looked up in the caller's own
// account; another account's key needs its ARN.
func (s *Service) parseReference(param, text string, actor *Actor) (reference, error) {
	if text == "" {
		return reference{}, Missing(param)
	}
	if len(text) > maxReference {
		return reference{}, Invalid(param, "longer than %d octets", maxReference)
	}
	ref := reference{account: actor.Account}
	if rest, ok := strings.CutPrefix(text, arnServiceKMS); ok {
		parts := strings.SplitN(rest, ":", 3)
		if len(parts) != 3 {
			return reference{}, Invalid(param, "an ARN is acs:kms:<region>:<account>:key/<key id>")
		}
		if parts[0] != s.region {
			return reference{}, Invalid(param, "the ARN names region %q, this is %q", parts[0], s.region)
		}
		ref.account, text = parts[1], parts[2]
		if id, ok := strings.CutPrefix(text, "key/"); ok {
			text = id
		} else if !strings.HasPrefix(text, aliasPrefix) {
			return reference{}, Invalid(param, "an ARN ends in key/<key id> or alias/<name>")
		}
	}
	if strings.HasPrefix(text, aliasPrefix) {
		ref.alias = text
	} else {
		ref.id = text
	}
	return ref, nil
}

// find looks a key up. It does not say whether the caller may know of it: see authorize.
func (s *Service) find(ctx context.Context, ref reference) (*keystore.Key, error) {
	id := ref.id
	if ref.alias != "" {
		a, err := s.store.Alias(ctx, ref.account, ref.alias)
		if errors.Is(err, keystore.ErrNotFound) {
			return nil, Errorf(AliasNotFound, "%s does not exist in account %s", ref.alias, ref.account)
		} else if err != nil {
			return nil, storeError(err)
		}
		id = a.KeyID
	}
	k, err := s.store.Key(ctx, id)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, keyNotFound(id)
	} else if err != nil {
		return nil, storeError(err)
	}
	if k.Account != ref.account {
		return nil, keyNotFound(id)
	}
	return k, nil
}

func keyNotFound(id string) *Error {
	return Errorf(KeyNotFound, "no key %q that this caller may know of", id)
}

// checkAlias holds a new alias against the rules of reference section 6.7.
func checkAlias(name string) error {
	if name == "" {
		return Missing("AliasName")
	}
	rest, ok := strings.CutPrefix(name, aliasPrefix)
	if !ok {
		return Invalid("AliasName", "an alias begins with %s", aliasPrefix)
	}
	if rest == "" || len(rest) > maxAliasName {
		return Invalid("AliasName", "1 to %d characters must follow %s", maxAliasName, aliasPrefix)
	}
	for _, c := range rest {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-', c == '/':
		default:
			return Invalid("AliasName", "%q is not a letter, digit, underscore, hyphen or slash", c)
		}
	}
	if strings.HasPrefix(name, serviceAlias) {
		return Invalid("AliasName", "names that begin with %s belong to service keys", serviceAlias)
	}
	return nil
}
