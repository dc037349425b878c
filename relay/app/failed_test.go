package app

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/relay/deliver"
)

// A delivery that no attempt will ever be made of is told like others that are over without
// success, and once only.
func TestFailedFromTheStartIsRaised(t *testing.T) {
	var raised []deliver.OwnEvent
	store := outboxtest.NewMem(outboxtest.MemOptions{})
	defer store.Close()
	told := telling{Appender: store, raise: func(r deliver.OwnEvent) { raised = append(raised, r) }, lost: func() error { return nil }}
	batch := outbox.Batch{Entries: []outbox.Entry{{
		Event:       outbox.Event{ID: "evt_1", Type: "a.b", Data: []byte("{}")},
		Endpoints:   []string{"well", "wrong"},
		Terms:       []outbox.Term{{}, {Code: "when_error", Error: "relay.hcl:1,1: no such member"}},
		Fingerprint: outbox.Fingerprint{1},
	}}}
	for range 2 { // the second is a repeat
		if _, err := told.Accept(context.Background(), batch); err != nil {
			t.Fatal(err)
		}
	}
	want := []deliver.OwnEvent{{Type: deliver.DeliveryFailed, Endpoint: "wrong", Data: deliver.FailedDelivery{
		Endpoint: "wrong", EventID: "evt_1", EventType: "a.b", Outcome: "refused", Code: "when_error", Error: "relay.hcl:1,1: no such member",
	}}}
	if diff := cmp.Diff(want, raised, cmpopts.IgnoreFields(deliver.OwnEvent{}, "At")); diff != "" {
		t.Errorf("-want +raised:\n%s", diff)
	}
}
