package gate

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"relay/policy"
)

// drawRule draws a rate limit, fast and slow ones.
func drawRule(t *rapid.T) policy.RateLimit {
	return policy.RateLimit{
		N:     rapid.IntRange(1, 60).Draw(t, "n"),
		Per:   rapid.SampledFrom([]time.Duration{100 * time.Millisecond, time.Second, 7 * time.Second, time.Minute, time.Hour}).Draw(t, "per"),
		Burst: rapid.IntRange(1, 20).Draw(t, "burst"),
	}
}

// Promise P9, for one Relay: whatever is asked when, and whatever rule comes in between.
func TestLimitHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		check(t, func(t *rapid.T) {
			ctx := context.Background()
			g := New(Options{}).Gate(name)
			var sends []time.Time
			var rules []rule
			use := func(t *rapid.T) {
				r := drawRule(t)
				rules = append(rules, rule{len(sends), r})
				g.Use(endpoint(func(e *policy.Endpoint) { e.RateLimit = &r }))
			}
			use(t)
			send := func(n int) {
				now := time.Now()
				n, _ = g.Admit(ctx, n)
				for range n {
					sends = append(sends, now)
				}
			}
			t.Repeat(map[string]func(*rapid.T){
				"use": use,
				"send": func(t *rapid.T) {
					if v := g.Look(ctx, rapid.IntRange(1, 30).Draw(t, "slots")); v.N > 0 {
						send(rapid.IntRange(1, v.N).Draw(t, "claims"))
					}
				},
				"send without looking": func(t *rapid.T) { send(rapid.IntRange(1, 30).Draw(t, "claims")) },
				"time": func(t *rapid.T) {
					most := rules[len(rules)-1].Per
					time.Sleep(time.Duration(rapid.Int64Range(1, int64(most)).Draw(t, "time")))
				},
				"wait": func(t *rapid.T) {
					const exact = 2 * time.Millisecond
					v := g.Look(ctx, 1)
					if v.N > 0 {
						return // nothing is in the way
					}
					if v.Cause != Limit {
						t.Fatalf("the gate says %q", v.Cause)
					}
					early := max(v.Wait-exact, 0)
					time.Sleep(early)
					if g.Look(ctx, 1).N > 0 && early > 0 {
						t.Fatalf("the gate said %v, and let something through sooner", v.Wait)
					}
					time.Sleep(v.Wait + exact - early)
					if v2 := g.Look(ctx, 1); v2.N == 0 {
						t.Fatalf("the gate said %v, and then %v", v.Wait, v2.Wait)
					}
					send(1)
				},
			})
			bounded(t, sends, rules, 0)
		})
	})
}

// A token counts from when the attempt begins, not from when its claim was looked at: a
// note that is written slowly would else let a burst through that came together.
func TestTokensAreTakenWhenAttemptsBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		r := policy.RateLimit{N: 1, Per: time.Second, Burst: 4}
		m := f.join("a", endpoint(withBreaker(t), func(e *policy.Endpoint) { e.RateLimit, e.Breaker.Probes = &r, 4 }))
		attempts(t, m.Gate, 4, broke)
		time.Sleep(time.Minute)
		m.slow = 3 * time.Second
		var sends []time.Time
		for range 2 {
			n, probe := begin(m.Gate, 4)
			for range n {
				sends = append(sends, time.Now())
			}
			m.slow = 0
			for range n {
				m.Ended(context.Background(), Attempt{Probe: probe, Delivered: true, Status: 200})
			}
		}
		if len(sends) < 4 {
			t.Errorf("%d attempts began, want 4", len(sends))
		}
		bounded(t, sends, []rule{{0, r}}, 0)
	})
}

func TestLimitIsTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{}).Gate(name)
		g.Use(endpoint(func(e *policy.Endpoint) { e.RateLimit = &policy.RateLimit{N: 1, Per: time.Hour, Burst: 1} }))
		attempts(t, g, 1, wentWell)
		want(t, g, Limit, time.Hour)
		if s := g.State(); s.Cause != Limit || s.Limit != 1/3600. || s.Tokens >= 1 {
			t.Errorf("state is %+v", s)
		}
		told := listen(g)
		g.Use(endpoint())
		select {
		case <-told:
		default:
			t.Error("nobody is told that the limit is gone")
		}
		attempts(t, g, 100, wentWell)
	})
}
