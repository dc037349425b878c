package redisstream

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// TestDeliveryCost measures the processor time of a delivery's whole life, in this process and in Redis. It runs only
// when RELAY_COST says how many events, and how many endpoints each has: "200000 1".
func TestDeliveryCost(t *testing.T) {
	var n, fan int
	if k, _ := fmt.Sscan(os.Getenv("RELAY_COST"), &n, &fan); k != 2 {
		t.Skip("it measures and judges nothing: make figures runs it, with RELAY_COST")
	}
	server := redistest.Start(t)
	server.MustDo(t, "CONFIG", "SET", "auto-aof-rewrite-percentage", "0")
	s := openTest(t, at(server.URL()))
	var names []string
	for i := range fan {
		names = append(names, "endpoint"+strconv.Itoa(i))
	}
	ctx, stop := context.WithCancel(t.Context())
	var workers, producers sync.WaitGroup
	var left, next atomic.Int64
	left.Store(int64(n * fan))
	over := make(chan struct{})
	for _, name := range names {
		workers.Go(func() {
			for {
				claims, err := s.Claim(ctx, outbox.ClaimRequest{Endpoint: name, Max: 64, Lease: time.Hour})
				if err != nil {
					return
				}
				for _, c := range claims {
					a := outbox.Attempt{N: 1, Started: time.Now(), Took: time.Millisecond, Status: 200, Outcome: "delivered"}
					if err := s.Settle(ctx, c, outbox.Settlement{State: outbox.Delivered, Attempt: a}); err != nil {
						return
					}
				}
				if left.Add(-int64(len(claims))) == 0 {
					close(over)
				}
			}
		})
	}
	began, redis := processorTime(t), server.CPU()
	data := make([]byte, 1024)
	for range 64 {
		producers.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				e := outbox.Event{ID: fmt.Sprintf("evt_%08x-0000-7000-8000-000000000000", i), Type: "order.paid", Data: data}
				if _, err := s.Accept(ctx, outbox.Batch{Entries: []outbox.Entry{{Event: e, Endpoints: names}}}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	producers.Wait()
	<-over
	if _, err := s.Counts(ctx); err != nil { // it waits for settlements
		t.Error(err)
	}
	stop()
	workers.Wait()
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(n*fan) }
	t.Logf("microseconds a delivery: %.2f here, %.2f in Redis", each(processorTime(t)-began), each(server.CPU()-redis))
}

func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
