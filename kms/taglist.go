package kms

import (
	"cmp"
	"context"
	"crypto/hmac"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// tagRows is how many rows a page of ListTagResources has (reference section 4.7).
const tagRows = 200

// tagPlace is where a page of ListTagResources ends: at a tag of a key. The rows are in order of the keys' creation, then of tag
// keys, and a page begins with the first row after the place. So a row that is there all the time is listed once, whatever comes
// and goes beside it.
type tagPlace struct {
	sequence uint64
	keyID    string // keys of two accounts may have the same sequence
	tagKey   string
}

func (p tagPlace) compare(o tagPlace) int {
	return cmp.Or(cmp.Compare(p.sequence, o.sequence), strings.Compare(p.keyID, o.keyID), strings.Compare(p.tagKey, o.tagKey))
}

// A NextToken is the place of the last row under a keyed hash that binds it to the request, so that it is good for the same
// request only: octets are version, hash (16), sequence (8), key ID, NUL, tag key.
const (
	nextTokenVersion = 1
	nextTokenHash    = 16
	nextTokenHead    = 1 + nextTokenHash + 8
	maxNextToken     = 512 // characters
)

func (p tagPlace) octets() []byte {
	return append(binary.BigEndian.AppendUint64(nil, p.sequence), p.keyID+"\x00"+p.tagKey...)
}

func (c *call) nextTokenSum(request string, place []byte) ([]byte, error) {
	sum, err := c.store.Fingerprint("NextToken", []byte(c.actor.Account), []byte(c.action.name), []byte(request), place)
	if err != nil {
		return nil, storeError(err)
	}
	return sum[:nextTokenHash], nil
}

func (c *call) nextToken(request string, p tagPlace) (string, error) {
	sum, err := c.nextTokenSum(request, p.octets())
	if err != nil {
		return "", err
	}
	token := append([]byte{nextTokenVersion}, sum...)
	return base64.RawURLEncoding.EncodeToString(append(token, p.octets()...)), nil
}

// parseNextToken undoes nextToken. An empty token is the beginning.
func (c *call) parseNextToken(request, token string) (tagPlace, error) {
	if token == "" {
		return tagPlace{}, nil
	}
	bad := Invalid("NextToken", "it must be the NextToken of an answer to the same request; leave it out to begin anew")
	if len(token) > maxNextToken {
		return tagPlace{}, bad
	}
	octets, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(octets) < nextTokenHead || octets[0] != nextTokenVersion {
		return tagPlace{}, bad
	}
	place := octets[1+nextTokenHash:]
	sum, err := c.nextTokenSum(request, place)
	if err != nil {
		return tagPlace{}, err
	}
	keyID, tagKey, ok := strings.Cut(string(place[8:]), "\x00")
	if !hmac.Equal(sum, octets[1:1+nextTokenHash]) || !ok {
		return tagPlace{}, bad
	}
	return tagPlace{binary.BigEndian.Uint64(place), keyID, tagKey}, nil
}

// ListTagResources lists the tags of the given keys, or of all of the account that the caller may see the tags of. With tags in
// the request only keys that have every one of them are listed, with all their tags; a tag without a value stands for any value.
func (s *Service) ListTagResources(ctx context.Context, actor *Actor, req *kmswire.ListTagResourcesRequest) (*kmswire.ListTagResourcesResponse, error) {
	return audited(s, ctx, actor, actListTagResources, false, func(c *call) (*kmswire.ListTagResourcesResponse, error) {
		if err := s.resources(req.RegionID, req.ResourceType, req.ResourceIDs); err != nil {
			return nil, err
		}
		wanted, err := numberedTags("Tag", req.Tags)
		if err != nil {
			return nil, err
		}
		request := fmt.Sprintf("%q %q", req.ResourceIDs, wanted)
		from, err := c.parseNextToken(request, req.NextToken)
		if err != nil {
			return nil, err
		}
		l := &tagLister{call: c, wanted: wanted, from: from}
		if len(req.ResourceIDs) > 0 {
			err = l.named(req.ResourceIDs)
		} else {
			err = l.all()
		}
		if err != nil {
			return nil, err
		}
		out := &kmswire.ListTagResourcesResponse{}
		out.TagResources.TagResource = l.rows
		if l.rows == nil {
			out.TagResources.TagResource = []kmswire.TagResource{}
		}
		if l.more {
			out.NextToken, err = c.nextToken(request, l.last)
		}
		return out, err
	})
}

// tagLister makes one page of ListTagResources.
type tagLister struct {
	*call
	wanted []keystore.Tag
	from   tagPlace
	rows   []kmswire.TagResource
	last   tagPlace // of rows
	more   bool     // the page is full, and there is another row
}

// add adds the rows of a key that come after the beginning. Keys come in order of creation.
func (l *tagLister) add(k *keystore.Key) {
	if !hasTags(k.Tags, l.wanted) {
		return
	}
	tags := slices.Clone(k.Tags)
	slices.SortFunc(tags, func(a, b keystore.Tag) int { return strings.Compare(a.Key, b.Key) })
	for _, t := range tags {
		place := tagPlace{k.Sequence, k.ID, t.Key}
		if place.compare(l.from) <= 0 {
			continue
		}
		if len(l.rows) == tagRows {
			l.more = true
			return
		}
		l.rows = append(l.rows, kmswire.TagResource{ResourceID: k.ID, ResourceType: kmswire.ResourceTypeKey, TagKey: t.Key, TagValue: t.Value})
		l.last = place
	}
}

// hasTags says whether all wanted tags are among tags. An empty value stands for any.
func hasTags(tags, wanted []keystore.Tag) bool {
	for _, w := range wanted {
		if !slices.ContainsFunc(tags, func(t keystore.Tag) bool { return t.Key == w.Key && (w.Value == "" || t.Value == w.Value) }) {
			return false
		}
	}
	return true
}

// named lists keys that the request names. One that the caller may not see the tags of is an error.
func (l *tagLister) named(ids []string) error {
	var keys []*keystore.Key
	for _, id := range ids {
		g, err := l.authorizeNamed("ResourceId", id)
		if err != nil {
			return err
		}
		keys = append(keys, g.key)
	}
	slices.SortFunc(keys, func(a, b *keystore.Key) int {
		return tagPlace{a.Sequence, a.ID, ""}.compare(tagPlace{b.Sequence, b.ID, ""})
	})
	keys = slices.CompactFunc(keys, func(a, b *keystore.Key) bool { return a.ID == b.ID })
	l.noteKeys(keys, nil)
	for _, k := range keys {
		l.add(k)
	}
	return nil
}

// rowsPage is how many rows of an index are read at a time.
const rowsPage = 256

// all lists the keys of the caller's account: those of the index of the first wanted tag, or all that have a tag.
func (l *tagLister) all() error {
	after := l.from.sequence - min(l.from.sequence, 1) // the key where the page before ended may have more tags
	if len(l.wanted) == 0 {
		var rows []keystore.KeyRow
		err := l.store.WalkKeys(l.ctx, l.actor.Account, func(k *keystore.KeyFacts) error {
			if len(k.Tags) > 0 && k.Sequence > after {
				rows = append(rows, keystore.KeyRow{Sequence: k.Sequence, ID: k.ID})
			}
			return nil
		})
		if err != nil {
			return storeError(err)
		}
		sortRows(rows)
		return l.visit(rows)
	}
	set := tagSet(l.actor.Account, l.wanted[0].Key, l.wanted[0].Value)
	for !l.more {
		rows, err := l.store.KeyRows(l.ctx, set, after, rowsPage)
		if err != nil {
			return storeError(err)
		}
		if err := l.visit(rows); err != nil || len(rows) < rowsPage {
			return err
		}
		after = rows[len(rows)-1].Sequence
	}
	return nil
}

// tagSet are the keys of an account with a tag of that key, and of that value if it is not empty.
func tagSet(account, key, value string) keystore.KeySet {
	if value == "" {
		return keystore.TaggedKeys(account, key)
	}
	return keystore.TagValueKeys(account, keystore.Tag{Key: key, Value: value})
}

func sortRows(rows []keystore.KeyRow) {
	slices.SortFunc(rows, func(a, b keystore.KeyRow) int { return cmp.Compare(a.Sequence, b.Sequence) })
}

// visit adds the rows of the keys that the caller may see the tags of, until the page is full.
func (l *tagLister) visit(rows []keystore.KeyRow) error {
	for _, row := range rows {
		if l.more {
			return nil
		}
		k, err := l.store.PeekKey(l.ctx, row.ID)
		if errors.Is(err, keystore.ErrNotFound) {
			continue // deleted meanwhile
		} else if err != nil {
			return storeError(err)
		}
		_, err = l.authorize(k, l.action)
		l.event.KeyID = "" // the call is about no key
		if errors.Is(err, Denied) || errors.Is(err, KeyNotFound) {
			continue
		} else if err != nil {
			return err
		}
		l.add(k)
	}
	return nil
}
