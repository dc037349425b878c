package deliver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// starts are when attempts began.
func starts(results []Result) (at []time.Time) {
	for _, r := range results {
		at = append(at, r.Attempt.Started)
	}
	slices.SortFunc(at, time.Time.Compare)
	return at
}

// Promise P9: over any window no more attempts begin than the limit and the burst allow,
// and the limit is used. Waiting deliveries hold no slot and have had no attempt.
func TestRateLimitHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint())
		e.RateLimit = &policy.RateLimit{N: 5, Per: time.Second, Burst: 10}
		w.start(e)
		begin := time.Now()
		w.accept(60, "billing")
		synctest.Wait()
		if s, _ := w.d.StatusOf("billing"); s.Waiting != "limit" || s.InFlight != 0 {
			t.Errorf("waits for %q with %d under way, want limit and 0", s.Waiting, s.InFlight)
		}
		at := starts(w.await(60))
		for i := range at {
			for j := i; j < len(at); j++ {
				window := at[j].Sub(at[i])
				if n := j - i + 1; float64(n) > 5*window.Seconds()+10+1e-6 {
					t.Fatalf("%d attempts within %s", n, window)
				}
			}
		}
		if took := at[59].Sub(begin); took > 10*time.Second+100*time.Millisecond {
			t.Errorf("60 attempts took %s, want 10 s: 10 at once, then 5/s", took)
		}
	})
}

// A reload that leaves the limit alone gives no new tokens.
func TestRateLimitSurvivesReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint())
		e.RateLimit = &policy.RateLimit{N: 1, Per: time.Hour, Burst: 3}
		w.start(e)
		w.accept(10, "billing")
		w.await(3)
		for i := range 5 {
			w.apply(but(e, func(e *policy.Endpoint) { e.Description = fmt.Sprint(i) }))
			synctest.Wait()
		}
		if n := len(w.await(3)); n != 3 {
			t.Errorf("%d attempts, want the burst of 3", n)
		}
	})
}

// failing is a breaker's rule that opens after four failures.
func failing() *policy.Breaker {
	return &policy.Breaker{
		FailureRatio: 0.5, MinAttempts: 4, Window: time.Minute, Open: 30 * time.Second, MaxOpen: 10 * time.Minute,
		Probes: 1, On: retryOn("network", "timeout", "5xx"),
	}
}

// An open breaker lets nothing begin and costs no delivery an attempt; one probe closes it
// when the receiver works again, and waiting deliveries go out.
func TestBreakerOpensAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		raised := collect(w)
		var mu sync.Mutex
		down := true
		receiver := delivertest.NewEndpoint()
		receiver.Answer = func(*delivertest.Request) delivertest.Step {
			mu.Lock()
			defer mu.Unlock()
			if down {
				return delivertest.Step{Status: 503}
			}
			return delivertest.Step{Delay: time.Second}
		}
		e := w.inMemory("billing", receiver)
		e.Breaker, e.Retry.Jitter = failing(), 0
		e.Retry.Schedule = []time.Duration{time.Second, time.Second, time.Second}
		w.start(e)
		w.accept(4, "billing")
		w.await(4)
		synctest.Wait()
		s, _ := w.d.StatusOf("billing")
		if s.Breaker != "open" || s.Waiting != "breaker" || s.OpenUntil.IsZero() {
			t.Fatalf("after four failures: %+v", s)
		}
		w.accept(6, "billing")
		time.Sleep(29 * time.Second)
		synctest.Wait()
		if n := len(w.await(4)); n != 4 {
			t.Fatalf("%d attempts while the breaker was open", n-4)
		}
		mu.Lock()
		down = false
		mu.Unlock()
		time.Sleep(1500 * time.Millisecond) // the probe is under way
		if n := len(receiver.Requests()); n != 5 {
			t.Errorf("%d probes at the same time, want 1", n-4)
		}
		if s, _ := w.d.StatusOf("billing"); s.Breaker != "half_open" {
			t.Errorf("the breaker is %s, want half_open", s.Breaker)
		}
		for _, r := range w.await(14)[4:] {
			if r.State != outbox.Delivered {
				t.Errorf("%s: %s, want delivered", r.EventID, r.State)
			}
		}
		synctest.Wait()
		if s, _ := w.d.StatusOf("billing"); s.Breaker != "closed" || s.Waiting != "" {
			t.Errorf("at last: %+v", s)
		}
		if got := raised(); !slices.Equal(got, []string{"relay.breaker.opened billing", "relay.breaker.closed billing"}) {
			t.Errorf("raised %q", got)
		}
	})
}

// collect returns what was raised so far.
func collect(w *world) func() []string {
	var mu sync.Mutex
	var all []string
	w.o.Raise = func(r OwnEvent) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, r.Type+" "+r.Endpoint)
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// What the breaker does not count as a failure does not open it.
func TestBreakerCountsWhatItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint(delivertest.Step{Status: 404}))
		e.Breaker = failing()
		w.start(e)
		w.accept(20, "billing")
		w.await(20)
		synctest.Wait()
		if s, _ := w.d.StatusOf("billing"); s.Breaker != "closed" {
			t.Errorf("the breaker is %s after answers 404", s.Breaker)
		}
	})
}

// A breaker stays open over a restart: the outbox remembers it.
func TestBreakerSurvivesRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint(delivertest.Step{Status: 503})
		e := w.inMemory("billing", receiver)
		e.Breaker = failing()
		w.start(e)
		w.accept(10, "billing")
		w.await(4)
		synctest.Wait()
		before := len(receiver.Requests())
		_ = w.stop()
		w.start(e)
		time.Sleep(25 * time.Second)
		if n := len(receiver.Requests()); n != before {
			t.Errorf("%d attempts after the restart, want none before the breaker lets one pass", n-before)
		}
		time.Sleep(10 * time.Second)
		if n := len(receiver.Requests()); n != before+1 {
			t.Errorf("%d attempts after the breaker's time, want one probe", n-before)
		}
	})
}

// Fault F35: Retry-After holds the whole endpoint, in both of its forms, up to the policy's
// bound; what is past or no time at all is no reason to wait.
func TestRetryAfterHoldsTheEndpoint(t *testing.T) {
	inAnHour := func() string { return time.Now().Add(time.Hour).UTC().Format(http.TimeFormat) }
	for _, c := range []struct {
		name   string
		status int
		after  func() string
		want   time.Duration
	}{
		{"seconds", 503, func() string { return "120" }, 2 * time.Minute},
		{"a date", 429, inAnHour, time.Hour},
		{"too long", 503, func() string { return "999999999" }, 24 * time.Hour},
		{"too long for any unit", 503, func() string { return "99999999999999999999999" }, 24 * time.Hour},
		{"a Unix time", 503, func() string { return strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10) }, time.Hour},
		{"in milliseconds", 429, func() string { return strconv.FormatInt(time.Now().Add(time.Hour).UnixMilli(), 10) }, time.Hour},
		{"in microseconds", 503, func() string { return strconv.FormatInt(time.Now().Add(time.Hour).UnixMicro(), 10) }, time.Hour},
		{"a Unix time that is past", 503, func() string { return "1000000000" }, 0},
		{"another status", 500, func() string { return "120" }, 2 * time.Minute},
		{"429 without it", 429, func() string { return "" }, time.Second},
		{"zero", 503, func() string { return "0" }, 0},
		{"past", 503, func() string { return "Thu, 21 Oct 1999 07:28:00 GMT" }, 0},
		{"garbage", 503, func() string { return "soon" }, 0},
		{"none", 503, func() string { return "" }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(time.Date(2026, 11, 29, 10, 0, 0, 0, time.UTC))) // Unix times have ten digits
				w := newWorld(t)
				first := true
				receiver := delivertest.NewEndpoint()
				receiver.Answer = func(*delivertest.Request) delivertest.Step {
					if !first {
						return delivertest.Step{}
					}
					first = false
					return delivertest.Step{Status: c.status, Header: map[string]string{"Retry-After": c.after()}}
				}
				e := w.inMemory("billing", receiver)
				w.start(e)
				w.accept(1, "billing")
				w.await(1)
				synctest.Wait()
				begin := time.Now()
				w.accept(1, "billing") // nobody asked it to wait, but the endpoint is held
				got := w.await(2)[1].Attempt.Started.Sub(begin)
				if got < c.want-time.Second || got > c.want+time.Millisecond {
					t.Errorf("another delivery waited %s, want %s", got, c.want)
				}
			})
		})
	}
}

// An answer 410 disables the endpoint, says so, and holds what waits; enabling goes on.
func TestGoneDisables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		raised := collect(w)
		receiver := delivertest.NewEndpoint(delivertest.Step{Status: 410}, delivertest.Step{})
		e := w.inMemory("billing", receiver)
		e.Concurrency, e.Disable.OnGone = 1, true
		w.start(e)
		ids := w.accept(5, "billing")
		w.await(1)
		time.Sleep(48 * time.Hour)
		s, _ := w.d.StatusOf("billing")
		if s.State != Disabled || s.Code != "gone" || s.Waiting != "disabled" || s.Since.IsZero() {
			t.Fatalf("%+v", s)
		}
		if n := len(receiver.Requests()); n != 1 {
			t.Errorf("%d attempts, want 1", n)
		}
		if d := w.delivery(ids[1]); d.State != outbox.Pending || d.Attempts != nil {
			t.Errorf("a delivery that waits is %s with %d attempts", d.State, len(d.Attempts))
		}
		// Nor does a restart forget it.
		_ = w.stop()
		w.start(e)
		time.Sleep(time.Hour)
		if n := len(receiver.Requests()); n != 1 {
			t.Errorf("%d attempts after a restart, want 1", n)
		}
		if _, err := w.d.Enable(t.Context(), "billing", "test"); err != nil {
			t.Fatal(err)
		}
		for _, r := range w.await(5)[1:] {
			if r.State != outbox.Delivered {
				t.Errorf("%s: %s", r.EventID, r.State)
			}
		}
		if got := raised(); !slices.Equal(got, []string{"relay.delivery.failed billing", "relay.endpoint.disabled billing", "relay.endpoint.enabled billing"}) {
			t.Errorf("raised %q", got)
		}
	})
}

// gone starts an endpoint that a 410 has disabled, with two deliveries held; later attempts would succeed.
func (w *world) gone(name string) *policy.Endpoint {
	e := w.inMemory(name, delivertest.NewEndpoint(delivertest.Step{Status: 410}, delivertest.Step{}))
	e.Concurrency, e.Disable.OnGone = 1, true
	w.start(e)
	w.accept(3, name)
	w.await(1)
	synctest.Wait() // an attempt is recorded before what it means is decided
	return e
}

// A new URL in the file is a new receiver: that the old one was gone means nothing.
func TestNewURLEnables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.gone("billing")
		time.Sleep(time.Hour)
		w.apply(but(e, func(e *policy.Endpoint) { e.URL.Path = "/moved" }))
		w.await(3)
	})
}

// Who may end Relay's own decision alone does so, and an operator's stays.
func TestEnableAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.gone("billing")
		s, err := w.d.EnableAgain(t.Context(), "billing", "test")
		if err != nil || s.State != Active || !slices.Equal(s.Ended, []string{WaitDisabled}) {
			t.Fatalf("%+v, %v", s, err)
		}
		w.await(3)
		if s, err := w.d.EnableAgain(t.Context(), "billing", "test"); err != nil || s.State != Active || len(s.Ended) > 0 {
			t.Errorf("of an active one: %+v, %v", s, err)
		}
		for _, stop := range []func(context.Context, string, string) (Status, error){w.d.Pause, w.d.Disable} {
			if _, err := stop(t.Context(), "billing", "test"); err != nil {
				t.Fatal(err)
			}
			if _, err := w.d.EnableAgain(t.Context(), "billing", "test"); !errors.Is(err, ErrByOperator) {
				t.Errorf("of an operator: %v", err)
			}
		}
		if _, err := w.d.EnableAgain(t.Context(), "biling", "test"); !errors.Is(err, ErrNoEndpoint) {
			t.Errorf("an unknown endpoint: %v", err)
		}
		w.apply(but(e, func(e *policy.Endpoint) { e.Enabled = false }))
		if _, err := w.d.Enable(t.Context(), "billing", "test"); !errors.Is(err, ErrInFile) {
			t.Errorf("disabled by its settings: %v", err)
		}
	})
}

// An endpoint that fails for as long as the policy says is disabled; one success in between
// starts the time again.
func TestFailingDisables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var well time.Time
		receiver := delivertest.NewEndpoint()
		receiver.Answer = func(r *delivertest.Request) delivertest.Step {
			if well.IsZero() && time.Since(w.begin) > 30*time.Hour {
				well = time.Now()
				return delivertest.Step{}
			}
			return delivertest.Step{Status: 500}
		}
		e := w.inMemory("billing", receiver)
		e.Disable.AfterFailing = 48 * time.Hour
		e.Retry.Schedule = slices.Repeat([]time.Duration{time.Hour}, 100)
		w.start(e)
		w.begin = time.Now()
		w.accept(3, "billing")
		time.Sleep(101 * time.Hour)
		s, _ := w.d.StatusOf("billing")
		if s.State != Disabled || s.Code != "failing" {
			t.Fatalf("%+v", s)
		}
		if failed := s.Since.Sub(well); failed < 48*time.Hour || failed > 51*time.Hour {
			t.Errorf("disabled %s after the last success, want 48 h and the next attempt", failed)
		}
	})
}

// Pausing holds at once what waits, for all Relays and over restarts; resuming goes on.
func TestPauseAndResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint(delivertest.Step{Delay: time.Second})
		e := w.inMemory("billing", receiver)
		e.Concurrency = 1
		w.start(e)
		w.accept(5, "billing")
		receiver.Await(t, 1)
		s, err := w.d.Pause(t.Context(), "billing", "test")
		if err != nil || s.State != Paused || s.Waiting != "paused" || s.Code != "operator" {
			t.Fatalf("%+v, %v", s, err)
		}
		time.Sleep(time.Hour)
		if n := len(w.await(1)); n != 1 {
			t.Errorf("%d attempts ended, want the one that was under way", n)
		}
		_ = w.stop()
		w.start(e)
		time.Sleep(time.Hour)
		if n := len(receiver.Requests()); n != 1 {
			t.Errorf("%d attempts after the restart of a paused endpoint", n)
		}
		if _, err := w.d.Resume(t.Context(), "billing", "test"); err != nil {
			t.Fatal(err)
		}
		w.await(5)
		if _, err := w.d.Pause(t.Context(), "biling", "test"); !errors.Is(err, ErrNoEndpoint) {
			t.Errorf("an unknown endpoint: %v", err)
		}
	})
}

// Fairness: what happens now does not wait for a backlog, and a backlog is worked off all
// the same.
func TestFreshGoesBesideBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint(delivertest.Step{Delay: 100 * time.Millisecond})
		e := w.inMemory("billing", receiver)
		e.Concurrency, e.FreshShare = 4, 0.5
		w.accept(2000, "billing")
		time.Sleep(time.Hour)
		w.start(e)
		receiver.Await(t, 100)
		begin := time.Now()
		fresh := map[string]bool{}
		for range 20 {
			fresh[w.accept(1, "billing")[0]] = true
			time.Sleep(100 * time.Millisecond)
		}
		old, slowest := 0, time.Duration(0)
		for _, r := range w.await(400) {
			if r.Attempt.Started.Before(begin) {
				continue
			}
			if !fresh[r.EventID] {
				old++
				continue
			}
			d := w.delivery(r.EventID)
			slowest = max(slowest, r.Attempt.Started.Sub(d.Created))
			delete(fresh, r.EventID)
		}
		if len(fresh) > 0 || slowest > 500*time.Millisecond {
			t.Errorf("%d of 20 fresh deliveries wait for the backlog, the slowest took %s", len(fresh), slowest)
		}
		if old < 100 {
			t.Errorf("only %d of the backlog went out meanwhile", old)
		}
	})
}

// Two Relays with one outbox keep one breaker, one hold and one pause between them.
func TestRelaysAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := outboxtest.NewMem(outboxtest.MemOptions{Shared: true})
		receiver := delivertest.NewEndpoint(delivertest.Step{Status: 503, Header: map[string]string{"Retry-After": "600"}}, delivertest.Step{})
		one, two := newWorld(t), newWorld(t)
		one.store, two.store = store, store
		one.o.Source, two.o.Source = store, store
		e := one.inMemory("billing", receiver)
		two.o.network.Dial = one.o.network.Dial
		e.Concurrency = 1
		one.start(e)
		one.accept(1, "billing")
		one.await(1)
		two.start(e)
		synctest.Wait()
		begin := time.Now()
		one.accept(10, "billing")
		time.Sleep(11 * time.Minute)
		if n := len(receiver.Requests()); n != 12 {
			t.Fatalf("%d requests, want 12: all that waited, and one of them twice", n)
		}
		if waited := receiver.Requests()[1].At.Sub(begin); waited < 599*time.Second {
			t.Errorf("the other Relay waited %s, want 10 m", waited)
		}
		if _, err := two.d.Pause(t.Context(), "billing", "test"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s, _ := one.d.StatusOf("billing"); s.State != Paused {
			t.Errorf("the other Relay's endpoint is %s", s.State)
		}
	})
}
