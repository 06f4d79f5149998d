package keystore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Principal is a user or role of an account, or the account's root: whom identity policies are attached to, and who has access
// keys. Values handed out by DB are shared and immutable.
type Principal struct {
	ARN         string // acs:ram::<account>:root, :user/<name> or :role/<name>
	Account     string
	Description string           `json:",omitempty"`
	Policies    []IdentityPolicy `json:",omitempty"`
	AccessKeys  []string         `json:",omitempty"` // IDs
	PIN         *PIN             `json:",omitempty"` // what C_Login must give; nil: nothing
	Created     time.Time
	Absent      bool `json:"-"` // there is no record of it: it is known by its name only, and has nothing
	record      recordState
}

// IdentityPolicy is a policy document under a name that is unique for its principal.
type IdentityPolicy struct{ Name, Document string }

// PIN is a second factor of a principal, for programs that know PKCS #11.
type PIN struct {
	Sealed   []byte // its hash, by DB.SealSecret under PINName
	Set      time.Time
	Failures int `json:",omitempty"` // wrong ones in a row, counted before they are looked at
}

// PINName is what the hash of a principal's PIN is sealed under.
func PINName(arn string) string { return "pin " + arn }

// AccessKey is what a principal signs requests with.
type AccessKey struct {
	ID        string
	Principal string // ARN
	Account   string
	Sealed    []byte // the secret, by DB.SealSecret under AccessSecretName
	Active    bool
	Created   time.Time
	record    recordState
}

// AccessSecretName is what the secret of an access key is sealed under.
func AccessSecretName(id string) string { return "access key " + id }

// principalName splits an ARN into its account and what follows it.
func principalName(arn string) (account, rest string, err error) {
	text, ok := strings.CutPrefix(arn, "acs:ram::")
	account, rest, colon := strings.Cut(text, ":")
	if !ok || !colon {
		return "", "", fmt.Errorf("keystore: %q is no principal", arn)
	}
	kind, name, slash := strings.Cut(rest, "/")
	switch {
	case rest == "root":
	case slash && (kind == "user" || kind == "role"):
		if err := checkPart("principal", name); err != nil {
			return "", "", err
		}
	default:
		return "", "", fmt.Errorf("keystore: %q is no principal", arn)
	}
	return account, rest, checkPart("account", account)
}

func namePrincipal(arn string) (string, error) {
	account, rest, err := principalName(arn)
	return prefixPrincipal + account + "/" + rest, err
}

// principalOfName undoes namePrincipal.
func principalOfName(name string) (arn string, ok bool) {
	both, ok := strings.CutPrefix(name, prefixPrincipal)
	if !ok {
		return "", false
	}
	account, rest, ok := strings.Cut(both, "/")
	return "acs:ram::" + account + ":" + rest, ok
}

func nameAccess(id string) string { return prefixAccess + id }

func principalsOf(account string) list {
	return list{head: "list/principals/" + account, rows: prefixPrincipal + account + "/"}
}

// CreatePrincipal adds a principal. Commit gives ErrConflict when there is one of that ARN.
func (c *Change) CreatePrincipal(pr *Principal) *Change {
	principal := *pr
	return c.note(func(p *plan) error {
		account, rest, err := principalName(principal.ARN)
		if err != nil {
			return err
		}
		if principal.Account != account {
			return fmt.Errorf("keystore: %q is not of the account %q", principal.ARN, principal.Account)
		}
		if err := p.create(prefixPrincipal+account+"/"+rest, principal); err != nil {
			return err
		}
		return p.count(principalsOf(account), rest)
	})
}

// UpdatePrincipal replaces old, which DB handed out and which has a record. ARN and account stay as they are, and the access keys
// change by their own operations.
func (c *Change) UpdatePrincipal(old, pr *Principal) *Change {
	was, principal := *old, *pr
	return c.note(func(p *plan) error {
		name, err := namePrincipal(was.ARN)
		if err != nil {
			return err
		}
		if principal.ARN != was.ARN || principal.Account != was.Account {
			return fmt.Errorf("keystore: ARN and account of the principal %q cannot change", was.ARN)
		}
		if err := p.expect(name, was.record); err != nil {
			return err
		}
		principal.AccessKeys = was.AccessKeys
		return p.put(name, principal)
	})
}

// DeletePrincipal removes old, which DB handed out, with its access keys.
func (c *Change) DeletePrincipal(old *Principal) *Change {
	was := *old
	return c.note(func(p *plan) error {
		account, rest, err := principalName(was.ARN)
		if err != nil {
			return err
		}
		name := prefixPrincipal + account + "/" + rest
		if err := p.expect(name, was.record); err != nil {
			return err
		}
		for _, id := range was.AccessKeys {
			if err := p.remove(nameAccess(id)); err != nil {
				return err
			}
		}
		if err := p.uncount(principalsOf(account), rest); err != nil {
			return err
		}
		return p.remove(name)
	})
}

// CreateAccessKey adds an access key to a principal, which must have a record.
func (c *Change) CreateAccessKey(k *AccessKey) *Change {
	key := *k
	return c.note(func(p *plan) error {
		if err := checkPart("access key", key.ID); err != nil {
			return err
		}
		if err := p.create(nameAccess(key.ID), key); err != nil {
			return err
		}
		return p.editPrincipal(key.Principal, func(pr *Principal) { pr.AccessKeys = append(slices.Clone(pr.AccessKeys), key.ID) })
	})
}

// UpdateAccessKey replaces old, which DB handed out. ID and principal stay as they are.
func (c *Change) UpdateAccessKey(old, k *AccessKey) *Change {
	was, key := *old, *k
	return c.note(func(p *plan) error {
		if key.ID != was.ID || key.Principal != was.Principal || key.Account != was.Account {
			return fmt.Errorf("keystore: ID and principal of the access key %q cannot change", was.ID)
		}
		if err := p.expect(nameAccess(was.ID), was.record); err != nil {
			return err
		}
		return p.put(nameAccess(was.ID), key)
	})
}

// DeleteAccessKey removes old, which DB handed out.
func (c *Change) DeleteAccessKey(old *AccessKey) *Change {
	was := *old
	return c.note(func(p *plan) error {
		if err := p.expect(nameAccess(was.ID), was.record); err != nil {
			return err
		}
		if err := p.remove(nameAccess(was.ID)); err != nil {
			return err
		}
		return p.editPrincipal(was.Principal, func(pr *Principal) {
			pr.AccessKeys = slices.DeleteFunc(slices.Clone(pr.AccessKeys), func(id string) bool { return id == was.ID })
		})
	})
}

// editPrincipal changes a principal as the plan has it so far. ErrConflict when there is none.
func (p *plan) editPrincipal(arn string, edit func(*Principal)) error {
	name, err := namePrincipal(arn)
	if err != nil {
		return err
	}
	s, err := p.slot(name)
	if err != nil {
		return err
	}
	if s.payload == nil {
		return fmt.Errorf("%w: the principal %q is not there", ErrConflict, arn)
	}
	var pr Principal
	if err := p.db.decodeRecord(stored{name: name, payload: s.payload}, &pr); err != nil {
		return err
	}
	edit(&pr)
	return p.put(name, pr)
}

// Principal returns a principal by its ARN, from the cache if it can. One without a record is returned too, Absent: every call
// asks for its caller, and most callers have nothing attached.
func (db *DB) Principal(ctx context.Context, arn string) (*Principal, error) {
	if db.closed.Load() {
		return nil, ErrClosed
	}
	if pr := db.people.get(arn); pr != nil {
		return pr, nil
	}
	return db.people.load(ctx, arn, func() (*Principal, int, error) {
		account, rest, err := principalName(arn)
		if err != nil {
			return nil, 0, err
		}
		st, err := db.lookUp(ctx, prefixPrincipal+account+"/"+rest)
		if errors.Is(err, ErrNotFound) {
			return &Principal{ARN: arn, Account: account, Absent: true}, len(arn), nil
		}
		if err != nil {
			return nil, 0, err
		}
		pr := &Principal{record: st.state()}
		return pr, len(st.payload), db.decodeRecord(st, pr)
	})
}

// Principals lists an account's principals that have a record, by kind and name: limit of them from offset, and how many there
// are.
func (db *DB) Principals(ctx context.Context, account string, offset, limit int) ([]*Principal, int, error) {
	rows, total, err := db.page(ctx, principalsOf(account), offset, limit)
	if err != nil {
		return nil, 0, err
	}
	var found []*Principal
	for _, r := range rows {
		st, err := db.checked(r)
		if err != nil {
			return nil, 0, err
		}
		pr := &Principal{record: st.state()}
		if err := db.decodeRecord(st, pr); err != nil {
			return nil, 0, err
		}
		found = append(found, pr)
	}
	return found, total, nil
}

// AccessKey returns an access key by its ID, from the cache if it can, or ErrNotFound.
func (db *DB) AccessKey(ctx context.Context, id string) (*AccessKey, error) {
	if db.closed.Load() {
		return nil, ErrClosed
	}
	if checkPart("access key", id) != nil {
		return nil, ErrNotFound
	}
	if k := db.access.get(id); k != nil {
		return k, nil
	}
	return db.access.load(ctx, id, func() (*AccessKey, int, error) {
		st, err := db.lookUp(ctx, nameAccess(id))
		if err != nil {
			return nil, 0, err
		}
		k := &AccessKey{record: st.state()}
		return k, len(st.payload), db.decodeRecord(st, k)
	})
}

// ErrPINLocked means that a PIN was wrong too often in a row. Nothing was changed.
var ErrPINLocked = errors.New("keystore: the PIN is locked")

// CountPINFailure notes that a PIN was wrong, before anybody knows: who is right clears it. Commit gives ErrPINLocked when most failures
// are noted already, and ErrConflict when the principal's PIN is not this one any more.
func (c *Change) CountPINFailure(arn string, pin *PIN, most int) *Change {
	return c.editPIN(arn, pin, func(now *PIN) error {
		if now.Failures >= most {
			return ErrPINLocked
		}
		now.Failures++
		return nil
	})
}

// ClearPINFailures notes that a PIN was right.
func (c *Change) ClearPINFailures(arn string, pin *PIN) *Change {
	return c.editPIN(arn, pin, func(now *PIN) error {
		now.Failures = 0
		return nil
	})
}

func (c *Change) editPIN(arn string, pin *PIN, edit func(*PIN) error) *Change {
	sealed := bytes.Clone(pin.Sealed)
	return c.note(func(p *plan) error {
		var wrong error
		err := p.editPrincipal(arn, func(pr *Principal) {
			if pr.PIN == nil || !bytes.Equal(pr.PIN.Sealed, sealed) {
				wrong = fmt.Errorf("%w: the PIN of %q is another one now", ErrConflict, arn)
				return
			}
			now := *pr.PIN
			if wrong = edit(&now); wrong == nil {
				pr.PIN = &now
			}
		})
		return errors.Join(err, wrong)
	})
}
