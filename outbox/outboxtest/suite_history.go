package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"relay/outbox"
)

// detailed is an event with all that an event can have.
func detailed(id string, endpoints ...string) outbox.Entry {
	e := entry(id, endpoints...)
	e.Event.Tenant, e.Event.Trace = "acme", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	e.Event.Via, e.Event.Relay = "unix", "relay-1"
	e.Event.Fields = []outbox.Field{{Path: "data.device", Value: "d 7\x00\"é"}, {Path: "data.n", Value: "12345678901234567890"}}
	return e
}

// detailedAttempt is an attempt with all that an attempt can have.
func detailedAttempt(n int, state outbox.State) outbox.Attempt {
	a := attempt(n, state)
	a.Reused, a.Peer = true, "192.0.2.7:443"
	a.Request = "POST https://a.example/hooks\r\nWebhook-Id: x\r\nWebhook-Signature: …\r\n"
	a.Relay, a.Generation = "relay-2", 7
	if state == outbox.Pending {
		a.Next = a.Started.Add(5 * time.Second)
	}
	return a
}

func (s *suite) settleDetailed(c outbox.Claim, state outbox.State, due time.Time) outbox.Attempt {
	s.Helper()
	a := detailedAttempt(c.Attempts+1, state)
	a.Request, a.Head = Heads(c, a)
	if err := s.store.Settle(s.ctx(), c, outbox.Settlement{Attempt: a, State: state, Due: due}); err != nil {
		s.Fatalf("Settle %s as %s: %v", c.EventID, state, err)
	}
	return a
}

// Heads are those of a usual request of a Relay and of its answer: they repeat what is known of the attempt.
func Heads(c outbox.Claim, a outbox.Attempt) (request, head string) {
	return fmt.Sprintf("POST https://hooks.example.com/relay/orders\r\nContent-Type: application/json\r\nUser-Agent: Relay/1.0.0\r\nwebhook-id: %s\r\n"+
			"webhook-timestamp: %d\r\nwebhook-signature: ***\r\nRelay-Attempt: %d\r\nRelay-Delivery: %s\r\n", c.EventID, a.Started.Unix(), a.N, c.ID),
		fmt.Sprintf("HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\nX-Request-Id: 4bf92f3577b34da6a3ce929d0e0e4736\r\n",
			a.Started.Add(time.Second).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"))
}

// testHeads: what was sent and received comes back as it was, whatever an engine makes of it meanwhile.
func testHeads(s *suite) {
	s.accept(entry("evt_1", "a"), entry("evt_2", "a"))
	heads := []string{"\x01\x0b", "\x02", "\t\r\n", "no head", "\r\n\r\n", "POST http://a.example\r\nX: \x7f\xc3\xa9\r\n"}
	var want []outbox.Attempt
	c := s.claimAll("a", 2)[0]
	for i, h := range heads {
		a := attempt(i+1, outbox.Pending)
		a.Request, a.Head = h, heads[len(heads)-1-i]
		if err := s.store.Settle(s.ctx(), c, outbox.Settlement{Attempt: a, State: outbox.Pending, Due: time.Now()}); err != nil {
			s.Fatalf("Settle: %v", err)
		}
		want = append(want, a)
		c = s.claimOne("a")
	}
	want = append(want, s.settleDetailed(c, outbox.Delivered, time.Time{}))
	s.commit()
	check := func() {
		s.Helper()
		for i, a := range s.lookup(c.EventID).Deliveries[0].Attempts {
			s.want("request", want[i].Request, a.Request)
			s.want("head", want[i].Head, a.Head)
		}
	}
	check()
	s.reopen()
	check()
}

func testAllFields(s *suite) {
	e := detailed("evt_1", "a", "b")
	s.accept(e, entry("evt_plain", "a"))
	c := s.claimOne("b")
	s.want("event of a claim", e.Event, *c.Event)
	first := s.settleDetailed(c, outbox.Pending, time.Now())
	second := s.settleDetailed(s.claimOne("b"), outbox.Delivered, time.Time{})
	s.commit()
	check := func() {
		s.Helper()
		r := s.lookup("evt_1")
		s.want("event", e.Event, r.Event)
		s.want("attempts", []outbox.Attempt{first, second}, r.Deliveries[1].Attempts)
		s.want("plain event", entry("evt_plain").Event, s.lookup("evt_plain").Event)
		page := s.page(outbox.Query{Filter: outbox.Filter{Endpoints: []string{"b"}}, Limit: 10})
		s.want("items", s.itemsOf("evt_1")[1:], page.Items)
		last := second
		last.Request, last.Head, last.Body = "", "", nil
		s.want("last attempt of an item", &last, page.Items[0].Last)
		s.want("fields of an item", e.Event.Fields, page.Items[0].Fields)
	}
	check()
	s.reopen()
	check()

	// As many fields as can be, of any size that they may have.
	most := entry("evt_most", "a")
	for i := range outbox.MaxFields {
		most.Event.Fields = append(most.Event.Fields, outbox.Field{Path: "data." + strings.Repeat(string(rune('a'+i)), 123), Value: strings.Repeat("v", 256)})
	}
	s.accept(most)
	s.want("most fields", most.Event, s.lookup("evt_most").Event)
	for _, f := range most.Event.Fields {
		s.want("found by "+f.Path, []string{"evt_most"}, itemEvents(s.all(outbox.Query{Filter: outbox.Filter{Fields: []outbox.Field{f}}, Limit: 10})))
	}
}

func testLookupDelivery(s *suite) {
	s.accept(detailed("evt_1", "a", "b"))
	s.settleDetailed(s.claimOne("b"), outbox.Pending, time.Now().Add(long))
	s.commit()
	check := func() {
		s.Helper()
		whole := s.lookup("evt_1")
		for i, id := range s.deliveryIDs("evt_1") {
			want := *whole
			want.Deliveries = whole.Deliveries[i : i+1]
			got, err := s.operator().LookupDelivery(s.ctx(), id)
			if err != nil {
				s.Fatalf("LookupDelivery: %v", err)
			}
			s.want("delivery", &want, got)
		}
	}
	check()
	s.reopen()
	check()
	real := s.deliveryIDs("evt_1")[0]
	for _, id := range []string{"", "dlv_", "dlv_0", "evt_1", "nonsense", real + "0", real[:len(real)-1], strings.Repeat("x", 300), "dlv_\x00é"} {
		if _, err := s.operator().LookupDelivery(s.ctx(), id); !errors.Is(err, outbox.ErrNotFound) {
			s.Errorf("LookupDelivery %q: %v, want ErrNotFound", id, err)
		}
	}
	s.settle(s.claimOne("a"), outbox.Delivered)
	s.commit()
	s.elapse(time.Millisecond)
	s.reap(outbox.Retention{})
	if _, err := s.operator().LookupDelivery(s.ctx(), real); !errors.Is(err, outbox.ErrNotFound) {
		s.Errorf("LookupDelivery of what was reaped: %v, want ErrNotFound", err)
	}
}

// page asks for one page.
func (s *suite) page(q outbox.Query) outbox.Page {
	s.Helper()
	p, err := s.operator().Deliveries(s.ctx(), q)
	if err != nil {
		s.Fatalf("Deliveries %+v: %v", q, err)
	}
	if len(p.Items) > q.Limit || len(p.Next) > 512 || strings.Trim(p.Next, urlSafe) != "" {
		s.Fatalf("Deliveries: a page of %d of %d, cursor %q", len(p.Items), q.Limit, p.Next)
	}
	return p
}

// urlSafe are the unreserved characters of RFC 3986, section 2.3.
const urlSafe = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"

// all asks for page after page.
func (s *suite) all(q outbox.Query) []outbox.Item {
	s.Helper()
	return s.allBetween(q, func() {})
}

// allBetween is all, with something that happens between the pages.
func (s *suite) allBetween(q outbox.Query, between func()) []outbox.Item {
	s.Helper()
	var items []outbox.Item
	for range 10_000 {
		p := s.page(q)
		items = append(items, p.Items...)
		if p.Next == "" {
			return items
		}
		q.Cursor, q.Offset = p.Next, 0
		between()
	}
	s.Fatalf("Deliveries %+v: no last page after 10,000", q)
	return nil
}

// itemsOf is what pages should show of an event, by its record.
func (s *suite) itemsOf(eventID string) []outbox.Item {
	s.Helper()
	return recordItems(s.lookup(eventID))
}

func recordItems(r *outbox.Record) []outbox.Item {
	var items []outbox.Item
	for n, d := range r.Deliveries {
		i := outbox.Item{Delivery: d.Delivery, Type: r.Event.Type, Tenant: r.Event.Tenant, Key: r.Event.Key, Time: r.Event.Time,
			Fields: r.Event.Fields, Erased: !r.Erased.IsZero(), Error: d.Error}
		i.Resent = slices.ContainsFunc(r.Deliveries[n+1:], func(later outbox.DeliveryRecord) bool { return later.Endpoint == d.Endpoint })
		if n := len(d.Attempts); n > 0 {
			last := d.Attempts[n-1]
			i.Error = last.Error
			last.Request, last.Head, last.Body = "", "", nil
			i.Last = &last
		}
		items = append(items, i)
	}
	return items
}

func itemIDs(items []outbox.Item) []string {
	var ids []string
	for _, i := range items {
		ids = append(ids, i.ID)
	}
	return ids
}

func itemEvents(items []outbox.Item) []string {
	var ids []string
	for _, i := range items {
		ids = append(ids, i.EventID)
	}
	return ids
}

func testOffsets(s *suite) {
	s.accept(entries("evt_", 60, "a", "b")...)
	for range 20 {
		s.settle(s.claimOne("a"), outbox.Failed)
	}
	s.commit()
	for _, q := range []outbox.Query{
		{Limit: 7},
		{Limit: 7, Oldest: true},
		{Limit: 100, Filter: outbox.Filter{Endpoints: []string{"a"}, States: []outbox.State{outbox.Failed}}},
	} {
		whole := itemIDs(s.all(q))
		for _, offset := range []int{1, 6, 7, 19, 20, 119, 120, 121, outbox.MaxOffset} {
			q.Offset = offset
			s.want("pages after an offset", whole[min(offset, len(whole)):], itemIDs(s.all(q)))
		}
	}
}

func testCursors(s *suite) {
	s.accept(entries("evt_", 30, "a", "b")...)
	f := outbox.Filter{Endpoints: []string{"a"}, Accepted: outbox.Span{Since: time.Now().Add(-long)}}
	q := outbox.Query{Filter: f, Limit: 10}
	whole := itemIDs(s.all(q))
	first := s.page(q)
	s.reopen()

	// A page can be asked for again, and another limit and other ends of a span are the same query.
	q.Cursor, q.Limit = first.Next, 3
	q.Accepted.Since = q.Accepted.Since.Add(time.Second)
	for range 2 {
		s.want("pages after the first, over reopen", whole[10:], itemIDs(s.all(q)))
	}
	s.accept(entries("evt_more", 10, "a")...)
	s.want("pages after the first, with newer ones before them", whole[10:], itemIDs(s.all(q)))

	// The delivery at which the first page ended is gone.
	for range 30 {
		s.settle(s.claimOne("a"), outbox.Delivered)
	}
	s.commit()
	s.elapse(time.Millisecond)
	s.reap(outbox.Retention{})
	for _, id := range itemIDs(s.all(q)) {
		if _, err := s.operator().LookupDelivery(s.ctx(), id); err != nil {
			s.Errorf("delivery %s of a page: %v", id, err)
		}
	}

	// Which endpoints are asked for may change, too: those of a page are asked for.
	q = outbox.Query{Filter: outbox.Filter{Endpoints: []string{"a", "b"}}, Limit: 5}
	q.Cursor = s.page(q).Next
	q.Endpoints = []string{"b"}
	rest := s.all(q)
	if len(rest) == 0 {
		s.Error("no delivery of b comes after the first page")
	}
	for _, i := range rest {
		s.want("endpoint", "b", i.Endpoint)
	}
	q = outbox.Query{Filter: f, Limit: 5, Oldest: true}
	old := s.page(q)
	s.accept(entries("evt_last", 3, "a")...)
	q.Cursor = old.Next
	s.want("oldest first shows what came since", 8, len(s.all(q)))
}

func testForeignCursors(s *suite) {
	s.accept(entries("evt_", 10, "a")...)
	q := outbox.Query{Filter: outbox.Filter{Endpoints: []string{"a"}}, Limit: 2}
	cursor := s.page(q).Next

	refused := func(what string, store outbox.Engine, q outbox.Query) {
		s.Helper()
		if p, err := s.operable(store).Deliveries(s.ctx(), q); !errors.Is(err, outbox.ErrCursor) {
			s.Errorf("cursor %s: %d items, %v, want ErrCursor", what, len(p.Items), err)
		}
	}
	q.Cursor = cursor
	for what, change := range map[string]func(*outbox.Query){
		"of the other order":     func(q *outbox.Query) { q.Oldest = true },
		"of one state":           func(q *outbox.Query) { q.States = []outbox.State{outbox.Failed} },
		"of an event":            func(q *outbox.Query) { q.Event = "evt_0001" },
		"of a field":             func(q *outbox.Query) { q.Fields = []outbox.Field{{Path: "data.a", Value: "1"}} },
		"with a time":            func(q *outbox.Query) { q.Accepted.Since = time.Now().Add(-long) },
		"of manual ones":         func(q *outbox.Query) { q.Manual = new(true) },
		"of types":               func(q *outbox.Query) { q.TypeLike = func(string) bool { return true } },
		"that is no cursor":      func(q *outbox.Query) { q.Cursor = "x" },
		"that is a number":       func(q *outbox.Query) { q.Cursor = "100" },
		"that is a page":         func(q *outbox.Query) { q.Cursor = "AAAA" },
		"of no alphabet":         func(q *outbox.Query) { q.Cursor = "\x00\xff é" },
		"that is long":           func(q *outbox.Query) { q.Cursor = strings.Repeat("A", 4096) },
		"with more at its end":   func(q *outbox.Query) { q.Cursor += "AAAA" },
		"without its beginning":  func(q *outbox.Query) { q.Cursor = cursor[4:] },
		"that is only beginning": func(q *outbox.Query) { q.Cursor = cursor[:4] },
	} {
		changed := q
		change(&changed)
		refused(what, s.store, changed)
	}
	other := s.engine.Open(s.test)
	defer func() {
		if err := other.Close(); err != nil {
			s.Errorf("Close: %v", err)
		}
	}()
	if _, err := other.Accept(s.ctx(), outbox.Batch{Entries: entries("evt_", 10, "a")}); err != nil {
		s.Fatalf("Accept: %v", err)
	}
	refused("of another outbox", other, q)

	// One that was changed by a character may be a cursor by chance, but shows nothing else than it may.
	for i := range len(cursor) {
		for _, by := range "Az9-" {
			q.Cursor = cursor[:i] + string(by) + cursor[i+1:]
			p, err := s.operator().Deliveries(s.ctx(), q)
			if err != nil && !errors.Is(err, outbox.ErrCursor) {
				s.Errorf("cursor with another character at %d: %v", i, err)
			}
			for _, item := range p.Items {
				if !q.Match(&item) {
					s.Errorf("cursor with another character at %d shows %+v", i, item)
				}
			}
		}
	}
}

func testQueryBounds(s *suite) {
	s.accept(entries("evt_", 10, "a")...)
	cursor := s.page(outbox.Query{Limit: 1}).Next
	for _, q := range []outbox.Query{
		{}, {Limit: -1}, {Limit: outbox.MaxPage + 1}, {Limit: 1, Offset: -1}, {Limit: 1, Offset: outbox.MaxOffset + 1},
		{Limit: 1, Cursor: cursor, Offset: 1},
	} {
		if _, err := s.operator().Deliveries(s.ctx(), q); err == nil {
			s.Errorf("Deliveries %+v: no error", q)
		}
	}
	s.want("largest page", 10, len(s.page(outbox.Query{Limit: outbox.MaxPage}).Items))
}

func testCountEnds(s *suite) {
	s.accept(entries("evt_", 200, "a", "b")...)
	f := outbox.Filter{Endpoints: []string{"b"}}
	ended, cancel := context.WithCancel(s.ctx())
	cancel()
	n, exact, err := s.operator().Count(ended, f)
	if err != nil || n > 200 || exact && n != 200 {
		s.Errorf("Count with an ended context: %d, exact %t, %v", n, exact, err)
	}
	if n, exact, err := s.operator().Count(s.ctx(), f); err != nil || !exact || n != 200 {
		s.Errorf("Count: %d, exact %t, %v, want 200", n, exact, err)
	}
}

func testAges(s *suite) {
	step := 5 * time.Second
	if !s.engine.Bubble {
		step = 20 * time.Millisecond
	}
	quantiles := []float64{0, 0.5, 0.9, 0.99, 1}
	ages := func(endpoint string) []time.Duration {
		s.Helper()
		got, err := s.operator().Ages(s.ctx(), endpoint, quantiles)
		if err != nil {
			s.Fatalf("Ages: %v", err)
		}
		return got
	}
	s.want("ages of an unknown endpoint", []time.Duration(nil), ages("a"))
	var created []time.Time
	for _, e := range entries("evt_", 30, "a", "b") {
		s.accept(e)
		created = append(created, s.lookup(e.Event.ID).Deliveries[0].Created)
		s.elapse(step)
	}
	check := func(left []time.Time) { // oldest first
		s.Helper()
		before := time.Now()
		got := ages("a")
		after := time.Now()
		if len(got) != len(quantiles) {
			s.Fatalf("Ages: %v, want %d of them", got, len(quantiles))
		}
		for i, q := range quantiles {
			// The rank may be one off, and the time by as much as the order.
			rank := max(0, int(q*float64(len(left)))-1)
			youngest := before.Sub(left[len(left)-1-max(0, rank-1)]) - outbox.OrderSlack
			oldest := after.Sub(left[len(left)-1-min(len(left)-1, rank+2)]) + outbox.OrderSlack
			if got[i] < youngest || got[i] > oldest {
				s.Errorf("age at %v of %d is %v, want %v to %v", q, len(left), got[i], youngest, oldest)
			}
			if i > 0 && got[i] < got[i-1] {
				s.Errorf("ages %v do not rise", got)
			}
		}
	}
	check(created)
	claims := s.claimAll("a", 10)
	check(created) // what is claimed is pending
	var left []time.Time
	done := map[string]bool{}
	for _, c := range claims {
		s.settle(c, outbox.Delivered)
		done[c.EventID] = true
	}
	s.commit()
	for i, e := range entries("evt_", 30) {
		if !done[e.Event.ID] {
			left = append(left, created[i])
		}
	}
	check(left)
	s.reopen()
	check(left)
	if !s.engine.SingleOwner {
		return // what a lost claim holds is none of this test's
	}
	for _, c := range s.claimAll("a", 20) {
		s.settle(c, outbox.Failed)
	}
	s.commit()
	s.want("ages without a pending delivery", []time.Duration(nil), ages("a"))
}
