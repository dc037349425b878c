package redisstream

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/outbox"
)

// endpoint is what this process knows of an endpoint that it claims from.
type endpoint struct {
	name     string
	waiters  []*waiter // claims that wait, first come first
	ahead    []*held   // leased, and not yet given to anybody; oldest due first
	since    time.Time // the last claim
	lease    time.Duration
	reserved int    // deliveries that accepts under way may lease
	fetching uint64 // shards with a fetch under way
	asked    int    // deliveries that fetches under way may lease
	maybe    uint64 // shards where something may be due
	news     uint64 // of these: it may be due before what is here
	checking uint64 // shards with a fetch under way that was for news

	due   time.Time // the next retry that is known
	alarm *time.Timer
	ends  time.Time // the first end of a lease that was given out, or before it

	coming int // retries that are due at once, on their way to Redis

	// How many deliveries were given out lately, to lease as many ahead as are
	// gone in a moment.
	window      time.Time
	given, pace int
}

// waiter is a Claim that waits.
type waiter struct {
	max   int
	lease time.Duration
	got   chan []outbox.Claim // has room for the one answer
}

// held is a delivery that this process has leased.
type held struct {
	claim  outbox.Claim
	ref    ref
	shard  *shard
	member string // in the set of leases
	lease  time.Duration
	due    int64

	waited bool   // it was among those that wait again
	before string // its last record, "" for none
}

const (
	paceWindow = 100 * time.Millisecond
	aheadMost  = 256 // deliveries of an endpoint that are leased ahead
	aheadFrom  = 32  // given out in a window, from which on it is worth it
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
		e = &endpoint{name: name, maybe: all, news: all}
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
	w := &waiter{max: max(r.Max, 1), lease: r.Lease, got: make(chan []outbox.Claim, 1)}
	e.waiters = append(e.waiters, w)
	e.lease, e.since = r.Lease, time.Now()
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
	if e.coming > 0 {
		return // settled calls again: what comes may be the oldest
	}
	s.checkEnds(e)
	for len(e.waiters) > 0 && len(e.ahead) > 0 {
		w := e.waiters[0]
		wait := e.news | e.checking
		if len(s.shards) > 1 && e.target() == 0 { // else the order among shards is let go
			short := e.shortOf(w.max, len(s.shards))
			e.news |= e.maybe & short
			wait |= (e.maybe | e.fetching) & short
		}
		if wait != 0 {
			break
		}
		n := min(w.max, len(e.ahead))
		now := time.Now()
		if i := slices.IndexFunc(e.ahead[:n], func(h *held) bool { return !h.fits(w.lease, now) }); i >= 0 {
			if i == 0 {
				s.refit(e, w.lease)
				return
			}
			n = i
		}
		claims := make([]outbox.Claim, n)
		for i, h := range e.ahead[:n] {
			claims[i] = h.claim
			e.endsBy(h.claim.Until)
		}
		e.ahead = e.ahead[n:]
		e.waiters = e.waiters[1:]
		e.give(n, now)
		w.got <- claims
	}
	want := e.demand()
	if e.news != 0 && len(e.waiters) > 0 {
		want = max(want, e.waiters[0].max) // those ahead wait for what may be older
	}
	if e.maybe == 0 || want == 0 || len(e.waiters) == 0 && want < e.target()/2 {
		return
	}
	if e.target() > 0 { // else the oldest come first, in whatever shard they are
		want = (want + bits.OnesCount64(e.maybe) - 1) / bits.OnesCount64(e.maybe)
	}
	for i, sh := range s.shards {
		if bit := uint64(1) << i; e.maybe&bit != 0 && e.fetching&bit == 0 {
			e.checking |= e.news & bit
			e.maybe &^= bit
			e.news &^= bit
			e.fetching |= bit
			e.asked += want
			sh.claims.put(&fetch{endpoint: e, max: want, lease: e.leaseAhead(), shard: sh})
		}
	}
}

// checkEnds makes news of what time alone has brought: a retry that is due, a
// lease of ours that has ended. The caller holds mu.
func (s *Store) checkEnds(e *endpoint) {
	now := time.Now()
	passed := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	if len(e.ahead) == 0 || !passed(e.due) && !passed(e.ends) {
		return
	}
	all := uint64(1)<<len(s.shards) - 1
	e.maybe, e.news, e.ends = e.maybe|all, e.news|all, time.Time{}
	for _, h := range s.held {
		if h.claim.Endpoint == e.name && h.claim.Until.After(now) {
			e.endsBy(h.claim.Until)
		}
	}
}

// shortOf are the shards of which less than n deliveries are ahead: if they have
// more, that may be due before what is ahead of other shards.
func (e *endpoint) shortOf(n, shards int) (short uint64) {
	count := make([]int, shards)
	for _, h := range e.ahead {
		count[h.shard.index]++
	}
	for i := range count {
		if count[i] < n {
			short |= 1 << i
		}
	}
	return short
}

// endsBy notes the end of a lease.
func (e *endpoint) endsBy(t time.Time) {
	if e.ends.IsZero() || t.Before(e.ends) {
		e.ends = t
	}
}

// look notes that a shard may have something due, and news if that may be due
// before what is here. The caller holds mu.
func (s *Store) look(e *endpoint, shards uint64, news bool) {
	e.maybe |= shards
	if news {
		e.news |= shards
	}
	s.serve(e)
}

// fits tells whether a lease is about what is asked for now.
func (h *held) fits(lease time.Duration, now time.Time) bool {
	left := h.claim.Until.Sub(now)
	return left >= lease-lease/64 && left <= lease+2*aheadSlack
}

// refit moves the end of the leases ahead to what is asked for now. The caller
// holds mu.
func (s *Store) refit(e *endpoint, lease time.Duration) {
	list := e.ahead
	e.ahead, e.checking, e.asked = nil, e.checking|1<<63, e.asked+len(list)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		kept, err := s.extend(ctx, list, lease)
		if err != nil {
			kept = nil // they come again when their lease ends
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		e.checking &^= 1 << 63
		e.asked -= len(list)
		e.merge(kept)
		s.serve(e)
	}()
}

// demand is how many deliveries more can be leased. The caller holds mu.
func (e *endpoint) demand() int {
	n := e.target() - len(e.ahead) - e.reserved - e.asked
	for _, w := range e.waiters {
		n += w.max
	}
	return max(n, 0)
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
// moment, so that none waits here while another Relay has time for it.
func (e *endpoint) target() int {
	e.turn(time.Now())
	if e.pace < aheadFrom {
		return 0
	}
	return min(e.pace, aheadMost)
}

func (e *endpoint) leaseAhead() time.Duration {
	if e.target() > 0 {
		return e.lease + aheadSlack
	}
	return e.lease
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

// fetch asks Redis for deliveries of an endpoint.
type fetch struct {
	endpoint *endpoint
	shard    *shard
	max      int
	lease    time.Duration
}

// commitClaims leases what is due for several endpoints.
func (sh *shard) commitClaims(list []*fetch) {
	for _, f := range list {
		got, next, more, err := sh.fetch(f)
		s, e := sh.s, f.endpoint
		s.mu.Lock()
		bit := uint64(1) << sh.index
		if e.checking&bit != 0 {
			e.news &^= bit // news that keeps coming must not keep back what is here: maybe stays
		}
		e.fetching &^= bit
		e.checking &^= bit
		e.asked -= f.max
		if err != nil || more {
			e.maybe |= bit
		}
		if err != nil {
			e.news |= bit // when Redis answers again everybody looks again
		}
		if err != nil {
			if lasts, _ := sh.outage(); lasts == 0 {
				s.wakeAt(e, time.Now().Add(retryMost)) // it does already, and they have looked
			}
		}
		for _, h := range got {
			s.held[h.claim.Fence] = h
		}
		e.merge(got)
		if next > 0 && !(more && next <= time.Millisecond) { // a retry that is due already comes with what is left
			s.wakeAt(e, time.Now().Add(next))
		}
		if err == nil {
			s.serve(e)
		}
		s.mu.Unlock()
	}
}

// fetch returns what it leased, when to look again (0 if that is not known), and
// whether there may be more now.
func (sh *shard) fetch(f *fetch) (got []*held, next time.Duration, more bool, err error) {
	joined, err := sh.session()
	if err != nil {
		return nil, 0, false, err
	}
	name := f.endpoint.name
	base := sh.counter.Add(uint64(f.max)) - uint64(f.max)
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	sent := time.Now()
	v, err := sh.eval(ctx, &sh.s.scripts.claim, []string{sh.lease, sh.bell, sh.backlog(name), sh.retries(name)},
		[]any{sh.prefix, name, f.max, f.lease.Microseconds(), joined.fences.prefix, base})
	if err != nil {
		return nil, 0, false, err
	}
	list, err := texts(v, 2)
	if err != nil {
		return nil, 0, false, err
	}
	if list[1] != "" {
		now, _ := strconv.ParseInt(list[0], 10, 64)
		due, _ := strconv.ParseInt(list[1], 10, 64)
		next = max(time.Millisecond, time.Duration(due-now)*time.Microsecond)
	}
	leased := (len(list) - 2) / 3 // those of them that cannot be made any more count, too
	for i := 2; i+2 < len(list); i += 3 {
		r, err := parseTail(list[i])
		if err != nil {
			sh.s.log.Error().Err(err).Str("endpoint", name).Msg("a delivery is passed over")
			continue
		}
		h := newHeld(sh, r, name, joined.fences.fence(base+uint64(i/3)), f.lease, sent, nil)
		h.due, _ = strconv.ParseInt(list[i+1], 10, 64)
		h.waited = list[i+2] == "r"
		if !h.waited {
			h.claim.Event = sh.s.events.get(r.event)
		}
		got = append(got, h)
	}
	got, err = sh.complete(ctx, got)
	return got, next, leased >= f.max, err
}

// complete reads what memory does not have: the events, and the records of
// deliveries that were settled before.
func (sh *shard) complete(ctx context.Context, list []*held) ([]*held, error) {
	missing := slices.DeleteFunc(slices.Clone(list), func(h *held) bool { return h.claim.Event != nil && !h.waited })
	if len(missing) == 0 {
		return list, nil
	}
	node, err := sh.node(ctx)
	if err != nil {
		return nil, sh.note(err)
	}
	p := node.Pipeline()
	answers := make([]*redis.SliceCmd, len(missing))
	for i, h := range missing {
		if h.claim.Event == nil {
			h.claim.Event = sh.s.events.get(h.ref.event)
		}
		if h.claim.Event == nil {
			answers[i] = p.HMGet(ctx, sh.event(h.ref.event), strconv.Itoa(h.ref.n), "o", "e")
		} else {
			answers[i] = p.HMGet(ctx, sh.event(h.ref.event), strconv.Itoa(h.ref.n), "o")
		}
	}
	if _, err := p.Exec(ctx); err != nil {
		// They are leased and unknown to anybody: as after a lost answer.
		sh.mu.Lock()
		sh.unsure = time.Now()
		sh.mu.Unlock()
		return nil, sh.note(err)
	}
	bad := map[*held]bool{}
	for i, h := range missing {
		if err := h.fill(answers[i].Val()); err != nil {
			bad[h] = true
			sh.forget(ctx, h, err)
		}
	}
	return slices.DeleteFunc(list, func(h *held) bool { return bad[h] }), nil
}

// errOver: a delivery that was to be claimed is finished already.
var errOver = errors.New("delivery is over already")

// fill takes in what complete read.
func (h *held) fill(v []any) error {
	order, _ := v[1].(string)
	if order != strconv.FormatInt(h.ref.order, 10) {
		return fmt.Errorf("event %s is gone from redis", h.ref.event)
	}
	if len(v) > 2 {
		kept, _ := v[2].(string)
		e, _, err := decodeEvent(h.ref.event, kept)
		if err != nil {
			return err
		}
		h.claim.Event = e
	}
	h.before, _ = v[0].(string)
	if h.before == "" {
		return nil
	}
	r, err := decodeRecord(h.before)
	if err != nil || r.state != outbox.Pending {
		return errors.Join(errOver, err)
	}
	h.claim.Attempts, h.claim.Code = r.attempts, r.last.Code
	h.claim.Due = time.UnixMicro(r.due).UTC()
	return nil
}

// forget ends a delivery that cannot be made.
func (sh *shard) forget(ctx context.Context, h *held, why error) {
	counted := "1"
	if errors.Is(why, errOver) {
		counted = "0"
	}
	_, err := sh.eval(ctx, &sh.s.scripts.forget, []string{sh.lease, sh.counts, sh.created(h.claim.Endpoint)},
		[]any{h.ref.tail(), h.member, h.claim.Endpoint, counted})
	sh.s.log.Error().Err(errors.Join(why, err)).Str("endpoint", h.claim.Endpoint).Str("event_id", h.ref.event).
		Str("delivery_id", h.claim.ID).Str("state", string(outbox.Discarded)).Msg("a delivery cannot be made any more")
}
