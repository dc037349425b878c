package gate

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"relay/outbox"
	"relay/policy"
)

// bucket is an exact token bucket for one endpoint and one limit, that may be far away.
type bucket struct {
	mu     sync.Mutex
	begun  time.Time
	tat    int64 // when the bucket is full again: nanoseconds × N since begun
	random *rand.Rand
	late   time.Duration // at most, that a call takes
	fail   float64       // of the calls
	calls  int
}

func (b *bucket) Take(ctx context.Context, _ string, l outbox.Limit, n int) (int, time.Duration, error) {
	there, back, fail, lost := b.draw()
	if !travel(ctx, there) || fail && lost {
		return 0, 0, outbox.ErrUnavailable
	}
	taken, wait := b.take(l, n)
	if !travel(ctx, back) || fail {
		return 0, 0, outbox.ErrUnavailable
	}
	return taken, wait, nil
}

// travel pauses, but not for no time: a bubble under the race detector can crash in a select
// with a timer that is due at once.
func travel(ctx context.Context, d time.Duration) bool { return d == 0 || pause(ctx, d) }

func (b *bucket) draw() (there, back time.Duration, fail, lost bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	if b.late > 0 {
		both := b.random.Int64N(int64(b.late))
		there = time.Duration(b.random.Int64N(both + 1))
		back = time.Duration(both) - there
	}
	return there, back, b.random.Float64() < b.fail, b.random.IntN(2) == 0
}

func (b *bucket) take(l outbox.Limit, n int) (taken int, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.begun.IsZero() {
		b.begun = time.Now()
	}
	now, token := int64(time.Since(b.begun))*int64(l.N), int64(l.Per)
	b.tat = max(b.tat, now)
	taken = min(n, int((int64(l.Burst)*token-(b.tat-now))/token))
	b.tat += int64(taken) * token
	if taken < n {
		short := b.tat - now - int64(l.Burst-1)*token
		wait = time.Duration((short + int64(l.N) - 1) / int64(l.N))
	}
	return taken, wait
}

func newBucket(seed uint64) *bucket { return &bucket{random: rand.New(rand.NewPCG(seed, 1))} }

// Promise P9, for a fleet of five. The sends of a window were granted by calls that
// began at most the longest call before it, so that is what a window may be
// longer by; with calls that take no time the bound is strict.
func TestFleetLimitHolds(t *testing.T) {
	for _, tt := range []struct {
		name string
		late time.Duration
		fail float64
	}{
		{"at once", 0, 0},
		{"slow", 50 * time.Millisecond, 0},
		{"slow and failing", 50 * time.Millisecond, 0.2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				check(t, func(t *rapid.T) {
					r := policy.RateLimit{
						N:     rapid.IntRange(1, 200).Draw(t, "n"),
						Per:   rapid.SampledFrom([]time.Duration{time.Second, 3 * time.Second}).Draw(t, "per"),
						Burst: rapid.IntRange(1, 60).Draw(t, "burst"),
					}
					seed := rapid.Uint64().Draw(t, "seed")
					b := newBucket(seed)
					b.late, b.fail = tt.late, tt.fail
					const length = 4 * time.Second
					sends := sendAll(b, r, seed, length)
					bounded(t, sends, []rule{{0, r}}, tt.late)
					if least := float64(r.N) * length.Seconds() / r.Per.Seconds() / 2; tt.late == 0 && seed%5 == 0 && float64(len(sends)) < least-1 {
						t.Fatalf("%d sends in %v with the limit %+v: much of it is not made use of", len(sends), length, r)
					}
				})
			})
		})
	}
}

// sendAll lets five gates send what they can, and returns when they did.
func sendAll(b *bucket, r policy.RateLimit, seed uint64, length time.Duration) []time.Time {
	ctx, stop := context.WithTimeout(context.Background(), length)
	defer stop()
	start := time.Now()
	var mu sync.Mutex
	var sends []time.Time
	var all sync.WaitGroup
	for i := range uint64(5) {
		random := rand.New(rand.NewPCG(seed, 2+i))
		beat := time.Duration(seed%5) * 70 * time.Millisecond // all begin together at times, after a rest
		g := New(Options{Limiter: b}).Gate(name)
		g.Use(endpoint(func(e *policy.Endpoint) { e.RateLimit = &r }))
		all.Go(func() {
			for ctx.Err() == nil {
				v := g.Look(ctx, 1+random.IntN(16))
				if v.N == 0 {
					pause(ctx, v.Wait)
					continue
				}
				pause(ctx, 1+time.Duration(random.Int64N(int64(20*time.Millisecond)))) // the claim
				n, _ := g.Admit(ctx, 1+random.IntN(v.N))
				mu.Lock()
				for range n {
					sends = append(sends, time.Now())
				}
				mu.Unlock()
				if rest := beat - time.Since(start)%max(beat, 1); rest > 0 && random.IntN(4) == 0 {
					pause(ctx, rest)
				}
			}
		})
	}
	all.Wait()
	return sorted(sends)
}

// The whole of the burst is there where no tokens are taken ahead.
func TestFleetLimitGivesItsBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, r := range []policy.RateLimit{{N: 1, Per: time.Minute, Burst: 2}, {N: 5, Per: time.Second, Burst: 3}, {N: 1000, Per: time.Second, Burst: 1}} {
			g := New(Options{Limiter: newBucket(1)}).Gate(name)
			g.Use(endpoint(func(e *policy.Endpoint) { e.RateLimit = &r }))
			if n, _ := begin(g, 16); n != r.Burst {
				t.Errorf("%d attempts begin at once with %+v", n, r)
			}
		}
	})
}

// A busy endpoint asks the outbox once for several sends.
func TestFleetLimitAsksAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(1)
		r := policy.RateLimit{N: 1000, Per: time.Second, Burst: 1000}
		g := New(Options{Limiter: b}).Gate(name)
		g.Use(endpoint(func(e *policy.Endpoint) { e.RateLimit = &r }))
		sent := 0
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
			n, _ := begin(g, 1)
			sent += n
			time.Sleep(time.Millisecond)
		}
		if sent < 9_000 || b.calls > sent/20 {
			t.Errorf("%d sends with %d calls", sent, b.calls)
		}
	})
}

// An outbox that does not answer keeps claims for a while, then they are handed back; when
// it answers again they begin.
func TestFleetLimitWithoutAnOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(1)
		b.fail = 1
		g := New(Options{Limiter: b}).Gate(name)
		g.Use(endpoint(func(e *policy.Endpoint) { e.RateLimit = &policy.RateLimit{N: 1, Per: time.Second, Burst: 1} }))
		start := time.Now()
		if n, _ := begin(g, 1); n != 0 {
			t.Errorf("%d attempts begin without a token", n)
		}
		if took := time.Since(start); took < patience || took > patience+askTimeout {
			t.Errorf("the claim waited %v for its token", took)
		}
		go func() {
			time.Sleep(time.Second)
			b.mu.Lock()
			defer b.mu.Unlock()
			b.fail, b.tat = 0, 0
		}()
		if n, _ := begin(g, 1); n != 1 {
			t.Errorf("%d attempts begin, want 1", n)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		b.mu.Lock()
		b.fail = 1
		b.mu.Unlock()
		start = time.Now()
		if n, _ := g.Admit(ctx, 1); n != 0 || time.Since(start) > 0 {
			t.Errorf("a stop waits %v for tokens", time.Since(start))
		}
	})
}

// The worst that tokens taken ahead can do: they are kept as long as they are good, and used
// together with all that came back to the bucket meanwhile.
func TestTokensTakenAheadAreOfTheBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := policy.RateLimit{N: 200, Per: time.Second, Burst: 60}
		for rest := time.Millisecond; rest < time.Second; rest += 7 * time.Millisecond {
			b := newBucket(1)
			var gates []*Gate
			for range 5 {
				g := New(Options{Limiter: b}).Gate(name)
				g.Use(endpoint(func(e *policy.Endpoint) { e.RateLimit = &r }))
				gates = append(gates, g)
			}
			var sends []time.Time
			send := func(slots int) {
				for _, g := range gates {
					n, _ := begin(g, slots)
					for range n {
						sends = append(sends, time.Now())
					}
				}
			}
			send(1)
			time.Sleep(time.Millisecond)
			send(1) // busy now, so they take more than they need
			var looked []int
			for _, g := range gates {
				looked = append(looked, g.Look(context.Background(), 100).N)
			}
			time.Sleep(rest)
			for i, g := range gates {
				n, _ := g.Admit(context.Background(), looked[i]) // its claim took as long
				for range n {
					sends = append(sends, time.Now())
				}
			}
			for range 3 {
				send(100)
			}
			bounded(t, sends, []rule{{0, r}}, 0)
		}
	})
}
