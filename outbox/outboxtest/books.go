package outboxtest

import (
	"context"
	"errors"
	"fmt"

	"relay/outbox"
)

// CheckBooks compares what an outbox says of its deliveries in three places: counts, statistics and history. Nothing
// may have been removed by retention, or made outside the queue.
func CheckBooks(ctx context.Context, store outbox.Operable) error {
	counts, err := store.Counts(ctx)
	if err != nil {
		return err
	}
	rows, err := store.Statistics(ctx, outbox.StatQuery{})
	if err != nil {
		return err
	}
	var errs []error
	for name, want := range counts {
		var sum outbox.Stat
		for i := range rows {
			if rows[i].Endpoint == name {
				sum.Add(&rows[i])
			}
		}
		if sum.Delivered != want.Delivered || sum.Failed != want.Failed || sum.Discarded != want.Discarded || sum.Attempts < sum.Delivered || sum.Took.Count() != sum.Attempts {
			errs = append(errs, fmt.Errorf("endpoint %s: statistics have %d delivered, %d failed, %d discarded with %d attempts, counts %+v",
				name, sum.Delivered, sum.Failed, sum.Discarded, sum.Attempts, want))
		}
		found := map[string]outbox.State{}
		for q := (outbox.Query{Filter: outbox.Filter{Endpoints: []string{name}}, Limit: outbox.MaxPage}); ; {
			page, err := store.Deliveries(ctx, q)
			if err != nil {
				return err
			}
			for _, i := range page.Items {
				if _, again := found[i.ID]; again {
					errs = append(errs, fmt.Errorf("endpoint %s: the history shows %s twice", name, i.ID))
				}
				found[i.ID] = i.State
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
		}
		states := map[outbox.State]int64{}
		for _, state := range found {
			states[state]++
		}
		if states[outbox.Delivered] != want.Delivered || states[outbox.Pending] != want.Pending || int64(len(found)) != want.Accepted {
			errs = append(errs, fmt.Errorf("endpoint %s: the history has %v, counts %+v", name, states, want))
		}
	}
	return errors.Join(errs...)
}
