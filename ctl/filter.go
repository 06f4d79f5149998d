package ctl

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

// keyFilter is one entry of the Filters of ListKeys.
type keyFilter struct {
	Key    string
	Values []string
}

// filterKeys are what keywardctl knows that keys can be filtered by. The daemon may know more.
var filterKeys = []string{"AliasName", "Creator", "CreatorType", "DKMSInstanceId", "KeyId", "KeySpec", "KeyState", "KeyUsage", "ProtectionLevel", "TagKey", "TagValue"}

// filterFlags are the flags of key list that become Filters.
type filterFlags struct {
	filters  []string
	states   []string
	specs    []string
	usages   []string
	instance []string
	creators []string
	tag      string
}

var (
	keyStates    = []kmswire.KeyState{kmswire.Enabled, kmswire.Disabled, kmswire.PendingDeletion, kmswire.PendingImport}
	creatorTypes = []string{"User", "Service"}
)

func (f *filterFlags) add(c *cli, cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.filters, "filter", nil, "KEY=VALUE,...: a filter by the API's own name; may be given again")
	flags.StringSliceVar(&f.states, "state", nil, "only keys in these states, such as Enabled,Disabled")
	flags.StringSliceVar(&f.specs, "spec", nil, "only keys of these specs, such as EC_P256")
	flags.StringSliceVar(&f.usages, "usage", nil, "only keys that encrypt, or that sign")
	flags.StringSliceVar(&f.instance, "instance", nil, "only keys in these instances")
	flags.StringSliceVar(&f.creators, "creator", nil, "only keys that a User or a Service made, or of these creators")
	flags.StringVar(&f.tag, "tag", "", "NAME or NAME=VALUE: only keys with that tag")
	must(cmd.RegisterFlagCompletionFunc("instance", c.completeInstances))
	choices(cmd, "state", keyStates...)
	choices(cmd, "spec", specs...)
	choices(cmd, "usage", kmswire.EncryptDecrypt, kmswire.SignVerify)
	choices(cmd, "creator", creatorTypes...)
	var names []string
	for _, key := range filterKeys {
		names = append(names, key+"=")
	}
	must(cmd.RegisterFlagCompletionFunc("filter", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoSpace|cobra.ShellCompDirectiveNoFileComp)))
}

// json gives the Filters that the flags mean; nil if there are none.
func (f *filterFlags) json() (json.RawMessage, error) {
	var all []keyFilter
	add := func(key string, values ...string) {
		if len(values) > 0 {
			all = append(all, keyFilter{key, values})
		}
	}
	var states, sp, usages []string
	for _, text := range f.states {
		states = append(states, string(anyCase(text, keyStates)))
	}
	for _, text := range f.specs {
		sp = append(sp, string(specNamed(text)))
	}
	for _, text := range f.usages {
		usages = append(usages, string(usageNamed(text)))
	}
	add("KeyState", states...)
	add("KeySpec", sp...)
	add("KeyUsage", usages...)
	add("DKMSInstanceId", f.instance...)
	var types, creators []string
	for _, text := range f.creators {
		if t := anyCase(text, creatorTypes); slices.Contains(creatorTypes, t) {
			types = append(types, t)
		} else {
			creators = append(creators, text)
		}
	}
	add("CreatorType", types...)
	add("Creator", creators...)
	if f.tag != "" {
		name, value, given := strings.Cut(f.tag, "=")
		if name == "" {
			return nil, usagef("--tag takes NAME or NAME=VALUE, not %q", f.tag)
		}
		add("TagKey", name)
		if given {
			add("TagValue", value)
		}
	}
	for _, text := range f.filters {
		key, values, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, usagef("--filter takes KEY=VALUE, not %q", text)
		}
		add(key, strings.Split(values, ",")...)
	}
	if all == nil {
		return nil, nil
	}
	return json.Marshal(all)
}

// completion is what cobra asks for what can stand next.
type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// completeFirst offers something for the first argument only.
func (c *cli) completeFirst(offer completion) completion {
	return func(cmd *cobra.Command, given []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(given) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return offer(cmd, given, begun)
	}
}

// completeSecond offers something for the second argument only.
func (c *cli) completeSecond(offer completion) completion {
	return func(cmd *cobra.Command, given []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(given) != 1 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return offer(cmd, given, begun)
	}
}

// completeKeyThen offers keys for the first argument, and something else after it.
func (c *cli) completeKeyThen(offer completion) completion {
	return func(cmd *cobra.Command, given []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(given) == 0 {
			return c.completeKeys(cmd, given, begun)
		}
		return offer(cmd, given, begun)
	}
}

// completeTags offers the names of the tags of the key that is named first.
func (c *cli) completeTags(_ *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	return c.offer(func(ctx context.Context) (names []string, err error) {
		id := given[0]
		if isAlias(id) {
			var k kmswire.DescribeKeyResponse
			if err := kmsclient.Call(ctx, c.client, "DescribeKey", &kmswire.DescribeKeyRequest{KeyID: id}, &k); err != nil {
				return nil, err
			}
			id = k.KeyMetadata.KeyID
		}
		var answer kmswire.ListResourceTagsResponse
		err = kmsclient.Call(ctx, c.client, "ListResourceTags", &kmswire.ListResourceTagsRequest{KeyID: id}, &answer)
		for _, t := range answer.Tags.Tag {
			if !slices.Contains(given[1:], t.TagKey) {
				names = append(names, t.TagKey)
			}
		}
		return names, err
	})
}
