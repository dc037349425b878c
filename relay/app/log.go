package app

import (
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"

	"relay/config"
)

// NewLogger returns the process's logger: JSON lines, or readable ones where
// the format is "console" or none is set and w is a terminal. Times are RFC 3339 in
// UTC, to the millisecond.
func NewLogger(c config.Log, w io.Writer) zerolog.Logger {
	level, err := zerolog.ParseLevel(c.Level)
	if err != nil || c.Level == "" {
		level = zerolog.InfoLevel
	}
	if c.Format == "console" || c.Format == "" && IsTerminal(w) {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: "15:04:05.000", NoColor: !IsTerminal(w)}
	}
	return zerolog.New(w).Level(level).Hook(stamp{})
}

// stamp adds the time to each line. zerolog's own way to set the precision is a
// variable of its package, shared by everybody in the process.
type stamp struct{}

func (stamp) Run(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Str(zerolog.TimestampFieldName, time.Now().UTC().Format("2006-01-02T15:04:05.000Z"))
}

// IsTerminal tells whether w is a person's screen.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
