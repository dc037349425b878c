package gate

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"relay/policy"
)

// All times of a note are of the outbox's clock, whatever a Relay's own shows.
func TestNotesAreOfTheOutboxClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		const ahead = -time.Hour // this machine's clock is an hour fast
		for _, tt := range []struct {
			name string
			do   func(m *member)
		}{
			{"Retry-After", func(m *member) {
				attempts(t, m.Gate, 1, Attempt{Status: 503, Again: true, RetryAfter: 3 * time.Second})
			}},
			{"breaker", func(m *member) { attempts(t, m.Gate, 4, broke) }},
			{"probe", func(m *member) {
				attempts(t, m.Gate, 4, broke)
				time.Sleep(time.Minute)
				if n, probe := begin(m.Gate, 1); n != 1 || !probe {
					t.Error("no probe begins")
				}
			}},
			{"gone", func(m *member) { attempts(t, m.Gate, 1, gone) }},
			{"failing", func(m *member) {
				m.Ended(ctx, Attempt{Status: 404})
				time.Sleep(2 * time.Minute)
				m.Ended(ctx, Attempt{Status: 404})
			}},
			{"pause", func(m *member) { _, _ = m.all.Pause(ctx, name, "test") }},
			{"disable", func(m *member) { _, _ = m.all.Disable(ctx, name, "test") }},
			{"resume", func(m *member) {
				attempts(t, m.Gate, 4, broke)
				_, _ = m.all.Resume(ctx, name)
			}},
		} {
			f := newFleet()
			m := f.joinAhead("a", endpoint(withBreaker(t)), ahead)
			from := time.Now().Add(ahead)
			tt.do(m)
			c := f.condition()
			times := timesOf(reflect.ValueOf(c))
			if len(times) == 0 {
				t.Errorf("%s: the note is empty", tt.name)
			}
			for _, at := range times {
				if at.Before(from) || at.After(time.Now().Add(ahead+time.Minute)) {
					t.Errorf("%s: %v is not of the outbox's clock, which shows %v: %+v", tt.name, at, time.Now().Add(ahead), c)
				}
			}
		}
	})
}

// timesOf collects the times of a condition that are set.
func timesOf(v reflect.Value) (times []time.Time) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		if at := v.Interface().(time.Time); !at.IsZero() {
			times = append(times, at)
		}
	case v.Kind() == reflect.Pointer && !v.IsNil():
		times = timesOf(v.Elem())
	case v.Kind() == reflect.Struct:
		for _, field := range v.Fields() {
			times = append(times, timesOf(field)...)
		}
	}
	return times
}

// Relays read a note by the outbox's clock, too: here theirs are an hour, or a day, off.
func TestNotesAreReadByTheOutboxClock(t *testing.T) {
	for _, ahead := range []time.Duration{-time.Hour, time.Hour, 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet()
			e := endpoint(withBreaker(t), func(e *policy.Endpoint) { e.Breaker.Jitter = 0 })
			a, b := f.joinAhead("a", e, ahead), f.joinAhead("b", e, ahead)
			a.Ended(t.Context(), Attempt{Status: 503, Again: true, RetryAfter: 3 * time.Second})
			b.hear()
			want(t, b.Gate, RetryAfter, 3*time.Second)
			want(t, f.joinAhead("c", e, ahead).Gate, RetryAfter, 3*time.Second) // after a restart
			time.Sleep(3 * time.Second)
			attempts(t, a.Gate, 3, broke) // with the one before: the rule wants four
			b.hear()
			want(t, b.Gate, Breaker, 30*time.Second)
			time.Sleep(30 * time.Second)
			if n, _ := begin(a.Gate, 1); n != 1 {
				t.Fatal("no probe begins")
			}
			b.hear()
			want(t, b.Gate, Breaker, 2*e.Timeout.Total+5*time.Second)
		})
	}
}

// Resume and Enable end what they should on each Relay that hears of them, and report the state before.
func TestOperatorEndsWaits(t *testing.T) {
	hold := Attempt{Status: 503, Again: true, RetryAfter: time.Hour}
	for _, tt := range []struct {
		name   string
		before func(t *testing.T, a *member)
		enable bool
		ended  []Cause
		after  Cause
	}{
		{name: "resume ends nothing", before: func(*testing.T, *member) {}},
		{name: "resume ends a hold", before: func(t *testing.T, a *member) { attempts(t, a.Gate, 1, hold) }, ended: []Cause{RetryAfter}},
		{name: "resume ends a hold of a moment", ended: []Cause{RetryAfter}, before: func(t *testing.T, a *member) {
			attempts(t, a.Gate, 1, Attempt{Status: 429, Again: true})
		}},
		{name: "resume ends a hold that the outbox did not take", ended: []Cause{RetryAfter}, before: func(t *testing.T, a *member) {
			a.down = true
			attempts(t, a.Gate, 1, hold)
			a.down = false
		}},
		{name: "resume ends an open breaker's wait", before: func(t *testing.T, a *member) { attempts(t, a.Gate, 4, broke) }, ended: []Cause{Breaker}},
		{name: "resume ends the receiver's pace", before: func(t *testing.T, a *member) {
			attempts(t, a.Gate, 1, Attempt{Status: 200, Delivered: true, Rate: Rate{Left: 1, Reset: time.Hour}})
			attempts(t, a.Gate, 1, Attempt{Status: 200, Delivered: true, Rate: Rate{Left: 1, Reset: time.Hour}})
		}},
		{name: "resume ends a pause and a hold", ended: []Cause{Paused, RetryAfter}, before: func(t *testing.T, a *member) {
			attempts(t, a.Gate, 1, hold)
			_, _ = a.all.Pause(t.Context(), name, "test")
		}},
		{name: "resume leaves disabled", after: Disabled, before: func(t *testing.T, a *member) { attempts(t, a.Gate, 1, gone) }},
		{name: "enable ends all but a pause", enable: true, ended: []Cause{Disabled, RetryAfter, Breaker}, after: Paused, before: func(t *testing.T, a *member) {
			attempts(t, a.Gate, 3, broke)
			attempts(t, a.Gate, 1, hold)
			_, _ = a.all.Disable(t.Context(), name, "test")
			_, _ = a.all.Pause(t.Context(), name, "test")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet()
				rules := endpoint(withBreaker(t), func(e *policy.Endpoint) { e.ObeyRateHeaders = true })
				a, b := f.join("a", rules), f.join("b", rules)
				tt.before(t, a)
				do := a.all.Resume
				if tt.enable {
					do = a.all.Enable
				}
				ended, err := do(t.Context(), name)
				if err != nil || fmt.Sprint(ended) != fmt.Sprint(tt.ended) {
					t.Errorf("ended %v (%v), want %v", ended, err, tt.ended)
				}
				b.hear()
				for _, m := range []*member{a, b} {
					want(t, m.Gate, tt.after, 0)
				}
			})
		})
	}
}

// EnableAgain ends what Relay itself decided, on each Relay that hears of it, and leaves what an operator decided, also where
// this Relay has not heard of that.
func TestEnableAgain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(t *testing.T, a, b *member)
		ended  bool
		after  Cause
	}{
		{name: "active", before: func(*testing.T, *member, *member) {}},
		{name: "gone", ended: true, before: func(t *testing.T, a, _ *member) { attempts(t, a.Gate, 1, gone) }},
		{name: "gone, as another Relay found", ended: true, before: func(t *testing.T, _, b *member) { attempts(t, b.Gate, 1, gone) }},
		{name: "gone and paused", ended: true, after: Paused, before: func(t *testing.T, a, _ *member) {
			attempts(t, a.Gate, 1, gone)
			_, _ = a.all.Pause(t.Context(), name, "test")
		}},
		{name: "an operator's", after: Disabled, before: func(t *testing.T, a, _ *member) { _, _ = a.all.Disable(t.Context(), name, "test") }},
		{name: "an operator's after gone, by another Relay", after: Disabled, before: func(t *testing.T, a, b *member) {
			attempts(t, a.Gate, 1, gone)
			b.hear()
			_, _ = b.all.Disable(t.Context(), name, "test")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet()
				a, b := f.join("a", endpoint()), f.join("b", endpoint())
				tt.before(t, a, b)
				if ended, err := a.all.EnableAgain(t.Context(), name); err != nil || ended != tt.ended {
					t.Errorf("ended %v (%v), want %v", ended, err, tt.ended)
				}
				a.hear()
				b.hear()
				for _, m := range []*member{a, b} {
					want(t, m.Gate, tt.after, 0)
				}
			})
		})
	}
}

// A lowered max_retry_after counts from when the receiver asked, at a reload and after a restart.
func TestLoweredMaxRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		lower := func(e *policy.Endpoint) { e.Retry.MaxRetryAfter = 10 * time.Minute }
		m := f.join("a", endpoint())
		attempts(t, m.Gate, 1, Attempt{Status: 503, Again: true, RetryAfter: 24 * time.Hour})
		time.Sleep(4 * time.Minute)
		m.Use(endpoint(lower))
		want(t, m.Gate, RetryAfter, 6*time.Minute)
		time.Sleep(time.Minute)
		again := f.join("b", endpoint(lower))
		want(t, again.Gate, RetryAfter, 5*time.Minute)
		time.Sleep(5 * time.Minute)
		want(t, m.Gate, Open, 0)
		want(t, again.Gate, Open, 0)
	})
}
