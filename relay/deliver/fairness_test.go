package deliver

import (
	"testing"
	"time"

	"relay/outbox"
)

// Half of the slots go to what is fresh, however often a claim finds nothing and is made again.
func TestFreshShareOfWhatIsClaimed(t *testing.T) {
	now := time.Now()
	late := []outbox.Claim{{Delivery: outbox.Delivery{Due: now.Add(-time.Minute)}}}
	var f fairness
	f.fresh(1, 0.5)
	f.observe(late, 1, now)
	fresh := 0
	for range 100 {
		n := 0
		for range 3 {
			f.observe(nil, 1, now) // nothing was found
			n = f.fresh(1, 0.5)
		}
		f.observe(late, 1, now)
		fresh += n
	}
	if fresh != 50 {
		t.Errorf("of 100 claims %d were fresh ones, want 50", fresh)
	}
}
