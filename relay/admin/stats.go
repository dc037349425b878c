package admin

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"relay/ingest/problem"
	"relay/outbox"
	"relay/outbox/sketch"
	"relay/relay/query"
)

func (a *api) statRoutes() []route {
	return []route{{
		id: "getStatistics", method: "GET", path: "/v1/stats", verb: "relay stats", summary: "How deliveries ended and how long attempts took, over time",
		about: "Counts, rates and means are exact, percentiles have an error. Tests are left out. Hours are kept for 14 days, days for 400. " +
			"Without `since` it is the last day; with `step` the last day, 30 days, 12 weeks or 12 months. " +
			"`since` and `until` are rounded to whole hours, or days where hours are no longer kept; the answer has them. " +
			"`backlogs` has the most deliveries that were not over in each step, for 31 days.",
		filter: query.Stats, answer: Statistics{}, codes: filterCodes(), handle: a.showStatistics,
	}}
}

// Statistics are how deliveries ended in a time.
type Statistics struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	By    string    `json:"by,omitempty"`
	Step  string    `json:"step,omitempty"`

	PercentileError float64 `json:"percentile_error"` // relative, at most: 0.02 is 2 %

	Total StatRow   `json:"total"`
	Rows  []StatRow `json:"rows"` // of by and step, by time and then by name; those without anything are left out

	Backlogs []BacklogStep `json:"backlogs,omitempty"` // of step without by, of all or of one endpoint; steps of which nothing is known are left out
}

// BacklogStep is the most deliveries that were not over, of looks once a minute.
type BacklogStep struct {
	Start time.Time `json:"start"`
	Most  int64     `json:"most"`
}

// StatRow is one row of statistics. A delivery is counted in the hour in which it ended, an attempt in that of its own end.
type StatRow struct {
	Start    time.Time `json:"start,omitzero"` // of the step, in UTC
	Endpoint *string   `json:"endpoint,omitempty"`
	Type     *string   `json:"type,omitempty"` // of events
	Tenant   *string   `json:"tenant,omitempty"`

	Ended     int64 `json:"ended"` // deliveries: delivered, failed and discarded
	Delivered int64 `json:"delivered"`
	Failed    int64 `json:"failed"`
	Discarded int64 `json:"discarded"`

	SuccessRate  *float64 `json:"success_rate"`   // delivered of those delivered or failed, 0 to 1; null if there are none
	FirstTryRate *float64 `json:"first_try_rate"` // delivered by the first attempt, of the same

	Attempts     int64    `json:"attempts"`
	MeanAttempts *float64 `json:"mean_attempts"` // for each delivery that was delivered or failed
	TookMS       *Took    `json:"took_ms"`       // by attempts; null if there are none

	Backlog *Backlog `json:"backlog,omitempty"` // at present; of the total, and of the rows of endpoints without step
}

// Took has durations of attempts, in milliseconds.
type Took struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
}

// Backlog is the deliveries that are not over.
type Backlog struct {
	Count Total `json:"count"`  // pending and held
	AgeMS *Ages `json:"age_ms"` // null if there are none, if types or tenants are asked for, or where finding out would take too long
}

// Ages are how long ago deliveries of a backlog were accepted, in milliseconds. Those of several endpoints are within 5 % of the rank.
type Ages struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
}

const (
	maxStatRows = 10_000
	day         = 24 * time.Hour
	agesTime    = 500 * time.Millisecond // for the ages of all backlogs
)

func (a *api) showStatistics(w http.ResponseWriter, r *http.Request) {
	out, err := a.statistics(r)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	answer(w, http.StatusOK, out)
}

func (a *api) statistics(r *http.Request) (*Statistics, error) {
	q, err := a.parse(r, query.Stats)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), recordTimeout)
	defer cancel()
	ask, err := q.Statistics(ctx, a.surroundings())
	if err != nil {
		return nil, err
	}
	if ask.Span, err = statSpan(q, time.Now()); err != nil {
		return nil, err
	}
	stats, err := a.Records.Statistics(ctx, ask)
	if err != nil {
		return nil, err
	}
	out := &Statistics{Since: ask.Since, Until: ask.Until, By: q.By, Step: q.Step, PercentileError: sketch.Accuracy}
	groups, err := group(stats, q)
	if err != nil {
		return nil, err
	}
	var total outbox.Stat
	for _, g := range groups {
		total.Add(&g.Stat)
		if q.By != "" || q.Step != "" {
			out.Rows = append(out.Rows, g.row(q))
		}
	}
	out.Total = row(&total)
	if out.Rows == nil {
		out.Rows = []StatRow{}
	}
	if err := a.addBacklogSteps(ctx, q, ask, out); err != nil || !q.Backlog {
		return out, err
	}
	return out, a.addBacklogs(ctx, q, ask.Endpoints, out)
}

// statSpan is the time of statistics, in whole hours or days.
func statSpan(q *query.Query, now time.Time) (outbox.Span, error) {
	s := q.Span
	if s.Until.IsZero() {
		s.Until = now
	}
	if s.Since.IsZero() {
		back := map[string]time.Duration{"": day, "hour": day, "day": 30 * day, "week": 84 * day, "month": 365 * day}[q.Step]
		s.Since = s.Until.Add(-back)
	}
	if q.Step == "hour" && s.Since.Before(now.Add(-outbox.HourlyFor-time.Hour)) {
		return s, refusal(problem.InvalidParameter, "step", "step hour goes back 14 days, as long as hours are kept: write step=day, or since=14d")
	}
	unit := func(t time.Time) time.Duration {
		if t.Before(now.Add(day - outbox.HourlyFor)) {
			return day
		}
		return time.Hour
	}
	s.Since = s.Since.UTC().Truncate(unit(s.Since))
	if u := unit(s.Until); s.Until.Truncate(u) != s.Until {
		s.Until = s.Until.Truncate(u).Add(u)
	}
	s.Until = s.Until.UTC()
	return s, nil
}

// statGroup is the sum of the statistics that share a row.
type statGroup struct {
	outbox.Stat
	start time.Time
	name  string // endpoint, type or tenant
}

// group adds up statistics by what the query asks for.
func group(stats []outbox.Stat, q *query.Query) ([]*statGroup, error) {
	type key struct {
		start int64
		name  string
	}
	groups := map[key]*statGroup{}
	for i := range stats {
		s := &stats[i]
		if !q.TypeLike(s.Type) {
			continue
		}
		g := &statGroup{start: stepStart(s.Start, q.Step), name: map[string]string{"endpoint": s.Endpoint, "type": s.Type, "tenant": s.Tenant}[q.By]}
		k := key{g.start.Unix(), g.name}
		if groups[k] == nil {
			if len(groups) == maxStatRows {
				return nil, refusal(problem.InvalidParameter, "since", fmt.Sprintf("since gives more than %d rows: ask for less time, a longer step or fewer endpoints", maxStatRows))
			}
			groups[k] = g
		}
		groups[k].Add(s)
	}
	var all []*statGroup
	for _, g := range groups {
		all = append(all, g)
	}
	slices.SortFunc(all, func(a, b *statGroup) int { return cmp.Or(a.start.Compare(b.start), cmp.Compare(a.name, b.name)) })
	return all, nil
}

// stepStart is the beginning of the step that has t; the zero time without steps.
func stepStart(t time.Time, step string) time.Time {
	t = t.UTC()
	date := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	switch step {
	case "hour":
		return t.Truncate(time.Hour)
	case "day":
		return date
	case "week":
		return date.AddDate(0, 0, -(int(date.Weekday())+6)%7)
	case "month":
		return date.AddDate(0, 0, 1-date.Day())
	}
	return time.Time{}
}

func (g *statGroup) row(q *query.Query) StatRow {
	out := row(&g.Stat)
	out.Start = g.start
	switch q.By {
	case "endpoint":
		out.Endpoint = &g.name
	case "type":
		out.Type = &g.name
	case "tenant":
		out.Tenant = &g.name
	}
	return out
}

func row(s *outbox.Stat) StatRow {
	out := StatRow{Ended: s.Delivered + s.Failed + s.Discarded, Delivered: s.Delivered, Failed: s.Failed, Discarded: s.Discarded, Attempts: s.Attempts}
	if tried := s.Delivered + s.Failed; tried > 0 {
		share := func(n int64) *float64 { return new(float64(n) / float64(tried)) }
		out.SuccessRate, out.FirstTryRate, out.MeanAttempts = share(s.Delivered), share(s.FirstTry), share(s.Attempts)
	}
	if s.Took.Count() > 0 {
		out.TookMS = &Took{Mean: millis(s.Took.Mean()), P50: millis(s.Took.Quantile(0.5)), P95: millis(s.Took.Quantile(0.95)), P99: millis(s.Took.Quantile(0.99))}
	}
	return out
}
