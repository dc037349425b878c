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
	max      int
	fresh    int // of these, at most, come from the express lane first
	lease    time.Duration
	behind   bool
	bound    int // of the fleet, 0 for none

	got  []*lease
	next time.Duration // until the next retry is due, 0 if there is none
	more bool          // there may be more now
	kept bool          // the bound keeps back what is due
	err  error
}

// laneRoom is how many deliveries an express lane has room for. A long burst fills it, so that
// what comes next waits for so many, at the pace of the endpoint.
const laneRoom = 64

// commitClaims claims what is due for several endpoints, in one round trip.
func (sh *shard) commitClaims(list []*fetch) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	err := sh.fetch(ctx, list)
	for _, f := range list {
		if err != nil {
			f.err = err
		}
		sh.bring(f)
	}
}

// bring takes what a fetch claimed to the Claim that waits for it.
func (sh *shard) bring(f *fetch) {
	s, e, bit := sh.s, f.endpoint, uint64(1)<<sh.index
	s.mu.Lock()
	defer s.mu.Unlock()
	e.fetching &^= bit
	e.asked -= f.max
	s.hold(e, f.got)
	if e.fetching == 0 {
		e.wait.telling = false
	}
	if f.err != nil {
		if lasts, _ := sh.outage(); lasts == 0 {
			s.wakeAt(e, time.Now().Add(retryMost)) // else everybody looks when Redis answers again
		}
		s.serve(e)
		return
	}
	if f.behind {
		e.laneTold = time.Now()
	}
	e.fetched = time.Now()
	if f.more {
		e.maybe |= bit
	}
	if f.kept && e.maybe&bit == 0 { // else a claim has ended meanwhile
		e.full |= bit
		e.maybe |= bit
		s.lookSoon(e)
	}
	if f.next > 0 {
		s.wakeAt(e, time.Now().Add(f.next))
	}
	s.serve(e)
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
		cmds[i] = p.EvalSha(ctx, sh.s.scripts.claim.sha, f.keys(sh), f.args(sh, joined)...)
	}
	_, failed := p.Exec(ctx)
	var all []*lease
	for i, f := range list {
		v, err := result(cmds[i], failed)
		if isNoScript(err) {
			v, err = sh.eval(ctx, &sh.s.scripts.claim, f.keys(sh), f.args(sh, joined))
		} else {
			err = sh.noteScript(err)
		}
		if err == nil {
			err = f.read(sh, joined, v, sent)
		}
		f.err = err
		all = append(all, f.got...)
	}
	bad, err := sh.complete(ctx, all)
	for _, f := range list {
		f.got = slices.DeleteFunc(f.got, func(h *lease) bool { return err != nil || bad[h] })
	}
	return err
}

func (f *fetch) keys(sh *shard) []string {
	name := f.endpoint.name
	return []string{sh.backlog(name), sh.lane(name), sh.retries(name), sh.endpoints, sh.leases, sh.meta}
}

func (f *fetch) args(sh *shard, joined *session) []any {
	open := int64(0)
	if f.behind {
		open = (outbox.LaneOpen + toldEvery).Microseconds()
	}
	return []any{sh.prefix, f.endpoint.name, joined.consumer, f.max, f.fresh, milliseconds(f.lease), open, sh.s.boundIn(sh, f.bound), joined.outbox}
}

// milliseconds is a lease as Redis counts it. It counts whole milliseconds, so one more keeps it
// from ending a lease early.
func milliseconds(lease time.Duration) int64 {
	return int64((lease+time.Millisecond-1)/time.Millisecond) + 1
}

// read takes in the answer of the claim script.
func (f *fetch) read(sh *shard, joined *session, v any, sent time.Time) error {
	list, err := texts(v, 3)
	if err != nil {
		return err
	}
	now, _ := strconv.ParseInt(list[0], 10, 64)
	if list[1] != "" {
		due, _ := strconv.ParseInt(list[1], 10, 64)
		f.next = max(time.Millisecond, time.Duration(due-now)*time.Microsecond)
	}
	f.more, f.kept = list[2] == "m", list[2] == "f"
	given := grant{joined.outbox, f.endpoint.name, f.lease, f.bound, sent, now}
	for i := 3; i+3 < len(list); i += 4 {
		times, _ := strconv.ParseUint(list[i+3], 10, 64)
		if h := sh.claimed(given, parseEntry(list[i][0], list[i+1]), list[i+2], times); h != nil {
			f.got = append(f.got, h)
		}
	}
	return nil
}

// grant is what claims that were made together have in common.
type grant struct {
	outbox   string // its id
	endpoint string
	lease    time.Duration
	bound    int // of the fleet
	sent     time.Time
	now      int64 // by the clock of Redis
}

// clockSlack is more than the times of a script differ from those that Redis notes for its claims.
const clockSlack = 2 * time.Millisecond

// claimed is a claim that a script made, nil if nothing can be said of it.
func (sh *shard) claimed(g grant, at entry, tail string, times uint64) *lease {
	r, err := parseTail(tail)
	if err != nil {
		sh.s.log.Error().Err(err).Str("endpoint", g.endpoint).Msg("a delivery is passed over")
		return nil
	}
	return sh.newLease(g, at, r, times)
}

func (sh *shard) newLease(g grant, at entry, r ref, times uint64) *lease {
	created := r.created()
	return &lease{
		claim: outbox.Claim{
			Delivery: outbox.Delivery{ID: r.deliveryID(), EventID: r.event, Endpoint: g.endpoint, State: outbox.Pending, Due: created, Created: created},
			Fence:    newFence(at, sh.index, times), Until: g.sent.Add(g.lease),
		},
		ref: r, shard: sh, outbox: g.outbox, entry: at, times: times, sent: g.sent,
		deadline: g.now + (g.lease - clockSlack).Microseconds(),
		bound:    g.bound,
		waited:   at.order != r.order,
	}
}

// complete reads what memory does not have: the events, and the records of
// deliveries that were settled before. It returns those that cannot be made.
func (sh *shard) complete(ctx context.Context, list []*lease) (bad map[*lease]bool, err error) {
	var missing []*lease
	for _, h := range list {
		if h.claim.Event == nil {
			h.claim.Event = sh.s.events.get(h.ref.event)
		}
		if h.claim.Event == nil || h.waited || h.ref.repeats() {
			missing = append(missing, h)
		}
	}
	if len(missing) == 0 {
		return nil, nil
	}
	node, err := sh.node(ctx)
	if err != nil {
		return nil, sh.lost(err)
	}
	p := node.Pipeline()
	answers := make([]*redis.SliceCmd, len(missing))
	for i, h := range missing {
		n := strconv.Itoa(h.ref.n)
		if h.claim.Event == nil {
			answers[i] = p.HMGet(ctx, sh.event(h.ref.event), n, "r"+n, "o", "e")
		} else {
			answers[i] = p.HMGet(ctx, sh.event(h.ref.event), n, "r"+n, "o")
		}
	}
	_, failed := p.Exec(ctx)
	if err := outcomes(answers, failed); err != nil {
		return nil, sh.lost(err)
	}
	bad = map[*lease]bool{}
	for i, h := range missing {
		if isStray(answers[i].Err()) {
			bad[h] = true
			sh.stray(h.ref.event)
			sh.forget(ctx, h, fmt.Errorf("event %s was overwritten in redis", h.ref.event))
			continue
		}
		if err := h.fill(answers[i].Val()); err != nil {
			bad[h] = true
			sh.forget(ctx, h, err)
		}
	}
	return bad, nil
}

// lost is note for an error that leaves claims leased and unknown to anybody, as a lost answer does.
func (sh *shard) lost(err error) error {
	sh.mu.Lock()
	sh.unsure = time.Now()
	sh.mu.Unlock()
	return sh.note(err)
}

// errOver: a delivery that was to be claimed is finished already.
var errOver = errors.New("delivery is over already")

// errDiscarded: an operator ended it while it was in line.
var errDiscarded = fmt.Errorf("%w: it was discarded", errOver)

// fill takes in what complete read.
func (h *lease) fill(v []any) error {
	made, _ := v[1].(string)
	order, _ := v[2].(string)
	if m, ok := madeBy(made, h.ref); ok {
		h.claim.Origin, h.claim.Manual = m.origin, true
		order = strconv.FormatInt(m.ref.order, 10)
	}
	if order != strconv.FormatInt(h.ref.order, 10) {
		return fmt.Errorf("event %s is gone from redis", h.ref.event)
	}
	if len(v) > 3 {
		kept, _ := v[3].(string)
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
	if err == nil && r.state == outbox.Discarded {
		return errDiscarded
	}
	if err != nil || r.state != outbox.Pending {
		return errors.Join(errOver, err)
	}
	h.claim.Attempts, h.claim.Code = r.attempts, r.reason()
	h.claim.Due = time.UnixMicro(r.due).UTC()
	return nil
}

// forget ends a delivery that cannot be made.
func (sh *shard) forget(ctx context.Context, h *lease, why error) {
	counted := "1"
	if errors.Is(why, errOver) {
		counted = "0"
	}
	_, err := sh.eval(ctx, &sh.s.scripts.forget, []string{sh.stream(h.entry, h.claim.Endpoint), sh.counts, sh.created(h.claim.Endpoint), sh.took},
		[]any{h.entry.id(), h.ref.tail(), h.claim.Endpoint, counted})
	if err == nil && errors.Is(why, errDiscarded) {
		return
	}
	sh.s.log.Error().Err(errors.Join(why, err)).Str("endpoint", h.claim.Endpoint).Str("event_id", h.ref.event).
		Str("delivery_id", h.claim.ID).Str("state", string(outbox.Discarded)).Msg("a delivery cannot be made any more")
}
