package gate

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"relay/outbox"
	"relay/policy"
)

// limiter is an endpoint's rate limit. The runner's loop calls ready and then take for the
// deliveries that it claimed, never at the same time.
type limiter interface {
	// ready estimates how many attempts may begin, at most want. If none may, wait is how long
	// until some may.
	ready(ctx context.Context, now time.Time, want int) (n int, wait time.Duration)

	// take takes tokens for up to n attempts that begin now, and returns how many it got.
	take(ctx context.Context, now time.Time, n int) int

	// level estimates the tokens in the bucket. It may be called at any time.
	level(now time.Time) float64
}

// newLimiter returns the limiter for the endpoint's rules: old, if it can apply them.
func newLimiter(old limiter, e *policy.Endpoint, shared outbox.Limiter) limiter {
	rule := e.RateLimit
	if rule == nil {
		return nil
	}
	limit := outbox.Limit{N: rule.N, Per: rule.Per, Burst: rule.Burst}
	if shared != nil {
		if f, ok := old.(*fleetLimit); ok && f.limit == limit {
			return f
		}
		return newFleetLimit(e.Name, limit, shared)
	}
	perSecond := rate.Limit(float64(rule.N) / rule.Per.Seconds())
	if l, ok := old.(*localLimit); ok {
		now := time.Now()
		l.tokens.SetLimitAt(now, perSecond)
		l.tokens.SetBurstAt(now, rule.Burst) // more tokens than the burst are lost
		return l
	}
	return &localLimit{rate.NewLimiter(perSecond, rule.Burst)}
}

// localLimit is a token bucket of this process alone.
type localLimit struct{ tokens *rate.Limiter }

func (l *localLimit) ready(_ context.Context, now time.Time, want int) (int, time.Duration) {
	tokens := l.tokens.TokensAt(now)
	if tokens < 1 {
		return 0, untilToken(tokens, l.tokens.Limit())
	}
	return min(int(tokens), want), 0
}

// take takes the tokens that ready saw; there is no other taker.
func (l *localLimit) take(_ context.Context, now time.Time, n int) int {
	n = min(n, int(l.tokens.TokensAt(now)))
	if n > 0 && !l.tokens.AllowN(now, n) {
		return 0 // the limit was just replaced
	}
	return n
}

func (l *localLimit) level(now time.Time) float64 { return l.tokens.TokensAt(now) }
