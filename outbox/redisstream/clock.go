package redisstream

import (
	"sync/atomic"
	"time"

	"relay/outbox"
)

// clock follows the clock of the Redis server that has a shard. The zero value takes it for
// this machine's.
type clock struct{ last atomic.Pointer[reading] }

// reading is what the server's clock showed at a moment of this process. The moment has a
// monotonic reading: what comes after it does not depend on this machine's wall clock.
type reading struct{ theirs, ours time.Time }

// at returns what the server's clock shows at the moment t.
func (c *clock) at(t time.Time) time.Time {
	r := c.last.Load()
	if r == nil {
		return t
	}
	return r.theirs.Add(t.Sub(r.ours))
}

// moment returns when the server's clock shows t.
func (c *clock) moment(t time.Time) time.Time {
	r := c.last.Load()
	if r == nil {
		return t
	}
	return r.ours.Add(t.Sub(r.theirs))
}

// ahead is by how much the wall clock of this machine is ahead of the server's, at the moment now.
func (c *clock) ahead(now time.Time) time.Duration { return now.Round(0).Sub(c.at(now)) }

// observe takes the server's time from the answer to a call that began at sent and ended at
// received. What was known before stays where the answer allows it, because
// a slow call tells less than a fast one. One goroutine at a time calls it.
func (c *clock) observe(theirs, sent, received time.Time) {
	took := received.Sub(sent)
	now := theirs.Add(took / 2)
	if c.last.Load() != nil {
		now = c.at(received)
		if now.Before(theirs) {
			now = theirs
		}
		if latest := theirs.Add(took); now.After(latest) {
			now = latest
		}
	}
	c.last.Store(&reading{theirs: now, ours: received})
}

// skewTell is the difference of clocks from which on it is told.
const skewTell = time.Second

// tellSkew logs a difference of the clocks when it appears, changes by as much again, and goes.
func (sh *shard) tellSkew(now time.Time) {
	ahead := sh.clock.ahead(now)
	switch large := ahead.Abs() >= skewTell; {
	case large && (ahead-sh.toldSkew).Abs() >= skewTell:
		sh.toldSkew = ahead
		sh.s.log.Warn().Str("code", "clock_skew").Dur("took", ahead).Str("next", "set the clock of this machine right, or that of redis").
			Msg("the clock of this machine is ahead of that of redis (behind it, where the number is negative): retries and holds go by redis, signatures and the log by this machine")
	case !large && sh.toldSkew != 0 && ahead.Abs() < skewTell/2:
		sh.toldSkew = 0
		sh.s.log.Info().Msg("the clocks of redis and of this machine agree again")
	}
}

var _ outbox.Clock = (*Store)(nil)

// At implements outbox.Clock: the clock of the first shard's server, where notes are.
func (s *Store) At(t time.Time) time.Time { return s.shards[0].clock.at(t) }
