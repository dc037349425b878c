package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"relay/internal/testkit"
)

// The server's own cleaner sleeps for up to 10 s before it sees that the server is closed.
func TestMain(m *testing.M) {
	testkit.Main(m, goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

// straight sends n events to a receiver without a Relay.
func straight(t *testing.T, r *receiver, n int, secret []byte) error {
	t.Helper()
	l := load{
		network: "tcp", addr: r.addr(), path: "/e0", events: n, batch: 1, fan: 1, endpoints: 1,
		senders: 3, size: 200, secret: secret,
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return l.run(ctx, r, func(int) {})
}

func open(t *testing.T, endpoints, events int) *receiver {
	t.Helper()
	r, err := openReceiver(endpoints, events)
	testkit.Must(t, err)
	t.Cleanup(r.close)
	return r
}

func TestReceiverCounts(t *testing.T) {
	r := open(t, 1, 100)
	testkit.Must(t, straight(t, r, 100, r.key))
	if n := len(r.latencies()); n != 100 || r.duplicates() != 0 {
		t.Errorf("%d came, %d of them again, want 100 and 0", n, r.duplicates())
	}
	testkit.Must(t, straight(t, r, 100, r.key))
	if r.duplicates() != 100 {
		t.Errorf("%d came again, want 100", r.duplicates())
	}
}

func TestReceiverRefuses(t *testing.T) {
	r := open(t, 1, 10)
	if err := straight(t, r, 10, []byte("another")); err == nil || !strings.Contains(err.Error(), "status 400") && !strings.Contains(err.Error(), "wrong signature") {
		t.Errorf("a wrong signature: %v", err)
	}
	for path, want := range map[string]string{"/e1": "no endpoint", "/x": "no endpoint"} {
		r := open(t, 1, 10)
		l := load{network: "tcp", addr: r.addr(), path: path, events: 1, batch: 1, fan: 1, endpoints: 1, senders: 1, size: 100, secret: r.key}
		err := l.run(t.Context(), r, func(int) {})
		if wrong := r.wrong.Load(); err == nil || wrong == nil || !strings.Contains((*wrong).Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// A run whose deliveries do not come is an error, and so is one that is interrupted.
func TestRunIsWhole(t *testing.T) {
	r := open(t, 1, 10)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := load{network: "tcp", addr: r.addr(), path: "/e0", events: 5, batch: 1, fan: 2, endpoints: 2, senders: 1, size: 100, secret: r.key}
	err := l.run(ctx, r, func(done int) {
		if done == 5 {
			cancel() // the other five never come
		}
	})
	if err == nil {
		t.Error("a run without half of its deliveries has no error")
	}
}

func TestEventHasItsSize(t *testing.T) {
	for _, size := range []int{64, 1024, 5000} {
		l := load{size: size, batch: 1, fan: 1, endpoints: 1}
		pad := []byte(strings.Repeat("x", size+64))
		for _, n := range []int64{0, 31, 123_456} {
			b := l.appendEvent(nil, n, 1_790_000_000_000_000_000, pad)
			if len(b) != size {
				t.Errorf("event %d has %d bytes, want %d", n, len(b), size)
			}
			if got, sent, err := numbers(b); got != n || sent != 1_790_000_000_000_000_000 || err != nil {
				t.Errorf("numbers of event %d: %d, %d, %v", n, got, sent, err)
			}
		}
	}
	for _, bad := range []string{"", `{"n":`, `{"n":x,"t":1,`, `{"n":1,"t":`, `{"n":-1,"t":1,`, `{"n":99999999999999999999,"t":1,`} {
		if _, _, err := numbers([]byte(bad)); err == nil {
			t.Errorf("numbers of %s: no error", bad)
		}
	}
}

func TestSummary(t *testing.T) {
	f := Figure{Workload: Workload{Name: "single", Batch: 1, Fan: 1}, Outbox: "redis"}
	for i, relay := range []float64{90, 60, 80} {
		f.Rounds = append(f.Rounds, Round{
			Limit: Limit{PerSecond: 1000}, Delivered: 100 * float64(i+1), RelayCPU: relay, RedisCPU: 30, HarnessCPU: 58,
			RSS: int64(i+1) << 20,
		})
	}
	f.summarize()
	want := []string{"single", "redis", "200", "0.20", "40.0", "15.0", "-", "0 / 3"}
	if diff := cmp.Diff(want, f.Row()); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	if len(want) != len(Header()) {
		t.Errorf("%d cells below %d names", len(want), len(Header()))
	}
	rate := Figure{Workload: Workload{Name: "rate", Batch: 1, Fan: 1, Rate: 200}, Rounds: []Round{{P50: 600 * time.Microsecond, P99: time.Millisecond, RelayCPU: 7}}}
	rate.summarize()
	if got := rate.Row(); got[6] != "0.60 / 1.00" || got[4] != "7.0" || got[3] != "-" {
		t.Errorf("row of a rate: %v", got)
	}
}

func TestBacklogInWords(t *testing.T) {
	f := Figure{Workload: Workload{Name: "backlog", Held: true}, Outbox: "redis"}
	if f.Backlog() != "" {
		t.Errorf("a figure without rounds: %q", f.Backlog())
	}
	for i, ratio := range []float64{0.9, 0.8, 1.1} {
		f.Rounds = append(f.Rounds, Round{P50: 500 * time.Microsecond, P99: 2 * time.Millisecond, Backlog: &Backlog{Pending: 1000, AcceptRatio: ratio, HeldRSS: int64(i+40) << 20, RedisBytes: 99 << 20, Start: 10 * time.Millisecond}})
	}
	f.summarize()
	want := "backlog on redis: with 1000 pending, accepts 0.90 x those of an empty outbox, Relay has 42 MiB, Redis 99 MiB; " +
		"fresh events for another endpoint, 200/s, arrive after 0.50 / 2.00 ms (p50 / p99); a start after a kill takes 10 ms"
	if f.Backlog() != want {
		t.Errorf("%q, want %q", f.Backlog(), want)
	}
}

// A rewrite of Redis' append-only file takes one of the CPUs, so accepts are measured after it.
func TestRewriteIsAwaited(t *testing.T) {
	socket := filepath.Join(testkit.Dir(t), "redis.sock")
	ln, err := net.Listen("unix", socket)
	testkit.Must(t, err)
	answers := []string{"in_progress:1", "in_progress:0", "in_progress:0"}
	served := make(chan int)
	go func() {
		n := 0
		defer func() { served <- n }()
		for ; ; n++ {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			scheduled := 0
			if n == 1 {
				scheduled = 1
			}
			_, _ = io.ReadFull(conn, make([]byte, len("INFO persistence\r\nQUIT\r\n"))) // else the close is a reset
			fmt.Fprintf(conn, "aof_rewrite_%s\r\naof_rewrite_scheduled:%d\r\n", answers[min(n, len(answers)-1)], scheduled)
			conn.Close()
		}
	}()
	p := processes{redis: &process{}, server: socket}
	testkit.Must(t, p.awaitRewrite(t.Context()))
	testkit.Must(t, ln.Close())
	if n := <-served; n != 3 {
		t.Errorf("asked %d times, want 3: in progress, scheduled, done", n)
	}
	if err := p.awaitRewrite(t.Context()); err == nil {
		t.Error("a redis-server that is gone is no error")
	}
}

// A load may begin at any event, so that several send what one receiver counts.
func TestLoadsOneAfterTheOther(t *testing.T) {
	r := open(t, 1, 30)
	testkit.Must(t, straight(t, r, 10, r.key))
	for first := int64(10); first < 30; first += 10 {
		l := load{network: "tcp", addr: r.addr(), path: "/e0", first: first, events: 10, batch: 1, fan: 1, endpoints: 1, senders: 3, size: 200, secret: r.key}
		testkit.Must(t, l.sendAll(t.Context(), func(int) {}))
	}
	if n := len(r.latencies()); n != 30 || r.duplicates() != 0 {
		t.Errorf("%d came, %d of them again, want 30 and 0", n, r.duplicates())
	}
}

func TestRateIsKept(t *testing.T) {
	r := open(t, 1, 20)
	l := load{network: "tcp", addr: r.addr(), path: "/e0", events: 20, batch: 1, fan: 1, endpoints: 1, senders: 2, size: 100, secret: r.key, rate: 200}
	testkit.Must(t, l.run(t.Context(), r, func(int) {}))
	if took := l.took(); took < 90*time.Millisecond {
		t.Errorf("20 events at 200/s took %v, want 95 ms at least", took)
	}
}

// An ingest that refuses ends the run at once, with its answer.
func TestRefusalEndsTheRun(t *testing.T) {
	r := open(t, 1, 10)
	l := load{network: "tcp", addr: r.addr(), path: "/e0", events: 10, batch: 1, fan: 1, endpoints: 1, senders: 2, size: 100, envelope: true}
	err := l.run(t.Context(), r, func(int) {})
	if err == nil || !strings.Contains(err.Error(), http.StatusText(http.StatusBadRequest)) && !strings.Contains(err.Error(), "400") && !strings.Contains(err.Error(), "signature") {
		t.Errorf("run: %v", err)
	}
}
