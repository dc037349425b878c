package metrics

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"relay/outbox"
)

// Appender is the part of the outbox that ingest needs.
type Appender interface {
	Accept(context.Context, outbox.Batch) ([]outbox.Receipt, error)
	Durability() string
}

// Count returns next with counters of accepted and refused events.
func (m *Metrics) Count(next Appender) Appender {
	return &counted{
		Appender:    next,
		accepted:    m.events.WithLabelValues("accepted"),
		duplicate:   m.events.WithLabelValues("duplicate"),
		unwanted:    m.unwanted,
		full:        m.refused.WithLabelValues("outbox_full"),
		conflict:    m.refused.WithLabelValues("idempotency_conflict"),
		unavailable: m.refused.WithLabelValues("outbox_unavailable"),
	}
}

type counted struct {
	Appender
	accepted, duplicate, unwanted, full, conflict, unavailable prometheus.Counter
}

func (c *counted) Accept(ctx context.Context, b outbox.Batch) ([]outbox.Receipt, error) {
	receipts, err := c.Appender.Accept(ctx, b)
	switch {
	case errors.Is(err, outbox.ErrFull):
		c.full.Inc()
	case errors.Is(err, outbox.ErrConflict):
		c.conflict.Inc()
	case err != nil:
		c.unavailable.Inc()
	}
	for i := range receipts {
		switch {
		case receipts[i].Duplicate:
			c.duplicate.Inc()
		case receipts[i].Deliveries == 0:
			c.unwanted.Inc()
			c.accepted.Inc()
		default:
			c.accepted.Inc()
		}
	}
	return receipts, err
}
