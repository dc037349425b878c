package deliver

import (
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"relay/outbox"
)

// quiet is how long an endpoint's retries with one code stay out of the log
// after the first.
const quiet = 10 * time.Second

// repeats counts what is kept out of the log, by code.
type repeats struct {
	mu   sync.Mutex
	seen map[string]*repeat
}

type repeat struct {
	last time.Time
	held int
}

// pass tells whether a line with this code may be written now, and how many were
// held back since the last one.
func (r *repeats) pass(code string, now time.Time) (held int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = map[string]*repeat{}
	}
	s := r.seen[code]
	if s == nil {
		s = &repeat{}
		r.seen[code] = s
	}
	if now.Sub(s.last) < quiet {
		s.held++
		return 0, false
	}
	held = s.held
	*s = repeat{last: now}
	return held, true
}

// logAttempt writes the one line of an attempt. Its level says who cares: debug for
// what went well at once, info for what went well later or will be tried again,
// warn for a delivery that is over without success. Only retries are held back when they
// repeat, at info: at debug each attempt has its line, and every lost delivery always has (promise P7).
func (r *runner) logAttempt(res *Result) {
	level, held := zerolog.WarnLevel, 0
	switch {
	case res.State == outbox.Delivered && res.Attempt.N == 1:
		level = zerolog.DebugLevel
	case res.State == outbox.Delivered:
		level = zerolog.InfoLevel
	case res.State == outbox.Pending:
		level = zerolog.InfoLevel
		var ok bool
		if held, ok = r.repeats.pass(res.Attempt.Code, time.Now()); !ok {
			level = zerolog.DebugLevel
		}
	}
	e := r.line(level, res, res.Attempt.Error)
	if held > 0 {
		e.Int("repeats", held)
	}
	e.Msg("attempt")
}

// logUnsettled tells of an attempt whose record is lost; the delivery is made
// again when the lease ends.
func (r *runner) logUnsettled(res *Result, err error) {
	level := zerolog.ErrorLevel
	if errors.Is(err, outbox.ErrLeaseLost) {
		level = zerolog.WarnLevel // another worker has it
	}
	r.line(level, res, err.Error()).Msg("attempt was not recorded, the delivery may be repeated")
}

func (r *runner) line(level zerolog.Level, res *Result, text string) *zerolog.Event {
	a := &res.Attempt
	e := r.d.o.Log.WithLevel(level).
		Str("endpoint", res.Endpoint).
		Str("event_id", res.EventID).
		Str("delivery_id", res.DeliveryID).
		Int("attempt", a.N).
		Str("outcome", a.Outcome).
		Str("state", string(res.State)).
		Dur("took", a.Took)
	if a.Status != 0 {
		e.Int("status", a.Status)
	}
	if a.Code != "" {
		e.Str("code", a.Code)
	}
	if text != "" {
		e.Str("error", text)
	}
	if !res.Due.IsZero() {
		e.Time("next_at", res.Due)
	}
	return e
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
