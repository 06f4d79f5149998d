package ctl

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/kms/kmswire"
)

// The life of a key: rotation, protection, deletion, and the clock behind them.

const hoursPerDay = 24

// defaultPeriod is how often key create has keys rotated that can be and whose maker says nothing.
const defaultPeriod = "365d"

// periodUnits are what people may write after a number, in hours.
var periodUnits = map[string]int{"h": 1, "d": hoursPerDay, "w": 7 * hoursPerDay, "y": 365 * hoursPerDay}

// period reads a length of time as people write it and gives it as the API takes it. The service has the bounds.
func period(flag, text string) (string, error) {
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz")
	hours, known := periodUnits[text[len(number):]]
	n, err := strconv.ParseUint(number, 10, 16)
	if !known || err != nil {
		return "", usagef("--%s %s: write it like 90d, 12w or 1y", flag, strconv.Quote(text))
	}
	total := int(n) * hours
	if total%hoursPerDay == 0 {
		return strconv.Itoa(total/hoursPerDay) + "d", nil
	}
	return strconv.Itoa(total) + "h", nil
}

// everyText shows a RotationInterval of the API to people.
func everyText(interval string) string {
	seconds, err := strconv.Atoi(strings.TrimSuffix(interval, "s"))
	if err != nil {
		return interval
	}
	if day := hoursPerDay * 3600; seconds%day == 0 {
		return fmt.Sprintf("%d days", seconds/day)
	}
	return (time.Duration(seconds) * time.Second).String()
}

// rotationAsked puts into req how often a new key shall be rotated, if somebody said so.
func rotationAsked(req *kmswire.CreateKeyRequest, every string, never bool) (err error) {
	switch {
	case every != "" && never:
		return usagef("--rotate-every and --no-rotation exclude each other")
	case every != "":
		req.RotationInterval, err = period("rotate-every", every)
		req.EnableAutomaticRotation = true
	}
	return err
}

// rotationOfNew decides how a new key is rotated where nobody did: every year, if it is in a software instance and can be rotated.
func (c *cli) rotationOfNew(ctx context.Context, req *kmswire.CreateKeyRequest, never bool) error {
	if req.EnableAutomaticRotation || never || req.Origin != "" || !strings.HasPrefix(string(req.KeySpec), "Aliyun_AES_") || req.DKMSInstanceID == "" {
		return nil
	}
	in, err := c.instanceNamed(ctx, req.DKMSInstanceID)
	if err == nil && in.KmsInstanceType == "software" {
		req.EnableAutomaticRotation, req.RotationInterval = true, defaultPeriod
	}
	return err
}

func (c *cli) keyRotationCmd() *cobra.Command {
	var every string
	var off bool
	cmd := &cobra.Command{
		Use:   "rotation KEY [--every DURATION | --off]",
		Short: "Show how a key is rotated by itself, or change it",
		Long: `Show how a key is rotated by itself, or change it. A rotation makes a new version that encrypts from then on; what older versions
encrypted is still decrypted. --every takes 7 to 365 days, written like 90d, 12w or 1y; a key whose last version is older than
that is rotated at once. Only symmetric keys whose material keyward made and keeps can be rotated by themselves.
While a key is disabled or waits to be deleted it is not rotated (Suspended).`,
		Example: `  keywardctl key rotation alias/app/db
  keywardctl key rotation alias/app/db --every 90d
  keywardctl key rotation alias/app/db --off`,
		Args:              args("KEY"),
		ValidArgsFunction: c.completeKeys,
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			change := cmd.Flags().Changed("every") || off
			switch {
			case cmd.Flags().Changed("every") && off:
				return usagef("--every and --off exclude each other")
			case !change:
				k, err := c.describe(ctx, a[0])
				if err != nil {
					return err
				}
				shown := struct{ AutomaticRotation, RotationInterval, LastRotationDate, NextRotationDate string }{
					k.AutomaticRotation, k.RotationInterval, k.LastRotationDate, k.NextRotationDate}
				return c.print(shown, func() error {
					return c.fields(
						[2]string{"Rotation", rotationText(k)},
						[2]string{"Last rotation", k.LastRotationDate},
						[2]string{"Next rotation", k.NextRotationDate})
				})
			}
			req := &kmswire.UpdateRotationPolicyRequest{EnableAutomaticRotation: !off}
			var err error
			if !off {
				if req.RotationInterval, err = period("every", every); err != nil {
					return err
				}
			}
			if req.KeyID, err = c.keyID(ctx, a[0]); err != nil {
				return err
			}
			var answer kmswire.EmptyResponse
			if err := c.call(ctx, "UpdateRotationPolicy", req, &answer); err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			if off {
				c.say("%s is not rotated by itself any more", a[0])
			} else {
				c.say("%s is rotated every %s", a[0], every)
			}
			return c.print(answer, func() error { return nil })
		},
	}
	cmd.Flags().StringVar(&every, "every", "", "rotate it so often, such as 90d, 12w or 1y")
	cmd.Flags().BoolVar(&off, "off", false, "do not rotate it by itself any more")
	return cmd
}

// rotationText says how a key is rotated by itself.
func rotationText(k *kmswire.KeyMetadata) string {
	if k.RotationInterval == "" {
		return k.AutomaticRotation
	}
	return k.AutomaticRotation + ", every " + everyText(k.RotationInterval)
}

func (c *cli) keyProtectCmd() *cobra.Command {
	var reason string
	cmd := c.protectionCmd("protect", "Keep a key from being deleted", true, &reason)
	cmd.Long = "Keep a key from being deleted: key delete refuses it until key unprotect. A key that already waits to be deleted can't be protected; cancel that first."
	cmd.Example = `  keywardctl key protect alias/app/db --reason "the customers' database"`
	cmd.Flags().StringVar(&reason, "reason", "", "why; whoever tries to delete the key is told")
	return cmd
}

func (c *cli) keyUnprotectCmd() *cobra.Command {
	return c.protectionCmd("unprotect", "Let a protected key be deleted again", false, new(string))
}

func (c *cli) protectionCmd(verb, short string, on bool, reason *string) *cobra.Command {
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
			req := &kmswire.SetDeletionProtectionRequest{KeyID: id, EnableDeletionProtection: on, DeletionProtectionDescription: *reason}
			var answer kmswire.EmptyResponse
			if err := c.call(ctx, "SetDeletionProtection", req, &answer); err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			c.say("%s is %sed", a[0], verb)
			return c.print(answer, func() error { return nil })
		},
	}
}

func (c *cli) keyDeleteCmd() *cobra.Command {
	var days int
	cmd := &cobra.Command{
		Use:   "delete KEY --days N",
		Short: "Destroy a key after a waiting time",
		Long: `Destroy a key after a waiting time of 7 to 366 days. From now on it can't be used, and until the time is over
key cancel-deletion takes it back. After that the key, all its versions and its aliases are gone for good, and with them everything that was
encrypted with it.

Disable a key first, and wait: whatever still uses it says so, and key enable mends it at once. The time is counted by two clocks, the machine's and
the time that keyward has been running, so that a key is never destroyed early; it may be late.`,
		Example: `  keywardctl key disable alias/old
  keywardctl key delete alias/old --days 30
  keywardctl key cancel-deletion alias/old`,
		Args:              args("KEY"),
		ValidArgsFunction: c.completeKeys,
		RunE: func(cmd *cobra.Command, a []string) error {
			if !cmd.Flags().Changed("days") {
				return usagef("--days is missing: for how many days may it still be taken back? 7 to 366")
			}
			if days < 7 || days > 366 {
				return usagef("--days is 7 to 366, not %d", days)
			}
			ctx := cmd.Context()
			question := fmt.Sprintf("%s and all that it encrypted will be lost after %d days. Delete it?", a[0], days)
			if !c.canAsk() {
				return c.confirm(ctx, question)
			}
			k, err := c.showUse(ctx, a[0])
			if err != nil {
				return err
			}
			if k.KeyState == kmswire.Enabled {
				c.say("It is better to disable it first (keywardctl key disable %s), and to wait and see what stops.", a[0])
			}
			if err := c.confirm(ctx, question); err != nil {
				return err
			}
			var answer kmswire.EmptyResponse
			if err := c.call(ctx, "ScheduleKeyDeletion", &kmswire.ScheduleKeyDeletionRequest{KeyID: k.KeyID, PendingWindowInDays: days}, &answer); err != nil {
				err = fmt.Errorf("%s: %w", a[0], err)
				if k.DeletionProtection == "Enabled" {
					return hint(err, "keywardctl key unprotect %s, if you are sure", a[0])
				}
				return err
			}
			if k, err := c.describe(ctx, k.KeyID); err == nil {
				c.say("%s will be destroyed at %s; until then: keywardctl key cancel-deletion %s", a[0], k.DeleteDate, a[0])
			}
			return c.print(answer, func() error { return nil })
		},
	}
	cmd.Flags().IntVar(&days, "days", 0, "how long it may still be taken back, 7 to 366")
	return cmd
}

func (c *cli) keyCancelDeletionCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "cancel-deletion KEY",
		Short:             "Take back the deletion of a key; it is enabled again",
		Example:           "  keywardctl key cancel-deletion alias/old",
		Args:              args("KEY"),
		ValidArgsFunction: c.completeKeys,
		RunE: func(cmd *cobra.Command, a []string) error {
			ctx := cmd.Context()
			id, err := c.keyID(ctx, a[0])
			if err != nil {
				return err
			}
			var answer kmswire.EmptyResponse
			if err := c.call(ctx, "CancelKeyDeletion", &kmswire.CancelKeyDeletionRequest{KeyID: id}, &answer); err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			c.say("%s is kept", a[0])
			return c.print(answer, func() error { return nil })
		},
	}
}

// canAsk says whether there is somebody to ask, or nobody to be asked.
func (c *cli) canAsk() bool { return c.yes || isTerminal(c.stdin) }

// showUse tells what a key is and who uses it, before it is taken out of use.
func (c *cli) showUse(ctx context.Context, key string) (*kmswire.KeyMetadata, error) {
	k, err := c.describe(ctx, key)
	if err != nil {
		return nil, err
	}
	aliases, err := c.aliasesOf(ctx, k.KeyID)
	if err != nil {
		return nil, err
	}
	where := k.DKMSInstanceID
	if where == "" {
		where = "no instance"
	}
	c.say("%s is a key for %s (%s, %s) in %s, made at %s", k.KeyID, k.KeyUsage, k.KeySpec, k.KeyState, where, k.CreationDate)
	if k.Description != "" {
		c.say("  %s", k.Description)
	}
	if len(aliases) > 0 {
		c.say("  its aliases: %s", strings.Join(aliases, " "))
	}
	c.sayUsers(ctx, k.KeyID)
	return k, nil
}

func (c *cli) clockCmd() *cobra.Command {
	return group("clock", "Vouch for the machine's clock",
		"keyward deletes keys, lets imported material expire and rotates keys by the machine's clock, and does not believe that clock when it was set by more than a minute, or back behind what it had said before. keywardctl status says so.",
		"  keywardctl status\n  keywardctl clock confirm",
		c.clockConfirmCmd())
}

func (c *cli) clockConfirmCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "confirm",
		Short: "Say that the machine's clock is right, in spite of its steps",
		Long: `Say that the machine's clock is right, in spite of its steps. Then keyward goes on at once with what it does by the clock, instead of
waiting for a day; and after the clock went back, instead of waiting until it says what it had said before.

Look at another clock first. A key is still not destroyed before keyward has been running for the whole of its waiting time, whatever the clock
says. Only the root of the first account may do this, and it is audited.`,
		Example: "  date\n  keywardctl clock confirm",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if err := c.confirm(ctx, fmt.Sprintf("The clock of this machine says %s. Is that right?", time.Now().Format(time.RFC1123Z))); err != nil {
				return err
			}
			answer, err := askAdmin(ctx, c, 0, func(ctx context.Context, client *admin.Client) (*admin.ClockConfirmed, error) {
				return client.ConfirmClock(ctx)
			})
			if err != nil {
				return err
			}
			c.say("keyward believes the clock, which said %s", answer.Time.Format(time.RFC3339))
			return c.print(answer, func() error { return nil })
		},
	}
}
