package redisstream

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relay/outbox"
	"relay/outbox/outboxtest"
)

const (
	producers  = 8
	atOnce     = 8 // deliveries that one worker claims
	shortLease = 3 * time.Second
)

// pair is the endpoints of every event of a traffic.
var pair = []string{"a", "b"}

// traffic is a Relay at work on a store: apps that repeat an event until it is
// accepted, and workers that deliver to two endpoints, every tenth delivery at its
// second attempt only. A ledger keeps the account.
type traffic struct {
	t       *testing.T
	ledger  atomic.Pointer[outboxtest.Ledger] // nil while what is accepted need not be kept
	stop    context.CancelFunc                // of producers
	end     context.CancelFunc                // of workers
	posting sync.WaitGroup
	working sync.WaitGroup

	accepted atomic.Int64
	settled  atomic.Int64
}

// startTraffic works on the store until finish.
func startTraffic(t *testing.T, s *Store) *traffic {
	x := &traffic{t: t}
	x.ledger.Store(outboxtest.NewLedger())
	var posting, working context.Context
	posting, x.stop = context.WithCancel(context.Background())
	working, x.end = context.WithCancel(context.Background())
	for n := range producers {
		x.posting.Go(func() { x.produce(posting, s, n) })
	}
	for _, name := range pair {
		for range 2 {
			x.working.Go(func() { x.deliver(working, s, name) })
		}
	}
	t.Cleanup(x.halt)
	return x
}

func (x *traffic) halt() {
	x.stop()
	x.posting.Wait()
	x.end()
	x.working.Wait()
}

func (x *traffic) produce(ctx context.Context, s *Store, n int) {
	for i := 0; ctx.Err() == nil; i++ {
		id := fmt.Sprintf("p%d-%d", n, i)
		for {
			promised := x.ledger.Load() // before the call: see flushed
			within, cancel := context.WithTimeout(ctx, 5*time.Second)
			_, err := s.Accept(within, one(id, pair...))
			cancel()
			if err == nil {
				x.accepted.Add(1)
				if promised != nil && promised == x.ledger.Load() {
					x.note(promised.Accepted(id, pair...))
				}
				break
			}
			if ctx.Err() != nil {
				return
			}
			if !errors.Is(err, outbox.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
				x.t.Errorf("Accept: %v", err)
			}
			pauseFor(ctx, 10*time.Millisecond)
		}
		pauseFor(ctx, time.Millisecond)
	}
}

func (x *traffic) deliver(ctx context.Context, s *Store, name string) {
	for {
		claims, err := s.Claim(ctx, outbox.ClaimRequest{Endpoint: name, Max: atOnce, Lease: shortLease})
		if ctx.Err() != nil {
			_ = s.Release(context.Background(), claims...)
			return
		}
		if err != nil {
			x.t.Errorf("Claim: %v, want outages to be waited out", err)
			return
		}
		for _, c := range claims {
			if c.Attempts == 0 && strings.HasSuffix(c.EventID, "7") {
				x.check(s.Settle(ctx, c, retry(c, 50*time.Millisecond)))
				continue
			}
			if l := x.ledger.Load(); l != nil {
				x.note(l.Received(c.EventID, name))
			}
			x.check(s.Settle(ctx, c, done(c)))
		}
	}
}

// check takes an answer of Settle.
func (x *traffic) check(err error) {
	x.settled.Add(1)
	if err != nil && !errors.Is(err, outbox.ErrLeaseLost) && !errors.Is(err, outbox.ErrUnavailable) && !isContext(err) {
		x.t.Errorf("Settle: %v", err)
	}
}

func (x *traffic) note(err error) {
	if err != nil {
		x.t.Error(err)
	}
}

// more waits until so many more events were accepted.
func (x *traffic) more(n int64) {
	x.t.Helper()
	before := x.accepted.Load()
	await(x.t, fmt.Sprintf("%d more events are accepted", n), func() bool { return x.accepted.Load() >= before+n })
}

// lose runs what deletes all that was accepted. Only events whose accept began after
// it are in the ledger from then on.
func (x *traffic) lose(wipe func()) {
	x.ledger.Store(nil)
	wipe()
	x.ledger.Store(outboxtest.NewLedger())
}

// finish ends the load, waits until all is delivered, and checks the ledger
// through a store that was opened again.
func (x *traffic) finish(s *Store, o Options, duplicates int) outboxtest.Tally {
	x.t.Helper()
	x.stop()
	x.posting.Wait()
	await(x.t, "nothing is pending", func() bool {
		counts, err := s.Counts(x.t.Context())
		return err == nil && counts["a"].Pending == 0 && counts["b"].Pending == 0
	})
	x.halt()
	fresh := openTest(x.t, o)
	tally, err := x.ledger.Load().Check(x.t.Context(), fresh.Lookup)
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Log(tally)
	if tally.Lost+tally.Pending+tally.Failed+tally.Discarded > 0 || tally.Acknowledged == 0 {
		x.t.Errorf("not all that was accepted arrived: %s\n%s", tally, strings.Join(tally.Losses, "\n"))
	}
	if tally.Duplicates > duplicates {
		x.t.Errorf("%d duplicates, at most %d can have been under way", tally.Duplicates, duplicates)
	}
	counts, err := fresh.Counts(x.t.Context())
	if err != nil {
		x.t.Fatal(err)
	}
	for name, c := range counts {
		if c.Accepted != c.Pending+c.Delivered+c.Failed+c.Discarded || c.Accepted != c.Delivered {
			x.t.Errorf("endpoint %s: counts %+v do not add up", name, c)
		}
	}
	if err := outboxtest.CheckBooks(x.t.Context(), fresh); err != nil {
		x.t.Error(err)
	}
	return tally
}

// underWay bounds the deliveries that the workers of a traffic have claimed.
const underWay = 2 * 2 * atOnce

// one is a batch with an event whose id the app chose.
func one(id string, endpoints ...string) outbox.Batch {
	data := []byte(`{"id":"` + id + `"}`)
	return outbox.Batch{Entries: []outbox.Entry{{
		Event:       outbox.Event{ID: id, Type: "fault.test", Time: time.UnixMicro(1), Data: data},
		Endpoints:   endpoints,
		Fingerprint: sha256.Sum256(data),
	}}}
}

func done(c outbox.Claim) outbox.Settlement {
	return outbox.Settlement{State: outbox.Delivered, Attempt: outbox.Attempt{N: c.Attempts + 1, Status: 200, Outcome: "delivered"}}
}

func retry(c outbox.Claim, after time.Duration) outbox.Settlement {
	return outbox.Settlement{State: outbox.Pending, Due: time.Now().Add(after),
		Attempt: outbox.Attempt{N: c.Attempts + 1, Status: 503, Outcome: "retry", Code: "http_503"}}
}

// openTest opens a store that ends with the test.
func openTest(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// acceptOne hands over an event, which must succeed.
func acceptOne(t *testing.T, s *Store, id string, endpoints ...string) outbox.Receipt {
	t.Helper()
	receipts, err := s.Accept(t.Context(), one(id, endpoints...))
	if err != nil {
		t.Fatalf("Accept %s: %v", id, err)
	}
	return receipts[0]
}

// claimSome waits up to two minutes for n deliveries of an endpoint.
func claimSome(t testing.TB, s *Store, endpoint string, n int, lease time.Duration) []outbox.Claim {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var all []outbox.Claim
	for len(all) < n {
		some, err := s.Claim(ctx, outbox.ClaimRequest{Endpoint: endpoint, Max: n - len(all), Lease: lease})
		if err != nil {
			t.Fatalf("Claim at %s with %d of %d: %v", endpoint, len(all), n, err)
		}
		all = append(all, some...)
	}
	return all
}

// deliver ends claims as delivered.
func deliver(t *testing.T, s *Store, claims ...outbox.Claim) {
	t.Helper()
	for _, c := range claims {
		if err := s.Settle(t.Context(), c, done(c)); err != nil {
			t.Fatalf("Settle %s: %v", c.EventID, err)
		}
	}
}

// nothing checks that an endpoint has nothing to claim for a moment.
func nothing(t *testing.T, s *Store, endpoint string, lasts time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	if claims, err := s.Claim(ctx, outbox.ClaimRequest{Endpoint: endpoint, Max: 10, Lease: time.Minute}); err == nil {
		t.Errorf("claimed %+v at %s, want nothing", claims, endpoint)
	}
}

func countsOf(t *testing.T, s *Store, endpoint string) outbox.Counts {
	t.Helper()
	all, err := s.Counts(t.Context())
	if err != nil {
		t.Fatalf("Counts: %v", err)
	}
	return all[endpoint]
}

// mustRefuse checks that an accept is refused with an error of the contract while ctx lasts.
func mustRefuse(t *testing.T, s *Store, id string, kind error, patience time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	receipts, err := s.Accept(ctx, one(id, "a"))
	if !errors.Is(err, kind) {
		t.Errorf("Accept %s: %+v, %v, want %v", id, receipts, err, kind)
	}
	return err
}

func pauseFor(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// faults is how often a test breaks something: few times in a push, many in a soak.
func faults(t *testing.T, few int) int {
	t.Helper()
	s := os.Getenv("RELAY_SOAK_ROUNDS")
	if s == "" {
		return few
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("RELAY_SOAK_ROUNDS: %v", err)
	}
	return max(few, n/4) // a round takes a second or two
}
