package redisstream

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// reserve decides how many deliveries of a group this process can make at once:
// as many as claims wait for. They are leased by the accept itself.
func (s *Store) reserve(g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, name := range g.names {
		if e := s.endpoints[name]; e != nil {
			if e.last.FleetMax > 0 || g.onTerms[i] {
				continue // only a claim may count, or what is made be known beforehand
			}
			g.reserved[i] = min(g.wanted[i], e.demand())
			g.leases[i] = e.leaseAhead()
			e.reserved += g.reserved[i]
		}
	}
}

// unreserve gives back what reserve took.
func (s *Store) unreserve(g *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, name := range g.names {
		if e := s.endpoints[name]; e != nil {
			e.reserved -= g.reserved[i]
			g.reserved[i] = 0
		}
	}
}

// take brings what an accept leased to those who wait for it, and notes where
// there is more.
func (s *Store) take(g *group, leased []*held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := make([]int, len(g.names))
	for _, h := range leased {
		s.held[h.claim.Fence] = h
		n := g.index[h.claim.Endpoint]
		got[n]++
		e := s.endpoints[h.claim.Endpoint]
		e.ahead = append(e.ahead, h)
	}
	for i, name := range g.names {
		e := s.endpoints[name]
		if e == nil {
			continue
		}
		e.reserved -= g.reserved[i]
		g.reserved[i] = 0
		if got[i] > 0 {
			e.merge(nil)
		}
		if got[i] < g.wanted[i] {
			e.maybe |= 1 << g.sh.index // at the end of the line
		}
		s.serve(e)
	}
}

// rung takes note of endpoints that got work, by this Relay or another.
func (s *Store) rung(sh *shard, names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if e := s.endpoints[name]; e != nil {
			e.maybe |= 1 << sh.index // what others leave is younger than what is here, or about as old
			s.serve(e)
		}
	}
}

// lookAgain makes everybody who waits look into a shard.
func (s *Store) lookAgain(sh *shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.endpoints {
		e.hear(1<<sh.index, 0)
		s.serve(e)
	}
}

// wakeAt makes the endpoint look when a retry is due. The caller holds mu.
func (s *Store) wakeAt(e *endpoint, due time.Time) {
	if !e.due.IsZero() && !due.Before(e.due) {
		return
	}
	e.due = due
	if e.alarm != nil {
		e.alarm.Stop()
	}
	e.alarm = time.AfterFunc(time.Until(due), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			return
		}
		e.hear(1<<len(s.shards)-1, s.At(e.due).UnixMicro())
		e.due = time.Time{}
		s.serve(e)
	})
}

// aheadIdle is how long deliveries may be leased ahead while nobody claims.
const aheadIdle = time.Second

// takeAhead returns the deliveries that are leased ahead at endpoints from which
// nobody has claimed for a while, or whose claims have another bound now; and what was
// leased as the newest and not given out at once. The caller holds mu.
func (s *Store) takeAhead(now time.Time, idle time.Duration) (list []*held) {
	for _, e := range s.endpoints {
		for _, t := range []*time.Timer{e.alarm, e.again} {
			if idle == 0 && t != nil {
				t.Stop()
			}
		}
		if len(e.ahead) == 0 {
			continue
		}
		all := idle == 0 || e.unbounded() || len(e.waiters) == 0 && now.Sub(e.since) >= idle
		e.ahead = slices.DeleteFunc(e.ahead, func(h *held) bool {
			if all || h.newest {
				list = append(list, h)
			}
			return all || h.newest
		})
	}
	for _, h := range list {
		delete(s.held, h.claim.Fence)
	}
	return list
}

// handBackAhead gives up what was leased ahead for claims that do not come, and
// forgets leases that ended unnoticed.
func (s *Store) handBackAhead() {
	s.handing.Lock()
	defer s.handing.Unlock()
	now := time.Now()
	s.mu.Lock()
	list := s.takeAhead(now, aheadIdle)
	for _, h := range list {
		s.endpoint(h.claim.Endpoint).returning++
	}
	for fence, h := range s.held {
		if now.Sub(h.claim.Until) > time.Minute {
			delete(s.held, fence)
		}
	}
	s.mu.Unlock()
	if len(list) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := s.release(ctx, list); err != nil {
		s.log.Warn().Err(err).Msg("deliveries leased ahead were not handed back: they come again when the lease ends")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range list {
		e := s.endpoint(h.claim.Endpoint)
		if e.returning--; e.returning > 0 || s.closed {
			continue
		}
		for _, w := range e.waiters {
			w.ask(e)
		}
		s.serve(e)
	}
}

// orphanAge is longer than any call that may still be under way.
const orphanAge = 6 * time.Second

// seekOrphans looks for claims of this Relay that it does not know of, since the
// answer to the script that made them was lost. Unknown twice in a row means so.
func (sh *shard) seekOrphans(ctx context.Context, joined *session) {
	sh.mu.Lock()
	unsure, before := sh.unsure, sh.orphans
	sh.mu.Unlock()
	if unsure.IsZero() || time.Since(unsure) < orphanAge {
		return
	}
	node, err := sh.node(ctx)
	if err != nil {
		return
	}
	members, err := node.ZRange(ctx, sh.lease, 0, -1).Result()
	if err != nil {
		_ = sh.note(err) // the next tick tries again
		return
	}
	unknown := map[string]bool{}
	var lost []*held
	known := sh.s.members()
	for _, m := range members {
		if !strings.HasPrefix(m, joined.fences.prefix) || known[m] {
			continue
		}
		unknown[m] = true
		if h := sh.orphan(ctx, node, m); h != nil && before[m] {
			lost = append(lost, h)
		}
	}
	if err := sh.s.release(ctx, lost); err != nil {
		return
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch {
	case sh.unsure != unsure: // it happened again meanwhile
		sh.orphans = nil
	case before == nil && len(unknown) > 0:
		sh.orphans, sh.unsure = unknown, time.Now()
	default:
		sh.orphans, sh.unsure = nil, time.Time{}
	}
}

// orphan is what can be said of a claim by its member alone, nil if nothing.
func (sh *shard) orphan(ctx context.Context, node *redis.Client, member string) *held {
	part := strings.SplitN(member, "|", 5)
	if len(part) != 5 {
		return nil
	}
	kept, err := node.HMGet(ctx, sh.event(part[4]), "o", part[1]).Result()
	if err != nil {
		return nil
	}
	order, _ := kept[0].(string)
	r, err := parseTail(order + "." + part[1] + "." + part[2] + "|" + part[4])
	if err != nil {
		return nil
	}
	h := newHeld(sh, r, part[3], 0, 0, time.Time{}, nil)
	h.member = member
	if text, _ := kept[1].(string); text != "" {
		if last, err := decodeRecord(text); err == nil {
			h.due = last.due
		}
	}
	return h
}

// members are all claims that this process holds, as they stand in the sets of leases.
func (s *Store) members() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]bool, len(s.held))
	for _, h := range s.held {
		all[h.member] = true
	}
	return all
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
