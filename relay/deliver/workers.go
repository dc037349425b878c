package deliver

import (
	"context"
	"sync/atomic"

	"relay/outbox"
)

// maxResting bounds the workers that rest. A garbage collection takes back the stack that one
// which rests does not need.
const maxResting = 64

// workers make attempts, of all endpoints. One that is done rests until the next attempt, because
// a new goroutine would let its stack grow anew. There is no bound to how many work.
type workers struct {
	jobs    chan job // without a buffer: a job is taken by one that rests
	resting atomic.Int64
}

// job is an attempt that may begin, on a slot of its runner.
type job struct {
	r      *runner
	s      *setup
	claims []outbox.Claim
	draft  *draft // of a batch
	probe  bool
}

func (j *job) run() {
	defer j.r.end(j.s)
	j.r.attempt(j.s, j.claims, j.draft, j.probe)
}

// begin hands a job to a worker that rests, else to a new one.
func (d *Deliverer) begin(j job) {
	select {
	case d.workers.jobs <- j:
	default:
		d.work.Go(func() { d.workers.work(d.claiming, j) })
	}
}

// work makes attempt after attempt until ctx ends while it rests.
func (w *workers) work(ctx context.Context, j job) {
	for {
		j.run()
		j = job{} // one that rests holds no event
		if w.resting.Add(1) > maxResting {
			w.resting.Add(-1)
			return
		}
		select {
		case j = <-w.jobs:
			w.resting.Add(-1)
		case <-ctx.Done():
			return
		}
	}
}
