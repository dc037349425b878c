package app

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"relay/outbox"
)

// Delivered events give way before new ones are refused; what is pending and what
// failed stays.
func TestHistoryGivesWay(t *testing.T) {
	a := open(t, fmt.Sprintf(`
		ingest {
		  unix %q {}
		}
		admin {
		  http = ""
		}
		outbox "sqlite" {
		  path     = %q
		  max_size = "16MiB"
		}
		endpoint "a" {
		  url     = "https://example.com/a"
		  secrets = [%q]
		}
	`, filepath.Join(t.TempDir(), "relay.sock"), filepath.Join(t.TempDir(), "outbox"), secret), time.Second)
	defer a.close()
	ctx := t.Context()
	fill := func() float64 {
		t.Helper()
		f, err := a.store.Fill(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	accept := func(id string) {
		t.Helper()
		data := append(bytes.Repeat([]byte(" "), 64<<10), '1')
		_, err := a.store.Accept(ctx, outbox.Batch{Entries: []outbox.Entry{{
			Event: outbox.Event{ID: id, Type: "a", Data: data}, Endpoints: []string{"a"},
		}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	end := func(state outbox.State) {
		t.Helper()
		claims, err := a.store.Claim(ctx, outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.store.Settle(ctx, claims[0], outbox.Settlement{State: state, Attempt: outbox.Attempt{N: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	accept("failed")
	end(outbox.Failed)
	if removed := a.makeRoom(ctx); removed != 0 {
		t.Errorf("%d deliveries went from an outbox that has room", removed)
	}
	for n := 0; fill() < relieveFrom; n++ {
		accept(fmt.Sprintf("delivered%d", n))
		end(outbox.Delivered)
	}
	accept("pending")
	if removed := a.makeRoom(ctx); removed == 0 || fill() > relieveTo {
		t.Errorf("%d deliveries went, the outbox is %.2f full, want %.2f at most", removed, fill(), relieveTo)
	}
	for _, id := range []string{"failed", "pending"} {
		if _, err := a.store.Lookup(ctx, id); err != nil {
			t.Errorf("event %s: %v, want it kept", id, err)
		}
	}
}
