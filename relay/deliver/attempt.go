package deliver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/gate"
)

// errStopping cuts attempts short that outlast the grace of a stop.
var errStopping = errors.New("relay is stopping")

// settleTimeout bounds the ends of claims after attempts were cut short.
const settleTimeout = 2 * time.Second

// Result is an attempt with what came of it.
type Result struct {
	Endpoint   string
	EventID    string
	EventType  string
	DeliveryID string
	Attempt    outbox.Attempt
	State      outbox.State // of the delivery now
	Due        time.Time    // of the next attempt, where State is pending
	Reused     bool         // the connection had served before
}

// attempt makes one attempt, wholly by s, and ends the claim. When a stop cuts it
// short the claim is handed back, unless the answer is here.
//
// probe is what the gate said of it.
func (r *runner) attempt(s *setup, c *outbox.Claim, probe bool) {
	start := time.Now() // UTC would take the monotonic reading away, and a jump of the clock change limits
	r.counts.begin(start, c)
	n := c.Attempts + 1
	a, f := r.try(s, c, start)
	if f != nil && r.d.working.Err() != nil {
		r.release(*c)
		r.d.unfinished.Add(1)
		r.counts.end()
		r.gate.Ended(r.d.settling, gate.Attempt{Probe: probe, Void: true})
		return
	}
	end := time.Now()

	res := Result{
		Endpoint:   c.Endpoint,
		EventID:    c.EventID,
		EventType:  c.Event.Type,
		DeliveryID: c.ID,
		Attempt: outbox.Attempt{
			N:       n,
			Started: start.UTC(),
			Took:    end.Sub(start),
			Timing:  a.timing,
			Status:  a.status,
			Head:    a.head,
			Body:    a.body,
		},
		State:  outbox.Failed,
		Reused: a.reused,
	}
	ended := gate.Attempt{Probe: probe, Status: a.status, RetryAfter: parseRetryAfter(a.retryAfter, end)}
	if s.endpoint.ObeyRateHeaders {
		ended.Rate = a.rateHeaders.Parse(end)
	}
	if f == nil {
		f = &failure{text: answerText(a.status)}
	} else {
		ended.Code = f.code
		ended.Void = f.code == codePanic || f.code == codeBody // they say nothing about the receiver
	}
	outcome, code := classify(a.status, f.code, s.endpoint.Retry.On)
	res.Attempt.Outcome, res.Attempt.Code, res.Attempt.Error = string(outcome), code, f.text
	switch outcome {
	case Delivered:
		res.State, ended.Delivered = outbox.Delivered, true
	case Retry:
		ended.Again = true
		if due, ok := nextDue(&s.endpoint.Retry, c, &ended, end); ok {
			res.State, res.Due = outbox.Pending, due
		}
	case Gone:
		ended.Gone = true
	}
	r.settle(c, &res)
	ended.InFlight = r.counts.ended(outcome, res.Attempt.Took)
	ctx, cancel := context.WithTimeout(r.d.settling, settleTimeout)
	defer cancel()
	r.gate.Ended(ctx, ended)
}

// nextDue is when a delivery is tried again after attempt a of it ended, false for never.
func nextDue(r *policy.Retry, c *outbox.Claim, a *gate.Attempt, end time.Time) (time.Time, bool) {
	steps := r.After(a.Status, a.Code)
	delay, ok := backoff(steps, c.Attempts+1, min(a.RetryAfter, r.MaxRetryAfter), rand.Float64())
	due := end.Add(delay).UTC()
	if steps.MaxAge > 0 && due.After(c.Created.Add(steps.MaxAge)) {
		ok = false
	}
	return due, ok
}

// try sends the event once. A panic on the way is a failed attempt like any
// other, so that one event cannot end the process again and again.
func (r *runner) try(s *setup, c *outbox.Claim, now time.Time) (a answer, f *failure) {
	defer func() {
		if p := recover(); p != nil {
			f = &failure{codePanic, "relay panicked in this attempt; its log has the stack"}
			r.logPanic(c, p)
		}
	}()
	d := r.d.drafts.Get().(*draft)
	if err := d.build(s.endpoint, c, s.url, r.d.userAgent, now); err != nil {
		r.d.drafts.Put(d)
		return a, &failure{codeBody, "cannot build the body: " + err.Error()}
	}
	a, f = s.sender(r.d).send(r.d.working, now.Add(s.endpoint.Timeout.Total), d.header, d.body)
	if f != nil && f.code == codeTimeout {
		f.text = s.late
	}
	if cap(d.body) <= maxKeptDraft {
		r.d.drafts.Put(d)
	}
	return a, f
}

// settle ends the claim with the attempt's record, then tells of it.
func (r *runner) settle(c *outbox.Claim, res *Result) {
	err := r.d.o.Source.Settle(r.d.settling, *c, outbox.Settlement{Attempt: res.Attempt, State: res.State, Due: res.Due})
	if err != nil {
		r.logUnsettled(res, err)
		return
	}
	r.logAttempt(res)
	r.d.raiseFailed(res)
	if r.d.o.Observe != nil {
		r.d.o.Observe(*res)
	}
}

// answerText says in words why an answer is not a delivery, "" where it is.
func answerText(status int) string {
	switch {
	case status >= 200 && status <= 299:
		return ""
	case status >= 300 && status <= 399:
		return fmt.Sprintf("the receiver answered %d: redirects are not followed, give its new address as the endpoint's url", status)
	case status == 410:
		return "the receiver answered 410: it wants no more events"
	default:
		return fmt.Sprintf("the receiver answered %d", status)
	}
}

// panicText describes a panic without its value, which may hold anything, unless
// the runtime made it.
func panicText(p any) string {
	if e, ok := p.(runtime.Error); ok {
		return fmt.Sprintf("panic: %v\n%s", e, debug.Stack())
	}
	return fmt.Sprintf("panic with a %T\n%s", p, debug.Stack())
}
