package kms

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// Limits of tags (reference section 6.6).
const (
	maxTags    = 20
	maxTagText = 128
)

// parseTags reads the JSON form [{"TagKey":"k","TagValue":"v"}] and checks it.
func parseTags(param string, text json.RawMessage) ([]keystore.Tag, error) {
	if len(text) == 0 {
		return nil, nil
	}
	var wire []kmswire.Tag
	if err := json.Unmarshal(text, &wire); err != nil {
		return nil, Invalid(param, `it must be JSON like [{"TagKey":"k","TagValue":"v"}]`)
	}
	if len(wire) > maxTags {
		return nil, Invalid(param, "%d tags, a key has at most %d", len(wire), maxTags)
	}
	var tags []keystore.Tag
	for _, t := range wire {
		if t.TagKey == "" {
			return nil, Invalid(param, "a tag has no TagKey")
		}
		if strings.HasPrefix(t.TagKey, "aliyun") || strings.HasPrefix(t.TagKey, "acs:") {
			return nil, Invalid(param, "a tag key must not begin with aliyun or acs:")
		}
		for _, text := range []string{t.TagKey, t.TagValue} {
			if err := checkTagText(param, text); err != nil {
				return nil, err
			}
		}
		if slices.ContainsFunc(tags, func(o keystore.Tag) bool { return o.Key == t.TagKey }) {
			return nil, Invalid(param, "tag key %q is given twice", t.TagKey)
		}
		tags = append(tags, keystore.Tag{Key: t.TagKey, Value: t.TagValue})
	}
	return tags, nil
}

func checkTagText(param, text string) error {
	if len(text) > maxTagText {
		return Invalid(param, "a tag has more than %d characters", maxTagText)
	}
	for _, r := range text {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(`/\_-.+=:@ `, r):
		default:
			return Invalid(param, `%q may not stand in a tag: letters, digits, / \ _ - . + = : @ and space may`, r)
		}
	}
	return nil
}

// TagResource adds tags to a key; a tag key that it has gets the new value.
func (s *Service) TagResource(ctx context.Context, actor *Actor, req *kmswire.TagResourceRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actTagResource, false, notAvailable[kmswire.EmptyResponse])
}

// UntagResource removes tags from a key.
func (s *Service) UntagResource(ctx context.Context, actor *Actor, req *kmswire.UntagResourceRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actUntagResource, false, notAvailable[kmswire.EmptyResponse])
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

// TagResources adds the same tags to several keys.
func (s *Service) TagResources(ctx context.Context, actor *Actor, req *kmswire.TagResourcesRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actTagResources, false, notAvailable[kmswire.EmptyResponse])
}

// UntagResources removes tags from several keys.
func (s *Service) UntagResources(ctx context.Context, actor *Actor, req *kmswire.UntagResourcesRequest) (*kmswire.EmptyResponse, error) {
	return audited(s, ctx, actor, actUntagResources, false, notAvailable[kmswire.EmptyResponse])
}

// ListTagResources lists the tags of the keys of the caller's account.
func (s *Service) ListTagResources(ctx context.Context, actor *Actor, req *kmswire.ListTagResourcesRequest) (*kmswire.ListTagResourcesResponse, error) {
	return audited(s, ctx, actor, actListTagResources, false, notAvailable[kmswire.ListTagResourcesResponse])
}
