package ctl

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Version is the release. The build sets it (-ldflags "-X .../ctl.Version=1.2.3"); without that the module's own version
// is told.
var Version string

func (c *cli) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  keywardctl version",
		Args:    args(),
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version  string `json:"version"`
				Revision string `json:"revision,omitempty"`
				Go       string `json:"go"`
			}{Version: Version, Go: runtime.Version()}
			if info, ok := debug.ReadBuildInfo(); ok {
				if v.Version == "" {
					v.Version = info.Main.Version
				}
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Revision = s.Value
					}
				}
			}
			if v.Version == "" {
				v.Version = "(devel)"
			}
			return c.print(v, func() error { return c.line(fmt.Sprintf("keywardctl %s, %s", v.Version, v.Go)) })
		},
	}
}

func (c *cli) completionCmd() *cobra.Command {
	shells := map[string]func(*cobra.Command) error{
		"bash": func(root *cobra.Command) error { return root.GenBashCompletionV2(c.stdout, true) },
		"zsh":  func(root *cobra.Command) error { return root.GenZshCompletion(c.stdout) },
		"fish": func(root *cobra.Command) error { return root.GenFishCompletion(c.stdout, true) },
	}
	return &cobra.Command{
		Use:       "completion bash|zsh|fish",
		Short:     "Print a script that completes commands, flags and key names",
		Example:   "  source <(keywardctl completion bash)\n  keywardctl completion fish > ~/.config/fish/completions/keywardctl.fish",
		Args:      args("SHELL"),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, a []string) error {
			generate, ok := shells[a[0]]
			if !ok {
				return usagef("there is no completion for %q; there is for bash, zsh and fish", a[0])
			}
			return generate(cmd.Root())
		},
	}
}
