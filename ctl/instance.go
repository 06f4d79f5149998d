package ctl

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/kms/kmsclient"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/policy"
)

func (c *cli) instanceCmd() *cobra.Command {
	return group("instance", "Show where keys can be made",
		"An instance is where keys are made: software (sealed in keyward's store), hardware (in HSMs) or external. It belongs to\nan account, which may share it with others; the daemon's configuration says so, and sets its quotas.",
		`  keywardctl instance list
  keywardctl instance quota kst-software`,
		c.instanceListCmd(), c.instanceDescribeCmd(), c.instanceQuotaCmd())
}

// instanceRow is one row of instance list. Only the owner of an instance gets its details.
type instanceRow struct {
	kmswire.KmsInstanceSummary
	Owner   string
	Details *kmswire.KmsInstance           `json:",omitempty"`
	Quotas  []kmswire.KmsInstanceQuotaInfo `json:",omitempty"`
}

// ownerOf reads the account in an instance's ARN.
func ownerOf(arn string) string {
	if parts := strings.Split(arn, ":"); len(parts) == 5 {
		return parts[3]
	}
	return ""
}

func (c *cli) instanceListCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the instances: where keys can be made",
		Long: `List the instances that keys can be made in: those of your account, and those that another account shares with it. KEYS and
ACCESS are what is used of the quotas of key versions and of other accounts; only the owner sees them.`,
		Example: "  keywardctl instance list",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := newList(c, []string{"INSTANCE", "TYPE", "OWNER", "DEFAULT", "KEYS", "ACCESS", "SHARED WITH"}, func(i instanceRow) []string {
				cells := []string{i.KmsInstanceID, i.KmsInstanceType, i.Owner, "", "", "", ""}
				if i.Details == nil {
					return cells
				}
				if i.Details.Default {
					cells[3] = "yes"
				}
				cells[4], cells[5] = usedOf(i.Quotas, "key"), usedOf(i.Quotas, "vpc")
				cells[6] = strings.Join(i.Details.SharedWith.Account, " ")
				return cells
			})
			err := pages(func(page kmswire.Page) ([]kmswire.KmsInstanceSummary, int, error) {
				var answer kmswire.ListKmsInstancesResponse
				err := c.call(cmd.Context(), "ListKmsInstances", &kmswire.ListKmsInstancesRequest{Page: page}, &answer)
				return answer.KmsInstances.KmsInstance, answer.TotalCount, err
			}, func(i kmswire.KmsInstanceSummary) error {
				row := instanceRow{KmsInstanceSummary: i, Owner: ownerOf(i.KmsInstanceArn)}
				details, quotas, err := c.instance(cmd.Context(), i.KmsInstanceID)
				if e, ok := errors.AsType[*kmsclient.Error](err); ok && e.Code == "Forbidden.NoPermission" {
					return out.row(row)
				}
				if err != nil {
					return err
				}
				row.Details, row.Quotas = details, quotas
				return out.row(row)
			})
			if err != nil {
				return err
			}
			return out.end("no instances; the daemon's configuration names them")
		},
	}
}

// instance gives what the owner of an instance sees.
func (c *cli) instance(ctx context.Context, id string) (*kmswire.KmsInstance, []kmswire.KmsInstanceQuotaInfo, error) {
	var details kmswire.GetKmsInstanceResponse
	if err := c.call(ctx, "GetKmsInstance", &kmswire.GetKmsInstanceRequest{KmsInstanceID: id}, &details); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", id, err)
	}
	quotas, err := c.quotas(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	return &details.KmsInstance, quotas.KmsInstanceQuotaInfos, nil
}

func (c *cli) quotas(ctx context.Context, id string) (*kmswire.GetKmsInstanceQuotaInfosResponse, error) {
	var answer kmswire.GetKmsInstanceQuotaInfosResponse
	if err := c.call(ctx, "GetKmsInstanceQuotaInfos", &kmswire.GetKmsInstanceQuotaInfosRequest{KmsInstanceID: id}, &answer); err != nil {
		return nil, fmt.Errorf("%s: %w", id, err)
	}
	return &answer, nil
}

// usedOf says how much of a quota is used.
func usedOf(quotas []kmswire.KmsInstanceQuotaInfo, resource string) string {
	for _, q := range quotas {
		if q.ResourceType == resource {
			return fmt.Sprintf("%d of %s", q.UsedQuantity, quotaText(q))
		}
	}
	return ""
}

// quotaText says how large a quota is. Without secrets there is nothing to limit, and 0 operations a second are no limit.
func quotaText(q kmswire.KmsInstanceQuotaInfo) string {
	if q.ResourceType == "qps" && q.ResourceQuota == 0 {
		return "no limit"
	}
	return strconv.Itoa(q.ResourceQuota)
}

// resourceNames says for people what the API's resource types are in keyward.
var resourceNames = map[string]string{
	"key":    "key versions",
	"secret": "secrets",
	"qps":    "operations a second",
	"vpc":    "other accounts",
}

func (c *cli) instanceDescribeCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "describe INSTANCE",
		Short:             "Show one instance of your account",
		Example:           "  keywardctl instance describe kst-hardware",
		Args:              args("INSTANCE"),
		ValidArgsFunction: c.completeInstances,
		RunE: func(cmd *cobra.Command, a []string) error {
			details, quotas, err := c.instance(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			whole := struct {
				KmsInstance           *kmswire.KmsInstance
				KmsInstanceQuotaInfos []kmswire.KmsInstanceQuotaInfo
			}{details, quotas}
			return c.print(whole, func() error {
				isDefault := ""
				if details.Default {
					isDefault = "yes: keys are made in it when no instance is named"
				}
				return c.fields(
					[2]string{"Instance", details.InstanceID},
					[2]string{"Name", details.InstanceName},
					[2]string{"Type", details.KmsInstanceType},
					[2]string{"Status", details.Status},
					[2]string{"Default", isDefault},
					[2]string{"Shared with", strings.Join(details.SharedWith.Account, " ")},
					[2]string{"Key versions", usedOf(quotas, "key")},
					[2]string{"Other accounts", usedOf(quotas, "vpc")},
					[2]string{"Operations/s", usedOf(quotas, "qps")},
				)
			})
		},
	}
}

func (c *cli) instanceQuotaCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "quota INSTANCE",
		Short: "Show how full an instance of your account is",
		Long: `Show how full an instance of your account is. Each version of a key counts. Other accounts are those that the instance is shared
with and those that key policies let in; one that no policy names any more counts for five minutes.`,
		Example:           "  keywardctl instance quota kst-software",
		Args:              args("INSTANCE"),
		ValidArgsFunction: c.completeInstances,
		RunE: func(cmd *cobra.Command, a []string) error {
			answer, err := c.quotas(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			return c.print(answer, func() error {
				out := newList(c, []string{"RESOURCE", "USED", "QUOTA"}, func(q kmswire.KmsInstanceQuotaInfo) []string {
					name := resourceNames[q.ResourceType]
					if name == "" {
						name = q.ResourceType
					}
					return []string{name, strconv.Itoa(q.UsedQuantity), quotaText(q)}
				})
				for _, q := range answer.KmsInstanceQuotaInfos {
					if err := out.row(q); err != nil {
						return err
					}
				}
				return out.end("no quotas")
			})
		},
	}
}

// instanceNamed finds an instance that keys can be made in. One that is not there is empty: the daemon says best what is wrong.
func (c *cli) instanceNamed(ctx context.Context, id string) (kmswire.KmsInstanceSummary, error) {
	var found kmswire.KmsInstanceSummary
	err := pages(func(page kmswire.Page) ([]kmswire.KmsInstanceSummary, int, error) {
		var answer kmswire.ListKmsInstancesResponse
		err := c.call(ctx, "ListKmsInstances", &kmswire.ListKmsInstancesRequest{Page: page}, &answer)
		return answer.KmsInstances.KmsInstance, answer.TotalCount, err
	}, func(in kmswire.KmsInstanceSummary) error {
		if in.KmsInstanceID == id {
			found = in
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return found, err
}

// ownerOfNew says who will own a key that the caller makes in an instance: the caller's account, and the instance's owner if that is another.
func (c *cli) ownerOfNew(ctx context.Context, instance string) (policy.KeyOwner, error) {
	own, err := (&principalNames{c: c}).account(ctx)
	if err != nil {
		return policy.KeyOwner{}, err
	}
	owner := policy.KeyOwner{Account: own}
	in, err := c.instanceNamed(ctx, instance)
	if other := ownerOf(in.KmsInstanceArn); other != "" && other != own {
		owner.CoOwners = []string{other}
	}
	return owner, err
}

// defaultInstance is where keys are made when --instance is not given: what the daemon says, or else kst-software.
func (c *cli) defaultInstance(ctx context.Context) (string, error) {
	var answer kmswire.GetDefaultKmsInstanceResponse
	if err := c.call(ctx, "GetDefaultKmsInstance", &kmswire.GetDefaultKmsInstanceRequest{}, &answer); err != nil {
		return "", err
	}
	if answer.DefaultKmsInstanceID != "" {
		return answer.DefaultKmsInstanceID, nil
	}
	return usualInstance, nil
}

// usualInstance is the software instance that keywardd dev and the shipped configuration have.
const usualInstance = "kst-software"
