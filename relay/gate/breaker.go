package gate

import (
	"time"

	"relay/policy"
)

// parts of the breaker's window. An attempt stops counting between 9/10 of the window and one
// whole window after its end.
const parts = 10

// breaker counts how attempts ended lately. The zero value has counted nothing.
type breaker struct {
	start   time.Time // of the first part; the others start at multiples of a part after it
	now     int64     // the newest part, counted from start
	counted [parts]struct{ attempts, failures int }
}

// count adds an attempt and reports whether the breaker must open.
func (b *breaker) count(rule *policy.Breaker, now time.Time, failed bool) (open bool) {
	if b.start.IsZero() {
		b.start = now
	}
	part := int64(now.Sub(b.start) / max(rule.Window/parts, 1))
	for i := max(b.now, part-parts) + 1; i <= part; i++ {
		b.counted[i%parts] = struct{ attempts, failures int }{}
	}
	b.now = max(b.now, part)
	c := &b.counted[b.now%parts]
	c.attempts++
	if !failed {
		return false // the ratio went down
	}
	c.failures++
	attempts, failures := 0, 0
	for _, c := range b.counted {
		attempts, failures = attempts+c.attempts, failures+c.failures
	}
	// A division, because 0.07 × 100 is more than 7 in floating point.
	return attempts >= rule.MinAttempts && float64(failures)/float64(attempts) >= rule.FailureRatio
}

// openFor is how long the breaker stays open when it opens for the nth time in a row.
// random is in [0, 1).
func openFor(rule *policy.Breaker, n int, random float64) time.Duration {
	open := rule.Open
	for i := 1; i < n && open < rule.MaxOpen; i++ {
		open *= 2
	}
	return time.Duration(float64(min(open, rule.MaxOpen)) * (1 + rule.Jitter*(2*random-1)))
}
