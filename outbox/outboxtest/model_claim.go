package outboxtest

import (
	"context"
	"errors"
	"slices"
	"time"

	"pgregory.net/rapid"

	"relay/outbox"
)

// free tells whether d can be claimed at a time at the latest.
func (d *modelDelivery) free(at time.Time) bool {
	return d.State == outbox.Pending && !d.Due.After(at) && !d.leasedMax.After(at)
}

// before tells whether d must be claimed before other, which had been due for less time. What makes deliveries join their
// queue may be late by as much as the machine stalled.
func (d *modelDelivery) before(other *modelDelivery, stalls time.Duration) bool {
	joined := d.joined
	for _, t := range []time.Time{d.Due, d.leasedMax} {
		if t.After(joined) {
			joined = t
		}
	}
	return !d.unordered && joined.Add(outbox.OrderSlack+stalls).Before(other.Due)
}

func (m *model) claimSome(t *rapid.T) {
	endpoint := rapid.SampledFrom(m.endpoints[:]).Draw(t, "endpoint")
	r := outbox.ClaimRequest{
		Endpoint: endpoint,
		Max:      rapid.IntRange(1, 4).Draw(t, "max"),
		Lease:    m.leases[endpoint],
		Behind:   rapid.Bool().Draw(t, "behind"),
		Fresh:    rapid.SampledFrom([]int{0, 0, 1, 2, 4}).Draw(t, "fresh"),
		FleetMax: rapid.SampledFrom([]int{0, 0, 0, 2, 5}).Draw(t, "fleet"),
	}
	if m.engine.Sharded {
		r.FleetMax = 0 // each shard has a part of it
	}
	before := time.Now()
	held := 0 // at most
	var due []*modelDelivery
	for _, d := range m.deliveries() {
		if d.Endpoint == endpoint && d.free(before) {
			due = append(due, d)
		}
		if d.Endpoint == endpoint && d.leasedMax.After(before) {
			held++
		}
	}
	patience, mayWait := m.patience, len(due) == 0 || r.FleetMax > 0 && held >= r.FleetMax
	if mayWait {
		patience = min(m.unit, m.blink)
	}
	ctx, cancel := m.within(patience)
	defer cancel()
	claims, err := m.claim(ctx, r, rapid.Bool().Draw(t, "ready"))
	after := time.Now()
	if mayWait && errors.Is(err, context.DeadlineExceeded) {
		return
	}
	if err != nil || len(claims) == 0 || len(claims) > r.Max {
		t.Fatalf("Claim: %d claims, %v, with %d due and %d asked for", len(claims), err, len(due), r.Max)
	}
	held = len(claims) // at least
	for _, d := range m.deliveries() {
		if d.Endpoint == endpoint && d.leased.After(after) {
			held++
		}
	}
	if r.FleetMax > 0 && held > r.FleetMax {
		t.Fatalf("%d claims are held, with %d allowed", held, r.FleetMax)
	}
	var claimed []*modelDelivery
	for _, c := range claims {
		d := m.delivery(c.ID)
		switch {
		case d == nil || d.Endpoint != endpoint:
			t.Fatalf("event %s was claimed at %s", c.EventID, endpoint)
		case d.State != outbox.Pending || d.Due.After(after) || d.leased.After(after):
			t.Fatalf("event %s was claimed at %v, but is %s, due at %v and leased until %v", c.EventID, after, d.State, d.Due, d.leased)
		case slices.Contains(d.fences, c.Fence):
			t.Fatalf("event %s was claimed with fence %d again", c.EventID, c.Fence)
		case c.Until.Before(before.Add(r.Lease - r.Lease/64 - time.Millisecond)):
			t.Fatalf("event %s is leased until %v, want %v from %v", c.EventID, c.Until, r.Lease, before)
		}
		m.want("claimed", d.Delivery, c.Delivery)
		m.want("event", d.EventID, c.Event.ID)
		d.leased, d.leasedMax = c.Until, after.Add(r.Lease+m.way) // a server counts from when it made the claim
		d.fences = append(d.fences, c.Fence)
		m.claims = append(m.claims, c)
		claimed = append(claimed, d)
	}
	for _, d := range due {
		if !slices.Contains(claimed, d) {
			m.passedOver(t, d, claimed, r)
		}
	}
}

// claim claims, with Ready or without.
func (m *model) claim(ctx context.Context, r outbox.ClaimRequest, ready bool) ([]outbox.Claim, error) {
	if ready {
		return outbox.Block(ctx, m.store, r)
	}
	return m.store.Claim(ctx, r)
}

// passedOver checks that d, which could have been claimed, was passed over only for
// deliveries of the express lane, which have had no attempt, and for no more of them than
// were asked for.
func (m *model) passedOver(t *rapid.T, d *modelDelivery, claimed []*modelDelivery, r outbox.ClaimRequest) {
	younger, stalls := 0, m.pulse.stalls()
	for _, other := range claimed {
		if !d.before(other, stalls) {
			continue
		}
		if younger++; younger > r.Fresh || len(other.Attempts) > 0 {
			now := time.Now()
			t.Fatalf("event %s was passed over for %s: it has %d claims and %d attempts, and joined %s ago, was due %s ago, its lease ended %s ago at the latest; the other has %d claims and was due %s ago",
				d.EventID, other.EventID, len(d.fences), len(d.Attempts), now.Sub(d.joined), now.Sub(d.Due), now.Sub(d.leasedMax), len(other.fences), now.Sub(other.Due))
		}
	}
}

// noteOne writes a note, on top of the last one or of another.
func (m *model) noteOne(t *rapid.T) {
	endpoint := rapid.SampledFrom(m.endpoints[:]).Draw(t, "endpoint")
	last := m.notes[endpoint]
	last.Endpoint = endpoint
	text := rapid.SampledFrom([]string{"", "paused", "gone"}).Draw(t, "text")
	if stale := last.Revision + 1; rapid.IntRange(0, 3).Draw(t, "stale") == 0 {
		m.staleNote(stale, last)
		return
	}
	m.notes[endpoint] = m.setNote(m.store, endpoint, last.Revision, text)
}

// compareNotes compares the notes of this history.
func (m *model) compareNotes() {
	all, revision, err := m.store.Notes(m.ctx())
	if err != nil {
		m.Fatalf("Notes: %v", err)
	}
	got := map[string]outbox.Note{}
	for _, n := range all {
		if slices.Contains(m.endpoints[:], n.Endpoint) {
			got[n.Endpoint] = n
		}
		if n.Revision > revision {
			m.Errorf("note of %s has revision %d, the last is said to be %d", n.Endpoint, n.Revision, revision)
		}
	}
	m.want("notes", m.notes, got)
}
