package spool

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"relay/outbox"
)

// A batch of one event is an event of the spool with the same id, and its data is the whole
// batch. Of a larger batch there is a carrier with the data, and beside it an event without
// deliveries for each of its events, so that the spool knows their ids; its data is the id of
// the carrier. So the embedded outbox tells repeats and conflicts, also after a restart.

// pack makes the batch for the spool.
func pack(b *outbox.Batch) (outbox.Batch, error) {
	data, err := json.Marshal(b)
	if err != nil {
		return outbox.Batch{}, fmt.Errorf("spool: write batch: %w", err)
	}
	packed := outbox.Batch{Key: b.Key, Fingerprint: b.Fingerprint}
	first := b.Entries[0].Event
	if len(b.Entries) == 1 {
		packed.Entries = []outbox.Entry{{
			Event:     outbox.Event{ID: first.ID, Type: first.Type, Time: first.Time, Data: data},
			Endpoints: []string{lane}, Fingerprint: b.Entries[0].Fingerprint,
		}}
		return packed, nil
	}
	carrier := "spool_" + rand.Text()
	packed.Entries = make([]outbox.Entry, 0, 1+len(b.Entries))
	packed.Entries = append(packed.Entries, outbox.Entry{
		Event: outbox.Event{ID: carrier, Type: lane, Time: first.Time, Data: data}, Endpoints: []string{lane},
	})
	for i := range b.Entries {
		e := &b.Entries[i]
		packed.Entries = append(packed.Entries, outbox.Entry{
			Event:       outbox.Event{ID: e.Event.ID, Type: e.Event.Type, Time: e.Event.Time, Data: []byte(carrier)},
			Fingerprint: e.Fingerprint,
		})
	}
	return packed, nil
}

// unpack reads the batch of an event in the spool.
func unpack(data []byte) (b outbox.Batch, err error) {
	if err := json.Unmarshal(data, &b); err != nil {
		return b, fmt.Errorf("%w: a batch in the spool cannot be read: %w", outbox.ErrCorrupt, err)
	}
	return b, nil
}

// unpackReceipts are the receipts for the batch.
func unpackReceipts(b *outbox.Batch, receipts []outbox.Receipt) []outbox.Receipt {
	receipts = receipts[len(receipts)-len(b.Entries):] // without that of a carrier
	for i := range receipts {
		receipts[i].Deliveries, receipts[i].Durability = len(b.Entries[i].Endpoints), Level
	}
	return receipts
}

// unpackError is an error about the batch.
func unpackError(b *outbox.Batch, err error) error {
	conflict, ok := errors.AsType[*outbox.ConflictError](err)
	if !ok || conflict.Index < 0 || len(b.Entries) == 1 {
		return err
	}
	return &outbox.ConflictError{Index: conflict.Index - 1, ID: conflict.ID}
}

// find returns the record of an event that waits in the spool, nil if none does.
func (s *Store) find(ctx context.Context, eventID string) (*outbox.Record, error) {
	kept, err := s.local.Lookup(ctx, eventID)
	if err != nil {
		return nil, err
	}
	if len(kept.Deliveries) == 0 {
		if kept, err = s.local.Lookup(ctx, string(kept.Event.Data)); err != nil {
			return nil, err
		}
	}
	if len(kept.Deliveries) == 0 || kept.Deliveries[0].State != outbox.Pending {
		return nil, nil // it has moved, or was refused
	}
	b, err := unpack(kept.Event.Data)
	if err != nil {
		return nil, err
	}
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Event.ID != eventID {
			continue
		}
		r := &outbox.Record{Event: e.Event, Accepted: kept.Accepted}
		for _, name := range e.Endpoints {
			r.Deliveries = append(r.Deliveries, outbox.DeliveryRecord{Delivery: outbox.Delivery{
				EventID: eventID, Endpoint: name, State: outbox.Pending, Due: kept.Accepted, Created: kept.Accepted,
			}})
		}
		return r, nil
	}
	return nil, nil
}
