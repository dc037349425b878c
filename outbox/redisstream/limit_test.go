package redisstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// serverTime is the clock of Redis in microseconds.
func serverTime(t *testing.T, s *Store) int64 {
	t.Helper()
	node, err := s.shards[0].node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	now, err := node.Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return now.UnixMicro()
}

// Over any window of the server's time no more tokens are given than the limit says,
// to several clients together.
func TestTakeStaysWithinLimit(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	stores := []*Store{openTest(t, at(server.URL())), openTest(t, at(server.URL()))}
	runs := 0
	rapid.Check(t, func(r *rapid.T) {
		runs++
		name := fmt.Sprint("e", runs)
		l := outbox.Limit{
			N:     rapid.SampledFrom([]int{1, 3, 7, 997, 100_000}).Draw(r, "n"),
			Per:   rapid.SampledFrom([]time.Duration{time.Millisecond, 1500 * time.Microsecond, time.Second, time.Minute, 30 * 24 * time.Hour}).Draw(r, "per"),
			Burst: rapid.SampledFrom([]int{1, 2, 10, 1000}).Draw(r, "burst"),
		}
		ask := rapid.IntRange(1, 300).Draw(r, "ask")
		type grant struct {
			from, to int64 // it was given between these
			n        int
		}
		var mu sync.Mutex
		var grants []grant
		var clients sync.WaitGroup
		for i := range 4 {
			clients.Go(func() {
				for range 8 {
					from := serverTime(t, stores[i%2])
					n, wait, err := stores[i%2].Take(t.Context(), name, l, ask)
					to := serverTime(t, stores[i%2])
					if err != nil || n < 0 || n > ask || (wait > 0) != (n < ask) || wait > l.Per/time.Duration(l.N)+time.Microsecond {
						t.Errorf("Take %d of %+v: %d, %s, %v", ask, l, n, wait, err)
						return
					}
					mu.Lock()
					grants = append(grants, grant{from, to, n})
					mu.Unlock()
				}
			})
		}
		clients.Wait()
		for _, first := range grants {
			for _, last := range grants {
				window, sum := last.to-first.from, 0
				for _, g := range grants {
					if g.from >= first.from && g.to <= last.to {
						sum += g.n
					}
				}
				if most := float64(l.N)*float64(window)*1000/float64(l.Per) + float64(l.Burst); sum > 0 && float64(sum) > most {
					r.Fatalf("%d tokens in %d µs, at most %.3f of %+v", sum, window, most, l)
				}
			}
		}
	})
}

func TestTake(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	take := func(name string, l outbox.Limit, ask, want int) time.Duration {
		t.Helper()
		n, wait, err := s.Take(t.Context(), name, l, ask)
		if err != nil || n != want {
			t.Fatalf("Take %d of %s with %+v: %d, %v, want %d", ask, name, l, n, err, want)
		}
		return wait
	}
	const month = 30 * 24 * time.Hour
	slow := outbox.Limit{N: 1, Per: month, Burst: 5}
	take("a", slow, 3, 3)
	if wait := take("a", slow, 3, 2); wait > month || wait < month-time.Minute {
		t.Errorf("the next token comes in %s, want it in a month", wait)
	}
	take("b", slow, 5, 5)

	// Settings that change apply at once, and bring no tokens.
	if wait := take("a", outbox.Limit{N: 1, Per: time.Hour, Burst: 50}, 1, 0); wait > time.Hour {
		t.Errorf("the next token comes in %s, want it in an hour", wait)
	}
	fast := outbox.Limit{N: 100_000, Per: time.Second, Burst: 1}
	wait := take("b", fast, 1, 0)
	if wait > 10*time.Microsecond {
		t.Errorf("the next token comes in %s, want it in 10 µs", wait)
	}
	await(t, "a token comes", func() bool { n, _, _ := s.Take(t.Context(), "b", fast, 1); return n == 1 })

	// What was not taken does not count for more than the burst says.
	take("c", outbox.Limit{N: 1, Per: month, Burst: 100}, 10, 10)
	take("c", slow, 100, 5)

	// A bucket that is full again takes no room.
	await(t, "the bucket is gone", func() bool {
		keys, _ := server.MustDo(t, "KEYS", "*l:b").([]any)
		return len(keys) == 0
	})
	if _, _, err := s.Take(t.Context(), "a", outbox.Limit{}, 1); err == nil {
		t.Error("Take without a limit: no error")
	}
	setMaxMemory(t, server, 1)
	take("d", slow, 6, 5)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.Take(ctx, "d", slow, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Take with a cancelled context: %v", err)
	}
}

// Notes that Redis lost are heard of, too, and writes on top of them conflict.
func TestNotesLost(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	setMaxMemory(t, server, 1) // the store is full
	before, err := s.SetNote(t.Context(), outbox.Note{Endpoint: "a", Text: []byte("paused")})
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan error, 1)
	go func() { heard <- s.AwaitNotes(t.Context(), before.Revision) }()
	server.MustDo(t, "FLUSHALL")
	if err := <-heard; err != nil {
		t.Fatal(err)
	}
	if notes, revision, err := s.Notes(t.Context()); err != nil || len(notes) != 0 || revision != 0 {
		t.Errorf("Notes: %+v, %d, %v, want none", notes, revision, err)
	}
	if n, err := s.SetNote(t.Context(), before); !errors.Is(err, outbox.ErrConflict) || n.Revision != 0 {
		t.Errorf("SetNote on top of what is lost: %+v, %v", n, err)
	}
	after, err := s.SetNote(t.Context(), outbox.Note{Endpoint: "a"})
	if err != nil || after.Revision <= before.Revision {
		t.Errorf("SetNote: %+v, %v, want a revision above %d", after, err, before.Revision)
	}
}

// With several shards the bound is split, each with one at least.
func TestBoundOfShards(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := at(server.URL())
	o.Shards = 3
	s := openTest(t, o)
	for bound, want := range map[int][]int{0: {0, 0, 0}, 1: {1, 1, 1}, 3: {1, 1, 1}, 4: {2, 1, 1}, 8: {3, 3, 2}} {
		var got []int
		for _, sh := range s.shards {
			got = append(got, s.boundIn(sh, bound))
		}
		if !slices.Equal(got, want) {
			t.Errorf("a bound of %d is split as %v, want %v", bound, got, want)
		}
	}
}

// A bound that was not there before counts claims made without it, and what waits in memory
// goes back.
func TestBoundComes(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s, other := openTest(t, at(server.URL())), openTest(t, at(server.URL()))
	for n := range 400 {
		acceptOne(t, s, fmt.Sprint("e", n), "a")
	}
	var held []outbox.Claim
	for len(held) < 100 { // so fast that more are claimed than asked for
		held = append(held, claimSome(t, s, "a", 1, time.Minute)...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r := outbox.ClaimRequest{Endpoint: "a", Max: 1000, Lease: time.Minute, FleetMax: 150}
	for len(held) < 150 {
		claims, err := s.Claim(ctx, r)
		if err != nil {
			t.Fatalf("Claim with %d held: %v", len(held), err)
		}
		held = append(held, claims...)
	}
	if len(held) > 150 {
		t.Errorf("%d claims are held, want 150 at most", len(held))
	}
	bounded := func(s *Store) (claims []outbox.Claim) {
		short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		claims, _ = s.Claim(short, r)
		return claims
	}
	if more := append(bounded(s), bounded(other)...); len(more) > 0 {
		t.Errorf("%d more were claimed at the bound", len(more))
	}
	deliver(t, s, held[:10]...)
	claims, err := other.Claim(ctx, r)
	if err != nil || len(claims) == 0 || len(claims) > 10 {
		t.Errorf("Claim after 10 have ended: %d, %v", len(claims), err)
	}
}
