package alert

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"relay/internal/testkit"
	"relay/policy"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var start = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)

// story feeds an Evaluator with a sample every five seconds.
type story struct {
	t      *testing.T
	e      *Evaluator
	alerts []*policy.Alert
	now    Sample
	told   []string
}

func newStory(t *testing.T, alerts ...*policy.Alert) *story {
	s := &story{t: t, e: NewEvaluator(State{}), alerts: alerts}
	s.now = Sample{At: start, Endpoints: map[string]Endpoint{"a": {}, "b": {}}}
	s.observe()
	return s
}

func (s *story) observe() {
	for _, c := range s.e.Observe(s.alerts, &s.now) {
		what := "firing"
		if c.Resolved {
			what = "resolved"
		}
		s.told = append(s.told, fmt.Sprintf("%s %s %s %s%s at %s", c.Alert, c.About, what, c.Value, c.Why, c.At.Sub(start)))
	}
}

// pass lets time pass; each step changes the sample.
func (s *story) pass(d time.Duration, step func(e map[string]Endpoint)) {
	for end := s.now.At.Add(d); s.now.At.Before(end); {
		s.now.At = s.now.At.Add(5 * time.Second)
		if step != nil {
			step(s.now.Endpoints)
		}
		s.observe()
	}
}

func (s *story) want(want ...string) {
	s.t.Helper()
	if !slices.Equal(s.told, want) {
		s.t.Errorf("told:\n%q\nwant:\n%q", s.told, want)
	}
	s.told = nil
}

// attempts of an endpoint, of which some deliver.
func attempts(name string, n, delivered int64, took time.Duration) func(map[string]Endpoint) {
	return func(all map[string]Endpoint) {
		e := all[name]
		e.Took = e.Took.Clone()
		for range n {
			e.Took.Add(took)
		}
		e.Attempts, e.Delivered = e.Attempts+n, e.Delivered+delivered
		all[name] = e
	}
}

func rate(limit float64) *policy.Alert {
	return &policy.Alert{Name: "rate", On: policy.OnSuccessRate, Limit: limit, Window: 5 * time.Minute, Min: 20, For: time.Minute, Cooldown: time.Hour}
}

// An alert fires once when its condition has held for long enough, and is resolved once.
func TestFiresAndResolves(t *testing.T) {
	s := newStory(t, rate(0.5))
	s.pass(10*time.Minute, attempts("a", 10, 10, time.Millisecond))
	s.want()
	s.pass(10*time.Minute, attempts("a", 10, 0, time.Millisecond))
	if len(s.told) != 1 {
		t.Fatalf("told %q", s.told)
	}
	if f := s.e.Firing(); len(f) != 1 || f[0].Fired.Sub(f[0].Since) != time.Minute || f[0].Limit != "50.0 %" {
		t.Errorf("firing %+v", f)
	}
	s.told = nil
	s.pass(10*time.Minute, attempts("a", 10, 10, time.Millisecond))
	if len(s.told) != 1 || s.e.Firing() != nil {
		t.Errorf("told %q", s.told)
	}
}

// The window moves: bad attempts count as long as they are in it, and no longer.
func TestWindowMoves(t *testing.T) {
	a := rate(0.9)
	a.For, a.Cooldown = 0, 0
	s := newStory(t, a)
	s.pass(5*time.Second, attempts("a", 30, 0, time.Millisecond))
	s.want("rate a firing 0.0 % at 5s")
	s.pass(4*time.Minute+45*time.Second, nil)
	s.want()
	s.pass(30*time.Second, nil)
	s.want("rate a resolved no attempt within 5m at 5m10s")
}

// With too few attempts nothing begins, and nothing ends.
func TestTooFewAttempts(t *testing.T) {
	a := rate(0.9)
	a.For = 0
	s := newStory(t, a)
	s.pass(time.Hour, func(all map[string]Endpoint) {
		if s.now.At.Minute()%5 == 0 && s.now.At.Second() == 0 {
			attempts("a", 4, 0, time.Millisecond)(all)
		}
	})
	s.want()
}

// An endpoint that is never one thing for long raises no more than the cooldown allows.
func TestFlapping(t *testing.T) {
	a := rate(0.9)
	a.Window, a.For = time.Minute, 0
	s := newStory(t, a)
	s.pass(24*time.Hour, func(all map[string]Endpoint) {
		n := int64(10)
		if s.now.At.Minute()/3%2 == 0 {
			n = 0
		}
		attempts("a", 10, n, time.Millisecond)(all)
	})
	if n := len(s.told); n > 2*24 || n < 2*20 {
		t.Errorf("told %d times in a day with a cooldown of an hour", n)
	}
}

func TestKinds(t *testing.T) {
	set := func(change func(*Endpoint)) func(map[string]Endpoint) {
		return func(all map[string]Endpoint) {
			e := all["b"]
			change(&e)
			all["b"] = e
		}
	}
	for _, c := range []struct {
		on        string
		limit     float64
		bad, good func(map[string]Endpoint)
		value     string
	}{
		{policy.OnMean, 2, attempts("b", 10, 10, 3*time.Second), attempts("b", 50, 50, time.Millisecond), "3s"},
		{policy.OnP95, 2, attempts("b", 10, 10, 3*time.Second), attempts("b", 500, 500, time.Millisecond), "3.03s"},
		{policy.OnBacklogAge, 60, set(func(e *Endpoint) { e.Oldest = 2 * time.Minute }), set(func(e *Endpoint) { e.Oldest = 0 }), "2m0s"},
		{policy.OnBacklogCount, 1000, set(func(e *Endpoint) { e.Pending = 1001 }), set(func(e *Endpoint) { e.Pending = 1000 }), "1001"},
		{policy.OnBreakerOpen, 0, set(func(e *Endpoint) { e.BreakerOpen = true }), set(func(e *Endpoint) { e.BreakerOpen = false }), ""},
		{policy.OnDisabled, 0, set(func(e *Endpoint) { e.Disabled = true }), set(func(e *Endpoint) { e.Disabled = false }), ""},
	} {
		a := &policy.Alert{Name: c.on, On: c.on, Limit: c.limit, Window: 5 * time.Minute, Min: 1, Endpoints: []string{"b"}}
		s := newStory(t, a)
		s.pass(5*time.Second, c.bad)
		s.want(fmt.Sprintf("%s b firing %s at 5s", c.on, c.value))
		s.pass(time.Minute, c.good)
		if len(s.told) != 1 || len(s.e.Firing()) != 0 {
			t.Errorf("%s: told %q", c.on, s.told)
		}
	}
}

// failing_since counts from the first attempt that failed after the last that delivered.
func TestFailingSince(t *testing.T) {
	s := newStory(t, &policy.Alert{Name: "failing", On: policy.OnFailingSince, Limit: 600})
	s.pass(time.Hour, nil)
	s.pass(5*time.Second, attempts("a", 1, 1, 0))
	s.pass(5*time.Second, attempts("a", 1, 0, 0))
	s.pass(11*time.Minute, nil)
	s.want("failing a firing 10m5s at 1h10m15s")
	s.pass(5*time.Second, attempts("a", 2, 1, 0))
	s.want("failing a resolved it delivers again at 1h11m15s")
}

func TestOfTheWhole(t *testing.T) {
	s := newStory(t,
		&policy.Alert{Name: "fill", On: policy.OnOutboxFill, Limit: 0.8},
		&policy.Alert{Name: "silence", On: policy.OnSilence, Limit: 600},
		&policy.Alert{Name: "cert", On: policy.OnCertificateExpiry, Limit: 14 * 86400})
	s.now.Certificates = map[string]time.Time{"hooks.example.com": start.Add(14*24*time.Hour + time.Minute)}
	s.pass(5*time.Second, func(map[string]Endpoint) { s.now.Fill = 0.9 })
	s.want("fill  firing 90.0 % at 5s")
	s.pass(time.Minute, func(map[string]Endpoint) { s.now.Accepted++ })
	s.want("cert hooks.example.com firing 335h59m55s at 1m5s")
	s.pass(11*time.Minute, nil)
	s.want("silence  firing 10m5s at 11m10s")
	s.pass(5*time.Second, func(map[string]Endpoint) {
		s.now.Accepted++
		s.now.Certificates["hooks.example.com"] = start.Add(90 * 24 * time.Hour)
		s.now.Fill = 0
	})
	s.want("cert hooks.example.com resolved 2159h47m50s at 12m10s", "fill  resolved 0.0 % at 12m10s", "silence  resolved 0s at 12m10s")
}

// After a restart what fires goes on until something is seen that ends it.
func TestRestartResolvesNothing(t *testing.T) {
	rated := rate(0.5)
	rated.For, rated.Window = 0, time.Minute
	alerts := []*policy.Alert{rated, {Name: "failing", On: policy.OnFailingSince, Limit: 30}, {Name: "silence", On: policy.OnSilence, Limit: 60}}
	s := newStory(t, alerts...)
	s.pass(2*time.Minute, attempts("a", 10, 0, time.Millisecond))
	if len(s.told) != 3 {
		t.Fatalf("told %q", s.told)
	}
	s.told, s.e = nil, NewEvaluator(s.e.State(s.now.At))
	s.pass(55*time.Second, nil)
	s.want()
	s.pass(10*time.Second, attempts("a", 30, 30, time.Millisecond))
	s.now.Accepted++
	s.pass(5*time.Second, nil)
	if len(s.told) != 3 || len(s.e.Firing()) != 0 {
		t.Errorf("told %q", s.told)
	}
}

// A successor neither fires again nor forgets to resolve. What is gone is resolved.
func TestSuccessor(t *testing.T) {
	a := &policy.Alert{Name: "pending", On: policy.OnBacklogCount, Limit: 10, Cooldown: time.Hour}
	s := newStory(t, a)
	full := func(all map[string]Endpoint) { all["a"], all["b"] = Endpoint{Pending: 11}, Endpoint{Pending: 12} }
	s.pass(5*time.Second, full)
	s.want("pending a firing 11 at 5s", "pending b firing 12 at 5s")
	s.e = NewEvaluator(s.e.State(s.now.At))
	s.pass(time.Minute, full)
	s.want()
	s.pass(5*time.Second, func(all map[string]Endpoint) {
		all["a"] = Endpoint{}
		delete(all, "b")
	})
	s.want("pending a resolved 0 at 1m10s", "pending b resolved b is gone at 1m10s")
	s.e = NewEvaluator(s.e.State(s.now.At))
	s.pass(50*time.Minute, func(all map[string]Endpoint) { all["a"] = Endpoint{Pending: 11} })
	s.want() // it cools down
	s.pass(15*time.Minute, nil)
	if len(s.told) != 1 {
		t.Errorf("told %q", s.told)
	}
	s.told, s.alerts = nil, nil
	s.pass(5*time.Second, nil)
	if len(s.told) != 1 || len(s.e.conditions) != 0 {
		t.Errorf("an alert that the file no longer has: told %q", s.told)
	}
}

// An alert that ends because the file changed says so: an endpoint that is there is not gone.
func TestAlertOfAnotherFile(t *testing.T) {
	s := newStory(t, &policy.Alert{Name: "full", On: policy.OnBacklogCount, Limit: 10}, &policy.Alert{Name: "fill", On: policy.OnOutboxFill, Limit: 0.5})
	s.now.Fill = 0.6
	s.pass(5*time.Second, func(all map[string]Endpoint) { all["a"] = Endpoint{Pending: 11} })
	if len(s.told) != 2 {
		t.Fatalf("told %q", s.told)
	}
	s.told = nil
	s.alerts = []*policy.Alert{{Name: "full", On: policy.OnBacklogCount, Limit: 10, Endpoints: []string{"b"}}, {Name: "fill", On: policy.OnBacklogCount, Limit: 100}}
	s.pass(5*time.Second, nil)
	s.want("fill  resolved the alert does not watch this any more at 10s", "full a resolved the alert does not watch this any more at 10s")
}

// An alert about an endpoint is about one until its end, also if the endpoint is gone by then.
func TestResolvedOfAnEndpointThatIsGone(t *testing.T) {
	a := &policy.Alert{Name: "full", On: policy.OnBacklogCount, Limit: 1}
	e := NewEvaluator(State{})
	s := Sample{At: start, Endpoints: map[string]Endpoint{"b": {Pending: 2}}}
	if all := e.Observe([]*policy.Alert{a}, &s); len(all) != 1 || all[0].Endpoint != "b" {
		t.Fatalf("fires: %+v", all)
	}
	s = Sample{At: start.Add(time.Minute), Endpoints: map[string]Endpoint{}}
	if all := e.Observe([]*policy.Alert{a}, &s); len(all) != 1 || !all[0].Resolved || all[0].Endpoint != "b" {
		t.Errorf("ends: %+v", all)
	}
}
