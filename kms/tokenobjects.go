package kms

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/policy"
)

// TokenObject is an object that a client keeps in a token beside the keys: a certificate, data, or a public key of somebody else's.
// Values handed out are shared and immutable.
type TokenObject struct {
	Number     uint64 // names it in its account; never used again
	Instance   string
	Class      ObjectClass
	Private    bool   // only for the principal that made it, and the root of its account
	Owner      string // principal that made it
	Modifiable bool
	ObjectNames
	Value   []byte // what else the object is, in the door's encoding; sealed at rest. At most MaxTokenObject octets
	Created time.Time

	record *keystore.TokenObject // that it was made of; nil of one that is to be made
}

// Limits of the objects that clients keep.
const (
	MaxTokenObject  = 64 << 10 // octets of Value
	MaxTokenObjects = 10_000   // of an account in one instance
	MaxTokenOctets  = 32 << 20 // of all of these together, as they are kept in memory
	MaxObjectID     = 256      // octets of CKA_ID
	MaxObjectLabel  = 256      // octets of CKA_LABEL
	// Of keys, for each half:
	MaxObjectSubject    = 1024 // octets of CKA_SUBJECT
	MaxObjectMechanisms = 256  // in CKA_ALLOWED_MECHANISMS
)

var tokenQuota = keystore.ObjectQuota{Objects: MaxTokenObjects, Octets: MaxTokenOctets}

func checkObjectNames(id []byte, label string, subject []byte) error {
	if len(subject) > MaxObjectSubject {
		return Invalid("Subject", "it has %d octets, at most %d are allowed", len(subject), MaxObjectSubject)
	}
	if len(id) > MaxObjectID {
		return Invalid("ID", "it has %d octets, at most %d are allowed", len(id), MaxObjectID)
	}
	if len(label) > MaxObjectLabel {
		return Invalid("Label", "it has %d octets, at most %d are allowed", len(label), MaxObjectLabel)
	}
	if !utf8.ValidString(label) {
		return Invalid("Label", "it is not valid UTF-8")
	}
	return nil
}

// seesObject says whether the caller may know of an object, as far as that is the object's own matter.
func (c *call) seesObject(o *keystore.TokenObject) bool {
	return !o.Private || o.Owner == c.actor.Principal || isRoot(c.actor)
}

// seesObjects says whether the caller may know of the objects in an instance. Like the lists of keys they are for every principal of the
// account, unless an identity policy denies kms:DescribeTokenObject.
func (c *call) seesObjects(instance string) (bool, error) {
	if c.instances.Load().byID[instance] == nil {
		return false, nil
	}
	docs, err := c.identityOf(c.actor)
	if err != nil || len(docs) == 0 {
		return err == nil, err
	}
	r, err := c.question(actDescribeTokenObject)
	if err != nil {
		return false, err
	}
	r.Resource.Account, r.Resource.Kind, r.Resource.ID = c.actor.Account, policy.Keystore, instance
	return !deniedBy(docs, r), nil
}

func newTokenObject(o *keystore.TokenObject) *TokenObject {
	return &TokenObject{Number: o.Number, Instance: o.Instance, Class: ObjectClass(o.Class), Private: o.Private, Owner: o.Owner,
		Modifiable: o.Modifiable, ObjectNames: ObjectNames{ID: o.ID, Label: o.Label}, Value: o.Value, Created: o.Created, record: o}
}

func objectNotFound(number uint64) *Error {
	return Errorf(ResourceNotFound, "there is no object %d that this caller may know of", number)
}

// TokenObjects lists the objects of an instance that the actor may see, with id, label and class if they are given. It reads memory.
func (s *Service) TokenObjects(ctx context.Context, actor *Actor, instance string, id []byte, label *string, class *ObjectClass) ([]*TokenObject, error) {
	c, err := s.looking(ctx, actor)
	if err != nil {
		return nil, err
	}
	if ok, err := c.seesObjects(instance); err != nil || !ok {
		return nil, err
	}
	records, err := s.store.TokenObjects(ctx, actor.Account, instance, id, label, func(o *keystore.TokenObject) bool {
		return (class == nil || uint8(*class) == o.Class) && c.seesObject(o)
	})
	if err != nil {
		return nil, storeError(err)
	}
	found := make([]*TokenObject, len(records))
	for i, o := range records {
		found[i] = newTokenObject(o)
	}
	return found, nil
}

// TokenObject gives one by its number, ResourceNotFound if there is none that the actor may see.
func (s *Service) TokenObject(ctx context.Context, actor *Actor, instance string, number uint64) (*TokenObject, error) {
	c, err := s.looking(ctx, actor)
	if err != nil {
		return nil, err
	}
	return c.tokenObject(instance, number)
}

func (c *call) tokenObject(instance string, number uint64) (*TokenObject, error) {
	if ok, err := c.seesObjects(instance); err != nil {
		return nil, err
	} else if !ok {
		return nil, objectNotFound(number)
	}
	o, err := c.store.TokenObject(c.ctx, c.actor.Account, instance, number)
	if errors.Is(err, keystore.ErrNotFound) || err == nil && !c.seesObject(o) {
		return nil, objectNotFound(number)
	} else if err != nil {
		return nil, storeError(err)
	}
	return newTokenObject(o), nil
}

// authorizeObjects lets an account's root, and whom an identity policy lets, change what is in an instance's token.
func (c *call) authorizeObjects(instance string) error {
	return c.authorizeInstance(policy.Keystore, instance)
}

// CreateTokenObject keeps an object, whose Number, Owner and Created it sets. It needs kms:CreateTokenObject.
func (s *Service) CreateTokenObject(ctx context.Context, actor *Actor, o *TokenObject) (*TokenObject, error) {
	return audited(s, ctx, actor, actCreateTokenObject, false, func(c *call) (*TokenObject, error) {
		c.event.Detail = cut(o.Instance, 64)
		in, err := s.instanceFor(actor.Account, o.Instance)
		if err != nil {
			return nil, err
		}
		if err := c.authorizeObjects(in.ID); err != nil {
			return nil, err
		}
		switch {
		case in.Type == ExternalInstance:
			return nil, Errorf(UnsupportedOperation, "%s is an external instance, which is no token", in.ID)
		case o.Class != ClassData && o.Class != ClassCertificate && o.Class != ClassPublicKey:
			return nil, Invalid("Class", "%d is no class of objects that are kept beside keys", o.Class)
		}
		if err := checkObject(o); err != nil {
			return nil, err
		}
		record := &keystore.TokenObject{Account: actor.Account, Instance: in.ID, Class: uint8(o.Class), Private: o.Private, Owner: actor.Principal,
			Modifiable: o.Modifiable, ID: o.ID, Label: o.Label, Value: o.Value, Created: c.now().UTC().Truncate(time.Second)}
		if err := c.begun(); err != nil {
			return nil, err
		}
		if err := s.store.Change().CreateTokenObject(record, tokenQuota).Commit(ctx); err != nil {
			return nil, objectError(in.ID, err)
		}
		c.noteObject(in.ID, record.Number)
		kept, err := s.store.TokenObject(context.WithoutCancel(ctx), actor.Account, in.ID, record.Number)
		if err != nil {
			return nil, storeError(err)
		}
		return newTokenObject(kept), nil
	})
}

func checkObject(o *TokenObject) error {
	if len(o.Value) > MaxTokenObject {
		return Invalid("Value", "it has %d octets, at most %d are allowed", len(o.Value), MaxTokenObject)
	}
	return checkObjectNames(o.ID, o.Label, nil)
}

// noteObject says in the audit which object it is about.
func (c *call) noteObject(instance string, number uint64) {
	c.event.Detail = fmt.Sprintf("object %d in %s", number, instance)
}

// objectError words the error of a commit that adds to the objects in an instance.
func objectError(instance string, err error) error {
	if errors.Is(err, keystore.ErrObjectQuota) {
		return Errorf(LimitExceeded, "an account keeps at most %d objects with %d octets together in the token of %s, and has as many; delete some that nobody needs",
			MaxTokenObjects, MaxTokenOctets, instance)
	}
	return storeError(err)
}

// changeable gives an object that the caller may change, whatever it is now.
func (c *call) changeable(instance string, number uint64) (*TokenObject, error) {
	c.noteObject(cut(instance, 64), number)
	o, err := c.tokenObject(instance, number)
	if err != nil {
		return nil, err
	}
	return o, c.authorizeObjects(instance)
}

// UpdateTokenObject replaces names and value of old, which TokenObject or TokenObjects handed out and which is Modifiable: by those of o.
// If somebody else changed it meanwhile, nothing is done and the error is Throttled. It needs kms:UpdateTokenObject.
func (s *Service) UpdateTokenObject(ctx context.Context, actor *Actor, old, o *TokenObject) (*TokenObject, error) {
	return audited(s, ctx, actor, actUpdateTokenObject, false, func(c *call) (*TokenObject, error) {
		now, err := c.changeable(old.Instance, old.Number)
		if err != nil {
			return nil, err
		}
		if !now.Modifiable {
			return nil, Errorf(OperationRejected, "object %d can't be changed; its maker wanted it so", now.Number)
		}
		if err := checkObject(o); err != nil {
			return nil, err
		}
		if old.record == nil {
			return nil, Errorf(Internal, "an object that was not handed out is to be changed")
		}
		next := *old.record
		next.ID, next.Label, next.Value = o.ID, o.Label, o.Value
		if err := c.begun(); err != nil {
			return nil, err
		}
		if err := s.store.Change().UpdateTokenObject(old.record, &next, tokenQuota).Commit(ctx); err != nil {
			return nil, objectError(old.Instance, err)
		}
		c.ctx = context.WithoutCancel(ctx) // it is done
		return c.tokenObject(old.Instance, old.Number)
	})
}

// DeleteTokenObject removes one. It works on a full disk. It needs kms:DeleteTokenObject.
func (s *Service) DeleteTokenObject(ctx context.Context, actor *Actor, instance string, number uint64) error {
	_, err := audited(s, ctx, actor, actDeleteTokenObject, false, func(c *call) (*struct{}, error) {
		for try := 0; ; try++ {
			o, err := c.changeable(instance, number)
			if err != nil {
				return nil, err
			}
			if try == 0 {
				if err := c.begun(); err != nil {
					return nil, err
				}
			}
			err = s.store.Change().DeleteTokenObject(o.record).Urgent().Commit(ctx)
			if errors.Is(err, keystore.ErrConflict) && try < nameTries {
				continue
			}
			return done(storeErrorOrNil(err))
		}
	})
	return err
}
