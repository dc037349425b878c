package ingest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"relay/ingest/listen"
	"relay/internal/trace"
	"relay/internal/trace/tracetest"
	"relay/outbox"
	"relay/outbox/outboxtest"
)

const (
	fromApp   = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	fromEvent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	notTraced = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
)

// TestTraceIsKept without spans: the context of the request, or of a CloudEvent, is kept as it
// came, if an endpoint propagates it.
func TestTraceIsKept(t *testing.T) {
	cloud := func(context string) string {
		return fmt.Sprintf(`{"specversion":"1.0","id":"1","source":"/s","type":"invoice.paid"%s}`, context)
	}
	for _, tt := range []struct {
		name    string
		request Request
		want    string
	}{
		{"header", Request{TraceParent: fromApp, TraceState: "app=1"}, fromApp + " app=1"},
		{"none", Request{}, ""},
		{"invalid", Request{TraceParent: "00-0", TraceState: "app=1"}, ""},
		{"CloudEvent", Request{TraceParent: fromApp, ContentType: "application/cloudevents+json", Body: []byte(cloud(`,"traceparent":"` + fromEvent + `","tracestate":"x=2"`))}, fromEvent + " x=2"},
		{"CloudEvent with an invalid one", Request{TraceParent: fromApp, ContentType: "application/cloudevents+json", Body: []byte(cloud(`,"traceparent":"x"`))}, fromApp},
		{"CloudEvent without", Request{TraceParent: fromApp, ContentType: "application/cloudevents+json", Body: []byte(cloud(""))}, fromApp},
		{"binary CloudEvent", Request{Attributes: []Attribute{{"specversion", "1.0"}, {"id", "1"}, {"source", "/s"}, {"type", "invoice.paid"}, {"traceparent", fromEvent}}}, fromEvent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, keep := range []bool{true, false} {
				in, rec, _ := newIngest(t, Options{KeepTrace: func() bool { return keep }})
				r := tt.request
				r.Method, r.Path = "POST", "/v1/events"
				if r.ContentType == "" {
					r.ContentType = "application/json"
				}
				if r.Body == nil && r.Attributes == nil {
					r.Body = []byte(`{"type":"invoice.paid","data":{}}`)
				}
				if res := in.Handle(t.Context(), &r); res.Status != 202 {
					t.Fatalf("%d %s", res.Status, res.Body)
				}
				want := tt.want
				if !keep {
					want = ""
				}
				if got := rec.batches[0].Entries[0].Event.Trace; got != want {
					t.Errorf("keep %v: kept %q, want %q", keep, got, want)
				}
			}
		})
	}
}

// tracing is an Ingest whose spans a collector gets at stop.
func tracing(t *testing.T, sample float64) (in *Ingest, rec *recorder, faulty *outboxtest.Faulty, stop func() []tracetest.Span) {
	t.Helper()
	c := tracetest.Start(t)
	tr := trace.New(trace.Options{URL: c.URL, Sample: sample})
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { tr.Run(ctx) })
	in, rec, faulty = newIngest(t, Options{Trace: tr})
	return in, rec, faulty, func() []tracetest.Span { cancel(); run.Wait(); return c.Spans() }
}

// TestAcceptSpans: one span for a request, below the app's, and what is kept is the span's own
// context, so that attempts are below it.
func TestAcceptSpans(t *testing.T) {
	in, rec, _, stop := tracing(t, 0)
	r := post("/v1/events", "application/x-ndjson", strings.Repeat(`{"type":"invoice.paid","data":{}}`+"\n", 3))
	r.TraceParent, r.TraceState = fromApp, "app=1"
	if res := in.Handle(t.Context(), r); res.Status != 202 {
		t.Fatalf("%d %s", res.Status, res.Body)
	}
	r.TraceParent = notTraced
	in.Handle(t.Context(), r)
	r.TraceParent, r.TraceState = "", ""
	in.Handle(t.Context(), r) // the sample is 0
	spans := stop()
	if len(spans) != 1 {
		t.Fatalf("%d spans: %+v", len(spans), spans)
	}
	s := spans[0]
	if s.Name != "accept" || s.Trace != fromApp[3:35] || s.Above != fromApp[36:52] || s.State != "app=1" || s.Failed || s.Took <= 0 {
		t.Errorf("%+v", s)
	}
	first := rec.batches[0].Entries
	for key, want := range map[string]string{
		"relay.event.id": first[0].Event.ID, "relay.event.type": "invoice.paid", "relay.events": "3",
		"relay.deliveries": fmt.Sprint(3 * len(first[0].Endpoints)), "relay.duplicates": "0", "http.response.status_code": "202",
	} {
		if s.Attributes[key] != want {
			t.Errorf("%s is %q, want %q", key, s.Attributes[key], want)
		}
	}
	for i, want := range []string{s.Parent + " app=1", notTraced + " app=1", ""} {
		for _, e := range rec.batches[i].Entries {
			if e.Event.Trace != want {
				t.Errorf("request %d: kept %q, want %q", i, e.Event.Trace, want)
			}
		}
	}
}

// TestEventsOfOtherTraces: CloudEvents with a context of their own have a span each, the others of
// the batch one.
func TestEventsOfOtherTraces(t *testing.T) {
	in, rec, _, stop := tracing(t, 1)
	one := func(id, more string) string {
		return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/s","type":"invoice.paid"%s}`, id, more)
	}
	own := `,"traceparent":"` + fromEvent + `"`
	body := "[" + strings.Join([]string{one("a", ""), one("b", own), one("c", `,"traceparent":"`+notTraced+`"`), one("d", ""), one("e", own)}, ",") + "]"
	if res := in.Handle(t.Context(), post("/v1/events", "application/cloudevents-batch+json", body)); res.Status != 202 {
		t.Fatalf("%d %s", res.Status, res.Body)
	}
	spans := stop()
	if len(spans) != 3 {
		t.Fatalf("%d spans: %+v", len(spans), spans)
	}
	shared, b, e := spans[0], spans[1], spans[2]
	if shared.Above != "" || shared.Attributes["relay.events"] != "2" || b.Above != fromEvent[36:52] || e.Trace != fromEvent[3:35] || b.ID == e.ID {
		t.Errorf("%+v", spans)
	}
	for i, want := range []string{shared.Parent, b.Parent, notTraced, shared.Parent, e.Parent} {
		if got := rec.batches[0].Entries[i].Event.Trace; got != want {
			t.Errorf("event %d: kept %q, want %q", i, got, want)
		}
	}
}

// TestSpanOfARefusal says why.
func TestSpanOfARefusal(t *testing.T) {
	in, _, faulty, stop := tracing(t, 1)
	faulty.Fail("Accept", outbox.ErrFull, 1)
	if res := in.Handle(t.Context(), postJSON("/v1/events", `{"type":"invoice.paid","data":{}}`)); res.Status != 507 {
		t.Fatalf("%d %s", res.Status, res.Body)
	}
	if spans := stop(); len(spans) != 1 || !spans[0].Failed || spans[0].Attributes["error.type"] != "outbox_full" || spans[0].Attributes["http.response.status_code"] != "507" {
		t.Errorf("%+v", spans)
	}
}

// TestRepeatInAnotherTrace is a repeat all the same.
func TestRepeatInAnotherTrace(t *testing.T) {
	in, _, _, stop := tracing(t, 1)
	for i, parent := range []string{fromApp, fromEvent} {
		r := postJSON("/v1/events", `{"id":"app-1","type":"invoice.paid","data":{}}`)
		r.TraceParent, r.IdempotencyKey = parent, []string{"k"}
		res := in.Handle(t.Context(), r)
		if a := decodeAnswer(t, res.Body); res.Status != 202 || a.Duplicate != (i == 1) {
			t.Fatalf("%d %s", res.Status, res.Body)
		}
	}
	if spans := stop(); len(spans) != 2 || spans[0].Attributes["relay.duplicates"] != "0" || spans[1].Attributes["relay.duplicates"] != "1" {
		t.Errorf("%+v", spans)
	}
}

// TestTraceHeaders over a connection: lines of tracestate are one list, and several traceparents are
// none (W3C Trace Context, sections 3.2 and 3.3).
func TestTraceHeaders(t *testing.T) {
	in, rec, _ := newIngest(t, Options{KeepTrace: func() bool { return true }})
	w := dial(t, "tcp", serveTCP(t, in, listen.Guard{}))
	with := func(lines ...string) string {
		return strings.Replace(withLength("1"), "Content-Length", strings.Join(lines, "\r\n")+"\r\nContent-Length", 1)
	}
	for i, tt := range []struct{ request, want string }{
		{with("TraceParent: "+fromApp, "tracestate: a=1", "X: y", "Tracestate: b=2"), fromApp + " a=1,b=2"},
		{with("traceparent: "+fromApp, "traceparent: "+fromEvent), ""},
		{with("tracestate: a=1"), ""},
		{withLength("1"), ""}, // nothing is left of the request before
	} {
		w.send(tt.request)
		if res, body := w.read(); res.StatusCode != 202 {
			t.Fatalf("answer %d: %d %s", i, res.StatusCode, body)
		}
		if got := rec.batches[i].Entries[0].Event.Trace; got != tt.want {
			t.Errorf("request %d: kept %q, want %q", i, got, tt.want)
		}
	}
}
