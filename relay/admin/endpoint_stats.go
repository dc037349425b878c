package admin

import (
	"context"
	"time"

	"relay/outbox"
)

const (
	endpointStats = 7 * day // that the statistics in an endpoint's answer go back
	maxRecent     = 10      // deliveries in it
)

// EndpointStats are how an endpoint's deliveries went: in the last 7 days, or in a list in the time that is asked for.
type EndpointStats struct {
	Since       time.Time `json:"since"` // counted from, a whole hour
	Total       int64     `json:"total"` // ended since then, and pending or held
	Delivered   int64     `json:"delivered"`
	Failed      int64     `json:"failed"`
	Discarded   int64     `json:"discarded"`
	Pending     int64     `json:"pending"`         // and held: at present
	SuccessRate *float64  `json:"success_rate"`    // delivered of those delivered or failed, 0 to 1; null if there are none
	MeanMS      *float64  `json:"mean_ms"`         // that attempts took; null if there were none
	P95MS       *float64  `json:"p95_ms"`          // 95 % of them took at most this; null if there were none
	Last        time.Time `json:"last,omitzero"`   // start of the last attempt of the recent deliveries
	Steps       []StatRow `json:"steps,omitempty"` // in lists that ask for stats: by hour, or by day for more than 2 days
}

// addHistory adds statistics and recent deliveries to the answer for one endpoint.
func (a *api) addHistory(ctx context.Context, e *Endpoint) error {
	if a.Records == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	only := []string{e.Name}
	since := time.Now().Add(-endpointStats).UTC().Truncate(time.Hour)
	stats, err := a.Records.Statistics(ctx, outbox.StatQuery{Span: outbox.Span{Since: since}, Endpoints: only})
	if err != nil {
		return err
	}
	var total outbox.Stat
	for i := range stats {
		total.Add(&stats[i])
	}
	e.Stats = statsOf(e, since, &total)
	page, err := a.page(ctx, outbox.Query{Filter: outbox.Filter{Endpoints: only}, Limit: maxRecent})
	if err != nil {
		return err
	}
	l := a.lookout(ctx)
	e.Recent = []Delivery{}
	for i := range page.Items {
		d := l.delivery(&page.Items[i])
		if d.Last != nil && d.Last.Started.After(e.Stats.Last) {
			e.Stats.Last = d.Last.Started
		}
		e.Recent = append(e.Recent, d)
	}
	return l.err
}
