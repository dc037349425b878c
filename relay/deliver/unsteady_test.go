package deliver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"relay/internal/testkit"
	"relay/outbox"
)

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
}

const (
	mostSlow  = time.Second // that a call takes
	mostInRow = 3           // failures of a method one after the other
	mostCalls = 3000        // in a second: there is less to do than that
)

func newUnsteady(s Source, b *bucket, seed uint64, faults float64, wrong func(string, ...any)) *unsteady {
	return &unsteady{
		Source: s, bucket: b, faults: faults, wrong: wrong, random: rand.New(rand.NewPCG(seed, 2)),
		row: map[string]int{}, leases: map[string]outbox.Claim{}, ended: map[string]time.Time{},
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
	err = u.wait(ctx, "Claim", func() (err error) { claims, err = u.Source.Claim(ctx, r); return err })
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range claims {
		u.leases[c.ID] = c
	}
	return claims, err
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
