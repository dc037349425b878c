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
	name  string
	turn  chan struct{} // held by the Claim that blocks; made by the first one
	wait  wait          // of the last Claim, if it found nothing
	ready []*lease      // claimed in Redis, and not yet given to anybody
	asked int           // deliveries that calls under way may bring

	maybe    uint64 // shards that may have something due
	fetching uint64 // shards that are being asked
	full     uint64 // shards where as many claims are held as may be: asked again soon

	last     outbox.ClaimRequest // of the last Claim, without Ready
	laneTold time.Time           // when Redis last heard that the endpoint is behind
	fetched  time.Time           // when the last fetch came back

	// How many deliveries were given out lately.
	window      time.Time
	given, pace int

	due   time.Time // the next retry that is known
	alarm *time.Timer
	again *time.Timer // after the bound was met
	idle  *time.Timer // while something is ready
}

// wait is that of a Claim that found nothing. The zero value is none.
type wait struct {
	ready   func()
	called  bool      // and the next Claim has not come yet
	telling bool      // Redis must hear first that the endpoint is behind
	began   time.Time // with the first of the Claims that found nothing
}

func (w *wait) call() {
	if w.ready != nil && !w.called {
		w.called = true
		w.ready()
	}
}

// lease is a delivery that this process has claimed.
type lease struct {
	claim    outbox.Claim
	ref      ref
	shard    *shard
	outbox   string // in which it was claimed
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
	paceWindow = 100 * time.Millisecond
	aheadFrom  = 8                     // given out in a window, from which on more are claimed than a Claim asks for
	aheadMost  = 256                   // deliveries that wait here for a Claim
	readyMost  = outbox.OrderSlack / 2 // how long they wait: what is handed back has lost its place in line
	spareShare = 64                    // a lease that is given to a later Claim has lost less than such a part of it
	toldEvery  = time.Second           // how often Redis hears that an endpoint is behind
)

// endpoint returns the endpoint of a name. The caller holds mu.
func (s *Store) endpoint(name string) *endpoint {
	e := s.endpoints[name]
	if e == nil {
		e = &endpoint{name: name, maybe: s.allShards()}
		s.endpoints[name] = e
	}
	return e
}

func (s *Store) allShards() uint64 { return uint64(1)<<len(s.shards) - 1 }

// Claim implements outbox.Store. What this process accepts is claimed by the accept itself while
// a Claim waits; else Redis is asked when it says that there is something.
func (s *Store) Claim(ctx context.Context, r outbox.ClaimRequest) ([]outbox.Claim, error) {
	if r.Ready == nil {
		return s.block(ctx, r)
	}
	if err := ctx.Err(); err != nil {
		s.Withdraw(r.Endpoint) // the Claim before, whose place this one takes
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, outbox.ErrClosed
	}
	e, now := s.endpoint(r.Endpoint), time.Now()
	r.Max = max(r.Max, 1)
	r.Fresh = min(max(r.Fresh, 0), r.Max)
	w := &e.wait
	if w.ready == nil || r.Lease != e.last.Lease {
		w.began = now // what was claimed for the Claim before, which waited, is for this one
	}
	if w.ready == nil || r.Behind && !e.last.Behind {
		w.telling = r.Behind && now.Sub(e.laneTold) > toldEvery
	}
	if w.telling {
		e.maybe = s.allShards()
	}
	w.ready, w.called, e.last = r.Ready, false, r
	e.last.Ready = nil
	if !w.telling {
		if claims := s.give(e); len(claims) > 0 {
			e.wait = wait{}
			return claims, nil
		}
	}
	s.seek(e)
	return nil, nil
}

// block is a Claim that waits for its turn, and then for work.
func (s *Store) block(ctx context.Context, r outbox.ClaimRequest) ([]outbox.Claim, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	e := s.endpoint(r.Endpoint)
	if e.turn == nil {
		e.turn = make(chan struct{}, 1)
	}
	s.mu.Unlock()
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
		return outbox.Block(ctx, s, r)
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.stop:
		return nil, outbox.ErrClosed
	}
}

// Withdraw implements outbox.Store.
func (s *Store) Withdraw(endpoint string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.endpoints[endpoint]; e != nil {
		e.wait = wait{}
	}
}

// serve calls for the next Claim when something is here for it, and asks Redis where more may
// be. The caller holds mu.
func (s *Store) serve(e *endpoint) {
	w := &e.wait
	if w.ready == nil || s.closed {
		return
	}
	if !w.telling && len(e.ready) > 0 {
		w.call()
		return
	}
	s.seek(e)
}

// seek asks Redis for what the Claim that waits has use for, where there may be something. The
// caller holds mu.
func (s *Store) seek(e *endpoint) {
	r := &e.last
	open := e.maybe &^ e.full &^ e.fetching
	want := e.room()
	if open == 0 || want <= 0 && !e.wait.telling {
		return
	}
	n := bits.OnesCount64(open)
	share := func(k int) int { return (k + n - 1) / n }
	for i, sh := range s.shards {
		if bit := uint64(1) << i; open&bit != 0 {
			f := &fetch{endpoint: e, shard: sh, max: share(max(want, 1)), lease: r.Lease, fresh: share(r.Fresh), behind: r.Behind, bound: r.FleetMax}
			e.maybe &^= bit
			e.fetching |= bit
			e.asked += f.max
			sh.claims.put(f)
		}
	}
}

// give takes what is ready for the Claim of which e has the request. Leases that are not what it asks
// for go back. The caller holds mu.
func (s *Store) give(e *endpoint) []outbox.Claim {
	if len(e.ready) == 0 {
		return nil
	}
	var claims []outbox.Claim
	var unfit []*lease
	now, taken := time.Now(), 0
	for _, h := range e.ready {
		if len(claims) == e.last.Max {
			break
		}
		taken++
		if !h.fits(e, now) {
			h.settling = true
			unfit = append(unfit, h)
			continue
		}
		if claims == nil {
			claims = make([]outbox.Claim, 0, min(len(e.ready), e.last.Max))
		}
		claims = append(claims, h.claim)
	}
	if e.ready = e.ready[taken:]; len(e.ready) == 0 {
		e.ready = nil
	}
	if len(unfit) > 0 {
		s.workers.Go(func() { s.handBack(unfit) }) // Close waits for it
	}
	e.roll(now)
	e.given += len(claims)
	return claims
}

// fits tells whether a lease is what the last Claim asks for: under its bound, and about as long. One
// that was made for this very Claim may have lost some of it on the way.
func (h *lease) fits(e *endpoint, now time.Time) bool {
	r := &e.last
	if r.FleetMax > 0 && h.bound != r.FleetMax {
		return false
	}
	return !h.sent.Before(e.wait.began) || h.claim.Until.Sub(now) >= r.Lease-r.Lease/spareShare
}

// room is how many deliveries more this process has use for: those that the Claim that waits
// asks for, and about as many as are given out in a moment, so that an endpoint that
// takes hundreds a second does not cost a round trip for each free worker. The caller holds mu.
func (e *endpoint) room() int {
	n := e.ahead() - len(e.ready) - e.asked
	if e.wait.ready != nil {
		n += e.last.Max
	}
	return max(n, 0)
}

// ahead is how many deliveries may wait here for a Claim. They would stand in the way of the
// express lane, and take the place of what others work on under a bound. With a short lease none would fit the next
// Claim, and each would lose its place in line, again and again.
func (e *endpoint) ahead() int {
	e.roll(time.Now())
	if e.pace < aheadFrom || e.last.Behind || e.last.FleetMax > 0 || e.last.Lease/spareShare < paceWindow {
		return 0
	}
	return min(e.pace, aheadMost)
}

// roll begins a new window when it is time.
func (e *endpoint) roll(now time.Time) {
	switch passed := now.Sub(e.window); {
	case passed >= 2*paceWindow:
		e.window, e.given, e.pace = now, 0, 0
	case passed >= paceWindow:
		e.window, e.given, e.pace = now, 0, e.given
	}
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

// hold takes what was claimed in Redis, for the next Claim. The caller holds mu.
func (s *Store) hold(e *endpoint, list []*lease) {
	for _, h := range list {
		s.leases[keyOf(&h.claim)] = h
	}
	e.ready = append(e.ready, list...)
	s.watchReady(e)
}

// watchReady sees to it that what no Claim comes for is handed back. The caller holds mu.
func (s *Store) watchReady(e *endpoint) {
	if len(e.ready) == 0 || e.idle != nil || s.closed {
		return
	}
	e.idle = time.AfterFunc(readyMost-time.Since(e.ready[0].sent), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		e.idle = nil
		if s.closed {
			return // Close hands all back
		}
		now := time.Now()
		if list := e.takeReady(func(h *lease) bool { return now.Sub(h.sent) >= readyMost }); len(list) > 0 {
			s.workers.Go(func() { s.handBack(list) }) // Close waits for it
		}
		s.watchReady(e)
	})
}

// takeReady takes what no Claim should get any more. The caller holds mu.
func (e *endpoint) takeReady(old func(*lease) bool) (list []*lease) {
	if len(e.ready) == 0 {
		return nil
	}
	e.ready = slices.DeleteFunc(e.ready, func(h *lease) bool {
		if !old(h) {
			return false
		}
		h.settling = true
		list = append(list, h)
		return true
	})
	return list
}

// forgetEnded forgets leases that ended unnoticed.
func (s *Store) forgetEnded() {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, h := range s.leases {
		if now.Sub(h.claim.Until) > time.Minute {
			delete(s.leases, key)
		}
	}
}

func (s *Store) handBack(list []*lease) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := s.release(ctx, list); err != nil {
		s.log.Warn().Err(err).Msg("deliveries that nobody came for were not handed back: they come again when the lease ends")
	}
}
