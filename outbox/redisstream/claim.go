package redisstream

import (
	"context"
	"math"
	"math/bits"
	"slices"
	"time"

	"relay/outbox"
)

// endpoint is what this process knows of an endpoint that it claims from.
type endpoint struct {
	name     string
	waiters  []*waiter           // claims that wait, first come first
	ahead    []*held             // leased, and not yet given to anybody; oldest due first
	since    time.Time           // the last claim
	last     outbox.ClaimRequest // that one: its lease and bound hold for all that wait
	reserved int                 // deliveries that accepts under way may lease
	fetching uint64              // shards with a fetch under way
	asked    int                 // deliveries that fetches under way may lease
	maybe    uint64              // shards where something may be due
	news     uint64              // of these: it may be due before what is here
	checking uint64              // shards with a fetch under way that may bring what is due before what comes meanwhile
	issued   uint64              // fetches so far
	newsDue  int64               // not before that, while there is news
	checkDue int64               // the same of fetches under way

	due   time.Time // the next retry that is known
	alarm *time.Timer
	ends  time.Time // the first end of a lease that was given out, or before it

	full    uint64 // shards where as many claims are held as may be: asked again soon
	counted uint64 // shards whose claims made without a bound count for the bound, too
	again   *time.Timer

	coming    int  // retries that are due very soon, on their way to Redis
	returning int  // deliveries that were ahead, on their way back to Redis
	refitting bool // what was ahead gets other leases

	// How many deliveries were given out lately, to lease as many ahead as are
	// gone in a moment.
	window      time.Time
	given, pace int
}

// waiter is a Claim that waits.
type waiter struct {
	max   int
	fresh int // of these, at most, are the newest
	lease time.Duration
	began time.Time

	// A claim of the newest waits until Redis was asked on its behalf.
	unseen  uint64              // shards that were not
	since   uint64              // fetches issued after this one count
	patient bool                // it has waited a second time
	got     chan []outbox.Claim // has room for the one answer
}

// held is a delivery that this process has leased.
type held struct {
	claim  outbox.Claim
	ref    ref
	shard  *shard
	member string // in the set of leases
	lease  time.Duration
	due    int64

	newest  bool   // it was leased out of turn
	bounded bool   // it counts for the bound of the fleet
	waited  bool   // it was among those that wait again
	before  string // its last record, "" for none
}

const (
	paceWindow = 100 * time.Millisecond
	aheadMost  = 256 // deliveries of an endpoint that are leased ahead
	aheadFrom  = 8   // given out in a window, from which on it is worth it
	aheadSlack = 2 * time.Second
)

func newHeld(sh *shard, r ref, endpoint string, fence uint64, lease time.Duration, sent time.Time, event *outbox.Event) *held {
	h := &held{
		claim: outbox.Claim{Delivery: outbox.Delivery{EventID: r.event, Endpoint: endpoint, State: outbox.Pending}, Fence: fence},
		ref:   r, shard: sh, member: member(fence, r, endpoint), lease: lease,
	}
	h.begin(r.order, event, sent)
	return h
}

// begin completes what only Redis could say: the order of the event.
func (h *held) begin(order int64, event *outbox.Event, sent time.Time) {
	h.ref.order, h.due = order, order
	created := h.ref.created()
	h.claim.ID, h.claim.Due, h.claim.Created = h.ref.deliveryID(), created, created
	h.claim.Event, h.claim.Until = event, sent.Add(h.lease)
}

// endpoint returns the endpoint of a name. The caller holds mu.
func (s *Store) endpoint(name string) *endpoint {
	e := s.endpoints[name]
	if e == nil {
		all := uint64(1)<<len(s.shards) - 1
		e = &endpoint{name: name}
		e.hear(all, 0)
		s.endpoints[name] = e
	}
	return e
}

// Claim implements outbox.Store. What this process accepted comes from memory;
// Redis is read when it says that there is more.
func (s *Store) Claim(ctx context.Context, r outbox.ClaimRequest) ([]outbox.Claim, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, outbox.ErrClosed
	}
	e := s.endpoint(r.Endpoint)
	if r.FleetMax != e.last.FleetMax {
		s.rebound(e, r.FleetMax)
	}
	w := &waiter{max: max(r.Max, 1), lease: r.Lease, began: time.Now(), got: make(chan []outbox.Claim, 1)}
	w.fresh = min(max(r.Fresh, 0), w.max)
	w.ask(e)
	e.waiters = append(e.waiters, w)
	e.last, e.since = r, w.began
	s.serve(e)
	s.mu.Unlock()

	select {
	case claims := <-w.got:
		return claims, nil
	case <-ctx.Done():
	case <-s.stop:
	}
	s.mu.Lock()
	e.waiters = slices.DeleteFunc(e.waiters, func(x *waiter) bool { return x == w })
	s.mu.Unlock()
	select {
	case claims := <-w.got: // it came at the last moment
		return claims, nil
	default:
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, outbox.ErrClosed
}

// serve gives claims that wait what there is, and asks Redis where more may be.
// The caller holds mu.
func (s *Store) serve(e *endpoint) {
	if s.closed {
		return
	}
	if e.coming > 0 {
		return // settled calls again: what comes may be the oldest
	}
	if e.refitting {
		return // refit calls again: what is being extended may be the oldest, or the newest
	}
	if e.returning > 0 || e.unbounded() {
		return // handBackAhead calls again: what goes back may be the oldest, or the newest
	}
	s.checkEnds(e)
	for {
		w, list := e.match()
		if w == nil {
			break
		}
		now := time.Now()
		if i := slices.IndexFunc(list, func(h *held) bool { return !h.fits(w, now) }); i >= 0 {
			if i == 0 || w.fresh > 0 {
				s.refit(e, w.lease)
				return
			}
			list = list[:i]
		}
		claims := make([]outbox.Claim, len(list))
		for i, h := range list {
			claims[i] = h.claim
			e.endsBy(h.claim.Until)
		}
		if w.fresh == 0 {
			e.ahead = e.ahead[len(list):]
		} else {
			e.ahead = slices.DeleteFunc(e.ahead, func(h *held) bool { return slices.Contains(list, h) })
		}
		e.waiters = slices.DeleteFunc(e.waiters, func(x *waiter) bool { return x == w })
		e.give(len(claims), now)
		w.got <- claims
	}
	want := e.demand()
	if e.news != 0 && len(e.waiters) > 0 {
		want = max(want, e.waiters[0].max) // those ahead wait for what may be older
	}
	open := e.maybe &^ e.full
	if open == 0 || want+e.demandFresh() == 0 || len(e.waiters) == 0 && want < e.target()/2 {
		return
	}
	share := func(n int) int { return (n + bits.OnesCount64(open) - 1) / bits.OnesCount64(open) }
	fresh := share(e.demandFresh())
	want = max(share(want), fresh)
	for i, sh := range s.shards {
		if bit := uint64(1) << i; open&bit != 0 && e.fetching&bit == 0 {
			if e.news&bit != 0 {
				e.check(bit, e.newsDue)
			} else if len(s.shards) == 1 {
				e.check(bit, e.youngest()) // what an accept leases meanwhile may be younger than what this brings
			}
			e.maybe &^= bit
			e.news &^= bit
			e.fetching |= bit
			e.asked += want
			e.issued++
			f := &fetch{endpoint: e, number: e.issued, max: want, fresh: fresh, lease: e.leaseAhead(), shard: sh}
			f.bound, f.count = s.boundIn(sh, e.last.FleetMax), e.counted&bit == 0
			sh.claims.put(f)
		}
	}
}

// match returns the claim that is answered next, and what it gets of those ahead: the
// oldest and, where it asks for them, the newest. Without an answer the claim is nil.
func (e *endpoint) match() (w *waiter, list []*held) {
	i := slices.IndexFunc(e.waiters, func(w *waiter) bool { return w.unseen == 0 })
	if i < 0 {
		return nil, nil
	}
	if w = e.waiters[i]; w.fresh == 0 {
		list = e.ahead[:min(w.max, e.clear())]
	} else if list = e.mix(w); list == nil {
		return nil, nil
	}
	if len(list) == 0 {
		return nil, nil
	}
	return w, list
}

// mix is what a claim gets that asks for some of the newest. It is nil when the claim
// should wait, once, for a fetch that tells whether the rest are the oldest.
func (e *endpoint) mix(w *waiter) []*held {
	var newest []*held
	for _, h := range slices.Backward(e.ahead) {
		if len(newest) < w.fresh && h.claim.Attempts == 0 {
			newest = append(newest, h)
		}
	}
	slices.Reverse(newest)
	rest := min(w.max, len(e.ahead)) - len(newest)
	first := slices.DeleteFunc(slices.Clone(e.ahead[:e.clear()]), func(h *held) bool { return slices.Contains(newest, h) })
	first = first[:min(rest, len(first))]
	if len(first) < rest && !w.patient && e.open() != 0 {
		w.patient = true
		w.ask(e)
		return nil
	}
	return append(first, newest...)
}

// ask makes a claim of the newest wait for fetches that are not issued yet.
func (w *waiter) ask(e *endpoint) {
	if w.fresh > 0 {
		w.unseen, w.since = e.open(), e.issued
	}
}

// open are the shards that are asked now or may be, for what is there.
func (e *endpoint) open() uint64 { return e.maybe&^e.full | e.fetching }

// checkEnds makes news of what time alone has brought: a retry that is due, a
// lease of ours that has ended. The caller holds mu.
func (s *Store) checkEnds(e *endpoint) {
	now := time.Now()
	passed := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	if len(e.ahead) == 0 || !passed(e.due) && !passed(e.ends) {
		return
	}
	all := uint64(1)<<len(s.shards) - 1
	e.hear(all, 0)
	e.ends = time.Time{}
	for _, h := range s.held {
		if h.claim.Endpoint == e.name && h.claim.Until.After(now) {
			e.endsBy(h.claim.Until)
		}
	}
}

// endsBy notes the end of a lease.
func (e *endpoint) endsBy(t time.Time) {
	if e.ends.IsZero() || t.Before(e.ends) {
		e.ends = t
	}
}

// hear notes that shards may have something that is due since a time, in
// microseconds: what is ahead and due after it waits until they were asked.
func (e *endpoint) hear(shards uint64, due int64) {
	if e.news == 0 || due < e.newsDue {
		e.newsDue = due
	}
	e.maybe, e.news = e.maybe|shards, e.news|shards
}

// check notes that a fetch is on its way to what may be due since a time.
func (e *endpoint) check(shard uint64, due int64) {
	if e.checking == 0 || due < e.checkDue {
		e.checkDue = due
	}
	e.checking |= shard
}

// youngest is the due time of the last delivery ahead, 0 when there is none.
func (e *endpoint) youngest() int64 {
	if len(e.ahead) == 0 {
		return 0
	}
	return e.ahead[len(e.ahead)-1].due
}

// clear is how many of the deliveries ahead are certainly the oldest.
func (e *endpoint) clear() int {
	until := int64(math.MaxInt64)
	if e.news != 0 {
		until = e.newsDue
	}
	if e.checking != 0 {
		until = min(until, e.checkDue)
	}
	if n := slices.IndexFunc(e.ahead, func(h *held) bool { return h.due > until }); n >= 0 {
		return n
	}
	return len(e.ahead)
}

// fits tells whether a lease is about what a claim asks for now. One that was made, or extended,
// for this very claim may have lost more of it on the way: to ask again might take as long.
func (h *held) fits(w *waiter, now time.Time) bool {
	left, used := h.claim.Until.Sub(now), w.lease/64
	if h.claim.Until.Add(-h.lease).After(w.began) {
		used = w.lease / 4
	}
	return left >= w.lease-used && left <= w.lease+2*aheadSlack
}

// refit moves the end of the leases ahead to what is asked for now. The caller
// holds mu.
func (s *Store) refit(e *endpoint, lease time.Duration) {
	list, bound := e.ahead, e.last.FleetMax
	e.ahead, e.asked, e.refitting = nil, e.asked+len(list), true
	s.lanes.Go(func() { // Close waits for it, to hand back what it extends
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		kept, err := s.extend(ctx, list, lease)
		if err != nil {
			kept = nil // they come again when their lease ends
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		e.asked -= len(list)
		e.refitting = false
		for _, h := range kept {
			h.bounded = h.bounded && bound == e.last.FleetMax
		}
		e.merge(kept)
		if len(kept) < len(list) { // the others are in Redis again
			e.hear(1<<len(s.shards)-1, 0)
			for _, w := range e.waiters {
				w.ask(e)
			}
		}
		s.serve(e)
	})
}

// demand is how many deliveries more can be leased. The caller holds mu.
func (e *endpoint) demand() int {
	n := e.target() - len(e.ahead) - e.reserved - e.asked
	for _, w := range e.waiters {
		n += w.max
	}
	return max(n, 0)
}

// demandFresh is how many of the newest are asked for. The caller holds mu.
func (e *endpoint) demandFresh() (n int) {
	for _, w := range e.waiters {
		if w.unseen != 0 {
			n += w.fresh
		}
	}
	return n
}

// give notes that n deliveries were given out.
func (e *endpoint) give(n int, now time.Time) {
	e.turn(now)
	e.given += n
}

func (e *endpoint) turn(now time.Time) {
	switch passed := now.Sub(e.window); {
	case passed >= 2*paceWindow:
		e.window, e.given, e.pace = now, 0, 0
	case passed >= paceWindow:
		e.window, e.given, e.pace = now, 0, e.given
	}
}

// target is how many deliveries to lease ahead: about what is given out in a
// moment, so that none waits here while another Relay has time for it. What is ahead would
// stand in the way of the newest, and take the place of what others work on under a bound.
func (e *endpoint) target() int {
	e.turn(time.Now())
	if e.pace < aheadFrom || e.last.Fresh > 0 || e.last.FleetMax > 0 {
		return 0
	}
	return min(e.pace, aheadMost)
}

func (e *endpoint) leaseAhead() time.Duration {
	if e.target() > 0 {
		return e.last.Lease + aheadSlack
	}
	return e.last.Lease
}

// merge puts deliveries ahead, oldest due first.
func (e *endpoint) merge(list []*held) {
	e.ahead = append(e.ahead, list...)
	slices.SortStableFunc(e.ahead, func(a, b *held) int {
		if a.due != b.due {
			return int(max(-1, min(1, a.due-b.due)))
		}
		return int(max(-1, min(1, a.ref.order-b.ref.order)))
	})
}
