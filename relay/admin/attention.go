package admin

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"relay/outbox"
	"relay/relay/deliver"
)

// EndpointSummary is about all endpoints that fit a query, on all pages.
type EndpointSummary struct {
	Attention int    `json:"attention"` // need a person: not in force, disabled, paused, failing, with an open breaker, far behind, or different at Relays of a fleet
	Pending   int64  `json:"pending"`   // deliveries that are due now or later
	Held      int64  `json:"held"`      // deliveries at endpoints that take none
	OldestMS  *int64 `json:"oldest_ms,omitempty"`
}

// farBehind is the age of an active endpoint's oldest delivery from which on it needs a person, in milliseconds.
const farBehind = int64(15 * time.Minute / time.Millisecond)

// attention is how much an endpoint needs a person; 0 for not at all. One that the file itself disables does so only if
// deliveries are held there.
func (e *Endpoint) attention() int {
	switch {
	case e.State == invalid, e.State == string(deliver.Disabled) && e.Code != "" && e.Code != "operator":
		return 4
	case e.Breaker == "open" || e.Breaker == "half_open" || e.fails():
		return 3
	case e.Agrees != nil && !*e.Agrees:
		return 3
	case (e.State == string(deliver.Disabled) || e.State == removed) && !e.Enabled && e.backlog() == 0:
		return 0
	case e.State != string(deliver.Active) && e.State != elsewhere:
		return 2
	case e.Deliveries.OldestMS != nil && *e.Deliveries.OldestMS > farBehind:
		return 1
	}
	return 0
}

// fails tells whether no attempt of an active endpoint delivered lately.
func (e *Endpoint) fails() bool { return e.State == string(deliver.Active) && e.Failing != nil }

func byAttention(a, b *Endpoint) int {
	return cmp.Or(cmp.Compare(b.attention(), a.attention()), cmp.Compare(b.backlog(), a.backlog()),
		cmp.Compare(b.Deliveries.Failed, a.Deliveries.Failed), cmp.Compare(a.Name, b.Name))
}

func summaryOf(all []Endpoint) *EndpointSummary {
	s := &EndpointSummary{}
	for i := range all {
		e := &all[i]
		if e.attention() > 0 {
			s.Attention++
		}
		s.Pending, s.Held = s.Pending+e.Deliveries.Pending, s.Held+e.Deliveries.Held
		if age := e.Deliveries.OldestMS; age != nil && (s.OldestMS == nil || *age > *s.OldestMS) {
			s.OldestMS = age
		}
	}
	return s
}

// maxWithStats is how many endpoints of a page can have statistics.
const maxWithStats = 100

// hourly is up to which time statistics of lists have a step for each hour; beyond it one for each day.
const hourly = 48 * time.Hour

// addStats adds statistics to each endpoint of a list.
func (a *api) addStats(r *http.Request, list *EndpointList, back time.Duration) error {
	if a.Records == nil || len(list.Endpoints) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), recordTimeout)
	defer cancel()
	step := time.Hour
	if back > hourly {
		step = day
	}
	since := time.Now().Add(-back).UTC().Truncate(step)
	at := map[string]*Endpoint{}
	q := outbox.StatQuery{Span: outbox.Span{Since: since}}
	for i := range list.Endpoints {
		e := &list.Endpoints[i]
		at[e.Name] = e
		q.Endpoints = append(q.Endpoints, e.Name)
	}
	rows, err := a.Records.Statistics(ctx, q)
	if err != nil {
		return err
	}
	sums := map[string]*outbox.Stat{}
	steps := map[string][]*outbox.Stat{} // rows come by time
	for i := range rows {
		s := &rows[i]
		if sums[s.Endpoint] == nil {
			sums[s.Endpoint] = &outbox.Stat{}
		}
		sums[s.Endpoint].Add(s)
		start := s.Start.UTC().Truncate(step)
		all := steps[s.Endpoint]
		if j := slices.IndexFunc(all, func(t *outbox.Stat) bool { return t.Start.Equal(start) }); j >= 0 {
			all[j].Add(s)
			continue
		}
		one := &outbox.Stat{Start: start}
		one.Add(s)
		steps[s.Endpoint] = append(all, one)
	}
	for name, e := range at {
		e.Stats = statsOf(e, since, sums[name])
		e.Stats.Steps = []StatRow{}
		slices.SortFunc(steps[name], func(a, b *outbox.Stat) int { return a.Start.Compare(b.Start) })
		for _, s := range steps[name] {
			one := row(s)
			one.Start = s.Start
			e.Stats.Steps = append(e.Stats.Steps, one)
		}
	}
	return nil
}

// statsOf are the statistics of an endpoint since a time; sum is nil if there is nothing.
func statsOf(e *Endpoint, since time.Time, sum *outbox.Stat) *EndpointStats {
	if sum == nil {
		sum = &outbox.Stat{}
	}
	r := row(sum)
	pending := e.backlog()
	out := &EndpointStats{
		Since: since, Total: r.Ended + pending, Delivered: r.Delivered, Failed: r.Failed, Discarded: r.Discarded, Pending: pending,
		SuccessRate: r.SuccessRate,
	}
	if r.TookMS != nil {
		out.MeanMS, out.P95MS = &r.TookMS.Mean, &r.TookMS.P95
	}
	return out
}

// statsBack reads how far statistics of a list go back: hours or days.
func statsBack(text string) (time.Duration, bool) {
	unit := time.Hour
	number, ok := strings.CutSuffix(text, "h")
	if !ok {
		if number, ok = strings.CutSuffix(text, "d"); !ok {
			return 0, false
		}
		unit = day
	}
	n, err := between(number, 1, 400)
	return time.Duration(n) * unit, err == nil
}
