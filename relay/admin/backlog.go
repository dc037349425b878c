package admin

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"relay/internal/sorting"
	"relay/outbox"
	"relay/relay/query"
)

// addBacklogs adds the present backlogs to the total of statistics and, without step, to the rows of endpoints. endpoints are
// those that are asked for; nil for all.
func (a *api) addBacklogs(ctx context.Context, q *query.Query, endpoints []string, out *Statistics) error {
	if q.OfEvents() {
		f, err := q.Filter(ctx, a.surroundings())
		if err != nil {
			return err
		}
		f.States = []outbox.State{outbox.Pending}
		n, err := a.count(ctx, f)
		out.Total.Backlog = &Backlog{Count: n}
		return err
	}
	counts, err := a.Outbox.Counts(ctx)
	if err != nil {
		return err
	}
	if endpoints == nil {
		endpoints = slices.Collect(maps.Keys(counts))
	}
	pending := map[string]int64{}
	for _, name := range endpoints {
		if n := counts[name].Pending; n > 0 {
			pending[name] = n
		}
	}
	b := backlogs{pending: pending, ages: map[string][]time.Duration{}}
	if err := b.ask(ctx, a.Records); err != nil {
		return err
	}
	out.Total.Backlog = b.of(slices.Sorted(maps.Keys(pending)))
	if q.By == "endpoint" && q.Step == "" {
		out.addRows(&b)
	}
	return nil
}

// addBacklogSteps adds how many deliveries were not over in each step. Of several endpoints, types or tenants the most at one time is
// not known.
func (a *api) addBacklogSteps(ctx context.Context, q *query.Query, ask outbox.StatQuery, out *Statistics) error {
	if a.Backlogs == nil || q.Step == "" || q.By != "" || q.OfEvents() || ask.Endpoints != nil && len(ask.Endpoints) != 1 {
		return nil
	}
	endpoint := ""
	if len(ask.Endpoints) == 1 {
		endpoint = ask.Endpoints[0]
	}
	hours, err := a.Backlogs(ctx, ask.Span, endpoint)
	if err != nil {
		return err
	}
	for _, h := range hours {
		start := stepStart(h.Start, q.Step)
		if last := len(out.Backlogs) - 1; last >= 0 && out.Backlogs[last].Start.Equal(start) {
			out.Backlogs[last].Most = max(out.Backlogs[last].Most, h.Most)
			continue
		}
		out.Backlogs = append(out.Backlogs, BacklogStep{start, h.Most})
	}
	return nil
}

// addRows adds each endpoint's backlog to its row. One that has nothing else gets a row.
func (out *Statistics) addRows(b *backlogs) {
	has := map[string]bool{}
	for i := range out.Rows {
		has[*out.Rows[i].Endpoint] = true
	}
	for name := range b.pending {
		if !has[name] {
			out.Rows = append(out.Rows, StatRow{Endpoint: &name})
		}
	}
	sorting.By(out.Rows, func(a, b StatRow) int { return cmp.Compare(*a.Endpoint, *b.Endpoint) })
	for i := range out.Rows {
		out.Rows[i].Backlog = b.of([]string{*out.Rows[i].Endpoint})
	}
}

// backlogs are the deliveries of endpoints that are not over.
type backlogs struct {
	pending map[string]int64
	ages    map[string][]time.Duration // at quantiles; of fewer endpoints, if asking took too long
}

// quantiles are the shares at which ages are asked for. Each stands for as many deliveries.
func quantiles() []float64 {
	var all []float64
	for i := 1; i <= 20; i++ {
		all = append(all, float64(i)/20)
	}
	return append(all[:19], 0.99, 1)
}

// ask asks for the ages of all endpoints, for agesTime.
func (b *backlogs) ask(ctx context.Context, h outbox.History) error {
	limited, cancel := context.WithTimeout(ctx, agesTime)
	defer cancel()
	for name := range b.pending {
		ages, err := h.Ages(limited, name, quantiles())
		switch {
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			return nil
		case err != nil:
			return err
		case ages != nil:
			b.ages[name] = ages
		default:
			delete(b.pending, name) // it ended meanwhile
		}
	}
	return nil
}

// of is the backlog of some endpoints together.
func (b *backlogs) of(names []string) *Backlog {
	out := &Backlog{}
	var all []weighted
	known := true
	for _, name := range names {
		n := b.pending[name]
		out.Count.N += n
		if ages := b.ages[name]; len(ages) == len(quantiles()) {
			all = appendWeighted(all, ages, n)
		} else if n > 0 {
			known = false
		}
	}
	if known && len(all) > 0 {
		sorting.By(all, func(a, b weighted) int { return cmp.Compare(a.age, b.age) })
		out.AgeMS = &Ages{P50: millis(at(all, 0.5)), P90: millis(at(all, 0.9)), P99: millis(at(all, 0.99))}
	}
	return out
}

// weighted is an age that stands for a number of deliveries.
type weighted struct {
	age    time.Duration
	weight float64
}

func appendWeighted(all []weighted, ages []time.Duration, n int64) []weighted {
	before := 0.0
	for i, q := range quantiles() {
		all = append(all, weighted{ages[i], (q - before) * float64(n)})
		before = q
	}
	return all
}

// at is the age that a share of the deliveries does not exceed. all is sorted.
func at(all []weighted, share float64) time.Duration {
	total := 0.0
	for _, w := range all {
		total += w.weight
	}
	sum := 0.0
	for _, w := range all {
		if sum += w.weight; sum >= share*total*(1-1e-9) {
			return w.age
		}
	}
	return all[len(all)-1].age
}
