package front

import (
	"fmt"

	"github.com/rs/zerolog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

type zapLogger = *zap.Logger

// zapTo lets certmagic write to the house's log. What it reports as information is for debugging
// here, because Relay reports what happened to certificates itself; what it reports as errors
// heals itself.
func zapTo(log zerolog.Logger) zapLogger { return zap.New(&bridge{log: log}) }

// bridge is a zapcore.Core. Of the fields only the host and the error are passed on.
type bridge struct {
	log    zerolog.Logger
	fields []zapcore.Field
}

// Enabled implements zapcore.LevelEnabler.
func (b *bridge) Enabled(l zapcore.Level) bool { return b.level(l) >= b.log.GetLevel() }

func (b *bridge) level(l zapcore.Level) zerolog.Level {
	switch {
	case l >= zapcore.WarnLevel:
		return zerolog.WarnLevel
	case l >= zapcore.InfoLevel:
		return zerolog.DebugLevel
	}
	return zerolog.TraceLevel
}

// With implements zapcore.Core.
func (b *bridge) With(fields []zapcore.Field) zapcore.Core {
	return &bridge{b.log, append(b.fields[:len(b.fields):len(b.fields)], fields...)}
}

// Check implements zapcore.Core.
func (b *bridge) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if b.Enabled(e.Level) {
		return to.AddCore(e, b)
	}
	return to
}

// Write implements zapcore.Core.
func (b *bridge) Write(e zapcore.Entry, fields []zapcore.Field) error {
	found := zapcore.NewMapObjectEncoder()
	for _, f := range append(b.fields[:len(b.fields):len(b.fields)], fields...) {
		f.AddTo(found)
	}
	line := b.log.WithLevel(b.level(e.Level))
	for _, name := range []string{"identifier", "subject", "server_name", "domain", "identifiers", "subjects"} {
		if host, ok := found.Fields[name]; ok {
			line = line.Str("host", fmt.Sprint(host))
			break
		}
	}
	if err, ok := found.Fields["error"]; ok {
		line = line.Str("error", fmt.Sprint(err))
	}
	line.Msg("certificates: " + e.Message)
	return nil
}

// Sync implements zapcore.Core.
func (b *bridge) Sync() error { return nil }
