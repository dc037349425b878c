package jobs_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/redisstream"
	"relay/outbox/redisstream/redistest"
	"relay/outbox/sqlite"
	"relay/relay/jobs"
	"relay/relay/query"
)

// bulkSize is how many deliveries a job deals with: a million where figures are taken.
func bulkSize() int {
	if os.Getenv("RELAY_FIGURES") != "" {
		return 1_000_000
	}
	return 5_000
}

// BenchmarkBulkRedelivery redelivers all of a large backlog of failed deliveries, while an event for another endpoint comes every
// 20 ms. It reports the time for each delivery, how long these events wait from accept to claim, alone and beside the job, and how much the
// heap grows at most.
func BenchmarkBulkRedelivery(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) {
		s, err := sqlite.Open(b.Context(), sqlite.Options{Dir: b.TempDir(), MaxSize: 64 << 30})
		testkit.Must(b, err)
		defer func() { testkit.Must(b, s.Close()) }()
		redeliverAll(b, s)
	})
	b.Run("redis", func(b *testing.B) {
		server := redistest.Start(b)
		s, err := redisstream.Open(b.Context(), redisstream.Options{URL: server.URL(), Database: -1, MaxSize: 64 << 30})
		testkit.Must(b, err)
		defer func() { testkit.Must(b, s.Close()) }()
		redeliverAll(b, s)
	})
}

func redeliverAll(b *testing.B, s outbox.Operable) {
	n := bulkSize()
	failAll(b, s, n)
	ctx, stop := context.WithCancel(b.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	j := jobs.New(jobs.Options{
		Outbox: s, Surroundings: query.Surroundings{}, Relay: func() string { return "relay-1" }, Alone: true, Log: zerolog.Nop(),
		Endpoints: func(context.Context) (map[string]bool, error) { return map[string]bool{"a": true}, nil },
	})
	running.Go(func() { j.Run(ctx) })
	alone := fresh(b, s, time.Second, nil)
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	grown := uint64(0)
	var beside []time.Duration
	for b.Loop() {
		job, err := j.Start(ctx, jobs.Job{Action: outbox.Redeliver, Filter: url.Values{"state": {"failed"}, "endpoint": {"a"}}, Who: "bench"})
		testkit.Must(b, err)
		over := func() bool {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			grown = max(grown, max(m.HeapAlloc, before.HeapAlloc)-before.HeapAlloc)
			job, err = j.Get(ctx, job.ID)
			testkit.Must(b, err)
			return job.State.Over()
		}
		beside = append(beside, fresh(b, s, time.Hour, over)...)
		if job.State != jobs.Done || job.Done != int64(n) {
			b.Fatalf("the job is %+v", job)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/delivery")
	b.ReportMetric(float64(grown)/(1<<20), "MiB-heap")
	for name, took := range map[string][]time.Duration{"alone": alone, "beside": beside} {
		slices.Sort(took)
		for _, q := range []float64{0.5, 0.99} {
			b.ReportMetric(float64(took[int(q*float64(len(took)-1))].Microseconds())/1000, fmt.Sprintf("p%.0f-ms-%s", 100*q, name))
		}
	}
}

// freshEvents numbers the events of fresh over all benchmarks.
var freshEvents atomic.Int64

// fresh hands over an event every 20 ms, for so long or until over, and returns how long each took from its accept to its claim.
func fresh(b *testing.B, s outbox.Operable, lasts time.Duration, over func() bool) (took []time.Duration) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	looked, end := time.Now(), time.Now().Add(lasts)
	for time.Now().Before(end) {
		<-tick.C
		began := time.Now()
		_, err := s.Accept(b.Context(), outbox.Batch{Entries: []outbox.Entry{{
			Event: outbox.Event{ID: fmt.Sprintf("fresh_%d", freshEvents.Add(1)), Type: "t", Data: []byte(`{}`)}, Endpoints: []string{"fresh"},
		}}})
		testkit.Must(b, err)
		claims, err := s.Claim(b.Context(), outbox.ClaimRequest{Endpoint: "fresh", Max: 1, Lease: time.Minute})
		testkit.Must(b, err)
		took = append(took, time.Since(began))
		testkit.Must(b, s.Settle(b.Context(), claims[0], outbox.Settlement{State: outbox.Delivered, Attempt: outbox.Attempt{N: 1, Status: 200, Outcome: "delivered"}}))
		if over != nil && time.Since(looked) > 200*time.Millisecond {
			if looked = time.Now(); over() {
				break
			}
		}
	}
	return took
}

// failAll makes so many failed deliveries of events of 1 KiB.
func failAll(b *testing.B, s outbox.Operable, n int) {
	data := make([]byte, 1024)
	for i := range data {
		data[i] = ' '
	}
	data[0] = '1'
	var workers sync.WaitGroup
	defer workers.Wait()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	left, none := int64(n), make(chan struct{})
	workers.Go(func() {
		for left > 0 {
			claims, err := s.Claim(ctx, outbox.ClaimRequest{Endpoint: "a", Max: 256, Lease: time.Hour})
			if err != nil {
				return
			}
			for _, c := range claims {
				a := outbox.Attempt{N: 1, Started: time.Now(), Took: time.Millisecond, Status: 410, Outcome: "gone", Code: "http_410"}
				if err := s.Settle(ctx, c, outbox.Settlement{State: outbox.Failed, Attempt: a}); err != nil {
					return
				}
			}
			left -= int64(len(claims))
		}
		close(none)
	})
	for i := 0; i < n; i += 500 {
		var batch outbox.Batch
		for k := i; k < min(i+500, n); k++ {
			batch.Entries = append(batch.Entries, outbox.Entry{Event: outbox.Event{ID: fmt.Sprintf("evt_%d", k), Type: "t", Data: data}, Endpoints: []string{"a"}})
		}
		_, err := s.Accept(b.Context(), batch)
		testkit.Must(b, err)
	}
	select {
	case <-none:
	case <-time.After(30 * time.Minute):
		b.Fatal("not all deliveries have failed")
	}
}
