package outboxtest

import (
	"context"
	"errors"
	"fmt"

	"relay/outbox"
)

// CheckBooks compares what an outbox says of its deliveries in three places: counts, statistics and history, which
// alone has what Editor.Record keeps. Nothing may have been removed by retention.
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
		errs = append(errs, checkHistory(ctx, store, name, want))
	}
	return errors.Join(errs...)
}

// checkHistory compares the history of an endpoint with its counts.
func checkHistory(ctx context.Context, store outbox.Operable, name string, want outbox.Counts) error {
	seen, all, queued := map[string]bool{}, map[outbox.State]int64{}, map[outbox.State]int64{}
	for q := (outbox.Query{Filter: outbox.Filter{Endpoints: []string{name}}, Limit: outbox.MaxPage}); ; {
		page, err := store.Deliveries(ctx, q)
		if err != nil {
			return err
		}
		for _, i := range page.Items {
			if seen[i.ID] {
				return fmt.Errorf("endpoint %s: the history shows %s twice", name, i.ID)
			}
			seen[i.ID] = true
			all[i.State]++
			if test := i.Manual && i.Origin == ""; !test {
				queued[i.State]++
			}
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	got := outbox.Counts{Pending: queued[outbox.Pending], Delivered: queued[outbox.Delivered], Failed: queued[outbox.Failed],
		Discarded: queued[outbox.Discarded], Oldest: want.Oldest}
	got.Accepted = got.Pending + got.Delivered + got.Failed + got.Discarded
	var errs []error
	if got != want {
		errs = append(errs, fmt.Errorf("endpoint %s: the history has %+v, counts %+v", name, got, want))
	}
	for _, state := range []outbox.State{outbox.Pending, outbox.Delivered, outbox.Failed, outbox.Discarded} {
		n, exact, err := store.Count(ctx, outbox.Filter{Endpoints: []string{name}, States: []outbox.State{state}})
		if err != nil {
			return err
		}
		if n != all[state] || !exact {
			errs = append(errs, fmt.Errorf("endpoint %s: the history has %d %s, Count %d, exact: %t", name, all[state], state, n, exact))
		}
	}
	return errors.Join(errs...)
}
