package gate

import (
	"time"

	"golang.org/x/time/rate"
)

// pace is how fast a receiver's answers say that it may be sent to, for a while. The
// zero value bounds nothing.
type pace struct {
	until  time.Time
	tokens *rate.Limiter
}

// minPace is the slowest pace, in sends per second: what is slower holds the endpoint.
const minPace = 0.001

// set spreads what the receiver has left over the time until it counts anew.
func (p *pace) set(now time.Time, left int, reset time.Duration) {
	perSecond := max(float64(left)/reset.Seconds(), minPace)
	if p.tokens == nil || !now.Before(p.until) {
		p.tokens = rate.NewLimiter(rate.Limit(perSecond), 1)
	} else {
		p.tokens.SetLimitAt(now, rate.Limit(perSecond))
	}
	p.until = now.Add(reset)
}

// ready tells how many sends may begin, -1 for any number; when it is none, ok is false and
// wait says for how long.
func (p *pace) ready(now time.Time) (n int, wait time.Duration, ok bool) {
	if p.tokens == nil || !now.Before(p.until) {
		return -1, 0, true
	}
	tokens := p.tokens.TokensAt(now)
	if tokens < 1 {
		wait = untilToken(tokens, p.tokens.Limit())
		return 0, min(wait, p.until.Sub(now)), false
	}
	return int(tokens), 0, true
}

func (p *pace) take(now time.Time, n int) {
	if p.tokens != nil && now.Before(p.until) {
		p.tokens.AllowN(now, n)
	}
}

// untilToken is how long it takes until there is a whole token.
func untilToken(tokens float64, limit rate.Limit) time.Duration {
	seconds := (1 - tokens) / float64(limit)
	const most = 24 * time.Hour // then it is asked again
	if seconds > most.Seconds() {
		return most
	}
	return time.Duration(seconds*float64(time.Second)) + 1
}
