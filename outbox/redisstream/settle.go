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
	held   *held
	record record
	kept   []byte // the record as kept
	strict bool   // its caller waits, and a lease that has ended is lost
	atOnce bool   // it is a retry that may be due before Redis has it
	slot   bool   // it holds one of the slots
	done   chan error
}

// settleSoon is how much of a lease must be left for a settlement that nobody
// waits for: it may take so long to Redis.
const settleSoon = time.Second

// soon is about as long as a settlement is on its way on a busy machine.
const soon = 50 * time.Millisecond

// Settle implements outbox.Store. It waits for Redis only when the lease is about
// to end, or when 1,024 settlements wait already.
func (s *Store) Settle(ctx context.Context, c outbox.Claim, o outbox.Settlement) error {
	if o.State != outbox.Pending && !o.State.Final() {
		return fmt.Errorf("settle delivery %s: %q is not a state to settle as", c.ID, o.State)
	}
	select { // before the claim is given up here
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stop:
		return outbox.ErrClosed
	}
	free := func(err error) error {
		<-s.slots
		return err
	}
	h, err := s.letGo(ctx, c)
	if err != nil {
		return free(err)
	}
	m := &settlement{held: h, slot: true, done: make(chan error, 1)}
	m.record = record{state: o.State, attempts: h.claim.Attempts + 1, due: h.due, last: o.Attempt}
	if o.State == outbox.Pending {
		m.record.due = ceilMicro(o.Due)
		s.events.add(c.Event) // for the next attempt
	} else {
		m.record.finished = h.shard.clock.at(time.Now()).UnixMicro()
	}
	m.kept = m.record.encode()
	m.strict = time.Until(h.claim.Until) < settleSoon
	if m.atOnce = o.State == outbox.Pending && time.Until(h.shard.clock.moment(o.Due)) < soon; m.atOnce {
		s.mu.Lock()
		s.endpoint(c.Endpoint).coming++
		s.mu.Unlock()
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
func (s *Store) letGo(ctx context.Context, c outbox.Claim) (*held, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, outbox.ErrClosed
	}
	h := s.held[c.Fence]
	delete(s.held, c.Fence)
	s.mu.Unlock()
	if h == nil {
		return s.foreign(ctx, c)
	}
	if !time.Now().Before(h.claim.Until) {
		return nil, outbox.ErrLeaseLost
	}
	return h, nil
}

// foreign rebuilds what is known of a claim that is not this process's own.
func (s *Store) foreign(ctx context.Context, c outbox.Claim) (*held, error) {
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
	node, err := sh.node(ctx)
	if err != nil {
		return nil, sh.note(err)
	}
	v, err := node.HMGet(ctx, sh.event(c.EventID), part[1], "o", "e").Result()
	if err != nil {
		return nil, sh.note(err)
	}
	kept, _ := v[2].(string)
	_, endpoints, err := decodeEvent(c.EventID, kept)
	if err != nil {
		return nil, outbox.ErrLeaseLost // the event is gone
	}
	h := &held{
		claim: c, ref: ref{order: order, n: n, total: len(endpoints), event: c.EventID},
		shard: sh, due: c.Due.UnixMicro(), waited: true,
	}
	h.member = member(c.Fence, h.ref, c.Endpoint)
	h.claim.Until = time.Time{} // Redis decides
	if err := h.fill(v[:2]); err != nil {
		return nil, outbox.ErrLeaseLost
	}
	h.due = c.Due.UnixMicro()
	return h, nil
}

// commitSettles brings settlements in, however long that takes, in their order.
func (sh *shard) commitSettles(list []*settlement) {
	real := make([]*settlement, 0, len(list))
	for _, m := range list {
		if m.held != nil {
			real = append(real, m)
		}
	}
	backoff := retryFirst / 5
	for len(real) > 0 {
		err := sh.trySettles(real)
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
			m.done <- err
		}
		break
	}
	for _, m := range list {
		if m.held == nil {
			m.done <- nil
		}
		if m.atOnce {
			sh.s.came(sh, m.held.claim.Endpoint)
		}
		if m.slot {
			<-sh.s.slots
		}
	}
}

// simple tells whether it is what nearly all are: a first attempt that delivered.
func (m *settlement) simple() bool {
	return m.record.state == outbox.Delivered && m.held.before == "" && !m.held.waited && !m.strict
}

// trySettles makes one call. It puts the simple ones first, which need no
// decisions of the script but one.
func (sh *shard) trySettles(list []*settlement) error {
	slices.SortStableFunc(list, func(a, b *settlement) int {
		switch sa, sb := a.simple(), b.simple(); {
		case sa == sb:
			return 0
		case sa:
			return -1
		default:
			return 1
		}
	})
	type owner struct{ number, simple int }
	owners, names, simple, bytes := map[string]*owner{}, []string{}, 0, 0
	for _, m := range list {
		o := owners[m.held.claim.Endpoint]
		if o == nil {
			names = append(names, m.held.claim.Endpoint)
			o = &owner{number: len(names)}
			owners[m.held.claim.Endpoint] = o
		}
		if m.simple() {
			o.simple++
			simple++
			bytes += len(m.kept)
		}
	}
	keys := make([]string, 0, 7+2*len(names)+len(list))
	args := make([]any, 0, 4+2*len(names)+6*len(list))
	keys = append(keys, sh.meta, sh.lease, sh.counts, sh.bell, sh.done, sh.failed, sh.agenda)
	args = append(args, len(names), simple, len(list), bytes)
	for _, name := range names {
		keys = append(keys, sh.retries(name), sh.created(name))
		args = append(args, name, owners[name].simple)
	}
	for _, m := range list {
		keys = append(keys, sh.event(m.held.ref.event))
	}
	for _, column := range []func(m *settlement) any{
		func(m *settlement) any { return m.held.member },
		func(m *settlement) any { return m.held.ref.tail() },
		func(m *settlement) any { return m.held.ref.n },
		func(m *settlement) any { return m.kept },
		func(m *settlement) any { return owners[m.held.claim.Endpoint].number },
	} {
		for _, m := range list[:simple] {
			args = append(args, column(m))
		}
	}
	for _, m := range list[simple:] {
		h := m.held
		what := make([]byte, 1, 4)
		what[0] = letters[m.record.state]
		if h.waited {
			what = append(what, 'c')
		}
		if m.strict {
			what = append(what, 's')
		}
		if h.before != "" {
			what = append(what, 'h')
		}
		args = append(args, h.member, h.ref.tail(), owners[h.claim.Endpoint].number, h.ref.n, m.kept, what)
		if h.before != "" {
			args = append(args, fmt.Sprintf("%d.%d", h.ref.n, m.record.attempts-1), h.before)
		}
		if m.record.state == outbox.Pending {
			args = append(args, m.record.due)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	v, err := sh.eval(ctx, &sh.s.scripts.settle, keys, args)
	if err != nil {
		return err
	}
	answer, _ := v.(string)
	if len(answer) != len(list) {
		return fmt.Errorf("%w: unexpected answer of the settle script", outbox.ErrUnavailable)
	}
	for i, m := range list {
		sh.settled(m, answer[i] == '1')
	}
	return nil
}

// settled tells of one settlement.
func (sh *shard) settled(m *settlement, holds bool) {
	s, h := sh.s, m.held
	if !holds {
		m.done <- outbox.ErrLeaseLost
		if !m.strict {
			s.log.Warn().Str("endpoint", h.claim.Endpoint).Str("event_id", h.ref.event).Str("delivery_id", h.claim.ID).
				Msg("an attempt was recorded too late: its lease is lost and it is made again")
		}
		return
	}
	if m.record.state == outbox.Pending {
		s.mu.Lock()
		if e := s.endpoints[h.claim.Endpoint]; e != nil && !s.closed {
			s.wakeAt(e, sh.clock.moment(time.UnixMicro(m.record.due)))
		}
		s.mu.Unlock()
	}
	if h.bounded {
		s.freed(sh, h.claim.Endpoint)
	}
	m.done <- nil
}

// came notes that a retry that is due very soon is in Redis, or will not come.
func (s *Store) came(sh *shard, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.endpoint(name)
	e.coming--
	e.hear(1<<sh.index, 0)
	s.serve(e)
}

// Release implements outbox.Store.
func (s *Store) Release(ctx context.Context, claims ...outbox.Claim) error {
	var list []*held
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

// releaseGroup is how many claims one script call hands back.
const releaseGroup = 500

// release hands back claims that are no longer in s.held.
func (s *Store) release(ctx context.Context, list []*held) error {
	byShard := map[*shard][]*held{}
	for _, h := range list {
		byShard[h.shard] = append(byShard[h.shard], h)
	}
	for sh, list := range byShard {
		for len(list) > 0 {
			n := min(len(list), releaseGroup)
			args := []any{sh.prefix}
			for _, h := range list[:n] {
				args = append(args, h.ref.tail(), h.member, h.claim.Endpoint, h.due)
			}
			if _, err := sh.eval(ctx, &s.scripts.release, []string{sh.lease, sh.bell}, args); err != nil {
				return err
			}
			s.mu.Lock()
			for _, h := range list[:n] {
				if e := s.endpoints[h.claim.Endpoint]; e != nil && !s.closed {
					e.full &^= 1 << sh.index
					e.hear(1<<sh.index, min(h.due, sh.clock.at(time.Now()).UnixMicro()))
					s.serve(e)
				}
			}
			s.mu.Unlock()
			list = list[n:]
		}
	}
	return nil
}

// extend moves the end of leases of one endpoint and returns those that have not
// ended, which are held again.
func (s *Store) extend(ctx context.Context, list []*held, lease time.Duration) (kept []*held, err error) {
	byShard := map[*shard][]*held{}
	for _, h := range list {
		byShard[h.shard] = append(byShard[h.shard], h)
	}
	for sh, list := range byShard {
		args := []any{lease.Microseconds()}
		for _, h := range list {
			args = append(args, h.member)
		}
		sent := time.Now()
		v, err := sh.eval(ctx, &s.scripts.extend, []string{sh.lease}, args)
		answer, _ := v.(string)
		s.mu.Lock()
		for i, h := range list {
			if err == nil && (len(answer) != len(list) || answer[i] != '1') {
				continue
			}
			if err == nil {
				h.lease, h.claim.Until = lease, sent.Add(lease)
				kept = append(kept, h)
				s.endpoint(h.claim.Endpoint).endsBy(h.claim.Until)
			}
			s.held[h.claim.Fence] = h // as it was, where Redis did not answer
		}
		s.mu.Unlock()
		if err != nil {
			return kept, err
		}
	}
	return kept, nil
}
