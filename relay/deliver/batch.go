package deliver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/policy/sign"
	"relay/relay/gate"
	"relay/relay/post"
)

// batch is one POST while it is gathered.
type batch struct {
	draft  *draft         // nil while there is no claim, so waiting endpoints need no memory for it
	claims []outbox.Claim // their events are in the draft, in this order
	broken []broken
	full   bool // no further events are waited for
}

// broken is a claim of an event that no body can be made of.
type broken struct {
	claim   outbox.Claim
	failure *post.Failure
}

// len counts towards max_events.
func (b *batch) len() int { return len(b.claims) + len(b.broken) }

// gathering is how an endpoint with batches fills them. It gathers one at a time, on a free slot,
// while those before it are under way on theirs.
type gathering struct {
	r     *runner
	s     *setup
	rest  []outbox.Claim // they begin the next batch; the one before may have had no room for them
	taken time.Time      // when the rest were claimed
}

// claimBatch is claimOnce for a setup with batches. While it gathers it waits with its goroutine.
func (r *runner) claimBatch(s *setup) (more bool, err error) {
	if r.batch == nil {
		r.batch = &gathering{r: r, s: s}
	}
	g := r.batch
	if r.takeFree(s.endpoint.Concurrency, 1) == 0 {
		r.withdraw() // as in claimOnce
		return false, nil
	}
	if time.Since(g.taken) > s.endpoint.Timeout.Total {
		g.drop() // waiting for a slot used up the spare time of their leases
	}
	v := r.gate.Look(s.claiming, 1)
	if v.N == 0 {
		g.drop()
		r.begin(s, 1, 0)
		return r.wait(s, v), nil
	}
	if len(g.rest) == 0 {
		g.rest, err = r.claim(s.claiming, s, s.endpoint.Batch.MaxEvents, r.wake)
		if err != nil || len(g.rest) == 0 {
			return !r.begin(s, 1, 0), err
		}
		g.taken = time.Now()
	}
	b, err := g.gather(r.gate.Passed(s.claiming))
	if err != nil {
		return false, err
	}
	r.launch(s, b)
	return true, nil
}

// drop releases the rest.
func (g *gathering) drop() {
	g.r.release(g.rest...)
	g.rest = nil
}

// gather makes a batch of the rest, and claims more until it is full or max_wait has passed. When
// passed ends it returns those it has. The error is of a Claim after which the outbox cannot go on.
func (g *gathering) gather(passed context.Context) (*batch, error) {
	rule := g.s.endpoint.Batch
	b := new(batch)
	var within context.Context
	for {
		g.fill(b)
		if b.full {
			return b, nil
		}
		if within == nil {
			limited, cancel := context.WithTimeout(passed, rule.MaxWait)
			defer cancel()
			within = limited
		}
		claims, err := g.r.claim(within, g.s, rule.MaxEvents-b.len(), nil)
		if err != nil {
			return nil, err
		}
		if len(claims) == 0 {
			return b, nil
		}
		g.rest, g.taken = claims, time.Now()
	}
}

// fill moves claims of the rest into b: one that goes alone, or else as many as fit.
func (g *gathering) fill(b *batch) {
	if b.len() == 0 {
		if i := slices.IndexFunc(g.rest, goesAlone); i >= 0 {
			g.put(b, &g.rest[i])
			g.rest, b.full = slices.Delete(g.rest, i, i+1), true
			return
		}
	}
	var left []outbox.Claim
	b.claims = slices.Grow(b.claims, len(g.rest))
	for i := range g.rest {
		if goesAlone(g.rest[i]) {
			left = append(left, g.rest[i])
		} else if !g.put(b, &g.rest[i]) {
			left = append(left, g.rest[i:]...)
			break
		}
	}
	g.rest = left
	b.full = b.full || len(left) > 0
}

// goesAlone reports whether the delivery must go alone, because a batch with it was refused.
func goesAlone(c outbox.Claim) bool { return c.Code == codeBatchRefused }

// put adds an event to b, and returns false when it does not fit.
func (g *gathering) put(b *batch, c *outbox.Claim) bool {
	rule := g.s.endpoint.Batch
	if b.full {
		return false
	}
	if b.draft == nil {
		b.draft = g.r.d.drafts.Get().(*draft)
		b.draft.body, b.draft.meter = b.draft.body[:0], policy.Meter{}
	}
	before := len(b.draft.body)
	f := g.r.add(b.draft, g.s.endpoint, c)
	size := int64(len(b.draft.body)) + 1
	switch {
	case f != nil:
		b.draft.body = b.draft.body[:before]
		b.broken = append(b.broken, broken{*c, f})
	case len(b.claims) > 0 && size > rule.MaxBytes:
		b.draft.body = b.draft.body[:before]
		return false
	default:
		b.claims = append(b.claims, *c)
	}
	b.full = size >= rule.MaxBytes || b.len() == rule.MaxEvents || b.draft.took(g.s.endpoint.Budget.Body)
	return true
}

// add is draft.add with the error as a failed attempt. A panic concerns one event only, as in
// try.
func (r *runner) add(d *draft, e *policy.Endpoint, c *outbox.Claim) (f *post.Failure) {
	defer func() {
		if p := recover(); p != nil {
			f = r.panicked(c, p)
		}
	}()
	return bodyFailure(d.add(e, c))
}

// launch begins the attempt of a batch, if the gate allows it, and settles the events that have
// no body.
func (r *runner) launch(s *setup, b *batch) {
	n, probe, live := r.admit(s, 1, min(len(b.claims), 1))
	if n == 1 {
		r.d.begin(job{r: r, s: s, claims: b.claims, draft: b.draft, probe: probe})
	} else if b.draft != nil {
		r.release(b.claims...)
		r.keep(s, b.draft)
	}
	for _, x := range b.broken {
		if !live {
			r.release(x.claim) // the endpoint may have another body by now
			continue
		}
		r.d.work.Go(func() {
			res := Result{Attempt: outbox.Attempt{Started: r.d.at(time.Now()).UTC()}}
			r.conclude(s, []outbox.Claim{x.claim}, &res, &ending{failure: x.failure, gate: gate.Attempt{Code: x.failure.Code}})
		})
	}
}

// add appends the event of c to the body of a batch, after those already in it.
func (d *draft) add(e *policy.Endpoint, c *outbox.Claim) error {
	switch {
	case len(d.body) == 0 && e.Batch.NDJSON:
	case len(d.body) == 0:
		d.body = append(d.body, '[')
	case e.Batch.NDJSON:
		d.body = append(d.body, '\n')
	default:
		d.body = append(d.body, ',')
	}
	start := len(d.body)
	if err := d.appendBody(e, c); err != nil {
		return err
	}
	if e.Batch.NDJSON && e.Body != nil {
		oneLine(d.body[start:])
	}
	return nil
}

// oneLine replaces line ends by spaces. In JSON they can stand only between tokens.
func oneLine(text []byte) {
	for {
		i := bytes.IndexAny(text, "\r\n")
		if i < 0 {
			return
		}
		text[i] = ' '
		text = text[i+1:]
	}
}

// seal ends the body of a batch and makes its header.
func (d *draft) seal(e *policy.Endpoint, claims []outbox.Claim, url, userAgent string, now time.Time) {
	if e.Batch.NDJSON {
		d.body = append(d.body, '\n')
	} else {
		d.body = append(d.body, ']')
	}
	id := batchID(claims)
	d.message = sign.Message{EventID: id, EventType: batchType, DeliveryID: id}
	for i := range claims {
		d.message.Attempt = max(d.message.Attempt, claims[i].Attempts+1)
	}
	d.address(e, url, userAgent, now)
}

// batchType replaces the event's type in signatures and headers of a batch.
const batchType = "batch"

// batchID is the same for the same deliveries in the same order.
func batchID(claims []outbox.Claim) string {
	h := sha256.New()
	for i := range claims {
		_, _ = io.WriteString(h, claims[i].ID+"\n") // a Hash returns no error
	}
	return "bat_" + hex.EncodeToString(h.Sum(nil)[:16])
}

// judgement is the outcome of an attempt, for each of its deliveries.
type judgement struct {
	outcome    Outcome
	code, text string
	alone      bool // each is due at once, for an attempt of its own
}

// judge judges an attempt with n deliveries: by the status of its answer or, without an answer,
// by the reason. The answer's body has no influence; an incomplete body is only recorded.
func judge(e *policy.Endpoint, n int, end *ending) judgement {
	var j judgement
	if f := end.failure; f != nil {
		j.text = e.Hush(f.Text)
		j.outcome, j.code = classify(end.answer.Status, f.Code, e.Retry.On)
		return j
	}
	j.text = answerText(end.answer.Status)
	j.outcome, j.code = classify(end.answer.Status, "", e.Retry.On)
	if e.Batch != nil && j.outcome == Refused {
		switch {
		case !e.Batch.Split:
			j.outcome = Retry
		case n > 1:
			j = judgement{Retry, codeBatchRefused, fmt.Sprintf("%s; each of the batch's %d events goes alone next", j.text, n), true}
		}
	}
	switch cut := end.answer.BodyFault; {
	case cut == nil:
	case j.outcome == Delivered:
		j.code, j.text = cut.Code, e.Hush(cut.Text)
	default:
		j.text = fmt.Sprintf("%s (%s: %s)", j.text, cut.Code, e.Hush(cut.Text))
	}
	return j
}
