package ctl

import (
	"github.com/spf13/cobra"

	"github.com/keyward/keyward/kms/kmswire"
)

func (c *cli) instanceCmd() *cobra.Command {
	list := &cobra.Command{
		Use:     "list",
		Short:   "List the instances: where keys can be made",
		Example: "  keywardctl instance list",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := newList(c, []string{"INSTANCE", "TYPE", "ARN"}, func(i kmswire.KmsInstanceSummary) []string {
				return []string{i.KmsInstanceID, i.KmsInstanceType, i.KmsInstanceArn}
			})
			err := pages(func(page kmswire.Page) ([]kmswire.KmsInstanceSummary, int, error) {
				var answer kmswire.ListKmsInstancesResponse
				err := c.call(cmd.Context(), "ListKmsInstances", &kmswire.ListKmsInstancesRequest{Page: page}, &answer)
				return answer.KmsInstances.KmsInstance, answer.TotalCount, err
			}, out.row)
			if err != nil {
				return err
			}
			return out.end("no instances; the daemon's configuration names them")
		},
	}
	return group("instance", "Show where keys can be made",
		"An instance is where keys are made: software (sealed in keyward's store), hardware (in HSMs) or external.",
		"  keywardctl instance list", list)
}
