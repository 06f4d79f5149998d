package kms

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

const (
	maxClientToken      = 64             // characters
	clientTokenLife     = 24 * time.Hour // how long a token stands for its key
	clientTokensDropped = 100            // expired ones that are cleared away by a call with a token
)

func checkClientToken(token string) error {
	if len(token) > maxClientToken {
		return Invalid("ClientToken", "longer than %d characters", maxClientToken)
	}
	for _, c := range []byte(token) {
		if c <= ' ' || c > '~' {
			return Invalid("ClientToken", "it must consist of visible ASCII characters")
		}
	}
	return nil
}

// tokenHash is what is kept of a token, which may have been made from something that is nobody's business. A token is its caller's own:
// another one's would give a key that this caller may not be allowed to know.
func (c *call) tokenHash(token string) (string, error) {
	sum, err := c.store.Fingerprint("client token", []byte(c.actor.Principal), []byte(token))
	if err != nil {
		return "", storeError(err)
	}
	return hex.EncodeToString(sum), nil
}

// tokenRequest is a fingerprint of the parameters beside the token.
func (c *call) tokenRequest(req *kmswire.CreateKeyRequest) ([]byte, error) {
	others := *req
	others.ClientToken = ""
	params, err := kmswire.Encode(&others)
	if err != nil {
		var bad *kmswire.ParamError
		if errors.As(err, &bad) {
			return nil, Invalid(bad.Param, "%s", bad.Reason)
		}
		return nil, &Error{Code: Internal, Err: err}
	}
	sum, err := c.store.Fingerprint("client token request", []byte(params.Encode()))
	if err != nil {
		return nil, storeError(err)
	}
	return sum, nil
}

// draftToken notes the ClientToken, with which a call that is made again gives the key of the first: see once.
func (c *call) draftToken(d *draft, req *kmswire.CreateKeyRequest) error {
	if req.ClientToken == "" {
		return nil
	}
	hash, err := c.tokenHash(req.ClientToken)
	if err != nil {
		return err
	}
	request, err := c.tokenRequest(req)
	if err != nil {
		return err
	}
	d.token = &keystore.ClientToken{
		Account: d.key.Account, Hash: hash, Request: request, KeyID: d.key.ID, Expires: c.now().UTC().Truncate(time.Second).Add(clientTokenLife),
	}
	return nil
}

// once makes a key with makeKey, unless a call with the same ClientToken has made it. The commit that makes the key keeps the
// token. So of calls at the same time one makes the key and the others, which lose that commit or find its alias, give it.
func (c *call) once(req *kmswire.CreateKeyRequest, makeKey func() (*keystore.Key, error)) (*keystore.Key, error) {
	if req.ClientToken == "" {
		return makeKey()
	}
	if err := checkClientToken(req.ClientToken); err != nil {
		return nil, err
	}
	if k, err := c.madeBefore(req); k != nil || err != nil {
		return k, err
	}
	k, err := makeKey()
	if errors.Is(err, keystore.ErrConflict) || errors.Is(err, AliasExists) {
		lost := c.event.KeyID
		if twin, twinErr := c.madeBefore(req); twin != nil || twinErr != nil {
			if lost != "" {
				c.event.Detail += "; " + lost + " was not made" // its begun event has no other end
			}
			return twin, twinErr
		}
	}
	if err != nil {
		if errors.Is(err, keystore.ErrConflict) {
			err = storeError(err)
		}
		return nil, err
	}
	// Tokens that nobody comes back to are cleared away by those who come with new ones. It is not this call's concern.
	if _, err := c.store.DropClientTokens(context.WithoutCancel(c.ctx), c.now(), clientTokensDropped); err != nil {
		c.log.Warn().Err(err).Msg("expired client tokens stay in the store for now")
	}
	return k, nil
}

// madeBefore gives the key that the request's ClientToken stands for, or nil if it stands for none.
func (c *call) madeBefore(req *kmswire.CreateKeyRequest) (*keystore.Key, error) {
	hash, err := c.tokenHash(req.ClientToken)
	if err != nil {
		return nil, err
	}
	t, err := c.store.ClientToken(c.ctx, c.actor.Account, hash)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, storeError(err)
	}
	if !c.now().Before(t.Expires) {
		return nil, nil
	}
	request, err := c.tokenRequest(req)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(t.Request, request) {
		return nil, Invalid("ClientToken", "it was used with other parameters within 24 hours; a new key needs a new token")
	}
	c.event.KeyID, c.event.Detail = t.KeyID, "made before with the same ClientToken"
	k, err := c.store.Key(c.ctx, t.KeyID)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, Errorf(KeyNotFound, "the key %s that was made with this ClientToken has been deleted; a new key needs a new token", t.KeyID)
	} else if err != nil {
		return nil, storeError(err)
	}
	return k, nil
}
