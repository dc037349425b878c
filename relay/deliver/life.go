package deliver

import (
	"runtime"
	"sync"
)

// life is whether a runner runs, with a lock of its own, because it is woken while locks of the
// gate and the outbox are held.
type life struct {
	mu    sync.Mutex
	stage stage
}

type stage int

const (
	asleep  stage = iota // not to be woken: Run has not begun yet, or claims nothing more
	waiting              // for wake
	working
	called // working, and woken meanwhile
)

// open begins to claim, if the endpoint takes deliveries. The caller holds d.mu.
func (r *runner) open() {
	r.life.mu.Lock()
	if r.stage == asleep {
		r.stage = waiting
	}
	r.life.mu.Unlock()
	r.wake()
	runtime.Gosched() // it is soon done, so that thousands that start need but few goroutines
}

// wake makes the runner look for something to do. It may be called under any lock.
func (r *runner) wake() {
	r.life.mu.Lock()
	defer r.life.mu.Unlock()
	switch r.stage {
	case waiting:
		r.stage = working
		r.d.begin(job{r: r})
	case working:
		r.stage = called
	}
}

// rest ends the run, and returns false if the runner was woken meanwhile.
func (r *runner) rest() bool {
	r.life.mu.Lock()
	defer r.life.mu.Unlock()
	ended := r.d.claiming.Err() != nil
	switch {
	case r.stage == called, ended && r.asked: // then it withdraws
		r.stage = working
		return false
	case ended:
		r.stage = asleep
	default:
		r.stage = waiting
	}
	return true
}

// sleep makes wake do nothing, and returns false if the runner runs.
func (r *runner) sleep() bool {
	r.life.mu.Lock()
	defer r.life.mu.Unlock()
	if r.stage == waiting {
		r.stage = asleep
	}
	return r.stage == asleep
}

// run does what there is to do, until the runner has to wait. It returns an attempt for its goroutine to make,
// if there is one.
func (r *runner) run() (last job) {
	for {
		if r.later != nil {
			r.later.Stop()
			r.later = nil
		}
		if err := r.claimAll(); err != nil {
			r.d.stop(err)
		}
		last = r.last // rest lets another goroutine run the runner
		r.last = job{}
		if r.rest() {
			return last
		}
		r.last = last
	}
}
