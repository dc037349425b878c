package redisstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/outbox"
)

// fetch asks Redis for deliveries of an endpoint.
type fetch struct {
	endpoint *endpoint
	shard    *shard
	number   uint64 // among those of the endpoint
	max      int
	fresh    int // of these, at most, are the newest
	lease    time.Duration
	bound    int    // of the shard, 0 for none
	count    bool   // claims made without a bound, too
	base     uint64 // first fence's counter

	got  []*held
	next time.Duration // when to look again, 0 if that is not known
	more bool          // there may be more now
	kept bool          // the bound keeps back what is due
	err  error
}

// commitClaims leases what is due for several endpoints, in one round trip.
func (sh *shard) commitClaims(list []*fetch) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	err := sh.fetch(ctx, list)
	for _, f := range list {
		if err != nil {
			f.err = err
		}
		sh.bring(ctx, f)
	}
}

// bring hands what a fetch leased to who waits for it.
func (sh *shard) bring(ctx context.Context, f *fetch) {
	s, e, bit := sh.s, f.endpoint, uint64(1)<<sh.index
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := f.bound == s.boundIn(sh, e.last.FleetMax) // still, or again
	var oldest []*held
	for _, h := range f.got {
		s.held[h.claim.Fence] = h
		h.bounded = asked && f.bound > 0
		if !h.newest {
			oldest = append(oldest, h)
		}
	}
	e.merge(f.got)
	if surplus := e.takeSurplus(f.max); len(surplus) > 0 {
		// Who waited for it has gone. While it is on its way back nothing younger is given out.
		for _, h := range surplus {
			delete(s.held, h.claim.Fence)
		}
		e.check(bit, surplus[0].due)
		s.mu.Unlock()
		err := s.release(ctx, surplus)
		s.mu.Lock()
		if err != nil {
			s.log.Warn().Err(err).Str("endpoint", e.name).Msg("deliveries that nobody waits for were not handed back: they come again when the lease ends")
		}
	}
	e.fetching &^= bit
	e.checking &^= bit
	e.asked -= f.max
	if f.err != nil {
		e.hear(bit, 0) // when Redis answers again everybody looks again
		if lasts, _ := sh.outage(); lasts == 0 {
			s.wakeAt(e, time.Now().Add(retryMost)) // it does already, and they have looked
		}
		return
	}
	if asked && f.kept && e.maybe&bit == 0 { // else a claim has ended meanwhile
		e.full |= bit
		s.lookSoon(e)
	}
	if asked && f.bound > 0 && len(f.got) > 0 {
		e.counted |= bit
	}
	left := f.more || f.kept
	switch {
	case left && len(oldest) > 0 && len(s.shards) == 1:
		e.hear(bit, oldest[len(oldest)-1].due) // what is left there is younger than that, but older than the newest
	case left && len(f.got) > 0 && len(s.shards) == 1:
		e.hear(bit, 0)
	case left: // there is no order among shards
		e.maybe |= bit
	}
	for _, w := range e.waiters {
		if f.number > w.since || !left && e.maybe&bit == 0 {
			w.unseen &^= bit
		}
	}
	if f.next > 0 && !(left && f.next <= time.Millisecond) { // a retry that is due already comes with what is left
		s.wakeAt(e, time.Now().Add(f.next))
	}
	s.serve(e)
}

// takeSurplus takes what a fetch brought when nobody waits for it any more, at an
// endpoint that is too slow for leases ahead.
func (e *endpoint) takeSurplus(most int) []*held {
	if len(e.waiters) > 0 || e.target() > 0 {
		return nil
	}
	rest := len(e.ahead) - min(most, len(e.ahead))
	surplus := slices.Clone(e.ahead[rest:])
	e.ahead = e.ahead[:rest]
	return surplus
}

// fetch asks for all of them in one pipeline, and completes what they got.
func (sh *shard) fetch(ctx context.Context, list []*fetch) error {
	joined, err := sh.session()
	if err != nil {
		return err
	}
	node, err := sh.node(ctx)
	if err != nil {
		return sh.note(err)
	}
	sent := time.Now()
	p := node.Pipeline()
	cmds := make([]*redis.Cmd, len(list))
	for i, f := range list {
		f.base = sh.counter.Add(uint64(f.max)) - uint64(f.max)
		cmds[i] = p.EvalSha(ctx, sh.s.scripts.claim.sha, f.keys(sh), f.args(sh, joined)...)
	}
	_, failed := p.Exec(ctx)
	var all []*held
	for i, f := range list {
		v, err := result(cmds[i], failed)
		if isNoScript(err) {
			v, err = sh.eval(ctx, &sh.s.scripts.claim, f.keys(sh), f.args(sh, joined))
		} else {
			err = sh.note(err)
		}
		if err == nil {
			err = f.read(sh, joined, v, sent)
		}
		f.err = err
		all = append(all, f.got...)
	}
	bad, err := sh.complete(ctx, all)
	for _, f := range list {
		f.got = slices.DeleteFunc(f.got, func(h *held) bool { return err != nil || bad[h] })
	}
	return err
}

func (f *fetch) keys(sh *shard) []string {
	name := f.endpoint.name
	list := []string{sh.lease, sh.bell, sh.backlog(name), sh.retries(name)}
	if f.fresh > 0 || f.bound > 0 {
		list = append(list, sh.created(name), sh.bounded(name))
	}
	return list
}

func (f *fetch) args(sh *shard, joined *session) []any {
	list := []any{sh.prefix, f.endpoint.name, f.max, f.lease.Microseconds(), joined.fences.prefix, f.base}
	if f.fresh > 0 || f.bound > 0 {
		list = append(list, f.fresh, f.bound, f.count)
	}
	return list
}

// read takes in the answer of the claim script.
func (f *fetch) read(sh *shard, joined *session, v any, sent time.Time) error {
	head, err := texts(v, 4)
	if err != nil {
		return err
	}
	list, head := head[4:], head[:4]
	if head[1] != "" {
		now, _ := strconv.ParseInt(head[0], 10, 64)
		due, _ := strconv.ParseInt(head[1], 10, 64)
		f.next = max(time.Millisecond, time.Duration(due-now)*time.Microsecond)
	}
	got := len(list) / 3
	newest, _ := strconv.Atoi(head[2])
	f.more, f.kept = got >= f.max, head[3] != "" // those that cannot be made any more count, too
	for i := 0; i+2 < len(list); i += 3 {
		r, err := parseTail(list[i])
		if err != nil {
			sh.s.log.Error().Err(err).Str("endpoint", f.endpoint.name).Msg("a delivery is passed over")
			continue
		}
		h := newHeld(sh, r, f.endpoint.name, joined.fences.fence(f.base+uint64(i/3)), f.lease, sent, nil)
		h.due, _ = strconv.ParseInt(list[i+1], 10, 64)
		h.waited = list[i+2] == "r"
		h.newest = i/3 >= got-newest
		if !h.waited {
			h.claim.Event = sh.s.events.get(r.event)
		}
		f.got = append(f.got, h)
	}
	return nil
}

// complete reads what memory does not have: the events, and the records of
// deliveries that were settled before. It returns those that cannot be made.
func (sh *shard) complete(ctx context.Context, list []*held) (bad map[*held]bool, err error) {
	missing := slices.DeleteFunc(slices.Clone(list), func(h *held) bool { return h.claim.Event != nil && !h.waited })
	if len(missing) == 0 {
		return nil, nil
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
	bad = map[*held]bool{}
	for i, h := range missing {
		if err := h.fill(answers[i].Val()); err != nil {
			bad[h] = true
			sh.forget(ctx, h, err)
		}
	}
	return bad, nil
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
