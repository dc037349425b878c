package sqlite

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"relay/internal/testkit"
	"relay/outbox"
)

// settable is a wall clock that a test sets.
type settable struct{ by atomic.Int64 }

func (s *settable) set(by time.Duration) { s.by.Store(int64(by)) }

func (s *settable) wall() time.Time { return time.Now().Round(0).Add(time.Duration(s.by.Load())) }

// retryIn settles a claim as pending.
func retryIn(t *testing.T, s *Store, c outbox.Claim, delay time.Duration) {
	t.Helper()
	if err := s.Settle(t.Context(), c, outbox.Settlement{State: outbox.Pending, Due: s.clock.Wall(s.clock.Now()).Add(delay)}); err != nil {
		t.Fatal(err)
	}
}

// TestDueWhileNobodyClaims: a retry becomes due while nobody claims, because the endpoint is
// paused, disabled or its breaker is open; then the clock steps back, and the next claim
// gets the retry all the same.
func TestDueWhileNobodyClaims(t *testing.T) {
	for _, back := range []time.Duration{time.Second, 5 * time.Second, 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			var clock settable
			s := openTest(t, Options{Dir: t.TempDir(), wall: clock.wall})
			mustAccept(t, s, event("evt_0", "a"))
			retryIn(t, s, claimOne(t, s, "a"), 10*time.Second)
			time.Sleep(12 * time.Second)
			clock.set(-back)
			began := time.Now()
			if c := claimOne(t, s, "a"); c.EventID != "evt_0" || time.Since(began) > time.Second {
				t.Errorf("claimed %s after %v", c.EventID, time.Since(began))
			}
		})
	}
}

// TestWrongForAMoment sets the clock wrong for 3 s: retries that were scheduled before and
// meanwhile come when they should, the log tells of both steps once, and retention removes
// nothing early.
func TestWrongForAMoment(t *testing.T) {
	for _, by := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			var clock settable
			var log testkit.Log
			s := openTest(t, Options{Dir: t.TempDir(), wall: clock.wall, Log: zerolog.New(&log)})
			mustAccept(t, s, event("evt_0", "a"), event("evt_1", "a"), event("evt_2", "b"))
			mustSettle(t, s, claimOne(t, s, "b"), outbox.Delivered)
			first, second := claimOne(t, s, "a"), claimOne(t, s, "a")
			began := time.Now()
			retryIn(t, s, first, 2*time.Second)
			clock.set(by)
			time.Sleep(time.Second)
			retryIn(t, s, second, 10*time.Second)
			for i, want := range []time.Duration{2 * time.Second, 11 * time.Second} {
				c := claimOne(t, s, "a")
				if took := time.Since(began); took < want || took > want+10*time.Millisecond {
					t.Errorf("clock wrong by %v: retry %d came after %v, want %v", by, i, took, want)
				}
				if i == 0 {
					time.Sleep(time.Second)
					if n, _, err := s.Reap(t.Context(), outbox.Retention{Delivered: time.Hour, Failed: time.Hour}); n != 0 || err != nil {
						t.Errorf("clock wrong by %v: retention removed %d, %v", by, n, err)
					}
					clock.set(0)
				}
				mustSettle(t, s, c, outbox.Delivered)
			}
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if n := log.Count("clock_stepped"); n != 2 || strings.Contains(log.String(), "error") {
				t.Errorf("the log tells of %d steps, want 2:\n%s", n, &log)
			}
		})
	}
}

// TestStepIsKept sets the clock for good and kills the process: what the next one is left with
// are the same distances. The table is read beside the store, as a crash would leave it.
func TestStepIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var clock settable
		o := Options{Dir: t.TempDir(), wall: clock.wall}
		s := openTest(t, o)
		mustAccept(t, s, event("evt_0", "a"))
		retryIn(t, s, claimOne(t, s, "a"), time.Hour)
		clock.set(24 * time.Hour)
		time.Sleep(time.Minute) // the owner looks each minute
		synctest.Wait()
		err := s.do(t.Context(), func() error {
			shift, err := s.db.number(`SELECT shift FROM meta`)
			if want := (24 * time.Hour).Microseconds(); shift != want || err != nil {
				t.Errorf("kept shift: %d, %v, want %d", shift, err, want)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		s = openTest(t, o)
		claimOne(t, s, "a")
		if took := time.Since(began); took != 59*time.Minute {
			t.Errorf("the retry came %v after the restart, want 59m", took)
		}
	})
}

// TestClosedWithClockSetBack opens an outbox on a machine whose clock stands before all that is in
// it: retries come no later than they would have.
func TestClosedWithClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var clock settable
		o := Options{Dir: t.TempDir(), wall: clock.wall}
		s := openTest(t, o)
		mustAccept(t, s, event("evt_0", "a"))
		retryIn(t, s, claimOne(t, s, "a"), time.Hour)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		clock.set(-50 * 365 * 24 * time.Hour)
		began := time.Now()
		s = openTest(t, o)
		go func() {
			time.Sleep(time.Minute)
			clock.set(0) // the network tells the time
		}()
		claimOne(t, s, "a")
		if took := time.Since(began); took != time.Hour {
			t.Errorf("the retry came after %v, want 1h", took)
		}
	})
}

// TestSweep makes the queues forget that something is pending, as a defect might: who waits gets
// it within a minute.
func TestSweep(t *testing.T) {
	for name, forget := range map[string]func(s *Store, ep *endpoint){
		"retry": func(s *Store, ep *endpoint) { s.setDue(ep, never) },
		"fresh": func(s *Store, ep *endpoint) { s.setDue(ep, never) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openTest(t, Options{Dir: t.TempDir()})
				mustAccept(t, s, event("evt_0", "a"))
				due := 0 * time.Second
				if name == "retry" {
					due = 90 * time.Second
					retryIn(t, s, claimOne(t, s, "a"), due)
					synctest.Wait()
				}
				s.mu.Lock()
				forget(s, s.endpoints["a"])
				s.mu.Unlock()
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				began := time.Now()
				if _, err := s.Claim(ctx, outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: time.Minute}); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took < due || took > due+sweepEvery {
					t.Errorf("it came after %v, want it within a minute after %v", took, due)
				}
			})
		})
	}
}
