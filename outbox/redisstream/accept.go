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

// accept is a batch on its way in.
type accept struct {
	ctx      context.Context
	batch    *outbox.Batch
	events   [][]byte // as kept
	weight   int
	receipts []outbox.Receipt
	done     chan error // has room for the one answer
}

// Accept implements outbox.Store. When an answer of Redis is lost the same accept
// is executed again until ctx ends, at most for 10 seconds: the script knows it.
func (s *Store) Accept(ctx context.Context, b outbox.Batch) ([]outbox.Receipt, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.refusal(); err != nil {
		return nil, err
	}
	if len(b.Entries) == 0 {
		return nil, errors.New("accept: the batch has no events")
	}
	within, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	a := &accept{ctx: within, batch: &b, events: make([][]byte, len(b.Entries)), done: make(chan error, 1)}
	for i := range b.Entries {
		e := &b.Entries[i]
		if len(e.Endpoints) > maxFanOut || strings.Contains(e.Event.ID, "|") {
			return nil, fmt.Errorf("accept event %q: it has %d endpoints, at most %d, and no | in its id", e.Event.ID, len(e.Endpoints), maxFanOut)
		}
		for _, t := range e.Terms {
			if t.Mark != nil && len(s.shards) > 1 {
				return nil, fmt.Errorf("accept event %q: what is sent depends on earlier events, and each of the %d shards knows only its own: "+
					"use shards = 1, in an empty outbox, or take such filters out of the policy", e.Event.ID, len(s.shards))
			}
		}
		a.events[i] = encodeEvent(e, mathrand.Uint64())
		a.weight += max(len(a.events[i]), acceptEntry)
	}
	sh := s.shardFor(&b)
	if lasts, why := sh.outage(); lasts > failFast {
		return nil, why
	}
	sh.accepts.put(a)
	select {
	case err := <-a.done:
		if err != nil {
			return nil, err
		}
		return a.receipts, nil
	case <-within.Done():
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: redis did not confirm within %s; whether the events are kept is not known", outbox.ErrUnavailable, callTimeout)
	case <-s.ended:
		return nil, outbox.ErrClosed
	}
}

// group is what one script call accepts.
type group struct {
	sh       *shard
	joined   *session
	accepts  []*accept
	names    []string // of endpoints
	index    map[string]int
	terms    bool   // whether any delivery is on terms
	wanted   []int  // deliveries by endpoint
	onTerms  []bool // whether one of them is, by endpoint
	reserved []int  // how many of them may be leased to this process, in their order
	leases   []time.Duration
	ahead    [][]*held // those, by endpoint
	keys     []string
	args     []any
	sent     time.Time
}

// commitAccepts brings accepts to an end, whatever it takes, for as long as
// somebody waits for them.
func (sh *shard) commitAccepts(accepts []*accept) {
	backoff := retryFirst / 5
	for {
		accepts = slices.DeleteFunc(accepts, func(a *accept) bool { return a.ctx.Err() != nil })
		if len(accepts) == 0 {
			return
		}
		err := sh.tryAccepts(accepts)
		if err == nil {
			return
		}
		if lasts, _ := sh.outage(); !retryable(err) && !errors.Is(err, errEpoch) || lasts > failFast {
			answer(accepts, err)
			return
		}
		if errors.Is(err, errEpoch) {
			if err := sh.join(accepts[0].ctx); err != nil {
				sh.fell(err)
			}
		}
		if !sh.s.sleep(backoff/2 + mathrand.N(backoff)) {
			answer(accepts, outbox.ErrClosed)
			return
		}
		backoff = min(2*backoff, retryMost)
	}
}

func answer(accepts []*accept, err error) {
	for _, a := range accepts {
		a.done <- err
	}
}

// tryAccepts makes one call. Its error is about the call; a batch's own refusal
// goes to the batch.
func (sh *shard) tryAccepts(accepts []*accept) error {
	joined, err := sh.session()
	if err != nil {
		return err
	}
	if err := sh.crowded(); err != nil {
		answer(accepts, err)
		return nil
	}
	g := &group{sh: sh, joined: joined, accepts: accepts, index: map[string]int{}}
	g.gather()
	sh.s.reserve(g)
	defer func() { sh.s.unreserve(g) }()
	g.build()

	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	c := sh.s.confirming(ctx, sh, joined)
	g.sent = time.Now()
	v, err := sh.eval(ctx, &sh.s.scripts.accept, g.keys, g.args, c.after...)
	if err != nil {
		if errors.Is(err, outbox.ErrFull) {
			answer(accepts, err)
			return nil
		}
		return err
	}
	answers, err := texts(v, 2)
	if err != nil {
		return err
	}
	leased := g.read(answers)
	if err := c.wait(ctx); err != nil {
		// What was written stays: it will be delivered, though its app hears otherwise.
		sh.s.take(g, leased)
		answer(accepts, err)
		return nil
	}
	sh.s.take(g, leased)
	for _, a := range accepts {
		if a.receipts != nil {
			a.done <- nil
		}
	}
	return nil
}

// gather counts the deliveries of each endpoint.
func (g *group) gather() {
	for _, a := range g.accepts {
		for i := range a.batch.Entries {
			e := &a.batch.Entries[i]
			for k, name := range e.Endpoints {
				n, ok := g.index[name]
				if !ok {
					n = len(g.names)
					g.index[name] = n
					g.names = append(g.names, name)
					g.wanted = append(g.wanted, 0)
					g.onTerms = append(g.onTerms, false)
				}
				g.wanted[n]++
				if e.Terms != nil && e.Terms[k] != (outbox.Term{}) {
					g.onTerms[n], g.terms = true, true
				}
			}
		}
	}
	n := len(g.names)
	g.reserved, g.leases, g.ahead = make([]int, n), make([]time.Duration, n), make([][]*held, n)
}

// build writes the script's keys and arguments, in the order that it reads them.
func (g *group) build() {
	sh, deliveries, entries, straight := g.sh, 0, 0, "1"
	for i, n := range g.reserved {
		deliveries += n
		g.ahead[i] = make([]*held, 0, n)
	}
	counter := sh.counter.Add(uint64(deliveries)) - uint64(deliveries)
	seen := map[string]bool{}
	for _, a := range g.accepts {
		entries += len(a.batch.Entries)
		if a.batch.Key != "" {
			straight = ""
		}
		for i := range a.batch.Entries {
			if id := a.batch.Entries[i].Event.ID; !seen[id] {
				seen[id] = true
			} else {
				straight = ""
			}
		}
	}
	if g.terms {
		straight = "t"
	}
	g.keys = append(make([]string, 0, 5+2*len(g.names)+entries), sh.meta, sh.lease, sh.counts, sh.bell, sh.done)
	g.args = append(make([]any, 0, 8+3*len(g.names)+2*len(g.accepts)+4*entries),
		g.joined.outbox, sh.limit(), sh.s.window.Milliseconds(), len(g.names), len(g.accepts), entries, straight)
	for i, name := range g.names {
		g.keys = append(g.keys, sh.backlog(name), sh.retries(name))
		g.args = append(g.args, name, g.reserved[i], g.leases[i].Microseconds())
	}
	var tombstones, requests []string
	for _, a := range g.accepts {
		g.args = append(g.args, len(a.batch.Entries))
		if a.batch.Key == "" {
			g.args = append(g.args, "")
			continue
		}
		g.args = append(g.args, a.batch.Fingerprint[:])
		requests = append(requests, sh.request(a.batch.Key))
	}
	for _, a := range g.accepts {
		for i := range a.batch.Entries {
			e := &a.batch.Entries[i]
			g.keys = append(g.keys, sh.event(e.Event.ID))
			targets := append(make([]byte, 0, 1+2*len(e.Endpoints)), 'g')
			if e.Fingerprint != (outbox.Fingerprint{}) {
				targets[0] = 'a'
				tombstones = append(tombstones, sh.tombstone(e.Event.ID))
			}
			for _, name := range e.Endpoints {
				n := g.index[name]
				targets = append(targets, byte(n>>8), byte(n))
			}
			g.args = append(g.args, a.events[i], targets)
			for n, name := range e.Endpoints {
				at := g.index[name]
				if e.Terms != nil && e.Terms[n] != (outbox.Term{}) {
					g.args = append(g.args, appendTerm(nil, &e.Terms[n]))
					continue
				}
				if len(g.ahead[at]) == g.reserved[at] {
					g.args = append(g.args, "")
					continue
				}
				h := newHeld(sh, ref{n: n, total: len(e.Endpoints), event: e.Event.ID}, name, g.joined.fences.fence(counter), g.leases[at], time.Time{}, nil)
				counter++
				g.ahead[at] = append(g.ahead[at], h)
				g.args = append(g.args, h.member)
			}
		}
	}
	g.keys = append(append(g.keys, tombstones...), requests...)
}

// read gives every batch its receipts or its refusal, and returns the deliveries
// that this process may make now. The answers of the script: the flags of the endpoints, then
//
//	A<order>           for all batches together: all are fresh, and their orders rise by one
//
// or for each batch:
//
//	M<order>|<marks>   orders rise by one; for each entry: n fresh, d a repeat, o this accept was executed before; then how many deliveries it has, unless it is fresh and not on terms
//	K<receipts>        the key was used before: <id>:<deliveries>,…
//	O<receipts>        the same, and it was this very accept
//	C<index>           conflict, -1 for the key
//	F                  full
func (g *group) read(answers []string) (leased []*held) {
	flags := answers[0]
	for i := range flags {
		if flags[i] == 'n' {
			g.wanted[i] = 0
		}
	}
	var order int64
	for i, a := range g.accepts {
		kind, rest := byte('A'), ""
		if i == 0 || answers[1][0] != 'A' {
			kind, rest = answers[i+1][0], answers[i+1][1:]
		}
		marks, deliveries := []string(nil), 0
		switch kind {
		case 'A', 'M':
			first, list, marked := strings.Cut(rest, "|")
			if rest != "" {
				order, _ = strconv.ParseInt(first, 10, 64)
			}
			if marked {
				marks = strings.Split(list, ",")
			}
			leased, order = g.fresh(a, order, flags, marks, leased)
			continue
		case 'K', 'O':
			for _, r := range strings.Split(rest, ",") {
				id, n, _ := strings.Cut(r, ":")
				deliveries, _ = strconv.Atoi(n)
				a.receipts = append(a.receipts, outbox.Receipt{ID: id, Deliveries: deliveries, Duplicate: kind == 'K'})
			}
		case 'C':
			n, _ := strconv.Atoi(rest)
			conflict := &outbox.ConflictError{Index: n}
			if n >= 0 {
				conflict.ID = a.batch.Entries[n].Event.ID
			}
			a.done <- conflict
		case 'E':
			what, next := advice("wrong_type")
			a.done <- &fault{outbox.ErrUnavailable, "wrong_type", what, next, errors.New(rest)}
		case 'F':
			a.done <- g.sh.fullness(g.sh.limit())
		}
		g.pass(a)
	}
	return leased
}

// pass drops what was prepared for the deliveries of a batch that was not written.
func (g *group) pass(a *accept) {
	for i := range a.batch.Entries {
		for _, name := range a.batch.Entries[i].Endpoints {
			g.next(name)
		}
	}
}

// next is the claim that was prepared for the next delivery of an endpoint, nil if none was.
func (g *group) next(name string) *held {
	at := g.index[name]
	if len(g.ahead[at]) == 0 {
		return nil
	}
	h := g.ahead[at][0]
	g.ahead[at] = g.ahead[at][1:]
	return h
}

// fresh reads the answer for a batch of which at least one entry was written.
func (g *group) fresh(a *accept, order int64, flags string, marks []string, leased []*held) ([]*held, int64) {
	a.receipts = make([]outbox.Receipt, len(a.batch.Entries))
	for i := range a.batch.Entries {
		e := &a.batch.Entries[i]
		a.receipts[i] = outbox.Receipt{ID: e.Event.ID, Deliveries: len(e.Endpoints)}
		mark := byte('n')
		if marks != nil {
			mark = marks[i][0]
			if n := marks[i][1:]; n != "" {
				a.receipts[i].Deliveries, _ = strconv.Atoi(n)
			}
		}
		if mark != 'n' {
			a.receipts[i].Duplicate = mark == 'd'
			for _, name := range e.Endpoints {
				g.next(name)
			}
			continue
		}
		event := e.Event
		event.Time = time.UnixMicro(event.Time.UnixMicro()).UTC()
		kept := false
		for _, name := range e.Endpoints {
			h := g.next(name)
			if h != nil && flags[g.index[name]] == 'l' {
				h.begin(order, &event, g.sent)
				leased = append(leased, h)
				continue
			}
			if !kept {
				g.sh.s.events.add(&event)
				kept = true
			}
		}
		order++
	}
	return leased, order
}
