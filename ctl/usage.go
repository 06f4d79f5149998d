package ctl

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/kms/kmswire"
)

// usageWait bounds the wait for a check. One takes well under a second, unless the store is slow.
const usageWait = time.Minute

// usersShown is how many callers sayUsers names.
const usersShown = 5

func (c *cli) keyUsageCmd() *cobra.Command {
	var noCheck bool
	cmd := &cobra.Command{
		Use:   "usage KEY",
		Short: "Show who uses a key, and when they last did",
		Long: `Show who uses a key: the services that keyward.toml declares ([[service]]), and all other programs with their systemd unit,
executable and Unix user, the last one first. Encrypting, decrypting, signing and all else that needs the key's material counts,
when it succeeded. Look here before you disable or delete a key.

The time of the last use is shown for 365 days. Who did not use the key for 730 days is forgotten.`,
		Example: `  keywardctl key usage alias/app/db
  keywardctl key usage alias/app/db --no-check -o json`,
		Args:              args("KEY"),
		ValidArgsFunction: c.completeKeys,
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			if !noCheck {
				c.say("checking who uses %s", a[0])
				if err := c.checkUsers(ctx, a[0]); err != nil {
					return err
				}
			}
			u, err := c.users(ctx, a[0])
			if err != nil {
				return err
			}
			switch u.CheckStatus {
			case "":
				c.say("there was no check yet, so calls of the last seconds may be missing; without --no-check there is one")
			case kmswire.CheckFailed:
				c.say("the last check (%s) failed, so calls may be missing; without --no-check there is a new one", u.CheckTime)
			}
			return c.print(u, func() error { return c.showUsers(ctx, a[0], u) })
		},
	}
	cmd.Flags().BoolVar(&noCheck, "no-check", false, "show what is saved, without a new check")
	return cmd
}

// checkUsers has keyward look up who uses a key, and waits for that.
func (c *cli) checkUsers(ctx context.Context, key string) error {
	var started kmswire.StartKeyAssociationCheckResponse
	if err := c.call(ctx, "StartKeyAssociationCheck", &kmswire.StartKeyAssociationCheckRequest{KeyID: key}, &started); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	ctx, cancel := context.WithTimeout(ctx, usageWait)
	defer cancel()
	pause := 10 * time.Millisecond
	for {
		var now kmswire.ListKeyAssociationsResponse
		if err := c.call(ctx, "ListKeyAssociations", &kmswire.ListKeyAssociationsRequest{KeyID: key, Page: kmswire.Page{PageNumber: 1, PageSize: 1}}, &now); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		switch now.CheckStatus {
		case kmswire.CheckSucceeded:
			return nil
		case kmswire.CheckFailed:
			return &codedError{code: exitTryAgain, err: fmt.Errorf("the check of who uses %s failed; keyward's log says why", key),
				next: "try again; --no-check shows what was saved before"}
		}
		select {
		case <-ctx.Done():
			return &codedError{code: exitTryAgain, err: fmt.Errorf("the check of who uses %s is not over yet", key),
				next: "keywardctl key usage --no-check shows its result later"}
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		}
	}
}

// users gives all callers of a key in one answer.
func (c *cli) users(ctx context.Context, key string) (*kmswire.ListKeyAssociationsResponse, error) {
	all := &kmswire.ListKeyAssociationsResponse{}
	rows := []kmswire.KeyAssociation{}
	err := pages(func(page kmswire.Page) ([]kmswire.KeyAssociation, int, error) {
		var answer kmswire.ListKeyAssociationsResponse
		err := c.call(ctx, "ListKeyAssociations", &kmswire.ListKeyAssociationsRequest{KeyID: key, Page: page}, &answer)
		*all = answer
		return answer.Associations.Association, answer.TotalCount, err
	}, func(a kmswire.KeyAssociation) error {
		rows = append(rows, a)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	all.Associations.Association = rows
	all.PageNumber, all.PageSize = 1, len(rows)
	return all, nil
}

// lastUse words the time of a caller's last call.
func lastUse(a kmswire.KeyAssociation) string {
	if a.LastCalledAt == "" {
		return "over a year ago"
	}
	return a.LastCalledAt
}

// showUsers prints a key's callers as a table.
func (c *cli) showUsers(ctx context.Context, key string, u *kmswire.ListKeyAssociationsResponse) error {
	out := newList(c, []string{"USED BY", "TYPE", "LAST USED", "CALLS", "PRINCIPAL", "UNIT", "EXECUTABLE", "UID", "DOOR", "SEE"}, func(a kmswire.KeyAssociation) []string {
		uid := ""
		if a.UID != nil {
			uid = strconv.Itoa(*a.UID)
		}
		return []string{a.ServiceName, a.ServiceType, lastUse(a), strconv.Itoa(a.Calls), a.PrincipalArn, a.Unit, a.Executable, uid, a.Door, a.ServiceEntry}
	})
	for _, a := range u.Associations.Association {
		if err := out.row(a); err != nil {
			return err
		}
	}
	return out.end(c.noUsers(ctx, key))
}

// noUsers says that a key has no callers, and since when.
func (c *cli) noUsers(ctx context.Context, key string) string {
	k, err := c.describe(ctx, key)
	if err != nil { // the key may be used, but not be described, by this caller
		return "no use of " + key + " was recorded since it was made"
	}
	return fmt.Sprintf("no use of %s was recorded since it was made at %s", key, k.CreationDate)
}

// sayUsers tells, as talk, who uses a key, for commands that are about to stop it from working. That this can't be told is
// said too, and stops nothing.
func (c *cli) sayUsers(ctx context.Context, key string) {
	if c.quiet {
		return
	}
	checked := c.checkUsers(ctx, key)
	if ctx.Err() != nil {
		return
	}
	u, err := c.users(ctx, key)
	if err != nil {
		c.say("who uses %s can't be told: %v", key, errors.Join(checked, err))
		return
	}
	if checked != nil {
		c.say("who used %s in the last seconds can't be told: %v", key, checked)
	}
	if len(u.Associations.Association) == 0 {
		c.say("%s", c.noUsers(ctx, key))
		return
	}
	c.say("%s is used by:", key)
	for i, a := range u.Associations.Association {
		if i == usersShown {
			c.say("  and %d more: keywardctl key usage %s", len(u.Associations.Association)-i, key)
			break
		}
		c.say("  %s", plain(userLine(a)))
	}
}

// userLine words one caller.
func userLine(a kmswire.KeyAssociation) string {
	text := a.ServiceName
	if a.ServiceType == "Service" {
		text = "service " + text
	} else if a.Executable != "" && a.Executable != text {
		text += " (" + a.Executable + ")"
	}
	if a.PrincipalArn != "" {
		text += " as " + a.PrincipalArn
	}
	if a.UID != nil {
		text += fmt.Sprintf(", uid %d", *a.UID)
	}
	return text + fmt.Sprintf(", last %s, %d calls", lastUse(a), a.Calls)
}
