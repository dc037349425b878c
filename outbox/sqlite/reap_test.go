package sqlite

import (
	"fmt"
	"testing"
	"time"

	"relay/outbox"
)

// Where many deliveries took long, more of them than one Reap looks at may be accepted before the time to which is kept,
// and have ended behind it. There is nothing to remove then, so Reap must not ask for another call, and another.
func TestReapAtTheEdgeIsOver(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		const n = reapWalk + 100
		list := make([]outbox.Entry, n)
		for i := range list {
			list[i] = event(fmt.Sprint("evt_", i), "a")
		}
		mustAccept(t, s, list...)
		claims := claimMany(t, s, "a", n)
		time.Sleep(10 * time.Second)
		for _, c := range claims {
			mustSettle(t, s, c, outbox.Delivered)
		}
		hour := outbox.Retention{Delivered: time.Hour, Failed: time.Hour}
		time.Sleep(time.Hour - 5*time.Second)
		if removed, more, err := s.Reap(t.Context(), hour); removed != 0 || more || err != nil {
			t.Errorf("before any is old enough: %d removed, more = %t, %v", removed, more, err)
		}
		time.Sleep(6 * time.Second)
		total := 0
		for more := true; more; {
			var removed int
			var err error
			if removed, more, err = s.Reap(t.Context(), hour); err != nil {
				t.Fatal(err)
			}
			total += removed
		}
		if total != n {
			t.Errorf("%d of %d are removed", total, n)
		}
	})
}
