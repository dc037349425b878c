package ingest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"relay/outbox/outboxtest"
)

// Events times endpoints of one batch are bounded: while the outbox writes them,
// everybody else waits. A single event cannot be split, so it has no such bound.
func TestDeliveriesOfABatchAreBounded(t *testing.T) {
	store := outboxtest.NewMem(outboxtest.MemOptions{})
	defer store.Close()
	names := make([]string, 101)
	for i := range names {
		names[i] = fmt.Sprint("e", i)
	}
	in := New(Options{Outbox: store, Route: to(names...), Log: zerolog.Nop()})
	post := func(events int) Response {
		return in.Handle(context.Background(), &Request{
			Method: "POST", Path: "/v1/events", ContentType: "application/x-ndjson",
			Body: []byte(strings.Repeat(`{"type":"a","data":1}`+"\n", events)),
		})
	}
	if r := post(maxDeliveries/101 + 1); r.Status != 413 || !strings.Contains(string(r.Body), "batch_too_large") {
		t.Errorf("too many: %d %s", r.Status, r.Body)
	}
	counts, err := store.Counts(t.Context())
	if err != nil || len(counts) > 0 {
		t.Errorf("a refused batch left %d endpoints with deliveries, %v", len(counts), err)
	}
	if r := post(3); r.Status != 202 {
		t.Errorf("few: %d %s", r.Status, r.Body)
	}
}
