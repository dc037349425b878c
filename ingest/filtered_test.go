package ingest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"relay/config"
	"relay/outbox"
	"relay/policy"
)

// termed is an outbox that answers as one that keeps no marks: what has one is not made.
type termed struct {
	nowhere
	batch outbox.Batch
}

func (o *termed) Accept(_ context.Context, b outbox.Batch) ([]outbox.Receipt, error) {
	o.batch = b
	var receipts []outbox.Receipt
	for _, e := range b.Entries {
		made := len(e.Endpoints)
		for _, t := range e.Terms {
			if t.Mark != nil {
				made--
			}
		}
		receipts = append(receipts, outbox.Receipt{ID: e.Event.ID, Deliveries: made})
	}
	return receipts, nil
}

// The outbox gets the endpoints whose filters let an event through, with their terms, and the
// answer counts what the outbox made.
func TestFilteredEvents(t *testing.T) {
	const each = "  url  = \"https://example.com/\"\n  sign = [\"none\"]\n}\n"
	file, err := config.Parse("relay.hcl", []byte(
		"endpoint \"acme\" {\n  events  = [\"a\"]\n  tenants = [\"acme\"]\n"+each+
			"endpoint \"big\" {\n  events  = [\"a\"]\n  when = event.data.n > 10\n"+each+
			"endpoint \"once\" {\n  events  = [\"a\"]\n  dedupe {\n    by     = event.key\n    window = \"10m\"\n  }\n"+each), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	var store termed
	in := New(Options{
		Outbox: &store, Strict: true, Log: zerolog.Nop(),
		Route: p.Route,
	})
	for _, c := range []struct {
		event  string
		want   []string // endpoint, and its term
		answer string
	}{
		{`{"type":"a","tenant":"acme","key":"k","data":{"n":11}}`, []string{"acme", "big", "once 1 10m0s"}, `"deliveries":2`},
		{`{"type":"a","key":"k","data":{"n":1}}`, []string{"once 1 10m0s"}, `"deliveries":0`},
		{`{"type":"a","tenant":"acme","data":{}}`, []string{"acme", "big when_error", "once when_error"}, `"deliveries":3`},
		{`{"type":"b","data":{}}`, nil, `"code":"no_endpoint"`},
	} {
		store.batch = outbox.Batch{}
		r := in.Handle(t.Context(), &Request{Method: "POST", Path: "/v1/events", ContentType: "application/json", Body: []byte(c.event)})
		var got []string
		for _, e := range store.batch.Entries {
			for i, name := range e.Endpoints {
				if e.Terms != nil && e.Terms[i].Code != "" {
					name += " " + e.Terms[i].Code
				}
				if e.Terms != nil && e.Terms[i].Mark != nil {
					name += fmt.Sprintf(" %d %s", e.Terms[i].Mark.Level, e.Terms[i].Mark.For)
				}
				got = append(got, name)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" || !strings.Contains(string(r.Body), c.answer) {
			t.Errorf("%s: %s; -want +got:\n%s", c.event, r.Body, diff)
		}
	}
	// What is left out by filters is accepted, also where nobody else wants it.
	only := policy.New([]*policy.Endpoint{p.Endpoint("acme")})
	in = New(Options{
		Outbox: &store, Strict: true, Log: zerolog.Nop(),
		Route: only.Route,
	})
	r := in.Handle(t.Context(), &Request{Method: "POST", Path: "/v1/events", ContentType: "application/json", Body: []byte(`{"type":"a","data":1}`)})
	if r.Status != 202 || !strings.Contains(string(r.Body), `"deliveries":0`) {
		t.Errorf("left out: %d %s", r.Status, r.Body)
	}
}

// repeated is an outbox that knows every event already.
type repeated struct{ termed }

func (o *repeated) Accept(ctx context.Context, b outbox.Batch) ([]outbox.Receipt, error) {
	receipts, err := o.termed.Accept(ctx, b)
	for i := range receipts {
		receipts[i].Duplicate = true
	}
	return receipts, err
}

// A delivery that a filter fails has its line in the log, once and without data.
func TestFailedDeliveriesAreTold(t *testing.T) {
	route := func(*outbox.Event) ([]string, []outbox.Term) {
		return []string{"a", "b", "c"}, []outbox.Term{{}, {Code: "when_error", Error: "relay.hcl:7,3-20: no amount"}, {Mark: &outbox.Mark{}}}
	}
	for store, want := range map[Appender]int{&termed{}: 1, &repeated{}: 0} {
		var said strings.Builder
		in := New(Options{Outbox: store, Route: route, Log: zerolog.New(&said)})
		wantAccepted(t, in.Handle(t.Context(), postJSON("/v1/events/invoice.paid", `{"amount":"canary"}`)))
		if n := strings.Count(said.String(), `"level":"warn"`); n != want || strings.Contains(said.String(), "canary") {
			t.Errorf("%d lines, want %d:\n%s", n, want, said.String())
		}
		if want > 0 && !strings.Contains(said.String(), `"endpoint":"b","event_id":"evt_`) || want > 0 && !strings.Contains(said.String(), `"state":"failed","code":"when_error","error":"relay.hcl:7,3-20: no amount"`) {
			t.Errorf("the line is %s", said.String())
		}
	}
}
