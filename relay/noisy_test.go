package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relay/internal/testkit"
)

// A backlog of one endpoint makes nothing slower at another one and, with fresh_share,
// keeps what happens now at its own endpoint from waiting. With RELAY_FIGURES set it
// is a million deliveries, and what is logged are figures.
func TestNoisyNeighbour(t *testing.T) {
	backlog, length := 3_000, 2*time.Second
	if figures() {
		backlog, length = 1_000_000, 30*time.Second
	}
	const healthy, fresh = 100, 4 // events per second
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			if !figures() {
				t.Parallel() // it mostly waits
			}
			l := load(t, e,
				block{name: "healthy"},
				block{name: "noisy", rules: "fresh_share = 0.5\n rate_limit {\n limit = 10\n burst = 10\n}"})
			l.drip("warm", healthy, length/4, "healthy")
			l.arrived(int(length.Seconds()*healthy)/4, "healthy")
			l.drip("alone", healthy, length, "healthy")
			want := int(length.Seconds() * healthy)
			alone, empty := l.arrived(want, "healthy"), l.memory()

			first, last := l.fill(backlog, "noisy")
			testkit.Wait(t.Context(), 2*time.Second) // an endpoint is behind once its oldest delivery is a second late
			var posting sync.WaitGroup
			posting.Go(func() { l.drip("fresh", fresh, length, "noisy") })
			l.drip("beside", healthy, length, "healthy")
			posting.Wait()
			beside := l.arrived(want, "healthy")
			now := l.arrived(int(length.Seconds()*fresh), "noisy")
			undelayed(t, alone, beside)
			t.Logf("%d pending: accepts/s of the first tenth %.0f, of the last %.0f; RSS %d MiB before, %d MiB after", backlog, first, last, empty, l.memory())
			t.Logf("%d/s at another endpoint: alone p50 %s, p99 %s; beside p50 %s, p99 %s", healthy,
				at(alone, 0.5), at(alone, 0.99), at(beside, 0.5), at(beside, 0.99))
			t.Logf("%d/s for the same endpoint: p50 %s, p99 %s", fresh, at(now, 0.5), at(now, 0.99))
			if slowest := slices.Max(now); slowest > 20*time.Second {
				t.Errorf("an event waited %s for the backlog, which takes %d s", slowest, backlog/10)
			}
		})
	}
}

// fill makes a backlog, by batches, and returns how many events per second were accepted
// of its first tenth and its last.
func (l *loaded) fill(n int, endpoint string) (first, last float64) {
	const batch = 100
	took := make([]time.Duration, n/batch)
	next := make(chan int)
	var posting sync.WaitGroup
	begin := time.Now()
	for range 4 {
		posting.Go(func() {
			for i := range next {
				var body strings.Builder
				for j := range batch {
					fmt.Fprintf(&body, "{\"id\":\"backlog-%d\",\"type\":%q,\"data\":{\"n\":%[1]d}}\n", i*batch+j, endpoint)
				}
				l.hand("application/x-ndjson", body.String())
				took[i] = time.Since(begin)
			}
		})
	}
	for i := range took {
		next <- i
	}
	close(next)
	posting.Wait()
	slices.Sort(took)
	tenth := len(took) / 10
	rate := func(d time.Duration) float64 { return float64(tenth*batch) / d.Seconds() }
	return rate(took[tenth-1]), rate(took[len(took)-1] - took[len(took)-1-tenth])
}
