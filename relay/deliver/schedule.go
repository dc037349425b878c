package deliver

import (
	"time"

	"relay/policy"
)

// backoff returns how long a delivery waits after attempt n (from 1) before it is
// due again, and false when the schedule has no further step. random, in [0, 1),
// spreads the delay evenly over delay × (1 ± jitter).
func backoff(s *policy.Steps, n int, random float64) (time.Duration, bool) {
	if n > len(s.Schedule) {
		return 0, false
	}
	return time.Duration(float64(s.Schedule[n-1]) * (1 + s.Jitter*(2*random-1))), true
}
