package sqlite

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/internal/testkit"
	"relay/outbox"
)

// bubble runs a test in virtual time.
func bubble(t *testing.T, test func(t *testing.T, s *Store)) {
	synctest.Test(t, func(t *testing.T) { test(t, openTest(t, Options{Dir: t.TempDir()})) })
}

// held is how many deliveries are queued in memory, and what all there are take.
func held(s *Store) (deliveries int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ep := range s.endpoints {
		deliveries += len(ep.ready) + len(ep.lane)
	}
	return deliveries, s.bytes
}

// TestBacklog drains more deliveries than memory holds, while new ones arrive: in the
// order of accept (G3), and with little in memory at any time.
func TestBacklog(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		const n = 2000
		name := func(i int) string { return fmt.Sprintf("evt_%d", i) }
		var list []outbox.Entry
		for i := range n / 2 {
			list = append(list, event(name(i), "a", "paused"))
		}
		mustAccept(t, s, list...)
		if held, _ := held(s); held != 0 {
			t.Errorf("%d deliveries are in memory before anybody asked", held)
		}
		for i, next := 0, n/2; i < n; {
			if next < n {
				mustAccept(t, s, event(name(next), "a", "paused"))
				next++
			}
			for _, c := range claimMany(t, s, "a", 2) {
				if c.EventID != name(i) {
					t.Fatalf("claim %d is of event %s", i, c.EventID)
				}
				mustSettle(t, s, c, outbox.Delivered)
				i++
			}
			if held, _ := held(s); held > queueLength {
				t.Fatalf("%d deliveries are in memory", held)
			}
		}
		counts, err := s.Counts(t.Context())
		want := map[string]outbox.Counts{"a": {Accepted: n, Delivered: n}, "paused": {Accepted: n, Pending: n, Oldest: counts["paused"].Oldest}}
		if diff := cmp.Diff(want, counts); diff != "" || err != nil {
			t.Errorf("Counts: %v (-want +got):\n%s", err, diff)
		}
	})
}

// TestBytes bounds what many endpoints have in memory together; a waiting claim
// gets its delivery all the same.
func TestBytes(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		const endpoints, events = 4, 12
		for i := range events {
			for e := range endpoints {
				mustAccept(t, s, sized(fmt.Sprintf("evt_%d_%d", e, i), 1<<20, fmt.Sprint(e)))
				if i == 0 {
					claimOne(t, s, fmt.Sprint(e)) // somebody works on them
				}
			}
		}
		for i := 1; i < events; i++ {
			for e := range endpoints {
				if _, bytes := held(s); bytes > queueBytes+2<<20 {
					t.Fatalf("%d bytes are in memory", bytes)
				}
				c := claimOne(t, s, fmt.Sprint(e))
				if c.EventID != fmt.Sprintf("evt_%d_%d", e, i) {
					t.Errorf("claim %d at %d is of event %s", i, e, c.EventID)
				}
				mustSettle(t, s, c, outbox.Delivered)
				synctest.Wait()
			}
		}
	})
}

// TestRetryBacklog has more retries due than memory holds, and others that become
// due while they go.
func TestRetryBacklog(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		const n = 700
		for i := range n {
			mustAccept(t, s, event(fmt.Sprintf("evt_%d", i), "a"))
			due := time.Now().Add(time.Duration(n-i) * time.Second) // the last one first
			if err := s.Settle(t.Context(), claimOne(t, s, "a"), outbox.Settlement{State: outbox.Pending, Due: due}); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		time.Sleep((n - 100) * time.Second)
		for i := n - 1; i >= 0; i-- {
			c := claimOne(t, s, "a")
			if c.EventID != fmt.Sprintf("evt_%d", i) || c.Attempts != 1 {
				t.Fatalf("claimed %s with %d attempts, want evt_%d", c.EventID, c.Attempts, i)
			}
			if late := time.Since(c.Due); late < 0 || i < 100 && late > 10*time.Millisecond {
				t.Fatalf("claimed %s %v after it was due", c.EventID, late)
			}
			mustSettle(t, s, c, outbox.Delivered)
			if held, _ := held(s); held > queueLength {
				t.Fatalf("%d deliveries are in memory", held)
			}
		}
		if took := time.Since(start); took > n*time.Second {
			t.Errorf("all were due after %ds, claimed after %v", n, took)
		}
		if len(s.loaded) > 0 || len(s.dues) > 0 {
			t.Errorf("%d retries count as loaded, %d endpoints as due", len(s.loaded), len(s.dues))
		}
	})
}

// TestArmedForTheEnd arms the owner for the end of a lease: it may sleep until then, and
// nothing has to wake it before. Time is real here: in a bubble two readings of the clock
// are the same.
func TestArmedForTheEnd(t *testing.T) {
	for range 1000 {
		q := queues{leaseEnd: time.Now().Add(20 * time.Second)}
		if limit := q.arm(time.Minute); limit <= 0 || limit > 20*time.Second {
			t.Fatalf("the owner sleeps %v until a lease ends in 20 s", limit)
		}
		if q.waiting() {
			t.Fatal("the owner is to be woken before the lease ends")
		}
	}
}

// TestIdleOwner counts how often the owner wakes in an hour in which nothing happens: after
// one event, beside an attempt that hangs, and beside a retry that is due later.
func TestIdleOwner(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, s *Store){
		"empty": func(*testing.T, *Store) {},
		"one event": func(t *testing.T, s *Store) {
			mustAccept(t, s, event("evt_0", "a"))
			mustSettle(t, s, claimOne(t, s, "a"), outbox.Delivered)
		},
		"hanging attempt": func(t *testing.T, s *Store) {
			mustAccept(t, s, event("evt_0", "a"))
			claimOne(t, s, "a")
		},
		"retry": func(t *testing.T, s *Store) {
			mustAccept(t, s, event("evt_0", "a"))
			mustSettle(t, s, claimOne(t, s, "a"), outbox.Pending)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var wakes atomic.Int64
				s := openTest(t, Options{Dir: t.TempDir(), woke: func() { wakes.Add(1) }})
				prepare(t, s)
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				before := wakes.Load()
				if _, err := s.Claim(ctx, outbox.ClaimRequest{Endpoint: "b", Max: 1, Lease: time.Hour}); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("Claim: %v", err)
				}
				synctest.Wait()
				if n := wakes.Load() - before; n > 65 { // one a minute, a checkpoint, an end
					t.Errorf("the owner woke %d times in an hour", n)
				}
			})
		})
	}
}

// TestOwnerComesToRest lets the owner do all that is due in real time, where two readings of the clock differ: then it
// sleeps.
func TestOwnerComesToRest(t *testing.T) {
	o := Options{Dir: t.TempDir(), roll: time.Nanosecond}
	for i := range 2 { // new, and opened again
		s := openTest(t, o)
		mustAccept(t, s, event(fmt.Sprint("evt_", i), "a"))
		mustSettle(t, s, claimOne(t, s, "a"), outbox.Delivered)
		var rolled int64
		var sleep time.Duration
		testkit.Until(t, "the owner to write statistics and sleep", func() bool {
			testkit.Must(t, s.do(t.Context(), func() (err error) {
				sleep = s.sleep()
				rolled, err = s.db.number(`SELECT count(*) FROM stat`)
				return err
			}))
			return rolled > 0 && sleep > 0
		})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// busy keeps the owner from its work until the returned function is called.
func busy(t *testing.T, s *Store) (release func()) {
	gate, started := make(chan struct{}), make(chan struct{})
	go s.do(t.Context(), func() error { close(started); <-gate; return nil })
	<-started
	return func() { close(gate) }
}

// TestSettleBacklog lets settlements pile up behind a slow disk: their number is
// bounded, and a caller that waits can give up. What they hold is a copy.
func TestSettleBacklog(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		var list []outbox.Entry
		for i := range backlog + 1 {
			list = append(list, event(fmt.Sprintf("evt_%d", i), "a"))
		}
		mustAccept(t, s, list...)
		var claims []outbox.Claim
		for len(claims) <= backlog {
			claims = append(claims, claimMany(t, s, "a", backlog+1-len(claims))...)
		}
		release := busy(t, s)
		body := []byte("ok")
		for _, c := range claims[:backlog] {
			if err := s.Settle(t.Context(), c, outbox.Settlement{State: outbox.Delivered, Attempt: outbox.Attempt{Body: body}}); err != nil {
				t.Fatal(err)
			}
		}
		copy(body, "no")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Settle(ctx, claims[backlog], outbox.Settlement{State: outbox.Delivered}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Settle with a full backlog: %v, want it to wait", err)
		}
		release()
		mustSettle(t, s, claims[backlog], outbox.Delivered)
		counts, err := s.Counts(t.Context())
		if c := counts["a"]; err != nil || c.Delivered != backlog+1 {
			t.Errorf("Counts: %+v, %v", c, err)
		}
		if r, err := s.Lookup(t.Context(), "evt_0"); err != nil || string(r.Deliveries[0].Attempts[0].Body) != "ok" {
			t.Errorf("Lookup: %+v, %v", r, err)
		}
	})
}

// TestLeaseEndsAmidCommit lets a lease end while the owner waits for the disk: the next
// claim gets that delivery, not a later one.
func TestLeaseEndsAmidCommit(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		// Somebody works there, so that all comes into memory.
		go s.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: time.Hour})
		synctest.Wait()
		mustAccept(t, s, event("evt_0", "a"), event("evt_1", "a"), event("evt_2", "a"))
		synctest.Wait()
		first, err := s.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		release := busy(t, s)
		time.Sleep(time.Minute)
		if c := claimOne(t, s, "a"); c.ID != first[0].ID || c.Fence == first[0].Fence {
			t.Errorf("claimed %s, want %s again", c.EventID, first[0].EventID)
		}
		release()
	})
}

// TestNumbersNeverAgain reaps the last event and opens again: its number and those
// of its deliveries are not given to others.
func TestNumbersNeverAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := Options{Dir: t.TempDir()}
		s := openTest(t, o)
		mustAccept(t, s, event("evt_0", "a"))
		first := claimOne(t, s, "a")
		mustSettle(t, s, first, outbox.Delivered)
		time.Sleep(time.Second)
		if n, _, err := s.Reap(t.Context(), outbox.Retention{}); n != 1 || err != nil {
			t.Fatalf("Reap: %d, %v", n, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openTest(t, o)
		mustAccept(t, s, event("evt_1", "a"))
		if next := claimOne(t, s, "a"); next.ID == first.ID || next.Fence <= first.Fence {
			t.Errorf("delivery %s with fence %d came after %s with %d", next.ID, next.Fence, first.ID, first.Fence)
		}
	})
}

// TestClash accepts an id again that was not to be remembered, in one group with
// others: it is refused alone.
func TestClash(t *testing.T) {
	bubble(t, testClash)
}

func testClash(t *testing.T, s *Store) {
	mustAccept(t, s, event("evt_0", "a"))
	release := busy(t, s)
	type answer struct {
		i   int
		err error
	}
	answers := make(chan answer)
	for i, b := range []outbox.Batch{
		batch(event("evt_1", "b")),
		batch(event("evt_2", "c"), event("evt_0", "c")),
		batch(event("evt_3", "d"), event("evt_4", "a")),
	} {
		go func() {
			_, err := s.Accept(t.Context(), b)
			answers <- answer{i, err}
		}()
	}
	synctest.Wait() // all three are in line
	release()
	for range 3 {
		a := <-answers
		conflict, ok := errors.AsType[*outbox.ConflictError](a.err)
		if ok != (a.i == 1) || ok && (conflict.Index != 1 || conflict.ID != "evt_0") {
			t.Errorf("Accept of batch %d: %v", a.i, a.err)
		}
	}
	counts, err := s.Counts(t.Context())
	for name, c := range counts {
		c.Oldest = time.Time{}
		counts[name] = c
	}
	want := map[string]outbox.Counts{"a": {Accepted: 2, Pending: 2}, "b": {Accepted: 1, Pending: 1}, "d": {Accepted: 1, Pending: 1}}
	if diff := cmp.Diff(want, counts); diff != "" || err != nil {
		t.Errorf("Counts: %v (-want +got):\n%s", err, diff)
	}
	if err := sound(t.Context(), s); err != nil {
		t.Error(err)
	}
}

// TestClashOnBrokenDisk has the disk break when a group is written again without a batch that
// clashed: everybody is answered.
func TestClashOnBrokenDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newCrashFS(t)
		s := openTest(t, Options{Dir: t.TempDir(), VFS: t.Name(), ballast: 1})
		mustAccept(t, s, event("evt_0", "a"))
		release := busy(t, s)
		answers := map[string]chan error{"evt_0": make(chan error), "evt_1": make(chan error)}
		for _, id := range []string{"evt_0", "evt_1"} {
			go func() {
				_, err := s.Accept(t.Context(), batch(event(id, "a")))
				answers[id] <- err
			}()
			synctest.Wait() // it is in line
		}
		fs.mu.Lock()
		fs.fault = func(string, string) error { return errDead }
		fs.mu.Unlock()
		release()
		if err := <-answers["evt_0"]; !errors.Is(err, outbox.ErrConflict) {
			t.Errorf("Accept of an id that is taken: %v, want ErrConflict", err)
		}
		if err := <-answers["evt_1"]; !errors.Is(err, outbox.ErrUnavailable) {
			t.Errorf("Accept: %v, want ErrUnavailable", err)
		}
	})
}

// What is queued at an endpoint when it is paused leaves memory, which is that of all, and comes back with the next claim.
func TestPausedEndpointKeepsNoMemory(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		const n = 300
		ask := outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: time.Hour, Ready: func() {}}
		if claims, err := s.Claim(t.Context(), ask); len(claims) > 0 || err != nil {
			t.Fatal(claims, err)
		}
		want := map[string]bool{}
		for i := range n {
			id := fmt.Sprintf("evt_%03d", i)
			mustAccept(t, s, sized(id, 10<<10, "a"))
			want[id] = true
		}
		one := claimOne(t, s, "a")
		s.Withdraw("a")
		if count, _ := held(s); count != n-1 {
			t.Errorf("%d deliveries are queued, want %d", count, n-1)
		}
		time.Sleep(2 * sweepEvery)
		if count, _ := held(s); count != n-1 {
			t.Errorf("%d deliveries are queued beside a claim, want %d", count, n-1)
		}
		if err := s.Release(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * sweepEvery)
		if count, bytes := held(s); count != 0 || bytes != 0 || len(s.loaded) != 0 {
			t.Errorf("%d deliveries of %d bytes are in memory, %d are loaded", count, bytes, len(s.loaded))
		}
		for _, c := range claimMany(t, s, "a", n) {
			if !want[c.EventID] || c.Attempts != 0 {
				t.Errorf("claimed %+v", c)
			}
			delete(want, c.EventID)
			mustSettle(t, s, c, outbox.Delivered)
		}
		if counts, err := s.Counts(t.Context()); err != nil || counts["a"].Delivered != n || len(want) > 0 {
			t.Errorf("counts %+v, %v; %d did not come", counts["a"], err, len(want))
		}
	})
}
