package gate

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
	"relay/policy"
)

// meanwhile is a bucket of plenty; something happens while tokens are on their way.
type meanwhile struct{ happens func() }

func (m meanwhile) Take(_ context.Context, _ string, _ outbox.Limit, n int) (int, time.Duration, error) {
	m.happens()
	return n, 0, nil
}

// What the gate hears while tokens are on their way holds for those who wait for them.
func TestShutWhileTokensCome(t *testing.T) {
	limited := func(e *policy.Endpoint) { e.RateLimit = &policy.RateLimit{N: 1, Per: time.Second, Burst: 1} }
	for name, heard := range map[string]Condition{
		"paused":          {Paused: &Halt{Code: ByOperator}},
		"disabled":        {Disabled: &Halt{Code: ByOperator}},
		"held":            {Hold: until(time.Now().Add(time.Hour))},
		"open breaker":    {Breaker: &Opening{Times: 1, Until: time.Now().Add(time.Hour)}},
		"breaker's probe": {Breaker: &Opening{Times: 1, Until: time.Now().Add(-time.Hour)}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet()
			var m *member
			f.limiter = meanwhile{func() { m.apply(heard, 1, false) }}
			m = f.join("a", endpoint(limited, withBreaker(t)))
			if n, probe := m.Admit(t.Context(), 1); n != 0 {
				t.Errorf("%d attempts may begin, probes: %v", n, probe)
			}
		})
	}
}

// While the outbox refuses the turn to probe, it is not asked all the time.
func TestTurnIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFleet().join("a", endpoint(withBreaker(t), func(e *policy.Endpoint) { e.Breaker.Jitter = 0 }))
		attempts(t, m.Gate, 4, broke)
		want(t, m.Gate, Breaker, 30*time.Second)
		time.Sleep(30 * time.Second)
		m.down = true
		if n, _ := begin(m.Gate, 1); n != 0 {
			t.Fatal("a probe may begin that the fleet does not know of")
		}
		want(t, m.Gate, Breaker, turnAgain)
		m.down = false
		time.Sleep(turnAgain)
		attempts(t, m.Gate, 2, wentWell)
		want(t, m.Gate, Open, 0)
	})
}
