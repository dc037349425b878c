package outbox

import (
	"context"
	"time"
)

// Reader reads the outbox and changes nothing.
type Reader interface {
	// Lookup returns the event with its deliveries and attempts. Errors: ErrNotFound,
	// ErrUnavailable, ErrClosed, the context's.
	Lookup(ctx context.Context, eventID string) (*Record, error)
}

// Record is an event with its deliveries.
type Record struct {
	Event      Event
	Accepted   time.Time
	Erased     time.Time // when Event.Data was erased; zero if it was not
	Deliveries []DeliveryRecord
}

// DeliveryRecord is a delivery with its attempts, oldest first.
type DeliveryRecord struct {
	Delivery
	Attempts []Attempt
	Error    string // of the Term that failed it at accept; otherwise see its attempts
}
