package alert

import (
	"context"
	"time"

	"relay/outbox"
)

// ends adds up the statistics of endpoints since the first update. It reads two hours each time:
// nothing is settled in an hour that is over for longer.
type ends struct {
	past   map[string]Endpoint               // of hours that are read no more
	recent map[time.Time]map[string]Endpoint // by hour
}

func (t *ends) update(ctx context.Context, o outbox.Statistics, now time.Time) error {
	since := now.Truncate(time.Hour).Add(-time.Hour)
	rows, err := o.Statistics(ctx, outbox.StatQuery{Span: outbox.Span{Since: since}})
	if err != nil {
		return err
	}
	if t.past == nil {
		t.past, t.recent = map[string]Endpoint{}, map[time.Time]map[string]Endpoint{}
	}
	for hour, all := range t.recent {
		if hour.Before(since) {
			for name, e := range all {
				t.past[name] = sum(t.past[name], e)
			}
			delete(t.recent, hour)
		}
	}
	clear(t.recent)
	for i := range rows {
		row := &rows[i]
		if t.recent[row.Start] == nil {
			t.recent[row.Start] = map[string]Endpoint{}
		}
		e := t.recent[row.Start][row.Endpoint]
		t.recent[row.Start][row.Endpoint] = sum(e, Endpoint{Delivered: row.Delivered, Attempts: row.Attempts, Took: row.Took})
	}
	return nil
}

func (t *ends) of(name string) Endpoint {
	all := sum(Endpoint{}, t.past[name])
	for _, hour := range t.recent {
		all = sum(all, hour[name])
	}
	return all
}

// sum adds b to a copy of a.
func sum(a, b Endpoint) Endpoint {
	took := a.Took.Clone()
	took.Merge(&b.Took)
	return Endpoint{Delivered: a.Delivered + b.Delivered, Attempts: a.Attempts + b.Attempts, Took: took}
}
