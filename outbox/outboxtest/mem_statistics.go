package outboxtest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"relay/outbox"
)

// statKey is what a row of statistics is about.
type statKey struct {
	start                  time.Time
	step                   time.Duration
	endpoint, kind, tenant string
}

const day = 24 * time.Hour

// countAttempt counts the last attempt of a delivery.
func (k *contents) countAttempt(d *delivery) {
	s := k.row(d)
	s.Attempts++
	s.Took.Add(d.attempts[len(d.attempts)-1].Took)
}

// countEnd counts a delivery that ended.
func (k *contents) countEnd(d *delivery) {
	if d.unmeasured {
		return
	}
	s := k.row(d)
	switch d.State {
	case outbox.Delivered:
		s.Delivered++
		if d.Attempts == 1 {
			s.FirstTry++
		}
	case outbox.Failed:
		s.Failed++
	case outbox.Discarded:
		s.Discarded++
	}
}

// row returns the row of this hour for a delivery.
func (k *contents) row(d *delivery) *outbox.Stat {
	hour := k.wall(k.now()).Truncate(time.Hour)
	key := statKey{hour, time.Hour, d.Endpoint, d.event.Type, d.event.Tenant}
	if k.stats[key] == nil {
		if k.statKeys[hour] >= outbox.MaxStatKeys {
			key.kind, key.tenant = "", ""
		}
		k.statKeys[hour]++
	}
	return k.stat(key)
}

func (k *contents) stat(key statKey) *outbox.Stat {
	s := k.stats[key]
	if s == nil {
		s = &outbox.Stat{Start: key.start, Step: key.step, Endpoint: key.endpoint, Type: key.kind, Tenant: key.tenant}
		k.stats[key] = s
	}
	return s
}

// rollUp adds old hours to their days, and removes old days.
func (k *contents) rollUp() {
	now := k.wall(k.now())
	maps.DeleteFunc(k.statKeys, func(hour time.Time, _ int) bool { return now.Sub(hour) > day })
	for key, s := range k.stats {
		age := now.Sub(key.start)
		switch {
		case age > outbox.DailyFor:
			delete(k.stats, key)
		case key.step == time.Hour && age > outbox.HourlyFor:
			delete(k.stats, key)
			key.start, key.step = key.start.Truncate(day), day
			k.stat(key).Add(s)
		}
	}
}

// Statistics implements outbox.Statistics.
func (m *Mem) Statistics(ctx context.Context, q outbox.StatQuery) ([]outbox.Stat, error) {
	done, err := m.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	m.kept.rollUp()
	var rows []outbox.Stat
	for _, s := range m.kept.stats {
		if q.Match(s) {
			row := *s
			row.Took = s.Took.Clone()
			rows = append(rows, row)
		}
	}
	slices.SortFunc(rows, func(a, b outbox.Stat) int {
		return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.Endpoint, b.Endpoint), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Tenant, b.Tenant))
	})
	return rows, nil
}
