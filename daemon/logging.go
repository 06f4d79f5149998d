package daemon

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
)

// newLogger logs to w, standard error: for people when that is a terminal, as JSON lines otherwise, with the priority
// that the journal reads in front when that is the journal.
func newLogger(w *os.File) zerolog.Logger {
	zerolog.TimeFieldFormat = time.RFC3339Nano
	var out io.Writer = w
	onJournal, err := journal.StderrIsJournalStream()
	switch {
	case err == nil && onJournal:
		out = journalWriter{w}
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

// journalWriter puts the syslog priority of each line before it, as sd-daemon(3) describes.
type journalWriter struct{ w io.Writer }

// Write writes a line that has no level.
func (j journalWriter) Write(line []byte) (int, error) {
	return j.WriteLevel(zerolog.InfoLevel, line)
}

// WriteLevel writes one line.
func (j journalWriter) WriteLevel(level zerolog.Level, line []byte) (int, error) {
	priority := map[zerolog.Level]byte{
		zerolog.TraceLevel: '7', zerolog.DebugLevel: '7', zerolog.WarnLevel: '4',
		zerolog.ErrorLevel: '3', zerolog.FatalLevel: '2', zerolog.PanicLevel: '2',
	}[level]
	if priority == 0 {
		priority = '6'
	}
	// One write, so that lines of several goroutines can't mix.
	if _, err := j.w.Write(append([]byte{'<', priority, '>'}, line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}
