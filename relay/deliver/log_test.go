package deliver

import (
	"bytes"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"relay/relay/deliver/delivertest"
)

// lines runs a script of answers against one endpoint and returns the log.
func lines(t *testing.T, level zerolog.Level, events, results int, script ...delivertest.Step) []map[string]any {
	t.Helper()
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.o.Log = zerolog.New(&out).Level(level)
		e := w.inMemory("billing", delivertest.NewEndpoint(script...))
		e.Concurrency = 1
		e.Retry.Jitter = 0
		w.start(e)
		w.accept(events, "billing")
		w.await(results)
		w.stop()
	})
	var all []map[string]any
	for d := json.NewDecoder(&out); d.More(); {
		var line map[string]any
		if err := d.Decode(&line); err != nil {
			t.Fatal(err)
		}
		all = append(all, line)
	}
	return all
}

func pick(all []map[string]any, keys ...string) [][]any {
	var picked [][]any
	for _, line := range all {
		var row []any
		for _, k := range keys {
			row = append(row, line[k])
		}
		picked = append(picked, row)
	}
	return picked
}

func TestAttemptLine(t *testing.T) {
	got := lines(t, zerolog.DebugLevel, 1, 3, delivertest.Step{Status: 503}, delivertest.Step{Fault: delivertest.Close}, delivertest.Step{})
	want := [][]any{
		{"info", "attempt", "billing", "evt_billing_0", 1.0, "retry", "pending", 503.0, "http_503"},
		{"info", "attempt", "billing", "evt_billing_0", 2.0, "retry", "pending", nil, "connection_reset"},
		{"info", "attempt", "billing", "evt_billing_0", 3.0, "delivered", "delivered", 200.0, nil},
	}
	if diff := cmp.Diff(want, pick(got, "level", "message", "endpoint", "event_id", "attempt", "outcome", "state", "status", "code")); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	for _, key := range []string{"delivery_id", "took", "next_at", "error"} {
		if got[0][key] == nil {
			t.Errorf("line of a retry has no %s: %v", key, got[0])
		}
	}
}

func TestDeliveredAtOnceIsQuiet(t *testing.T) {
	if got := lines(t, zerolog.InfoLevel, 3, 3, delivertest.Step{}); len(got) != 0 {
		t.Errorf("log at info is %v", got)
	}
	if got := lines(t, zerolog.DebugLevel, 3, 3, delivertest.Step{}); len(got) != 3 {
		t.Errorf("log at debug is %v", got)
	}
}

// Retries that say the same are counted at info and shown at debug; what is lost is always named (promise P7).
func TestRepeatsAreHeldBack(t *testing.T) {
	// 50 events, one after the other, 1 s each, then their second attempts.
	got := lines(t, zerolog.InfoLevel, 50, 25, delivertest.Step{Status: 503, Delay: time.Second})
	want := [][]any{{"info", nil}, {"info", 9.0}, {"info", 9.0}}
	if diff := cmp.Diff(want, pick(got, "level", "repeats")); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	if got := lines(t, zerolog.DebugLevel, 50, 25, delivertest.Step{Status: 503}); len(got) < 25 {
		t.Errorf("%d lines at debug for 25 attempts or more", len(got))
	}
	if got := lines(t, zerolog.DebugLevel, 50, 50, delivertest.Step{Status: 404}); len(got) != 50 || got[0]["level"] != "warn" {
		t.Errorf("%d lines for 50 failed deliveries", len(got))
	}
}
