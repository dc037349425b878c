package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relay/ingest/problem"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/relay/deliver"
)

// An event of one tenant is not sent to an endpoint of another by hand, one by one or as a job.
func TestRedeliveryToAnotherTenant(t *testing.T) {
	h := newHouse(t)
	acme := h.delivery["acme"]
	said := func(status int, path, body string) (p problem.Problem) {
		t.Helper()
		w := h.as(nil, "POST", path, body)
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != status {
			t.Errorf("%s %s: %d %s", path, body, w.Code, w.Body)
		}
		return p
	}
	for _, c := range []struct{ path, body, detail string }{
		{"/v1/deliveries/" + acme + "/redeliver", `{"to":"of-beta"}`, `endpoint of-beta is for events of these tenants alone: beta; and this event is of "acme"`},
		{"/v1/redeliveries", `{"to":"of-beta","endpoint":"of-acme","state":"failed"}`, "beta; so name tenant in the filter"},
		{"/v1/redeliveries", `{"to":"of-beta","tenant":["beta","acme"],"state":"failed"}`, `beta; and the filter names "acme"`},
		{"/v1/redeliveries", `{"to":"of-beta","tenant":"acme","dry_run":true}`, `and the filter names "acme"`},
	} {
		if p := said(409, c.path, c.body); p.Code != problem.OtherTenant || p.Field != "to" || !strings.Contains(p.Detail, c.detail) {
			t.Errorf("%s %s: %+v", c.path, c.body, p)
		}
	}
	said(202, "/v1/deliveries/"+acme+"/redeliver", `{"to":"fixed"}`)
	said(202, "/v1/deliveries/"+acme+"/redeliver", `{"to":"of-acme"}`)
	said(202, "/v1/redeliveries", `{"to":"of-beta","tenant":"beta","state":"failed"}`)

	// An endpoint that takes other types by itself gets the event, and the answer says so.
	h.ok("PATCH", "/v1/endpoints/of-acme", `{"events":["invoice.*"]}`)
	var one Redelivery
	if w := h.as(nil, "POST", "/v1/deliveries/"+acme+"/redeliver", `{"to":"of-acme"}`); json.Unmarshal(w.Body.Bytes(), &one) != nil || one.Warning != "endpoint of-acme takes no events of type a by its own events (invoice.*)" {
		t.Errorf("of another type: %s", w.Body)
	}
	var all BulkAnswer
	if w := h.as(nil, "POST", "/v1/redeliveries", `{"to":"of-acme","tenant":"acme","dry_run":true}`); json.Unmarshal(w.Body.Bytes(), &all) != nil || !strings.HasPrefix(all.Warning, "endpoint of-acme takes invoice.* by itself") {
		t.Errorf("of other types: %s", w.Body)
	}
}

// A retry that goes nowhere says why.
func TestRetryOfWhatIsHeld(t *testing.T) {
	o := newOperator(t)
	out := done[DeliveryChanged](o, 200, "POST", "/v1/deliveries/"+o.ids["archive"]+"/retry", "")
	if out.State != "held" || out.Waits != "paused" {
		t.Errorf("%+v", out)
	}
	if all := done[BulkAnswer](o, 200, "POST", "/v1/retries", `{"until":"0s","dry_run":true}`); !strings.HasSuffix(all.Warning, "stays held until they are resumed or enabled: archive") {
		t.Errorf("all: %+v", all)
	}
	if some := done[BulkAnswer](o, 200, "POST", "/v1/retries", `{"endpoint":"search","dry_run":true}`); some.Warning != "" {
		t.Errorf("of an endpoint that is active: %+v", some)
	}
	g := gatesOf(o.options.Policy())
	g.status[2].State = deliver.Disabled
	o.options.Deliverer = g
	if out := done[DeliveryChanged](o, 200, "POST", "/v1/deliveries/"+o.ids["archive"]+"/retry", ""); out.Waits != "disabled" {
		t.Errorf("of an endpoint that is disabled: %+v", out)
	}
}

// uncounted is an outbox of which no count ends in time.
type uncounted struct{ *outboxtest.Mem }

func (uncounted) Count(context.Context, outbox.Filter) (int64, bool, error) { return 0, false, nil }

// A count that did not end in time does not say that nothing is held.
func TestRetryOfWhatIsHeldAndNotCounted(t *testing.T) {
	o := newOperator(t)
	o.use(uncounted{o.Mem})
	if all := done[BulkAnswer](o, 200, "POST", "/v1/retries", `{"until":"0s","dry_run":true}`); !strings.HasSuffix(all.Warning, "enabled: archive") {
		t.Errorf("all: %+v", all)
	}
}

// hung is an outbox whose network times out.
type hung struct{ *outboxtest.Mem }

func (hung) Count(context.Context, outbox.Filter) (int64, bool, error) {
	return 0, false, fmt.Errorf("%w: dial tcp: %w", outbox.ErrUnavailable, context.DeadlineExceeded)
}

// An outbox that is away is no count that takes too long.
func TestCountDuringAnOutage(t *testing.T) {
	o := newOperator(t)
	o.use(hung{o.Mem})
	o.refuses(503, problem.OutboxUnavailable, "", "POST", "/v1/retries", `{"until":"0s","dry_run":true}`)
}

// The wish to end a job that a Relay works on changes no state yet: its end has an entry of its own.
func TestAuditOfACancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOperator(t)
		stop := o.work()
		defer func() { stop() }()
		time.Sleep(time.Second)
		made := done[BulkAnswer](o, 202, "POST", "/v1/redeliveries", `{"event":"evt_1","state":["failed","delivered"],"rate":0.01}`)
		time.Sleep(5 * time.Second)
		if job := done[Job](o, 200, "POST", "/v1/jobs/"+made.ID+"/cancel", ""); job.State != "running" {
			t.Fatalf("%+v", job)
		}
		time.Sleep(5 * time.Second)
		after := map[string]string{} // by verb and what; the job may end before the answer
		for _, e := range o.audits() {
			after[e.Verb+" "+e.What] = string(e.After)
		}
		if wish, is := after["cancel job "+made.ID]; !is || wish != "" {
			t.Errorf("the audit has %q of the wish, entry %v", wish, is)
		}
		if end := after["redeliver job "+made.ID+": cancelled"]; !strings.Contains(end, `"state":"cancelled"`) {
			t.Errorf("the audit has %q of the end", end)
		}
	})
}

// What was not counted is not told as exact, in the audit either.
func TestAuditOfWhatIsNotCounted(t *testing.T) {
	o := newOperator(t)
	o.use(uncounted{o.Mem})
	made := done[BulkAnswer](o, 202, "POST", "/v1/redeliveries", `{"until":"0s"}`)
	if e := o.lastAudit("redeliver", "job "+made.ID); e.Count == nil || !e.Count.AtLeast {
		t.Errorf("audit: %+v", e)
	}
	if line := o.log.String(); !strings.Contains(line, "asked to redeliver job") || strings.Contains(line, `"done"`) {
		t.Errorf("log: %s", line)
	}
}

// A fleet that does not answer soon is no fleet without the endpoint: what its deliveries may do waits for the answer, or is
// refused as long as there is none.
func TestFleetAnswersLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOperator(t)
		answers := true
		o.options.Fleet = func(ctx context.Context) (Fleet, error) {
			late, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			<-late.Done()
			if !answers {
				<-ctx.Done()
			}
			if ctx.Err() != nil {
				return Fleet{}, fmt.Errorf("ask for the fleet: %w", ctx.Err())
			}
			return Fleet{Relays: []Relay{{Number: 2, Endpoints: map[string]string{"far": "x", "new": "y", "idle": "z"}}}}, nil
		}
		o.use(o.Mem)
		o.accept(t, outbox.Event{ID: "evt_far", Type: "t", Data: []byte(`1`)}, "far")
		o.settle(t, "far", outbox.Attempt{N: 1}, outbox.Failed)
		failed := "/v1/deliveries/" + o.ids["far"] + "/redeliver"
		o.accept(t, outbox.Event{ID: "evt_far2", Type: "t", Data: []byte(`1`)}, "far")
		held := `{"state":["held"],"dry_run":true}`
		done[Redelivery](o, 202, "POST", failed, "")
		done[Redelivery](o, 202, "POST", failed, `{"to":"new"}`)
		if e := done[Endpoint](o, 200, "GET", "/v1/endpoints/idle", ""); e.State != elsewhere {
			t.Errorf("an endpoint without deliveries: %+v", e)
		}
		if page := done[DeliveryList](o, 200, "GET", "/v1/deliveries?endpoint=idle", ""); len(page.Items) != 0 {
			t.Errorf("its deliveries: %+v", page)
		}
		if all := done[BulkAnswer](o, 200, "POST", "/v1/discards", held); all.Matched.N != 1 { // that of the endpoint that is paused
			t.Errorf("held: %+v", all)
		}
		answers = false
		for _, c := range [][3]string{
			{"POST", failed, ""}, {"POST", failed, `{"to":"new"}`}, {"POST", "/v1/discards", held},
			{"GET", "/v1/endpoints/idle", ""}, {"GET", "/v1/deliveries?endpoint=idle", ""},
		} {
			o.refuses(503, problem.OutboxUnavailable, "", c[0], c[1], c[2])
		}
	})
}

// A name that no endpoint has is named; one of a removed endpoint with deliveries is none of them.
func TestFilterNamesEndpoints(t *testing.T) {
	h := newHouse(t)
	acme := &Access{Name: "acme", May: Rights(), Tenants: []string{"acme"}}
	for _, c := range []struct {
		access       *Access
		method, path string
		body         string
		detail       string // of the refusal; "" for none
	}{
		{nil, "GET", "/v1/deliveries?endpoint=of-acne", "", `no endpoint has the name "of-acne". Did you mean "of-acme"?`},
		{nil, "GET", "/v1/deliveries?endpoint=of-acme&endpoint=nobody", "", `no endpoint has the name "nobody"`},
		{nil, "GET", "/v1/stats?endpoint=nobody", "", `no endpoint has the name "nobody"`},
		{nil, "GET", "/v1/tail?endpoint=nobody", "", `no endpoint has the name "nobody"`},
		{nil, "POST", "/v1/redeliveries", `{"endpoint":"nobody","dry_run":true}`, `no endpoint has the name "nobody"`},
		{nil, "GET", "/v1/deliveries?endpoint=of-beta", "", ""},
		{acme, "GET", "/v1/deliveries?endpoint=of-acme", "", ""},
		{acme, "GET", "/v1/deliveries?endpoint=of-acne", "", `Did you mean "of-acme"?`},
		{acme, "GET", "/v1/deliveries?endpoint=of-beta", "", `no endpoint has the name "of-beta"`}, // as if it did not exist
	} {
		w := h.as(c.access, c.method, c.path, c.body)
		var p problem.Problem
		if c.detail == "" {
			if w.Code != 200 {
				t.Errorf("%s: %d %s", c.path, w.Code, w.Body)
			}
			continue
		}
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 400 || p.Field != "endpoint" || !strings.Contains(p.Detail, c.detail) {
			t.Errorf("%s %s: %d %s", c.path, c.body, w.Code, w.Body)
		}
	}
	h.ok("DELETE", "/v1/endpoints/of-beta?force=true", "")
	if w := h.as(nil, "GET", "/v1/deliveries?endpoint=of-beta", ""); w.Code != 200 {
		t.Errorf("of a removed endpoint: %d %s", w.Code, w.Body)
	}
}

// The begin of a job and its end are two entries of the audit that can be told apart.
func TestAuditOfJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOperator(t)
		time.Sleep(time.Second)
		made := done[BulkAnswer](o, 202, "POST", "/v1/redeliveries", `{"endpoint":"search","state":"failed"}`)
		ctx, cancel := context.WithCancel(t.Context())
		go o.options.Jobs.Run(ctx)
		time.Sleep(time.Minute)
		cancel()
		synctest.Wait()
		entries := o.audits()
		if len(entries) != 2 || entries[0].What != "job "+made.ID+": done" || entries[1].What != "job "+made.ID {
			t.Errorf("%+v", entries)
		}
	})
}
