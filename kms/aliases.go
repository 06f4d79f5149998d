package kms

import (
	"context"
	"errors"
	"time"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/policy"
)

func aliasExists(name string) *Error {
	return Errorf(AliasExists, "%s exists already; UpdateAlias moves it to another key", name)
}

// maxAliases bounds the aliases of one key, because all of them go in the commit that deletes it.
const maxAliases = 1000

// roomForAlias refuses a further alias of a key that has as many as it may. Calls at the same time can exceed the bound a little.
func (c *call) roomForAlias(keyID string) error {
	_, n, err := c.store.AliasesOf(c.ctx, keyID, 0, 0)
	if err != nil {
		return storeError(err)
	}
	if n >= maxAliases {
		return Errorf(LimitExceeded, "%s has %d aliases, and a key has at most %d", keyID, n, maxAliases)
	}
	return nil
}

// authorizeAliased authorizes the call's action on a key that is to get an alias.
func (c *call) authorizeAliased(keyID string) (grant, error) {
	g, err := c.authorizeManage(keyID)
	if err != nil {
		return grant{}, err
	}
	return g, c.roomForAlias(g.key.ID)
}

// aliasTries is how often a change of an alias is decided anew because somebody else changed the same thing first.
const aliasTries = 5

// changeAlias commits what decide gives, after it has been noted that the call begins. Of changes at the same time one wins and the
// others are decided anew, from permission and state on.
func (c *call) changeAlias(decide func() (*keystore.Change, error)) (*kmswire.EmptyResponse, error) {
	for try := 0; ; try++ {
		ch, err := decide()
		if err != nil {
			return nil, err
		}
		if try == 0 {
			if err := c.begun(); err != nil {
				return nil, err
			}
		}
		err = ch.Commit(c.ctx)
		if errors.Is(err, keystore.ErrConflict) && try < aliasTries {
			continue
		}
		if err != nil {
			return nil, storeError(err)
		}
		return &kmswire.EmptyResponse{}, nil
	}
}

// CreateAlias gives a key a further name.
func (s *Service) CreateAlias(ctx context.Context, actor *Actor, req *kmswire.CreateAliasRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actCreateAlias, false, func(c *call) (*kmswire.EmptyResponse, error) {
		if err := checkAlias(req.AliasName); err != nil {
			return nil, err
		}
		return c.changeAlias(func() (*keystore.Change, error) {
			g, err := c.authorizeAliased(req.KeyID)
			if err != nil {
				return nil, err
			}
			c.event.Detail = req.AliasName
			if err := c.authorizeAlias(g.key.Account, req.AliasName); err != nil {
				return nil, err
			}
			switch _, err := s.store.Alias(ctx, g.key.Account, req.AliasName); {
			case err == nil:
				return nil, aliasExists(req.AliasName)
			case !errors.Is(err, keystore.ErrNotFound):
				return nil, storeError(err)
			}
			a := &keystore.Alias{Account: g.key.Account, Name: req.AliasName, KeyID: g.key.ID, Created: s.now().UTC().Truncate(time.Second)}
			return s.store.Change().CreateAlias(a), nil
		})
	})
}

// findAlias looks up an alias of the caller's account that the caller may change: the right is the key's.
func (c *call) findAlias(name string) (*keystore.Alias, error) {
	if err := checkAlias(name); err != nil {
		return nil, err
	}
	a, err := c.store.Alias(c.ctx, c.actor.Account, name)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, aliasNotFound(c.actor.Account, name)
	} else if err != nil {
		return nil, storeError(err)
	}
	k, err := c.find(c.ctx, reference{account: a.Account, id: a.KeyID})
	if err != nil {
		return nil, err
	}
	// The state of the key that it names now does not matter, the right does.
	act := *c.action
	act.states = anyState
	if _, err := c.authorize(k, &act); err != nil {
		return nil, err
	}
	return a, c.authorizeAlias(a.Account, a.Name)
}

// UpdateAlias points an alias at another key. Only the new key's state counts.
func (s *Service) UpdateAlias(ctx context.Context, actor *Actor, req *kmswire.UpdateAliasRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actUpdateAlias, false, func(c *call) (*kmswire.EmptyResponse, error) {
		return c.changeAlias(func() (*keystore.Change, error) {
			a, err := c.findAlias(req.AliasName)
			if err != nil {
				return nil, err
			}
			g, err := c.authorizeAliased(req.KeyID)
			if err != nil {
				return nil, err
			}
			if g.key.Account != a.Account {
				return nil, Invalid("KeyId", "%s is in account %s, and %s in account %s; an alias names a key of its own account", g.key.ID, g.key.Account, a.Name, a.Account)
			}
			c.event.Detail = a.Name + " named " + a.KeyID + " before"
			return s.store.Change().UpdateAlias(a, g.key.ID), nil
		})
	})
}

// DeleteAlias removes an alias. The key stays.
func (s *Service) DeleteAlias(ctx context.Context, actor *Actor, req *kmswire.DeleteAliasRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actDeleteAlias, false, func(c *call) (*kmswire.EmptyResponse, error) {
		return c.changeAlias(func() (*keystore.Change, error) {
			a, err := c.findAlias(req.AliasName)
			if err != nil {
				return nil, err
			}
			c.event.Detail = a.Name
			return s.store.Change().DeleteAlias(a).Urgent(), nil
		})
	})
}

func (s *Service) aliasList(found []*keystore.Alias, total int, paged kmswire.Paged) *kmswire.ListAliasesResponse {
	out := &kmswire.ListAliasesResponse{Paged: paged}
	out.TotalCount = total
	out.Aliases.Alias = make([]kmswire.Alias, 0, len(found))
	for _, a := range found {
		out.Aliases.Alias = append(out.Aliases.Alias, kmswire.Alias{AliasName: a.Name, AliasArn: s.aliasARN(a), KeyID: a.KeyID})
	}
	return out
}

// ListAliases lists the aliases of the caller's account by name.
func (s *Service) ListAliases(ctx context.Context, actor *Actor, req *kmswire.ListAliasesRequest) (*kmswire.ListAliasesResponse, error) {
	return audited(s, ctx, actor, actListAliases, false, func(c *call) (*kmswire.ListAliasesResponse, error) {
		offset, limit, paged, err := page(req.Page)
		if err != nil {
			return nil, err
		}
		if err := c.authorizeContainer(policy.Alias); err != nil {
			return nil, err
		}
		found, total, err := s.store.Aliases(ctx, actor.Account, offset, limit)
		if err != nil {
			return nil, storeError(err)
		}
		return s.aliasList(found, total, paged), nil
	})
}

// ListAliasesByKeyID lists a key's aliases by name.
func (s *Service) ListAliasesByKeyID(ctx context.Context, actor *Actor, req *kmswire.ListAliasesByKeyIDRequest) (*kmswire.ListAliasesResponse, error) {
	return audited(s, ctx, actor, actListAliasesByKeyID, false, func(c *call) (*kmswire.ListAliasesResponse, error) {
		offset, limit, paged, err := page(req.Page)
		if err != nil {
			return nil, err
		}
		g, err := c.authorizeManage(req.KeyID)
		if err != nil {
			return nil, err
		}
		found, total, err := s.store.AliasesOf(ctx, g.key.ID, offset, limit)
		if err != nil {
			return nil, storeError(err)
		}
		return s.aliasList(found, total, paged), nil
	})
}
