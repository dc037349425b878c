package gate

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"relay/policy"
)

const (
	// breather holds an endpoint whose receiver answers 429 without Retry-After.
	breather = time.Second

	// WorthHolding is the shortest Retry-After that the outbox remembers for all Relays. A
	// shorter one is applied by this process alone.
	WorthHolding = 2 * time.Second

	// Failures over a shorter time are not written to the outbox: few of them, and many.
	worthKeeping     = time.Minute
	worthKeepingMany = 10 * time.Second
	manyFailures     = 3

	// The time of the last failure is written again when the stored one is older than this.
	worthKeepingAnew = time.Hour
)

// Attempt is how an admitted attempt ended.
type Attempt struct {
	Probe bool // as Admit said
	Void  bool // not made, or cut short: its result says nothing

	Status     int    // of the answer, where there is a whole one
	Code       string // why there is none, otherwise
	Delivered  bool
	Again      bool // it is to be tried again
	Gone       bool
	RetryAfter time.Duration // that the receiver asked for; 0 for none
	Rate       Rate          // from its rate headers
	InFlight   int           // other attempts under way
}

// Rate is the meaning of rate headers: how many sends the receiver still allows until its window
// ends. The zero value bounds nothing.
type Rate struct {
	Left  int
	Reset time.Duration
}

// Ended applies the end of an attempt: the receiver's Retry-After and rate headers, the breaker,
// and whether to disable the endpoint. Changes that concern the fleet are in the outbox when it
// returns. If ctx ends, or the outbox does not answer within 2 s, only this process applies them,
// and it disables nothing.
func (g *Gate) Ended(ctx context.Context, a Attempt) {
	var news []change
	g.mu.Lock()
	if g.endpoint != nil {
		now := time.Now()
		if !a.Void {
			news = append(news, g.applyWishes(now, &a)...)
			news = append(news, g.applyHealth(now, &a)...)
		}
		news = append(news, g.applyBreaker(now, &a)...)
		if a.Probe {
			g.tell()
		}
		if len(news) > 0 && g.grant(now).Cause != Open {
			g.close()
		}
	}
	g.mu.Unlock()
	g.publish(ctx, news)
}

// change is one change of the Condition that an attempt leads to, for the outbox.
type change struct {
	do  func(*Condition) bool
	say Transition // raised after the write; What is "" for none
}

// publishTimeout bounds how long the end of an attempt waits for the outbox.
const publishTimeout = 2 * time.Second

// publish writes all changes in one update. Most attempts have none and need no timer.
func (g *Gate) publish(ctx context.Context, news []change) {
	if len(news) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	g.mu.Lock()
	before := g.unsure
	g.mu.Unlock()
	var now unsure
	_, err := g.all.update(ctx, g.name, func(c *Condition) bool {
		now.says = now.says[:0]
		any := false
		for _, n := range news {
			if n.do(c) {
				any = true
				now.says = append(now.says, n.say)
			}
		}
		now.text = c.Text()
		return any
	})
	switch {
	case err != nil: // update has logged it
		g.unanswered(now)
	case before.is(now.text):
		// Raised when the note was heard: the same change was asked for at the same time, without an answer.
	default:
		g.raise(now.says)
	}
	g.tell()
}

// unsure is a change that the outbox was asked to write, without an answer: it may have done so.
type unsure struct {
	text []byte // of the note
	says []Transition
}

func (u *unsure) is(text []byte) bool { return len(u.says) > 0 && bytes.Equal(u.text, text) }

// unanswered ends a change whose answer is lost. What it says is raised once the note is heard.
func (g *Gate) unanswered(u unsure) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// Without this the next attempt would not try again, and nobody could enable the
	// endpoint.
	g.condition.Disabled, g.condition.Failing = g.known.Disabled, g.known.Failing
	if u.is(g.known.Text()) {
		g.raise(u.says) // heard meanwhile
	} else if len(u.says) > 0 {
		g.unsure = u
	}
}

// raise tells of transitions that the outbox knows.
func (g *Gate) raise(all []Transition) {
	for _, h := range all {
		if h.What != "" && g.all.o.Raise != nil {
			g.all.o.Raise(h)
		}
	}
}

// applyWishes obeys Retry-After and the rate headers. The caller holds mu.
func (g *Gate) applyWishes(now time.Time, a *Attempt) []change {
	wait := min(a.RetryAfter, g.longest())
	if !a.Again && a.Status != 429 && a.Status != 503 {
		wait = 0
	} else if a.Status == 429 && a.RetryAfter == 0 {
		wait = min(breather, g.longest())
	}
	if r := a.Rate; r.Reset > 0 && g.endpoint.ObeyRateHeaders {
		if left := r.Left - a.InFlight; left <= 0 {
			wait = max(wait, min(r.Reset, g.longest()))
		} else {
			g.pace.set(now, left, min(r.Reset, g.longest()))
		}
	}
	until := now.Add(wait)
	if wait == 0 || !until.After(g.hold.until) {
		return nil
	}
	g.hold = hold{now, until}
	g.close()
	asked := &Hold{Since: g.all.stamp(now), Until: g.all.stamp(until)}
	if wait < WorthHolding || g.known.Hold.covers(asked) {
		return nil
	}
	return []change{{do: func(c *Condition) bool {
		if c.Hold.covers(asked) {
			return false
		}
		c.Hold = asked
		return true
	}}}
}

// covers reports whether the other hold ends so little later that the fleet need not know.
func (h *Hold) covers(other *Hold) bool {
	return h != nil && other.Until.Sub(h.Until) < WorthHolding
}

// applyHealth disables an endpoint whose receiver is gone or fails for too long. The caller holds
// mu.
func (g *Gate) applyHealth(now time.Time, a *Attempt) []change {
	e, known := g.endpoint, g.condition.Failing
	switch {
	case a.Delivered:
		g.failing = trouble{}
		if known == nil {
			return nil
		}
		g.condition.Failing = nil
		return []change{{do: func(c *Condition) bool {
			changed := c.Failing != nil
			c.Failing = nil
			return changed
		}}}
	case a.Gone && e.Disable.OnGone:
		return g.disable(now, Gone, "the receiver answered 410: it wants no more events")
	}
	f := &g.failing
	if f.since.IsZero() {
		f.since = now
	}
	f.last, f.n, f.code = now, f.n+1, a.code()
	since, after := f.since, e.Disable.AfterFailing
	if after > 0 && now.Sub(since) >= after {
		return g.disable(now, Failing, fmt.Sprintf("no attempt went well since %s", g.all.stamp(since).Format(time.RFC3339)))
	}
	if age := now.Sub(since); age < worthKeepingMany || age < worthKeeping && f.n < manyFailures {
		return nil
	}
	trouble := &Trouble{Since: g.all.stamp(since), Last: g.all.stamp(now), Receiver: receiver(e), Attempts: f.n, Code: f.code}
	if known.covers(trouble) {
		return nil
	}
	g.condition.Failing = trouble
	return []change{{do: func(c *Condition) bool {
		if c.Failing.covers(trouble) {
			return false
		}
		c.Failing = trouble
		return true
	}}}
}

// covers reports whether the stored failure is recent enough to stand for a later one.
func (t *Trouble) covers(later *Trouble) bool {
	return t != nil && t.Receiver == later.Receiver && later.Last.Sub(t.Last) < worthKeepingAnew && (t.Attempts >= manyFailures || later.Attempts < manyFailures)
}

// code is why an attempt did not succeed.
func (a *Attempt) code() string {
	if a.Code == "" && a.Status != 0 {
		return "http_" + strconv.Itoa(a.Status)
	}
	return a.Code
}

// silence is the longest time for which an endpoint that has deliveries may make no attempt. A
// longer gap between attempts means that nobody tried, because Relay did not run or the file had
// the endpoint disabled.
func silence(e *policy.Endpoint) time.Duration {
	longest := e.Retry.MaxRetryAfter
	for _, s := range append([]policy.RetryClass{{Steps: e.Retry.Steps}}, e.Retry.Classes...) {
		for _, delay := range s.Schedule {
			longest = max(longest, time.Duration(float64(delay)*(1+s.Jitter)))
		}
	}
	if e.Breaker != nil {
		longest = max(longest, time.Duration(float64(e.Breaker.MaxOpen)*(1+e.Breaker.Jitter)))
	}
	return longest + 2*worthKeepingAnew
}

// disable applies Relay's own decision to disable the endpoint. The caller holds mu.
func (g *Gate) disable(now time.Time, code, reason string) []change {
	if g.condition.isDisabled(g.endpoint) {
		return nil
	}
	e := g.endpoint
	d := &Halt{At: g.all.stamp(now), Code: code, Reason: reason, Receiver: receiver(e)}
	g.condition.Disabled = d
	g.close()
	return []change{{
		do: func(c *Condition) bool {
			if c.isDisabled(e) {
				return false
			}
			c.Disabled = d
			return true
		},
		say: Transition{Endpoint: e.Name, What: ToDisabled, At: d.At, Code: code, Reason: reason},
	}}
}

// applyBreaker counts the attempt, and opens or closes the breaker. The caller holds mu.
func (g *Gate) applyBreaker(now time.Time, a *Attempt) []change {
	rule, o := g.endpoint.Breaker, g.condition.Breaker
	failed := rule != nil && !a.Delivered && rule.On.Has(a.Status, a.Code)
	if a.Probe {
		return g.applyProbe(now, a, failed)
	}
	if rule == nil || o != nil || a.Void {
		return nil
	}
	if g.window == nil {
		g.window = new(breaker)
	}
	if !g.window.count(rule, now, failed) {
		return nil
	}
	g.window = nil
	opened := &Opening{Times: 1, Until: g.all.stamp(now.Add(openFor(rule, 1, rand.Float64())))}
	g.applyOpening(now, opened)
	g.close()
	return []change{{
		do: func(c *Condition) bool {
			if c.Breaker != nil {
				return false
			}
			c.Breaker = opened
			return true
		},
		say: Transition{Endpoint: g.name, What: ToOpen, At: g.all.stamp(now), Until: opened.Until},
	}}
}

// applyProbe ends a probe. The first failure opens the breaker for longer. When all probes of a
// turn have succeeded, the turn ends, and the breaker closes if they are enough. The caller holds
// mu.
func (g *Gate) applyProbe(now time.Time, a *Attempt, failed bool) []change {
	rule, o := g.endpoint.Breaker, g.condition.Breaker
	g.probing--
	if !failed && !a.Void {
		g.good++
	}
	if o == nil || o.Prober != g.all.o.Relay || rule == nil {
		return nil // another probe failed, or the rule is gone
	}
	if !failed && g.probing > 0 {
		return nil
	}
	after := &Opening{Times: o.Times, Until: o.Until, Good: o.Good + g.good}
	say := Transition{Endpoint: g.name, At: g.all.stamp(now)}
	switch {
	case failed:
		after.Times, after.Good = o.Times+1, 0
		after.Until = g.all.stamp(now.Add(openFor(rule, after.Times, rand.Float64())))
	case after.Good >= rule.Probes:
		after = nil
		say.What = ToClosed
	}
	g.applyOpening(now, after)
	turn := o.ProberUntil // the turn that ends; another may have begun before this is written
	return []change{{
		do: func(c *Condition) bool {
			if c.Breaker == nil || c.Breaker.Prober != g.all.o.Relay || !c.Breaker.ProberUntil.Equal(turn) {
				return false
			}
			c.Breaker = after
			return true
		},
		say: say,
	}}
}
