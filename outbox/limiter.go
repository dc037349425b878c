package outbox

import (
	"context"
	"time"
)

// Limit is a token bucket: N tokens accrue evenly over Per, up to Burst. Taking one for each send
// keeps sends over any window of time to at most N × window / Per + Burst.
type Limit struct {
	N     int
	Per   time.Duration
	Burst int
}

// Limiter is implemented by engines that several processes share: one bucket for each endpoint,
// by the outbox's clock.
type Limiter interface {
	// Take takes as many tokens as there are, at most n, from the endpoint's bucket. A new bucket
	// is full. If it takes less than n, wait is how long until there is one more. Errors:
	// ErrUnavailable, ErrClosed, the context's; it is then unknown whether tokens were taken.
	Take(ctx context.Context, endpoint string, l Limit, n int) (taken int, wait time.Duration, err error)
}
