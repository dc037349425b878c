package deliver

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/internal/trace"
	"relay/internal/trace/tracetest"
	"relay/outbox"
	"relay/policy"
	"relay/policy/sign"
)

const (
	fromApp   = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	notTraced = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
)

func tracedClaim(id, kept string) outbox.Claim {
	return outbox.Claim{
		Delivery: outbox.Delivery{ID: id, EventID: "evt_" + id, Endpoint: "billing", Attempts: 1},
		Event:    &outbox.Event{ID: "evt_" + id, Type: "invoice.paid", Trace: kept},
	}
}

// TestPropagatedTrace: a recorded trace goes on below the attempt, another one as it came.
func TestPropagatedTrace(t *testing.T) {
	attempt := trace.Parse(fromApp).Attempt("dlv_1", 2).Parent()
	tracer := trace.New(trace.Options{URL: "http://127.0.0.1:1"})
	one, same, other := tracedClaim("dlv_1", fromApp+" app=1"), tracedClaim("dlv_2", fromApp), tracedClaim("dlv_3", notTraced)
	for _, tt := range []struct {
		name   string
		tracer *trace.Tracer
		claims []outbox.Claim
		own    []sign.Header
		want   string
	}{
		{"recorded", tracer, []outbox.Claim{one}, nil, "traceparent=" + attempt + " tracestate=app=1"},
		{"not recorded here", nil, []outbox.Claim{one}, nil, "traceparent=" + fromApp + " tracestate=app=1"},
		{"not sampled", tracer, []outbox.Claim{other}, nil, "traceparent=" + notTraced},
		{"none", tracer, []outbox.Claim{tracedClaim("dlv_1", "")}, nil, ""},
		{"a batch of one trace", tracer, []outbox.Claim{one, same}, nil, "traceparent=" + attempt + " tracestate=app=1"},
		{"a batch of several", tracer, []outbox.Claim{one, other}, nil, ""},
		{"a batch of one trace and of none", tracer, []outbox.Claim{one, tracedClaim("dlv_4", "")}, nil, ""},
		{"the endpoint's own header", tracer, []outbox.Claim{one}, []sign.Header{{Name: "Traceparent", Value: "x"}}, "Traceparent=x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := New(Options{Source: settled{}, Trace: tt.tracer}, &policy.Policy{})
			for _, on := range []bool{true, false} {
				e := &policy.Endpoint{PropagateTrace: on}
				var got []string
				for _, h := range d.appendTrace(slices.Clone(tt.own), e, tt.claims) {
					got = append(got, h.Name+"="+h.Value)
				}
				want := tt.want
				if !on && tt.own == nil {
					want = ""
				}
				if text := strings.Join(got, " "); text != want {
					t.Errorf("propagate_trace %v: %q, want %q", on, text, want)
				}
			}
		})
	}
}

// TestAttemptSpans records attempts that succeed and fail, of events in traces that are sampled.
func TestAttemptSpans(t *testing.T) {
	c := tracetest.Start(t)
	tracer := trace.New(trace.Options{URL: c.URL})
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { tracer.Run(ctx) })
	d := New(Options{Source: settled{}, Trace: tracer}, &policy.Policy{})

	one, other, none := tracedClaim("dlv_1", fromApp+" app=1"), tracedClaim("dlv_2", notTraced), tracedClaim("dlv_3", "")
	failed := &Result{State: outbox.Pending, Attempt: outbox.Attempt{
		N: 2, Took: time.Second, Status: 503, Outcome: "retry", Code: "http_503", Error: "the receiver answered 503", Peer: "192.0.2.1:443",
		Timing: outbox.Timing{DNS: time.Millisecond, Connect: time.Millisecond, TLS: time.Millisecond, FirstByte: time.Millisecond}}}
	good := &Result{State: outbox.Delivered, Attempt: outbox.Attempt{N: 3, Took: time.Second, Status: 200, Outcome: "delivered", Timing: outbox.Timing{FirstByte: time.Millisecond}}}
	for _, claim := range []outbox.Claim{one, other, none} {
		d.record(&claim, failed, 1)
	}
	d.record(&one, good, 7)
	cancel()
	run.Wait()

	attempt := func(n int) trace.Context { return trace.Parse(fromApp).Attempt("dlv_1", n) }
	want := []tracetest.Span{{
		Parent: attempt(2).Parent(), Name: "attempt", Events: []string{"dns", "connect", "tls", "first_byte"}, Failed: true,
		Attributes: map[string]string{
			"relay.event.id": "evt_dlv_1", "relay.event.type": "invoice.paid", "relay.endpoint": "billing", "relay.delivery.id": "dlv_1", "relay.attempt": "2",
			"relay.outcome": "retry", "relay.state": "pending", "relay.batch.events": "1", "http.request.method": "POST", "http.response.status_code": "503",
			"error.type": "http_503", "network.peer.address": "192.0.2.1:443"},
	}, {
		Parent: attempt(3).Parent(), Name: "attempt", Events: []string{"first_byte"},
		Attributes: map[string]string{
			"relay.event.id": "evt_dlv_1", "relay.event.type": "invoice.paid", "relay.endpoint": "billing", "relay.delivery.id": "dlv_1", "relay.attempt": "3",
			"relay.outcome": "delivered", "relay.state": "delivered", "relay.batch.events": "7", "http.request.method": "POST", "http.response.status_code": "200"},
	}}
	for i := range want {
		want[i].Trace, want[i].ID, want[i].Above, want[i].State, want[i].Took = fromApp[3:35], want[i].Parent[36:52], fromApp[36:52], "app=1", time.Second
	}
	if diff := cmp.Diff(want, c.Spans()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
