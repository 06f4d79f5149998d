package keystore

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What clients that know PKCS #11 keep in a token, which is an instance of an account: names of keys, and objects that are no keys.

// TokenNames are the names that clients have set for a version of a key. Values handed out by DB are shared and immutable.
type TokenNames struct {
	Account  string
	Instance string
	KeyID    string
	Version  string // ID
	Ordinal  uint64 // of the version in its key
	Names    []ClassNames
	record   recordState
}

// ClassNames are what clients have set of a version in one class of objects. What is nil nobody has set.
type ClassNames struct {
	Class      uint8
	ID         *[]byte  `json:",omitempty"`
	Label      *string  `json:",omitempty"`
	Subject    *[]byte  `json:",omitempty"`
	Mechanisms []uint64 `json:",omitempty"` // that the object is restricted to; nil: it is not
	Gone       bool     `json:",omitempty"` // a client has destroyed the object of this class; the version is there all the same
}

// TokenObject is an object that is no key. Values handed out by DB are shared and immutable.
type TokenObject struct {
	Account    string
	Instance   string
	Number     uint64 // of all objects of the account, in order of creation; set by DB and never used again
	Class      uint8
	Private    bool   `json:",omitempty"`
	Owner      string // principal
	Modifiable bool   `json:",omitempty"`
	ID         []byte `json:",omitempty"`
	Label      string `json:",omitempty"`
	Created    time.Time
	Value      []byte `json:"-"`
	Sealed     []byte `json:",omitempty"` // Value, by DB.SealSecret under tokenObjectName; set by DB, and nil in what it hands out
	record     recordState
}

// size is what an object counts for the quota of octets.
func (o *TokenObject) size() int { return len(o.ID) + len(o.Label) + len(o.Value) }

// objectCount is what an account has of objects.
type objectCount struct {
	Last      uint64 // the last number that was given out
	Instances map[string]objectUse
}

// objectUse is what an account has of objects in one instance.
type objectUse struct{ Objects, Octets int }

// ErrObjectQuota means that an account has as many objects in an instance, or as large ones, as it may have. Nothing was changed.
var ErrObjectQuota = errors.New("keystore: the quota of token objects is used up")

// ObjectQuota bounds the objects of an account in one instance.
type ObjectQuota struct {
	Objects int
	Octets  int // of values, IDs and labels: they are all kept in memory
}

func nameTokenNames(account, instance, version string) string {
	return prefixNames + account + "/" + instance + "/" + version
}

func nameTokenObject(account, instance string, number uint64) string {
	return prefixObject + account + "/" + instance + "/" + sequenceRow(number)
}

func nameObjects(account string) string { return prefixObjects + account }

// tokenObjectName is what the value of an object is sealed under.
func tokenObjectName(account string, number uint64) string {
	return fmt.Sprintf("token object %s %d", account, number)
}

// tokenOf gives the account and the instance in the name of a record of a token.
func tokenOf(name string) (tokenName, bool) {
	rest, ok := strings.CutPrefix(name, prefixNames)
	if !ok {
		if rest, ok = strings.CutPrefix(name, prefixObject); !ok {
			return tokenName{}, false
		}
	}
	account, rest, ok := strings.Cut(rest, "/")
	instance, _, last := strings.Cut(rest, "/")
	return tokenName{account, instance}, ok && last
}

// SetTokenNames puts n in the place of old, which DB handed out, or which is nil when there was none. Without any names in n the record
// goes. The version must be there, or be made by the same change before.
func (c *Change) SetTokenNames(old, n *TokenNames) *Change {
	names := *n
	var was *TokenNames
	if old != nil {
		copied := *old
		was = &copied
	}
	return c.note(func(p *plan) error {
		if was != nil && (was.Account != names.Account || was.Instance != names.Instance || was.Version != names.Version) {
			return fmt.Errorf("keystore: account, instance and version of the names of %q cannot change", was.Version)
		}
		if err := p.needNamed(&names); err != nil {
			return err
		}
		name := nameTokenNames(names.Account, names.Instance, names.Version)
		if was == nil {
			return p.create(name, names)
		}
		if err := p.expect(name, was.record); err != nil {
			return err
		}
		if len(names.Names) == 0 {
			return p.remove(name)
		}
		return p.put(name, names)
	})
}

// needNamed gives ErrConflict when the version that is to be named is not there.
func (p *plan) needNamed(n *TokenNames) error {
	if err := p.needKey(n.KeyID); err != nil {
		return err
	}
	name := nameKey(n.KeyID)
	s, err := p.slot(name)
	if err != nil {
		return err
	}
	var k Key
	if err := p.db.decodeRecord(stored{name: name, payload: s.payload}, &k); err != nil {
		return err
	}
	if k.Account != n.Account || k.Instance != n.Instance {
		return fmt.Errorf("keystore: the key %q is not of the account %q in the instance %q", n.KeyID, n.Account, n.Instance)
	}
	v, err := p.slot(nameVer(n.KeyID, n.Version))
	if err != nil {
		return err
	}
	if v.payload == nil {
		return fmt.Errorf("%w: the version %q is not there", ErrConflict, n.Version)
	}
	return nil
}

// dropTokenNames removes the names of all versions of a key.
func (p *plan) dropTokenNames(k *Key) error {
	if k.Instance == "" {
		return nil
	}
	return p.removeAll(nameTokenNames(k.Account, k.Instance, k.ID+"-"), nil)
}

// CreateTokenObject adds an object. Commit gives it its number, which is o's after it, and ErrObjectQuota if there is no room.
func (c *Change) CreateTokenObject(o *TokenObject, quota ObjectQuota) *Change {
	object := *o
	object.ID, object.Value = slices.Clone(o.ID), slices.Clone(o.Value)
	return c.note(func(p *plan) error {
		if err := checkPart("account", object.Account); err != nil {
			return err
		}
		if err := checkPart("instance", object.Instance); err != nil {
			return err
		}
		made := object // the plan may be made more than once
		count, err := p.countObjects(object.Account, object.Instance, 1, object.size(), quota)
		if err != nil {
			return err
		}
		made.Number = count.Last
		if made.Sealed, err = p.db.SealSecret(tokenObjectName(made.Account, made.Number), made.Value); err != nil {
			return err
		}
		o.Number = made.Number
		return p.create(nameTokenObject(made.Account, made.Instance, made.Number), made)
	})
}

// UpdateTokenObject replaces ID, label and value of old, which DB handed out. All else stays as it is.
func (c *Change) UpdateTokenObject(old, o *TokenObject, quota ObjectQuota) *Change {
	was, object := *old, *old
	object.ID, object.Label, object.Value = slices.Clone(o.ID), o.Label, slices.Clone(o.Value)
	return c.note(func(p *plan) error {
		name := nameTokenObject(was.Account, was.Instance, was.Number)
		if err := p.expect(name, was.record); err != nil {
			return err
		}
		if _, err := p.countObjects(was.Account, was.Instance, 0, object.size()-was.size(), quota); err != nil {
			return err
		}
		next := object
		var err error
		if next.Sealed, err = p.db.SealSecret(tokenObjectName(was.Account, was.Number), next.Value); err != nil {
			return err
		}
		return p.put(name, next)
	})
}

// DeleteTokenObject removes old, which DB handed out.
func (c *Change) DeleteTokenObject(old *TokenObject) *Change {
	was := *old
	return c.note(func(p *plan) error {
		name := nameTokenObject(was.Account, was.Instance, was.Number)
		if err := p.expect(name, was.record); err != nil {
			return err
		}
		if _, err := p.countObjects(was.Account, was.Instance, -1, -was.size(), ObjectQuota{}); err != nil {
			return err
		}
		return p.remove(name)
	})
}

// countObjects adds to what an account has of objects in an instance. More than the quota it refuses, less it takes always. With a new
// object Last is its number.
func (p *plan) countObjects(account, instance string, objects, octets int, quota ObjectQuota) (*objectCount, error) {
	name := nameObjects(account)
	s, err := p.slot(name)
	if err != nil {
		return nil, err
	}
	count := new(objectCount)
	if s.payload != nil {
		if err := p.db.decodeRecord(stored{name: name, payload: s.payload}, count); err != nil {
			return nil, err
		}
	}
	if count.Instances == nil {
		count.Instances = map[string]objectUse{}
	}
	use := count.Instances[instance]
	use.Objects += objects
	use.Octets += octets
	switch {
	case use.Objects < 0 || use.Octets < 0:
		return nil, fmt.Errorf("%w: the record %q counts less than there is", ErrDamaged, name)
	case objects > 0 && use.Objects > quota.Objects:
		return nil, fmt.Errorf("%w: there are %d objects", ErrObjectQuota, use.Objects-objects)
	case octets > 0 && use.Octets > quota.Octets:
		return nil, fmt.Errorf("%w: the objects have %d octets together", ErrObjectQuota, use.Octets-octets)
	case objects > 0:
		count.Last++
	}
	if count.Instances[instance] = use; use == (objectUse{}) {
		delete(count.Instances, instance)
	}
	return count, p.put(name, count)
}
