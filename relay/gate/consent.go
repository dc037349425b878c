package gate

import (
	"time"

	"relay/policy"
)

const (
	// consentLasts is how long a receiver's consent holds.
	consentLasts = 24 * time.Hour

	// A receiver that does not consent is asked again after consentAgain, then after twice as
	// long each time, up to consentAtMost.
	consentAgain  = 10 * time.Second
	consentAtMost = 5 * time.Minute
)

// Consent is a receiver's answer when it is asked whether it wants events.
type Consent struct {
	Given bool
	Rate  int    // requests per minute that it allows; 0 for unlimited
	Why   string // why consent is not given, for people
}

// consent is what this process knows of a receiver's consent, and until when. Zero value: never
// asked.
type consent struct {
	Consent
	until    time.Time
	refusals int // in a row
}

// missing tells whether attempts must wait for consent, and after how long to ask (0: now).
func (c *consent) missing(now time.Time) (wait time.Duration, missing bool) {
	left := max(0, c.until.Sub(now))
	return left, !c.Given || left == 0
}

// Asked applies the answer of e's receiver, unless the endpoint has changed meanwhile. It returns
// when to ask again.
func (g *Gate) Asked(e *policy.Endpoint, c Consent) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if g.endpoint != e {
		return now
	}
	lasts, refusals := consentLasts, 0
	if !c.Given {
		lasts = min(consentAgain<<min(g.consent.refusals, 10), consentAtMost)
		refusals = g.consent.refusals + 1
		c.Rate = 0
	}
	g.consent = consent{c, now.Add(lasts), refusals}
	g.limit = newLimiter(g.limit, g.limited(), g.all.o.Limiter)
	g.tell()
	return g.consent.until
}

// forgetConsent forgets the consent to another URL or origin. The caller holds mu.
func (g *Gate) forgetConsent(old, now *policy.Endpoint) {
	if old == nil || old.URL.String() != now.URL.String() || old.Handshake != now.Handshake || old.Origin != now.Origin {
		g.consent = consent{}
	}
}

// limited is the endpoint with its rate limit or the receiver's, whichever is lower. The caller
// holds mu.
func (g *Gate) limited() *policy.Endpoint {
	own, allowed := g.endpoint.RateLimit, g.consent.Rate
	if allowed == 0 || own != nil && float64(own.N)/own.Per.Minutes() <= float64(allowed) {
		return g.endpoint
	}
	e := *g.endpoint
	e.RateLimit = &policy.RateLimit{N: allowed, Per: time.Minute, Burst: max(1, allowed/60)}
	return &e
}
