package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"relay/outbox"
)

// suite is one subtest at work on one store. Its methods end the test when the
// store answers with an error.
type suite struct {
	rapid.TB // test, or the history that testModel is at
	test     *testing.T
	engine   Harness
	store    outbox.Engine

	patience time.Duration // how long to wait for what must come
	blink    time.Duration // how long to look for what must not come
	short    time.Duration // a lease that a test lets end
	delay    time.Duration // from a settlement to its retry

	fillers int // events accepted by commit
}

// long is a lease that no test outlives, unless it means to.
const long = time.Hour

func newSuite(t *testing.T, e Harness) *suite {
	s := &suite{TB: t, test: t, engine: e, store: e.Open(t),
		patience: time.Minute, blink: 20 * time.Millisecond, short: 2 * time.Second, delay: 2 * time.Second} // a machine may stall for a second
	if e.Bubble {
		// Patience is less than a lease or a delay, or else waiting would bring what must come by
		// itself.
		s.patience, s.blink, s.short, s.delay = 5*time.Second, time.Second, 30*time.Second, 20*time.Minute
	}
	t.Cleanup(func() {
		if err := s.store.Close(); err != nil && !errors.Is(err, outbox.ErrClosed) {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// elapse lets time pass: the only sleep of the suite. In a bubble it costs
// nothing; without one, only time itself ends a lease.
func (s *suite) elapse(d time.Duration) { time.Sleep(d) }

// idle waits until all other goroutines of the test wait for something.
func (s *suite) idle() {
	if s.engine.Bubble {
		synctest.Wait()
		return
	}
	s.elapse(s.blink)
}

// within returns a context for a call that must answer.
func (s *suite) within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.ctx(), d)
}

func (s *suite) ctx() context.Context { return s.test.Context() }

// reopen crashes the store and opens it again.
func (s *suite) reopen() {
	s.Helper()
	s.store = s.engine.Reopen(s.test, s.store)
}

// commit makes what was settled part of a commit: a settlement may ride with the
// next one.
func (s *suite) commit() {
	s.Helper()
	s.fillers++
	s.accept(entry(fmt.Sprintf("evt_filler_%d", s.fillers)))
}

// entry is an event for some endpoints. Data and Key tell events apart.
func entry(id string, endpoints ...string) outbox.Entry {
	return outbox.Entry{
		Event: outbox.Event{
			ID:   id,
			Type: "order.created",
			Time: time.Date(2026, 2, 3, 4, 5, 6, 789_123_000, time.UTC),
			Key:  "about " + id,
			Data: []byte(`{"id":"` + id + `"}`),
		},
		Endpoints: endpoints,
	}
}

// entries are n events for the same endpoints, ids "prefix0000" and on.
func entries(prefix string, n int, endpoints ...string) []outbox.Entry {
	list := make([]outbox.Entry, n)
	for i := range list {
		list[i] = entry(fmt.Sprintf("%s%04d", prefix, i), endpoints...)
	}
	return list
}

func (s *suite) accept(list ...outbox.Entry) []outbox.Receipt {
	s.Helper()
	return s.acceptBatch(outbox.Batch{Entries: list})
}

func (s *suite) acceptBatch(b outbox.Batch) []outbox.Receipt {
	s.Helper()
	receipts, err := s.store.Accept(s.ctx(), b)
	if err != nil {
		s.Fatalf("Accept: %v", err)
	}
	if len(receipts) != len(b.Entries) {
		s.Fatalf("Accept: %d receipts for %d entries", len(receipts), len(b.Entries))
	}
	return receipts
}

// conflict accepts a batch that must be refused, and tells which entry was.
func (s *suite) conflict(b outbox.Batch, index int) {
	s.Helper()
	receipts, err := s.store.Accept(s.ctx(), b)
	if !errors.Is(err, outbox.ErrConflict) {
		s.Fatalf("Accept: %v, %v, want ErrConflict", receipts, err)
	}
	conflict, ok := errors.AsType[*outbox.ConflictError](err)
	if !ok || conflict.Index != index {
		s.Errorf("Accept: %#v, want a ConflictError for entry %d", err, index)
	}
	if ok && index >= 0 && conflict.ID != b.Entries[index].Event.ID {
		s.Errorf("ConflictError.ID = %q, want %q", conflict.ID, b.Entries[index].Event.ID)
	}
}

// claim leases up to n deliveries, of which at least one must be due.
func (s *suite) claim(endpoint string, n int, lease time.Duration) []outbox.Claim {
	s.Helper()
	ctx, cancel := s.within(s.patience)
	defer cancel()
	claims, err := s.store.Claim(ctx, outbox.ClaimRequest{Endpoint: endpoint, Max: n, Lease: lease})
	if err != nil {
		s.Fatalf("Claim at %s: %v", endpoint, err)
	}
	if len(claims) < 1 || len(claims) > n {
		s.Fatalf("Claim at %s: %d claims, want 1 to %d", endpoint, len(claims), n)
	}
	return claims
}

// claimAll claims with a long lease until it has n deliveries.
func (s *suite) claimAll(endpoint string, n int) []outbox.Claim {
	s.Helper()
	var claims []outbox.Claim
	for len(claims) < n {
		claims = append(claims, s.claim(endpoint, n-len(claims), long)...)
	}
	return claims
}

// claimOne claims the one delivery that is due with a long lease.
func (s *suite) claimOne(endpoint string) outbox.Claim {
	s.Helper()
	return s.claim(endpoint, 1, long)[0]
}

// claimNone checks that nothing can be claimed now.
func (s *suite) claimNone(endpoint string) {
	s.Helper()
	ctx, cancel := s.within(s.blink)
	defer cancel()
	claims, err := s.store.Claim(ctx, outbox.ClaimRequest{Endpoint: endpoint, Max: 10, Lease: long})
	if !errors.Is(err, context.DeadlineExceeded) {
		s.Fatalf("Claim at %s: got %v, %v, want nothing until the deadline", endpoint, eventIDs(claims), err)
	}
}

func eventIDs(claims []outbox.Claim) []string {
	var ids []string
	for _, c := range claims {
		ids = append(ids, c.EventID)
	}
	return ids
}

// attempt is the record of the n-th attempt, of a kind that ends in state.
func attempt(n int, state outbox.State) outbox.Attempt {
	a := outbox.Attempt{
		N:       n,
		Started: time.Date(2026, 2, 3, 4, 5, n, 123_456_000, time.UTC),
		Took:    1500 * time.Microsecond,
		Timing:  outbox.Timing{DNS: 100 * time.Microsecond, Connect: 200 * time.Microsecond, TLS: 300 * time.Microsecond, FirstByte: 1400 * time.Microsecond},
		Status:  503,
		Outcome: "retry",
		Code:    "http_503",
		Error:   "receiver answered 503 Service Unavailable",
		Head:    "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n\r\n",
		Body:    []byte("busy \x00\xff"),
	}
	switch state {
	case outbox.Delivered:
		a.Status, a.Outcome, a.Code, a.Error = 200, "delivered", "", ""
	case outbox.Failed:
		a.Status, a.Outcome, a.Code, a.Error = 0, "refused", "tls_name", "certificate is for another name"
		a.Timing.FirstByte, a.Head, a.Body = 0, "", nil
	case outbox.Discarded:
		a.Status, a.Outcome, a.Code = 410, "gone", "endpoint_gone"
	}
	return a
}

// settle ends a claim as a final state.
func (s *suite) settle(c outbox.Claim, state outbox.State) {
	s.Helper()
	if err := s.store.Settle(s.ctx(), c, outbox.Settlement{Attempt: attempt(c.Attempts+1, state), State: state}); err != nil {
		s.Fatalf("Settle %s as %s: %v", c.EventID, state, err)
	}
}

// retry ends a claim as pending.
func (s *suite) retry(c outbox.Claim, due time.Time) {
	s.Helper()
	settlement := outbox.Settlement{Attempt: attempt(c.Attempts+1, outbox.Pending), State: outbox.Pending, Due: due}
	if err := s.store.Settle(s.ctx(), c, settlement); err != nil {
		s.Fatalf("Settle %s as pending: %v", c.EventID, err)
	}
}

// lost checks that a claim's lease is over and that it can change nothing.
func (s *suite) lost(c outbox.Claim) {
	s.Helper()
	s.commit()
	before, counts := s.lookup(c.EventID), s.counts()
	for _, state := range []outbox.State{outbox.Delivered, outbox.Pending, outbox.Failed} {
		settlement := outbox.Settlement{Attempt: attempt(c.Attempts+1, state), State: state, Due: time.Now()}
		if err := s.store.Settle(s.ctx(), c, settlement); !errors.Is(err, outbox.ErrLeaseLost) {
			s.Errorf("Settle as %s by a lost claim: %v, want ErrLeaseLost", state, err)
		}
	}
	if err := s.store.Release(s.ctx(), c); err != nil {
		s.Errorf("Release of a lost claim: %v, want silence", err)
	}
	s.commit()
	if diff := difference(before, s.lookup(c.EventID)); diff != "" {
		s.Errorf("a lost claim changed the record (-before +after):\n%s", diff)
	}
	if diff := difference(counts, s.counts()); diff != "" {
		s.Errorf("a lost claim changed counts (-before +after):\n%s", diff)
	}
}

func (s *suite) lookup(eventID string) *outbox.Record {
	s.Helper()
	r, err := s.store.Lookup(s.ctx(), eventID)
	if err != nil {
		s.Fatalf("Lookup %s: %v", eventID, err)
	}
	return r
}

// absent checks that no such event is kept.
func (s *suite) absent(eventID string) {
	s.Helper()
	if _, err := s.store.Lookup(s.ctx(), eventID); !errors.Is(err, outbox.ErrNotFound) {
		s.Errorf("Lookup %s: %v, want ErrNotFound", eventID, err)
	}
}

// counts returns all counts, which must obey their equation.
func (s *suite) counts() map[string]outbox.Counts {
	s.Helper()
	all, err := s.store.Counts(s.ctx())
	if err != nil {
		s.Fatalf("Counts: %v", err)
	}
	for name, c := range all {
		if c.Accepted != c.Pending+c.Delivered+c.Failed+c.Discarded {
			s.Errorf("counts of %s do not add up: %+v", name, c)
		}
		if (c.Pending == 0) != c.Oldest.IsZero() {
			s.Errorf("counts of %s: %d pending, oldest %v", name, c.Pending, c.Oldest)
		}
	}
	return all
}

// wantCounts compares one endpoint's counts; Oldest is not asked for.
func (s *suite) wantCounts(endpoint string, want outbox.Counts) {
	s.Helper()
	got := s.counts()[endpoint]
	got.Oldest = time.Time{}
	if diff := difference(want, got); diff != "" {
		s.Errorf("counts of %s (-want +got):\n%s", endpoint, diff)
	}
}

// reap calls Reap until there is no more to do, and returns how many
// deliveries went.
func (s *suite) reap(r outbox.Retention) int {
	s.Helper()
	total := 0
	for range 10_000 {
		removed, more, err := s.store.Reap(s.ctx(), r)
		if err != nil {
			s.Fatalf("Reap: %v", err)
		}
		total += removed
		if !more {
			return total
		}
	}
	s.Fatalf("Reap: still more to do after 10,000 calls and %d deliveries", total)
	return 0
}

// difference is what two values do not have in common, "" if that is nothing. Package cmp needs
// seconds for a megabyte with the race detector, even to find nothing.
func difference(want, got any) string {
	if reflect.DeepEqual(want, got) {
		return ""
	}
	return cmp.Diff(want, got, cmpopts.EquateEmpty())
}

// want compares two values of a test.
func (s *suite) want(what string, want, got any) {
	s.Helper()
	if diff := difference(want, got); diff != "" {
		s.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// wantSet compares two lists whose order does not matter.
func (s *suite) wantSet(what string, want, got []string) {
	s.Helper()
	s.want(what, slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got)))
}

// deliveryIDs are the ids of an event's deliveries; they must differ.
func (s *suite) deliveryIDs(eventID string) []string {
	s.Helper()
	var ids []string
	for _, d := range s.lookup(eventID).Deliveries {
		if !strings.HasPrefix(d.ID, "dlv_") || slices.Contains(ids, d.ID) {
			s.Errorf("event %s: delivery id %q is another's or does not begin with dlv_", eventID, d.ID)
		}
		ids = append(ids, d.ID)
	}
	return ids
}
