// Package query reads the filter with which operators select deliveries. A query string, the body
// of a route that acts on many deliveries, the flags of verbs and the stored text of a job have the same names
// and values; Params is the one table of them.
package query

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"relay/ingest/problem"
	"relay/outbox"
)

// Query is a filter that was read, and with Lists the page that is asked for. Make one with a
// Parser. It is read only.
type Query struct {
	Oldest bool   // oldest accept first
	Limit  int    // 1 to outbox.MaxPage; DefaultLimit unless given
	Offset int    // 0 to outbox.MaxOffset
	Cursor string // the engine's, "" for the first page
	Total  bool   // the answer has the number of all pages' items

	Backlog bool // statistics have the present backlog

	Rate int // of a tail: attempts in a second, 0 for all

	By   string        // of statistics: "", endpoint, type or tenant
	Step string        // of statistics: "", hour, day, week or month
	Span outbox.Span   // since and until
	now  time.Time     // that durations are counted back from
	asks url.Values    // as given
	find outbox.Filter // without States, and with Endpoints as given

	states []string
	labels []label
	cursor string // as given

	within url.Values // replaces what was given; see Within
}

// Within is the query for deliveries of these tenants and endpoints alone; nil for all of them. Its cursors are those of q.
func (q *Query) Within(tenants, endpoints []string) *Query {
	narrow := *q
	narrow.within = url.Values{}
	if tenants != nil {
		narrow.find.Tenants = both(q.find.Tenants, tenants)
		narrow.within["tenant"] = narrow.find.Tenants
	}
	if endpoints != nil {
		narrow.find.Endpoints = both(q.find.Endpoints, endpoints)
		narrow.within["endpoint"] = narrow.find.Endpoints
	}
	return &narrow
}

// Nothing tells whether no delivery can match, because Within left nothing.
func (q *Query) Nothing() bool {
	for _, left := range q.within {
		if len(left) == 0 {
			return true
		}
	}
	return false
}

type label struct{ name, value string }

// DefaultLimit is how many items a page has unless the query says so.
const DefaultLimit = 20

// Values is the filter as a query string, as it was given. Durations stay durations. A page
// that shows the filter in its address uses it.
func (q *Query) Values() url.Values {
	all := maps.Clone(q.asks)
	maps.Copy(all, q.within)
	delete(all, "cursor")
	return all
}

// Fixed is Values with times instead of durations, so that it means the same later. A job keeps it.
func (q *Query) Fixed() url.Values {
	all := q.Values()
	for name, t := range map[string]*time.Time{
		"since": &q.Span.Since, "until": &q.Span.Until,
		"attempted_since": &q.find.Attempted.Since, "attempted_until": &q.find.Attempted.Until,
	} {
		if all.Has(name) {
			all.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	return all
}

// All tells whether the filter selects every delivery.
func (q *Query) All() bool {
	for name := range q.asks {
		if p := param(name); p.Use&Bulk != 0 {
			return false
		}
	}
	return true
}

// Next is the cursor of the next page, made of the engine's; "" for "". It holds the time
// that durations are counted back from, so that all pages have the same bounds.
func (q *Query) Next(engine string) string {
	if engine == "" {
		return ""
	}
	return strconv.FormatInt(q.now.UnixMicro(), 36) + "." + q.digest() + "." + engine
}

// digest differs for another filter or order.
func (q *Query) digest() string {
	h := fnv.New32a()
	for _, name := range slices.Sorted(maps.Keys(q.asks)) {
		if name != "cursor" && name != "limit" && name != "offset" && name != "total" {
			fmt.Fprintf(h, "%q%q", name, q.asks[name])
		}
	}
	return strconv.FormatUint(uint64(h.Sum32()), 36)
}

// Surroundings are what a filter depends on, besides its own text. They may differ from one moment
// to the next.
type Surroundings struct {
	// Held lists the endpoints that take no deliveries now: paused, disabled or removed.
	Held func(context.Context) ([]string, error)

	// Labelled lists the endpoints that have a label with this value.
	Labelled func(name, value string) []string
}

// Filter is the query for an engine, with the present state of endpoints. It returns the errors of Surroundings.
func (q *Query) Filter(ctx context.Context, s Surroundings) (outbox.Filter, error) {
	f := q.find
	for _, l := range q.labels {
		f.Endpoints = both(f.Endpoints, s.Labelled(l.name, l.value))
	}
	has := func(state string) bool { return slices.Contains(q.states, state) }
	for _, state := range q.states {
		if state != held {
			f.States = append(f.States, outbox.State(state))
		}
	}
	switch {
	case has(held) == has(string(outbox.Pending)): // neither, or all that are not over
		return f, nil
	case s.Held == nil:
		return f, fmt.Errorf("which endpoints are held is not known")
	}
	names, err := s.Held(ctx)
	if err != nil {
		return f, err
	}
	if has(held) {
		f.States = []outbox.State{outbox.Pending}
		f.Endpoints = both(f.Endpoints, names)
	} else {
		f.Except = names
	}
	return f, nil
}

// both is what two lists have in common. A nil one is no list, and has all.
func both(a, b []string) []string {
	if a == nil {
		return append([]string{}, b...)
	}
	in := make(map[string]bool, len(b))
	for _, name := range b {
		in[name] = true
	}
	common := []string{}
	for _, name := range a {
		if in[name] {
			common = append(common, name)
		}
	}
	return common
}

// Page is the query for outbox.History.
func (q *Query) Page(ctx context.Context, s Surroundings) (outbox.Query, error) {
	f, err := q.Filter(ctx, s)
	return outbox.Query{Filter: f, Oldest: q.Oldest, Limit: q.Limit, Cursor: q.Cursor, Offset: q.Offset}, err
}

// Statistics is the query for outbox.Statistics, without a bound on types that patterns ask for: see TypeLike.
func (q *Query) Statistics(ctx context.Context, s Surroundings) (outbox.StatQuery, error) {
	f, err := q.Filter(ctx, s)
	return outbox.StatQuery{Span: q.Span, Endpoints: f.Endpoints, Types: f.Types, Tenants: f.Tenants}, err
}

// OfEvents tells whether the query selects by types or tenants of events, not by endpoints alone.
func (q *Query) OfEvents() bool {
	return q.find.Types != nil || q.find.TypeLike != nil || q.find.Tenants != nil
}

// TypeLike tells whether the query holds for an event type.
func (q *Query) TypeLike(eventType string) bool {
	return (q.find.TypeLike == nil || q.find.TypeLike(eventType)) && (q.find.Types == nil || slices.Contains(q.find.Types, eventType))
}

// Error is a refusal of a query. It may quote names and values that the caller gave.
type Error struct {
	Code   problem.Code
	Field  string // name of the parameter
	Detail string
}

func (e *Error) Error() string { return e.Detail }

// Problem is the refusal as an answer.
func (e *Error) Problem() *problem.Problem {
	p := problem.New(e.Code, e.Detail)
	p.Field = e.Field
	return p
}

// quote shortens what a caller gave.
func quote(s string) string {
	if len(s) > 64 {
		s = strings.ToValidUTF8(s[:64], "") + "…"
	}
	return strconv.Quote(s)
}
