package deliver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"relay/outbox"
	"relay/policy"
)

// leaseMargin is what a lease has beyond the attempt, for settling and for a
// machine that stalls. Leases outlast attempts, so none needs to be extended.
const leaseMargin = 15 * time.Second

// runner delivers to one endpoint. While there is nothing to do it is one
// goroutine that waits in Claim.
type runner struct {
	d        *Deliverer
	endpoint *policy.Endpoint
	url      string
	late     string        // why an attempt ended at its total time
	slots    chan struct{} // holds one token for each attempt under way
	repeats  repeats

	once sync.Once
	out  sender // made by the first attempt
}

func (d *Deliverer) newRunner(e *policy.Endpoint) *runner {
	return &runner{
		d:        d,
		endpoint: e,
		url:      e.URL.String(),
		late:     fmt.Sprintf("no whole answer within %s", e.Timeout.Total),
		slots:    make(chan struct{}, e.Concurrency),
	}
}

// run claims work for free slots until claiming ends, and makes the attempts, which
// may go on after it returned. It returns nil then, else the error of Claim.
func (r *runner) run(claiming, working, settling context.Context, work *sync.WaitGroup) error {
	for {
		free := r.acquire(claiming)
		if free == 0 {
			return nil
		}
		claims, err := r.d.o.Source.Claim(claiming, outbox.ClaimRequest{
			Endpoint: r.endpoint.Name,
			Max:      free,
			Lease:    r.endpoint.Timeout.Total*3/2 + leaseMargin,
		})
		switch {
		case claiming.Err() != nil:
			r.release(claims...)
			return nil
		case err != nil:
			return fmt.Errorf("claim deliveries of endpoint %s: %w", r.endpoint.Name, err)
		}
		for range free - len(claims) {
			<-r.slots
		}
		for i := range claims {
			work.Go(func() {
				defer func() { <-r.slots }()
				r.attempt(working, settling, &claims[i])
			})
		}
	}
}

// acquire waits for a free slot, then takes all that are free. It returns 0
// when ctx has ended.
func (r *runner) acquire(ctx context.Context) (free int) {
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return 0
	}
	for free = 1; free < cap(r.slots); free++ {
		select {
		case r.slots <- struct{}{}:
		default:
			return free
		}
	}
	return free
}

// release hands claims back. Where that fails they return when their lease ends.
func (r *runner) release(claims ...outbox.Claim) {
	if len(claims) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	if err := r.d.o.Source.Release(ctx, claims...); err != nil {
		r.d.o.Log.Warn().Str("endpoint", r.endpoint.Name).Err(err).Msg("claims were not handed back")
	}
}

// sender returns what posts to the endpoint; 10,000 endpoints that are never
// used cost none. ctx is that of all attempts.
func (r *runner) sender(ctx context.Context) sender {
	r.once.Do(func() { r.out = newSender(ctx, r.endpoint, &r.d.o, &r.d.exchanges) })
	return r.out
}

func (r *runner) close() {
	if r.out != nil {
		r.out.close()
	}
}
