package deliver

import (
	"testing"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/gate"
)

func TestBackoff(t *testing.T) {
	r := &policy.Steps{Schedule: []time.Duration{10 * time.Second, time.Hour}, Jitter: 0.1}
	for _, c := range []struct {
		name   string
		n      int
		random float64
		want   time.Duration
		ok     bool
	}{
		{"middle", 1, 0.5, 10 * time.Second, true},
		{"least", 1, 0, 9 * time.Second, true},
		{"most", 1, 1, 11 * time.Second, true},
		{"second step", 2, 0.5, time.Hour, true},
		{"after the last step", 3, 0.5, 0, false},
		{"far beyond", 1 << 40, 0.5, 0, false},
	} {
		if got, ok := backoff(r, c.n, c.random); got != c.want || ok != c.ok {
			t.Errorf("%s: backoff = %s, %t, want %s, %t", c.name, got, ok, c.want, c.ok)
		}
	}
}

func TestBackoffStaysWithinJitter(t *testing.T) {
	for _, jitter := range []float64{0, 0.1, 0.5, 1} {
		r := &policy.Steps{Schedule: []time.Duration{time.Hour}, Jitter: jitter}
		low, high := time.Duration(float64(time.Hour)*(1-jitter)), time.Duration(float64(time.Hour)*(1+jitter))
		for i := range 1000 {
			got, _ := backoff(r, 1, float64(i)/1000)
			if got < low || got > high {
				t.Fatalf("jitter %v: backoff = %s, want %s to %s", jitter, got, low, high)
			}
		}
	}
}

// A long Retry-After is the gate's affair alone, so that the end of its hold lets the delivery
// go; max_age counts it all the same.
func TestNextDelay(t *testing.T) {
	end := time.Date(2026, 11, 29, 10, 0, 0, 0, time.UTC)
	rule := policy.Retry{Steps: policy.Steps{Schedule: []time.Duration{10 * time.Second}}, MaxRetryAfter: time.Hour}
	for _, c := range []struct {
		name              string
		asked, age        time.Duration
		attempts          int
		alone             bool
		wantDue, wantNext time.Duration
		ok                bool
	}{
		{name: "by the schedule", wantDue: 10 * time.Second, wantNext: 10 * time.Second, ok: true},
		{name: "asked for less", asked: 5 * time.Second, wantDue: 10 * time.Second, wantNext: 10 * time.Second, ok: true},
		{name: "asked for more", asked: time.Minute, wantDue: 10 * time.Second, wantNext: time.Minute, ok: true},
		{name: "asked for more than may be", asked: 24 * time.Hour, wantDue: 10 * time.Second, wantNext: time.Hour, ok: true},
		{name: "too old then", asked: time.Minute, age: 50 * time.Second, wantDue: 10 * time.Second, wantNext: time.Minute},
		{name: "old, not too old", asked: time.Minute, age: time.Minute, wantDue: 10 * time.Second, wantNext: time.Minute, ok: true},
		{name: "after the last step", asked: time.Minute, attempts: 1, wantNext: time.Minute},
		{name: "alone", asked: time.Minute, attempts: 1, alone: true, ok: true},
	} {
		rule.MaxAge = c.age
		claim := outbox.Claim{Delivery: outbox.Delivery{Created: end, Attempts: c.attempts}}
		due, next, ok := nextDelay(&rule, &claim, &gate.Attempt{Status: 503, RetryAfter: c.asked}, &judgement{alone: c.alone}, end, 0.5)
		if due != c.wantDue || next != c.wantNext || ok != c.ok {
			t.Errorf("%s: due after %v, tried after %v, %t; want %v, %v, %t", c.name, due, next, ok, c.wantDue, c.wantNext, c.ok)
		}
	}
	rule.Schedule[0], rule.MaxAge = 0, 0
	claim := outbox.Claim{Delivery: outbox.Delivery{Created: end}}
	due, _, _ := nextDelay(&rule, &claim, &gate.Attempt{Status: 503, RetryAfter: time.Second}, &judgement{}, end, 0.5)
	if due != time.Second {
		t.Errorf("due after %v: other Relays do not hear of a short hold", due)
	}
}
