package outbox

import (
	"context"
	"time"

	"relay/outbox/sketch"
)

// Statistics is the part of an engine that remembers how deliveries ended.
//
//	G25 Counts are exact: each end of a delivery and each attempt is counted once, in the hour (by the wall clock) of its settlement, over Reopen too. Hours are rolled
//	    up to days (UTC) after HourlyFor and kept for DailyFor. Sums over rows are those of the whole.
type Statistics interface {
	// Statistics returns the rows that match q, in the order of Start. Errors: ErrUnavailable, ErrClosed, the
	// context's.
	Statistics(ctx context.Context, q StatQuery) ([]Stat, error)
}

const (
	// HourlyFor is how long statistics are kept by hour.
	HourlyFor = 14 * 24 * time.Hour
	// DailyFor is how long statistics are kept by day.
	DailyFor = 400 * 24 * time.Hour

	// MaxStatKeys bounds the combinations of endpoint, type and tenant in an hour. What comes beyond is counted
	// with type and tenant "".
	MaxStatKeys = 20_000
)

// StatQuery selects rows.
type StatQuery struct {
	Span               // rows whose Start is in it
	Endpoints []string // one of these; nil for all
	Types     []string
	Tenants   []string
}

// Match tells whether the query holds for a row.
func (q *StatQuery) Match(s *Stat) bool {
	return q.Has(s.Start) && anyOf(q.Endpoints, s.Endpoint) && anyOf(q.Types, s.Type) && anyOf(q.Tenants, s.Tenant)
}

// Stat is a row of statistics: of one hour or day, endpoint, type and tenant. Deliveries are counted when they end,
// attempts when they are settled. What Editor.Record stored is left out.
type Stat struct {
	Start                  time.Time     // of the hour or day, UTC
	Step                   time.Duration // an hour, or 24 hours
	Endpoint, Type, Tenant string

	Delivered, Failed, Discarded int64 // deliveries that ended
	FirstTry                     int64 // of Delivered: with the first attempt
	Attempts                     int64
	Took                         sketch.Sketch // durations of the attempts
}

// Add adds the counts of o.
func (s *Stat) Add(o *Stat) {
	s.Delivered += o.Delivered
	s.Failed += o.Failed
	s.Discarded += o.Discarded
	s.FirstTry += o.FirstTry
	s.Attempts += o.Attempts
	s.Took.Merge(&o.Took)
}
