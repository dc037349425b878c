package deliver

import (
	"errors"
	"time"

	"github.com/rs/zerolog"

	"relay/outbox"
)

// quiet is how long an endpoint's retries with one code stay out of the log
// after the first.
const quiet = 10 * time.Second

// logAttempt writes the one line of an attempt. Levels: debug for a delivery that succeeds at its
// first attempt, info for a later success or a retry, warn for a delivery that is over without
// success. Only repeated retries are throttled, and then still logged at debug. Every failed
// delivery has its line (promise P7).
func (r *runner) logAttempt(res *Result) {
	level, repeats := zerolog.WarnLevel, 0
	switch {
	case res.State == outbox.Delivered && res.Attempt.N == 1:
		level = zerolog.DebugLevel
	case res.State == outbox.Delivered:
		level = zerolog.InfoLevel
	case res.State == outbox.Pending:
		level = zerolog.InfoLevel
		var ok bool
		if repeats, ok = r.retries.Allow(res.Attempt.Code); !ok {
			level = zerolog.DebugLevel
		}
	}
	r.d.o.Log.WithLevel(level).EmbedObject(line{res, res.Attempt.Error, repeats}).Msg("attempt")
}

// logUnsettled logs an attempt whose record was not written; the delivery is made again when the
// lease ends.
func (r *runner) logUnsettled(res *Result, err error) {
	level := zerolog.ErrorLevel
	if errors.Is(err, outbox.ErrLeaseLost) {
		level = zerolog.WarnLevel // another worker has it
	}
	r.d.o.Log.WithLevel(level).EmbedObject(line{res, err.Error(), 0}).Msg("attempt was not recorded, the delivery may be repeated")
}

// line is the fields of an attempt's log line.
type line struct {
	*Result
	text    string // of the error
	repeats int    // lines that the throttle left out
}

func (l line) MarshalZerologObject(e *zerolog.Event) {
	a := &l.Attempt
	e.Str("endpoint", l.Endpoint).
		Str("event_id", l.EventID).
		Str("delivery_id", l.DeliveryID).
		Int("attempt", a.N).
		Str("outcome", a.Outcome).
		Str("state", string(l.State)).
		Dur("took", a.Took)
	if a.Status != 0 {
		e.Int("status", a.Status)
	}
	if a.Code != "" {
		e.Str("code", a.Code)
	}
	if l.text != "" {
		e.Str("error", l.text)
	}
	if !l.Due.IsZero() {
		e.Time("next_at", l.Due)
	}
	if l.repeats > 0 {
		e.Int("repeats", l.repeats)
	}
}

func (r *runner) logPanic(c *outbox.Claim, p any) {
	r.d.o.Log.Error().
		Str("endpoint", c.Endpoint).
		Str("event_id", c.EventID).
		Str("delivery_id", c.ID).
		Int("attempt", c.Attempts+1).
		Str("error", panicText(p)).
		Msg("attempt panicked")
}
