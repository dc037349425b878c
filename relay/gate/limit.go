package gate

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"relay/outbox"
	"relay/policy"
)

// limiter is an endpoint's rate limit. The gate's loop calls ready and then, for what
// it claimed, take; no two calls at the same time.
type limiter interface {
	// ready tells how many attempts may begin, at most want, as far as is known; when it is
	// none, wait is how long until it may be more.
	ready(ctx context.Context, now time.Time, want int) (n int, wait time.Duration)

	// take takes tokens for n attempts that begin now, and returns how many there were.
	take(ctx context.Context, now time.Time, n int) int

	// level is how many tokens there are, as far as is known. It may be called at any time.
	level(now time.Time) float64
}

// newLimiter returns the limiter of the endpoint's rules, old where that can go on.
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
		l.tokens.SetBurstAt(now, rule.Burst) // tokens beyond it are gone
		return l
	}
	return &localLimit{rate.NewLimiter(perSecond, rule.Burst)}
}

// localLimit is a bucket of this process alone.
type localLimit struct{ tokens *rate.Limiter }

func (l *localLimit) ready(_ context.Context, now time.Time, want int) (int, time.Duration) {
	tokens := l.tokens.TokensAt(now)
	if tokens < 1 {
		return 0, untilToken(tokens, l.tokens.Limit())
	}
	return min(int(tokens), want), 0
}

// take takes what ready promised: nobody else takes.
func (l *localLimit) take(_ context.Context, now time.Time, n int) int {
	n = min(n, int(l.tokens.TokensAt(now)))
	if n > 0 && !l.tokens.AllowN(now, n) {
		return 0 // the limit just became another one
	}
	return n
}

func (l *localLimit) level(now time.Time) float64 { return l.tokens.TokensAt(now) }
