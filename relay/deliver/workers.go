package deliver

import (
	"context"
	"sync/atomic"

	"relay/outbox"
)

// maxResting bounds the idle workers. Garbage collection shrinks their stacks.
const maxResting = 64

// workers make attempts, of all endpoints, and run the runners. An idle worker is kept for the next attempt, because a
// new goroutine would have to grow its stack again. The number of busy workers has no bound.
type workers struct {
	jobs    chan job // unbuffered, so only an idle worker takes a job
	resting atomic.Int64
}

// job is an attempt that may begin, on a slot of its runner; or, without a setup, a run of it.
type job struct {
	r      *runner
	s      *setup
	claims []outbox.Claim
	draft  *draft // of a batch
	probe  bool
}

func (j *job) run() {
	if j.s == nil {
		if last := j.r.run(); last.s != nil {
			last.run()
		}
		return
	}
	defer j.r.end(j.s)
	j.r.attempt(j.s, j.claims, j.draft, j.probe)
}

// begin hands a job to an idle worker, or to a new one.
func (d *Deliverer) begin(j job) {
	select {
	case d.workers.jobs <- j:
	default:
		d.work.Go(func() { d.workers.work(d.claiming, j) })
	}
}

// work makes attempts until ctx ends while it is idle.
func (w *workers) work(ctx context.Context, j job) {
	for {
		j.run()
		j = job{} // an idle worker keeps no event in memory
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
