package ingest

import (
	"time"

	"relay/ingest/problem"
	"relay/internal/trace"
	"relay/outbox"
)

// acceptSpan is the span of an accept, and the entries in it.
type acceptSpan struct {
	trace.Span
	entries []int
}

// traced reports whether the trace contexts of requests are kept.
func (in *Ingest) traced() bool {
	return in.o.Trace != nil || in.o.KeepTrace != nil && in.o.KeepTrace()
}

// follow gives each event the trace context that is kept with it, and begins the spans of the
// accept. A CloudEvent with a context of its own belongs to that trace and not to the request's,
// because it says where the event occurred.
func (in *Ingest) follow(entries []outbox.Entry, r *Request, began time.Time) []*acceptSpan {
	if !in.traced() {
		for i := range entries {
			entries[i].Event.Trace = ""
		}
		return nil
	}
	above := trace.Kept(r.TraceParent, r.TraceState)
	var spans []*acceptSpan
	var shared *acceptSpan // of the events without a context of their own
	for i := range entries {
		e := &entries[i].Event
		own := e.Trace != ""
		if !own {
			e.Trace = above
		}
		if in.o.Trace == nil {
			continue
		}
		s := shared
		if own || s == nil {
			s = in.begin(e.Trace, began)
			if !own {
				shared = s
			}
			if s.Context.Sampled() {
				spans = append(spans, s)
			}
		}
		if s.Context.Sampled() {
			e.Trace = s.Context.Keep()
			s.entries = append(s.entries, i)
		}
	}
	return spans
}

func (in *Ingest) begin(above string, began time.Time) *acceptSpan {
	s := &acceptSpan{Span: trace.Span{Name: "accept", Kind: trace.Server, Start: began}}
	s.Context, s.Parent = in.o.Trace.Begin(above)
	return s
}

// record ends the spans of an accept, which p refused unless it is nil.
func (in *Ingest) record(spans []*acceptSpan, entries []outbox.Entry, receipts []outbox.Receipt, p *problem.Problem) {
	for _, s := range spans {
		s.End = time.Now()
		first := s.entries[0]
		s.Attributes = append(s.Attributes,
			trace.Attribute{Key: "relay.event.id", Text: entries[first].Event.ID},
			trace.Attribute{Key: "relay.event.type", Text: entries[first].Event.Type},
			trace.Attribute{Key: "relay.events", Number: int64(len(s.entries))})
		status := int64(202)
		if p != nil {
			status = int64(p.Status)
			s.Failed, s.Error = p.Status >= 500, string(p.Code)
			s.Attributes = append(s.Attributes, trace.Attribute{Key: "error.type", Text: string(p.Code)})
		} else {
			deliveries, repeated := 0, 0
			for _, i := range s.entries {
				deliveries += receipts[i].Deliveries
				if receipts[i].Duplicate {
					repeated++
				}
			}
			s.Attributes = append(s.Attributes,
				trace.Attribute{Key: "relay.deliveries", Number: int64(deliveries)},
				trace.Attribute{Key: "relay.duplicates", Number: int64(repeated)})
		}
		s.Attributes = append(s.Attributes, trace.Attribute{Key: "http.response.status_code", Number: status})
		in.o.Trace.Add(&s.Span)
	}
}
