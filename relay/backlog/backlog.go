// Package backlog remembers how many deliveries were not over: for each hour the most at any look, of
// all endpoints together and of each. The outbox, which counts what ends, knows the present alone.
//
// There is a document for each day (UTC) in the outbox, so that a restart goes on with it, and any Relay
// of a fleet does.
package backlog

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"relay/internal/sorting"
	"relay/outbox"
)

const (
	// Every is the time between two looks. What comes and goes between them is not seen.
	Every = time.Minute
	// KeptFor is how long hours are kept.
	KeptFor = 31 * 24 * time.Hour

	// MaxEndpoints bounds the endpoints of an hour: those with the largest backlogs. A day of them fits into a document.
	MaxEndpoints = 100

	kind = "backlog" // of the documents, which have the date as their name

	// rise is by how much more has to wait than is written before it is written again, so that a backlog that
	// grows steadily is not a commit each minute.
	rise = 1.05
)

// Outbox is the part of the outbox that a History needs.
type Outbox interface {
	Counts(ctx context.Context) (map[string]outbox.Counts, error)
	outbox.Documents
}

// History writes and reads. Look must not be called by several at the same time.
type History struct {
	outbox Outbox
	clock  outbox.Clock
	hour   time.Time // of the last look
	known  *levels   // what is written of it, as far as this Relay knows
}

// New makes a History. clock is that of an outbox that has its own; nil for this process's.
func New(o Outbox, clock outbox.Clock) *History { return &History{outbox: o, clock: clock} }

// levels are how many deliveries were not over, at most.
type levels struct {
	All       int64            `json:"all"`
	Endpoints map[string]int64 `json:"endpoints,omitempty"` // those without any are left out
	Cut       bool             `json:"cut,omitempty"`       // so are some that had a few
}

// day is the body of a document.
type day struct {
	Hours [24]*levels `json:"hours"` // by the hour of the day; nil if nothing is known of it
}

func (h *History) now() time.Time {
	now := time.Now()
	if h.clock != nil {
		now = h.clock.At(now)
	}
	return now.UTC()
}

// Look counts, and writes what is new. Errors: those of the outbox.
func (h *History) Look(ctx context.Context) error {
	counts, err := h.outbox.Counts(ctx)
	if err != nil {
		return fmt.Errorf("count the backlog: %w", err)
	}
	hour := h.now().Truncate(time.Hour)
	if !hour.Equal(h.hour) {
		h.hour, h.known = hour, nil
	}
	seen := present(counts)
	if h.known != nil && !seen.exceeds(h.known) {
		return nil
	}
	return h.write(ctx, seen)
}

// present is what is so now.
func present(counts map[string]outbox.Counts) *levels {
	l := &levels{Endpoints: map[string]int64{}}
	for name, c := range counts {
		if c.Pending > 0 {
			l.All += c.Pending
			l.Endpoints[name] = c.Pending
		}
	}
	l.bound()
	return l
}

// waiting is an endpoint's backlog.
type waiting struct {
	name string
	n    int64
}

// largest are the endpoints, the largest backlog first.
func (l *levels) largest() (all []waiting) {
	for name, n := range l.Endpoints {
		all = append(all, waiting{name, n})
	}
	sorting.By(all, func(a, b waiting) int { return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.name, b.name)) })
	return all
}

// bound leaves out the endpoints with the smallest backlogs.
func (l *levels) bound() {
	if len(l.Endpoints) <= MaxEndpoints {
		return
	}
	for _, w := range l.largest()[MaxEndpoints:] {
		delete(l.Endpoints, w.name)
	}
	l.Cut = true
}

// exceeds tells whether more waited than is written.
func (l *levels) exceeds(written *levels) bool {
	more := func(n, than int64) bool { return float64(n) > rise*float64(than) }
	if more(l.All, written.All) {
		return true
	}
	least := int64(0)                                                      // that an endpoint needs to be among those that are written
	if all := written.largest(); written.Cut && len(all) >= MaxEndpoints { // another version may have kept fewer
		least = all[MaxEndpoints-1].n
	}
	for name, n := range l.Endpoints {
		if more(n, max(least, written.Endpoints[name])) {
			return true
		}
	}
	return false
}

// add keeps the larger of both.
func (l *levels) add(o *levels) {
	l.All = max(l.All, o.All)
	if l.Endpoints == nil {
		l.Endpoints = map[string]int64{}
	}
	for name, n := range o.Endpoints {
		l.Endpoints[name] = max(l.Endpoints[name], n)
	}
	l.Cut = l.Cut || o.Cut
	l.bound()
}

// write puts what was seen into the document of the day, unless another Relay saw as much. Where another one
// writes at the same time, the next look tries again.
func (h *History) write(ctx context.Context, seen *levels) error {
	name := h.hour.Format(time.DateOnly)
	today, revision, err := h.read(ctx, name)
	if err != nil {
		return err
	}
	at := today.Hours[h.hour.Hour()]
	if at == nil {
		at = &levels{}
		today.Hours[h.hour.Hour()] = at
	} else if !seen.exceeds(at) {
		h.known = at
		return nil
	}
	at.add(seen)
	body, err := json.Marshal(today)
	if err != nil {
		return fmt.Errorf("write the backlog: %w", err)
	}
	_, err = h.outbox.PutDocument(ctx, outbox.Document{Kind: kind, Name: name, Revision: revision, Body: body})
	if errors.Is(err, outbox.ErrConflict) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write the backlog: %w", err)
	}
	h.known = at
	if revision == 0 {
		return h.forget(ctx)
	}
	return nil
}

// read reads a day; one that is not there is empty, with revision 0.
func (h *History) read(ctx context.Context, name string) (*day, uint64, error) {
	d := &day{}
	kept, err := h.outbox.Document(ctx, kind, name)
	if err != nil && !errors.Is(err, outbox.ErrNotFound) {
		return nil, 0, fmt.Errorf("read the backlog: %w", err)
	}
	if json.Unmarshal(kept.Body, d) != nil { // also of one that is not there
		*d = day{}
	}
	return d, kept.Revision, nil
}

// forget removes the days that are no longer kept.
func (h *History) forget(ctx context.Context) error {
	all, _, err := h.outbox.Documents(ctx, kind, 0)
	if err != nil {
		return fmt.Errorf("remove old backlogs: %w", err)
	}
	first := h.hour.Add(-KeptFor).Format(time.DateOnly)
	for _, d := range all {
		if d.Name >= first {
			continue
		}
		d.Body = nil
		if _, err := h.outbox.PutDocument(ctx, d); err != nil && !errors.Is(err, outbox.ErrConflict) {
			return fmt.Errorf("remove old backlogs: %w", err)
		}
	}
	return nil
}

// Hour is the most deliveries that were not over in an hour.
type Hour struct {
	Start time.Time // UTC
	Most  int64
}

// Hours returns the hours that begin in a span and of which something is known, oldest first: of one endpoint, or
// with "" of all together. The present hour has what is so now, too. Errors: those of the outbox.
func (h *History) Hours(ctx context.Context, span outbox.Span, endpoint string) ([]Hour, error) {
	now := h.now()
	var all []Hour
	first, end := now.Add(-KeptFor), now
	if span.Since.After(first) {
		first = span.Since
	}
	if !span.Until.IsZero() && span.Until.Before(end) {
		end = span.Until
	}
	for date := first.UTC().Truncate(24 * time.Hour); !date.After(end); date = date.AddDate(0, 0, 1) {
		kept, _, err := h.read(ctx, date.Format(time.DateOnly))
		if err != nil {
			return nil, err
		}
		for hour := range 24 {
			start := date.Add(time.Duration(hour) * time.Hour)
			if most, known := kept.Hours[hour].of(endpoint); known && span.Has(start) {
				all = append(all, Hour{start, most})
			}
		}
	}
	if span.Has(now.Truncate(time.Hour)) {
		return h.withPresent(ctx, all, endpoint)
	}
	return all, nil
}

// of is the level of an endpoint, or of all with "". It is not known of one that was left out.
func (l *levels) of(endpoint string) (most int64, known bool) {
	switch {
	case l == nil: // of an hour of which nothing is written
		return 0, false
	case endpoint == "":
		return l.All, true
	}
	most, has := l.Endpoints[endpoint]
	return most, has || !l.Cut
}

// withPresent adds what is so now to the last hour, or an hour with it.
func (h *History) withPresent(ctx context.Context, all []Hour, endpoint string) ([]Hour, error) {
	counts, err := h.outbox.Counts(ctx)
	if err != nil {
		return nil, fmt.Errorf("count the backlog: %w", err)
	}
	most := counts[endpoint].Pending
	if endpoint == "" {
		for _, c := range counts {
			most += c.Pending
		}
	}
	hour := h.now().Truncate(time.Hour)
	if last := len(all) - 1; last >= 0 && all[last].Start.Equal(hour) {
		all[last].Most = max(all[last].Most, most)
		return all, nil
	}
	return append(all, Hour{hour, most}), nil
}
