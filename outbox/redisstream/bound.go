package redisstream

import (
	mathrand "math/rand/v2"
	"slices"
	"time"
)

// boundLook is about how long a claim that met the bound of the fleet waits before it looks again
// whether claims of other Relays have ended. It hears of this Relay's own.
const boundLook = 100 * time.Millisecond

// boundIn is a shard's part of a bound on claims: at least one, since each shard may
// have something that is due.
func (s *Store) boundIn(sh *shard, bound int) int {
	if bound == 0 {
		return 0
	}
	n := len(s.shards)
	return max(1, (bound+n-1-sh.index)/n)
}

// unbounded tells whether deliveries are ahead that were not leased under the bound that
// claims have: they go back, to be claimed again under it.
func (e *endpoint) unbounded() bool {
	return e.last.FleetMax > 0 && slices.ContainsFunc(e.ahead, func(h *held) bool { return !h.bounded })
}

// rebound makes what is ahead go back when claims have another bound than it was leased
// under. The caller holds mu.
func (s *Store) rebound(e *endpoint, bound int) {
	e.counted, e.full = 0, 0
	for _, h := range e.ahead {
		h.bounded = false
	}
	if bound > 0 && len(e.ahead) > 0 {
		go s.handBackAhead()
	}
}

// lookSoon makes the endpoint look again where its bound was met. The caller holds mu.
func (s *Store) lookSoon(e *endpoint) {
	if e.again != nil {
		return
	}
	e.again = time.AfterFunc(boundLook*3/4+mathrand.N(boundLook/2), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		e.again, e.full = nil, 0
		if !s.closed {
			s.serve(e)
		}
	})
}

// freed notes that a claim of this Relay has ended at an endpoint with a bound.
func (s *Store) freed(sh *shard, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bit := uint64(1) << sh.index
	if e := s.endpoint(name); (e.full|e.fetching)&bit != 0 && !s.closed {
		e.full &^= bit
		e.maybe |= bit
		s.serve(e)
	}
}
