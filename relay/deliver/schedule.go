package deliver

import (
	"strconv"
	"strings"
	"time"

	"relay/policy"
)

// backoff returns how long a delivery waits after attempt n (from 1) before it is
// due again, and false when the schedule has no further step. random, in [0, 1),
// spreads the delay evenly over delay × (1 ± jitter). A receiver that asked for
// more time gets it.
func backoff(s *policy.Steps, n int, asked time.Duration, random float64) (time.Duration, bool) {
	if n > len(s.Schedule) {
		return 0, false
	}
	delay := time.Duration(float64(s.Schedule[n-1]) * (1 + s.Jitter*(2*random-1)))
	return max(delay, asked), true
}

// parseRetryAfter reads the Retry-After header, RFC 9110 section 10.2.3:
// seconds or a date in one of the three forms of section 5.6.7. What is past, or
// neither of them, is 0. Seconds beyond what a Duration holds are its largest value.
func parseRetryAfter(s string, now time.Time) time.Duration {
	s = strings.TrimSpace(s)
	if s == "" {
		return 0
	}
	if strings.Trim(s, "0123456789") == "" {
		const most = time.Duration(1<<63 - 1)
		seconds, err := strconv.ParseInt(s, 10, 64)
		if err != nil || seconds > int64(most/time.Second) {
			return most
		}
		return time.Duration(seconds) * time.Second
	}
	for _, layout := range []string{"Mon, 02 Jan 2006 15:04:05 GMT", time.RFC850, time.ANSIC} {
		if at, err := time.Parse(layout, s); err == nil {
			return max(at.Sub(now), 0)
		}
	}
	return 0
}
