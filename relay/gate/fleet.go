package gate

import (
	"context"
	"math"
	"sync"
	"time"

	"relay/outbox"
)

const (
	// Tokens are taken from the outbox for at most this long ahead.
	mostAhead = 100 * time.Millisecond

	// If the burst is too small for this, no tokens are taken ahead, because a claim may take as
	// long and the tokens would lapse.
	leastAhead = 20 * time.Millisecond

	// If the outbox does not answer, a claim waits this long for its tokens and is then released.
	// Leases are long enough for it.
	patience   = 5 * time.Second
	askAgain   = 200 * time.Millisecond
	askTimeout = 2 * time.Second
)

// fleetLimit takes tokens from the bucket that the fleet shares.
//
// While an endpoint has little to do, deliveries are claimed first, and their tokens are taken
// after it in one call. While it is busy, tokens are prefetched for deliveries that are likely to
// be claimed, so that one call serves many sends; unused tokens lapse. A token that is used late
// would let more sends into a window than the limit allows. So the bucket is smaller than the
// burst by the tokens that accrue in that time.
type fleetLimit struct {
	endpoint string
	limit    outbox.Limit  // as in the file
	bucket   outbox.Limit  // in the outbox
	ahead    time.Duration // how long a prefetched token is good
	batch    int           // tokens prefetched in one call, at most
	store    outbox.Limiter

	mu      sync.Mutex
	have    int
	good    time.Time // until when the prefetched tokens are good
	next    time.Time // the bucket has no token before this time
	scarce  time.Time // until this time tokens are asked for before claiming
	lastUse time.Time
}

func newFleetLimit(endpoint string, l outbox.Limit, store outbox.Limiter) *fleetLimit {
	perSecond := float64(l.N) / l.Per.Seconds()
	// At most half of the burst is given up because tokens are used late.
	ahead := min(mostAhead, time.Duration(float64(l.Burst)/2/perSecond*float64(time.Second)))
	back := perSecond * ahead.Seconds() // tokens that accrue meanwhile
	bucket, batch := l, int(back)
	if batch == 0 || ahead < leastAhead {
		batch, ahead = 0, 0
	} else {
		bucket.Burst -= int(math.Ceil(back))
	}
	return &fleetLimit{endpoint: endpoint, limit: l, bucket: bucket, ahead: ahead, batch: batch, store: store}
}

func (f *fleetLimit) ready(ctx context.Context, now time.Time, want int) (int, time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !now.Before(f.good) {
		f.have = 0
	}
	switch {
	case f.have > 0:
		return min(f.have, want), 0
	case now.Before(f.next):
		return 0, f.next.Sub(now)
	case f.batch == 0 || !now.Before(f.scarce):
		return min(f.bucket.Burst, want), 0 // take will tell
	}
	if !f.ask(ctx, f.batch) {
		return 0, askAgain
	}
	if f.have == 0 {
		return 0, time.Until(f.next)
	}
	return min(f.have, want), 0
}

func (f *fleetLimit) take(ctx context.Context, now time.Time, n int) (taken int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	busy := now.Sub(f.lastUse) < f.ahead
	f.lastUse = now
	for until := now.Add(patience); ; {
		if now.Before(f.good) {
			taken += f.use(n - taken)
		}
		if taken == n || now.Before(f.next) {
			return taken
		}
		ask := n - taken
		if busy {
			ask = max(ask, f.batch)
		}
		if f.ask(ctx, ask) {
			return taken + f.use(n-taken) // although they come late: the outbox was slow
		}
		if now = time.Now(); now.After(until) || !pause(ctx, askAgain) {
			return taken
		}
		now = time.Now()
	}
}

// level is an estimate: the prefetched tokens or, while the bucket may have some, a full one.
func (f *fleetLimit) level(now time.Time) float64 {
	if !f.mu.TryLock() {
		return 0 // it is being asked for some
	}
	defer f.mu.Unlock()
	switch {
	case now.Before(f.next):
		return 0
	case now.Before(f.good):
		return float64(f.have)
	}
	return float64(f.bucket.Burst)
}

func (f *fleetLimit) use(n int) int {
	n = min(n, f.have)
	f.have -= n
	return n
}

// ask takes tokens from the bucket. It returns false when the outbox did not answer.
func (f *fleetLimit) ask(ctx context.Context, n int) bool {
	asked := time.Now()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	taken, wait, err := f.store.Take(ctx, f.endpoint, f.bucket, n)
	if err != nil {
		return false
	}
	f.have, f.good = taken, asked.Add(f.ahead)
	if taken < n {
		now := time.Now()
		f.next, f.scarce = now.Add(wait), now.Add(max(time.Second, 2*wait))
	}
	return true
}

// pause returns false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
