package deliver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// Fault F36: a receiver that fails for five days with a backlog costs nobody anything: few
// attempts, no memory, no delay elsewhere. Then the endpoint is disabled, and nothing of it is lost.
func TestReceiverFailsForDays(t *testing.T) {
	const backlog, days = 10_000, 5
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.o.observe = nil
		down, well := delivertest.NewEndpoint(delivertest.Step{Status: 503}), delivertest.NewEndpoint()
		bad, good := w.inMemory("down", down), w.inMemory("well", well)
		bad.Breaker, bad.Concurrency = failing(), 16
		bad.Disable.AfterFailing = days * 24 * time.Hour
		begin := time.Now()
		for range backlog / 1000 {
			w.accept(1000, "down")
		}
		w.start(bad, good)
		var after1, after5 runtime.MemStats
		for hour := range days*24 + 1 {
			time.Sleep(time.Hour)
			w.accept(1, "well")
			synctest.Wait()
			r := well.Requests()
			if len(r) != hour+1 {
				t.Fatalf("%d of %d deliveries were made elsewhere after %d hours", len(r), hour+1, hour+1)
			}
			if hour == 0 {
				runtime.GC()
				runtime.ReadMemStats(&after1)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after5)
		if grown := int64(after5.HeapAlloc) - int64(after1.HeapAlloc); grown > 8<<20 {
			t.Errorf("the heap has grown by %d bytes", grown)
		}
		s, _ := w.d.StatusOf("down")
		if s.State != Disabled || s.Code != ByFailing {
			t.Errorf("the endpoint is %s, %s", s.State, s.Code)
		}
		counts, err := w.store.Counts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c := counts["down"]
		if want := (outbox.Counts{Accepted: backlog, Pending: backlog, Oldest: begin.UTC()}); c != want {
			t.Errorf("counts are %+v, want %+v", c, want)
		}
		if n := len(down.Requests()); n > days*24*60/10*2 {
			t.Errorf("%d attempts in %d days, though the breaker was open", n, days)
		}
		t.Logf("%d attempts in %d days", len(down.Requests()), days)
	})
}

// Promises P7, P9 and P12: a thousand reloads, between which the endpoint is paused, disabled,
// removed, given another breaker or none, lose nothing, and its limit holds as long as
// each file has it.
func TestGatesInReloadStorm(t *testing.T) {
	const reloads = 1000
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.o.observe = nil
		ledger := outboxtest.NewLedger()
		receiver := delivertest.NewEndpoint()
		var calm atomic.Bool // probes come at the same second of each minute
		receiver.Answer = func(r *delivertest.Request) delivertest.Step {
			if r.Attempt == 1 && r.At.Second()%4 == 0 && !calm.Load() {
				return delivertest.Step{Status: 503}
			}
			if err := ledger.Received(r.Event, "billing"); err != nil {
				t.Error(err)
			}
			return delivertest.Step{}
		}
		e := w.inMemory("billing", receiver)
		e.RateLimit = &policy.RateLimit{N: 100, Per: time.Second, Burst: 20}
		e.Retry.Schedule = []time.Duration{time.Second, time.Second, time.Second}
		e.Breaker = failing()
		w.start(e)
		for i := range reloads {
			for _, id := range w.accept(1+i%2, "billing") {
				if err := ledger.Accepted(id, "billing"); err != nil {
					t.Error(err)
				}
			}
			switch i % 9 {
			case 0:
				w.apply()
			case 1:
				w.apply(but(e, func(e *policy.Endpoint) { e.Enabled = false }))
			case 2:
				w.apply(but(e, func(e *policy.Endpoint) { e.Breaker = nil }))
			case 3:
				w.apply(but(e, func(e *policy.Endpoint) {
					b := *e.Breaker
					b.MinAttempts, e.Breaker = 2, &b
				}))
			case 4:
				w.apply(but(e, func(e *policy.Endpoint) { e.URL.Path = fmt.Sprint("/", i) }))
			default:
				w.apply(e)
			}
			var err error
			switch i % 7 {
			case 0:
				_, err = w.d.Pause(t.Context(), "billing", "test")
			case 3:
				_, err = w.d.Resume(t.Context(), "billing", "test")
			}
			if err != nil && !errors.Is(err, ErrNoEndpoint) {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(1+i%40) * time.Millisecond)
		}
		w.apply(e)
		calm.Store(true)
		if _, err := w.d.Resume(t.Context(), "billing", "test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		tally, err := ledger.Check(t.Context(), w.store.Lookup)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(tally)
		if tally.Delivered != tally.Acknowledged || tally.Duplicates+tally.Unpromised > 0 {
			t.Errorf("after %d reloads: %s", reloads, tally)
		}
		var sends []time.Time
		for _, r := range receiver.Requests() {
			sends = append(sends, r.At)
		}
		if most, window := surplus(sends, 100); most > 20+1e-6 {
			t.Errorf("a window of %s had %.2f sends more than 100/s, the burst is 20", window, most)
		}
	})
}

// unsteady is one Relay's way to the outbox, which is slow at times, fails at random and
// loses answers, as far as the contract allows it. It checks what the Relay does meanwhile.
type unsteady struct {
	Source
	bucket *bucket
	wrong  func(format string, args ...any) // takes what must not be

	mu     sync.Mutex
	random *rand.Rand
	faults float64        // share of the calls that fail
	dead   bool           // the process was killed: nothing gets through any more
	row    map[string]int // failures of a method one after the other
	second time.Time      // that calls are counted of
	calls  int
	leases map[string]outbox.Claim // by delivery
	ended  map[string]time.Time
	asks   map[string]int // claims with Ready and their ends, by endpoint
}

const (
	mostSlow  = time.Second // that a call takes
	mostInRow = 3           // failures of a method one after the other
	mostCalls = 3000        // in a second: there is less to do than that
)

func newUnsteady(s Source, b *bucket, seed uint64, faults float64, wrong func(string, ...any)) *unsteady {
	return &unsteady{
		Source: s, bucket: b, faults: faults, wrong: wrong, random: rand.New(rand.NewPCG(seed, 2)),
		row: map[string]int{}, leases: map[string]outbox.Claim{}, ended: map[string]time.Time{}, asks: map[string]int{},
	}
}

// steady ends the faults.
func (u *unsteady) steady() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.faults = 0
}

// die makes the Relay one that was killed, as far as the outbox can tell.
func (u *unsteady) die() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.dead = true
}

// draw decides how a call goes.
func (u *unsteady) draw(method string) (there, back time.Duration, lost, fail bool, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now := time.Now(); now.Sub(u.second) >= time.Second {
		u.second, u.calls = now, 0
	}
	if u.calls++; u.calls > mostCalls {
		u.wrong("%d calls within a second, the last one of %s", u.calls, method)
		there = time.Second // or time would stand still
	}
	if u.dead {
		return there, 0, false, false, outbox.ErrClosed
	}
	if u.faults == 0 {
		return there, 0, false, false, nil
	}
	if u.random.IntN(3) == 0 {
		there += time.Duration(u.random.Int64N(int64(mostSlow / 2)))
		back = time.Duration(u.random.Int64N(int64(mostSlow / 2)))
	}
	fail = u.random.Float64() < u.faults && u.row[method] < mostInRow
	u.row[method]++
	if !fail {
		u.row[method] = 0
	}
	return there, back, u.random.IntN(2) == 0, fail, nil
}

// call makes a call that may fail, after the outbox did its work or before.
func (u *unsteady) call(ctx context.Context, method string, do func() error) error {
	there, back, lost, fail, err := u.draw(method)
	pass(ctx, there)
	if err != nil {
		return err
	}
	if fail && !lost {
		return outbox.ErrUnavailable
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err = do()
	pass(ctx, back)
	if fail {
		return outbox.ErrUnavailable
	}
	return err
}

// wait makes a call that waits outages out.
func (u *unsteady) wait(ctx context.Context, method string, do func() error) error {
	there, back, _, _, err := u.draw(method)
	pass(ctx, there)
	if err != nil {
		return err
	}
	err = do()
	pass(ctx, back)
	return err
}

// pass passes time, but not none: a bubble under the race detector can crash in a select
// with a timer that is due at once.
func pass(ctx context.Context, d time.Duration) {
	if d > 0 {
		testkit.Wait(ctx, d)
	}
}

func (u *unsteady) Claim(ctx context.Context, r outbox.ClaimRequest) (claims []outbox.Claim, err error) {
	if r.Ready != nil {
		claims, err = u.ask(ctx, r)
	} else {
		err = u.wait(ctx, "Claim", func() (err error) { claims, err = u.Source.Claim(ctx, r); return err })
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range claims {
		u.leases[c.ID] = c
	}
	return claims, err
}

// ask makes a Claim with Ready, which does not wait (G26): while the outbox is slow it has nothing yet.
func (u *unsteady) ask(ctx context.Context, r outbox.ClaimRequest) ([]outbox.Claim, error) {
	u.Withdraw(r.Endpoint) // the Claim before, whose place this one takes
	there, back, _, _, err := u.draw("Claim")
	if err != nil {
		return nil, err
	}
	slow := there + back
	if slow == 0 || ctx.Err() != nil {
		return u.Source.Claim(ctx, r)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	ask := u.asks[r.Endpoint]
	time.AfterFunc(slow, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.asks[r.Endpoint] == ask {
			r.Ready()
		}
	})
	return nil, nil
}

func (u *unsteady) Withdraw(endpoint string) {
	u.Source.Withdraw(endpoint)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asks[endpoint]++
}

// holds tells whether the delivery is, or just was, this Relay's to send.
func (u *unsteady) holds(delivery string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	c, ok := u.leases[delivery]
	return ok && now.Before(c.Until) || now.Equal(u.ended[delivery])
}

// end notes that claims are over.
func (u *unsteady) end(claims ...outbox.Claim) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range claims {
		if u.leases[c.ID].Fence == c.Fence {
			delete(u.leases, c.ID)
			u.ended[c.ID] = time.Now()
		}
	}
}

func (u *unsteady) Settle(ctx context.Context, c outbox.Claim, s outbox.Settlement) error {
	u.end(c)
	return u.call(ctx, "Settle", func() error { return u.Source.Settle(ctx, c, s) })
}

func (u *unsteady) Release(ctx context.Context, claims ...outbox.Claim) error {
	u.end(claims...)
	return u.call(ctx, "Release", func() error { return u.Source.Release(ctx, claims...) })
}

func (u *unsteady) Notes(ctx context.Context) (notes []outbox.Note, revision uint64, err error) {
	err = u.call(ctx, "Notes", func() (err error) { notes, revision, err = u.Source.Notes(ctx); return err })
	if err != nil {
		return nil, 0, err
	}
	return notes, revision, nil
}

func (u *unsteady) AwaitNotes(ctx context.Context, after uint64) error {
	return u.wait(ctx, "AwaitNotes", func() error { return u.Source.AwaitNotes(ctx, after) })
}

func (u *unsteady) SetNote(ctx context.Context, n outbox.Note) (now outbox.Note, err error) {
	err = u.call(ctx, "SetNote", func() (err error) { now, err = u.Source.SetNote(ctx, n); return err })
	return now, err
}

func (u *unsteady) Take(ctx context.Context, _ string, l outbox.Limit, n int) (taken int, wait time.Duration, err error) {
	err = u.call(ctx, "Take", func() error { taken, wait = u.bucket.take(l, n); return nil })
	if err != nil {
		return 0, 0, err
	}
	return taken, wait, nil
}

// An outbox that is slow keeps its promises all the same: a Claim with Ready does not wait, and what is there is
// claimed later, by the Claim that Ready calls for. A runner may hold an attempt back during such a call.
func TestUnsteadyKeepsToTheContract(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		u := newUnsteady(w.store, &bucket{}, 1, 0.4, func(format string, args ...any) { t.Errorf(format, args...) })
		late := 0
		for n := range 100 {
			w.accept(1, "billing")
			for withdrawn := false; ; late++ {
				ready := make(chan struct{}, 2)
				begin := time.Now()
				claims, err := u.Claim(t.Context(), outbox.ClaimRequest{
					Endpoint: "billing", Max: 1, Lease: time.Hour, Ready: func() { ready <- struct{}{} },
				})
				if took := time.Since(begin); took > 0 || err != nil {
					t.Fatalf("Claim with Ready took %s, %v", took, err)
				}
				if len(claims) == 1 {
					break
				}
				if n%10 == 9 && !withdrawn {
					u.Withdraw("billing")
					time.Sleep(2 * mostSlow)
					if len(ready) > 0 {
						t.Fatal("Ready was called after Withdraw")
					}
					withdrawn = true
					continue
				}
				<-ready
			}
		}
		if late < 10 {
			t.Errorf("%d claims were late", late)
		}
	})
}

// bucket is the outbox's own: exact, and full when it is new.
type bucket struct {
	mu    sync.Mutex
	begun time.Time
	full  int64 // when it is full again: nanoseconds × N since begun
}

func (b *bucket) take(l outbox.Limit, n int) (taken int, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.begun.IsZero() {
		b.begun = time.Now()
	}
	now, token := int64(time.Since(b.begun))*int64(l.N), int64(l.Per)
	b.full = max(b.full, now)
	taken = min(n, int((int64(l.Burst)*token-(b.full-now))/token))
	b.full += int64(taken) * token
	if taken < n {
		short := b.full - now - int64(l.Burst-1)*token
		wait = time.Duration((short + int64(l.N) - 1) / int64(l.N))
	}
	return taken, wait
}

// surplus is by how much the worst window had more sends than the rate allows; at most the burst
// is right.
func surplus(sends []time.Time, perSecond float64) (most float64, window time.Duration) {
	sends = slices.SortedFunc(slices.Values(sends), time.Time.Compare)
	// Of all windows that end with a send, the worst begins where sends were most
	// behind the rate.
	least, from := 0.0, time.Time{}
	for i, at := range sends {
		behind := float64(i) - perSecond*at.Sub(sends[0]).Seconds()
		if i == 0 || behind < least {
			least, from = behind, at
		}
		if over := behind - least + 1; over > most {
			most, window = over, at.Sub(from)
		}
	}
	return most, window
}

// problems are what went wrong in a run, the first ones of it.
type problems struct {
	mu  sync.Mutex
	all []string
}

func (p *problems) add(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.all) < 10 {
		p.all = append(p.all, fmt.Sprintf(format, args...))
	}
}
