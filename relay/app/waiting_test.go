package app

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
)

// What waits for an endpoint that is disabled or no longer in the file is held,
// and told as such.
func TestHeldIsToldFromPending(t *testing.T) {
	a := open(t, fmt.Sprintf(`
		ingest {
		  unix %q {}
		}
		admin {
		  http = ""
		}
		outbox "sqlite" {
		  path = %q
		}
		endpoint "works" {
		  url     = "https://example.com/a"
		  secrets = [%[3]q]
		}
		endpoint "disabled" {
		  url     = "https://example.com/b"
		  secrets = [%[3]q]
		  enabled = false
		}
	`, filepath.Join(t.TempDir(), "relay.sock"), filepath.Join(t.TempDir(), "outbox"), secret), time.Second)
	defer a.close()
	_, err := a.store.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{
		Event:     outbox.Event{ID: "evt_1", Type: "a", Data: []byte("1")},
		Endpoints: []string{"works", "disabled", "removed"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if pending, held := a.waiting(t.Context()); pending != 1 || held != 2 {
		t.Errorf("%d pending and %d held, want 1 and 2", pending, held)
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
