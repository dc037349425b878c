package gate

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"relay/policy"
)

// What receivers ask for (fault F35).
func TestWhatReceiversAskFor(t *testing.T) {
	const forever = time.Duration(1<<63 - 1)
	for _, tt := range []struct {
		name string
		a    Attempt
		wait time.Duration
	}{
		{"429", Attempt{Status: 429, Again: true}, breather},
		{"429 that is final", Attempt{Status: 429}, breather},
		{"429 with Retry-After", Attempt{Status: 429, Again: true, RetryAfter: time.Minute}, time.Minute},
		{"503 with Retry-After", Attempt{Status: 503, Again: true, RetryAfter: time.Minute}, time.Minute},
		{"503 that is final, with Retry-After", Attempt{Status: 503, RetryAfter: time.Minute}, time.Minute},
		{"500 with Retry-After", Attempt{Status: 500, Again: true, RetryAfter: time.Minute}, time.Minute},
		{"503", Attempt{Status: 503, Again: true}, 0},
		{"more than the rule's longest", Attempt{Status: 503, Again: true, RetryAfter: forever}, 24 * time.Hour},
		{"delivered", Attempt{Status: 200, Delivered: true, RetryAfter: time.Minute}, 0},
		{"refused", Attempt{Status: 404, RetryAfter: time.Minute}, 0},
		{"void", Attempt{Status: 503, Again: true, Void: true, RetryAfter: time.Minute}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet()
				a, b := f.join("a", endpoint()), f.join("b", endpoint())
				passed := a.Passed(context.Background())
				attempts(t, a.Gate, 1, tt.a)
				b.hear()
				if tt.wait == 0 {
					want(t, a.Gate, Open, 0)
					return
				}
				want(t, a.Gate, RetryAfter, tt.wait)
				if passed.Err() == nil {
					t.Error("claims go on waiting")
				}
				if until := a.State().Held; time.Until(until) != tt.wait {
					t.Errorf("held until %v", until)
				}
				if n, _ := a.Admit(context.Background(), 1); n != 0 {
					t.Error("an attempt begins")
				}
				if tt.wait < WorthHolding {
					want(t, b.Gate, Open, 0)
				} else {
					want(t, b.Gate, RetryAfter, tt.wait)
				}
				time.Sleep(tt.wait)
				attempts(t, a.Gate, 1, wentWell)
				attempts(t, b.Gate, 1, wentWell)
			})
		})
	}
}

// A hold becomes longer and never shorter, but by an operator or a rule.
func TestHoldExtends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		check(t, func(t *rapid.T) {
			ctx := context.Background()
			f := newFleet()
			a, b := f.join("a", endpoint()), f.join("b", endpoint())
			until := map[*member]time.Time{}
			for range rapid.IntRange(1, 10).Draw(t, "answers") {
				wait := time.Duration(rapid.IntRange(2, 100).Draw(t, "seconds")) * time.Second
				by := []*member{a, b}[rapid.IntRange(0, 1).Draw(t, "relay")]
				by.Ended(ctx, Attempt{Status: 429, Again: true, RetryAfter: wait})
				if end := time.Now().Add(wait); end.After(until[by]) {
					until[by] = end
				}
				a.hear()
				b.hear()
				for _, m := range []*member{a, b} { // what one knows more than the other is not worth telling
					end := m.State().Held
					if end.Before(until[m]) || end.Before(until[by].Add(-WorthHolding)) || end.After(until[m]) && end.After(until[by]) {
						t.Fatalf("held until %v: not by its own answers (%v) nor by those of the other", end, until[m])
					}
					until[m] = end
				}
				time.Sleep(time.Duration(rapid.IntRange(1, 1900).Draw(t, "ms")) * time.Millisecond)
			}
			if _, err := a.remember(ctx, func(c *Condition) bool { *c = Condition{}; return true }); err != nil {
				t.Fatal(err)
			}
			b.hear()
			want(t, a.Gate, Open, 0)
			want(t, b.Gate, Open, 0)
		})
	})
}

func TestShorterRuleEndsAHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFleet().join("a", endpoint())
		attempts(t, m.Gate, 1, Attempt{Status: 503, Again: true, RetryAfter: 24 * time.Hour})
		m.Use(endpoint(func(e *policy.Endpoint) { e.Retry.MaxRetryAfter = time.Minute }))
		want(t, m.Gate, RetryAfter, time.Minute)
	})
}

func obeying(e *policy.Endpoint) { e.ObeyRateHeaders = true }

func TestObeysRateHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		m := newFleet().join("a", endpoint(obeying))
		attempts(t, m.Gate, 1, Attempt{Status: 200, Delivered: true, Rate: Rate{Left: 10, Reset: 10 * time.Second}})
		sends := 0
		for start := time.Now(); time.Since(start) < 10*time.Second; {
			v := m.Look(ctx, 5)
			if v.N == 0 {
				if v.Cause != Limit || v.Wait > time.Second+time.Millisecond {
					t.Fatalf("the gate says %+v", v)
				}
				time.Sleep(v.Wait)
				continue
			}
			n, _ := m.Admit(ctx, v.N)
			sends += n
		}
		if sends < 9 || sends > 10 {
			t.Errorf("%d sends where the receiver has 10 left", sends)
		}
		if v := m.Look(ctx, 16); v.N != 16 {
			t.Errorf("the receiver counts anew, and the gate says %+v", v)
		}

		// None is left beside those under way.
		m.Ended(ctx, Attempt{Status: 200, Delivered: true, InFlight: 3, Rate: Rate{Left: 3, Reset: time.Minute}})
		want(t, m.Gate, RetryAfter, time.Minute)
	})
}

func TestRateHeadersAreClamped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFleet().join("a", endpoint(obeying, func(e *policy.Endpoint) { e.Retry.MaxRetryAfter = time.Minute }))
		attempts(t, m.Gate, 1, Attempt{Status: 200, Delivered: true, Rate: Rate{Reset: 1000 * time.Hour}})
		want(t, m.Gate, RetryAfter, time.Minute)
		time.Sleep(time.Minute)
		attempts(t, m.Gate, 1, Attempt{Status: 200, Delivered: true, Rate: Rate{Left: 1, Reset: 1000 * time.Hour}})
		time.Sleep(time.Minute)
		if v := m.Look(context.Background(), 16); v.N != 16 {
			t.Errorf("the gate says %+v", v)
		}
	})
}

func TestDoesNotObeyRateHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := Attempt{Status: 200, Delivered: true, Rate: Rate{Left: 1, Reset: time.Hour}}
		m := newFleet().join("a", endpoint())
		attempts(t, m.Gate, 5, slow)
		m.Use(endpoint(obeying))
		attempts(t, m.Gate, 2, slow) // the pace begins with the first answer
		want(t, m.Gate, Limit, 1000*time.Second)
		m.Use(endpoint())
		attempts(t, m.Gate, 5, slow)
	})
}

// An attempt that the fleet's limit does not let begin does not use the receiver's pace up.
func TestPaceIsOfWhatBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		f := newFleet()
		b := newBucket(1)
		f.limiter = b
		m := f.join("a", endpoint(obeying, func(e *policy.Endpoint) {
			e.RateLimit = &policy.RateLimit{N: 1, Per: time.Second, Burst: 1}
		}))
		attempts(t, m.Gate, 1, Attempt{Status: 200, Delivered: true, Rate: Rate{Left: 100, Reset: time.Hour}})
		time.Sleep(time.Minute)
		if v := m.Look(ctx, 1); v.N != 1 {
			t.Fatalf("the gate says %+v", v)
		}
		b.take(m.limit.(*fleetLimit).bucket, 1) // another Relay was faster
		if n, _ := m.Admit(ctx, 1); n != 0 {
			t.Fatal("an attempt begins without a token")
		}
		want(t, m.Gate, Limit, time.Second)
		time.Sleep(time.Second)
		attempts(t, m.Gate, 1, wentWell)
	})
}
