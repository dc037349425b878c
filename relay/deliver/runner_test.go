package deliver

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// generous gives a token less than is promised; what is handed back goes slowly.
type generous struct{ Source }

func (generous) Take(_ context.Context, _ string, _ outbox.Limit, n int) (int, time.Duration, error) {
	return min(n, 1), time.Minute, nil
}

func (g generous) Release(ctx context.Context, claims ...outbox.Claim) error {
	testkit.Wait(ctx, time.Second)
	return g.Source.Release(ctx, claims...)
}

// Attempts that have their tokens do not wait until the outbox has taken back what has none.
func TestAttemptsBeforeReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		slow := generous{w.store}
		w.o.Source, w.o.Limiter = slow, slow
		e := w.inMemory("billing", delivertest.NewEndpoint())
		e.RateLimit = &policy.RateLimit{N: 1, Per: time.Minute, Burst: 4}
		w.accept(4, "billing")
		begin := time.Now()
		w.start(e)
		if took := w.await(1)[0].Attempt.Started.Sub(begin); took > 0 {
			t.Errorf("the attempt began after %s, want at once", took)
		}
	})
}
