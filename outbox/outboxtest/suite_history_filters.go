package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"relay/outbox"
)

// condition is one thing that a filter can ask for.
type condition struct {
	name string
	set  func(f *outbox.Filter, i *outbox.Item) // so that it holds for i
}

func (p *past) conditions() []condition {
	ended := func(t time.Time) time.Time { return t.Add(time.Microsecond) }
	return []condition{
		{"endpoint", func(f *outbox.Filter, i *outbox.Item) { f.Endpoints = []string{i.Endpoint} }},
		{"endpoints", func(f *outbox.Filter, i *outbox.Item) { f.Endpoints = []string{"unknown", i.Endpoint, "c", i.Endpoint} }},
		{"except", func(f *outbox.Filter, i *outbox.Item) {
			f.Except = slices.DeleteFunc([]string{"a", "b", "unknown"}, func(name string) bool { return name == i.Endpoint })
		}},
		{"state", func(f *outbox.Filter, i *outbox.Item) { f.States = []outbox.State{i.State} }},
		{"states", func(f *outbox.Filter, i *outbox.Item) { f.States = []outbox.State{outbox.Delivered, i.State} }},
		{"type", func(f *outbox.Filter, i *outbox.Item) { f.Types = []string{i.Type} }},
		{"types", func(f *outbox.Filter, i *outbox.Item) { f.Types = []string{"unknown", i.Type, "order.paid"} }},
		{"type like", func(f *outbox.Filter, i *outbox.Item) {
			f.TypeLike = func(name string) bool { return strings.HasPrefix(name, i.Type[:5]) }
		}},
		{"event", func(f *outbox.Filter, i *outbox.Item) { f.Event = i.EventID }},
		{"tenant", func(f *outbox.Filter, i *outbox.Item) { f.Tenants = []string{i.Tenant} }},
		{"tenants", func(f *outbox.Filter, i *outbox.Item) { f.Tenants = []string{"t1", i.Tenant} }},
		{"key", func(f *outbox.Filter, i *outbox.Item) { f.Key = i.Key }},
		{"field", func(f *outbox.Filter, i *outbox.Item) { f.Fields = i.Fields[:min(1, len(i.Fields))] }},
		{"fields", func(f *outbox.Filter, i *outbox.Item) { f.Fields = i.Fields }},
		{"status", func(f *outbox.Filter, i *outbox.Item) {
			if i.Last != nil {
				f.Status = outbox.Range{Min: i.Last.Status, Max: i.Last.Status}
			}
		}},
		{"statuses", func(f *outbox.Filter, i *outbox.Item) {
			if i.Last != nil && i.Last.Status > 0 {
				f.Status = outbox.Range{Min: i.Last.Status / 100 * 100, Max: i.Last.Status/100*100 + 99}
			}
		}},
		{"code", func(f *outbox.Filter, i *outbox.Item) { f.Code = i.Code }},
		{"attempts", func(f *outbox.Filter, i *outbox.Item) { f.Attempts = outbox.Range{Min: i.Attempts, Max: i.Attempts} }},
		{"least attempts", func(f *outbox.Filter, i *outbox.Item) { f.Attempts = outbox.Range{Min: i.Attempts} }},
		{"manual", func(f *outbox.Filter, i *outbox.Item) { f.Manual = &i.Manual }},
		{"resent", func(f *outbox.Filter, i *outbox.Item) { f.Resent = &i.Resent }},
		{"accepted since", func(f *outbox.Filter, i *outbox.Item) { f.Accepted.Since = i.Created }},
		{"accepted until", func(f *outbox.Filter, i *outbox.Item) { f.Accepted.Until = ended(i.Created) }},
		{"accepted", func(f *outbox.Filter, i *outbox.Item) {
			f.Accepted = outbox.Span{Since: i.Created, Until: ended(i.Created)}
		}},
		{"attempted since", func(f *outbox.Filter, i *outbox.Item) {
			if i.Last != nil {
				f.Attempted.Since = i.Last.Started
			}
		}},
		{"attempted until", func(f *outbox.Filter, i *outbox.Item) {
			if i.Last != nil {
				f.Attempted.Until = ended(i.Last.Started)
			}
		}},
	}
}

// vain are filters that hold for nothing, or for all.
func vain() map[string]outbox.Filter {
	past := time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	return map[string]outbox.Filter{
		"all":               {},
		"no endpoint":       {Endpoints: []string{}},
		"unknown endpoint":  {Endpoints: []string{"unknown"}},
		"like in SQL":       {Endpoints: []string{"%"}},
		"no state":          {States: []outbox.State{}},
		"no type":           {Types: []string{}},
		"unknown type":      {Types: []string{"order"}},
		"like no type":      {TypeLike: func(string) bool { return false }},
		"unknown event":     {Event: "evt_"},
		"no tenant":         {Tenants: []string{}},
		"unknown tenant":    {Tenants: []string{"t"}},
		"unknown key":       {Key: "k"},
		"unknown path":      {Fields: []outbox.Field{{Path: "data", Value: "d1"}}},
		"unknown value":     {Fields: []outbox.Field{{Path: "data.device", Value: "d"}}},
		"value elsewhere":   {Fields: []outbox.Field{{Path: "data.device", Value: "1"}}},
		"two values at one": {Fields: []outbox.Field{{Path: "data.device", Value: "d1"}, {Path: "data.device", Value: "d2"}}},
		"no such status":    {Status: outbox.Range{Min: 201, Max: 299}},
		"many attempts":     {Attempts: outbox.Range{Min: 100}},
		"few attempts":      {Attempts: outbox.Range{Max: 1}},
		"no attempt":        {Attempts: outbox.Range{Max: -1}},
		"unknown code":      {Code: "http"},
		"before all":        {Accepted: outbox.Span{Until: past}},
		"since long":        {Accepted: outbox.Span{Since: past}},
		"from end to begin": {Accepted: outbox.Span{Since: past.AddDate(1000, 0, 0), Until: past}},
		"attempted ever":    {Attempted: outbox.Span{Since: past}},
		"attempted later":   {Attempted: outbox.Span{Since: past.AddDate(1000, 0, 0)}},
	}
}

// testFilters compares each filter, and pairs of filters, with what Filter.Match finds among the records.
func testFilters(s *suite) {
	p := s.newPast()
	p.work(400)
	s.elapse(p.unit)
	p.work(100)
	p.compareAll(20)
	s.reopen()
	p.compareAll(5)
}

// soaks tells whether this run has time for all that a push tries a random part of.
func soaks() bool { return os.Getenv("RELAY_SOAK_ROUNDS") != "" }

// compareAll compares so many percent of the pairs, in a soak all.
func (p *past) compareAll(percent int) {
	p.Helper()
	if soaks() {
		percent = 100
	}
	items := p.items()
	p.Logf("%d deliveries", len(items))
	for name, f := range vain() {
		p.compare(name, f, items)
	}
	conditions := p.conditions()
	for n, first := range conditions {
		for k, second := range conditions[n:] {
			if k > 0 && !p.chance(percent) {
				continue
			}
			var f outbox.Filter
			item := pickOne(p, items...)
			first.set(&f, &item)
			second.set(&f, &item)
			if !f.Match(&item) {
				p.Fatalf("the filter by %s and %s does not match the delivery that it was made for", first.name, second.name)
			}
			p.compare(first.name+" and "+second.name, f, items)
		}
	}
}

// compare asks for all pages of a filter, and for its count.
func (p *past) compare(name string, f outbox.Filter, items []outbox.Item) {
	p.Helper()
	want := map[string]outbox.Item{}
	for _, i := range items {
		if f.Match(&i) {
			want[i.ID] = i
		}
	}
	q := outbox.Query{Filter: f, Oldest: p.chance(50), Limit: pickOne(p, 7, 20, outbox.MaxPage)}
	if len(want) < 20 {
		q.Limit = pickOne(p, 1, 3, 20)
	}
	got := p.all(q)
	var ids []string
	for n, i := range got {
		ids = append(ids, i.ID)
		wanted := want[i.ID]
		if i.State.Final() {
			wanted.Due, i.Due = time.Time{}, time.Time{} // without a meaning
		}
		p.want("filter by "+name+": item", wanted, i)
		if n > 0 {
			later := i.Created.Sub(got[n-1].Created)
			if q.Oldest {
				later = -later
			}
			if later > outbox.OrderSlack {
				p.Errorf("filter by %s: %s is out of its order by %v", name, i.ID, later)
			}
		}
	}
	var wanted []string
	for id := range want {
		wanted = append(wanted, id)
	}
	p.wantSet("filter by "+name, wanted, ids)
	n, exact, err := p.operator().Count(p.ctx(), f)
	if err != nil || !exact || n != int64(len(want)) {
		p.Errorf("count by %s: %d, exact %t, %v, want %d", name, n, exact, err, len(want))
	}
}

// wantStable compares pages that were read while others worked: all that matched before and after, and was not
// changed, must be there once, and nothing that never matched.
func (p *past) wantStable(name string, f outbox.Filter, before, after, got []outbox.Item) {
	p.Helper()
	seen := map[string]int{}
	for _, i := range got {
		seen[i.ID]++
		if !f.Match(&i) {
			p.Errorf("filter by %s shows %+v", name, i)
		}
	}
	there := map[string]bool{}
	for _, i := range after {
		there[i.ID] = f.Match(&i)
	}
	for _, i := range before {
		if f.Match(&i) && there[i.ID] && !p.changed[i.ID] && seen[i.ID] != 1 {
			p.Errorf("filter by %s: %s was there from the first page to the last, and was shown %d times", name, i.ID, seen[i.ID])
		}
	}
}

// testPagesAmidWork reads pages by each condition, in one order, in a soak in both.
// testPagesAmidWork reads pages by each condition while others work: in one order, in a soak in both.
func testPagesAmidWork(s *suite) {
	p := s.newPast()
	p.work(150)
	conditions := p.conditions()
	retention := outbox.Retention{Delivered: 8 * p.unit, Failed: 16 * p.unit}
	before := p.items()
	looks, most := len(conditions), 25
	if soaks() {
		looks, most = 2*looks, 50
	}
	shift := p.random.IntN(2) // which conditions are asked for from the oldest on
	for n := range looks {
		item := pickOne(p, before...)
		round, n := n/len(conditions), n%len(conditions)
		q := outbox.Query{Oldest: (n+round+shift)%2 == 0, Limit: pickOne(p, 1, 3, 10)}
		first := conditions[n]
		first.set(&q.Filter, &item)
		name := first.name
		if p.chance(30) {
			second := pickOne(p, conditions...)
			second.set(&q.Filter, &item)
			name += " and " + second.name
		}
		clear(p.changed)
		steps := 0
		got := p.allBetween(q, func() {
			if steps++; steps > most {
				return // oldest first goes on as long as more comes
			}
			p.work(2)
			if p.chance(10) {
				p.reap(retention)
			}
		})
		after := p.items()
		p.wantStable(name, q.Filter, before, after, got)
		if before = after; len(before) > 400 {
			s.elapse(16 * p.unit)
			s.reap(outbox.Retention{})
			before = p.items()
		}
	}
}

// testPagesBesideWorkers reads pages of what stays while others accept, settle and reap what does not.
func testPagesBesideWorkers(s *suite) {
	e := entries("evt_stays", 150, "a", "stays")
	s.accept(e...)
	for range 50 {
		s.settle(s.claimOne("a"), outbox.Failed)
	}
	s.commit()
	ctx, cancel := context.WithCancel(s.ctx())
	defer cancel()
	var workers sync.WaitGroup
	check := func(what string, err error) {
		if err != nil && !errors.Is(err, context.Canceled) {
			s.Errorf("%s: %v", what, err)
		}
	}
	for w := range 3 {
		endpoint := fmt.Sprintf("goes%d", w)
		workers.Go(func() {
			for n := range 60 {
				_, err := s.store.Accept(s.ctx(), outbox.Batch{Entries: entries(fmt.Sprintf("evt_%d_%d_", w, n), 3, endpoint)})
				check("Accept", err)
			}
		})
		workers.Go(func() {
			for n := 0; n < 180; {
				claims, err := s.store.Claim(ctx, outbox.ClaimRequest{Endpoint: endpoint, Max: 5, Lease: long})
				check("Claim", err)
				if err != nil {
					return
				}
				for _, c := range claims {
					n++
					check("Settle", s.store.Settle(s.ctx(), c, outbox.Settlement{Attempt: attempt(1, outbox.Delivered), State: outbox.Delivered}))
				}
				_, _, err = s.store.Reap(s.ctx(), outbox.Retention{Failed: long})
				check("Reap", err)
			}
		})
	}
	for n := range 12 { // three limits of each of four filters
		q := outbox.Query{Limit: 1 + 20*(n%3), Oldest: n/6 == 0}
		want := 150
		switch n % 4 {
		case 0:
			q.Endpoints = []string{"stays"}
		case 1:
			q.States, want = []outbox.State{outbox.Failed}, 50
		case 2:
			q.Except, want = []string{"goes0", "goes1", "goes2"}, 300
		case 3:
			q.Endpoints, q.States, want = []string{"stays", "goes1"}, []outbox.State{outbox.Pending}, 150
		}
		seen := map[string]int{}
		for _, i := range s.all(q) {
			if !q.Match(&i) {
				s.Errorf("pages of %+v show %+v", q, i)
			}
			if strings.HasPrefix(i.EventID, "evt_stays") {
				seen[i.ID]++
			}
		}
		for id, times := range seen {
			if times != 1 {
				s.Errorf("%s was shown %d times", id, times)
			}
		}
		s.want(fmt.Sprintf("deliveries that stay, look %d", n), want, len(seen))
	}
	workers.Wait()
	cancel()
}
