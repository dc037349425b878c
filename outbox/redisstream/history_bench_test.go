package redisstream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/outbox/redisstream/redistest"
)

// TestHistoryFigures measures searches in a large history. It runs only when RELAY_HISTORY says how many deliveries, and
// logs what it found: no figure fails it.
func TestHistoryFigures(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("RELAY_HISTORY"))
	if err != nil {
		t.Skip("it measures and judges nothing: make figures runs it, with RELAY_HISTORY")
	}
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	w := &historyWorld{t: t, s: s}
	began := time.Now()
	w.fill(n)
	t.Logf("%d deliveries in %s", n, time.Since(began).Round(time.Second))
	for _, q := range w.queries() {
		w.measure(q)
	}
	alone, took := w.accepts(func(context.Context) {})
	beside, _ := w.accepts(func(ctx context.Context) {
		for ctx.Err() == nil {
			for _, q := range w.queries() {
				if _, err := s.Deliveries(ctx, q.query()); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		}
	})
	t.Logf("accepts in %s: %d alone, %d beside a reader of up to 10 pages a second: %.2f", took, alone, beside, float64(beside)/float64(alone))
}

type historyWorld struct {
	t      *testing.T
	s      *Store
	events []string
	first  time.Time
	last   time.Time
	n      atomic.Int64
}

const (
	historyEndpoints = 50
	historyTypes     = 20
	historyDevices   = 10_000
)

func pick(kind string, n int) string { return kind + strconv.Itoa(rand.N(n)) }

func (w *historyWorld) entry() outbox.Entry {
	i := w.n.Add(1)
	device := pick("device", historyDevices)
	return outbox.Entry{
		Event: outbox.Event{
			ID:   fmt.Sprintf("evt_%08x-0000-7000-8000-%012x", i, rand.N(1<<40)),
			Type: pick("type.", historyTypes), Tenant: pick("tenant", 100),
			Data: []byte(`{"deviceId":"` + device + `","text":"` + string(make([]byte, 200)) + `"}`), Fields: []outbox.Field{{Path: "data.deviceId", Value: device}},
		},
		Endpoints: []string{pick("endpoint", historyEndpoints)},
	}
}

// fill accepts and settles so many deliveries, of which each twentieth has failed.
func (w *historyWorld) fill(n int) {
	ctx, stop := context.WithCancel(w.t.Context())
	var workers sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(n))
	over := make(chan struct{})
	for i := range historyEndpoints {
		workers.Go(func() { w.work(ctx, "endpoint"+strconv.Itoa(i), &left, over) })
	}
	w.first = time.Now()
	for i := 0; i < n; i += 500 {
		list := make([]outbox.Entry, min(500, n-i))
		for k := range list {
			list[k] = w.entry()
			if k%100 == 0 {
				w.events = append(w.events, list[k].Event.ID)
			}
		}
		if _, err := w.s.Accept(ctx, outbox.Batch{Entries: list}); err != nil {
			w.t.Fatal(err)
		}
	}
	w.last = time.Now()
	<-over
	stop()
	workers.Wait()
}

func (w *historyWorld) work(ctx context.Context, endpoint string, left *atomic.Int64, over chan struct{}) {
	for {
		claims, err := w.s.Claim(ctx, outbox.ClaimRequest{Endpoint: endpoint, Max: 100, Lease: time.Hour})
		if err != nil {
			return
		}
		for _, c := range claims {
			o := outbox.Settlement{State: outbox.Delivered, Attempt: outbox.Attempt{N: 1, Started: time.Now(), Took: rand.N(time.Second), Status: 200, Outcome: "delivered"}}
			if rand.N(20) == 0 {
				o.State, o.Attempt.Status, o.Attempt.Code = outbox.Failed, 404, "http_404"
			}
			if err := w.s.Settle(ctx, c, o); err != nil {
				return
			}
		}
		if left.Add(-int64(len(claims))) == 0 {
			close(over)
		}
	}
}

// historyQuery makes queries of one kind, with values by chance.
type historyQuery struct {
	name string
	add  []func(*outbox.Query)
}

func (h historyQuery) query() outbox.Query {
	q := outbox.Query{Limit: 20}
	for _, add := range h.add {
		add(&q)
	}
	return q
}

// queries are each filter, and each pair of them.
func (w *historyWorld) queries() (all []historyQuery) {
	span := w.last.Sub(w.first)
	filters := []historyQuery{
		{"endpoint", []func(*outbox.Query){func(q *outbox.Query) { q.Endpoints = []string{pick("endpoint", historyEndpoints)} }}},
		{"state", []func(*outbox.Query){func(q *outbox.Query) { q.States = []outbox.State{outbox.Failed} }}},
		{"type", []func(*outbox.Query){func(q *outbox.Query) { q.Types = []string{pick("type.", historyTypes)} }}},
		{"time", []func(*outbox.Query){func(q *outbox.Query) { q.Accepted.Until = w.first.Add(rand.N(span)) }}},
		{"event", []func(*outbox.Query){func(q *outbox.Query) { q.Event = w.events[rand.N(len(w.events))] }}},
		{"field", []func(*outbox.Query){func(q *outbox.Query) {
			q.Fields = []outbox.Field{{Path: "data.deviceId", Value: pick("device", historyDevices)}}
		}}},
	}
	all = append(all, historyQuery{"none", nil})
	for i, a := range filters {
		all = append(all, a)
		for _, b := range filters[i+1:] {
			all = append(all, historyQuery{a.name + "+" + b.name, append(slices.Clone(a.add), b.add...)})
		}
	}
	return all
}

// measure logs how long pages take: the first ones of many queries, and those of one of them to the 100th.
func (w *historyWorld) measure(h historyQuery) {
	page := func(q outbox.Query) (outbox.Page, time.Duration) {
		began := time.Now()
		p, err := w.s.Deliveries(w.t.Context(), q)
		if err != nil {
			w.t.Fatal(err)
		}
		return p, time.Since(began)
	}
	quantile := func(list []time.Duration, q float64) time.Duration {
		slices.Sort(list)
		return list[int(q*float64(len(list)-1))].Round(10 * time.Microsecond)
	}
	var first, late []time.Duration
	items := 0
	for range 60 {
		p, took := page(h.query())
		first = append(first, took)
		items += len(p.Items)
	}
	q := h.query()
	for n := 1; n <= 110; n++ {
		p, took := page(q)
		if n > 90 {
			late = append(late, took)
		}
		if q.Cursor = p.Next; q.Cursor == "" {
			break
		}
	}
	text := "there is none"
	if len(late) > 0 {
		text = fmt.Sprintf("p50 %s, p95 %s", quantile(late, 0.5), quantile(late, 0.95))
	}
	w.t.Logf("%-16s first page p50 %s, p95 %s (%.1f items); about page 100: %s", h.name, quantile(first, 0.5), quantile(first, 0.95), float64(items)/60, text)
}

// accepts counts accepts of one event each, by eight at once, while something else goes on.
func (w *historyWorld) accepts(beside func(context.Context)) (n int64, took time.Duration) {
	took = 5 * time.Second
	ctx, stop := context.WithTimeout(w.t.Context(), took)
	defer stop()
	var all sync.WaitGroup
	var done atomic.Int64
	for range 8 {
		all.Go(func() {
			for ctx.Err() == nil {
				if _, err := w.s.Accept(ctx, outbox.Batch{Entries: []outbox.Entry{w.entry()}}); err == nil {
					done.Add(1)
				}
			}
		})
	}
	all.Go(func() { beside(ctx) })
	all.Wait()
	return done.Load(), took
}

// TestDeliveryBytes measures what a delivery of an event of 1 KiB costs in the memory of Redis and in its append-only file. It
// runs with TestHistoryFigures.
func TestDeliveryBytes(t *testing.T) {
	if os.Getenv("RELAY_HISTORY") == "" {
		t.Skip("it measures and judges nothing: make figures runs it, with RELAY_HISTORY")
	}
	const n = 5 * segmentEvents
	for name, attempt := range map[string]outbox.Attempt{
		"no texts":                  {},
		"heads":                     {Request: "usual"},
		"heads and a body of 1 KiB": {Request: "usual", Body: make([]byte, 1024)},
	} {
		server := redistest.Start(t)
		server.MustDo(t, "CONFIG", "SET", "auto-aof-rewrite-percentage", "0")
		s := openTest(t, at(server.URL()))
		sh := s.shards[0]
		memory, file := usedMemory(t, server), aofSize(t, server)
		for i := range n {
			e := outbox.Event{ID: fmt.Sprintf("evt_%08x-0000-7000-8000-000000000000", i), Type: "order.paid", Data: make([]byte, 1024)}
			if _, err := s.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{Event: e, Endpoints: []string{"billing"}}}}); err != nil {
				t.Fatal(err)
			}
		}
		for i := 0; i < n; i += 256 {
			for _, c := range claimSome(t, s, "billing", 256, time.Hour) {
				a := attempt
				a.N, a.Started, a.Status, a.Outcome, a.Peer, a.Relay = 1, time.Now(), 200, "delivered", "127.0.0.1:443", "web-1"
				if a.Request != "" {
					a.Request, a.Head = outboxtest.Heads(c, a)
				}
				if err := s.Settle(t.Context(), c, outbox.Settlement{State: outbox.Delivered, Attempt: a}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := s.Statistics(t.Context(), outbox.StatQuery{}); err != nil {
			t.Fatal(err)
		}
		if err := sh.sealAll(chores{logged: n}); err != nil {
			t.Fatal(err)
		}
		segments := int64(0)
		for _, key := range server.MustDo(t, "KEYS", sh.prefix+"s:*").([]any) {
			segments += server.MustDo(t, "MEMORY", "USAGE", key.(string), "SAMPLES", "0").(int64)
		}
		own, err := strconv.ParseInt(server.MustDo(t, "HGET", sh.meta, "bytes").(string), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes of memory a delivery, of which %d are in segments; %d count for max_size; %d of the append-only file",
			name, (usedMemory(t, server)-memory)/n, segments/n, own/n, (aofSize(t, server)-file)/n)
	}
}

func aofSize(t *testing.T, server *redistest.Server) int64 {
	t.Helper()
	for _, line := range strings.Fields(server.MustDo(t, "INFO", "persistence").(string)) {
		if size, ok := strings.CutPrefix(line, "aof_current_size:"); ok {
			n, err := strconv.ParseInt(size, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("INFO does not have the size of the append-only file")
	return 0
}
