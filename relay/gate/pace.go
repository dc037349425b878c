package gate

import (
	"time"

	"golang.org/x/time/rate"
)

// pace is how fast a receiver's rate headers allow sends, for a while. The zero value bounds
// nothing.
type pace struct {
	until  time.Time
	tokens *rate.Limiter
}

// minPace is the slowest pace, in sends per second. Below it the endpoint is held instead.
const minPace = 0.001

// set spreads the sends that the receiver has left over the time until its window ends.
func (p *pace) set(now time.Time, left int, reset time.Duration) {
	perSecond := max(float64(left)/reset.Seconds(), minPace)
	if p.tokens == nil || !now.Before(p.until) {
		p.tokens = rate.NewLimiter(rate.Limit(perSecond), 1)
	} else {
		p.tokens.SetLimitAt(now, rate.Limit(perSecond))
	}
	p.until = now.Add(reset)
}

// ready returns how many sends may begin, -1 for any number. If none may, ok is false and wait
// says for how long.
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

// untilToken is how long until there is a whole token.
func untilToken(tokens float64, limit rate.Limit) time.Duration {
	seconds := (1 - tokens) / float64(limit)
	const most = 24 * time.Hour // then ready asks again
	if seconds > most.Seconds() {
		return most
	}
	return time.Duration(seconds*float64(time.Second)) + 1
}
