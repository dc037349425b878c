package alert

import (
	"cmp"
	"slices"
	"time"

	"relay/internal/sorting"
	"relay/outbox/sketch"
	"relay/policy"
)

// Evaluator decides which alerts fire. Its methods must not be called at the same time.
type Evaluator struct {
	conditions map[Subject]*condition
	history    map[string]*history // by endpoint
	accepted   int64
	silent     time.Time // when accepted last rose, or the first sample
	begun      time.Time // the first sample
	first      int64     // accepted then
}

// history is what an endpoint did before.
type history struct {
	points  []point // oldest first; none while nothing changes
	failing time.Time
	first   Endpoint
	last    Endpoint
}

// point is the counts at a time.
type point struct {
	at                  time.Time
	delivered, attempts int64
	took                sketch.Sketch
}

// pointsInWindow is how finely a window moves.
const pointsInWindow = 30

// NewEvaluator goes on from a state.
func NewEvaluator(s State) *Evaluator {
	e := &Evaluator{conditions: map[Subject]*condition{}, history: map[string]*history{}}
	for _, f := range s.Firing {
		e.at(f.Subject).firing = &f
		e.at(f.Subject).since = f.Since
	}
	for _, q := range s.Quiet {
		e.at(q.Subject).quiet = q.Until
	}
	return e
}

func (e *Evaluator) at(s Subject) *condition {
	c := e.conditions[s]
	if c == nil {
		c = &condition{}
		e.conditions[s] = c
	}
	return c
}

// State is what a successor goes on from.
func (e *Evaluator) State(now time.Time) State {
	s := State{Firing: e.Firing()}
	for subject, c := range e.conditions {
		if c.quiet.After(now) {
			s.Quiet = append(s.Quiet, Silence{subject, c.quiet})
		}
	}
	sorting.By(s.Quiet, func(a, b Silence) int { return bySubject(a.Subject, b.Subject) })
	return s
}

// Firing lists the alerts that fire, by name.
func (e *Evaluator) Firing() []Firing {
	var all []Firing
	for _, c := range e.conditions {
		if c.firing != nil {
			all = append(all, *c.firing)
		}
	}
	sorting.By(all, func(a, b Firing) int { return bySubject(a.Subject, b.Subject) })
	return all
}

func bySubject(a, b Subject) int {
	return cmp.Or(cmp.Compare(a.Alert, b.Alert), cmp.Compare(a.About, b.About))
}

// Observe takes a sample, which is later than those before, and returns what changed. Alerts that are no longer in
// the file, and those about endpoints that are gone, end.
func (e *Evaluator) Observe(alerts []*policy.Alert, s *Sample) []Transition {
	e.remember(alerts, s)
	var all []Transition
	seen := map[Subject]bool{}
	judge := func(a *policy.Alert, about string, r reading) {
		subject := Subject{a.Name, about}
		seen[subject] = true
		if t, changed := e.judge(a, subject, r, s.At); changed {
			if !a.Whole() {
				t.Endpoint = about
			}
			all = append(all, t)
		}
	}
	for _, a := range alerts {
		switch a.On {
		case policy.OnOutboxFill:
			judge(a, "", holds(a, s.Fill))
		case policy.OnSilence:
			r := holds(a, s.At.Sub(e.silent).Seconds())
			r.known = r.holds || s.Accepted != e.first // else how long it was silent before is not known
			judge(a, "", r)
		case policy.OnCertificateExpiry:
			for name, end := range s.Certificates {
				judge(a, name, holds(a, end.Sub(s.At).Seconds()))
			}
		default:
			for name := range s.Endpoints {
				if a.Watches(name) {
					judge(a, name, e.read(a, name, s))
				}
			}
		}
	}
	for subject, c := range e.conditions {
		if seen[subject] {
			continue
		}
		if c.firing != nil {
			t := Transition{Firing: *c.firing, Resolved: true, At: s.At, Why: whyOver(subject, alerts, s)}
			t.Value = ""
			if alert := (&policy.Alert{On: c.firing.On}); !alert.Whole() {
				t.Endpoint = subject.About
			}
			all = append(all, t)
		}
		delete(e.conditions, subject)
	}
	sorting.By(all, func(a, b Transition) int { return bySubject(a.Subject, b.Subject) })
	return all
}

// whyOver says why a subject is not watched any more, for people.
func whyOver(subject Subject, alerts []*policy.Alert, s *Sample) string {
	_, isEndpoint := s.Endpoints[subject.About]
	_, isCertificate := s.Certificates[subject.About]
	switch {
	case !slices.ContainsFunc(alerts, func(a *policy.Alert) bool { return a.Name == subject.Alert }):
		return "the file has no such alert any more"
	case isEndpoint, isCertificate, subject.About == "":
		return "the alert does not watch this any more"
	}
	return subject.About + " is gone"
}

// judge is the step of one subject.
func (e *Evaluator) judge(a *policy.Alert, subject Subject, r reading, now time.Time) (Transition, bool) {
	c := e.at(subject)
	switch {
	case !r.known: // neither begins nor ends
		return Transition{}, false
	case !r.holds:
		c.since = time.Time{}
		if c.firing == nil {
			return Transition{}, false
		}
		t := transition(a, *c.firing, r, now)
		t.Resolved = true
		c.firing, c.quiet = nil, now.Add(a.Cooldown)
		return t, true
	}
	if c.since.IsZero() {
		c.since = now
	}
	if c.firing != nil || now.Sub(c.since) < a.For || now.Before(c.quiet) {
		return Transition{}, false
	}
	c.firing = &Firing{Subject: subject, On: a.On, Value: a.Show(r.value), Limit: a.ShownLimit(), Since: c.since, Fired: now}
	return transition(a, *c.firing, r, now), true
}

func transition(a *policy.Alert, f Firing, r reading, now time.Time) Transition {
	if f.Value = a.Show(r.value); r.why != "" {
		f.Value = ""
	}
	return Transition{Firing: f, At: now, Number: r.value, Bound: a.Limit, Why: r.why}
}

// read is the value of an alert about an endpoint.
func (e *Evaluator) read(a *policy.Alert, name string, s *Sample) reading {
	now, h := s.Endpoints[name], e.history[name]
	switch a.On {
	case policy.OnBacklogAge:
		return holds(a, now.Oldest.Seconds())
	case policy.OnBacklogCount:
		return holds(a, float64(now.Pending))
	case policy.OnBreakerOpen:
		return reading{holds: now.BreakerOpen, known: true}
	case policy.OnDisabled:
		return reading{holds: now.Disabled, known: true}
	case policy.OnFailingSince:
		if h.failing.IsZero() {
			return reading{known: now.Delivered > h.first.Delivered, why: "it delivers again"} // else what was before the first sample goes on
		}
		return holds(a, s.At.Sub(h.failing).Seconds())
	}
	before := h.before(s.At.Add(-a.Window))
	attempts := now.Attempts - before.attempts
	switch {
	case attempts == 0:
		return reading{known: s.At.Sub(e.begun) >= a.Window, why: "no attempt within " + a.ShownWindow()} // what was bad is over, once the whole window was seen
	case attempts < int64(a.Min):
		return reading{}
	}
	switch a.On {
	case policy.OnMean:
		took := now.Took.Clone()
		took.Subtract(&before.took)
		return holds(a, took.Mean().Seconds())
	case policy.OnP95:
		took := now.Took.Clone()
		took.Subtract(&before.took)
		return holds(a, took.Quantile(0.95).Seconds())
	}
	return holds(a, float64(now.Delivered-before.delivered)/float64(attempts))
}

// remember adds a sample to the histories.
func (e *Evaluator) remember(alerts []*policy.Alert, s *Sample) {
	if e.begun.IsZero() {
		e.begun, e.first = s.At, s.Accepted
	}
	if e.silent.IsZero() || s.Accepted != e.accepted {
		e.accepted, e.silent = s.Accepted, s.At
	}
	longest, shortest := time.Duration(0), 24*time.Hour
	sketches := false
	for _, a := range alerts {
		if a.Windowed() {
			longest, shortest = max(longest, a.Window), min(shortest, a.Window)
			sketches = sketches || a.On != policy.OnSuccessRate
		}
	}
	for name, now := range s.Endpoints {
		h := e.history[name]
		if h == nil {
			h = &history{first: now, last: now}
			h.points = append(h.points, pointOf(&now, s.At, sketches)) // what was before counts for no window
			e.history[name] = h
		}
		switch {
		case now.Delivered > h.last.Delivered:
			h.failing = time.Time{}
		case now.Attempts > h.last.Attempts && h.failing.IsZero():
			h.failing = s.At
		}
		last := &h.points[len(h.points)-1]
		if now.Attempts != last.attempts && longest > 0 && s.At.Sub(last.at) >= shortest/pointsInWindow {
			h.points = append(h.points, pointOf(&now, s.At, sketches))
		}
		h.last = now
		h.forget(s.At.Add(-longest))
	}
	for name := range e.history {
		if _, ok := s.Endpoints[name]; !ok {
			delete(e.history, name)
		}
	}
}

func pointOf(e *Endpoint, at time.Time, sketches bool) point {
	p := point{at: at, delivered: e.Delivered, attempts: e.Attempts}
	if sketches {
		p.took = e.Took.Clone()
	}
	return p
}

// before is the last point at or before a time, or the first point.
func (h *history) before(at time.Time) *point {
	i := len(h.points) - 1
	for i > 0 && h.points[i].at.After(at) {
		i--
	}
	return &h.points[i]
}

// forget drops points that no window reaches any more.
func (h *history) forget(at time.Time) {
	n := 0
	for n+1 < len(h.points) && !h.points[n+1].at.After(at) {
		n++
	}
	h.points = slices.Delete(h.points, 0, n)
}
