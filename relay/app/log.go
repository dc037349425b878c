package app

import (
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"

	"relay/config"
)

// NewLogger returns the process's logger: JSON lines, or readable ones if the format is
// "console", or if none is set and w is a terminal. Times are RFC 3339 in UTC, to the
// millisecond.
func NewLogger(c config.Log, w *Lines) zerolog.Logger {
	level, err := zerolog.ParseLevel(c.Level)
	if err != nil || c.Level == "" {
		level = zerolog.InfoLevel
	}
	terminal := IsTerminal(w.to)
	form := func(w io.Writer) io.Writer { return w }
	if c.Format == "console" || c.Format == "" && terminal {
		form = func(w io.Writer) io.Writer {
			return zerolog.ConsoleWriter{Out: w, TimeFormat: "15:04:05.000", NoColor: !terminal}
		}
	}
	w.setTell(func(to io.Writer, lost uint64) { // at every level
		log := zerolog.New(form(to)).Hook(stamp{})
		log.Warn().Uint64("lines", lost).Msg("lines of this log were lost: they were not read fast enough, or could not be written")
	})
	return zerolog.New(form(w)).Level(level).Hook(stamp{})
}

// stamp adds the time to each line. zerolog sets the precision only in a package variable, which
// the whole process shares.
type stamp struct{}

func (stamp) Run(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Str(zerolog.TimestampFieldName, time.Now().UTC().Format("2006-01-02T15:04:05.000Z"))
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
