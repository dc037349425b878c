package redisstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// Fault F24: two Relays with the same options. Each has a number of its own, and no
// delivery is claimed by both.
func TestTwoWithTheSameOptions(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var stores []*Store
	for range 2 {
		stores = append(stores, openTest(t, at(server.URL())))
	}
	await(t, "both are in the fleet", func() bool {
		fleet, err := stores[0].Relays(t.Context())
		return err == nil && len(fleet) == 2 && fleet[0].Number != fleet[1].Number
	})
	const events = 200
	var mu sync.Mutex
	claimed := map[string]int{}
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	var workers sync.WaitGroup
	for _, s := range stores {
		workers.Go(func() {
			for {
				claims, err := s.Claim(ctx, outbox.ClaimRequest{Endpoint: "a", Max: 8, Lease: time.Minute})
				if err != nil {
					return
				}
				for _, c := range claims {
					mu.Lock()
					claimed[c.EventID]++
					if len(claimed) == events {
						stop()
					}
					mu.Unlock()
					if err := s.Settle(t.Context(), c, done(c)); err != nil {
						t.Errorf("Settle: %v", err)
					}
				}
			}
		})
	}
	for n := range events {
		acceptOne(t, stores[n%2], fmt.Sprint("e", n), "a")
	}
	workers.Wait()
	for id, times := range claimed {
		if times != 1 {
			t.Errorf("event %s was claimed %d times", id, times)
		}
	}
	await(t, "all are delivered", func() bool { // each settles for itself
		one, two := countsOf(t, stores[0], "a"), countsOf(t, stores[1], "a")
		return one.Delivered == events && two.Delivered == events
	})
}

// Fault F25: a Relay is gone while it holds leases. Another takes them over when
// they end.
func TestTakeover(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartFaultProxy(t, "unix", server.Socket())
	dead, other := openTest(t, at(proxy.URL())), openTest(t, at(server.URL()))
	var slowest time.Duration
	for round := range 3 {
		proxy.Allow()
		await(t, "the store accepts", func() bool {
			_, err := dead.Accept(t.Context(), one(fmt.Sprint(round, 0), "a"))
			return err == nil
		})
		for n := 1; n < 5; n++ {
			acceptOne(t, dead, fmt.Sprint(round, n), "a")
		}
		lost := claimSome(t, dead, "a", 5, time.Second)
		proxy.Refuse()
		proxy.Cut()
		claims := claimSome(t, other, "a", 5, time.Minute)
		slowest = max(slowest, time.Since(lost[4].Until))
		for i, c := range claims {
			if c.Attempts != 0 || c.Fence == lost[i].Fence {
				t.Errorf("claim %+v, want the first attempt again with another fence", c)
			}
		}
		deliver(t, other, claims...)
		if c := countsOf(t, other, "a"); c.Delivered != int64(5*(round+1)) {
			t.Errorf("counts %+v, want %d delivered", c, 5*(round+1))
		}
	}
	t.Logf("from the end of a lease to the claim elsewhere: %s at most", slowest.Round(time.Millisecond))
}

// Fault F26: a worker is slower than its lease. The delivery is another's then, and
// its late answer changes nothing.
func TestSlowWorker(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	acceptOne(t, s, "e", "a")
	late := claimSome(t, s, "a", 1, 300*time.Millisecond)[0]
	c := claimSome(t, s, "a", 1, time.Minute)[0]
	if c.Fence == late.Fence || c.ID != late.ID || c.Attempts != 0 {
		t.Errorf("claimed %+v after %+v", c, late)
	}
	for range 2 {
		if err := s.Settle(t.Context(), late, done(late)); !errors.Is(err, outbox.ErrLeaseLost) {
			t.Errorf("late Settle: %v, want ErrLeaseLost", err)
		}
		if err := s.Release(t.Context(), late); err != nil {
			t.Errorf("late Release: %v", err)
		}
	}
	if r, err := s.Lookup(t.Context(), "e"); err != nil || r.Deliveries[0].State != outbox.Pending || len(r.Deliveries[0].Attempts) != 0 {
		t.Errorf("Lookup: %+v, %v, want it pending without an attempt", r, err)
	}
	deliver(t, s, c)

	if c := countsOf(t, s, "a"); c.Delivered != 1 {
		t.Errorf("counts %+v, want 1 delivered", c)
	}
}

// calls is how many commands clients have sent, those of scripts not counted.
func calls(t *testing.T, server *redistest.Server) (n int64) {
	t.Helper()
	text, _ := server.MustDo(t, "INFO", "commandstats").(string)
	for name, value := range parseInfo(text) {
		switch name {
		case "cmdstat_evalsha", "cmdstat_eval", "cmdstat_xread", "cmdstat_info", "cmdstat_set":
			first, _, _ := strings.Cut(strings.TrimPrefix(value, "calls="), ",")
			some, _ := strconv.ParseInt(first, 10, 64)
			n += some
		}
	}
	return n
}

// Fault F29: a fleet opens at once on one server, and idles. What it costs does not
// grow with the endpoints that wait.
func TestIdleFleet(t *testing.T) {
	const idle = 5 * time.Second
	for _, c := range []struct{ stores, endpoints int }{{1, 1}, {1, 1000}, {20, 1}, {20, 50}} {
		t.Run(fmt.Sprintf("%d stores, %d endpoints each", c.stores, c.endpoints), func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			for range c.stores {
				s := openTest(t, at(server.URL()))
				for n := range c.endpoints {
					all.Go(func() {
						if claims, err := s.Claim(ctx, outbox.ClaimRequest{Endpoint: fmt.Sprint("e", n), Max: 1, Lease: time.Minute}); err == nil {
							t.Errorf("claimed %+v", claims)
						}
					})
				}
			}
			before := int64(-1)
			await(t, "the first look is over", func() bool {
				last := before
				before = calls(t, server)
				pauseFor(ctx, 200*time.Millisecond)
				return last >= 0 && before-last <= int64(c.stores)
			})
			before, inner := calls(t, server), server.Commands()
			began := time.Now()
			pauseFor(ctx, idle)
			took := time.Since(began).Seconds() * float64(c.stores)
			perStore := float64(calls(t, server)-before) / took
			t.Logf("an idle store sends %.2f commands a second, scripts and all it is %.1f", perStore, float64(server.Commands()-inner)/took)
			if perStore > 5 {
				t.Errorf("an idle store sends %.1f commands a second, want less than 5", perStore)
			}
			cancel()
			all.Wait()
		})
	}
}
