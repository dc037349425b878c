package redisstream

import (
	mathrand "math/rand/v2"
	"time"
)

// boundLook is about how long a Claim that met the bound of the fleet waits before it looks again
// whether claims of other Relays have ended. It hears of this Relay's own.
const boundLook = 100 * time.Millisecond

// rung takes note of endpoints that got work, by this Relay or another.
func (s *Store) rung(sh *shard, names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if e := s.endpoints[name]; e != nil {
			e.maybe |= 1 << sh.index
			s.serve(e)
		}
	}
}

// lookAgain makes every Claim that waits look into a shard.
func (s *Store) lookAgain(sh *shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.endpoints {
		e.maybe |= 1 << sh.index
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
		e.due = time.Time{}
		e.maybe = s.allShards()
		s.serve(e)
	})
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
		s.serve(e)
	})
}

// freed notes that a claim of this Relay has ended. The caller holds mu.
func (s *Store) freed(sh *shard, e *endpoint) {
	if bit := uint64(1) << sh.index; e.full&bit != 0 {
		e.full &^= bit
		s.serve(e)
	} else if e.fetching&bit != 0 {
		e.maybe |= bit // what is on its way may have met the bound
	}
}

// stopTimers ends what would wake endpoints. The caller holds mu.
func (s *Store) stopTimers() {
	for _, e := range s.endpoints {
		for _, t := range []*time.Timer{e.alarm, e.again, e.idle} {
			if t != nil {
				t.Stop()
			}
		}
	}
}
