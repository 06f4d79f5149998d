package ctl

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/kms/kmswire"
)

func (c *cli) tagCmd() *cobra.Command {
	return group("tag", "Label keys",
		"A tag is a label of a key, a name and a value: to find keys by, and for policies to look at.",
		`  keywardctl tag add alias/app/db team=red env=prod
  keywardctl tag list alias/app/db
  keywardctl key list --tag env=prod`,
		c.tagAddCmd(), c.tagRemoveCmd(), c.tagListCmd())
}

// keyAndMore wants a key and at least one more argument.
func keyAndMore(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if len(given) < 2 {
			return args("KEY", name)(cmd, given)
		}
		return args("KEY")(cmd, given[:1])
	}
}

// tagsNamed reads NAME=VALUE texts, in the order given.
func tagsNamed(what string, texts []string) ([]kmswire.Tag, error) {
	if _, err := pairs(what, texts); err != nil {
		return nil, err
	}
	tags := []kmswire.Tag{}
	for _, text := range texts {
		name, value, _ := strings.Cut(text, "=")
		tags = append(tags, kmswire.Tag{TagKey: name, TagValue: value})
	}
	return tags, nil
}

func (c *cli) tagAddCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "add KEY NAME=VALUE...",
		Short: "Add tags to a key; a name that it has gets the new value",
		Long: `Add tags to a key. A tag whose name the key has gets the new value. A key has at most 20 tags; a name and a value have at
most 128 characters each: letters, digits, space, and / \ _ - . + = : @. A name ends at the first equals sign.`,
		Example:           "  keywardctl tag add alias/app/db team=red env=prod",
		Args:              keyAndMore("NAME=VALUE"),
		ValidArgsFunction: c.completeFirst(c.completeKeys),
		RunE: func(cmd *cobra.Command, a []string) error {
			for _, text := range a[1:] {
				if name, _, ok := strings.Cut(text, "="); !ok || name == "" {
					return usagef("a tag is NAME=VALUE, not %q", text)
				}
			}
			tags, err := tagsNamed("tag", a[1:])
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			id, err := c.keyID(ctx, a[0])
			if err != nil {
				return err
			}
			text, err := json.Marshal(tags)
			if err != nil {
				return err
			}
			var answer kmswire.EmptyResponse
			if err := c.call(ctx, "TagResource", &kmswire.TagResourceRequest{KeyID: id, Tags: text}, &answer); err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			c.say("%s is tagged", a[0])
			return c.print(answer, func() error { return nil })
		},
	}
}

func (c *cli) tagRemoveCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "remove KEY NAME...",
		Short:             "Take tags off a key; a name that it does not have is passed over",
		Example:           "  keywardctl tag remove alias/app/db env",
		Args:              keyAndMore("NAME"),
		ValidArgsFunction: c.completeKeyThen(c.completeTags),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			id, err := c.keyID(ctx, a[0])
			if err != nil {
				return err
			}
			names, err := json.Marshal(a[1:])
			if err != nil {
				return err
			}
			var answer kmswire.EmptyResponse
			if err := c.call(ctx, "UntagResource", &kmswire.UntagResourceRequest{KeyID: id, TagKeys: string(names)}, &answer); err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			c.say("%s has no tag %s any more", a[0], strings.Join(a[1:], ", "))
			return c.print(answer, func() error { return nil })
		},
	}
}

func (c *cli) tagListCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "list KEY",
		Short:             "List the tags of a key",
		Example:           "  keywardctl tag list alias/app/db",
		Args:              args("KEY"),
		ValidArgsFunction: c.completeFirst(c.completeKeys),
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			id, err := c.keyID(ctx, a[0])
			if err != nil {
				return err
			}
			var answer kmswire.ListResourceTagsResponse
			if err := c.call(ctx, "ListResourceTags", &kmswire.ListResourceTagsRequest{KeyID: id}, &answer); err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			out := newList(c, []string{"NAME", "VALUE"}, func(t kmswire.ResourceTag) []string { return []string{t.TagKey, t.TagValue} })
			for _, t := range answer.Tags.Tag {
				if err := out.row(t); err != nil {
					return err
				}
			}
			return out.end("no tags; keywardctl tag add KEY NAME=VALUE adds one")
		},
	}
}
