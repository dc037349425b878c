package gate

import (
	"context"
	"slices"
	"time"
)

// Pause holds an endpoint's deliveries until Resume, for all Relays of the outbox and over
// restarts. by says who asked, for people. changed is false when it was paused already. Errors:
// the outbox's.
func (s *Gates) Pause(ctx context.Context, endpoint, by string) (changed bool, err error) {
	return s.decide(ctx, endpoint, func(c *Condition) bool {
		if c.Paused != nil {
			return false
		}
		c.Paused = s.halt("paused by " + by)
		return true
	})
}

// Disable holds an endpoint's deliveries until Enable. Otherwise like Pause.
func (s *Gates) Disable(ctx context.Context, endpoint, by string) (changed bool, err error) {
	return s.decide(ctx, endpoint, func(c *Condition) bool {
		if c.Disabled != nil && c.Disabled.Code == ByOperator {
			return false
		}
		c.Disabled = s.halt("disabled by " + by)
		return true
	})
}

// Resume ends a pause, a hold that the receiver asked for and the wait of an open breaker, which
// then makes probes. This process forgets the receiver's rate headers, and the time without a
// successful attempt starts again at 0. ended lists which of Paused, RetryAfter and Breaker were
// ended. Errors: the outbox's.
func (s *Gates) Resume(ctx context.Context, endpoint string) (ended []Cause, err error) {
	return s.release(ctx, endpoint, func(c *Condition, now time.Time) {
		c.Paused, c.Hold, c.Failing = nil, nil, nil
		if c.opens(now) {
			c.Breaker = &Opening{Times: c.Breaker.Times, Until: now}
		}
	})
}

// Enable ends a Disable, or the decision of Relay itself that the receiver is gone or failed for
// too long. The breaker closes and a hold that the receiver asked for ends; a pause stays. ended
// lists which of Disabled, RetryAfter and Breaker were ended. Otherwise like Resume.
func (s *Gates) Enable(ctx context.Context, endpoint string) (ended []Cause, err error) {
	return s.release(ctx, endpoint, func(c *Condition, _ time.Time) { *c = Condition{Paused: c.Paused} })
}

// EnableAgain ends the decision of Relay itself alone, like Enable, and leaves an operator's. ended tells whether there was
// one. Errors: the outbox's.
func (s *Gates) EnableAgain(ctx context.Context, endpoint string) (ended bool, err error) {
	ended, err = s.decide(ctx, endpoint, func(c *Condition) bool {
		if c.Disabled == nil || c.Disabled.Code == ByOperator {
			return false
		}
		*c = Condition{Paused: c.Paused}
		return true
	})
	s.mu.Lock()
	g := s.gates[endpoint]
	s.mu.Unlock()
	if ended && g != nil {
		g.forgive()
	}
	return ended, err
}

// release makes the change and drops the causes that only this process knows. It returns the
// causes that ended, in the outbox or here.
func (s *Gates) release(ctx context.Context, endpoint string, change func(c *Condition, now time.Time)) (ended []Cause, err error) {
	s.mu.Lock()
	g := s.gates[endpoint]
	s.mu.Unlock()
	var here, there []Cause
	if g != nil {
		here = g.shutBy()
	}
	_, err = s.decide(ctx, endpoint, func(c *Condition) bool {
		before, now := *c, s.stamp(time.Now())
		change(c, now)
		there = slices.DeleteFunc(before.shutBy(now), func(cause Cause) bool { return slices.Contains(c.shutBy(now), cause) })
		return *c != before
	})
	if err != nil {
		return nil, err
	}
	if g != nil {
		g.forgive()
		still := g.shutBy()
		here = slices.DeleteFunc(here, func(cause Cause) bool { return slices.Contains(still, cause) })
	}
	for _, cause := range []Cause{Paused, Disabled, RetryAfter, Breaker} {
		if slices.Contains(here, cause) || slices.Contains(there, cause) {
			ended = append(ended, cause)
		}
	}
	return ended, nil
}

// shutBy lists the causes, of those that the whole fleet knows, for which no attempt may begin.
func (c *Condition) shutBy(now time.Time) (causes []Cause) {
	if c.Paused != nil {
		causes = append(causes, Paused)
	}
	if c.Disabled != nil {
		causes = append(causes, Disabled)
	}
	if c.Hold != nil && now.Before(c.Hold.Until) {
		causes = append(causes, RetryAfter)
	}
	if c.opens(now) {
		causes = append(causes, Breaker)
	}
	return causes
}

// opens tells whether the breaker is open and its time is not over.
func (c *Condition) opens(now time.Time) bool {
	return c.Breaker != nil && now.Before(c.Breaker.Until)
}

// shutBy lists the causes for which no attempt may begin here, those that only this process knows
// included.
func (g *Gate) shutBy() (causes []Cause) {
	st := g.State()
	if !st.Held.IsZero() {
		causes = append(causes, RetryAfter)
	}
	if st.Breaker == Opened {
		causes = append(causes, Breaker)
	}
	return causes
}

func (s *Gates) halt(reason string) *Halt {
	return &Halt{At: s.stamp(time.Now()), Code: ByOperator, Reason: reason}
}

// decide writes an operator's decision.
func (s *Gates) decide(ctx context.Context, endpoint string, change func(*Condition) bool) (written bool, err error) {
	written, err = s.update(ctx, endpoint, change)
	if err == nil && !written { // as far as this Relay knows
		if err = s.refresh(ctx, endpoint); err == nil {
			written, err = s.update(ctx, endpoint, change)
		}
	}
	return written, err
}
