package post

import (
	"math/rand/v2"
	"time"
)

// An idle connection is kept for less than common front ends keep theirs (60 s and more), so that
// it is rarely closed while a request is on its way.
const idleTimeout = 55 * time.Second

// expiry is when a connection opened now has reached its age: between 4/5 of maxAge and all
// of it, so that connections opened together do not end together. The zero time is never.
func expiry(now time.Time, maxAge time.Duration) time.Time {
	if maxAge == 0 {
		return time.Time{}
	}
	return now.Add(maxAge - rand.N(maxAge/5+1))
}

// idleUntil is until when a connection that is idle since then is kept.
func idleUntil(since, expires time.Time) time.Time {
	until := since.Add(idleTimeout)
	if !expires.IsZero() && expires.Before(until) {
		return expires
	}
	return until
}

// alarm calls ring once, at the earliest time that was set. The owner's mutex guards it; ring
// must call rang first.
type alarm struct {
	ring  func()
	at    time.Time // zero if not set
	timer *time.Timer
}

func (a *alarm) set(at time.Time) {
	switch {
	case !a.at.IsZero() && !at.Before(a.at):
		return
	case a.timer == nil:
		a.timer = time.AfterFunc(time.Until(at), a.ring)
	default:
		a.timer.Reset(time.Until(at))
	}
	a.at = at
}

func (a *alarm) rang() { a.at = time.Time{} }

func (a *alarm) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
}
