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

// historySize is how many deliveries a large history has: a million where figures are taken.
func historySize() int {
	if os.Getenv("RELAY_FIGURES") != "" {
		return 1_000_000
	}
	return 20_000
}

// BenchmarkHistory searches a large history: the first page of each filter and each pair of them, and pages about the 100th.
func BenchmarkHistory(b *testing.B) {
	w := newHistoryWorld(b)
	for _, q := range w.queries() {
		b.Run(q.name, func(b *testing.B) { w.firstPages(b, q) })
		b.Run(q.name+"/late", func(b *testing.B) { w.latePages(b, q) })
	}
}

// BenchmarkAcceptBesideReader accepts events, eight at once, alone and beside a reader of up to 10 pages a second.
func BenchmarkAcceptBesideReader(b *testing.B) {
	w := newHistoryWorld(b)
	b.Run("alone", func(b *testing.B) { w.accepts(b, func(context.Context) {}) })
	b.Run("beside", func(b *testing.B) {
		w.accepts(b, func(ctx context.Context) {
			for ctx.Err() == nil {
				for _, q := range w.queries() {
					if _, err := w.s.Deliveries(ctx, q.query()); err != nil {
						return
					}
					pauseFor(ctx, 100*time.Millisecond)
				}
			}
		})
	})
}

func newHistoryWorld(b *testing.B) *historyWorld {
	b.Helper()
	w := &historyWorld{t: b, s: openTest(b, at(redistest.Start(b).URL()))}
	w.fill(historySize())
	return w
}

type historyWorld struct {
	t      testing.TB
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

// firstPages reads the first pages of queries.
func (w *historyWorld) firstPages(b *testing.B, h historyQuery) {
	var took []time.Duration
	items := 0
	for b.Loop() {
		p, one := w.page(b, h.query())
		took = append(took, one)
		items += len(p.Items)
	}
	tellPages(b, took)
	b.ReportMetric(float64(items)/float64(len(took)), "items/op")
}

// latePages reads pages about the 100th of one query after the other; those with fewer are read to their end.
func (w *historyWorld) latePages(b *testing.B, h historyQuery) {
	var took []time.Duration
	for b.Loop() {
		q := h.query()
		for n := 1; n <= 110; n++ {
			p, one := w.page(b, q)
			if n > 90 {
				took = append(took, one)
			}
			if q.Cursor = p.Next; q.Cursor == "" {
				break
			}
		}
	}
	tellPages(b, took)
}

func (w *historyWorld) page(b *testing.B, q outbox.Query) (outbox.Page, time.Duration) {
	began := time.Now()
	p, err := w.s.Deliveries(b.Context(), q)
	if err != nil {
		b.Fatal(err)
	}
	return p, time.Since(began)
}

// tellPages reports how long pages took, in milliseconds. There may be none.
func tellPages(b *testing.B, took []time.Duration) {
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	for _, q := range []float64{0.5, 0.95} {
		b.ReportMetric(float64(took[int(q*float64(len(took)-1))].Microseconds())/1000, fmt.Sprintf("p%.0f-ms/page", 100*q))
	}
}

// accepts accepts events, one in a batch, by eight at once, while something else goes on.
func (w *historyWorld) accepts(b *testing.B, beside func(context.Context)) {
	ctx, stop := context.WithCancel(b.Context())
	var other sync.WaitGroup
	other.Go(func() { beside(ctx) })
	const each = 50
	for b.Loop() {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range each {
					if _, err := w.s.Accept(ctx, outbox.Batch{Entries: []outbox.Entry{w.entry()}}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
	}
	b.ReportMetric(float64(b.N*8*each)/b.Elapsed().Seconds(), "accepts/s")
	stop()
	other.Wait()
}

// BenchmarkDeliveryBytes measures what a delivery of an event of 1 KiB costs in the memory of Redis and in its append-only file.
func BenchmarkDeliveryBytes(b *testing.B) {
	for name, attempt := range map[string]outbox.Attempt{
		"no texts":                  {},
		"heads":                     {Request: "usual"},
		"heads and a body of 1 KiB": {Request: "usual", Body: make([]byte, 1024)},
	} {
		b.Run(name, func(b *testing.B) { measureBytes(b, attempt) })
	}
}

func measureBytes(b *testing.B, attempt outbox.Attempt) {
	server := redistest.Start(b)
	server.MustDo(b, "CONFIG", "SET", "auto-aof-rewrite-percentage", "0")
	s := openTest(b, at(server.URL()))
	memory, file, n := usedMemory(b, server), aofSize(b, server), 0
	for b.Loop() {
		for range 5 * segmentEvents {
			e := outbox.Event{ID: fmt.Sprintf("evt_%08x-0000-7000-8000-000000000000", n), Type: "order.paid", Data: make([]byte, 1024)}
			if _, err := s.Accept(b.Context(), outbox.Batch{Entries: []outbox.Entry{{Event: e, Endpoints: []string{"billing"}}}}); err != nil {
				b.Fatal(err)
			}
			n++
		}
		deliverWith(b, s, attempt, 5*segmentEvents)
	}
	if _, err := s.Statistics(b.Context(), outbox.StatQuery{}); err != nil {
		b.Fatal(err)
	}
	sh := s.shards[0]
	if err := sh.sealAll(chores{logged: n}); err != nil {
		b.Fatal(err)
	}
	segments := int64(0)
	for _, key := range server.MustDo(b, "KEYS", sh.prefix+"s:*").([]any) {
		segments += server.MustDo(b, "MEMORY", "USAGE", key.(string), "SAMPLES", "0").(int64)
	}
	own, err := strconv.ParseInt(server.MustDo(b, "HGET", sh.meta, "bytes").(string), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	for unit, bytes := range map[string]int64{
		"memory-B/delivery": usedMemory(b, server) - memory, "segments-B/delivery": segments,
		"max_size-B/delivery": own, "aof-B/delivery": aofSize(b, server) - file,
	} {
		b.ReportMetric(float64(bytes)/float64(n), unit)
	}
}

// deliverWith settles deliveries with such an attempt.
func deliverWith(b *testing.B, s *Store, attempt outbox.Attempt, n int) {
	for i := 0; i < n; i += 256 {
		for _, c := range claimSome(b, s, "billing", 256, time.Hour) {
			a := attempt
			a.N, a.Started, a.Status, a.Outcome, a.Peer, a.Relay = 1, time.Now(), 200, "delivered", "127.0.0.1:443", "web-1"
			if a.Request != "" {
				a.Request, a.Head = outboxtest.Heads(c, a)
			}
			if err := s.Settle(b.Context(), c, outbox.Settlement{State: outbox.Delivered, Attempt: a}); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func aofSize(t testing.TB, server *redistest.Server) int64 {
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
