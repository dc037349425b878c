package outboxtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"relay/outbox"
	"relay/outbox/sketch"
)

// statistics returns rows, which must be in order and about different things.
func (s *suite) statistics(q outbox.StatQuery) []outbox.Stat {
	s.Helper()
	rows, err := s.operator().Statistics(s.ctx(), q)
	if err != nil {
		s.Fatalf("Statistics: %v", err)
	}
	seen := map[statKey]bool{}
	for i, r := range rows {
		if i > 0 && r.Start.Before(rows[i-1].Start) {
			s.Errorf("row of %v comes after %v", r.Start, rows[i-1].Start)
		}
		key := statKey{r.Start, r.Step, r.Endpoint, r.Type, r.Tenant}
		if seen[key] {
			s.Errorf("two rows are about %+v", key)
		}
		seen[key] = true
		if r.Step != time.Hour && r.Step != day || !r.Start.Equal(r.Start.Truncate(r.Step)) || r.Start.Location() != time.UTC {
			s.Errorf("row of %v at %v", r.Step, r.Start)
		}
		if r.Took.Count() != r.Attempts {
			s.Errorf("row of %v: %d durations of %d attempts", r.Start, r.Took.Count(), r.Attempts)
		}
		if !q.Match(&r) {
			s.Errorf("row %+v does not match %+v", r, q)
		}
	}
	return rows
}

// tally is what rows of statistics count, by endpoint, type and tenant, whenever it was.
type tally map[string]*outbox.Stat

func (t tally) of(endpoint, kind, tenant string) *outbox.Stat {
	key := endpoint + "|" + kind + "|" + tenant
	if t[key] == nil {
		t[key] = &outbox.Stat{Endpoint: endpoint, Type: kind, Tenant: tenant}
	}
	return t[key]
}

// totals adds rows up.
func totals(rows []outbox.Stat) tally {
	t := tally{}
	for _, r := range rows {
		t.of(r.Endpoint, r.Type, r.Tenant).Add(&r)
	}
	return t
}

// end is what settles a claim in a tally.
func (t tally) attempt(c outbox.Claim, state outbox.State, took time.Duration) {
	row := t.of(c.Endpoint, c.Event.Type, c.Event.Tenant)
	row.Attempts++
	row.Took.Add(took)
	t.end(row, state, c.Attempts == 0)
}

func (t tally) end(row *outbox.Stat, state outbox.State, first bool) {
	switch state {
	case outbox.Delivered:
		row.Delivered++
		if first {
			row.FirstTry++
		}
	case outbox.Failed:
		row.Failed++
	case outbox.Discarded:
		row.Discarded++
	}
}

// wantTally compares counts exactly, and durations as far as a sketch knows them.
func (s *suite) wantTally(want tally, rows []outbox.Stat) {
	s.Helper()
	got := totals(rows)
	for key := range got {
		if want[key] == nil {
			s.Errorf("statistics count %s, of which nothing happened", key)
		}
	}
	for key, w := range want {
		g := got[key]
		if g == nil {
			g = &outbox.Stat{}
		}
		counts := func(r *outbox.Stat) [6]int64 {
			return [6]int64{r.Delivered, r.Failed, r.Discarded, r.FirstTry, r.Attempts, int64(r.Took.Mean())}
		}
		s.want("delivered, failed, discarded, at first try, attempts and mean of "+key, counts(w), counts(g))
		for _, q := range []float64{0.5, 0.95, 1} {
			s.want(fmt.Sprintf("quantile %v of %s", q, key), w.Took.Quantile(q), g.Took.Quantile(q))
		}
	}
}

// settleCounted settles a claim and counts it.
func (s *suite) settleCounted(t tally, c outbox.Claim, state outbox.State) {
	s.Helper()
	a := detailedAttempt(c.Attempts+1, state)
	a.Took = time.Duration(1+rand.IntN(5_000_000)) * time.Microsecond
	if err := s.store.Settle(s.ctx(), c, outbox.Settlement{Attempt: a, State: state, Due: time.Now()}); err != nil {
		s.Fatalf("Settle: %v", err)
	}
	t.attempt(c, state, a.Took)
}

// typed is an event with type and tenant.
func typed(id, kind, tenant string, endpoints ...string) outbox.Entry {
	e := entry(id, endpoints...)
	e.Event.Type, e.Event.Tenant = kind, tenant
	return e
}

func testStatistics(s *suite) {
	want := tally{}
	s.wantTally(want, s.statistics(outbox.StatQuery{}))
	states := []outbox.State{outbox.Delivered, outbox.Pending, outbox.Failed, outbox.Delivered, outbox.Discarded, outbox.Pending, outbox.Delivered}
	for n := range 60 {
		e := typed(fmt.Sprintf("evt_%d", n), []string{"order.paid", "order.created"}[n%2], []string{"", "acme", "é"}[n%3], "a", "b")
		if n%10 == 0 {
			e.Terms = []outbox.Term{{Code: "when_error"}, {}}
			want.end(want.of("a", e.Event.Type, e.Event.Tenant), outbox.Failed, false)
		}
		s.accept(e)
		for i, endpoint := range []string{"a", "b"} {
			if n%10 == 0 && endpoint == "a" {
				continue
			}
			s.settleCounted(want, s.claimOne(endpoint), states[(n+i)%len(states)])
		}
	}
	s.commit()
	s.wantTally(want, s.statistics(outbox.StatQuery{}))
	s.reopen()
	s.wantTally(want, s.statistics(outbox.StatQuery{}))

	// An operator's discards and redeliveries count, and what is repeated does not.
	s.accept(typed("evt_discarded", "order.paid", "acme", "c"))
	discard := outbox.Change{Action: outbox.Discard, Delivery: s.deliveryIDs("evt_discarded")[0], Code: "x"}
	s.editAll(discard, discard)
	want.end(want.of("c", "order.paid", "acme"), outbox.Discarded, false)
	s.editAll(outbox.Change{Action: outbox.Redeliver, Delivery: discard.Delivery})
	s.settleCounted(want, s.claimOne("c"), outbox.Pending)
	s.settleCounted(want, s.claimOne("c"), outbox.Delivered)
	s.accept(typed("evt_erased", "order.paid", "", "d"))
	s.editAll(outbox.Change{Action: outbox.Erase, Event: "evt_erased", Force: true, Code: "x"})
	want.end(want.of("d", "order.paid", ""), outbox.Discarded, false)
	s.commit()
	s.wantTally(want, s.statistics(outbox.StatQuery{}))

	// Sums are the counts; what is reaped stays counted.
	s.elapse(time.Millisecond)
	s.reap(outbox.Retention{})
	s.reopen()
	rows := s.statistics(outbox.StatQuery{})
	s.wantTally(want, rows)
	var sum outbox.Stat
	for i := range rows {
		sum.Add(&rows[i])
	}
	var delivered, failed, discarded int64
	for _, c := range s.counts() {
		delivered, failed, discarded = delivered+c.Delivered, failed+c.Failed, discarded+c.Discarded
	}
	s.want("sums", [3]int64{delivered, failed, discarded}, [3]int64{sum.Delivered, sum.Failed, sum.Discarded})
}

func testStatisticsQueries(s *suite) {
	for n := range 12 {
		endpoint := []string{"a", "b", "c"}[n%3]
		s.accept(typed(fmt.Sprintf("evt_%d", n), []string{"t", "u"}[n%2], []string{"x", "", "y"}[n/4], endpoint))
		s.settle(s.claimOne(endpoint), outbox.Delivered)
	}
	s.commit()
	all := s.statistics(outbox.StatQuery{})
	now := time.Now().UTC()
	hour := now.Truncate(time.Hour)
	for name, q := range map[string]outbox.StatQuery{
		"all":             {},
		"endpoint":        {Endpoints: []string{"b"}},
		"endpoints":       {Endpoints: []string{"c", "a", "unknown"}},
		"no endpoint":     {Endpoints: []string{}},
		"type":            {Types: []string{"t"}},
		"tenant":          {Tenants: []string{"y"}},
		"no tenant":       {Tenants: []string{""}},
		"three":           {Endpoints: []string{"a"}, Types: []string{"t"}, Tenants: []string{"x", ""}},
		"unknown":         {Types: []string{"v"}},
		"since":           {Span: outbox.Span{Since: hour.Add(-time.Hour)}},
		"since later":     {Span: outbox.Span{Since: now.Add(2 * time.Hour)}},
		"until":           {Span: outbox.Span{Until: now.Add(time.Hour)}},
		"until before":    {Span: outbox.Span{Until: hour.Add(-time.Hour)}},
		"since and until": {Span: outbox.Span{Since: hour.Add(-time.Hour), Until: now.Add(time.Hour)}, Endpoints: []string{"a"}},
	} {
		want := tally{}
		for _, r := range all {
			if q.Match(&r) {
				want.of(r.Endpoint, r.Type, r.Tenant).Add(&r)
			}
		}
		s.Logf("query by %s", name)
		s.wantTally(want, s.statistics(q))
	}
}

// testManyStatKeys: more types than are counted are counted together.
func testManyStatKeys(s *suite) {
	if s.engine.Bubble {
		s.elapse(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)) + time.Minute) // all in one hour
	}
	const n = outbox.MaxStatKeys + 1000
	for i := 0; i < n; i += 1000 {
		list := make([]outbox.Entry, 1000)
		for j := range list {
			list[j] = typed(fmt.Sprintf("evt_%d", i+j), fmt.Sprintf("type.%d", i+j), "", "a")
			list[j].Terms = []outbox.Term{{Code: "when_error"}}
		}
		s.accept(list...)
	}
	hours := map[time.Time]int{}
	var failed, together int64
	for _, r := range s.statistics(outbox.StatQuery{}) {
		failed += r.Failed
		hours[r.Start]++
		if r.Type == "" {
			together += r.Failed
		}
	}
	s.want("failed", int64(n), failed)
	if len(hours) == 1 { // else an hour ended amid the test
		s.want("counted together", int64(1000), together)
	}
	for hour, rows := range hours {
		if rows > outbox.MaxStatKeys+1 {
			s.Errorf("%d rows of %v", rows, hour)
		}
	}
}

// testStatisticsBesideWorkers: whatever is settled at one time, over a crash, is counted once.
func testStatisticsBesideWorkers(s *suite) {
	want := tally{}
	var mu sync.Mutex
	for round := range 3 {
		ctx, cancel := context.WithCancel(s.ctx())
		s.accept(entries(fmt.Sprintf("evt_%d_", round), 60, "a", "b")...)
		var workers sync.WaitGroup
		for w := range 4 {
			workers.Go(func() {
				for {
					claims, err := s.store.Claim(ctx, outbox.ClaimRequest{Endpoint: []string{"a", "b"}[w%2], Max: 3, Lease: long})
					if err != nil {
						return // the round is over
					}
					for i, c := range claims {
						state := []outbox.State{outbox.Delivered, outbox.Pending, outbox.Failed}[(i+c.Attempts)%3]
						mu.Lock()
						s.settleCounted(want, c, state)
						mu.Unlock()
					}
				}
			})
		}
		deadline := time.Now().Add(s.patience)
		for s.counts()["a"].Pending+s.counts()["b"].Pending > 0 {
			if time.Now().After(deadline) {
				s.Fatalf("deliveries still wait: %+v", s.counts())
			}
			s.elapse(time.Millisecond)
			s.commit()
		}
		cancel()
		workers.Wait()
		s.commit()
		s.reopen()
		s.wantTally(want, s.statistics(outbox.StatQuery{}))
	}
}

// testRollUp: hours become days, days end, and no sum changes but by that.
func testRollUp(s *suite) {
	type ended struct {
		at   time.Time
		took time.Duration
	}
	var all []ended
	n := 0
	settle := func() {
		n++
		s.accept(typed(fmt.Sprintf("evt_%d", n), "t", []string{"", "x"}[n%2], "a"))
		c := s.claimOne("a")
		a := detailedAttempt(1, outbox.Delivered)
		a.Took = time.Duration(n) * 37 * time.Millisecond
		if err := s.store.Settle(s.ctx(), c, outbox.Settlement{Attempt: a, State: outbox.Delivered}); err != nil {
			s.Fatalf("Settle: %v", err)
		}
		s.commit()
		all = append(all, ended{time.Now(), a.Took})
	}
	check := func() {
		s.Helper()
		s.reap(outbox.Retention{Delivered: time.Hour})
		now := time.Now()
		var sum outbox.Stat
		rows := s.statistics(outbox.StatQuery{})
		for i := range rows {
			r := &rows[i]
			age := now.Sub(r.Start)
			if r.Step == time.Hour && age > outbox.HourlyFor+2*day || r.Step == day && age < outbox.HourlyFor-day {
				s.Errorf("row of %v is %v old", r.Step, age)
			}
			if age > outbox.DailyFor+2*day {
				s.Errorf("row is %v old", age)
			}
			sum.Add(r)
			var delivered int64
			var took sketch.Sketch
			for _, e := range all {
				if !e.at.Before(r.Start) && e.at.Before(r.Start.Add(r.Step)) && (r.Tenant == "x") == (e.took/(37*time.Millisecond)%2 == 1) {
					delivered++
					took.Add(e.took)
				}
			}
			// The hours of a day may be rolled up one by one, so a day and its last hours add up.
			for _, other := range rows {
				if r.Step == day && other.Step == time.Hour && other.Start.Truncate(day).Equal(r.Start) && other.Tenant == r.Tenant {
					r.Add(&other)
				}
			}
			if r.Step == time.Hour && !r.Start.Truncate(day).Equal(now.Add(-outbox.HourlyFor).Truncate(day)) || r.Step == day {
				s.want(fmt.Sprintf("delivered in the %v at %v", r.Step, r.Start), delivered, r.Delivered)
				s.want("median", took.Quantile(0.5), r.Took.Quantile(0.5))
			}
		}
		var young int64
		for _, e := range all {
			if now.Sub(e.at) < outbox.DailyFor-day {
				young++
			}
		}
		if sum.Delivered < young || sum.Delivered > int64(len(all)) || sum.FirstTry != sum.Delivered {
			s.Errorf("statistics have %d deliveries, want %d to %d", sum.Delivered, young, len(all))
		}
	}
	for _, step := range []time.Duration{0, time.Minute, time.Hour, 5 * time.Hour, day, 5 * day, 9 * day, time.Hour, 10 * day, 200 * day, 190 * day, 30 * day} {
		s.elapse(step)
		settle()
		settle()
		check()
		s.reopen()
		check()
	}
	s.elapse(500 * day)
	check()
	s.want("rows after all", 0, len(s.statistics(outbox.StatQuery{})))
}
