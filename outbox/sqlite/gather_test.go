package sqlite

import (
	"fmt"
	"testing"

	"relay/outbox"
)

// A group is bounded by events, so that settlements and refills come between large batches.
func TestGroupsAreBounded(t *testing.T) {
	batch := func(n int) *accept { return &accept{events: make([]outbox.Event, n)} }
	for _, c := range []struct {
		name    string
		batches []int // events of each
		refills int   // endpoints whose backlog is asked for
		want    int   // batches of the first group
	}{
		{"single events", []int{1, 1, 1}, 0, 3},
		{"more than a group", []int{100, 100, 100}, 0, 2},
		{"one that is larger than a group", []int{1000, 1}, 0, 1},
		{"while there is a backlog", []int{100, 100, 100}, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &Store{wake: make(chan struct{}, 1)}
			s.refills = make([]*endpoint, c.refills)
			for _, n := range c.batches {
				s.accepts = append(s.accepts, batch(n))
			}
			if g := s.take(); len(g.accepts) != c.want || s.grouped != c.want {
				t.Errorf("the group has %d batches, and %d are remembered, want %d", len(g.accepts), s.grouped, c.want)
			}
			if rest := len(c.batches) - c.want; len(s.accepts) != rest || len(s.wake) != min(rest, 1) {
				t.Errorf("%d batches wait for an owner that is woken %d times, want %d", len(s.accepts), len(s.wake), rest)
			}
		})
	}
}

// A burst for one endpoint stays in memory, without rows in pending.
func TestBurstNeedsNoRows(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		hold(t, s, "a") // whose delivery has one
		for i := range 120 {
			var list []outbox.Entry
			for j := range 100 {
				list = append(list, sized(fmt.Sprintf("evt_%d_%d", i, j), 1<<10, "a"))
			}
			mustAccept(t, s, list...)
		}
		rows := 0
		err := s.do(t.Context(), func() error {
			q, err := s.db.query("SELECT count(*) FROM pending")
			if err != nil {
				return err
			}
			defer q.stmt.Close()
			q.step()
			rows = q.stmt.ColumnInt(0)
			return q.done()
		})
		if err != nil || rows != 1 {
			t.Errorf("%d deliveries have rows, %v, want 1", rows, err)
		}
	})
}
