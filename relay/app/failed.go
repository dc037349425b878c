package app

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"relay/outbox"
	"relay/relay/deliver"
	"relay/relay/metrics"
)

// telling is the outbox as ingest has it: it tells of deliveries that are failed from the
// start, because a filter could not judge the event. No attempt will.
type telling struct {
	metrics.Appender
	log   zerolog.Logger
	raise func(deliver.Raised)
}

func (t *telling) Accept(ctx context.Context, b outbox.Batch) ([]outbox.Receipt, error) {
	receipts, err := t.Appender.Accept(ctx, b)
	if err != nil {
		return receipts, err
	}
	for i := range b.Entries {
		e := &b.Entries[i]
		for j, term := range e.Terms {
			if term.Code == "" || receipts[i].Duplicate {
				continue
			}
			t.log.Warn().Str("endpoint", e.Endpoints[j]).Str("event_id", e.Event.ID).
				Str("state", string(outbox.Failed)).Str("code", term.Code).Str("error", term.Error).
				Msg("a delivery failed without an attempt")
			t.raise(deliver.Raised{
				Type: deliver.DeliveryFailed, Endpoint: e.Endpoints[j], At: time.Now(),
				Data: deliver.FailedDelivery{
					Endpoint: e.Endpoints[j], EventID: e.Event.ID, EventType: e.Event.Type,
					Outcome: string(deliver.Refused), Code: term.Code, Error: term.Error,
				},
			})
		}
	}
	return receipts, nil
}
