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
	twice    bool     // an id is in the batch twice
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
	seen := make(map[string]bool, len(b.Entries))
	for i := range b.Entries {
		e := &b.Entries[i]
		if len(e.Endpoints) > maxFanOut || strings.Contains(e.Event.ID, "|") {
			return nil, fmt.Errorf("accept event %q: it has %d endpoints, at most %d, and no | in its id", e.Event.ID, len(e.Endpoints), maxFanOut)
		}
		a.events[i] = encodeEvent(e, mathrand.Uint64())
		a.weight += max(len(a.events[i]), acceptEntry)
		a.twice = a.twice || len(b.Entries) > 1 && seen[e.Event.ID]
		seen[e.Event.ID] = true
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
	wanted   []int // deliveries by endpoint
	reserved []int // how many of them may be leased to this process
	leases   []time.Duration
	base     uint64 // first fence's counter
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
	answers, err := texts(v, len(accepts))
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
			for _, name := range a.batch.Entries[i].Endpoints {
				n, ok := g.index[name]
				if !ok {
					n = len(g.names)
					g.index[name] = n
					g.names = append(g.names, name)
					g.wanted = append(g.wanted, 0)
				}
				g.wanted[n]++
			}
		}
	}
	g.reserved, g.leases = make([]int, len(g.names)), make([]time.Duration, len(g.names))
}

// build writes the script's keys and arguments, in the order that it reads them.
func (g *group) build() {
	sh, deliveries := g.sh, 0
	for _, n := range g.reserved {
		deliveries += n
	}
	g.base = sh.counter.Add(uint64(deliveries)) - uint64(deliveries)
	g.keys = append(g.keys, sh.meta, sh.lease, sh.counts, sh.bell, sh.done)
	g.args = append(g.args, g.joined.outbox, sh.limit(), sh.s.window.Milliseconds(), g.joined.fences.prefix, g.base, len(g.names), len(g.accepts))
	for i, name := range g.names {
		g.keys = append(g.keys, sh.backlog(name), sh.retries(name))
		g.args = append(g.args, name, g.reserved[i], g.leases[i].Microseconds())
	}
	for _, a := range g.accepts {
		b, n := a.batch, len(a.batch.Entries)
		if a.twice {
			n = -n
		}
		if b.Key != "" {
			g.keys = append(g.keys, sh.request(b.Key))
			g.args = append(g.args, b.Fingerprint[:], n)
		} else {
			g.args = append(g.args, "", n)
		}
		for i := range b.Entries {
			e := &b.Entries[i]
			targets := make([]byte, 1, 1+2*len(e.Endpoints))
			targets[0] = 'g'
			if e.Fingerprint != (outbox.Fingerprint{}) {
				targets[0] = 'a'
			}
			for _, name := range e.Endpoints {
				n := g.index[name]
				targets = append(targets, byte(n>>8), byte(n))
			}
			g.keys = append(g.keys, sh.event(e.Event.ID), sh.tombstone(e.Event.ID))
			g.args = append(g.args, e.Event.ID, a.events[i], targets)
		}
	}
}

// read gives every batch its receipts or its refusal, and returns the deliveries
// that this process may make now. The answers of the script:
//
//	A<order>|<flags>           all fresh; orders rise by one; a flag for each delivery: l leased, q in the backlog
//	M<order>|<flags>|<marks>   for each entry: n fresh, d<deliveries> a repeat, o this accept was executed before
//	K<receipts>                the key was used before: <id>:<deliveries>,…
//	O<receipts>                the same, and it was this very accept
//	C<index>                   conflict, -1 for the key
//	F                          full
func (g *group) read(answers []string) (leased []*held) {
	counter := g.base
	for i, a := range g.accepts {
		kind, rest := answers[i][0], answers[i][1:]
		switch kind {
		case 'A', 'M':
			part := strings.SplitN(rest, "|", 3)
			order, _ := strconv.ParseInt(part[0], 10, 64)
			var marks []string
			if kind == 'M' {
				marks = strings.Split(part[2], ",")
			}
			leased, counter = g.fresh(a, order, part[1], marks, leased, counter)
		case 'K', 'O':
			for _, r := range strings.Split(rest, ",") {
				id, n, _ := strings.Cut(r, ":")
				deliveries, _ := strconv.Atoi(n)
				a.receipts = append(a.receipts, outbox.Receipt{ID: id, Deliveries: deliveries, Duplicate: kind == 'K'})
			}
		case 'C':
			n, _ := strconv.Atoi(rest)
			conflict := &outbox.ConflictError{Index: n}
			if n >= 0 {
				conflict.ID = a.batch.Entries[n].Event.ID
			}
			a.done <- conflict
		case 'F':
			a.done <- g.sh.fullness(g.sh.limit())
		}
	}
	return leased
}

// fresh reads the answer for a batch of which at least one entry was written.
func (g *group) fresh(a *accept, order int64, flags string, marks []string, leased []*held, counter uint64) ([]*held, uint64) {
	a.receipts = make([]outbox.Receipt, len(a.batch.Entries))
	for i := range a.batch.Entries {
		e := &a.batch.Entries[i]
		a.receipts[i] = outbox.Receipt{ID: e.Event.ID, Deliveries: len(e.Endpoints)}
		if marks != nil && marks[i] != "n" {
			if n, repeat := strings.CutPrefix(marks[i], "d"); repeat {
				a.receipts[i].Duplicate = true
				a.receipts[i].Deliveries, _ = strconv.Atoi(n)
			}
			continue
		}
		event := e.Event
		event.Time = time.UnixMicro(event.Time.UnixMicro()).UTC()
		kept := false
		for n, name := range e.Endpoints {
			if flags[n] == 'q' {
				if !kept {
					g.sh.s.events.add(&event)
					kept = true
				}
				continue
			}
			r := ref{order: order, n: n, total: len(e.Endpoints), event: event.ID}
			fence := g.joined.fences.fence(counter)
			lease := g.leases[g.index[name]]
			counter++
			leased = append(leased, newHeld(g.sh, g.joined, r, name, fence, lease, g.sent, &event))
		}
		flags = flags[len(e.Endpoints):]
		order++
	}
	return leased, counter
}
