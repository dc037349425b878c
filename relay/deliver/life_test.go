package deliver

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
	"relay/relay/deliver/delivertest"
	"relay/relay/gate"
)

// asker knows from which endpoints a claim waits.
type asker struct {
	*outboxtest.Mem
	mu   sync.Mutex
	asks map[string]bool
}

func newAsker(m *outboxtest.Mem) *asker { return &asker{Mem: m, asks: map[string]bool{}} }

func (a *asker) Claim(ctx context.Context, r outbox.ClaimRequest) ([]outbox.Claim, error) {
	claims, err := a.Mem.Claim(ctx, r)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asks[r.Endpoint] = r.Ready != nil && err == nil && len(claims) == 0
	return claims, err
}

func (a *asker) Withdraw(endpoint string) {
	a.Mem.Withdraw(endpoint)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asks[endpoint] = false
}

func (a *asker) want(t *testing.T, want bool, when string) {
	t.Helper()
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asks["billing"] != want {
		t.Errorf("a claim waits in the outbox: %t, %s", !want, when)
	}
}

// The outbox keeps deliveries in memory for whom a claim waits, so none waits where nothing may
// be sent.
func TestNoClaimWaitsInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		source := newAsker(w.store)
		w.o.Source = source
		e := w.inMemory("billing", delivertest.NewEndpoint())
		w.start(e)
		source.want(t, true, "at rest")
		step := func(what string, do func() error, want bool) {
			t.Helper()
			testkit.Must(t, do())
			source.want(t, want, what)
		}
		ctx := t.Context()
		step("paused", func() error { _, err := w.d.Pause(ctx, "billing", "test"); return err }, false)
		step("resumed", func() error { _, err := w.d.Resume(ctx, "billing", "test"); return err }, true)
		step("disabled", func() error { _, err := w.d.Disable(ctx, "billing", "test"); return err }, false)
		step("enabled", func() error { _, err := w.d.Enable(ctx, "billing", "test"); return err }, true)
		apply := func(all ...*policy.Endpoint) func() error {
			return func() error { w.d.Apply(&policy.Policy{Endpoints: all}); return nil }
		}
		step("removed", apply(), false)
		step("back", apply(e), true)
		slower := *e
		slower.Timeout.Total = time.Minute
		step("changed", apply(&slower), true)
		w.accept(1, "billing")
		w.await(1)
		source.want(t, true, "after a delivery")
		w.stop()
		source.want(t, false, "after the stop")
		w.store.Withdraw("billing")
	})
}

// With fewer slots than attempts under way, what a claim brought would lie there, or be handed back again and again.
func TestNoClaimWaitsWithoutSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		source := newAsker(w.store)
		w.o.Source = source
		e := w.inMemory("billing", delivertest.NewEndpoint(delivertest.Step{Delay: 5 * time.Second}))
		w.start(e)
		w.accept(2, "billing")
		source.want(t, true, "beside two attempts of four")
		w.apply(but(e, func(e *policy.Endpoint) { e.Concurrency = 1 }))
		source.want(t, false, "beside two attempts of one")
		w.await(2)
		source.want(t, true, "after them")
	})
}

// While a receiver is asked for its consent once more, nothing may be sent to it.
func TestNoClaimWaitsForConsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		source := newAsker(w.store)
		w.o.Source = source
		again := consents("*", "")
		again.Delay = 5 * time.Second
		e, _ := asking(w, consents("*", ""), again)
		w.start(e)
		w.accept(1, "billing")
		w.await(1)
		source.want(t, true, "with consent")
		time.Sleep(25 * time.Hour)
		w.accept(1, "billing")
		source.want(t, false, "while the receiver is asked")
		w.await(2)
		source.want(t, true, "with consent again")
	})
}

// scarce gives its first token at once, and the next one late.
type scarce struct {
	Source
	mu    sync.Mutex
	asked bool
}

func (s *scarce) Take(ctx context.Context, _ string, _ outbox.Limit, n int) (int, time.Duration, error) {
	s.mu.Lock()
	again := s.asked
	s.asked = true
	s.mu.Unlock()
	if again {
		testkit.Wait(ctx, 5*time.Second)
	}
	return min(n, 1), time.Minute, nil
}

// An attempt that may begin does not wait while the outbox is asked whether another one may.
func TestAttemptBeforeNextLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		slow := &scarce{Source: w.store}
		w.o.Source, w.o.Limiter = slow, slow
		e := w.inMemory("billing", delivertest.NewEndpoint())
		e.RateLimit = &policy.RateLimit{N: 1, Per: time.Minute, Burst: 4}
		w.accept(1, "billing")
		begin := time.Now()
		w.start(e)
		if took := w.await(1)[0].Attempt.Started.Sub(begin); took > 0 {
			t.Errorf("the attempt began after %s, want at once", took)
		}
	})
}

// sudden gets work at the moment when a claim has found nothing, and its runner still runs.
type sudden struct {
	*outboxtest.Mem
	once sync.Once
	then func()
}

func (s *sudden) Claim(ctx context.Context, r outbox.ClaimRequest) ([]outbox.Claim, error) {
	claims, err := s.Mem.Claim(ctx, r)
	if len(claims) == 0 {
		s.once.Do(s.then)
	}
	return claims, err
}

// between does something in the second claim, when the attempt of the first one has not begun yet. From then on
// what may wait takes five seconds.
type between struct {
	*outboxtest.Mem
	then func()

	mu     sync.Mutex
	claims int
}

func (b *between) Claim(ctx context.Context, r outbox.ClaimRequest) ([]outbox.Claim, error) {
	b.mu.Lock()
	b.claims++
	second := b.claims == 2
	b.mu.Unlock()
	if second {
		b.then()
	}
	return b.Mem.Claim(ctx, r)
}

func (b *between) slow(ctx context.Context) {
	b.mu.Lock()
	late := b.claims > 1
	b.mu.Unlock()
	if late {
		testkit.Wait(ctx, 5*time.Second)
	}
}

func (b *between) Take(ctx context.Context, _ string, _ outbox.Limit, n int) (int, time.Duration, error) {
	b.slow(ctx)
	return n, 0, nil
}

func (b *between) SetNote(ctx context.Context, n outbox.Note) (outbox.Note, error) {
	b.slow(ctx)
	return b.Mem.SetNote(ctx, n)
}

// An attempt that may begin does not wait for the outbox, whatever has changed when more is claimed.
func TestAttemptBeforeNextClaim(t *testing.T) {
	for name, then := range map[string]func(*testing.T, *world, *policy.Endpoint){
		"a reload brings a limit": func(_ *testing.T, w *world, e *policy.Endpoint) {
			w.apply(but(e, func(e *policy.Endpoint) { e.RateLimit = &policy.RateLimit{N: 1, Per: time.Minute, Burst: 4} }))
			w.accept(1, "billing")
		},
		"the next one is a probe": func(t *testing.T, w *world, _ *policy.Endpoint) {
			c := gate.Condition{Breaker: &gate.Opening{Until: time.Now().Add(-time.Second)}}
			_, err := w.store.SetNote(t.Context(), outbox.Note{Endpoint: "billing", Text: c.Text()})
			testkit.Must(t, err)
			for s, _ := w.d.StatusOf("billing"); s.Breaker != gate.HalfOpen; s, _ = w.d.StatusOf("billing") {
				time.Sleep(time.Millisecond)
			}
			w.accept(1, "billing")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := w.inMemory("billing", delivertest.NewEndpoint())
				e.Breaker = failing()
				source := &between{Mem: w.store, then: func() { then(t, w, e) }}
				w.o.Source, w.o.Limiter = source, source
				w.accept(1, "billing")
				begin := time.Now()
				w.start(e)
				if took := w.await(1)[0].Attempt.Started.Sub(begin); took > time.Second {
					t.Errorf("the attempt began after %s, want at once", took)
				}
			})
		})
	}
}

// What wakes a runner while it runs makes it look again.
func TestWokenWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.o.Source = &sudden{Mem: w.store, then: func() { w.accept(1, "billing") }}
		w.start(w.inMemory("billing", delivertest.NewEndpoint()))
		synctest.Wait()
		if len(w.results) != 1 {
			t.Error("the event was not delivered at once")
		}
	})
}

// Many wakes make no difference, and one after the stop none at all.
func TestWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint())
		w.start(e)
		synctest.Wait()
		r := w.d.runners["billing"]
		var work sync.WaitGroup
		for range 100 {
			work.Go(r.wake)
		}
		w.accept(20, "billing")
		work.Wait()
		w.await(20)
		synctest.Wait()
		if r.stage != waiting || r.last.s != nil {
			t.Errorf("at rest the runner is at stage %d, with an attempt: %t", r.stage, r.last.s != nil)
		}
		w.stop()
		r.wake()
		if r.stage != asleep {
			t.Errorf("after the stop the runner is at stage %d", r.stage)
		}
	})
}
