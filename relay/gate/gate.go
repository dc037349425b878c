// Package gate decides how many attempts of an endpoint may begin now: it holds the endpoint's
// rate limit and circuit breaker, the hold that a receiver asked for, the receiver's consent if
// the endpoint needs it, and whether the endpoint is paused or disabled.
//
// A gate is asked before deliveries are claimed, so a shut gate costs no slot, no write and no
// attempt. The state that a fleet shares is a Condition, stored in the outbox as the endpoint's
// note; the tokens of a fleet's rate limit are in the outbox, too. Everything else belongs to
// this process: for example, each Relay asks for consent itself.
//
// Read in this order: words.go, Condition, Gates, Gate, then breaker.go, limit.go, fleet.go,
// pace.go.
package gate

import (
	"context"
	"math"
	"sync"
	"time"

	"relay/policy"
)

// Transition is a change of an endpoint's condition that this process brought about.
type Transition struct {
	Endpoint string
	What     string // one of those below
	At       time.Time
	Code     string // of the decision
	Reason   string // for people
	Until    time.Time
}

// Values of Transition.What.
const (
	ToOpen     = "breaker.opened"
	ToClosed   = "breaker.closed"
	ToDisabled = "endpoint.disabled"
)

// Gate is the gate of one endpoint. Its methods may be called at the same time.
type Gate struct {
	all  *Gates
	name string // of the endpoint

	mu        sync.Mutex
	endpoint  *policy.Endpoint // whose rules apply; nil before Use
	known     Condition        // as the outbox has it, as of revision
	revision  uint64           // of that
	condition Condition        // known, with changes that are about to be written to the outbox
	limit     limiter          // nil for none
	consent   consent          // of the receiver, if the endpoint asks for it
	pace      pace
	window    *breaker  // nil while nothing has been counted
	hold      hold      // the receiver's
	shutUntil time.Time // the breaker's Until and ProberUntil by this process's clock, as they were heard:
	turnUntil time.Time // setting the clock moves neither
	turnAfter time.Time // no turn is asked for before this time, because the outbox refused the last request
	unsure    unsure    // the last change that had no answer, until the next note
	failing   trouble   // since the last success
	probing   int       // probes of this process under way
	good      int       // of them, successes since this turn began
	passed    context.Context
	shut      context.CancelFunc // ends passed
	told      func()
}

// trouble is a Trouble by this process's clock. The zero value is none.
type trouble struct {
	since, last time.Time
	n           int // attempts that this process knows of
	code        string
}

// hold is a Hold by this process's clock. The zero value is none.
type hold struct{ since, until time.Time }

// limit shortens the hold to the longest that a receiver can ask for.
func (h hold) limit(longest time.Duration) hold {
	if most := h.since.Add(longest); h.until.After(most) {
		h.until = most
	}
	return h
}

// Tell makes the gate call f when Look may allow more than last time, and when the gate shuts. f must not
// block, and must not call the gate.
func (g *Gate) Tell(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.told = f
}

// Use applies the rules of e. Tokens and the breaker's window stay if their own rules have not
// changed.
func (g *Gate) Use(e *policy.Endpoint) {
	g.mu.Lock()
	defer g.mu.Unlock()
	old := g.endpoint
	g.endpoint = e
	if old != nil && receiver(old) != receiver(e) {
		g.failing = trouble{}
	}
	g.applyFailing(&g.condition)
	now := time.Now()
	g.hold = g.hold.limit(g.longest())
	g.shutUntil = clamp(now, g.shutUntil, g.longestOpen())
	g.turnUntil = clamp(now, g.turnUntil, g.turn())
	if !e.ObeyRateHeaders {
		g.pace = pace{}
	}
	if e.Breaker == nil || old == nil || old.Breaker == nil || *old.Breaker != *e.Breaker {
		g.window = nil
	}
	g.forgetConsent(old, e)
	g.limit = newLimiter(g.limit, g.limited(), g.all.o.Limiter)
	g.tell()
}

// apply applies the endpoint's Condition as of a revision. Older revisions are ignored, unless
// the outbox was emptied and its revisions start again.
func (g *Gate) apply(c Condition, revision uint64, anew bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if revision <= g.revision && !anew {
		return
	}
	g.revision = revision
	now := time.Now()
	if len(g.unsure.says) > 0 && g.unsure.is(c.Text()) {
		g.raise(g.unsure.says)
	}
	g.unsure = unsure{}
	if g.condition.Breaker != nil && c.Breaker == nil {
		g.window = nil // the failures that were counted led to the state that ends now
	}
	g.applyFailing(&c)
	if !c.Hold.equal(g.condition.Hold) {
		if h := g.heard(now, c.Hold); c.Hold == nil || h.until.After(g.hold.until) {
			g.hold = h
		}
	}
	g.applyOpening(now, c.Breaker)
	g.known, g.condition = c, c
	if g.grant(now).Cause != Open {
		g.close()
	}
	g.tell()
}

// forgive drops the causes that only this process knows, because the outbox could not be told.
func (g *Gate) forgive() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	g.hold, g.failing, g.window, g.pace = g.heard(now, g.known.Hold), trouble{}, nil, pace{}
	g.applyOpening(now, g.known.Breaker)
	g.tell()
}

// applyFailing applies since when no attempt of the fleet succeeded, or that one did. A pause
// ends that time, because no attempt could succeed during it. The caller holds mu.
func (g *Gate) applyFailing(c *Condition) {
	old, now := &g.condition, c.Failing
	if old.Failing != nil && now == nil || old.Disabled != nil && c.Disabled == nil || old.Paused != nil && c.Paused == nil {
		g.failing = trouble{}
	}
	if now == nil || g.endpoint == nil || now.Receiver != receiver(g.endpoint) {
		return
	}
	moment := time.Now()
	if g.all.at(moment).Sub(now.Last) > silence(g.endpoint) {
		return
	}
	f := &g.failing
	if since := g.local(moment, now.Since, unknown); f.since.IsZero() || since.Before(f.since) {
		f.since = since
	}
	if last := g.local(moment, now.Last, 0); last.After(f.last) {
		f.last, f.code = last, now.Code
	}
	f.n = max(f.n, now.Attempts)
}

// fails is the trouble that a person must know of: some attempts were made lately, and none succeeded. nil for none. The
// caller holds mu.
func (g *Gate) fails(now time.Time) *Trouble {
	f := &g.failing
	if f.n < manyFailures || now.Sub(f.since) < worthKeepingMany || now.Sub(f.last) > silence(g.endpoint) {
		return nil
	}
	return &Trouble{Since: g.all.stamp(f.since), Last: g.all.stamp(f.last), Attempts: f.n, Code: f.code}
}

// applyOpening applies the breaker's state from the outbox. The caller holds mu.
func (g *Gate) applyOpening(now time.Time, o *Opening) {
	old := g.condition.Breaker
	if o != nil && (old == nil || !old.Until.Equal(o.Until)) {
		g.shutUntil = g.local(now, o.Until, g.longestOpen())
	}
	if o != nil && (old == nil || !old.ProberUntil.Equal(o.ProberUntil)) {
		g.turnUntil = g.local(now, o.ProberUntil, g.turn())
	}
	g.condition.Breaker = o
}

// unknown is longer than any time, for use while the rule with the bound is not known.
const unknown = time.Duration(math.MaxInt64)

// longest is the longest hold that a receiver can ask for.
func (g *Gate) longest() time.Duration {
	if g.endpoint == nil {
		return unknown
	}
	return g.endpoint.Retry.MaxRetryAfter
}

// longestOpen is the longest time that the breaker stays open.
func (g *Gate) longestOpen() time.Duration {
	if g.endpoint == nil || g.endpoint.Breaker == nil {
		return unknown
	}
	return time.Duration(float64(g.endpoint.Breaker.MaxOpen) * (1 + g.endpoint.Breaker.Jitter))
}

// turn is how long one Relay may probe: longer than any of its attempts takes.
func (g *Gate) turn() time.Duration {
	if g.endpoint == nil {
		return unknown
	}
	return g.endpoint.Timeout.Total*2 + 5*time.Second
}

// clamp returns t, but at most now+most, so that no clock can keep the gate shut for longer
// than its rules allow.
func clamp(now, t time.Time, most time.Duration) time.Time {
	if t.IsZero() {
		return t
	}
	return now.Add(min(t.Sub(now), most))
}

// local is the moment of this process at which the outbox's clock shows t, at most now+most.
func (g *Gate) local(now, t time.Time, most time.Duration) time.Time {
	if t.IsZero() {
		return t
	}
	return now.Add(min(t.Sub(g.all.at(now)), most))
}

// heard is the Hold of a note, by this process's clock.
func (g *Gate) heard(now time.Time, h *Hold) hold {
	if h == nil {
		return hold{}
	}
	longest := g.longest()
	return hold{g.local(now, h.Since, 0), g.local(now, h.Until, longest)}.limit(longest)
}

// Grant is how many attempts may begin.
type Grant struct {
	N     int           // attempts, 0 when Cause is not Open
	Cause Cause         // why it is 0
	Wait  time.Duration // until Look may allow more; 0: until the gate tells, except for NoConsent
}

// Look tells how many attempts, at most want, may begin now. It may ask the outbox if the fleet
// shares a limit.
func (g *Gate) Look(ctx context.Context, want int) Grant {
	g.mu.Lock()
	now := time.Now()
	v := g.grant(now)
	limit := g.limit
	g.mu.Unlock()
	if v.Cause != Open {
		return v
	}
	v.N = min(v.N, want)
	if limit == nil {
		return v
	}
	n, wait := limit.ready(ctx, now, v.N)
	if n == 0 {
		return Grant{Cause: Limit, Wait: max(wait, time.Millisecond)}
	}
	v.N = min(v.N, n)
	return v
}

// unbounded is more than any endpoint has slots.
const unbounded = 1 << 20

// grant judges all but the rate limit of the policy. The caller holds mu.
func (g *Gate) grant(now time.Time) Grant {
	switch {
	case g.endpoint == nil:
		return Grant{Cause: Disabled}
	case g.condition.isDisabled(g.endpoint):
		return Grant{Cause: Disabled}
	case g.condition.Paused != nil:
		return Grant{Cause: Paused}
	case now.Before(g.hold.until):
		return Grant{Cause: RetryAfter, Wait: g.hold.until.Sub(now)}
	}
	if wait, missing := g.consent.missing(now); missing && g.endpoint.Handshake {
		return Grant{Cause: NoConsent, Wait: wait}
	}
	v := Grant{N: unbounded}
	if n, wait, ok := g.pace.ready(now); !ok {
		return Grant{Cause: Limit, Wait: wait}
	} else if n >= 0 {
		v.N = n
	}
	if n, wait, ok := g.probes(now); !ok {
		return Grant{Cause: Breaker, Wait: wait}
	} else if n > 0 {
		v.N = min(v.N, n)
	}
	return v
}

// probes returns how many probes may begin, 0 with ok if the breaker is closed. If none may begin
// ok is false, and wait is how long until some may. The caller holds mu.
func (g *Gate) probes(now time.Time) (n int, wait time.Duration, ok bool) {
	rule, o := g.endpoint.Breaker, g.condition.Breaker
	if rule == nil || o == nil {
		return 0, 0, true
	}
	switch {
	case now.Before(g.shutUntil):
		return 0, g.shutUntil.Sub(now), false
	case g.probing > 0:
		return 0, 0, false
	case now.Before(g.turnAfter):
		return 0, g.turnAfter.Sub(now), false
	case o.Prober != "" && o.Prober != g.all.o.Relay && now.Before(g.turnUntil):
		return 0, g.turnUntil.Sub(now), false
	}
	return max(rule.Probes-o.Good, 1), 0, true // 1 if a rule with more probes was replaced
}

// State is the gate as an operator sees it.
type State struct {
	Condition Condition
	Disabled  bool      // Condition.Disabled holds for the endpoint's present URL
	Cause     Cause     // why no attempt may begin
	Why       string    // why there is no consent, for people
	Held      time.Time // of the receiver's Retry-After, by the outbox's clock; zero when past
	Breaker   string    // "" without a rule, else closed, open or half_open
	Limit     float64   // sends per second; 0 for none
	Tokens    float64   // that this process knows of
	Failing   *Trouble  // at least 3 attempts over 10 s, none of which succeeded; nil after a success, and when nobody tries any more
}

// State returns the state at this moment. It asks neither the outbox nor the receiver.
func (g *Gate) State() State {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := State{Condition: g.condition, Disabled: true}
	if g.endpoint == nil {
		return s
	}
	now := time.Now()
	s.Disabled = g.condition.isDisabled(g.endpoint)
	s.Cause, s.Failing = g.grant(now).Cause, g.fails(now)
	if s.Cause == NoConsent {
		s.Why = g.consent.Why
	}
	if now.Before(g.hold.until) {
		s.Held = g.all.stamp(g.hold.until)
	}
	if g.endpoint.Breaker != nil {
		s.Breaker = Closed
		if g.condition.Breaker != nil {
			s.Breaker = HalfOpen
			if now.Before(g.shutUntil) {
				s.Breaker = Opened
			}
		}
	}
	if r := g.limited().RateLimit; r != nil {
		s.Limit = float64(r.N) / r.Per.Seconds()
		s.Tokens = g.limit.level(now)
		if s.Cause == Open && s.Tokens < 1 {
			s.Cause = Limit
		}
	}
	return s
}

// Rested reports whether a new gate would allow no less, so that this one may be dropped.
func (g *Gate) Rested() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	l, own := g.limit.(*localLimit)
	return !now.Before(g.hold.until) && !now.Before(g.pace.until) && (!own || l.level(now) >= float64(l.tokens.Burst()))
}

// Passed returns a context for a claim that Look allowed. It ends with parent, and when the gate
// shuts.
func (g *Gate) Passed(parent context.Context) context.Context {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.passed == nil || g.passed.Err() != nil {
		g.passed, g.shut = context.WithCancel(parent)
	}
	return g.passed
}

// close ends waiting claims. The caller holds mu.
func (g *Gate) close() {
	if g.shut != nil {
		g.shut()
		g.passed, g.shut = nil, nil
	}
	g.tell()
}

// tell tells of a change. The caller holds mu.
func (g *Gate) tell() {
	if g.told != nil {
		g.told()
	}
}

// Admit returns how many of n claims may become attempts now; the caller releases the others.
// probe is set if the attempts are probes of the breaker. The caller reports each end with Ended.
func (g *Gate) Admit(ctx context.Context, n int) (admitted int, probe bool) {
	g.mu.Lock()
	v := g.grant(time.Now())
	limit := g.limit
	probe = g.broken()
	n = min(n, v.N)
	g.mu.Unlock()
	if n == 0 {
		return 0, false
	}
	if probe && !g.takeTurn(ctx) {
		return 0, false
	}
	if limit != nil {
		n = limit.take(ctx, time.Now(), n) // at the present time: these attempts begin now, not when Look was called
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	// The turn and the tokens may have taken long, and the gate may have shut meanwhile.
	if n = min(n, g.grant(time.Now()).N); probe != g.broken() {
		n = 0
	}
	g.pace.take(time.Now(), n)
	if probe {
		g.probing, g.good = n, 0
	}
	return n, probe
}

// broken tells whether the breaker is open or half open. The caller holds mu.
func (g *Gate) broken() bool {
	return g.endpoint != nil && g.endpoint.Breaker != nil && g.condition.Breaker != nil
}

// If the outbox does not give a Relay the turn to probe, it asks again after this time.
// Deliveries that were claimed for probes are released meanwhile.
const turnAgain = time.Second

// takeTurn asks the outbox to let this Relay, and no other of the fleet, probe.
func (g *Gate) takeTurn(ctx context.Context) bool {
	var mine bool
	_, err := g.all.update(ctx, g.name, func(c *Condition) bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		now := time.Now()
		// From the gate's own state: it may have opened, or a probe may have ended, while the
		// outbox did not answer.
		o := g.condition.Breaker
		_, _, may := g.probes(now)
		if mine = o != nil && may; !mine {
			return false
		}
		turned := *o
		turned.Prober, turned.ProberUntil = g.all.o.Relay, g.all.stamp(now.Add(g.turn()))
		c.Breaker = &turned
		return true
	})
	if err != nil {
		g.mu.Lock()
		g.turnAfter = time.Now().Add(turnAgain)
		g.mu.Unlock()
	}
	return mine && err == nil
}
