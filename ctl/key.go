package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

// errEnough ends a walk over a list early.
var errEnough = errors.New("enough")

func (c *cli) keyCmd() *cobra.Command {
	return group("key", "Make, show and change keys",
		"Make, show and change keys. A KEY is a key id (key-...), an alias (alias/...) or an ARN.",
		`  keywardctl key create --alias app/db
  keywardctl key list
  keywardctl key public-key alias/release > release.pem`,
		c.keyCreateCmd(), c.keyEnableDefaultCmd(), c.keyListCmd(), c.keyDescribeCmd(),
		c.keyStateCmd("enable", "EnableKey", "Make a disabled key usable again"),
		c.keyStateCmd("disable", "DisableKey", "Stop a key from being used, until it is enabled again"),
		c.keyImportCmd(), c.keyImportParametersCmd(), c.keyDeleteMaterialCmd(),
		c.keyRotateCmd(), c.keyRotationCmd(), c.keyProtectCmd(), c.keyUnprotectCmd(), c.keyDeleteCmd(), c.keyCancelDeletionCmd(),
		c.keyVersionsCmd(), c.keyUsageCmd(), c.keyPublicKeyCmd(), c.keyCsrCmd(), c.keyUpdateCmd())
}

func (c *cli) keyCreateCmd() *cobra.Command {
	var alias, spec, usage, instance, storage, description, secondary, clientToken, origin, material, external string
	var tags []string
	var flags importFlags
	var every string
	var never bool
	var keyPolicy policyFlags
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a key",
		Long: `Make a key and print its id.

A software key is kept sealed in keyward's store. A hardware key is made inside an HSM: with --storage
HsmEncryptedDatabase (the default) any HSM of the group can use it, with HsmInternal it never leaves the one that made it.
Without --usage a spec that can sign makes a signing key.
A symmetric key of a software instance is rotated every 365 days if nothing else is said; keywardctl key rotation changes that.

With --origin external the key waits for material of your own; --import FILE brings it at once, as keywardctl key import does: its
help says what that means.

Every principal of your account may do everything with a key, unless roles (--administrators and so on, with --exclusive) or --policy
say who may do what: see keywardctl policy set.`,
		Example: `  keywardctl key create --alias app/db
  keywardctl key create --alias release --spec EC_P256 --instance kst-hardware --tag team=build
  keywardctl key create --alias mail --spec RSA_2048 --usage ENCRYPT/DECRYPT
  keywardctl key create --alias app/db --administrators role/ops --users user/app --exclusive
  keywardctl key create --alias old --spec EC_P256 --import old.pem`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := &kmswire.CreateKeyRequest{
				DKMSInstanceID:      instance,
				KeySpec:             specNamed(spec),
				KeyUsage:            usageNamed(usage),
				SecondaryKeyUsage:   usageNamed(secondary),
				ExternalKeyID:       external,
				KeyStorageMechanism: string(anyCase(storage, []string{kmswire.HsmInternal, kmswire.HsmEncryptedDatabase})),
				Description:         description,
				AliasName:           aliasNamed(alias),
				ClientToken:         clientToken,
				Origin:              string(anyCase(origin, []string{kmswire.OriginKMS, kmswire.OriginExternal})),
			}
			if material == stdio && keyPolicy.file == stdio {
				return usagef("--import and --policy can't both read stdin")
			}
			var secret []byte
			var expires int
			if material != "" {
				// What is wrong with the file shows before there is a key.
				if origin != "" && req.Origin != kmswire.OriginExternal {
					return usagef("--import goes with --origin external")
				}
				req.Origin = kmswire.OriginExternal
				var err error
				if expires, err = flags.expiry(time.Now()); err != nil {
					return err
				}
				if secret, err = c.readMaterial(cmd.Context(), material, req.KeySpec, flags.format); err != nil {
					return err
				}
				defer clear(secret)
			} else if f := cmd.Flags(); f.Changed("format") || f.Changed("wrap") || f.Changed("expires") {
				return usagef("--format, --wrap and --expires go with --import")
			}
			list, err := tagsNamed("tag", tags)
			if err != nil {
				return err
			}
			if len(list) > 0 {
				if req.Tags, err = json.Marshal(list); err != nil {
					return err
				}
			}
			if req.Policy, err = keyPolicy.document(cmd.Context(), c, "policy"); err != nil {
				return err
			}
			if err := rotationAsked(req, every, never); err != nil {
				return err
			}
			if instance == "" {
				if req.DKMSInstanceID, err = c.defaultInstance(cmd.Context()); err != nil {
					return err
				}
			}
			if err := c.rotationOfNew(cmd.Context(), req, never); err != nil {
				return err
			}
			if keyPolicy.hasRoles() {
				owner, err := c.ownerOfNew(cmd.Context(), req.DKMSInstanceID)
				if err != nil {
					return err
				}
				if req.Policy, err = keyPolicy.build(cmd.Context(), c, owner); err != nil {
					return err
				}
			}
			var answer kmswire.CreateKeyResponse
			if err := c.call(cmd.Context(), "CreateKey", req, &answer); err != nil {
				return err
			}
			if material != "" {
				name := answer.KeyMetadata.KeyID
				if req.AliasName != "" {
					name = req.AliasName
				}
				k, err := c.importNew(cmd.Context(), name, &answer.KeyMetadata, secret, material, &flags, expires)
				if err != nil {
					return err
				}
				answer.KeyMetadata = *k
			}
			if err := c.print(answer, func() error { return c.line(answer.KeyMetadata.KeyID) }); err != nil {
				return err
			}
			c.sayCreated(&answer.KeyMetadata, req.AliasName)
			keyPolicy.warn(c)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&alias, "alias", "", "name the key too, such as app/db; both or neither are made")
	f.StringVar(&spec, "spec", string(kmswire.AES256), "kind of key")
	f.StringVar(&usage, "usage", "", "ENCRYPT/DECRYPT or SIGN/VERIFY")
	f.StringVar(&secondary, "secondary-usage", "", "the other usage too (hardware asymmetric keys)")
	f.StringVar(&instance, "instance", "", "where to make it, see keywardctl instance list (default: your account's default instance, or "+usualInstance+")")
	f.StringVar(&storage, "storage", "", "for hardware keys: HsmEncryptedDatabase or HsmInternal")
	f.StringVar(&description, "description", "", "what it is for")
	f.StringArrayVar(&tags, "tag", nil, "NAME=VALUE; may be given again")
	f.StringVar(&external, "external-key-id", "", "for keys of external instances: the ID that the other key manager gave the key")
	f.StringVar(&origin, "origin", "", "where its material comes from: Aliyun_KMS (keyward makes it) or EXTERNAL (you import it)")
	f.StringVar(&material, "import", "", "file with the material to import at once; - for stdin")
	flags.add(cmd)
	choices(cmd, "origin", kmswire.OriginKMS, kmswire.OriginExternal)
	f.StringVar(&every, "rotate-every", "", "make a new version so often, such as 90d, 12w or 1y")
	f.BoolVar(&never, "no-rotation", false, "never make a new version by itself")
	f.StringVar(&clientToken, "client-token", "", "a word of your own: the same call with the same word makes no second key for 24 hours")
	keyPolicy.add(c, cmd, "policy")
	must(cmd.RegisterFlagCompletionFunc("instance", c.completeInstances))
	choices(cmd, "spec", specs...)
	choices(cmd, "usage", kmswire.EncryptDecrypt, kmswire.SignVerify)
	choices(cmd, "secondary-usage", kmswire.EncryptDecrypt, kmswire.SignVerify)
	choices(cmd, "storage", kmswire.HsmEncryptedDatabase, kmswire.HsmInternal)
	return cmd
}

// sayCreated tells what was made and what can be done with it now.
func (c *cli) sayCreated(k *kmswire.KeyMetadata, alias string) {
	name := k.KeyID
	if alias != "" {
		name = alias
	}
	where := k.DKMSInstanceID
	if where == "" {
		where = k.ProtectionLevel
	}
	usage := string(k.KeyUsage)
	if k.SecondaryKeyUsage != "" {
		usage += " and " + string(k.SecondaryKeyUsage)
	}
	c.say("made %s (%s, %s) in %s", name, k.KeySpec, usage, where)
	if k.RotationInterval != "" {
		c.say("it is rotated every %s", everyText(k.RotationInterval))
	}
	if k.KeyState == kmswire.PendingImport {
		c.say("next: keywardctl key import %s --material FILE", name)
		return
	}
	if k.Origin == kmswire.OriginExternal {
		c.say("it has the material that was imported; keep your own copy, keyward never gives it out")
	}
	c.sayNext(name, k.KeySpec, k.KeyUsage)
}

// sayNext tells what can be done with a key now.
func (c *cli) sayNext(name string, spec kmswire.KeySpec, usage kmswire.KeyUsage) {
	_, asymmetric := signAlgorithms[spec]
	switch {
	case usage == kmswire.SignVerify:
		c.say("next: keywardctl sign --key %s FILE", name)
		c.say("      keywardctl key public-key %s > public.pem", name)
	case asymmetric:
		c.say("next: keywardctl key public-key %s > public.pem", name)
		c.say("      openssl pkeyutl -encrypt -pubin -inkey public.pem -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -in SECRET -out SECRET.rsa")
		c.say("      keywardctl decrypt --direct --binary --key %s SECRET.rsa", name)
	default:
		c.say("next: keywardctl encrypt --key %s FILE", name)
	}
}

// keyRow is one row of key list: what the key is, and what people call it.
type keyRow struct {
	kmswire.KeyMetadata
	Aliases []string
}

func (c *cli) keyListCmd() *cobra.Command {
	var ids bool
	var limit int
	var filter filterFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the keys that you may see",
		Long: `List the keys that you may see, with what they are. Each key costs two calls; --ids only lists their ids, which is fast
for any number of keys. With filters only keys that fit all of them are listed; of several values of one filter one is enough.`,
		Example: `  keywardctl key list
  keywardctl key list --tag env=prod --state Enabled
  keywardctl key list --filter ProtectionLevel=HSM --spec EC_P256,RSA_2048
  keywardctl key list --ids | wc -l`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			filters, err := filter.json()
			if err != nil {
				return err
			}
			if limit < 0 {
				return usagef("--limit is a number of keys, or 0 for all, not %d", limit)
			}
			count := 0
			walk := func(visit func(string) error) error {
				err := pages(func(page kmswire.Page) ([]kmswire.KeySummary, int, error) {
					var answer kmswire.ListKeysResponse
					err := c.call(ctx, "ListKeys", &kmswire.ListKeysRequest{Page: page, Filters: filters}, &answer)
					return answer.Keys.Key, answer.TotalCount, err
				}, func(k kmswire.KeySummary) error {
					if limit > 0 && count == limit {
						return errEnough
					}
					count++
					return visit(k.KeyID)
				})
				if errors.Is(err, errEnough) {
					return nil
				}
				return err
			}
			if ids {
				if c.format == "json" {
					out := newList(c, nil, func(id string) []string { return nil })
					if err := walk(out.row); err != nil {
						return err
					}
					return out.end("")
				}
				return walk(c.line)
			}
			out := newList(c, []string{"KEY", "ALIASES", "SPEC", "USAGE", "STATE", "INSTANCE", "CREATED"}, func(k keyRow) []string {
				return []string{k.KeyID, strings.Join(k.Aliases, " "), string(k.KeySpec), string(k.KeyUsage), string(k.KeyState), k.DKMSInstanceID, k.CreationDate}
			})
			err = walk(func(id string) error {
				k, err := c.describe(ctx, id)
				if e, ok := errors.AsType[*kmsclient.Error](err); ok && e.Code == "Forbidden.KeyNotFound" {
					return nil // deleted since the page was made
				}
				if err != nil {
					return err
				}
				aliases, err := c.aliasesOf(ctx, id)
				if err != nil {
					return err
				}
				return out.row(keyRow{*k, aliases})
			})
			if err != nil {
				return err
			}
			if filters != nil {
				return out.end("no keys fit")
			}
			return out.end("no keys; keywardctl key create makes one")
		},
	}
	f := cmd.Flags()
	f.BoolVar(&ids, "ids", false, "print ids only")
	f.IntVar(&limit, "limit", 0, "stop after so many keys; 0 means all")
	filter.add(c, cmd)
	return cmd
}

func (c *cli) aliasesOf(ctx context.Context, id string) ([]string, error) {
	names := []string{}
	err := pages(func(page kmswire.Page) ([]kmswire.Alias, int, error) {
		var answer kmswire.ListAliasesResponse
		err := c.call(ctx, "ListAliasesByKeyId", &kmswire.ListAliasesByKeyIDRequest{KeyID: id, Page: page}, &answer)
		return answer.Aliases.Alias, answer.TotalCount, err
	}, func(a kmswire.Alias) error {
		names = append(names, a.AliasName)
		return nil
	})
	return names, err
}

func (c *cli) keyDescribeCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "describe KEY",
		Short:             "Show one key: what it is, its state, aliases and tags",
		Example:           "  keywardctl key describe alias/app/db",
		Args:              args("KEY"),
		ValidArgsFunction: c.completeKeys,
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			k, err := c.describe(ctx, a[0])
			if err != nil {
				return err
			}
			aliases, err := c.aliasesOf(ctx, k.KeyID)
			if err != nil {
				return err
			}
			var tags kmswire.ListResourceTagsResponse
			if err := c.call(ctx, "ListResourceTags", &kmswire.ListResourceTagsRequest{KeyID: k.KeyID}, &tags); err != nil {
				return err
			}
			whole := struct {
				KeyMetadata *kmswire.KeyMetadata
				Aliases     []string
				Tags        []kmswire.Tag
			}{k, aliases, []kmswire.Tag{}}
			var labels []string
			for _, t := range tags.Tags.Tag {
				whole.Tags = append(whole.Tags, kmswire.Tag{TagKey: t.TagKey, TagValue: t.TagValue})
				labels = append(labels, t.TagKey+"="+t.TagValue)
			}
			return c.print(whole, func() error {
				protection := k.DeletionProtection
				if k.DeletionProtectionDescription != "" {
					protection += " (" + k.DeletionProtectionDescription + ")"
				}
				return c.fields(
					[2]string{"Key", k.KeyID},
					[2]string{"Aliases", strings.Join(aliases, " ")},
					[2]string{"Description", k.Description},
					[2]string{"State", string(k.KeyState)},
					[2]string{"Spec", string(k.KeySpec)},
					[2]string{"Usage", string(k.KeyUsage)},
					[2]string{"Secondary usage", string(k.SecondaryKeyUsage)},
					[2]string{"Instance", k.DKMSInstanceID},
					[2]string{"Protection", k.ProtectionLevel},
					[2]string{"Storage", k.KeyStorageMechanism},
					[2]string{"Origin", k.Origin},
					[2]string{"External key", k.ExternalKeyID},
					[2]string{"Primary version", k.PrimaryKeyVersion},
					[2]string{"Created", k.CreationDate},
					[2]string{"Creator", k.Creator},
					[2]string{"Rotation", rotationText(k)},
					[2]string{"Last rotation", k.LastRotationDate},
					[2]string{"Next rotation", k.NextRotationDate},
					[2]string{"Material expires", k.MaterialExpireTime},
					[2]string{"Deletion date", k.DeleteDate},
					[2]string{"Deletion protection", protection},
					[2]string{"Tags", strings.Join(labels, " ")},
					[2]string{"ARN", k.Arn},
				)
			})
		},
	}
}

func (c *cli) keyStateCmd(verb, action, short string) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " KEY",
		Short:             short,
		Example:           "  keywardctl key " + verb + " alias/app/db",
		Args:              args("KEY"),
		ValidArgsFunction: c.completeKeys,
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			id, err := c.keyID(ctx, a[0])
			if err != nil {
				return err
			}
			var req any = &kmswire.EnableKeyRequest{KeyID: id}
			if action == "DisableKey" {
				req = &kmswire.DisableKeyRequest{KeyID: id}
				if !c.yes && c.canAsk() {
					if _, err := c.showUse(ctx, id); err != nil {
						return err
					}
				}
				if err := c.confirm(ctx, fmt.Sprintf("Whatever uses %s stops working until it is enabled again. Disable it?", a[0])); err != nil {
					return err
				}
			}
			var answer kmswire.EmptyResponse
			if err := c.call(ctx, action, req, &answer); err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			c.say("%s is %sd", a[0], verb)
			return c.print(answer, func() error { return nil })
		},
	}
}

func (c *cli) keyRotateCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate KEY",
		Short: "Make a new version of a key",
		Long: `Make a new version of a key and print its id. A symmetric key encrypts with the new version from now on, and still
decrypts what older versions made. With an asymmetric key each call names its version; keywardctl sign takes the newest.`,
		Example:           "  keywardctl key rotate alias/app/db",
		Args:              args("KEY"),
		ValidArgsFunction: c.completeKeys,
		RunE: func(cmd *cobra.Command, a []string) error {
			var answer kmswire.CreateKeyVersionResponse
			if err := c.call(cmd.Context(), "CreateKeyVersion", &kmswire.CreateKeyVersionRequest{KeyID: a[0]}, &answer); err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			c.say("%s has a new version", a[0])
			return c.print(answer, func() error { return c.line(answer.KeyVersion.KeyVersionID) })
		},
	}
}

func (c *cli) keyVersionsCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "versions KEY",
		Short:             "List the versions of a key, oldest first",
		Example:           "  keywardctl key versions alias/release",
		Args:              args("KEY"),
		ValidArgsFunction: c.completeKeys,
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			k, err := c.describe(ctx, a[0])
			if err != nil {
				return err
			}
			out := newList(c, []string{"VERSION", "CREATED", "PRIMARY"}, func(v kmswire.KeyVersion) []string {
				primary := ""
				if v.KeyVersionID == k.PrimaryKeyVersion {
					primary = "yes"
				}
				return []string{v.KeyVersionID, v.CreationDate, primary}
			})
			err = pages(func(page kmswire.Page) ([]kmswire.KeyVersion, int, error) {
				var answer kmswire.ListKeyVersionsResponse
				err := c.call(ctx, "ListKeyVersions", &kmswire.ListKeyVersionsRequest{KeyID: k.KeyID, Page: page}, &answer)
				return answer.KeyVersions.KeyVersion, answer.TotalCount, err
			}, out.row)
			if err != nil {
				return err
			}
			return out.end("no versions")
		},
	}
}

func (c *cli) keyUpdateCmd() *cobra.Command {
	var description string
	cmd := &cobra.Command{
		Use:               "update KEY --description TEXT",
		Short:             "Change a key's description",
		Example:           `  keywardctl key update alias/app/db --description "customer database"`,
		Args:              args("KEY"),
		ValidArgsFunction: c.completeKeys,
		RunE: func(cmd *cobra.Command, a []string) error {
			if !cmd.Flags().Changed("description") {
				return usagef(`--description is missing; --description "" clears it`)
			}
			ctx := cmd.Context()
			id, err := c.keyID(ctx, a[0])
			if err != nil {
				return err
			}
			var answer kmswire.EmptyResponse
			err = c.call(ctx, "UpdateKeyDescription", &kmswire.UpdateKeyDescriptionRequest{KeyID: id, Description: description}, &answer)
			if err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			c.say("the description of %s is changed", a[0])
			return c.print(answer, func() error { return nil })
		},
	}
	cmd.Flags().StringVar(&description, "description", "", "what the key is for; empty clears it")
	return cmd
}
