package gate

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"relay/policy"
)

func elsewhere(e *policy.Endpoint) {
	url := *e.URL
	url.Path = "/other"
	e.URL = &url
}

// operate does what an operator asks for.
func (m *member) operate(t *testing.T, change func(*Condition)) {
	t.Helper()
	_, err := m.remember(context.Background(), func(c *Condition) bool {
		before := *c
		change(c)
		return *c != before
	})
	if err != nil {
		t.Fatal(err)
	}
}

func enable(c *Condition) { *c = Condition{Paused: c.Paused} }

// A receiver that is gone is so once for the fleet, until it has another address.
func TestGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		f := newFleet()
		a, b := f.join("a", endpoint()), f.join("b", endpoint())
		passed := a.Passed(ctx)
		a.Ended(ctx, gone)
		b.Ended(ctx, gone) // it has not heard of it
		a.Ended(ctx, gone)
		wantHappened(t, f, ToDisabled)
		if passed.Err() == nil {
			t.Error("claims go on waiting")
		}
		for _, m := range []*member{a, b} {
			want(t, m.Gate, Disabled, 0)
			if n, _ := m.Admit(ctx, 1); n != 0 {
				t.Error("an attempt begins")
			}
		}
		d := f.condition().Disabled
		if d.Code != Gone || d.Reason == "" || d.Receiver == "" || !d.At.Equal(time.Now()) {
			t.Errorf("the decision is %+v", d)
		}

		c := f.join("c", endpoint()) // as after a restart
		want(t, c.Gate, Disabled, 0)
		c.Use(endpoint(elsewhere))
		want(t, c.Gate, Open, 0)
		c.Use(endpoint())
		want(t, c.Gate, Disabled, 0)

		told := listen(a.Gate)
		c.operate(t, enable)
		a.hear()
		select {
		case <-told:
		default:
			t.Error("nobody is told that the endpoint is enabled")
		}
		want(t, a.Gate, Open, 0)
		want(t, c.Gate, Open, 0)

		c.operate(t, func(c *Condition) { c.Disabled = &Halt{Code: ByOperator, Reason: "by someone"} })
		c.Use(endpoint(elsewhere))
		want(t, c.Gate, Disabled, 0)
		wantHappened(t, f, ToDisabled)
	})
}

func TestGoneIsNotForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFleet().join("a", endpoint(func(e *policy.Endpoint) { e.Disable.OnGone = false }))
		attempts(t, m.Gate, 3, gone)
	})
}

func TestPaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		a, b := f.join("a", endpoint()), f.join("b", endpoint())
		passed := b.Passed(context.Background())
		a.operate(t, func(c *Condition) { c.Paused = &Halt{Code: ByOperator} })
		b.hear()
		want(t, a.Gate, Paused, 0)
		want(t, b.Gate, Paused, 0)
		if passed.Err() == nil {
			t.Error("claims go on waiting")
		}
		a.operate(t, func(c *Condition) { c.Paused = nil })
		b.hear()
		attempts(t, b.Gate, 1, wentWell)
	})
}

// A decision that the outbox did not hear of is none, or nobody could end it; the next attempt
// makes it again.
func TestDecisionsThatAreNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		m := f.join("a", endpoint())
		m.down = true
		attempts(t, m.Gate, 2, gone)
		wantHappened(t, f)
		m.down = false
		attempts(t, m.Gate, 1, gone)
		want(t, m.Gate, Disabled, 0)
		wantHappened(t, f, ToDisabled)
		m.operate(t, enable)
		want(t, m.Gate, Open, 0)
	})
}

// A decision that is written, though the outbox did not say so, is raised once this Relay has heard of it, and by no other one.
func TestDecisionsWithoutAnswer(t *testing.T) {
	for name, heard := range map[string]func(t *testing.T, m *member){
		"before it gave up":      nil,
		"by the notes":           func(_ *testing.T, m *member) { m.hear() },
		"by the next attempt":    func(t *testing.T, m *member) { m.Ended(t.Context(), gone) },
		"by another's change":    func(t *testing.T, m *member) { m.hear(); m.operate(t, func(c *Condition) { c.Paused = &Halt{} }) },
		"by what it writes next": func(t *testing.T, m *member) { m.operate(t, func(c *Condition) { c.Paused = &Halt{} }) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet()
				m, other := f.join("a", endpoint()), f.join("b", endpoint())
				m.lost, m.soon = true, heard == nil
				attempts(t, m.Gate, 1, gone)
				m.lost = false
				if heard == nil {
					heard = func(*testing.T, *member) {}
				} else {
					wantHappened(t, f)
				}
				other.hear()
				heard(t, m)
				m.hear()
				other.hear()
				wantHappened(t, f, ToDisabled)
				if s := m.State(); !s.Disabled {
					t.Errorf("state: %+v", s)
				}
			})
		})
	}
}

// Nor is the opening of a breaker lost, nor its closing.
func TestOpeningWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		m := f.join("a", endpoint(withBreaker(t)))
		attempts(t, m.Gate, 3, broke)
		m.lost = true
		attempts(t, m.Gate, 1, broke)
		m.lost = false
		m.hear()
		wantHappened(t, f, ToOpen)
		time.Sleep(time.Minute)
		attempts(t, m.Gate, 1, wentWell)
		n, probe := begin(m.Gate, 1)
		if n != 1 || !probe {
			t.Fatal("no probe begins")
		}
		m.lost = true
		m.Ended(t.Context(), Attempt{Probe: true, Status: 200, Delivered: true})
		m.lost = false
		m.hear()
		wantHappened(t, f, ToOpen, ToClosed)
	})
}

const day = 24 * time.Hour

// fail lets an attempt fail each hour.
func fail(t *testing.T, m *member, hours int) {
	t.Helper()
	for range hours {
		attempts(t, m.Gate, 1, broke)
		time.Sleep(time.Hour)
	}
}

func TestFailsForTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		m := f.join("a", endpoint())
		time.Sleep(30 * day) // nothing is sent, so nothing fails
		fail(t, m, 120)
		want(t, m.Gate, Open, 0)
		attempts(t, m.Gate, 1, broke)
		want(t, m.Gate, Disabled, 0)
		if d := f.condition().Disabled; d.Code != Failing {
			t.Errorf("the decision is %+v", d)
		}
		wantHappened(t, f, ToDisabled)
		m.operate(t, enable)
		fail(t, m, 120)
		want(t, m.Gate, Open, 0)
	})
}

func TestWentWellInBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		a, b := f.join("a", endpoint()), f.join("b", endpoint())
		fail(t, a, 119)
		if f.condition().Failing == nil {
			t.Fatal("the outbox does not know of the trouble")
		}
		b.hear()
		attempts(t, b.Gate, 1, wentWell)
		a.hear()
		if c := f.condition(); c != (Condition{}) {
			t.Errorf("the outbox knows %+v", c)
		}
		fail(t, a, 120)
		want(t, a.Gate, Open, 0)
	})
}

// What failed before a restart counts, and what failed at another Relay.
func TestTroubleOutlastsARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		a := f.join("a", endpoint())
		fail(t, a, 60)
		b := f.join("b", endpoint())
		fail(t, b, 60)
		want(t, b.Gate, Open, 0)
		attempts(t, b.Gate, 1, broke)
		want(t, b.Gate, Disabled, 0)

		f = newFleet()
		a = f.join("a", endpoint())
		fail(t, a, 119)
		moved := f.join("b", endpoint(elsewhere)) // the trouble was another receiver's
		fail(t, moved, 119)
		want(t, moved.Gate, Open, 0)
		a.Use(endpoint(elsewhere))
		fail(t, a, 1)
		want(t, a.Gate, Open, 0)
	})
}

// While Relay does not run no attempt can succeed, so that time does not count as failing.
func TestDowntimeIsNoTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		fail(t, f.join("a", endpoint()), 3)
		time.Sleep(6 * day)
		b := f.join("b", endpoint())
		fail(t, b, 120)
		want(t, b.Gate, Open, 0)
		attempts(t, b.Gate, 1, broke)
		want(t, b.Gate, Disabled, 0)
	})
}

// A receiver that never takes an attempt is known to fail after a few, with the last code, at all Relays and over a restart; one
// success ends that.
func TestFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		a, b := f.join("a", endpoint()), f.join("b", endpoint())
		start := time.Now()
		attempts(t, a.Gate, 2, broke)
		time.Sleep(9 * time.Second)
		attempts(t, a.Gate, 1, broke)
		if got := a.State().Failing; got != nil {
			t.Errorf("after 9 s: %+v", got)
		}
		time.Sleep(time.Second)
		if got := a.State().Failing; got == nil || got.Attempts != 3 {
			t.Errorf("after 10 s: %+v", got)
		}
		time.Sleep(time.Second)
		attempts(t, a.Gate, 1, Attempt{Status: 500, Again: true})
		b.hear()
		for who, m := range map[string]*member{"the one that tried": a, "another": b, "after a restart": f.join("c", endpoint())} {
			got := m.State().Failing
			if got == nil || !got.Since.Equal(start) || !got.Last.Equal(time.Now()) || got.Code != "http_500" || got.Attempts != 4 {
				t.Errorf("%s: %+v", who, got)
			}
		}
		attempts(t, b.Gate, 1, wentWell)
		a.hear()
		for _, m := range []*member{a, b, f.join("d", endpoint())} {
			if got := m.State().Failing; got != nil {
				t.Errorf("after a success: %+v", got)
			}
		}
	})
}

// Two failures are no trouble, and neither is what nobody tries any more, nor what another receiver did.
func TestFailsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFleet().join("a", endpoint())
		attempts(t, m.Gate, 2, broke)
		time.Sleep(time.Hour)
		if got := m.State().Failing; got != nil {
			t.Errorf("after two: %+v", got)
		}
		attempts(t, m.Gate, 1, broke)
		if m.State().Failing == nil {
			t.Error("after three it does not fail")
		}
		m.Use(endpoint(elsewhere))
		if got := m.State().Failing; got != nil {
			t.Errorf("another receiver: %+v", got)
		}
		m.Use(endpoint())
		attempts(t, m.Gate, 3, broke)
		time.Sleep(10 * day)
		if got := m.State().Failing; got != nil {
			t.Errorf("after ten days without an attempt: %+v", got)
		}
	})
}

// Trouble that could not be written is written later.
func TestTroubleIsWrittenLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		m := f.join("a", endpoint())
		m.down = true
		start := time.Now()
		fail(t, m, 3)
		m.down = false
		fail(t, m, 1)
		if c := f.condition(); c.Failing == nil || !c.Failing.Since.Equal(start) {
			t.Errorf("the outbox knows %+v", c)
		}
		m.down = true
		attempts(t, m.Gate, 1, wentWell)
		m.down = false
		attempts(t, m.Gate, 1, wentWell)
		if c := f.condition(); c != (Condition{}) {
			t.Errorf("the outbox knows %+v", c)
		}
	})
}

func TestNoRulesYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		g := New(Options{}).Gate(name)
		g.Ended(ctx, broke)
		want(t, g, Disabled, 0)
		if n, _ := g.Admit(ctx, 1); n != 0 || !g.State().Disabled {
			t.Error("a gate without rules lets something through")
		}
		told := listen(g)
		g.Use(endpoint())
		<-told
		want(t, g, Open, 0)
	})
}

// An outbox that was emptied knows nothing, and neither does the gate then.
func TestOutboxWasEmptied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFleet().join("a", endpoint(withBreaker(t)))
		attempts(t, m.Gate, 4, broke)
		m.apply(Condition{Hold: until(time.Now().Add(time.Hour)), Paused: &Halt{}}, 7, false)
		m.apply(Condition{}, 6, false)
		want(t, m.Gate, Paused, 0)
		m.apply(Condition{}, 0, true)
		want(t, m.Gate, Open, 0)
	})
}
