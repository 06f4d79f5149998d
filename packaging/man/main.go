// Command man writes the manual pages of keyward into a directory: keywardctl(1) and one page for each of its commands, from the same texts that --help
// prints, and keywardd(8) and keyward.toml(5) from the Markdown beside this file and from configs/keyward.toml.
package main

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keyward/keyward/ctl"
)

//go:embed *.md
var pages embed.FS

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: man DIRECTORY VERSION DATE KEYWARD.TOML")
		os.Exit(2)
	}
	var all map[string][]byte
	config, err := os.ReadFile(os.Args[4])
	if err == nil {
		all, err = render(os.Args[2], os.Args[3], string(config))
	}
	for name, text := range all {
		if err == nil {
			err = os.WriteFile(filepath.Join(os.Args[1], name), text, 0o644)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

// render gives all pages, by the names of their files. config is the documented configuration.
func render(version, date, config string) (map[string][]byte, error) {
	out := map[string][]byte{}
	page := func(name, section, manual, text string) {
		head := fmt.Sprintf("%% \"%s\" \"%s\" \"%s\" \"keyward %s\" \"%s\"\n", strings.ToUpper(name), section, date, version, manual)
		out[name+"."+section] = md2man.Render([]byte(head + text))
	}
	root := ctl.Command()
	page("keywardctl", "1", "keyward", rootPage(root))
	for _, cmd := range root.Commands() {
		if cmd.IsAvailableCommand() {
			page("keywardctl-"+cmd.Name(), "1", "keyward", nounPage(cmd))
		}
	}
	daemon, err := pages.ReadFile("keywardd.8.md")
	if err != nil {
		return nil, err
	}
	page("keywardd", "8", "keyward", string(daemon))
	file, err := pages.ReadFile("keyward.toml.5.md")
	if err != nil {
		return nil, err
	}
	page("keyward.toml", "5", "keyward", strings.Replace(string(file), "<!-- keys -->", block(config), 1))
	return out, nil
}

// block is text as it stands.
func block(text string) string {
	return "```\n" + strings.TrimRight(text, "\n") + "\n```\n"
}

// rootPage describes keywardctl itself, and points at the others.
func rootPage(root *cobra.Command) string {
	var b strings.Builder
	name(&b, root)
	b.WriteString("# SYNOPSIS\n**keywardctl** *COMMAND* [*FLAGS*]\n\n# DESCRIPTION\n" + prose(root.Long) + "\n\n# COMMANDS\n")
	for _, group := range root.Groups() {
		fmt.Fprintf(&b, "## %s\n", strings.TrimSuffix(group.Title, ":"))
		for _, cmd := range root.Commands() {
			if cmd.GroupID == group.ID && cmd.IsAvailableCommand() {
				fmt.Fprintf(&b, "**keywardctl-%s**(1)\n: %s\n\n", cmd.Name(), escape(cmd.Short))
			}
		}
	}
	flags(&b, "FLAGS OF ALL COMMANDS", root.PersistentFlags())
	b.WriteString("# ENVIRONMENT\n**KEYWARD_SOCKET**\n: the daemon's socket, unless --socket is given\n\n")
	b.WriteString("# EXAMPLES\n" + block(unindent(root.Example)) + "\n# SEE ALSO\n**keywardd**(8), **keyward.toml**(5)\n")
	return b.String()
}

// nounPage describes a command with all below it.
func nounPage(cmd *cobra.Command) string {
	var b strings.Builder
	name(&b, cmd)
	b.WriteString("# SYNOPSIS\n")
	for _, c := range runnable(cmd) {
		fmt.Fprintf(&b, "**%s** %s\n\n", c.CommandPath(), escape(arguments(c)))
	}
	b.WriteString("# DESCRIPTION\n" + prose(longOf(cmd)) + "\n\n")
	if cmd.HasAvailableSubCommands() {
		b.WriteString("# COMMANDS\n")
		for _, c := range runnable(cmd) {
			fmt.Fprintf(&b, "## %s %s\n%s\n\n", c.CommandPath(), escape(arguments(c)), prose(longOf(c)))
			flags(&b, "", c.NonInheritedFlags())
			b.WriteString("For example:\n\n" + block(unindent(c.Example)) + "\n")
		}
	} else {
		flags(&b, "FLAGS", cmd.NonInheritedFlags())
	}
	b.WriteString("# EXAMPLES\n" + block(unindent(cmd.Example)) + "\n# SEE ALSO\n**keywardctl**(1), which has the flags of all commands and the exit codes; **keywardd**(8)\n")
	return b.String()
}

// runnable gives the commands that can be run, cmd or all below it.
func runnable(cmd *cobra.Command) (all []*cobra.Command) {
	if !cmd.HasAvailableSubCommands() {
		return []*cobra.Command{cmd}
	}
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			all = append(all, runnable(c)...)
		}
	}
	return all
}

func name(b *strings.Builder, cmd *cobra.Command) {
	short := cmd.Short
	fmt.Fprintf(b, "# NAME\n%s - %s\n\n", strings.ReplaceAll(cmd.CommandPath(), " ", "-"), escape(strings.ToLower(short[:1])+short[1:]))
}

// arguments is a line of usage without the command's path.
func arguments(cmd *cobra.Command) string {
	_, rest, _ := strings.Cut(cmd.Use, " ")
	if cmd.HasAvailableLocalFlags() {
		rest = strings.TrimSpace(rest + " [flags]")
	}
	return rest
}

func longOf(cmd *cobra.Command) string {
	if cmd.Long != "" {
		return cmd.Long
	}
	return cmd.Short + "."
}

// flags writes a list of flags, if there are some.
func flags(b *strings.Builder, title string, set *pflag.FlagSet) {
	if !set.HasAvailableFlags() {
		return
	}
	if title != "" {
		fmt.Fprintf(b, "# %s\n", title)
	}
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		term := "**--" + f.Name + "**"
		if f.Shorthand != "" {
			term = "**-" + f.Shorthand + "**, " + term
		}
		kind, usage := pflag.UnquoteUsage(f)
		if kind != "" {
			term += " *" + escape(kind) + "*"
		}
		// Where the socket is depends on who makes the page.
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" && f.Name != "socket" {
			usage += " (" + f.DefValue + " if it is not given)"
		}
		fmt.Fprintf(b, "%s\n: %s\n\n", term, escape(usage))
	})
}

// prose gives a text of --help as Markdown: what is indented, or laid out in columns, stays as it is.
func prose(text string) string {
	var b strings.Builder
	for i, part := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString("\n\n")
		}
		if strings.HasPrefix(part, "  ") {
			b.WriteString(block(unindent(part)))
			continue
		}
		b.WriteString(escape(part))
	}
	return b.String()
}

// unindent takes the two spaces away that examples of --help begin with.
func unindent(text string) string {
	lines := strings.Split(strings.Trim(text, "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "  ")
	}
	return strings.Join(lines, "\n")
}

// escape takes their meaning from characters that Markdown would see one in.
func escape(text string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "_", `\_`, "<", `\<`, "[", `\[`, "]", `\]`, "`", "\\`").Replace(text)
}
