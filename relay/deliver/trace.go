package deliver

import (
	"time"

	"relay/internal/trace"
	"relay/outbox"
	"relay/policy"
	"relay/policy/sign"
)

// contextOf is the trace context of the next attempt of c: a span below the accept's if the
// attempt is recorded, else what was kept with the event. The zero Context stands for none.
func (d *Deliverer) contextOf(c *outbox.Claim) trace.Context {
	if c.Event.Trace == "" {
		return trace.Context{}
	}
	kept := trace.Parse(c.Event.Trace)
	if d.o.Trace == nil || !kept.Sampled() {
		return kept
	}
	return kept.Attempt(c.ID, c.Attempts+1)
}

// appendTrace appends the headers of the trace context that the endpoint's requests carry. A batch
// carries one only if all its events belong to one trace.
func (d *Deliverer) appendTrace(h []sign.Header, e *policy.Endpoint, claims []outbox.Claim) []sign.Header {
	if !e.PropagateTrace {
		return h
	}
	first := d.contextOf(&claims[0])
	for i := range claims[1:] {
		if d.contextOf(&claims[1+i]).Trace != first.Trace {
			return h
		}
	}
	if first.Trace == (trace.ID{}) || indexOf(h, "traceparent") >= 0 {
		return h
	}
	h = append(h, sign.Header{Name: "traceparent", Value: first.Parent()})
	if first.State != "" {
		h = append(h, sign.Header{Name: "tracestate", Value: first.State})
	}
	return h
}

// record adds the span of an attempt that just ended, if the event's trace is sampled. batch is how
// many deliveries the attempt had.
func (d *Deliverer) record(c *outbox.Claim, res *Result, batch int) {
	if d.o.Trace == nil || c.Event.Trace == "" {
		return
	}
	kept := trace.Parse(c.Event.Trace)
	if !kept.Sampled() {
		return
	}
	a := &res.Attempt
	end := time.Now() // by this machine's clock, as in the span of the accept
	start := end.Add(-a.Took)
	s := &trace.Span{
		Context: kept.Attempt(c.ID, a.N), Parent: kept.Span,
		Name: "attempt", Kind: trace.Client, Start: start, End: end,
		Events: phases(start, a.Timing),
		Failed: res.Attempt.Outcome != string(Delivered), Error: a.Error,
		Attributes: []trace.Attribute{
			{Key: "relay.event.id", Text: c.EventID},
			{Key: "relay.event.type", Text: c.Event.Type},
			{Key: "relay.endpoint", Text: c.Endpoint},
			{Key: "relay.delivery.id", Text: c.ID},
			{Key: "relay.attempt", Number: int64(a.N)},
			{Key: "relay.outcome", Text: a.Outcome},
			{Key: "relay.state", Text: string(res.State)},
			{Key: "relay.batch.events", Number: int64(batch)},
			{Key: "http.request.method", Text: "POST"},
		},
	}
	add := func(key, text string, number int64) {
		if text != "" || number != 0 {
			s.Attributes = append(s.Attributes, trace.Attribute{Key: key, Text: text, Number: number})
		}
	}
	add("http.response.status_code", "", int64(a.Status))
	add("error.type", a.Code, 0)
	add("network.peer.address", a.Peer, 0)
	d.o.Trace.Add(s)
}

// phases are the moments at which the parts of an attempt ended. One that did not occur, like the
// dial of a reused connection, has none.
func phases(start time.Time, t outbox.Timing) []trace.Event {
	var all []trace.Event
	at := start
	for _, p := range []struct {
		name string
		took time.Duration
	}{{"dns", t.DNS}, {"connect", t.Connect}, {"tls", t.TLS}, {"first_byte", t.FirstByte}} {
		if p.took > 0 {
			at = at.Add(p.took)
			all = append(all, trace.Event{Name: p.name, At: at})
		}
	}
	return all
}
