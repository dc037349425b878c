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

	"github.com/redis/go-redis/v9"

	"relay/outbox"
)

// What events and deliveries cost, in bytes of max_size besides their texts: with what streams and the history
// need for them. Scripts know it, too.
const (
	eventCost    = 480
	deliveryCost = 128
	repeatCost   = 400 // a delivery that an operator made of an event that was kept
)

// call is a script call of several that are sent together.
type call struct {
	sc   *script
	keys []string
	args []any
}

// evalAll runs scripts one after the other in one round trip, with the commands of after behind them. Each has its own
// error; that of the round trip is one of all.
func (sh *shard) evalAll(ctx context.Context, calls []call, after ...func(redis.Pipeliner)) (answers []any, errs []error, err error) {
	node, err := sh.node(ctx)
	if err != nil {
		return nil, nil, sh.note(err)
	}
	p := node.Pipeline()
	cmds := make([]*redis.Cmd, len(calls))
	sent := map[*script]bool{}
	for i, c := range calls {
		if sent[c.sc] {
			cmds[i] = p.EvalSha(ctx, c.sc.sha, c.keys, c.args...)
			continue
		}
		sent[c.sc] = true
		cmds[i] = p.Eval(ctx, c.sc.text, c.keys, c.args...) // Redis knows it from then on
	}
	for _, f := range after {
		f(p)
	}
	_, failed := p.Exec(ctx)
	answers, errs = make([]any, len(calls)), make([]error, len(calls))
	for i, cmd := range cmds {
		answers[i], errs[i] = result(cmd, failed)
		errs[i] = sh.noteScript(errs[i])
	}
	return answers, errs, nil
}

// edit is a Change on its way.
type edit struct {
	outbox.Change
	shard *shard // that has the event, nil if none has
	ref   ref
	name  string   // of the endpoint, "" if the delivery is gone
	all   []string // endpoints of the event at its accept
	event *outbox.Event
}

// Edit implements outbox.Editor: each Change is a script call, all of a shard are in one round trip.
func (s *Store) Edit(ctx context.Context, changes []outbox.Change) ([]outbox.Edited, error) {
	if len(changes) > outbox.MaxChanges {
		return nil, fmt.Errorf("edit %d deliveries at once: at most %d are possible", len(changes), outbox.MaxChanges)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	edits := make([]*edit, len(changes))
	for i, c := range changes {
		edits[i] = newEdit(c)
	}
	for _, sh := range s.shards {
		if err := sh.find(ctx, edits); err != nil {
			return nil, err
		}
	}
	all := make([]outbox.Edited, len(changes))
	for _, sh := range s.shards {
		if err := sh.makeEdits(ctx, edits, all); err != nil {
			return nil, err
		}
	}
	for i, e := range edits {
		if e.shard == nil {
			all[i].Err = outbox.ErrNotFound
		}
		if e.Action != outbox.Erase && all[i].Delivery == "" {
			all[i].Delivery = e.Delivery
		}
	}
	return all, nil
}

func newEdit(c outbox.Change) *edit {
	e := &edit{Change: c}
	if c.Action == outbox.Erase {
		e.ref = ref{event: c.Event}
	} else {
		e.ref, _ = parseDeliveryID(c.Delivery)
	}
	return e
}

// parseDeliveryID reads an id; how many deliveries the event has it does not tell.
func parseDeliveryID(id string) (r ref, ok bool) {
	rest, ok := strings.CutPrefix(id, "dlv_")
	part := strings.SplitN(rest, "_", 3)
	if !ok || len(part) != 3 {
		return ref{}, false
	}
	order, err1 := strconv.ParseInt(part[0], 36, 64)
	n, err2 := strconv.Atoi(part[1])
	if err1 != nil || err2 != nil || n < 0 {
		return ref{}, false
	}
	r = ref{order: order, n: n, event: part[2]}
	return r, r.deliveryID() == id
}

// find looks for the events of edits that no other shard has.
func (sh *shard) find(ctx context.Context, edits []*edit) error {
	var keys []string
	var args []any
	var of []*edit
	for _, e := range edits {
		if e.shard == nil && e.ref.event != "" {
			keys, of = append(keys, sh.event(e.ref.event)), append(of, e)
			args = append(args, "", e.ref.n, e.ref.n-1, "")
		}
	}
	if len(keys) == 0 {
		return nil
	}
	found, err := sh.peek(ctx, keys, args)
	if err != nil {
		return err
	}
	for i, e := range of {
		if p := found[i]; p != nil {
			if err := e.take(sh, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// take notes what is known of an edit's event.
func (e *edit) take(sh *shard, p *peeked) error {
	event, endpoints, err := decodeHead(e.ref.event, p.head)
	if err != nil {
		return err
	}
	e.shard, e.event, e.all = sh, event, endpoints
	e.ref.total = len(endpoints)
	switch made, ok := madeBy(p.made, e.ref); {
	case e.Action == outbox.Erase:
		e.ref.order = p.order
	case e.ref.n < len(endpoints):
		e.name = endpoints[e.ref.n]
	case ok:
		e.name = made.endpoint
	}
	return nil
}

// makeEdits makes those of a shard.
func (sh *shard) makeEdits(ctx context.Context, edits []*edit, all []outbox.Edited) error {
	joined, err := sh.session()
	if err != nil {
		return err
	}
	var calls []call
	var of []int
	for i, e := range edits {
		if e.shard != sh {
			continue
		}
		if c, ok := e.call(joined); ok {
			calls, of = append(calls, c), append(of, i)
		} else {
			all[i].Err = fmt.Errorf("%q is no action", e.Action)
		}
	}
	if len(calls) == 0 {
		return nil
	}
	within, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c := sh.s.rewriting(within, sh, joined)
	full := sh.crowded()
	answers, errs, err := sh.evalAll(within, calls, c.after...)
	if err != nil {
		return err
	}
	for k, i := range of {
		switch {
		case errors.Is(errs[k], outbox.ErrFull) || edits[i].Action == outbox.Redeliver && full != nil && errs[k] != nil:
			all[i].Err = outbox.ErrFull
		case errs[k] != nil:
			return errs[k]
		default:
			if all[i], err = edits[i].answer(answers[k]); err != nil {
				return err
			}
			if all[i].Err == nil {
				sh.lose(edits[i])
			}
		}
	}
	return c.wait(within)
}

// call is the script call of an edit.
func (e *edit) call(joined *session) (call, bool) {
	sh, r := e.shard, e.ref
	key := sh.event(r.event)
	kind := appendString(appendString(nil, e.event.Type), e.event.Tenant)
	switch e.Action {
	case outbox.Redeliver:
		endpoint, after := e.name, r.n
		if e.Endpoint != "" && e.Endpoint != e.name {
			endpoint, after = e.Endpoint, -1
		}
		unless := map[outbox.Unless]string{outbox.UnlessPending: "p", outbox.UnlessDelivered: "d"}[e.Unless]
		terms := appendFields(appendTerms(nil, e.event, []string{endpoint}), e.event.Fields)
		return call{&sh.s.scripts.redeliver, []string{sh.meta, sh.counts, key},
			[]any{joined.outbox, sh.prefix, sh.limit(), r.event, r.order, r.n, r.total, e.Delivery, endpoint, e.Once, terms, repeatCost,
				unless, after, slices.Index(e.all, endpoint)}}, true
	case outbox.Retry:
		return call{&sh.s.scripts.retry, []string{sh.meta, key},
			[]any{joined.outbox, sh.prefix, r.order, r.n, r.total, e.name, r.tail()}}, true
	case outbox.Discard:
		return call{&sh.s.scripts.discard, []string{sh.meta, key},
			[]any{joined.outbox, sh.prefix, r.order, r.n, r.total, e.name, r.tail(), e.Code, kind}}, true
	case outbox.Erase:
		force := ""
		if e.Force {
			force = "1"
		}
		return call{&sh.s.scripts.erase, []string{sh.meta, key},
			[]any{joined.outbox, sh.prefix, r.event, r.order, force, e.Code, kind}}, true
	}
	return call{}, false
}

// refusals are the letters by which scripts say why an edit had no effect.
var refusals = map[string]error{
	"N": outbox.ErrNotFound, "C": outbox.ErrClaimed, "E": outbox.ErrErased, "F": outbox.ErrFull,
	"A": outbox.ErrRepeat, "W": outbox.ErrOnItsWay, "V": outbox.ErrDelivered,
}

// answer reads what a script says became of an edit.
func (e *edit) answer(v any) (outbox.Edited, error) {
	list, err := texts(v, 1)
	if err != nil {
		return outbox.Edited{}, err
	}
	edited := outbox.Edited{Delivery: e.Delivery}
	switch list[0] {
	case "D", "R":
		edited.Repeated = list[0] == "R"
		if e.Action == outbox.Redeliver && len(list) == 3 {
			r := e.ref
			r.order, _ = strconv.ParseInt(list[1], 10, 64)
			r.n, _ = strconv.Atoi(list[2])
			edited.Delivery = r.deliveryID()
		}
	case "S":
		for state, letter := range letters {
			if list[1] == string(letter) {
				edited.Err = &outbox.StateError{State: state}
			}
		}
	default:
		edited.Err = refusals[list[0]]
	}
	return edited, nil
}

// lose gives up the claims of an event that was erased: its deliveries have ended.
func (sh *shard) lose(e *edit) {
	if e.Action != outbox.Erase {
		return
	}
	s := sh.s
	s.events.remove(e.ref.event)
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, h := range s.leases {
		if h.shard != sh || h.ref.event != e.ref.event {
			continue
		}
		delete(s.leases, key)
		h.settling = true
		if at := s.endpoints[h.claim.Endpoint]; at != nil {
			at.ready = slices.DeleteFunc(at.ready, func(r *lease) bool { return r == h })
			s.freed(sh, at)
		}
	}
}

// Record implements outbox.Editor. When the answer is lost the same call is made again, as for an accept.
func (s *Store) Record(ctx context.Context, e outbox.Event, endpoint string, o outbox.Settlement) (string, error) {
	if !o.State.Final() {
		return "", fmt.Errorf("record an attempt as %q: its delivery must have ended", o.State)
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := s.refusal(); err != nil {
		return "", err
	}
	if strings.Contains(e.ID, "|") {
		return "", fmt.Errorf("record event %q: no | may be in its id", e.ID)
	}
	entry := outbox.Entry{Event: e, Endpoints: []string{endpoint}}
	sh := s.shardFor(&outbox.Batch{Entries: []outbox.Entry{entry}})
	kept := encodeEvent(&entry, mathrand.Uint64())
	within, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for backoff := retryFirst / 5; ; backoff = min(2*backoff, retryMost) {
		id, err := sh.record(within, &e, endpoint, kept, &o)
		if lasts, _ := sh.outage(); err == nil || !retryable(err) || lasts > failFast {
			return id, err
		}
		if !s.sleep(backoff/2 + mathrand.N(backoff)) {
			return "", outbox.ErrClosed
		}
		if within.Err() != nil {
			return "", err
		}
	}
}

func (sh *shard) record(ctx context.Context, e *outbox.Event, endpoint string, kept []byte, o *outbox.Settlement) (string, error) {
	joined, err := sh.session()
	if err != nil {
		return "", err
	}
	if err := sh.crowded(); err != nil {
		return "", err
	}
	r := record{state: o.State, attempts: 1, last: o.Attempt}
	packHeads(&r.last, &outbox.Claim{Delivery: outbox.Delivery{EventID: e.ID}}) // the script makes the id of the delivery
	text := r.encode()
	c := sh.s.rewriting(ctx, sh, joined)
	v, err := sh.eval(ctx, &sh.s.scripts.record, []string{sh.meta, sh.counts, sh.event(e.ID), sh.tombstone(e.ID)},
		[]any{joined.outbox, sh.prefix, sh.limit(), e.ID, kept, endpoint, text, string(letters[o.State]), len(kept) + len(text) + eventCost + deliveryCost}, c.after...)
	if err != nil {
		return "", err
	}
	answer, err := texts(v, 1)
	if err != nil {
		return "", err
	}
	switch {
	case answer[0] == "F":
		return "", sh.fullness(sh.limit())
	case answer[0] != "D" || len(answer) < 2:
		return "", &outbox.ConflictError{ID: e.ID}
	}
	order, _ := strconv.ParseInt(answer[1], 10, 64)
	return ref{order: order, total: 1, event: e.ID}.deliveryID(), c.wait(ctx)
}

// peeked is what is read of an event for a page or an edit.
type peeked struct {
	head    string // the event without its data
	erased  time.Time
	total   int // deliveries at its accept
	order   int64
	made    string         // of the first delivery that is wanted, if an operator made it
	high    int            // number of the delivery of the first record
	resent  map[string]int // number of the newest delivery that an operator made, of each endpoint that has one
	records []string       // "" for none
}

// peekGroup is how many events one call reads at most.
const peekGroup = 200

// peek reads events; those that are gone are nil. See the script for args.
func (sh *shard) peek(ctx context.Context, keys []string, args []any) ([]*peeked, error) {
	all := make([]*peeked, 0, len(keys))
	for some := range slices.Chunk(keys, peekGroup) {
		from := 4 * len(all)
		v, err := sh.eval(ctx, &sh.s.scripts.peek, some, args[from:from+4*len(some)])
		if err != nil {
			return nil, err
		}
		list, _ := v.([]any)
		for i := range some {
			var p *peeked
			if i < len(list) && list[i] == "" {
				sh.stray(strings.TrimPrefix(some[i], sh.event("")))
			} else if i < len(list) && list[i] != nil {
				if p, err = newPeeked(list[i]); err != nil {
					return nil, err
				}
			}
			all = append(all, p)
		}
	}
	return all, nil
}

func newPeeked(v any) (*peeked, error) {
	part, err := texts(v, 7)
	if err != nil {
		return nil, err
	}
	p := &peeked{head: part[0], erased: erasedAt(part[1]), made: part[4]}
	repeats, _ := strconv.Atoi(part[6])
	if repeats < 0 || len(part) < 7+2*repeats {
		return nil, fmt.Errorf("%w: an answer about an event is cut off", outbox.ErrCorrupt)
	}
	if repeats > 0 {
		p.resent = make(map[string]int, repeats)
	}
	for i := range repeats {
		p.resent[part[7+2*i]], _ = strconv.Atoi(part[8+2*i])
	}
	p.records = part[7+2*repeats:]
	p.total, _ = strconv.Atoi(part[2])
	p.order, _ = strconv.ParseInt(part[3], 10, 64)
	p.high, _ = strconv.Atoi(part[5])
	return p, nil
}
