package ctl

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

// specs are the key specs that keywardctl knows of. Another name is passed on as it is, for a newer daemon.
var specs = []kmswire.KeySpec{
	kmswire.AES256, kmswire.AES192, kmswire.AES128,
	kmswire.RSA2048, kmswire.RSA3072, kmswire.RSA4096,
	kmswire.ECP256, kmswire.ECP256K,
}

// signAlgorithms are the algorithms of each spec that signs. The first is the default of keywardctl: for RSA it is the
// one that plain "openssl dgst -verify" takes.
var signAlgorithms = map[kmswire.KeySpec][]kmswire.Algorithm{
	kmswire.RSA2048: {kmswire.RSAPKCS1SHA256, kmswire.RSAPSSSHA256},
	kmswire.RSA3072: {kmswire.RSAPKCS1SHA256, kmswire.RSAPSSSHA256},
	kmswire.RSA4096: {kmswire.RSAPKCS1SHA256, kmswire.RSAPSSSHA256},
	kmswire.ECP256:  {kmswire.ECDSASHA256},
	kmswire.ECP256K: {kmswire.ECDSASHA256},
}

// anyCase finds the value that text names, whatever its case, or gives text itself.
func anyCase[T ~string](text string, known []T) T {
	for _, k := range known {
		if strings.EqualFold(text, string(k)) {
			return k
		}
	}
	return T(text)
}

// specNamed takes a spec in any case, and "AES_256" for "Aliyun_AES_256".
func specNamed(text string) kmswire.KeySpec {
	if strings.HasPrefix(strings.ToUpper(text), "AES_") {
		text = "Aliyun_" + text
	}
	return anyCase(text, specs)
}

// usageNamed takes a usage in any case, and one half of its name.
func usageNamed(text string) kmswire.KeyUsage {
	switch strings.ToLower(text) {
	case "encrypt", "decrypt":
		return kmswire.EncryptDecrypt
	case "sign", "verify":
		return kmswire.SignVerify
	}
	return anyCase(text, []kmswire.KeyUsage{kmswire.EncryptDecrypt, kmswire.SignVerify})
}

// aliasNamed takes an alias with or without its prefix.
func aliasNamed(text string) string {
	if text == "" || strings.HasPrefix(text, "alias/") {
		return text
	}
	return "alias/" + text
}

func isAlias(key string) bool {
	return strings.HasPrefix(key, "alias/") || strings.Contains(key, ":alias/")
}

// describe gives a key's metadata.
func (c *cli) describe(ctx context.Context, key string) (*kmswire.KeyMetadata, error) {
	var answer kmswire.DescribeKeyResponse
	if err := c.call(ctx, "DescribeKey", &kmswire.DescribeKeyRequest{KeyID: key}, &answer); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return &answer.KeyMetadata, nil
}

// keyID gives the id of a key for the actions that take no alias.
func (c *cli) keyID(ctx context.Context, key string) (string, error) {
	if !isAlias(key) {
		return key, nil
	}
	k, err := c.describe(ctx, key)
	if err != nil {
		return "", err
	}
	return k.KeyID, nil
}

// newestVersion gives a key's newest version within --timeout.
func (c *cli) newestVersion(ctx context.Context, key string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return kmsclient.NewestVersion(ctx, c.client, key)
}

// contextFlag holds --context pairs.
type contextFlag struct{ pairs []string }

func (f *contextFlag) add(cmd *cobra.Command, name, usage string) {
	cmd.Flags().StringArrayVar(&f.pairs, name, nil, usage)
}

func (f *contextFlag) parse(flag string) (map[string]string, error) {
	return pairs(flag, f.pairs)
}

// pairs reads NAME=VALUE texts.
func pairs(flag string, texts []string) (map[string]string, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	m := map[string]string{}
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, usagef("--%s takes NAME=VALUE, not %q", flag, text)
		}
		if _, twice := m[name]; twice {
			return nil, usagef("--%s %s is given twice", flag, name)
		}
		m[name] = value
	}
	return m, nil
}

// offer offers what ask gives. It asks the daemon, and gives up soon and without a word.
func (c *cli) offer(ask func(context.Context) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if c.prepare() != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, err := ask(ctx)
	if err != nil {
		names = nil
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completionPage is as much as is offered.
var completionPage = kmswire.Page{PageNumber: 1, PageSize: kmswire.MaxPageSize}

// completeKeys offers aliases where a key is wanted.
func (c *cli) completeKeys(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return c.offer(func(ctx context.Context) (names []string, err error) {
		var answer kmswire.ListAliasesResponse
		err = kmsclient.Call(ctx, c.client, "ListAliases", &kmswire.ListAliasesRequest{Page: completionPage}, &answer)
		for _, a := range answer.Aliases.Alias {
			names = append(names, a.AliasName)
		}
		return names, err
	})
}

// completeInstances offers the ids of instances.
func (c *cli) completeInstances(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return c.offer(func(ctx context.Context) (names []string, err error) {
		var answer kmswire.ListKmsInstancesResponse
		err = kmsclient.Call(ctx, c.client, "ListKmsInstances", &kmswire.ListKmsInstancesRequest{Page: completionPage}, &answer)
		for _, i := range answer.KmsInstances.KmsInstance {
			names = append(names, i.KmsInstanceID)
		}
		return names, err
	})
}

// keyFlag adds --key.
func (c *cli) keyFlag(cmd *cobra.Command, key *string, usage string) {
	cmd.Flags().StringVarP(key, "key", "k", "", usage)
	must(cmd.RegisterFlagCompletionFunc("key", c.completeKeys))
}

// choices completes a flag from a fixed list.
func choices[T ~string](cmd *cobra.Command, flag string, values ...T) {
	var texts []string
	for _, v := range values {
		texts = append(texts, string(v))
	}
	slices.Sort(texts)
	must(cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(texts, cobra.ShellCompDirectiveNoFileComp)))
}

// must is for mistakes in the tree of commands, which any run of any command would show.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// pages walks a list to its end.
func pages[T any](fetch func(page kmswire.Page) (items []T, total int, err error), visit func(T) error) error {
	seen := 0
	for number := 1; ; number++ {
		items, total, err := fetch(kmswire.Page{PageNumber: number, PageSize: kmswire.MaxPageSize})
		if err != nil {
			return err
		}
		for _, item := range items {
			if err := visit(item); err != nil {
				return err
			}
		}
		if seen += len(items); len(items) == 0 || seen >= total {
			return nil
		}
	}
}
