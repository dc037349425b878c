package app

import (
	"context"
	"fmt"
	"time"

	"relay/outbox"
	"relay/relay/deliver"
	"relay/relay/metrics"
)

// telling is the outbox for ingest. It raises relay.delivery.failed for deliveries that fail at
// accept because a filter could not judge the event, since they have no attempt that would. It
// accepts nothing while the outbox is lost.
type telling struct {
	metrics.Appender
	raise func(deliver.OwnEvent)
	lost  func() error
}

func (t *telling) Accept(ctx context.Context, b outbox.Batch) ([]outbox.Receipt, error) {
	if err := t.lost(); err != nil {
		return nil, fmt.Errorf("%w: %w", outbox.ErrUnavailable, err)
	}
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
			t.raise(deliver.OwnEvent{
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
