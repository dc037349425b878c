package ingest

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relay/config"
	"relay/policy"
)

// declared is a policy of event types.
func declared(t *testing.T, types string) *policy.Policy {
	t.Helper()
	f, err := config.Parse("relay.hcl", []byte("log {}\n"+types), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTypesAreChecked(t *testing.T) {
	p := declared(t, `
event_type "invoice.paid" {
  schema = jsonencode({ required = ["amount"], properties = { amount = { type = "integer" } } })
}
event_type "free" {}
event_type "nobody.wants" {}
`)
	event := func(eventType, data string) string { return `{"type":"` + eventType + `","data":` + data + `}` }
	lines := func(events ...string) *Request {
		return post("/v1/events", "application/x-ndjson", strings.Join(events, "\n"))
	}
	for name, c := range map[string]struct {
		r       *Request
		lenient int // status without strict
		strict  string
		want    answer
	}{
		"fits":                {r: postJSON("/v1/events/invoice.paid", `{"amount":1}`), lenient: 202},
		"does not fit":        {r: postJSON("/v1/events/invoice.paid", `{"amount":"canary"}`), lenient: 422, strict: "schema_mismatch", want: answer{Pointer: "/amount", Keyword: "type", Field: "data"}},
		"lacks a field":       {r: postJSON("/v1/events", event("invoice.paid", "{}")), lenient: 422, strict: "schema_mismatch", want: answer{Keyword: "required", Field: "data"}},
		"CloudEvent":          {r: post("/v1/events", cloudType, strings.Replace(cloud(`,"data":{}`), "order.made", "invoice.paid", 1)), lenient: 422, strict: "schema_mismatch", want: answer{Keyword: "required", Field: "data"}},
		"no schema":           {r: postJSON("/v1/events/free", `{"amount":"x"}`), lenient: 202},
		"unknown":             {r: postJSON("/v1/events/invoice.piad", "{}"), lenient: 202, strict: "unknown_type", want: answer{Field: "type"}},
		"nobody wants it":     {r: postJSON("/v1/events/nobody.wants", "{}"), lenient: 202, strict: "no_endpoint", want: answer{Field: "type"}},
		"second of a batch":   {r: lines(event("free", "1"), event("invoice.paid", "{}")), lenient: 422, strict: "schema_mismatch", want: answer{Keyword: "required", Field: "data", Index: new(1)}},
		"unknown in a batch":  {r: lines(event("other", "1"), event("free", "1")), lenient: 202, strict: "unknown_type", want: answer{Field: "type", Index: new(0)}},
		"Relay's own is none": {r: postJSON("/v1/events/relay.x", "{}"), lenient: 400, strict: "invalid_type", want: answer{Field: "type"}},
	} {
		for _, strict := range []bool{false, true} {
			in, rec, _ := newIngest(t, Options{Type: p.Type, Strict: strict})
			res := in.Handle(t.Context(), c.r)
			if strict && c.strict == "" || !strict && c.lenient == 202 {
				wantAccepted(t, res)
				continue
			}
			status := c.lenient
			if status == 202 {
				status = 422
			}
			a := wantProblem(t, res, status, c.strict)
			if a.Pointer != c.want.Pointer || a.Keyword != c.want.Keyword || a.Field != c.want.Field || (a.Index == nil) != (c.want.Index == nil) || a.Index != nil && *a.Index != *c.want.Index {
				t.Errorf("%s: %s", name, res.Body)
			}
			if strings.Contains(string(res.Body), "canary") {
				t.Errorf("%s: the answer shows the data: %s", name, res.Body)
			}
			if len(rec.entries()) > 0 {
				t.Errorf("%s: it reached the outbox", name)
			}
		}
	}
}

// Where no type is declared, strict is about endpoints only.
func TestStrictWithoutTypes(t *testing.T) {
	in, _, _ := newIngest(t, Options{Type: declared(t, "").Type, Strict: true})
	wantAccepted(t, in.Handle(t.Context(), postJSON("/v1/events/anything", "{}")))
	wantProblem(t, in.Handle(t.Context(), postJSON("/v1/events/nobody", "{}")), 422, "no_endpoint")
}

// Checks of long data wait for each other, but not for longer than an app waits for its answer.
func TestChecksWaitInVainForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := declared(t, `event_type "long" {
  schema = jsonencode({ type = "string" })
}`)
		in, rec, _ := newIngest(t, Options{Type: p.Type})
		for range cap(in.checks) {
			in.checks <- struct{}{}
		}
		long := postJSON("/v1/events/long", `"`+strings.Repeat("x", smallCheck)+`"`)
		began := time.Now()
		res := in.Handle(t.Context(), long)
		wantProblem(t, res, 503, "overloaded")
		if took := time.Since(began); took >= acceptTimeout || len(rec.entries()) > 0 {
			t.Errorf("it took %s, and %d events were accepted", took, len(rec.entries()))
		}
		<-in.checks
		wantAccepted(t, in.Handle(t.Context(), long))
	})
}
