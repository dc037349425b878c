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

// logAttempt writes the one line of an attempt. Its level says who cares: debug for
// what went well at once, info for what went well later or will be tried again,
// warn for a delivery that is over without success. Only retries are held back when they
// repeat, at info: at debug each attempt has its line, and every lost delivery always has (promise P7).
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

// logUnsettled tells of an attempt whose record is lost; the delivery is made
// again when the lease ends.
func (r *runner) logUnsettled(res *Result, err error) {
	level := zerolog.ErrorLevel
	if errors.Is(err, outbox.ErrLeaseLost) {
		level = zerolog.WarnLevel // another worker has it
	}
	r.d.o.Log.WithLevel(level).EmbedObject(line{res, err.Error(), 0}).Msg("attempt was not recorded, the delivery may be repeated")
}

// line is what a log line tells of an attempt.
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
