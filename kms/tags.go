package kms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/kmswire/flatjson"
)

// Limits of tags (reference section 6.6).
const (
	maxTags      = 20
	maxTagText   = 128      // characters of a key or a value
	maxTagsJSON  = 64 << 10 // octets: 20 tags whose every character is escaped are half of it
	maxResources = 50       // of one call that names several keys
)

// reservedTagPrefixes are what tag keys must not begin with, in upper or lower case: who reads a policy or a bill should not
// have to tell acs: from ACS:.
var reservedTagPrefixes = []string{"aliyun", "acs:"}

// parseTags reads the JSON form [{"TagKey":"k","TagValue":"v"}] and checks it.
func parseTags(param string, text json.RawMessage) ([]keystore.Tag, error) {
	if len(text) == 0 {
		return nil, nil
	}
	if len(text) > maxTagsJSON {
		return nil, Invalid(param, "%d octets of JSON; %d tags need less than %d", len(text), maxTags, maxTagsJSON)
	}
	var tags []keystore.Tag
	err := jsonArray(text, func(s *flatjson.Scanner) error {
		object, err := s.Value()
		if err != nil {
			return err
		}
		members, err := flatjson.Strings(object)
		if err != nil {
			return err
		}
		t := keystore.Tag{Key: members["TagKey"], Value: members["TagValue"]}
		for name := range members {
			if name != "TagKey" && name != "TagValue" {
				return fmt.Errorf("a tag has no %q, but TagKey and TagValue", name)
			}
		}
		tags = append(tags, t)
		return checkTags(param, tags)
	})
	if err != nil {
		if known := (*Error)(nil); errors.As(err, &known) {
			return nil, known
		}
		return nil, Invalid(param, `it must be JSON like [{"TagKey":"k","TagValue":"v"}]: %v`, err)
	}
	return tags, nil
}

// jsonArray calls element with the scanner at each element of the array that text is.
func jsonArray(text []byte, element func(*flatjson.Scanner) error) error {
	s := flatjson.NewScanner(text)
	if err := s.Take('['); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := s.More(']', first)
		if err != nil {
			return err
		}
		if !more {
			return s.End()
		}
		if err := element(&s); err != nil {
			return err
		}
	}
}

// numberedTags takes the tags of Tag.1.Key, Tag.1.Value and so on, and checks them.
func numberedTags(param string, wire []kmswire.TagParam) ([]keystore.Tag, error) {
	if len(wire) > maxTags {
		return nil, tooManyTags(param, len(wire))
	}
	var tags []keystore.Tag
	for _, t := range wire {
		tags = append(tags, keystore.Tag{Key: t.Key, Value: t.Value})
		if err := checkTags(param, tags); err != nil {
			return nil, err
		}
	}
	return tags, nil
}

func tooManyTags(param string, n int) *Error {
	return Invalid(param, "%d tags, a key has at most %d", n, maxTags)
}

// checkTags holds the last of some tags against the rules of reference section 6.6; the others have been.
func checkTags(param string, tags []keystore.Tag) error {
	if len(tags) > maxTags {
		return tooManyTags(param, len(tags))
	}
	last := len(tags) - 1
	t := tags[last]
	if t.Key == "" {
		return Invalid(param, "a tag has no key")
	}
	for _, prefix := range reservedTagPrefixes {
		if len(t.Key) >= len(prefix) && strings.EqualFold(t.Key[:len(prefix)], prefix) {
			return Invalid(param, "a tag key must not begin with %s, in upper or lower case", strings.Join(reservedTagPrefixes, " or "))
		}
	}
	for _, text := range []string{t.Key, t.Value} {
		if err := checkTagText(param, text); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(tags[:last], func(o keystore.Tag) bool { return o.Key == t.Key }) {
		return Invalid(param, "tag key %q is given twice", t.Key)
	}
	return nil
}

func checkTagText(param, text string) error {
	if n := utf8.RuneCountInString(text); n > maxTagText {
		return Invalid(param, "a tag key or value of %d characters; at most %d are allowed", n, maxTagText)
	}
	for _, r := range text {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(`/\_-.+=:@ `, r):
		default:
			return Invalid(param, `%q may not stand in a tag: letters (A to Z), digits, / \ _ - . + = : @ and space may`, r)
		}
	}
	return nil
}

// parseTagKeys reads a JSON array of strings, or text with commas between the keys. A comma can't be part of a key; white
// space beside one is not taken for a part.
func parseTagKeys(param, text string) ([]string, error) {
	if len(text) > maxTagsJSON {
		return nil, Invalid(param, "longer than %d octets", maxTagsJSON)
	}
	var keys []string
	if !strings.HasPrefix(strings.TrimSpace(text), "[") {
		for part := range strings.SplitSeq(text, ",") {
			keys = append(keys, strings.TrimSpace(part))
			if err := checkTagKeys(param, keys); err != nil {
				return nil, err
			}
		}
		return keys, nil
	}
	err := jsonArray([]byte(text), func(s *flatjson.Scanner) error {
		key, err := s.Text()
		if err != nil {
			return err
		}
		keys = append(keys, string(key))
		return checkTagKeys(param, keys)
	})
	if err != nil {
		if known := (*Error)(nil); errors.As(err, &known) {
			return nil, known
		}
		return nil, Invalid(param, `it must be JSON like ["k1","k2"], or k1,k2: %v`, err)
	}
	if len(keys) == 0 {
		return nil, Invalid(param, "it names no tag key")
	}
	return keys, nil
}

// checkTagKeys holds the last of some tag keys against the rules; the others have been. One that no key can have is a
// mistake of the caller's, and is not passed over as a tag that is not there.
func checkTagKeys(param string, keys []string) error {
	if len(keys) > maxTags {
		return tooManyTags(param, len(keys))
	}
	last := keys[len(keys)-1]
	if last == "" {
		return Invalid(param, "a tag key is empty")
	}
	return checkTagText(param, last)
}

// withTags gives a key's tags after others were added. It does not touch have, which is shared.
func withTags(have, added []keystore.Tag) ([]keystore.Tag, error) {
	tags := slices.Clone(have)
	for _, t := range added {
		if i := slices.IndexFunc(tags, func(o keystore.Tag) bool { return o.Key == t.Key }); i >= 0 {
			tags[i] = t
		} else {
			tags = append(tags, t)
		}
	}
	if len(tags) > maxTags {
		return nil, Errorf(LimitExceeded, "the key has %d tags and would have %d; at most %d are allowed", len(have), len(tags), maxTags)
	}
	return tags, nil
}

// withoutTags gives a key's tags after some were removed, if they were there. It does not touch have, which is shared.
func withoutTags(have []keystore.Tag, keys []string) []keystore.Tag {
	var tags []keystore.Tag
	for _, t := range have {
		if !slices.Contains(keys, t.Key) {
			tags = append(tags, t)
		}
	}
	return tags
}

// changeTags changes the tags of keys by edit, in one commit: of all or of none. Nothing is changed before the caller was found
// to be allowed to change every one. param names the parameter that the keys are from.
func (c *call) changeTags(param string, keyIDs []string, detail string, edit func([]keystore.Tag) ([]keystore.Tag, error)) error {
	keys, ch, err := c.tagChange(param, keyIDs, edit)
	if err != nil {
		return err
	}
	c.event.Detail = detail
	for _, k := range keys {
		c.event.KeyID = k.ID
		if err := c.begun(); err != nil {
			return err
		}
	}
	// Of changes at the same time one wins and the others are decided anew, from permission and state on.
	err = ch.Commit(c.ctx)
	for try := 0; errors.Is(err, keystore.ErrConflict) && try < 5; try++ {
		if _, ch, err = c.tagChange(param, keyIDs, edit); err == nil {
			err = ch.Commit(c.ctx)
		}
	}
	if err != nil {
		err = storeError(err)
	}
	c.noteKeys(keys, err)
	return err
}

// tagChange authorizes a change of tags for each key, and gives the keys and what is to be committed.
func (c *call) tagChange(param string, keyIDs []string, edit func([]keystore.Tag) ([]keystore.Tag, error)) (keys []*keystore.Key, ch *keystore.Change, err error) {
	ch = c.store.Change().At(c.now())
	for _, id := range keyIDs {
		g, err := c.authorizeNamed(param, id)
		if err != nil {
			return nil, nil, err
		}
		if slices.ContainsFunc(keys, func(k *keystore.Key) bool { return k.ID == g.key.ID }) {
			continue
		}
		next := *g.key
		if next.Tags, err = edit(g.key.Tags); err != nil {
			return nil, nil, err
		}
		keys = append(keys, g.key)
		ch.UpdateKey(g.key, &next)
	}
	return keys, ch, nil
}

// noteKeys gives each of the keys that a call was about its event: the call's own if there is one key only, else one besides
// the call's, which then names none.
func (c *call) noteKeys(keys []*keystore.Key, err error) {
	c.event.KeyID = ""
	if len(keys) == 1 {
		c.event.KeyID = keys[0].ID
		return
	}
	for _, k := range keys {
		e := c.event
		e.KeyID = k.ID
		c.also(e, err)
	}
}

// tagged says which resource a call of TagResource or UntagResource is about: exactly one must be named, and keyward has keys.
func tagged(keyID, secret, certificate string) error {
	given := 0
	for _, name := range []string{keyID, secret, certificate} {
		if name != "" {
			given++
		}
	}
	switch {
	case given == 0:
		return Missing("KeyId")
	case given > 1:
		return Invalid("KeyId", "exactly one of KeyId, SecretName and CertificateId must be given")
	case secret != "":
		return Errorf(UnsupportedOperation, "keyward keeps keys and no secrets, so there is nothing called %q to tag", secret)
	case certificate != "":
		return Errorf(UnsupportedOperation, "keyward keeps keys and no certificates, so there is nothing called %q to tag", certificate)
	}
	return nil
}

func tagsDetail(what string, keys []string) string {
	return what + " " + strings.Join(keys, ", ")
}

func tagKeys(tags []keystore.Tag) []string {
	keys := make([]string, len(tags))
	for i, t := range tags {
		keys[i] = t.Key
	}
	return keys
}

// TagResource adds tags to a key; a tag key that it has gets the new value.
func (s *Service) TagResource(ctx context.Context, actor *Actor, req *kmswire.TagResourceRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actTagResource, false, func(c *call) (*kmswire.EmptyResponse, error) {
		if err := tagged(req.KeyID, req.SecretName, req.CertificateID); err != nil {
			return nil, err
		}
		tags, err := parseTags("Tags", req.Tags)
		if err != nil {
			return nil, err
		}
		if len(tags) == 0 {
			return nil, Invalid("Tags", "it has no tag")
		}
		return c.addTags("KeyId", []string{req.KeyID}, tags)
	})
}

func (c *call) addTags(param string, keyIDs []string, tags []keystore.Tag) (*kmswire.EmptyResponse, error) {
	err := c.changeTags(param, keyIDs, tagsDetail("tagged with", tagKeys(tags)), func(have []keystore.Tag) ([]keystore.Tag, error) {
		return withTags(have, tags)
	})
	return &kmswire.EmptyResponse{}, err
}

// UntagResource removes tags from a key. One that it does not have is passed over.
func (s *Service) UntagResource(ctx context.Context, actor *Actor, req *kmswire.UntagResourceRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actUntagResource, false, func(c *call) (*kmswire.EmptyResponse, error) {
		if err := tagged(req.KeyID, req.SecretName, req.CertificateID); err != nil {
			return nil, err
		}
		keys, err := parseTagKeys("TagKeys", req.TagKeys)
		if err != nil {
			return nil, err
		}
		return c.removeTags("KeyId", []string{req.KeyID}, keys)
	})
}

func (c *call) removeTags(param string, keyIDs, tagKeys []string) (*kmswire.EmptyResponse, error) {
	err := c.changeTags(param, keyIDs, tagsDetail("took off the tags", tagKeys), func(have []keystore.Tag) ([]keystore.Tag, error) {
		return withoutTags(have, tagKeys), nil
	})
	return &kmswire.EmptyResponse{}, err
}

// ListResourceTags lists a key's tags.
func (s *Service) ListResourceTags(ctx context.Context, actor *Actor, req *kmswire.ListResourceTagsRequest) (*kmswire.ListResourceTagsResponse, error) {
	return audited(s, ctx, actor, actListResourceTags, false, func(c *call) (*kmswire.ListResourceTagsResponse, error) {
		g, err := c.authorizeManage(req.KeyID)
		if err != nil {
			return nil, err
		}
		out := &kmswire.ListResourceTagsResponse{}
		out.Tags.Tag = make([]kmswire.ResourceTag, 0, len(g.key.Tags))
		for _, t := range g.key.Tags {
			out.Tags.Tag = append(out.Tags.Tag, kmswire.ResourceTag{KeyID: g.key.ID, TagKey: t.Key, TagValue: t.Value})
		}
		return out, nil
	})
}

// resources checks what the actions about several resources have in common: the region must be ours, and the resources keys.
func (s *Service) resources(region, resourceType string, ids []string) error {
	if region != s.region {
		return Invalid("RegionId", "this is %s, not %q", s.region, region)
	}
	switch {
	case strings.EqualFold(resourceType, kmswire.ResourceTypeKey):
	case strings.EqualFold(resourceType, "secret"):
		return Errorf(UnsupportedOperation, "keyward keeps keys and no secrets; the ResourceType that it has is %s", kmswire.ResourceTypeKey)
	default:
		return Invalid("ResourceType", "%q; the ResourceType that keyward has is %s", resourceType, kmswire.ResourceTypeKey)
	}
	if len(ids) > maxResources {
		return Invalid("ResourceId", "%d keys; one call takes at most %d", len(ids), maxResources)
	}
	return nil
}

// TagResources adds the same tags to several keys: to all of them, or to none if one can't have them.
func (s *Service) TagResources(ctx context.Context, actor *Actor, req *kmswire.TagResourcesRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actTagResources, false, func(c *call) (*kmswire.EmptyResponse, error) {
		if err := s.resources(req.RegionID, req.ResourceType, req.ResourceIDs); err != nil {
			return nil, err
		}
		if len(req.ResourceIDs) == 0 {
			return nil, Missing("ResourceId")
		}
		if len(req.Tags) == 0 {
			return nil, Missing("Tag")
		}
		tags, err := numberedTags("Tag", req.Tags)
		if err != nil {
			return nil, err
		}
		return c.addTags("ResourceId", req.ResourceIDs, tags)
	})
}

// UntagResources removes tags from several keys: from all of them, or from none if one can't be changed. All removes whatever
// tags they have; it counts only when no tag key is given.
func (s *Service) UntagResources(ctx context.Context, actor *Actor, req *kmswire.UntagResourcesRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actUntagResources, false, func(c *call) (*kmswire.EmptyResponse, error) {
		if err := s.resources(req.RegionID, req.ResourceType, req.ResourceIDs); err != nil {
			return nil, err
		}
		if len(req.ResourceIDs) == 0 {
			return nil, Missing("ResourceId")
		}
		for i := range req.TagKeys {
			if err := checkTagKeys("TagKey", req.TagKeys[:i+1]); err != nil {
				return nil, err
			}
		}
		switch {
		case len(req.TagKeys) > 0:
			return c.removeTags("ResourceId", req.ResourceIDs, req.TagKeys)
		case req.All:
			err := c.changeTags("ResourceId", req.ResourceIDs, "took off all tags", func([]keystore.Tag) ([]keystore.Tag, error) { return nil, nil })
			return &kmswire.EmptyResponse{}, err
		}
		e := Missing("TagKey")
		e.Detail = "name the tag keys to remove, or set All"
		return nil, e
	})
}
