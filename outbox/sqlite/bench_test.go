package sqlite_test

import (
	"bytes"
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"relay/outbox"
	"relay/outbox/sqlite"
)

// BenchmarkAccept is one event of 1 KiB for one endpoint, by one producer that
// waits for each commit and by 64.
func BenchmarkAccept(b *testing.B) {
	for _, producers := range []int{1, 64} {
		b.Run(fmt.Sprintf("producers=%d", producers), func(b *testing.B) {
			s := openBench(b)
			var n atomic.Int64
			report := cpu(b)
			b.SetParallelism((producers + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					acceptOne(b, s, n.Add(1))
				}
			})
			report()
		})
	}
}

// BenchmarkCycle is accept, claim and settle, with 64 producers and 16 workers.
func BenchmarkCycle(b *testing.B) {
	s := openBench(b)
	var n, settled atomic.Int64
	total, done := int64(-1), make(chan struct{}) // total: once it is known
	for range 16 {
		go func() {
			for {
				claims, err := s.Claim(b.Context(), outbox.ClaimRequest{Endpoint: "billing", Max: 1, Lease: time.Minute})
				if err != nil {
					return
				}
				for _, c := range claims {
					if err := s.Settle(b.Context(), c, delivered()); err != nil {
						b.Error(err)
					}
					if settled.Add(1) == atomic.LoadInt64(&total) {
						close(done)
					}
				}
			}
		}()
	}
	report := cpu(b)
	b.SetParallelism(64 / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			acceptOne(b, s, n.Add(1))
		}
	})
	atomic.StoreInt64(&total, n.Load())
	if settled.Load() < n.Load() {
		select {
		case <-done:
		case <-time.After(time.Minute):
			b.Fatalf("%d of %d settled", settled.Load(), n.Load())
		}
	}
	report()
}

// BenchmarkMillion makes a backlog of a million deliveries once, then measures the
// opening of such an outbox, the first claim, and accepts.
func BenchmarkMillion(b *testing.B) {
	dir := b.TempDir()
	s, err := sqlite.Open(b.Context(), sqlite.Options{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	for n := range 1000 {
		var batch outbox.Batch
		for i := range 1000 {
			batch.Entries = append(batch.Entries, entry(int64(n*1000+i)))
		}
		if _, err := s.Accept(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.Run("open and claim", func(b *testing.B) {
		for b.Loop() {
			s, err := sqlite.Open(b.Context(), sqlite.Options{Dir: dir})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := s.Claim(b.Context(), outbox.ClaimRequest{Endpoint: "billing", Max: 16, Lease: time.Minute}); err != nil {
				b.Fatal(err)
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	if s, err = sqlite.Open(b.Context(), sqlite.Options{Dir: dir}); err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	n := atomic.Int64{}
	n.Store(1_000_000)
	b.Run("accept", func(b *testing.B) {
		report := cpu(b)
		b.SetParallelism(64 / runtime.GOMAXPROCS(0))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				acceptOne(b, s, n.Add(1))
			}
		})
		report()
	})
	b.Run("drain", func(b *testing.B) {
		report := cpu(b)
		for b.Loop() {
			claims, err := s.Claim(b.Context(), outbox.ClaimRequest{Endpoint: "billing", Max: 1, Lease: time.Minute})
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Settle(b.Context(), claims[0], delivered()); err != nil {
				b.Fatal(err)
			}
		}
		report()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapInuse)/(1<<20), "heap-MiB")
	})
}

var payload = bytes.Repeat([]byte("0123456789abcdef"), 64)

func acceptOne(b *testing.B, s *sqlite.Store, n int64) {
	if _, err := s.Accept(b.Context(), outbox.Batch{Entries: []outbox.Entry{entry(n)}}); err != nil {
		b.Error(err)
	}
}

func entry(n int64) outbox.Entry {
	return outbox.Entry{
		Event:     outbox.Event{ID: fmt.Sprintf("evt_%036d", n), Type: "invoice.paid", Time: time.Now(), Data: payload},
		Endpoints: []string{"billing"},
	}
}

func delivered() outbox.Settlement {
	return outbox.Settlement{State: outbox.Delivered, Attempt: outbox.Attempt{
		N: 1, Started: time.Now(), Took: time.Millisecond, Status: 200, Outcome: "delivered", Head: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", Body: []byte("ok"),
	}}
}

func openBench(b *testing.B) *sqlite.Store {
	s, err := sqlite.Open(b.Context(), sqlite.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

// cpu returns a function that reports the CPU time used for each operation since.
func cpu(b *testing.B) func() {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	b.ResetTimer()
	b.ReportAllocs()
	start := used()
	return func() {
		b.ReportMetric(float64((used()-start).Nanoseconds())/float64(b.N), "cpu-ns/op")
	}
}
