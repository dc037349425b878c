package sqlite

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relay/outbox"
	"relay/outbox/outboxtest"
)

// TestMillionAttempts fills an outbox with attempts, 5 % of them failed, for 50 endpoints, and asks for each filter and each pair
// of them: the pages have what they should. With RELAY_FIGURES there are a million, and it logs how long the first page takes
// and the hundredth, what a delivery takes on disk, and accepts beside a reader.
func TestMillionAttempts(t *testing.T) {
	n := 20_000
	if os.Getenv("RELAY_FIGURES") != "" {
		n = 1_000_000
	}
	m := &million{T: t, s: openTest(t, Options{Dir: t.TempDir(), MaxSize: 64 << 30, Durability: Relaxed}), n: n, random: rand.New(rand.NewPCG(1, 2))}
	m.fill()
	m.size()
	conditions := m.conditions()
	for i, a := range conditions {
		for _, b := range conditions[i:] {
			m.ask(a, b)
		}
	}
	m.deep()
	m.beside()
}

// TestBytesPerDelivery logs what a delivery of a 1 KiB event takes on disk once it is delivered, with its lists, with and
// without what was said.
func TestBytesPerDelivery(t *testing.T) {
	last := int64(0)
	for _, c := range []struct {
		name  string
		heads bool
		body  int
	}{{"no head", false, 0}, {"request and response heads", true, 0}, {"and a body of 1 KiB", true, 1 << 10}} {
		s := openTest(t, Options{Dir: t.TempDir(), Durability: Relaxed})
		const n = 10_000
		for i := 0; i < n; i += 500 {
			var b outbox.Batch
			for j := i; j < i+500; j++ {
				e := millionth(j)
				e.Endpoints, e.Event.Data = []string{"a"}, make([]byte, 1<<10)
				b.Entries = append(b.Entries, e)
			}
			mustAccept(t, s, b.Entries...)
			for left := 500; left > 0; {
				for _, claim := range claimMany(t, s, "a", left) {
					st := millionSettlement(claim)
					st.Attempt.Body = make([]byte, c.body)
					if c.heads {
						st.Attempt.Request, st.Attempt.Head = outboxtest.Heads(claim, st.Attempt)
					}
					if err := s.Settle(t.Context(), claim, st); err != nil {
						t.Fatal(err)
					}
					left--
				}
			}
		}
		err := s.do(t.Context(), func() error {
			used, _, err := s.db.used()
			each := used * pageSize / n
			if t.Logf("%s: %d bytes", c.name, each); each <= last {
				t.Errorf("%s: %d bytes for each delivery, %d with less", c.name, each, last)
			}
			last = each
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

type million struct {
	*testing.T
	s      *Store
	n      int
	random *rand.Rand
	began  time.Time
}

const (
	millionEndpoints = 50
	millionTypes     = 20
	millionDevices   = 1000
)

// millionth is the i-th event; what it has of everything follows from its number.
func millionth(i int) outbox.Entry {
	random := rand.New(rand.NewPCG(uint64(i), 7))
	return outbox.Entry{
		Event: outbox.Event{
			ID: fmt.Sprintf("evt_%036d", i), Type: fmt.Sprint("type.", random.IntN(millionTypes)), Tenant: fmt.Sprint("tenant", random.IntN(100)), Time: time.Now(),
			Via: "http", Relay: "relay-1", Data: []byte(fmt.Sprintf(`{"deviceId":"device-%d","text":"%0200d"}`, i%millionDevices, i)),
			Fields: []outbox.Field{{Path: "data.deviceId", Value: fmt.Sprint("device-", random.IntN(millionDevices))}},
		},
		Endpoints: []string{fmt.Sprint("endpoint", random.IntN(millionEndpoints))},
	}
}

// fill accepts all and settles them.
func (m *million) fill() {
	m.Helper()
	m.began = time.Now()
	ctx, cancel := context.WithCancel(m.Context())
	var settled atomic.Int64
	var workers sync.WaitGroup
	for e := range millionEndpoints {
		workers.Go(func() {
			for {
				claims, err := m.s.Claim(ctx, outbox.ClaimRequest{Endpoint: fmt.Sprint("endpoint", e), Max: 64, Lease: time.Hour})
				if err != nil {
					return
				}
				for _, c := range claims {
					if err := m.s.Settle(m.Context(), c, millionSettlement(c)); err != nil {
						m.Error(err)
					}
				}
				settled.Add(int64(len(claims)))
			}
		})
	}
	for i := 0; i < m.n; i += 500 {
		var b outbox.Batch
		for j := i; j < min(i+500, m.n); j++ {
			b.Entries = append(b.Entries, millionth(j))
		}
		if _, err := m.s.Accept(m.Context(), b); err != nil {
			m.Fatal(err)
		}
	}
	for settled.Load() < int64(m.n) {
		time.Sleep(time.Millisecond)
	}
	cancel()
	workers.Wait()
	if err := m.s.Health(m.Context()); err != nil { // all is committed
		m.Fatal(err)
	}
	m.Logf("%d accepted and settled in %v", m.n, time.Since(m.began).Round(time.Millisecond))
}

// millionSettlement fails every twentieth.
func millionSettlement(c outbox.Claim) outbox.Settlement {
	a := outbox.Attempt{N: 1, Started: time.Now(), Took: 3 * time.Millisecond, Status: 200, Outcome: "delivered", Reused: true, Peer: "10.0.0.1:443", Relay: "relay-1", Generation: 1,
		Timing: outbox.Timing{FirstByte: 2 * time.Millisecond}, Request: "POST https://example.com/hook\r\nContent-Type: application/json\r\nWebhook-Id: " + c.EventID + "\r\nWebhook-Signature: …",
		Head: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", Body: []byte("ok")}
	if n, err := strconv.Atoi(c.EventID[len("evt_"):]); err == nil && n%20 == 7 {
		a.Status, a.Outcome, a.Code, a.Error = 410, "gone", "http_410", "receiver answered 410"
		return outbox.Settlement{State: outbox.Failed, Attempt: a}
	}
	return outbox.Settlement{State: outbox.Delivered, Attempt: a}
}

// size logs what a delivery takes.
func (m *million) size() {
	m.Helper()
	err := m.s.do(m.Context(), func() error {
		used, _, err := m.s.db.used()
		m.Logf("%d bytes of the file for each delivery with an event of 250 bytes, its attempt and its lists", used*pageSize/int64(m.n))
		return err
	})
	if err != nil {
		m.Fatal(err)
	}
}

// sample is a filter, and what makes it hold for an event.
type sample struct {
	name string
	set  func(f *outbox.Filter, i int)
}

func (m *million) conditions() []sample {
	age := time.Since(m.began)
	return []sample{
		{"endpoint", func(f *outbox.Filter, i int) { f.Endpoints = millionth(i).Endpoints }},
		{"state", func(f *outbox.Filter, i int) { f.States = []outbox.State{outbox.Failed} }},
		{"type", func(f *outbox.Filter, i int) { f.Types = []string{millionth(i).Event.Type} }},
		{"time", func(f *outbox.Filter, i int) {
			f.Accepted.Since = m.began.Add(age * time.Duration(i%10) / 11)
			f.Accepted.Until = f.Accepted.Since.Add(age / 10)
		}},
		{"event", func(f *outbox.Filter, i int) { f.Event = millionth(i).Event.ID }},
		{"field", func(f *outbox.Filter, i int) { f.Fields = millionth(i).Event.Fields }},
	}
}

// ask asks for the first page of a pair of filters, many times, and logs how long that takes.
func (m *million) ask(a, b sample) {
	m.Helper()
	var took []time.Duration
	found := 0
	for range 40 {
		i := m.random.IntN(m.n)
		var f outbox.Filter
		a.set(&f, i)
		b.set(&f, i)
		began := time.Now()
		page, err := m.s.Deliveries(m.Context(), outbox.Query{Filter: f, Limit: 20})
		took = append(took, time.Since(began))
		if err != nil {
			m.Fatal(err)
		}
		found += len(page.Items)
		m.check(&f, page.Items)
		if wanted := a.name != "state" && b.name != "state" && a.name != "time" && b.name != "time"; wanted && len(page.Items) == 0 && page.Next == "" {
			m.Errorf("%s and %s: nothing found for event %d", a.name, b.name, i)
		}
	}
	slices.Sort(took)
	m.Logf("%-8s and %-8s: first page p50 %8v, p95 %8v, %d found", a.name, b.name, took[20].Round(10*time.Microsecond), took[38].Round(10*time.Microsecond), found)
}

// check compares the items of a page with the filter and their order.
func (m *million) check(f *outbox.Filter, items []outbox.Item) {
	m.Helper()
	for n, item := range items {
		if !f.Match(&item) {
			m.Errorf("%+v does not match %+v", item, f)
		}
		if n > 0 && deliveryNumber(m.s.meta.prefix, item.ID) >= deliveryNumber(m.s.meta.prefix, items[n-1].ID) {
			m.Errorf("%s comes after %s", item.ID, items[n-1].ID)
		}
	}
}

// deep reads a hundred pages of each filter that has as many; no delivery comes twice.
func (m *million) deep() {
	m.Helper()
	for _, c := range m.conditions() {
		var f outbox.Filter
		c.set(&f, m.random.IntN(m.n))
		q := outbox.Query{Filter: f, Limit: 20}
		seen := map[string]bool{}
		var first, last time.Duration
		pages := 0
		for ; pages < 100; pages++ {
			began := time.Now()
			page, err := m.s.Deliveries(m.Context(), q)
			last = time.Since(began)
			if err != nil {
				m.Fatal(err)
			}
			if pages == 0 {
				first = last
			}
			m.check(&f, page.Items)
			for _, item := range page.Items {
				if seen[item.ID] {
					m.Errorf("%s: %s comes twice", c.name, item.ID)
				}
				seen[item.ID] = true
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
		}
		m.Logf("%-8s: page 1 %v, page %d %v", c.name, first.Round(10*time.Microsecond), min(pages+1, 100), last.Round(10*time.Microsecond))
	}
	for _, f := range []outbox.Filter{{}, {States: []outbox.State{outbox.Failed}}, {Types: []string{"type.1"}}, {Types: []string{"type.1"}, States: []outbox.State{outbox.Failed}}} {
		ctx, cancel := context.WithTimeout(m.Context(), 200*time.Millisecond)
		began := time.Now()
		n, exact, err := m.s.Count(ctx, f)
		cancel()
		if err != nil {
			m.Fatal(err)
		}
		m.Logf("Count of states %v, types %v: %d, exact %v, in %v", f.States, f.Types, n, exact, time.Since(began).Round(10*time.Microsecond))
	}
}

// beside accepts with 64 producers, by turns alone and beside one reader who never rests.
func (m *million) beside() {
	m.Helper()
	rounds, length := 1, 100*time.Millisecond
	if m.n >= 1_000_000 {
		rounds, length = 10, time.Second
	}
	var done [2]int64 // alone, beside the reader
	number, pages := atomic.Int64{}, 0
	number.Store(int64(m.n))
	for range rounds {
		for i := range done {
			ctx, cancel := context.WithTimeout(m.Context(), length)
			var work sync.WaitGroup
			if i == 1 {
				work.Go(func() {
					for ctx.Err() == nil {
						var f outbox.Filter
						m.conditions()[pages%3].set(&f, pages)
						if _, err := m.s.Deliveries(ctx, outbox.Query{Filter: f, Limit: 20}); err == nil {
							pages++
						}
					}
				})
			}
			before := number.Load()
			for range 64 {
				work.Go(func() {
					for ctx.Err() == nil {
						e := millionth(int(number.Add(1)))
						if _, err := m.s.Accept(m.Context(), batch(e)); err != nil {
							m.Error(err)
						}
					}
				})
			}
			work.Wait()
			cancel()
			done[i] += number.Load() - before
		}
	}
	m.Logf("accepts alone: %d, beside a reader of %d pages: %d, ratio %.2f", done[0], pages, done[1], float64(done[1])/float64(done[0]))
}
