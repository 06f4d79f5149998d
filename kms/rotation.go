package kms

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// The bounds of a rotation period, and the one that the default key has.
const (
	minRotation     = 7 * day
	maxRotation     = 365 * day
	defaultRotation = 365 * day
)

// maxVersions bounds the versions of an asymmetric key (reference section 6.2). Those of symmetric keys are bounded by the quota
// of the instance alone: a key that is rotated every week must not stop after a year.
const maxVersions = 50

// rotatable says why a key keeps one version, or nil. Asymmetric keys pass: they can have more versions, though not by
// themselves.
func rotatable(k *keystore.Key) error {
	switch {
	case k.Role == keystore.RoleService:
		return Errorf(OperationRejected, "%s belongs to the service %s, which alone may change it", k.ID, k.Creator)
	case k.ExternalID != "":
		return Errorf(OperationRejected, "%s is kept by another key manager; rotate it there", k.ID)
	case k.Origin != kmswire.OriginKMS:
		return Errorf(UnsupportedOrigin, "%s has imported material and keeps one version; make a new key to change it", k.ID)
	case k.Storage == kmswire.HsmInternal:
		return Errorf(OperationRejected, "%s lives inside one HSM (%s) and keeps one version; make a new key to change it", k.ID, kmswire.HsmInternal)
	}
	return nil
}

// rotatesByItself is rotatable for automatic rotation.
func rotatesByItself(k *keystore.Key, sp *spec) error {
	if err := rotatable(k); err != nil {
		return err
	}
	if !sp.symmetric() {
		return Errorf(OperationRejected, "%s is %s: only symmetric keys are rotated by themselves, as callers name the version of others; CreateKeyVersion makes one", k.ID, k.Spec)
	}
	return nil
}

// CreateKeyVersion makes a new version. Of a symmetric key it becomes the primary one.
func (s *Service) CreateKeyVersion(ctx context.Context, actor *Actor, req *kmswire.CreateKeyVersionRequest) (*kmswire.CreateKeyVersionResponse, error) {
	return audited(s, ctx, actor, actCreateKeyVersion, false, func(c *call) (*kmswire.CreateKeyVersionResponse, error) {
		g, err := c.authorizeRef(req.KeyID)
		if err != nil {
			return nil, err
		}
		if err := rotatable(g.key); err != nil {
			return nil, err
		}
		if !g.spec.symmetric() && g.key.Versions >= maxVersions {
			return nil, Errorf(LimitExceeded, "%s has %d versions, the most that an asymmetric key may have; make a new key", g.key.ID, g.key.Versions)
		}
		if err := c.begun(); err != nil {
			return nil, err
		}
		v, err := c.newVersion(g.key, g.spec)
		if err != nil {
			return nil, storeError(err)
		}
		return &kmswire.CreateKeyVersionResponse{KeyVersion: versionInfo(v)}, nil
	})
}

// newVersion makes the next version of k, by hand or by itself. Until its one commit the key is as it was. It returns
// keystore.ErrConflict when k is not the newest any more.
func (c *call) newVersion(k *keystore.Key, sp *spec) (*keystore.Version, error) {
	next := *k
	next.LastRotation = c.now().UTC().Truncate(time.Second)
	next.Versions++
	v, err := c.makeVersion(&next, sp, intentCreateVersion, func(ch *keystore.Change, v *keystore.Version) {
		if sp.symmetric() {
			next.Primary = v.ID
		}
		ch.At(c.now()).UpdateKey(k, &next).CreateVersion(v)
	})
	if err != nil {
		return nil, err
	}
	c.event.VersionID = v.ID
	return v, nil
}

// UpdateRotationPolicy switches the automatic rotation of a key on or off. A key whose period is over by the new policy is
// rotated at once.
func (s *Service) UpdateRotationPolicy(ctx context.Context, actor *Actor, req *kmswire.UpdateRotationPolicyRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actUpdateRotationPolicy, false, func(c *call) (*kmswire.EmptyResponse, error) {
		if req.EnableAutomaticRotation && req.RotationInterval == "" {
			return nil, Missing("RotationInterval")
		}
		var interval time.Duration
		if req.RotationInterval != "" {
			var err error
			if interval, err = parseRotation(req.RotationInterval); err != nil {
				return nil, err
			}
		}
		_, err := c.changeKey(req.KeyID, func(g grant, k *keystore.Key) error {
			c.event.Detail = "off"
			if req.EnableAutomaticRotation {
				c.event.Detail = "every " + req.RotationInterval
			}
			return setRotation(k, g.spec, req.EnableAutomaticRotation, interval)
		})
		if err != nil {
			return nil, err
		}
		s.schedule.poke()
		return &kmswire.EmptyResponse{}, nil
	})
}

// setRotation gives k a policy. An interval of 0 leaves the one that it had.
func setRotation(k *keystore.Key, sp *spec, on bool, interval time.Duration) error {
	if err := rotatesByItself(k, sp); err != nil {
		return err
	}
	if interval != 0 && k.Role == keystore.RoleDefault && interval != defaultRotation {
		return Invalid("RotationInterval", "the default key is rotated every 365 days or not at all")
	}
	k.AutoRotate = on
	if interval != 0 {
		k.RotationInterval = interval
	}
	return nil
}

// parseRotation reads a period such as 30d or 604800s.
func parseRotation(text string) (time.Duration, error) {
	units := map[byte]time.Duration{'d': day, 'h': time.Hour, 'm': time.Minute, 's': time.Second}
	if text != "" {
		digits, unit := text[:len(text)-1], units[text[len(text)-1]]
		n, err := strconv.ParseUint(digits, 10, 32)
		if unit != 0 && err == nil {
			if d := time.Duration(n) * unit; n <= uint64(maxRotation/unit) && d >= minRotation {
				return d, nil
			}
			return 0, Invalid("RotationInterval", "%.32q is not 7 to 365 days", text)
		}
	}
	return 0, Invalid("RotationInterval", "%.32q is not a number and a unit, such as 30d, 720h or 2592000s", text)
}

// formatRotation gives a period as the API shows it.
func formatRotation(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) + "s" }

// rotationState says how a key's automatic rotation is: it rests while the key is out of use.
func rotationState(k *keystore.Key) string {
	switch {
	case !k.AutoRotate:
		return "Disabled"
	case k.State != string(kmswire.Enabled):
		return "Suspended"
	}
	return "Enabled"
}

// draftRotation reads the rotation policy of a new key.
func (c *call) draftRotation(d *draft, req *kmswire.CreateKeyRequest) error {
	if !req.EnableAutomaticRotation && req.RotationInterval == "" {
		return nil
	}
	if req.RotationInterval == "" {
		return Missing("RotationInterval")
	}
	interval, err := parseRotation(req.RotationInterval)
	if err != nil {
		return err
	}
	named := *d.key
	named.ID = "the new key" // its ID means nothing to anybody if it is not made
	if err := setRotation(&named, d.spec, req.EnableAutomaticRotation, interval); err != nil {
		return err
	}
	return setRotation(d.key, d.spec, req.EnableAutomaticRotation, interval)
}

var actRotateKey = &action{name: "RotateKey", kind: kindManage}

// rotateDue rotates a key whose period is over: once, however many of them were missed.
func (s *Service) rotateDue(ctx context.Context, k *keystore.Key) error {
	if next := k.NextRotation(); next.IsZero() || k.State != string(kmswire.Enabled) || s.now().Before(next) {
		return errLater
	}
	return s.rotate(ctx, k, "its period of "+formatRotation(k.RotationInterval)+" is over")
}

// rotateEarly rotates a key whose primary version has used up half of the messages that it may encrypt. A key that is not to
// be rotated by itself goes on until its limit.
func (s *Service) rotateEarly(ctx context.Context, version string) error {
	k, err := s.store.Key(ctx, version[:strings.LastIndexByte(version, '-')]) // an ID of ours: see newVersionID
	if errors.Is(err, keystore.ErrNotFound) {
		return nil
	} else if err != nil {
		return storeError(err)
	}
	if !k.AutoRotate || k.Primary != version {
		return nil
	}
	if k.State != string(kmswire.Enabled) {
		return errLater
	}
	return s.rotate(ctx, k, "half of the messages that "+version+" may encrypt are used")
}

func (s *Service) rotate(ctx context.Context, k *keystore.Key, why string) error {
	sp := specs[kmswire.KeySpec(k.Spec)]
	if sp == nil {
		return Errorf(KeyUnavailable, "%s has spec %q, which this version of keyward does not know", k.ID, k.Spec)
	}
	return s.scheduled(ctx, actRotateKey, k, func(c *call) error {
		c.event.Detail = why
		if err := rotatesByItself(k, sp); err != nil {
			return err
		}
		if err := c.begun(); err != nil {
			return err
		}
		_, err := c.newVersion(k, sp)
		return err
	})
}
