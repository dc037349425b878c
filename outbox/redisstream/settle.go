package redisstream

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"relay/outbox"
)

// settlement is one on its way in. One without a delivery only waits for those
// before it.
type settlement struct {
	lease   *lease
	record  record
	kept    []byte     // the record as kept
	strict  bool       // its caller waits, and a lease that has ended is lost
	release bool       // the delivery is handed back as it was: there is no record
	slot    bool       // it holds one of the slots
	over    bool       // it has its answer
	done    chan error // nil when nobody waits
}

// settleSoon is how much of a lease must be left for a settlement that nobody
// waits for: it may take so long to Redis.
const settleSoon = time.Second

// Settle implements outbox.Store. It waits for Redis only when the lease is about
// to end, or when 1,024 settlements wait already.
func (s *Store) Settle(ctx context.Context, c outbox.Claim, o outbox.Settlement) error {
	if o.State != outbox.Pending && !o.State.Final() {
		return fmt.Errorf("settle delivery %s: %q is not a state to settle as", c.ID, o.State)
	}
	if err := s.slot(ctx); err != nil { // before the claim is given up here
		return err
	}
	free := func(err error) error {
		s.slots.give(1)
		return err
	}
	h, err := s.letGo(ctx, c)
	if err != nil {
		return free(err)
	}
	m := newSettlement(h)
	m.slot = true
	m.record = record{state: o.State, attempts: h.claim.Attempts + 1, due: h.claim.Due.UnixMicro(), last: o.Attempt}
	if o.State == outbox.Pending {
		m.record.due = ceilMicro(o.Due)
		s.events.add(c.Event) // for the next attempt
	} else {
		m.record.finished = h.shard.clock.at(time.Now()).UnixMicro()
	}
	packHeads(&m.record.last, &h.claim)
	m.kept = m.record.encode()
	if m.strict = time.Until(h.claim.Until) < settleSoon; m.strict {
		m.done = make(chan error, 1)
	}
	h.shard.settles.put(m)
	if !m.strict {
		return nil
	}
	select {
	case err := <-m.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ended:
		return outbox.ErrClosed
	}
}

// slot waits for one of the slots.
func (s *Store) slot(ctx context.Context) error {
	for {
		more := s.slots.take()
		if more == nil {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.stop:
			return outbox.ErrClosed
		}
	}
}

func newSettlement(h *lease) *settlement {
	return &settlement{lease: h}
}

// answer tells the caller that waits for the settlement.
func (m *settlement) answer(err error) {
	if m.done != nil {
		m.done <- err
	}
}

// ceilMicro rounds up, since nothing may be claimed before its due time.
func ceilMicro(t time.Time) int64 {
	n := t.UnixMicro()
	if time.UnixMicro(n).Before(t) {
		n++
	}
	return n
}

// letGo takes a claim out of what this process holds. A claim that it does not
// hold may be of the process before it: then Redis must say what is known.
func (s *Store) letGo(ctx context.Context, c outbox.Claim) (*lease, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, outbox.ErrClosed
	}
	h := s.leases[keyOf(&c)]
	ended := h != nil && h.settling
	if h != nil {
		h.settling = true
	}
	s.mu.Unlock()
	if h == nil {
		return s.foreign(ctx, c)
	}
	if ended || !time.Now().Before(h.claim.Until) {
		return nil, outbox.ErrLeaseLost
	}
	return h, nil
}

// foreign rebuilds what is known of a claim that is not this process's own.
func (s *Store) foreign(ctx context.Context, c outbox.Claim) (*lease, error) {
	index := shardOf(c.Fence)
	part := strings.SplitN(strings.TrimPrefix(c.ID, "dlv_"), "_", 3)
	if index >= len(s.shards) || len(part) != 3 {
		return nil, outbox.ErrLeaseLost
	}
	sh := s.shards[index]
	order, err1 := strconv.ParseInt(part[0], 36, 64)
	n, err2 := strconv.Atoi(part[1])
	if err1 != nil || err2 != nil {
		return nil, outbox.ErrLeaseLost
	}
	if err := s.flush(ctx); err != nil {
		return nil, err
	}
	joined, err := sh.session()
	if err != nil {
		return nil, err
	}
	node, err := sh.node(ctx)
	if err != nil {
		return nil, sh.note(err)
	}
	v, err := node.HMGet(ctx, sh.event(c.EventID), part[1], "r"+part[1], "o", "e").Result()
	if isStray(err) {
		sh.stray(c.EventID)
		return nil, outbox.ErrLeaseLost // the event is gone
	}
	if err != nil {
		return nil, sh.note(err)
	}
	kept, _ := v[3].(string)
	e, endpoints, err := decodeEvent(c.EventID, kept)
	if err != nil {
		return nil, outbox.ErrLeaseLost // the event is gone
	}
	h := &lease{
		claim: c, ref: ref{order: order, n: n, total: len(endpoints), event: c.EventID},
		shard: sh, outbox: joined.outbox, times: timesOf(c.Fence), waited: orderOf(c.Fence) != order,
	}
	h.claim.Until, h.claim.Event = time.Time{}, e // Redis decides
	if err := h.fill(v[:3]); err != nil {
		return nil, outbox.ErrLeaseLost
	}
	h.claim.Due = c.Due
	return sh.place(ctx, h)
}

// place finds the entry that a foreign claim is of.
func (sh *shard) place(ctx context.Context, h *lease) (*lease, error) {
	node, err := sh.node(ctx)
	if err != nil {
		return nil, sh.note(err)
	}
	h.entry = entry{'q', orderOf(h.claim.Fence), 0}
	if h.waited {
		return h, nil
	}
	h.entry.n = int64(h.ref.n)
	id := h.entry.id()
	in, err := node.XRangeN(ctx, sh.lane(h.claim.Endpoint), id, id, 1).Result()
	if err != nil {
		return nil, sh.note(err)
	}
	if len(in) > 0 {
		h.entry.line = 'x'
	}
	return h, nil
}

// commitSettles brings settlements in, however long that takes, in their order.
func (sh *shard) commitSettles(list []*settlement) {
	real := make([]*settlement, 0, len(list))
	for _, m := range list {
		if m.lease != nil {
			real = append(real, m)
		}
	}
	backoff := retryFirst / 5
	for len(real) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		err := sh.trySettles(ctx, real)
		cancel()
		real = slices.DeleteFunc(real, func(m *settlement) bool { return m.over })
		if err == nil {
			break
		}
		select {
		case <-sh.s.ended:
			sh.s.log.Warn().Int("events", len(real)).Err(err).Msg("settlements were not recorded: these attempts are made again")
		case <-time.After(backoff/2 + mathrand.N(backoff)):
			backoff = min(2*backoff, retryMost)
			continue
		}
		for _, m := range real {
			m.answer(err)
		}
		break
	}
	freed := 0
	for _, m := range list {
		if m.lease == nil {
			m.answer(nil)
		}
		if m.slot {
			freed++
		}
	}
	sh.s.slots.give(freed)
}

// settled tells of settlements. The answer has '1' for each whose claim held, 'w' where it did and the event was
// overwritten; an empty one says that all are lost.
func (sh *shard) settled(list []*settlement, answer string) {
	s := sh.s
	held := func(i int) bool { return answer != "" && answer[i] != '0' }
	s.mu.Lock()
	for i, m := range list {
		h := m.lease
		m.over = true
		delete(s.leases, keyOf(&h.claim))
		if e := s.endpoints[h.claim.Endpoint]; e != nil && held(i) {
			if m.record.state == outbox.Pending && !s.closed {
				s.wakeAt(e, sh.clock.moment(time.UnixMicro(m.record.due)))
			}
			s.freed(sh, e)
		}
	}
	s.mu.Unlock()
	for i, m := range list {
		if held(i) {
			if answer[i] == 'w' {
				sh.stray(m.lease.ref.event)
			}
			m.answer(nil)
			continue
		}
		m.answer(outbox.ErrLeaseLost)
		if h := m.lease; !m.strict {
			s.log.Warn().Str("endpoint", h.claim.Endpoint).Str("event_id", h.ref.event).Str("delivery_id", h.claim.ID).
				Msg("an attempt was recorded too late: its lease is lost and it is made again")
		}
	}
}

// Release implements outbox.Store.
func (s *Store) Release(ctx context.Context, claims ...outbox.Claim) error {
	var list []*lease
	for _, c := range claims {
		h, err := s.letGo(ctx, c)
		switch {
		case errors.Is(err, outbox.ErrLeaseLost):
		case err != nil:
			return err
		default:
			list = append(list, h)
		}
	}
	return s.release(ctx, list)
}

// release hands back claims that are settling already, in calls of its own.
func (s *Store) release(ctx context.Context, list []*lease) error {
	byShard := map[*shard][]*settlement{}
	for _, h := range list {
		m := newSettlement(h)
		m.strict, m.release = true, true
		byShard[h.shard] = append(byShard[h.shard], m)
	}
	for sh, list := range byShard {
		for some := range slices.Chunk(list, settleGroup) {
			if err := sh.trySettles(ctx, some); err != nil {
				s.disown(byShard)
				return err
			}
		}
		s.mu.Lock()
		for _, m := range list {
			if e := s.endpoints[m.lease.claim.Endpoint]; e != nil {
				e.maybe |= 1 << sh.index
				e.full &^= 1 << sh.index
				s.serve(e)
			}
		}
		s.mu.Unlock()
	}
	return nil
}

// disown forgets the claims that could not be handed back: Redis has them, perhaps, for as long as their lease, and the shards
// look for claims of which nobody knows.
func (s *Store) disown(byShard map[*shard][]*settlement) {
	for sh, list := range byShard {
		s.mu.Lock()
		for _, m := range list {
			if !m.over {
				delete(s.leases, keyOf(&m.lease.claim))
			}
		}
		s.mu.Unlock()
		sh.mu.Lock()
		sh.unsure = time.Now()
		sh.mu.Unlock()
	}
}

// flush waits until the settlements that are in line are committed.
func (s *Store) flush(ctx context.Context) error {
	var list []*settlement
	for _, sh := range s.shards {
		m := &settlement{done: make(chan error, 1)}
		sh.settles.put(m)
		list = append(list, m)
	}
	for _, m := range list {
		select {
		case <-m.done:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.stop:
			return nil
		}
	}
	return nil
}
