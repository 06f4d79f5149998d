package daemon

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
	"github.com/rs/zerolog/journald"
)

// newLogger logs to w, standard error: for people when that is a terminal, to the journal with a field for each member of a line when that is
// the journal (MEMBER=, PREFIX=, REQUEST= and so on, for journalctl), as JSON lines otherwise.
func newLogger(w *os.File) zerolog.Logger {
	zerolog.TimeFieldFormat = time.RFC3339Nano
	var out io.Writer = w
	onJournal, err := journal.StderrIsJournalStream()
	switch {
	case err == nil && onJournal && journal.Enabled():
		out = journald.NewJournalDWriter()
	case isatty.IsTerminal(w.Fd()):
		out = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly}
	}
	return zerolog.New(out).With().Timestamp().Logger()
}

// setLevel sets what is logged from now on, in every logger of the process. The audit is not touched by it.
func setLevel(level string) error {
	l, err := zerolog.ParseLevel(level)
	if err != nil {
		return fmt.Errorf("log level: %w", err)
	}
	zerolog.SetGlobalLevel(l)
	return nil
}
