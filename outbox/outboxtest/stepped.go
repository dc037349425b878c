package outboxtest

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relay/outbox"
)

// Steps is a machine whose wall clock is set forward and back all the time. Engines of a test
// get Wall for theirs.
type Steps struct {
	skew atomic.Int64 // nanoseconds

	calls   sync.RWMutex // held by calls while their times are brought from one clock to the other
	waiting atomic.Int64 // claims under way
}

// Wall is the wall clock as it stands now, without a monotonic reading.
func (s *Steps) Wall() time.Time { return time.Now().Round(0).Add(s.by()) }

func (s *Steps) by() time.Duration { return time.Duration(s.skew.Load()) }

// step sets the wall clock up to a day from what is right, or right again, unless a call
// would see two clocks. It goes by whole seconds: what is far less is no step.
func (s *Steps) step() {
	if !s.calls.TryLock() {
		return
	}
	defer s.calls.Unlock()
	sizes := [...]time.Duration{0, 20 * time.Second, time.Hour, 24 * time.Hour}
	skew := sizes[rand.N(len(sizes))] + time.Duration(rand.N(10))*time.Second
	if rand.N(2) == 0 {
		skew = -skew
	}
	s.skew.Store(int64(skew))
}

// back sets the wall clock back, which is the only way that an outbox can tell from time
// that passed while nobody had it open.
func (s *Steps) back() { s.skew.Add(-int64(time.Duration(rand.N(24*60*60)) * time.Second)) }

// Stepped is h on a machine whose wall clock is set between calls and while claims wait. Run
// finds every guarantee kept, by a suite that knows nothing of it: times that the engine
// shows by the wall clock are brought to the right one again.
func Stepped(h Harness, steps *Steps) Harness {
	wrap := func(store outbox.Engine) *stepped {
		s := &stepped{Engine: store, steps: steps, shows: h.Bubble, stop: make(chan struct{})}
		s.work.Go(s.keepStepping)
		return s
	}
	out := h
	out.Open = func(t *testing.T) outbox.Engine { return wrap(h.Open(t)) }
	out.OpenSized = func(t *testing.T, size int64) outbox.Engine { return wrap(h.OpenSized(t, size)) }
	out.Reopen = func(t *testing.T, store outbox.Engine) outbox.Engine {
		s := store.(*stepped)
		s.end()
		if h.SingleOwner {
			steps.back()
		}
		return wrap(h.Reopen(t, s.Engine))
	}
	if h.Join != nil {
		out.Join = func(t *testing.T, store outbox.Engine) outbox.Engine { return wrap(h.Join(t, store.(*stepped).Engine)) }
	}
	return out
}

// stepped is a store on such a machine.
type stepped struct {
	outbox.Engine
	steps *Steps
	shows bool // times by the wall clock

	once sync.Once
	stop chan struct{}
	work sync.WaitGroup
}

// keepStepping sets the clock while claims wait, at moments that nothing else is due at.
func (s *stepped) keepStepping() {
	for {
		pause := time.Duration(1+rand.N(600_000))*time.Millisecond + 7*time.Microsecond
		if !s.shows {
			pause /= 2000 // time is real
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
			s.steps.step()
		case <-s.stop:
			timer.Stop()
			return
		}
	}
}

func (s *stepped) end() {
	s.once.Do(func() { close(s.stop) })
	s.work.Wait()
}

// right brings a time that the engine shows to the clock as it should be.
func (s *stepped) right(t *time.Time) {
	if s.shows && !t.IsZero() {
		*t = t.Add(-s.steps.by())
	}
}

func (s *stepped) rightDelivery(d *outbox.Delivery) {
	s.right(&d.Due)
	s.right(&d.Created)
	s.right(&d.Finished)
}

// call begins a call, with a step where no claim waits for its answer.
func (s *stepped) call() (done func()) {
	if s.steps.waiting.Load() == 0 {
		s.steps.step()
	}
	s.steps.calls.RLock()
	return s.steps.calls.RUnlock
}

func (s *stepped) Accept(ctx context.Context, b outbox.Batch) ([]outbox.Receipt, error) {
	s.call()()
	return s.Engine.Accept(ctx, b)
}

func (s *stepped) Claim(ctx context.Context, r outbox.ClaimRequest) ([]outbox.Claim, error) {
	s.call()()
	if r.Ready == nil {
		s.steps.waiting.Add(1)
		defer s.steps.waiting.Add(-1)
	}
	return s.Engine.Claim(ctx, r) // for a worker, times are the monotonic clock's
}

// Settle gives a due time without a monotonic reading as the wall clock shows it.
func (s *stepped) Settle(ctx context.Context, c outbox.Claim, st outbox.Settlement) error {
	defer s.call()()
	if st.Due == st.Due.Round(0) && !st.Due.IsZero() {
		st.Due = st.Due.Add(s.steps.by())
	}
	return s.Engine.Settle(ctx, c, st)
}

func (s *stepped) Lookup(ctx context.Context, eventID string) (*outbox.Record, error) {
	defer s.call()()
	r, err := s.Engine.Lookup(ctx, eventID)
	if err == nil {
		s.right(&r.Accepted)
		for i := range r.Deliveries {
			s.rightDelivery(&r.Deliveries[i].Delivery)
		}
	}
	return r, err
}

func (s *stepped) Counts(ctx context.Context) (map[string]outbox.Counts, error) {
	defer s.call()()
	all, err := s.Engine.Counts(ctx)
	for name, c := range all {
		s.right(&c.Oldest)
		all[name] = c
	}
	return all, err
}

func (s *stepped) Reap(ctx context.Context, r outbox.Retention) (int, bool, error) {
	s.call()()
	return s.Engine.Reap(ctx, r)
}

func (s *stepped) Close() error {
	s.end()
	return s.Engine.Close()
}
