package redisstream

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// BenchmarkDeliveryCost measures the processor time of a delivery's whole life, in this process and in Redis, where 64 producers
// have an event under way each.
func BenchmarkDeliveryCost(b *testing.B) {
	for _, endpoints := range []int{1, 10} {
		b.Run(fmt.Sprintf("%d endpoints", endpoints), func(b *testing.B) { measureCost(b, endpoints) })
	}
}

func measureCost(b *testing.B, endpoints int) {
	const round = 20_000 // events
	server := redistest.Start(b)
	server.MustDo(b, "CONFIG", "SET", "auto-aof-rewrite-percentage", "0")
	s := openTest(b, at(server.URL()))
	var names []string
	for i := range endpoints {
		names = append(names, "endpoint"+strconv.Itoa(i))
	}
	w := &costWorld{b: b, s: s, names: names, over: make(chan struct{})}
	ctx, stop := context.WithCancel(b.Context())
	var workers sync.WaitGroup
	for _, name := range names {
		workers.Go(func() { w.work(ctx, name) })
	}
	here, redis := processorTime(b), server.CPU()
	for b.Loop() {
		w.accept(ctx, round)
	}
	if _, err := s.Counts(ctx); err != nil { // it waits for settlements
		b.Error(err)
	}
	here, redis = processorTime(b)-here, server.CPU()-redis
	stop()
	workers.Wait()
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N*round*endpoints) }
	b.ReportMetric(each(here), "µs-here/delivery")
	b.ReportMetric(each(redis), "µs-redis/delivery")
}

// costWorld accepts events and settles their deliveries.
type costWorld struct {
	b     *testing.B
	s     *Store
	names []string // of endpoints
	next  atomic.Int64
	left  atomic.Int64  // deliveries of this round
	over  chan struct{} // told when none is left
}

func (w *costWorld) work(ctx context.Context, name string) {
	for {
		claims, err := w.s.Claim(ctx, outbox.ClaimRequest{Endpoint: name, Max: 64, Lease: time.Hour})
		if err != nil {
			return
		}
		for _, c := range claims {
			a := outbox.Attempt{N: 1, Started: time.Now(), Took: time.Millisecond, Status: 200, Outcome: "delivered"}
			if err := w.s.Settle(ctx, c, outbox.Settlement{State: outbox.Delivered, Attempt: a}); err != nil {
				return
			}
		}
		if w.left.Add(-int64(len(claims))) == 0 {
			w.over <- struct{}{}
		}
	}
}

// accept accepts so many events, and waits until all their deliveries have ended.
func (w *costWorld) accept(ctx context.Context, events int) {
	w.left.Store(int64(events * len(w.names)))
	last := w.next.Load() + int64(events)
	data := make([]byte, 1024)
	var producers sync.WaitGroup
	for range 64 {
		producers.Go(func() {
			for i := w.next.Add(1); i <= last; i = w.next.Add(1) {
				e := outbox.Event{ID: fmt.Sprintf("evt_%08x-0000-7000-8000-000000000000", i), Type: "order.paid", Data: data}
				if _, err := w.s.Accept(ctx, outbox.Batch{Entries: []outbox.Entry{{Event: e, Endpoints: w.names}}}); err != nil {
					w.b.Error(err)
					return
				}
			}
		})
	}
	producers.Wait()
	<-w.over
}

func processorTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
