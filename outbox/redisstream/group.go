package redisstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"relay/outbox"
)

// acceptGroup is what one script call accepts.
type acceptGroup struct {
	sh      *shard
	joined  *session
	accepts []*accept
	names   []string // of endpoints
	index   map[string]int
	terms   bool  // whether any delivery is on terms
	wanted  []int // deliveries, by endpoint
	free    []int // how many of them this process has room for
	leases  []time.Duration
	keys    []string
	args    []any
	sent    time.Time

	flags  string // of the endpoints, as the script answered
	claims []*lease
	fresh  map[string]*outbox.Event // what was written, by id
}

// gather counts the deliveries of each endpoint.
func (g *acceptGroup) gather() {
	for _, a := range g.accepts {
		for i := range a.batch.Entries {
			e := &a.batch.Entries[i]
			for k, name := range e.Endpoints {
				n, ok := g.index[name]
				if !ok {
					n = len(g.names)
					g.index[name] = n
					g.names, g.wanted = append(g.names, name), append(g.wanted, 0)
				}
				g.wanted[n]++
				g.terms = g.terms || e.Terms != nil && e.Terms[k] != (outbox.Term{})
			}
		}
	}
	g.free, g.leases = make([]int, len(g.names)), make([]time.Duration, len(g.names))
}

// reserve decides how many deliveries a group claims at once: as many as this process has room
// for. Under a bound of the fleet only claims may count.
func (s *Store) reserve(g *acceptGroup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, name := range g.names {
		if e := s.endpoints[name]; e != nil && e.last.FleetMax == 0 {
			g.free[i] = min(g.wanted[i], e.room())
			g.leases[i] = e.last.Lease
			e.asked += g.free[i]
		}
	}
}

// unreserve gives back what reserve took.
func (s *Store) unreserve(g *acceptGroup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, name := range g.names {
		if g.free[i] > 0 {
			e := s.endpoints[name]
			e.asked -= g.free[i]
			s.serve(e)
		}
	}
}

// build writes the script's keys and arguments, in the order that it reads them.
func (g *acceptGroup) build() {
	sh, entries, straight := g.sh, 0, "1"
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
	g.keys = append(make([]string, 0, 6+2*len(g.names)+entries), sh.meta, sh.counts, sh.bell, sh.done, sh.endpoints, sh.leases)
	g.args = append(make([]any, 0, 9+3*len(g.names)+2*len(g.accepts)+2*entries),
		g.joined.outbox, sh.limit(), sh.s.window.Milliseconds(), len(g.names), len(g.accepts), entries, straight, g.joined.consumer, laneRoom)
	for i, name := range g.names {
		g.keys = append(g.keys, sh.backlog(name), sh.lane(name))
		g.args = append(g.args, name, g.free[i], milliseconds(g.leases[i]))
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
			if e.Fingerprint != (outbox.Fingerprint{}) {
				tombstones = append(tombstones, sh.tombstone(e.Event.ID))
			}
			g.args = append(g.args, a.events[i], g.targets(e))
			g.addTerms(e)
		}
	}
	g.keys = append(append(g.keys, tombstones...), requests...)
}

// targets is who gets an event, as the script reads it.
func (g *acceptGroup) targets(e *outbox.Entry) []byte {
	b := append(make([]byte, 0, 1+2*len(e.Endpoints)), 'g')
	if e.Fingerprint != (outbox.Fingerprint{}) {
		b[0] = 'a'
	}
	for _, name := range e.Endpoints {
		n := g.index[name]
		b = append(b, byte(n>>8), byte(n))
	}
	return b
}

func (g *acceptGroup) addTerms(e *outbox.Entry) {
	if !g.terms {
		return
	}
	for n := range e.Endpoints {
		if e.Terms == nil || e.Terms[n] == (outbox.Term{}) {
			g.args = append(g.args, "")
		} else {
			g.args = append(g.args, appendTerm(nil, &e.Terms[n]))
		}
	}
}

// read gives every batch its receipts or its refusal, and takes in what was claimed. Events of
// which deliveries are left in Redis stay in memory, since they may be claimed here. The
// answers of the script: the flags of the endpoints, the time, the claims, then
//
//	A<order>           for all batches together: all are fresh, and their orders rise by one
//
// or for each batch:
//
//	M<marks>           for each entry: n fresh, d a repeat, o this accept was executed before; then how many deliveries it has, unless it is fresh and not on terms
//	K<receipts>        the key was used before: <id>:<deliveries>,…
//	O<receipts>        the same, and it was this very accept
//	C<index>           conflict, -1 for the key
//	F                  full
func (g *acceptGroup) read(v any) error {
	list, ok := v.([]any)
	if !ok || len(list) < 4 {
		return fmt.Errorf("%w: unexpected answer of the accept script: %T", outbox.ErrUnavailable, v)
	}
	claims, err := texts(list[2], 0)
	if err != nil {
		return err
	}
	answers, err := texts(append(list[3:], list[:2]...), 3)
	if err != nil {
		return err
	}
	n := len(answers)
	g.flags = answers[n-2]
	now, _ := strconv.ParseInt(answers[n-1], 10, 64)
	for i := 0; i+3 < len(claims); i += 4 {
		at, _ := strconv.Atoi(claims[i])
		given := grant{g.joined.outbox, g.names[at-1], g.leases[at-1], 0, g.sent, now}
		if h := g.sh.claimed(given, parseEntry(claims[i+1][0], claims[i+2]), claims[i+3], 1); h != nil {
			g.claims = append(g.claims, h)
		}
	}
	for i, a := range g.accepts {
		text := "A"
		if answers[0][0] != 'A' {
			text = answers[i]
		}
		g.answer(a, text[0], text[1:])
	}
	if answers[0][0] == 'A' {
		order, _ := strconv.ParseInt(answers[0][1:], 10, 64)
		g.claimOwn(order, now)
	}
	if strings.Contains(g.flags, "m") {
		for _, e := range g.fresh {
			g.sh.s.events.add(e)
		}
	}
	return nil
}

// claimOwn makes the claims of endpoints of which just the deliveries of this group were claimed.
func (g *acceptGroup) claimOwn(order, now int64) {
	if !strings.ContainsAny(g.flags, "qx") {
		return
	}
	for _, a := range g.accepts {
		for i := range a.batch.Entries {
			e := &a.batch.Entries[i]
			for n, name := range e.Endpoints {
				at := g.index[name]
				line := g.flags[at]
				if line != 'q' && line != 'x' {
					continue
				}
				r := ref{order: order, n: n, total: len(e.Endpoints), event: e.Event.ID}
				h := g.sh.newLease(grant{g.joined.outbox, name, g.leases[at], 0, g.sent, now}, entry{line, order, int64(n)}, r, 1)
				h.claim.Event = g.fresh[e.Event.ID]
				g.claims = append(g.claims, h)
			}
			order++
		}
	}
}

// answer gives a batch its receipts, or its refusal.
func (g *acceptGroup) answer(a *accept, kind byte, rest string) {
	switch kind {
	case 'A', 'M':
		var marks []string
		if kind == 'M' {
			marks = strings.Split(rest, ",")
		}
		g.written(a, marks)
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
	case 'E':
		g.sh.strayOf(rest)
		what, next := advice("wrong_type")
		a.done <- &fault{outbox.ErrUnavailable, "wrong_type", what, next, errors.New(rest)}
	case 'F':
		a.done <- g.sh.fullness(g.sh.limit())
	}
}

// written makes the receipts of a batch of which at least one entry was written.
func (g *acceptGroup) written(a *accept, marks []string) {
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
		a.receipts[i].Duplicate = mark == 'd'
		if mark != 'n' || len(e.Endpoints) == 0 {
			continue
		}
		event := e.Event
		event.Time = time.UnixMicro(event.Time.UnixMicro()).UTC()
		if g.fresh == nil {
			g.fresh = make(map[string]*outbox.Event, len(g.accepts))
		}
		g.fresh[event.ID] = &event
	}
}

// take brings what an accept claimed to those who wait for it, and notes where there is
// more.
func (s *Store) take(ctx context.Context, g *acceptGroup) {
	for _, h := range g.claims {
		if h.claim.Event == nil {
			h.claim.Event = g.fresh[h.ref.event]
		}
	}
	bad, err := g.sh.complete(ctx, g.claims)
	claims := slices.DeleteFunc(g.claims, func(h *lease) bool { return err != nil || bad[h] })

	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range claims {
		s.hold(s.endpoints[h.claim.Endpoint], []*lease{h})
	}
	for i, name := range g.names {
		e := s.endpoints[name]
		if e == nil {
			continue
		}
		e.asked -= g.free[i]
		g.free[i] = 0
		if g.flags[i] == 'm' {
			e.maybe |= 1 << g.sh.index
		}
		s.serve(e)
	}
}
