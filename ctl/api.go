package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
)

// actions has a request of every action that this keywardctl knows, for api list and for completion. The daemon may know
// more: api sends what it is given.
var actions = map[string]any{
	"AsymmetricDecrypt":               &kmswire.AsymmetricDecryptRequest{},
	"AsymmetricEncrypt":               &kmswire.AsymmetricEncryptRequest{},
	"AsymmetricSign":                  &kmswire.AsymmetricSignRequest{},
	"AsymmetricVerify":                &kmswire.AsymmetricVerifyRequest{},
	"BatchDecrypt":                    &kmswire.BatchDecryptRequest{},
	"BatchEncrypt":                    &kmswire.BatchEncryptRequest{},
	"BatchGenerateDataKey":            &kmswire.BatchGenerateDataKeyRequest{},
	"BatchSign":                       &kmswire.BatchSignRequest{},
	"BatchVerify":                     &kmswire.BatchVerifyRequest{},
	"CancelKeyDeletion":               &kmswire.CancelKeyDeletionRequest{},
	"CreateAlias":                     &kmswire.CreateAliasRequest{},
	"CreateKey":                       &kmswire.CreateKeyRequest{},
	"CreateKeyVersion":                &kmswire.CreateKeyVersionRequest{},
	"Decrypt":                         &kmswire.DecryptRequest{},
	"DeleteAlias":                     &kmswire.DeleteAliasRequest{},
	"DeleteKeyMaterial":               &kmswire.DeleteKeyMaterialRequest{},
	"DescribeAccountKmsStatus":        &kmswire.DescribeAccountKmsStatusRequest{},
	"DescribeKey":                     &kmswire.DescribeKeyRequest{},
	"DescribeKeyVersion":              &kmswire.DescribeKeyVersionRequest{},
	"DescribeRegions":                 &kmswire.DescribeRegionsRequest{},
	"DisableKey":                      &kmswire.DisableKeyRequest{},
	"EnableDefaultKey":                &kmswire.EnableDefaultKeyRequest{},
	"EnableKey":                       &kmswire.EnableKeyRequest{},
	"Encrypt":                         &kmswire.EncryptRequest{},
	"ExportDataKey":                   &kmswire.ExportDataKeyRequest{},
	"GenerateAndExportDataKey":        &kmswire.GenerateAndExportDataKeyRequest{},
	"GenerateCsr":                     &kmswire.GenerateCsrRequest{},
	"GenerateDataKey":                 &kmswire.GenerateDataKeyRequest{},
	"GenerateDataKeyWithoutPlaintext": &kmswire.GenerateDataKeyWithoutPlaintextRequest{},
	"GetDefaultKmsInstance":           &kmswire.GetDefaultKmsInstanceRequest{},
	"GetKeyPolicy":                    &kmswire.GetKeyPolicyRequest{},
	"GetKmsInstance":                  &kmswire.GetKmsInstanceRequest{},
	"GetKmsInstanceQuotaInfos":        &kmswire.GetKmsInstanceQuotaInfosRequest{},
	"GetParametersForImport":          &kmswire.GetParametersForImportRequest{},
	"GetPublicKey":                    &kmswire.GetPublicKeyRequest{},
	"GetRandomPassword":               &kmswire.GetRandomPasswordRequest{},
	"ImportKeyMaterial":               &kmswire.ImportKeyMaterialRequest{},
	"ListAliases":                     &kmswire.ListAliasesRequest{},
	"ListAliasesByKeyId":              &kmswire.ListAliasesByKeyIDRequest{},
	"ListKeyAssociations":             &kmswire.ListKeyAssociationsRequest{},
	"ListKeyVersions":                 &kmswire.ListKeyVersionsRequest{},
	"ListKeys":                        &kmswire.ListKeysRequest{},
	"ListKmsInstances":                &kmswire.ListKmsInstancesRequest{},
	"ListResourceTags":                &kmswire.ListResourceTagsRequest{},
	"ListTagResources":                &kmswire.ListTagResourcesRequest{},
	"OpenKmsService":                  &kmswire.OpenKmsServiceRequest{},
	"ReEncrypt":                       &kmswire.ReEncryptRequest{},
	"ScheduleKeyDeletion":             &kmswire.ScheduleKeyDeletionRequest{},
	"SetDeletionProtection":           &kmswire.SetDeletionProtectionRequest{},
	"SetKeyPolicy":                    &kmswire.SetKeyPolicyRequest{},
	"StartKeyAssociationCheck":        &kmswire.StartKeyAssociationCheckRequest{},
	"TagResource":                     &kmswire.TagResourceRequest{},
	"TagResources":                    &kmswire.TagResourcesRequest{},
	"UntagResource":                   &kmswire.UntagResourceRequest{},
	"UntagResources":                  &kmswire.UntagResourcesRequest{},
	"UpdateAlias":                     &kmswire.UpdateAliasRequest{},
	"UpdateKeyDescription":            &kmswire.UpdateKeyDescriptionRequest{},
	"UpdateRotationPolicy":            &kmswire.UpdateRotationPolicyRequest{},
}

func (c *cli) apiCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "api ACTION [--Param value]...",
		Short: "Call any action of the API by its own name",
		Long: `Call an action of the API and print its answer as JSON. Parameters have the API's own names, which begin with a capital;
binary is base64. Batch actions have commands of their own: keywardctl batch.`,
		Example: `  keywardctl api list
  keywardctl api DescribeKey --KeyId alias/app/db
  keywardctl api Encrypt --KeyId alias/app/db --Plaintext "$(printf secret | base64)"`,
		// Parameters are not flags: their names are the API's, and unknown ones are passed on.
		DisableFlagParsing: true,
		Args:               cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, a []string) error {
			params, rest, err := splitParams(a)
			if err != nil {
				return err
			}
			cmd.InheritedFlags() // makes the global flags known to Flags
			if err := cmd.Flags().Parse(rest); errors.Is(err, pflag.ErrHelp) {
				return cmd.Help()
			} else if err != nil {
				return usagef("%v; parameters of the API begin with a capital", err)
			}
			if help, err := cmd.Flags().GetBool("help"); err == nil && help {
				return cmd.Help()
			}
			if err := c.prepare(); err != nil {
				return err
			}
			if err := args("ACTION")(cmd, cmd.Flags().Args()); err != nil {
				return err
			}
			if err := c.checkParams(cmd.Flags().Arg(0), params); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
			defer cancel()
			answer, err := kmsclient.CallParams(ctx, c.client, cmd.Flags().Arg(0), params)
			if err != nil {
				return err
			}
			var indented any
			dec := json.NewDecoder(strings.NewReader(string(answer)))
			dec.UseNumber()
			if err := dec.Decode(&indented); err != nil {
				return err
			}
			return c.json(indented)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return slices.Sorted(maps.Keys(actions)), cobra.ShellCompDirectiveNoFileComp
		},
	}
	list := &cobra.Command{
		Use:     "list",
		Short:   "List the actions and their parameters",
		Long:    "List the actions that this keywardctl knows, with their parameters; ! marks those that must be given. The daemon may know more.",
		Example: "  keywardctl api list",
		Args:    args(),
		RunE: func(*cobra.Command, []string) error {
			type row struct {
				Action     string
				Parameters []kmswire.Parameter
			}
			out := newList(c, []string{"ACTION", "PARAMETERS"}, func(r row) []string {
				var names []string
				for _, p := range r.Parameters {
					name := p.Name
					if p.Required {
						name += "!"
					}
					names = append(names, name)
				}
				return []string{r.Action, strings.Join(names, " ")}
			})
			for _, name := range slices.Sorted(maps.Keys(actions)) {
				parameters, err := kmswire.Parameters(actions[name])
				if err != nil {
					return err
				}
				if err := out.row(row{name, parameters}); err != nil {
					return err
				}
			}
			return out.end("")
		},
	}
	cmd.AddCommand(list)
	return cmd
}

// checkParams tells of parameters that keywardctl does not know, because the service passes over them: a typo would
// silently mean the default. Batches have no parameters for their items.
func (c *cli) checkParams(action string, params url.Values) error {
	req, ok := actions[action]
	if !ok {
		return nil
	}
	if verb, ok := strings.CutPrefix(action, "Batch"); ok {
		return usagef("%s takes its items from a stream: %s", action, map[string]string{
			"Encrypt": "use keywardctl batch encrypt", "Decrypt": "use keywardctl batch decrypt", "Sign": "use keywardctl batch sign", "Verify": "use keywardctl batch verify",
			"GenerateDataKey": "keywardctl has no command for it yet"}[verb])
	}
	known, err := kmswire.Parameters(req)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		list, _, _ := strings.Cut(name, ".") // Tag.1.Key is a part of Tag
		if !slices.ContainsFunc(known, func(p kmswire.Parameter) bool { return p.Name == name || p.Name == list && p.Type == "list" }) {
			c.say("note: %s has no parameter %s that this keywardctl knows of, and keywardd passes over what it does not know; keywardctl api list shows the parameters", action, name)
		}
	}
	return nil
}

// splitParams takes the API's parameters, whose names begin with a capital, out of a command line.
func splitParams(given []string) (params url.Values, rest []string, err error) {
	params = url.Values{}
	for i := 0; i < len(given); i++ {
		name, ok := strings.CutPrefix(given[i], "--")
		if !ok || name == "" || name[0] < 'A' || name[0] > 'Z' {
			rest = append(rest, given[i])
			continue
		}
		name, value, inline := strings.Cut(name, "=")
		if !inline {
			if i++; i == len(given) {
				return nil, nil, usagef("--%s has no value", name)
			}
			value = given[i]
		}
		if params.Has(name) {
			return nil, nil, usagef("--%s is given twice", name)
		}
		if name == "Action" || name == "Version" {
			return nil, nil, usagef("--%s is set by keywardctl; the action is the first argument", name)
		}
		params.Set(name, value)
	}
	return params, rest, nil
}
