package deliver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/gate"
	"relay/relay/post"
)

// errStopping cuts attempts short that outlast the grace of a stop.
var errStopping = errors.New("relay is stopping")

// settleTimeout bounds the ends of claims after attempts were cut short.
const settleTimeout = 2 * time.Second

// Result is an attempt, and the delivery after it.
type Result struct {
	Endpoint   string
	EventID    string
	EventType  string
	DeliveryID string
	Attempt    outbox.Attempt
	State      outbox.State // of the delivery now
	Due        time.Time    // of the next attempt, where State is pending
}

// ending is how an attempt ended.
type ending struct {
	answer  post.Answer
	request string        // its record
	failure *post.Failure // nil where an answer's status decides
	gate    gate.Attempt  // the report to the gate
}

// attempt makes one attempt with all of claims, with the settings of s, and settles each of them
// with a record of its own. If a stop cuts the attempt short before there is an answer, the
// claims are released.
//
// d is the draft of a batch; nil for a single claim of an endpoint without batches. probe is from
// the gate.
func (r *runner) attempt(s *setup, claims []outbox.Claim, d *draft, probe bool) {
	start := time.Now() // not in UTC, which drops the monotonic reading: a jump of the clock would change limits
	began := r.d.at(start)
	r.counts.begin(began, claims)
	self := r.d.o.Self()
	e := r.try(s, claims, d, start)
	if e.failure != nil && r.d.working.Err() != nil {
		r.release(claims...)
		r.d.unfinished.Add(1)
		r.counts.end()
		r.gate.Ended(r.d.settling, gate.Attempt{Probe: probe, Void: true})
		return
	}
	end := time.Now()

	a := &e.answer
	res := Result{Attempt: s.recordOf(&e)}
	res.Attempt.Started, res.Attempt.Took = began.UTC(), end.Sub(start)
	res.Attempt.Relay, res.Attempt.Generation = self.Relay, self.Generation
	e.gate = gate.Attempt{Probe: probe, Status: a.Status, RetryAfter: gate.ParseRetryAfter(a.RetryAfter, r.d.at(end))}
	if s.endpoint.ObeyRateHeaders {
		rate := gate.RateHeaders(a.RateHeaders)
		e.gate.Rate = rate.Parse(r.d.at(end))
	}
	if f := e.failure; f != nil {
		e.gate.Code = f.Code
		e.gate.Void = saysNothing(f.Code)
	}
	r.conclude(s, claims, &res, &e)
	e.gate.InFlight = r.counts.end()
	r.gate.Ended(r.d.settling, e.gate)
}

// recordOf is the part of an attempt's record that its request and answer give.
func (s *setup) recordOf(e *ending) outbox.Attempt {
	a := &e.answer
	return outbox.Attempt{
		Timing:  a.Timing,
		Status:  a.Status,
		Reused:  a.Reused,
		Peer:    s.endpoint.Hush(a.Peer),
		Request: e.request,
		Head:    a.Head,
		Body:    a.Body,
	}
}

// conclude judges an attempt that just ended, for the gate too, and settles its deliveries. res
// holds what is common to their records.
func (r *runner) conclude(s *setup, claims []outbox.Claim, res *Result, e *ending) {
	end := r.d.at(time.Now())
	all := judge(s.endpoint, len(claims), e)
	e.gate.Delivered, e.gate.Gone = all.outcome == Delivered, all.outcome == Gone
	e.gate.Again = all.outcome == Retry && !all.alone
	random := rand.Float64() // one for all, so that a batch is retried as a whole
	for i := range claims {
		c, j := &claims[i], all
		res.Endpoint, res.EventID, res.EventType, res.DeliveryID = c.Endpoint, c.EventID, c.Event.Type, c.ID
		res.Attempt.N = c.Attempts + 1
		res.State, res.Due = outbox.Failed, time.Time{}
		var due time.Time // by the schedule; the gate may hold the endpoint for longer
		switch j.outcome {
		case Delivered:
			res.State = outbox.Delivered
		case Retry:
			delay, wait, ok := nextDelay(&s.endpoint.Retry, c, &e.gate, &j, end, random)
			switch {
			case ok:
				// due keeps the monotonic reading (UTC would drop it), so that a clock that is set
				// on the way to the outbox does not move it.
				res.State, due, res.Due = outbox.Pending, end.Add(delay), end.Add(wait).UTC()
			case j.alone: // too late for that: the answer is final
				j = judge(s.endpoint, 1, e)
			}
		}
		res.Attempt.Outcome, res.Attempt.Code, res.Attempt.Error, res.Attempt.Next = string(j.outcome), j.code, j.text, res.Due
		r.settle(c, res, due)
		r.d.record(c, res, len(claims))
		r.counts.record(j.outcome, res.Attempt.Took)
	}
}

// nextDelay returns after how long a delivery is due again when attempt a ended as j, and false
// if it is over. wait is delay or the receiver's Retry-After, whichever is longer. The gate holds
// the endpoint for a long Retry-After, so delay does not include it: when the hold ends early,
// the delivery can go.
func nextDelay(r *policy.Retry, c *outbox.Claim, a *gate.Attempt, j *judgement, end time.Time, random float64) (delay, wait time.Duration, ok bool) {
	steps := r.After(a.Status, a.Code)
	delay, ok = backoff(steps, c.Attempts+1, random)
	asked := min(a.RetryAfter, r.MaxRetryAfter)
	if j.alone {
		delay, asked, ok = 0, 0, true // even after the last step, because the answer was not about this event
	}
	wait = max(delay, asked)
	if steps.MaxAge > 0 && end.Add(wait).After(c.Created.Add(steps.MaxAge)) {
		ok = false
	}
	if asked < gate.WorthHolding {
		delay = wait // other Relays do not know of it
	}
	return delay, wait, ok
}

// try sends the events once. A panic makes the attempt fail, so that one event cannot end the
// process again and again.
func (r *runner) try(s *setup, claims []outbox.Claim, d *draft, now time.Time) (e ending) {
	defer func() {
		if p := recover(); p != nil {
			e.failure = r.panicked(&claims[0], p)
		}
	}()
	if d != nil {
		d.seal(s.endpoint, claims, s.url, r.d.userAgent, now)
	} else {
		d = r.d.drafts.Get().(*draft)
		if e.failure = bodyFailure(d.build(s.endpoint, &claims[0], s.url, r.d.userAgent, now)); e.failure != nil {
			r.keep(s, d)
			return e
		}
	}
	d.header = r.d.appendTrace(d.header, s.endpoint, claims)
	e.answer, e.failure = s.sender(r.d).Send(r.d.working, post.Request{Header: d.header, Body: d.body, Until: now.Add(s.endpoint.Timeout.Total)})
	if f := e.failure; f != nil && f.Code == policy.CodeTimeout {
		f.Text = s.late()
	}
	e.request = s.record.text(d.header)
	r.keep(s, d)
	return e
}

func (r *runner) panicked(c *outbox.Claim, p any) *post.Failure {
	r.logPanic(c, p)
	return &post.Failure{Code: codePanic, Text: "relay panicked in this attempt; its log has the stack"}
}

// saysNothing reports whether an attempt with this code never reached the receiver.
func saysNothing(code string) bool {
	switch code {
	case codePanic, codeBody, policy.CodeTooExpensive, policy.CodeBusy, post.CodeNoSocket:
		return true
	}
	return false
}

// bodyFailure is nil if err is.
func bodyFailure(err error) *post.Failure {
	if err == nil {
		return nil
	}
	return &post.Failure{Code: policy.CostCode(err, codeBody), Text: "cannot build the body: " + err.Error()}
}

// keep returns a draft to the pool, unless its memory is large.
func (r *runner) keep(s *setup, d *draft) {
	most := maxKeptDraft
	if b := s.endpoint.Batch; b != nil {
		most = max(most, 2*int(b.MaxBytes)) // append may have made twice the room
	}
	if cap(d.body) <= most {
		r.d.drafts.Put(d)
	}
}

// settle ends the claim with the attempt's record, then logs and raises it. due is of a pending
// delivery.
func (r *runner) settle(c *outbox.Claim, res *Result, due time.Time) {
	err := r.d.o.Source.Settle(r.d.settling, *c, outbox.Settlement{Attempt: res.Attempt, State: res.State, Due: due})
	if err != nil {
		r.logUnsettled(res, err)
		return
	}
	r.logAttempt(res)
	r.d.tell(c, res)
	r.d.raiseFailed(res)
	if r.d.o.observe != nil {
		r.d.o.observe(*res)
	}
}

// answerText says for people why an answer does not count as delivered, "" if it does.
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
