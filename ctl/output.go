package ctl

// The rules of what keywardctl prints.
//
//   - Data goes to stdout and nothing else does. With -o table it is for people: columns, times in UTC, "-" for what is
//     not there. With -o json it is the API's own answer, whole, so that nothing is lost. A command that makes one thing
//     prints the one word that a script wants (a key's id, a password, a blob) under -o table.
//   - Talk goes to stderr: progress, what was done, what to do next. --quiet silences it, errors excepted.
//   - An error says what happened, to what, and what to do next. Its exit code is in exit.go.
//   - Secrets are printed only when they are what was asked for, and never to stderr.
//   - Binary is not written to a terminal.
//   - Nothing is asked unless stdin is a terminal; scripts say --yes.

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"golang.org/x/term"
)

// say is talk.
func (c *cli) say(format string, a ...any) {
	if !c.quiet {
		fmt.Fprintf(c.stderr, format+"\n", a...)
	}
}

// json prints an answer.
func (c *cli) json(answer any) error {
	enc := json.NewEncoder(c.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(answer)
}

// print prints answer as JSON, or as whatever table prints.
func (c *cli) print(answer any, table func() error) error {
	if c.format == "json" {
		return c.json(answer)
	}
	return table()
}

// madeFile is what -o json prints of a file that was made. When the data itself goes to stdout, nothing else does.
type madeFile struct {
	File            string
	KeyID           string `json:"KeyId"`
	KeyVersionID    string `json:"KeyVersionId,omitempty"`
	Algorithm       string `json:",omitempty"`
	PlaintextOctets *int64 `json:",omitempty"`
}

// made prints f as JSON. People are told in talk.
func (c *cli) made(f madeFile) error {
	return c.print(f, func() error { return nil })
}

// line prints one word or line of data.
func (c *cli) line(text string) error {
	_, err := fmt.Fprintln(c.stdout, text)
	return err
}

// list prints rows that arrive page by page, as a table or as one JSON array, without keeping them.
type list[T any] struct {
	c       *cli
	columns []string
	cells   func(T) []string
	count   int
	tw      *tabwriter.Writer
}

func newList[T any](c *cli, columns []string, cells func(T) []string) *list[T] {
	return &list[T]{c: c, columns: columns, cells: cells, tw: tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)}
}

// row prints one more.
func (l *list[T]) row(item T) error {
	l.count++
	if l.c.format == "json" {
		text, err := json.MarshalIndent(item, "  ", "  ")
		if err != nil {
			return err
		}
		separator := ",\n  "
		if l.count == 1 {
			separator = "[\n  "
		}
		_, err = fmt.Fprintf(l.c.stdout, "%s%s", separator, text)
		return err
	}
	if l.count == 1 {
		fmt.Fprintln(l.tw, strings.Join(l.columns, "\t"))
	}
	cells := l.cells(item)
	for i, cell := range cells {
		cells[i] = plain(cell)
	}
	_, err := fmt.Fprintln(l.tw, strings.Join(cells, "\t"))
	if l.count%500 == 0 && err == nil {
		err = l.tw.Flush() // a long list shows up as it comes
	}
	return err
}

// end prints what is left. nothing is said when there were no rows.
func (l *list[T]) end(nothing string) error {
	if l.c.format == "json" {
		closing := "\n]"
		if l.count == 0 {
			closing = "[]"
		}
		return l.c.line(closing)
	}
	if l.count == 0 {
		l.c.say("%s", nothing)
	}
	return l.tw.Flush()
}

// fields prints names and values, one a line, without those that are empty.
func (c *cli) fields(pairs ...[2]string) error {
	tw := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	for _, p := range pairs {
		if p[1] != "" {
			fmt.Fprintf(tw, "%s\t%s\n", p[0], plain(p[1]))
		}
	}
	return tw.Flush()
}

// plain makes text from elsewhere fit for one cell of a terminal: no control characters, "-" for nothing.
func plain(s string) string {
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// isTerminal says whether a stream is one.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// confirm asks before a change that stops something from working.
func (c *cli) confirm(ctx context.Context, question string) error {
	if c.yes {
		return nil
	}
	if !isTerminal(c.stdin) {
		return &codedError{code: exitUsage, err: fmt.Errorf("%s (nobody can be asked here)", question), next: "--yes goes on without asking"}
	}
	fmt.Fprintf(c.stderr, "%s [y/N] ", question)
	answer, err := bufio.NewReader(interruptible(ctx, c.stdin)).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return fmt.Errorf("nothing was changed")
}
