package app

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"relay/internal/testkit"
	"relay/outbox"
)

// Deliveries that wait for an endpoint that is disabled or no longer in the file count as held.
func TestHeldIsToldFromPending(t *testing.T) {
	a := open(t, newPlace(t).text(
		endpointBlock("works", "https://example.com/a"),
		endpointBlock("disabled", "https://example.com/b", "enabled = false")), time.Second)
	defer a.close()
	_, err := a.store.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{
		Event:     outbox.Event{ID: "evt_1", Type: "a", Data: []byte("1")},
		Endpoints: []string{"works", "disabled", "removed"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if pending, held, _ := a.waiting(t.Context()); pending != 1 || held != 2 {
		t.Errorf("%d pending and %d held, want 1 and 2", pending, held)
	}
}

// Who hurries as soon as it hears of the stop ends the drain, and no attempt.
func TestHurryAtTheStop(t *testing.T) {
	a := open(t, newPlace(t).text(endpointBlock("a", "http://127.0.0.1:1/", local)), time.Second)
	a.o.Hooks.Stopping = a.Hurry
	_, err := a.store.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{
		Event: outbox.Event{ID: "evt_1", Type: "a", Data: []byte("1")}, Endpoints: []string{"a"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancelCause(t.Context())
	stop(Stop{By: "test", Drain: time.Hour})
	if err := a.Run(ctx); err != nil {
		t.Error(err)
	}
	select {
	case <-a.aborted:
		t.Error("attempts were aborted")
	default:
	}
}

func TestEveryEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer stop()
		n := 0
		every(ctx, time.Second, func() { n++ })
		if n != 3 {
			t.Errorf("done %d times in 3.5 s", n)
		}
	})
}

// Delivered events give way before new ones are refused; what is pending and what
// failed stays.
func TestHistoryGivesWay(t *testing.T) {
	text := newPlace(t).text(endpointBlock("a", "https://example.com/a"))
	a := open(t, strings.Replace(text, `outbox "sqlite" {`, "outbox \"sqlite\" {\n  max_size = \"16MiB\"", 1), time.Second)
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
	said := new(testkit.Log)
	a.o.Log = zerolog.New(said)
	a.relieve(ctx)
	if fill() > relieveTo {
		t.Errorf("the outbox is %.2f full, want %.2f at most", fill(), relieveTo)
	}
	if text := said.String(); strings.Contains(text, `"removed":0`) || !strings.Contains(text, "outbox or its disk is nearly full") || !strings.Contains(text, "free space on the disk") {
		t.Errorf("the log says %q", text)
	}
	for _, id := range []string{"failed", "pending"} {
		if _, err := a.store.Lookup(ctx, id); err != nil {
			t.Errorf("event %s: %v, want it kept", id, err)
		}
	}
}
