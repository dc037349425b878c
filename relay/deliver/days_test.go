package deliver

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// Fault F36: a receiver that fails for five days with a backlog costs nobody anything: few
// attempts, no memory, no delay elsewhere. Then the endpoint is disabled, and nothing of it is lost.
func TestReceiverFailsForDays(t *testing.T) {
	const backlog, days = 10_000, 5
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.o.observe = nil
		down, well := delivertest.NewEndpoint(delivertest.Step{Status: 503}), delivertest.NewEndpoint()
		bad, good := w.inMemory("down", down), w.inMemory("well", well)
		bad.Breaker, bad.Concurrency = failing(), 16
		bad.Disable.AfterFailing = days * 24 * time.Hour
		begin := time.Now()
		for range backlog / 1000 {
			w.accept(1000, "down")
		}
		w.start(bad, good)
		var after1, after5 runtime.MemStats
		for hour := range days*24 + 1 {
			time.Sleep(time.Hour)
			w.accept(1, "well")
			synctest.Wait()
			r := well.Requests()
			if len(r) != hour+1 {
				t.Fatalf("%d of %d deliveries were made elsewhere after %d hours", len(r), hour+1, hour+1)
			}
			if hour == 0 {
				runtime.GC()
				runtime.ReadMemStats(&after1)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after5)
		if grown := int64(after5.HeapAlloc) - int64(after1.HeapAlloc); grown > 8<<20 {
			t.Errorf("the heap has grown by %d bytes", grown)
		}
		s, _ := w.d.StatusOf("down")
		if s.State != Disabled || s.Code != ByFailing {
			t.Errorf("the endpoint is %s, %s", s.State, s.Code)
		}
		counts, err := w.store.Counts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c := counts["down"]
		if want := (outbox.Counts{Accepted: backlog, Pending: backlog, Oldest: begin.UTC()}); c != want {
			t.Errorf("counts are %+v, want %+v", c, want)
		}
		if n := len(down.Requests()); n > days*24*60/10*2 {
			t.Errorf("%d attempts in %d days, though the breaker was open", n, days)
		}
		t.Logf("%d attempts in %d days", len(down.Requests()), days)
	})
}

// Promises P7, P9 and P12: a thousand reloads, between which the endpoint is paused, disabled,
// removed, given another breaker or none, lose nothing, and its limit holds as long as
// each file has it.
func TestGatesInReloadStorm(t *testing.T) {
	const reloads = 1000
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.o.observe = nil
		ledger := outboxtest.NewLedger()
		receiver := delivertest.NewEndpoint()
		var calm atomic.Bool // probes come at the same second of each minute
		receiver.Answer = func(r *delivertest.Request) delivertest.Step {
			if r.Attempt == 1 && r.At.Second()%4 == 0 && !calm.Load() {
				return delivertest.Step{Status: 503}
			}
			if err := ledger.Received(r.Event, "billing"); err != nil {
				t.Error(err)
			}
			return delivertest.Step{}
		}
		e := w.inMemory("billing", receiver)
		e.RateLimit = &policy.RateLimit{N: 100, Per: time.Second, Burst: 20}
		e.Retry.Schedule = []time.Duration{time.Second, time.Second, time.Second}
		e.Breaker = failing()
		w.start(e)
		for i := range reloads {
			for _, id := range w.accept(1+i%2, "billing") {
				if err := ledger.Accepted(id, "billing"); err != nil {
					t.Error(err)
				}
			}
			switch i % 9 {
			case 0:
				w.apply()
			case 1:
				w.apply(but(e, func(e *policy.Endpoint) { e.Enabled = false }))
			case 2:
				w.apply(but(e, func(e *policy.Endpoint) { e.Breaker = nil }))
			case 3:
				w.apply(but(e, func(e *policy.Endpoint) {
					b := *e.Breaker
					b.MinAttempts, e.Breaker = 2, &b
				}))
			case 4:
				w.apply(but(e, func(e *policy.Endpoint) { e.URL.Path = fmt.Sprint("/", i) }))
			default:
				w.apply(e)
			}
			var err error
			switch i % 7 {
			case 0:
				_, err = w.d.Pause(t.Context(), "billing", "test")
			case 3:
				_, err = w.d.Resume(t.Context(), "billing", "test")
			}
			if err != nil && !errors.Is(err, ErrNoEndpoint) {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(1+i%40) * time.Millisecond)
		}
		w.apply(e)
		calm.Store(true)
		if _, err := w.d.Resume(t.Context(), "billing", "test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		tally, err := ledger.Check(t.Context(), w.store.Lookup)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(tally)
		if tally.Delivered != tally.Acknowledged || tally.Duplicates+tally.Unpromised > 0 {
			t.Errorf("after %d reloads: %s", reloads, tally)
		}
		var sends []time.Time
		for _, r := range receiver.Requests() {
			sends = append(sends, r.At)
		}
		if most, window := surplus(sends, 100); most > 20+1e-6 {
			t.Errorf("a window of %s had %.2f sends more than 100/s, the burst is 20", window, most)
		}
	})
}
