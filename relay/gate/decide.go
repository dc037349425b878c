package gate

import (
	"context"
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
		c.Paused = s.decision("paused by " + by)
		return true
	})
}

// Resume ends a pause. The time without an attempt that went well counts anew. Otherwise
// like Pause.
func (s *Gates) Resume(ctx context.Context, endpoint string) (changed bool, err error) {
	return s.decide(ctx, endpoint, func(c *Condition) bool {
		if c.Paused == nil {
			return false
		}
		c.Paused, c.Failing = nil, nil
		return true
	})
}

// Disable holds an endpoint's deliveries until Enable. Otherwise like Pause.
func (s *Gates) Disable(ctx context.Context, endpoint, by string) (changed bool, err error) {
	return s.decide(ctx, endpoint, func(c *Condition) bool {
		if c.Disabled != nil && c.Disabled.Code == ByOperator {
			return false
		}
		c.Disabled = s.decision("disabled by " + by)
		return true
	})
}

// Enable ends what Disable began, or Relay itself when the receiver was gone or failed for
// too long. The breaker closes, and what the receiver asked for is over; a pause stays.
// Otherwise like Pause.
func (s *Gates) Enable(ctx context.Context, endpoint string) (changed bool, err error) {
	changed, err = s.decide(ctx, endpoint, func(c *Condition) bool {
		before := *c
		*c = Condition{Paused: c.Paused}
		return *c != before
	})
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	g := s.gates[endpoint]
	s.mu.Unlock()
	if g != nil {
		g.forgive()
	}
	return changed, nil
}

func (s *Gates) decision(reason string) *Decision {
	return &Decision{At: time.Now().UTC().Round(0), Code: ByOperator, Reason: reason}
}

// decide carries out what an operator wants.
func (s *Gates) decide(ctx context.Context, endpoint string, change func(*Condition) bool) (written bool, err error) {
	written, err = s.update(ctx, endpoint, change)
	if err == nil && !written { // as far as this Relay has heard
		if err = s.refresh(ctx, endpoint); err == nil {
			written, err = s.update(ctx, endpoint, change)
		}
	}
	return written, err
}
