package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"relay/config"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
	"relay/relay/deliver"
)

// routes is a policy of endpoints with these patterns.
func routes(t *testing.T, patterns map[string]string) func() *policy.Policy {
	t.Helper()
	var all []*policy.Endpoint
	for name, p := range patterns {
		var list []string
		if p != "" {
			list = strings.Fields(p)
		}
		m, err := policy.NewMatcher(list)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, &policy.Endpoint{Name: name, Events: m})
	}
	p := policy.New(all)
	return func() *policy.Policy { return p }
}

// told is what was accepted, as "type data for endpoints".
func told(batches []outbox.Batch) (out []string) {
	for _, b := range batches {
		for _, e := range b.Entries {
			out = append(out, fmt.Sprintf("%s %s for %v", e.Event.Type, e.Event.Data, e.Endpoints))
		}
	}
	return out
}

func TestOwnEventsAreRouted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []outbox.Batch
		accept := func(_ context.Context, b outbox.Batch) ([]outbox.Receipt, error) {
			got = append(got, b)
			return nil, nil
		}
		o := newOwnEvents(accept, routes(t, map[string]string{"all": "", "stars": "**", "alerts": "relay.**", "billing": "invoice.* relay.breaker.*"}),
			func(n int) { t.Errorf("%d events lost", n) }, zerolog.Nop())
		at := time.Date(2026, 1, 2, 3, 4, 5, 678_901_234, time.UTC)
		for _, r := range []deliver.OwnEvent{
			{Type: deliver.EndpointPaused, Endpoint: "x", At: at, Data: deliver.EndpointChanged{Endpoint: "x", State: deliver.Paused, Code: deliver.ByOperator, Reason: "paused by an operator"}},
			{Type: deliver.BreakerOpened, Endpoint: "billing", At: at, Data: deliver.BreakerChanged{Endpoint: "billing", Breaker: deliver.BreakerOpen, OpenUntil: at}},
			{Type: deliver.EndpointDisabled, Endpoint: "alerts", At: at, Data: deliver.EndpointChanged{Endpoint: "alerts", State: deliver.Disabled}}, // nobody else wants it
			{Type: deliver.DeliveryFailed, Endpoint: "x", At: at, Data: deliver.FailedDelivery{Endpoint: "x", EventID: "evt_1", EventType: "invoice.paid", DeliveryID: "dlv_1", Attempts: 1, Outcome: "refused", Code: "http_401", Status: 401}},
			{Type: deliver.DeliveryFailed, Endpoint: "x", At: at, Data: deliver.FailedDelivery{Endpoint: "x", EventType: "relay.breaker.opened"}}, // no loops
		} {
			o.raise(r)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { o.run(ctx); close(done) }()
		synctest.Wait()
		stop()
		<-done
		want := []string{
			`relay.endpoint.paused {"endpoint":"x","state":"paused","code":"operator","reason":"paused by an operator"} for [alerts]`,
			`relay.breaker.opened {"endpoint":"billing","breaker":"open","open_until":"2026-01-02T03:04:05.678901234Z"} for [alerts]`,
			`relay.delivery.failed {"endpoint":"x","event_id":"evt_1","event_type":"invoice.paid","delivery_id":"dlv_1","attempts":1,"outcome":"refused","code":"http_401","status":401} for [alerts]`,
		}
		if diff := cmp.Diff(want, told(got)); diff != "" || len(got) != 1 {
			t.Fatalf("in %d commits (-want +got):\n%s", len(got), diff)
		}
		e := got[0].Entries[0].Event
		if !e.Time.Equal(at.Truncate(time.Microsecond)) || e.Key != "x" || len(e.ID) != 40 || e.ID[:4] != "evt_" || e.ID[18] != '7' {
			t.Errorf("event %+v", e)
		}
	})
}

// Raising never blocks; events that are too many, or refused, are counted, and logged from time to time.
func TestOwnEventsAreLostLoudly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		lost := 0
		down := func(context.Context, outbox.Batch) ([]outbox.Receipt, error) { return nil, outbox.ErrUnavailable }
		o := newOwnEvents(down, routes(t, map[string]string{"alerts": "relay.**"}), func(n int) { lost += n }, zerolog.New(&log))
		const n = ownQueue + 50
		raise := func() {
			for range n {
				o.raise(deliver.OwnEvent{Type: deliver.BreakerOpened, Endpoint: "x", At: time.Now(), Data: deliver.BreakerChanged{}})
			}
		}
		raise()
		if lost != n-ownQueue {
			t.Fatalf("%d lost from a queue that holds %d of %d", lost, ownQueue, n)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { o.run(ctx); close(done) }()
		synctest.Wait()
		time.Sleep(ownQuiet)
		o.raise(deliver.OwnEvent{Type: deliver.BreakerOpened, Endpoint: "x", At: time.Now()})
		synctest.Wait()
		stop()
		<-done
		var counts []int
		for line := range strings.Lines(log.String()) {
			var l struct {
				Level, Error string
				Events       int
			}
			if err := json.Unmarshal([]byte(line), &l); err != nil || l.Level != "warn" || l.Error != "outbox is unavailable" {
				t.Errorf("logged %s (%v)", line, err)
			}
			counts = append(counts, l.Events)
		}
		if diff := cmp.Diff([]int{50 + ownBatch, n + 1 - 50 - ownBatch}, counts); diff != "" || lost != n+1 {
			t.Errorf("%d lost of %d, logged (-want +got):\n%s", lost, n+1, diff)
		}
	})
}

// What was raised by the last attempts is still told when Relay stops, and an outbox
// that hangs holds a stop up for a moment only.
func TestOwnEventsAtTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		stop()
		store := outboxtest.NewMem(outboxtest.MemOptions{})
		defer store.Close()
		o := newOwnEvents(store.Accept, routes(t, map[string]string{"alerts": "relay.**"}), func(n int) { t.Errorf("%d lost", n) }, zerolog.Nop())
		for range 3 * ownBatch {
			o.raise(deliver.OwnEvent{Type: deliver.BreakerOpened, Endpoint: "x", At: time.Now(), Data: deliver.BreakerChanged{}})
		}
		o.run(ctx)
		counts, err := store.Counts(t.Context())
		if err != nil || counts["alerts"].Pending != 3*ownBatch {
			t.Errorf("kept %+v (%v)", counts, err)
		}

		lost := 0
		o.dropped = func(n int) { lost += n }
		o.accept = func(ctx context.Context, _ outbox.Batch) ([]outbox.Receipt, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		for range 3 * ownBatch {
			o.raise(deliver.OwnEvent{Type: deliver.BreakerOpened, Endpoint: "x", At: time.Now(), Data: deliver.BreakerChanged{}})
		}
		start := time.Now()
		o.run(ctx)
		if took := time.Since(start); took != ownLast || lost != 3*ownBatch {
			t.Errorf("a stop waited %s, %d lost", took, lost)
		}
	})
}

// Filters hold for Relay's own events, and an endpoint hears nothing of itself on any terms.
func TestOwnEventsAreFiltered(t *testing.T) {
	const each = "  url    = \"https://example.com/\"\n  sign   = [\"none\"]\n  events = [\"relay.**\"]\n}\n"
	file, err := config.Parse("relay.hcl", []byte(
		"endpoint \"billing\" {\n  when = event.data.missing\n"+each+
			"endpoint \"about_billing\" {\n  when = event.data.endpoint == \"billing\"\n"+each+
			"endpoint \"once\" {\n  dedupe {\n    by     = event.key\n    window = \"1h\"\n  }\n"+each), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	o := newOwnEvents(nil, func() *policy.Policy { return p }, nil, zerolog.Nop())
	for _, c := range []struct {
		about string
		want  string
	}{{"billing", "[about_billing once] 2"}, {"other", "[billing once] 2"}} {
		e, ok := o.entry(deliver.OwnEvent{Type: deliver.EndpointPaused, Endpoint: c.about, Data: deliver.EndpointChanged{Endpoint: c.about}})
		got := fmt.Sprint(e.Endpoints, len(e.Terms))
		if !ok || got != c.want || e.Terms[1].Mark == nil || (e.Terms[0].Code == "") != (c.about == "billing") {
			t.Errorf("about %s: %s, %+v; want %s", c.about, got, e.Terms, c.want)
		}
	}
}
