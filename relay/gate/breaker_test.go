package gate

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"relay/policy"
)

// The window against a list: what is younger than 9/10 of it counts, what is as old as the
// whole of it does not, and what is between may.
func TestWindowCountsAsAList(t *testing.T) {
	type attempt struct {
		at     time.Time
		failed bool
	}
	synctest.Test(t, func(t *testing.T) {
		check(t, func(t *rapid.T) {
			percent := rapid.IntRange(1, 100).Draw(t, "percent")
			rule := &policy.Breaker{
				FailureRatio: float64(percent) / 100,
				MinAttempts:  rapid.IntRange(1, 12).Draw(t, "min"),
				Window:       rapid.SampledFrom([]time.Duration{time.Second, 10 * time.Second, time.Minute, time.Hour}).Draw(t, "window"),
			}
			var b breaker
			var all []attempt
			for range rapid.IntRange(1, 60).Draw(t, "attempts") {
				time.Sleep(time.Duration(rapid.Int64Range(0, int64(rule.Window/5)).Draw(t, "time")))
				if rapid.IntRange(0, 20).Draw(t, "rest") == 0 {
					time.Sleep(time.Duration(rapid.Int64Range(0, int64(30*rule.Window)).Draw(t, "long")))
				}
				now, failed := time.Now(), rapid.Bool().Draw(t, "failed")
				all = append(all, attempt{now, failed})
				open := b.count(rule, now, failed)

				var young, kept, youngFailures, keptFailures, attempts, failures int
				for _, a := range all {
					n := 0
					if a.failed {
						n = 1
					}
					age := now.Sub(a.at)
					if age <= rule.Window/10*9 {
						young, youngFailures = young+1, youngFailures+n
					}
					if age < rule.Window {
						kept, keptFailures = kept+1, keptFailures+n
					}
				}
				for _, c := range b.counted {
					attempts, failures = attempts+c.attempts, failures+c.failures
				}
				if attempts < young || attempts > kept || failures < youngFailures || failures > keptFailures {
					t.Fatalf("counts %d failures of %d, want %d to %d of %d to %d", failures, attempts, youngFailures, keptFailures, young, kept)
				}
				if want := failed && attempts >= rule.MinAttempts && failures*100 >= percent*attempts; open != want {
					t.Fatalf("open is %t with %d failures of %d and the rule %+v", open, failures, attempts, *rule)
				}
			}
		})
	})
}

// A share of failures that is just that of the rule opens, for each that a file can say.
func TestRatioIsExact(t *testing.T) {
	now := time.Now()
	for percent := 1; percent <= 100; percent++ {
		rule := &policy.Breaker{FailureRatio: float64(percent) / 100, MinAttempts: 100, Window: time.Minute}
		var b breaker
		open := false
		for i := range 100 {
			open = b.count(rule, now, i >= 100-percent)
		}
		if !open {
			t.Errorf("%d failures of 100 do not open at the ratio %v", percent, rule.FailureRatio)
		}
	}
}

func TestOpenFor(t *testing.T) {
	check(t, func(t *rapid.T) {
		rule := &policy.Breaker{
			Open:   time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "open")),
			Jitter: rapid.Float64Range(0, 1).Draw(t, "jitter"),
		}
		rule.MaxOpen = time.Duration(rapid.Int64Range(int64(rule.Open), int64(100*time.Hour)).Draw(t, "max"))
		n := rapid.OneOf(rapid.IntRange(1, 20), rapid.Just(1<<40)).Draw(t, "n")
		want := float64(rule.MaxOpen)
		if n <= 40 {
			want = min(want, float64(rule.Open)*float64(int64(1)<<(n-1)))
		}
		got := openFor(rule, n, rapid.Float64Range(0, 0.999999).Draw(t, "random"))
		if float64(got) < want*(1-rule.Jitter)-1 || float64(got) > want*(1+rule.Jitter)+1 {
			t.Fatalf("open for %v, want %v ± %v of it", got, time.Duration(want), rule.Jitter)
		}
	})
}

func TestBreakerOpensProbesAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		f := newFleet()
		e := endpoint(withBreaker(t))
		m := f.join("a", e)
		passed := m.Passed(ctx)
		attempts(t, m.Gate, 2, wentWell)
		attempts(t, m.Gate, 2, broke)
		if m.State().Breaker != "open" || passed.Err() == nil {
			t.Errorf("half of four attempts failed, and the breaker is %s", m.State().Breaker)
		}
		wait := e.Breaker.Open
		for times := 1; ; times++ {
			o := f.condition().Breaker
			left := time.Until(o.Until)
			if o.Times != times || left < time.Duration(0.9*float64(wait)) || left > time.Duration(1.1*float64(wait)) {
				t.Fatalf("opened %d times, now for %v, want %d times and %v", o.Times, left, times, wait)
			}
			if n, _ := m.Admit(ctx, 5); n != 0 {
				t.Fatalf("an open breaker admits %d", n)
			}
			v := m.Look(ctx, 5)
			want(t, m.Gate, Breaker, left)
			time.Sleep(v.Wait)
			if s := m.State(); s.Breaker != "half_open" || s.Cause != Open {
				t.Fatalf("state is %+v", s)
			}
			if v := m.Look(ctx, 5); v.N != 2 {
				t.Fatalf("%+v begin as probes", v)
			}
			n, probe := m.Admit(ctx, 2)
			if n != 2 || !probe {
				t.Fatalf("%d admitted, probe %t", n, probe)
			}
			want(t, m.Gate, Breaker, 0)
			if times == 6 {
				break
			}
			m.Ended(ctx, Attempt{Probe: true, Status: 500})
			m.Ended(ctx, Attempt{Probe: true, Status: 200, Delivered: true}) // too late
			wait = min(2*wait, e.Breaker.MaxOpen)
		}
		m.Ended(ctx, Attempt{Probe: true, Void: true})
		m.Ended(ctx, Attempt{Probe: true, Status: 200, Delivered: true})
		if o := f.condition().Breaker; o == nil || o.Good != 1 || o.Prober != "" {
			t.Fatalf("one of two probes went well: %+v", o)
		}
		if n, _ := begin(m.Gate, 5); n != 1 {
			t.Fatalf("%d probes begin where one is missing", n)
		}
		m.Ended(ctx, Attempt{Probe: true, Status: 404}) // an answer that the rule does not count
		if f.condition().Breaker != nil || m.State().Breaker != "closed" {
			t.Error("the breaker did not close")
		}
		attempts(t, m.Gate, 3, broke) // what was counted before is over
		if m.State().Breaker != "closed" {
			t.Error("the breaker opened for less than its minimum of attempts")
		}
		wantHappened(t, f, ToOpen, ToClosed)
	})
}

// If a new rule asks for fewer probes than have succeeded already, one more probe is made first.
func TestFewerProbesAfterReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		m := f.join("a", endpoint(withBreaker(t), func(e *policy.Endpoint) { e.Breaker.Probes = 3 }))
		attempts(t, m.Gate, 4, broke)
		time.Sleep(time.Minute)
		attempts(t, m.Gate, 2, wentWell)
		m.Use(endpoint(withBreaker(t)))
		if n, probe := begin(m.Gate, 16); n != 1 || !probe {
			t.Fatalf("%d attempts begin, probes: %t", n, probe)
		}
		m.Ended(context.Background(), Attempt{Probe: true, Delivered: true, Status: 200})
		if m.State().Breaker != "closed" {
			t.Error("the breaker stays open")
		}
	})
}

// Where the outbox did not hear that the breaker opened, it hears of the first turn.
func TestBreakerThatTheOutboxDoesNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		m := f.join("a", endpoint(withBreaker(t)))
		m.down = true
		attempts(t, m.Gate, 4, broke)
		m.down = false
		if m.State().Breaker != "open" || f.condition().Breaker != nil {
			t.Fatal("the breaker is not this Relay's own")
		}
		time.Sleep(time.Minute)
		attempts(t, m.Gate, 2, wentWell)
		if m.State().Breaker != "closed" || f.condition().Breaker != nil {
			t.Errorf("the breaker is %s, the outbox knows %+v", m.State().Breaker, f.condition())
		}
		wantHappened(t, f, ToClosed)
	})
}

// Successes of a turn count, and the next turn stays one, when that begins before the
// end of the first is written.
func TestTurnBeginsBeforeTheLastIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		f := newFleet()
		e := endpoint(withBreaker(t), func(e *policy.Endpoint) { e.Breaker.Probes = 3 })
		a, b := f.join("a", e), f.join("b", e)
		attempts(t, a.Gate, 4, broke)
		time.Sleep(time.Minute)
		if n, _ := begin(a.Gate, 1); n != 1 {
			t.Fatal("no probe")
		}
		time.Sleep(time.Millisecond) // no two turns begin at the same time
		a.slow = time.Second
		ended := make(chan struct{})
		go func() {
			a.Ended(ctx, Attempt{Probe: true, Delivered: true, Status: 200})
			close(ended)
		}()
		synctest.Wait() // it writes
		a.slow = 0
		if n, _ := begin(a.Gate, 1); n != 1 {
			t.Fatal("no second probe")
		}
		<-ended
		b.hear()
		if n, _ := begin(b.Gate, 16); n != 0 {
			t.Errorf("%d probes begin at a second Relay while the turn is another's", n)
		}
		a.Ended(ctx, Attempt{Probe: true, Delivered: true, Status: 200})
		if o := f.condition().Breaker; o == nil || o.Good != 2 || o.Prober != "" {
			t.Errorf("after two probes the outbox knows %+v", o)
		}
	})
}

// A clock that was a day ahead, when others or this Relay before its restart wrote (fault F44).
func TestClocksDoNotShutTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		for _, beforeUse := range []bool{false, true} {
			f := newFleet()
			far := time.Now().Add(24 * time.Hour).UTC().Round(0)
			c := Condition{
				Hold:    until(far),
				Breaker: &Opening{Times: 3, Until: far, Prober: "other", ProberUntil: far},
			}
			e := endpoint(withBreaker(t), func(e *policy.Endpoint) { e.Retry.MaxRetryAfter = time.Minute })
			m := &member{fleet: f}
			m.all = New(Options{Notes: m, Relay: "a"})
			m.Gate = m.all.Gate(name)
			if !beforeUse {
				m.Use(e)
			}
			if _, err := f.store.SetNote(ctx, noteOf(c)); err != nil {
				t.Fatal(err)
			}
			m.hear()
			if beforeUse {
				m.Use(e)
			}
			want(t, m.Gate, RetryAfter, time.Minute)
			time.Sleep(time.Minute)
			longest := time.Duration(1.1 * float64(5*time.Minute))
			want(t, m.Gate, Breaker, longest-time.Minute)
			m.apply(c, 100, false) // another note of the same says nothing new
			want(t, m.Gate, Breaker, longest-time.Minute)
			time.Sleep(longest - time.Minute)
			if n, _ := begin(m.Gate, 16); n != 2 {
				t.Errorf("%d probes begin after the longest time of the rule: %+v", n, m.Look(ctx, 1))
			}
		}
	})
}
