package ctl

import (
	"github.com/spf13/cobra"

	"github.com/keyward/keyward/kms/kmswire"
)

func (c *cli) keyEnableDefaultCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "enable-default",
		Short: "Enable the default key of your account",
		Long: `Make the default key of your account, or find the one that it has, and print its id. An account has one: AES-256 in software, for
encrypting and decrypting. It is in no instance and takes no quota, is never shared with other accounts, and has no key policy.`,
		Example: "  keywardctl key enable-default",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.confirm(cmd.Context(), "The default key is one AES-256 software key for your whole account, in no instance, without a key policy. Enable it?"); err != nil {
				return err
			}
			var answer kmswire.EnableDefaultKeyResponse
			if err := c.call(cmd.Context(), "EnableDefaultKey", &kmswire.EnableDefaultKeyRequest{}, &answer); err != nil {
				return err
			}
			k := &answer.KeyMetadata
			if err := c.print(answer, func() error { return c.line(k.KeyID) }); err != nil {
				return err
			}
			if account := ownerOf(k.Arn); k.Creator == account {
				c.say("%s is the default key of account %s (%s)", k.KeyID, account, k.KeyState)
			} else {
				c.say("%s is the key of service %s in account %s (%s)", k.KeyID, k.Creator, account, k.KeyState)
			}
			c.say("next: keywardctl encrypt --key %s FILE", k.KeyID)
			return nil
		},
	}
}
