package redisstream

import (
	"context"
	"math/bits"
	"slices"
	"time"

	"relay/outbox"
)

// endpoint is what this process knows of an endpoint that it claims from.
type endpoint struct {
	name   string
	turn   chan struct{} // held by the Claim that is under way
	waiter *waiter       // that Claim, while it waits
	ready  []*held       // claimed in Redis, and not yet given to anybody
	asked  int           // deliveries that calls under way may bring

	maybe    uint64 // shards that may have something due
	fetching uint64 // shards that are being asked
	full     uint64 // shards where as many claims are held as may be: asked again soon

	laneTold time.Time // when Redis last heard that the endpoint is behind
	batch    int       // how many the last fetch asked for
	fetched  time.Time // when it came back

	due   time.Time // the next retry that is known
	alarm *time.Timer
	again *time.Timer // after the bound was met
}

// waiter is a Claim that waits.
type waiter struct {
	outbox.ClaimRequest
	began   time.Time
	telling bool                // Redis must hear first that the endpoint is behind
	got     chan []outbox.Claim // has room for the one answer
}

// held is a delivery that this process has claimed.
type held struct {
	claim    outbox.Claim
	ref      ref
	shard    *shard
	entry    entry
	times    uint64    // how often the entry was claimed, this claim included
	sent     time.Time // when Redis was asked
	deadline int64     // by the clock of Redis, in microseconds: nobody takes the claim over before
	bound    int       // of the fleet, under which it was claimed
	waited   bool      // the delivery has come back to the line
	before   string    // its last record, "" for none
	settling bool      // its end is on its way to Redis
}

// claimKey names a claim within this process.
type claimKey struct {
	endpoint string
	fence    uint64
}

func keyOf(c *outbox.Claim) claimKey { return claimKey{c.Endpoint, c.Fence} }

const (
	batchMost   = 256                    // deliveries that a fetch asks for beyond what a Claim does
	batchWithin = 100 * time.Millisecond // in which a fetch must have been given out for the next one to be larger
	readyMost   = time.Second            // how long deliveries wait here for a Claim
	toldEvery   = time.Second            // how often Redis hears that an endpoint is behind
)

// endpoint returns the endpoint of a name. The caller holds mu.
func (s *Store) endpoint(name string) *endpoint {
	e := s.endpoints[name]
	if e == nil {
		e = &endpoint{name: name, turn: make(chan struct{}, 1), maybe: s.allShards()}
		s.endpoints[name] = e
	}
	return e
}

func (s *Store) allShards() uint64 { return uint64(1)<<len(s.shards) - 1 }

// Claim implements outbox.Store. What this process accepts is claimed by the accept itself while
// a Claim waits; else Redis is asked when it says that there is something.
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
	s.mu.Unlock()
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.stop:
		return nil, outbox.ErrClosed
	}
	r.Max = max(r.Max, 1)
	r.Fresh = min(max(r.Fresh, 0), r.Max)
	w := &waiter{ClaimRequest: r, began: time.Now(), got: make(chan []outbox.Claim, 1)}
	s.mu.Lock()
	if w.telling = r.Behind && time.Since(e.laneTold) > toldEvery; w.telling {
		e.maybe = s.allShards()
	}
	e.waiter = w
	s.serve(e)
	s.mu.Unlock()
	return s.await(ctx, e, w)
}

// await waits for the answer to a Claim.
func (s *Store) await(ctx context.Context, e *endpoint, w *waiter) ([]outbox.Claim, error) {
	select {
	case claims := <-w.got:
		return claims, nil
	case <-ctx.Done():
	case <-s.stop:
	}
	s.mu.Lock()
	e.waiter = nil
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

// serve gives the Claim that waits what is here, and asks Redis where more may be. The
// caller holds mu.
func (s *Store) serve(e *endpoint) {
	w := e.waiter
	if w == nil || s.closed {
		return
	}
	s.giveUp(e, func(h *held) bool { return !h.fits(w) })
	if !w.telling && e.answer(w) {
		return
	}
	open := e.maybe &^ e.full &^ e.fetching
	want := e.room() - e.asked
	if open == 0 || want <= 0 && !w.telling {
		return
	}
	n := bits.OnesCount64(open)
	share := func(k int) int { return (k + n - 1) / n }
	for i, sh := range s.shards {
		if bit := uint64(1) << i; open&bit != 0 {
			f := &fetch{endpoint: e, shard: sh, max: share(max(want, 1)), lease: w.Lease, fresh: share(w.Fresh), behind: w.Behind, bound: w.FleetMax}
			e.maybe &^= bit
			e.fetching |= bit
			e.asked += f.max
			sh.claims.put(f)
		}
	}
}

// answer gives a Claim what is ready, and tells whether there was something.
func (e *endpoint) answer(w *waiter) bool {
	n := min(len(e.ready), w.Max)
	if n == 0 {
		return false
	}
	claims := make([]outbox.Claim, n)
	for i, h := range e.ready[:n] {
		claims[i] = h.claim
	}
	if e.ready = e.ready[n:]; len(e.ready) == 0 {
		e.ready = nil
	}
	e.waiter = nil
	w.got <- claims
	return true
}

// fits tells whether a claim is what a Claim asks for: made under its bound, and about as long. One that was made for this very
// Claim may have lost some of it on the way.
func (h *held) fits(w *waiter) bool {
	if w.FleetMax > 0 && h.bound != w.FleetMax {
		return false
	}
	return !h.sent.Before(w.began) || time.Until(h.claim.Until) >= w.Lease-w.Lease/64
}

// room is how many deliveries the Claim that waits has room for. While what fetches bring is
// gone in a moment each asks for twice as many as the one before, so that a backlog does not
// cost a round trip for each free worker. What waits here would stand in the way of the
// express lane, and take the place of what others work on under a bound. The caller holds mu.
func (e *endpoint) room() int {
	w := e.waiter
	if w.Behind || w.FleetMax > 0 || e.batch == 0 || time.Since(e.fetched) > batchWithin {
		return w.Max
	}
	return max(w.Max, min(2*e.batch, batchMost))
}

// boundIn is a shard's part of a bound on claims: at least one, since each shard may
// have something that is due.
func (s *Store) boundIn(sh *shard, bound int) int {
	if bound == 0 {
		return 0
	}
	n := len(s.shards)
	return max(1, (bound+n-1-sh.index)/n)
}

// hold takes what was claimed in Redis, for whoever claims next. The caller holds mu.
func (s *Store) hold(e *endpoint, list []*held) {
	for _, h := range list {
		s.held[keyOf(&h.claim)] = h
	}
	e.ready = append(e.ready, list...)
}

// takeReady takes what no Claim should get any more. The caller holds mu.
func (e *endpoint) takeReady(old func(*held) bool) (list []*held) {
	if len(e.ready) == 0 {
		return nil
	}
	e.ready = slices.DeleteFunc(e.ready, func(h *held) bool {
		if !old(h) {
			return false
		}
		h.settling = true
		list = append(list, h)
		return true
	})
	return list
}

// giveUp hands back what no Claim should get any more. The caller holds mu.
func (s *Store) giveUp(e *endpoint, old func(*held) bool) {
	if list := e.takeReady(old); len(list) > 0 {
		s.workers.Go(func() { s.handBack(list) }) // Close waits for it
	}
}

// handBackIdle gives up what no Claim came for, and forgets leases that ended unnoticed.
func (s *Store) handBackIdle() {
	now := time.Now()
	var list []*held
	s.mu.Lock()
	for _, e := range s.endpoints {
		list = append(list, e.takeReady(func(h *held) bool { return now.Sub(h.sent) >= readyMost })...)
	}
	for key, h := range s.held {
		if now.Sub(h.claim.Until) > time.Minute {
			delete(s.held, key)
		}
	}
	s.mu.Unlock()
	s.handBack(list)
}

func (s *Store) handBack(list []*held) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := s.release(ctx, list); err != nil {
		s.log.Warn().Err(err).Msg("deliveries that nobody came for were not handed back: they come again when the lease ends")
	}
}
