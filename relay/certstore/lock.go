package certstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"
)

// leases are the locks that this process has.
type leases struct {
	mu  sync.Mutex
	all map[string]*lease // by name
}

// lease is a lock with the goroutine that renews it.
type lease struct {
	token string
	stop  chan struct{}
	ended chan struct{} // closed by the goroutine
	lost  bool          // another may have it; guarded by leases.mu
	told  map[int]func()
	next  int
}

// pollEvery is how often a lock that somebody else has is tried again.
const pollEvery = 250 * time.Millisecond

var errLost = errors.New("the lock was lost: Redis did not answer in time, or another Relay has it")

// Lock implements certmagic.Locker. A lock whose owner died is free when its lease is over; while
// its owner lives it is renewed, so that work may take as long as it does.
func (r *Redis) Lock(ctx context.Context, name string) error {
	for {
		ok, err := r.TryLock(ctx, name)
		if ok || err != nil {
			return err
		}
		timer := time.NewTimer(pollEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// TryLock implements certmagic.TryLocker.
func (r *Redis) TryLock(ctx context.Context, name string) (bool, error) {
	r.held.mu.Lock()
	_, ours := r.held.all[name]
	r.held.mu.Unlock()
	if ours { // of another goroutine here
		return false, nil
	}
	l := &lease{token: rand.Text(), stop: make(chan struct{}), ended: make(chan struct{}), told: map[int]func(){}}
	ok, err := r.take(ctx, name, l.token)
	if err != nil || !ok {
		return false, err
	}
	r.held.mu.Lock()
	defer r.held.mu.Unlock()
	if r.held.all == nil {
		r.held.all = map[string]*lease{}
	}
	r.held.all[name] = l
	go r.keep(name, l)
	return true, nil
}

// take takes the lock or renews it.
func (r *Redis) take(ctx context.Context, name, token string) (bool, error) {
	n, err := r.run(ctx, lockLua, []string{r.locks + name}, token, r.o.Lease.Milliseconds())
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", name, err)
	}
	return n == 1, nil
}

// keep renews a lock until Unlock. It is lost when Redis has not confirmed it for the length of a
// lease, or another has it: then what works under it is told to stop.
func (r *Redis) keep(name string, l *lease) {
	defer close(l.ended)
	tick := time.NewTicker(r.o.Lease / 5)
	defer tick.Stop()
	sure := time.Now() // the lease lasts from here at least
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		asked := time.Now()
		within, cancel := context.WithDeadline(context.Background(), sure.Add(r.o.Lease))
		ok, err := r.take(within, name, l.token)
		cancel()
		switch {
		case ok:
			sure = asked
			r.held.lose(l, false)
		case err == nil || time.Since(sure) >= r.o.Lease:
			r.held.lose(l, true)
		}
	}
}

// lose notes whether the lock is lost, and tells it once.
func (h *leases) lose(l *lease, lost bool) {
	h.mu.Lock()
	var tell []func()
	if lost && !l.lost {
		for _, do := range l.told {
			tell = append(tell, do)
		}
	}
	l.lost = lost
	h.mu.Unlock()
	for _, do := range tell {
		do()
	}
}

// OnLost calls do when the lock of this name, which the process has, is lost; at once if it is
// not held. stop ends that.
func (r *Redis) OnLost(name string, do func()) (stop func()) {
	h := &r.held
	h.mu.Lock()
	l := h.all[name]
	if l == nil || l.lost {
		h.mu.Unlock()
		do()
		return func() {}
	}
	defer h.mu.Unlock()
	l.next++
	n := l.next
	l.told[n] = do
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(l.told, n)
	}
}

// RenewLockLease implements certmagic.LockLeaseRenewer. The lock is renewed anyway while its owner
// lives; here one that was lost is taken back, unless another has it.
func (r *Redis) RenewLockLease(ctx context.Context, name string, _ time.Duration) error {
	r.held.mu.Lock()
	l := r.held.all[name]
	r.held.mu.Unlock()
	if l == nil {
		return fmt.Errorf("renew lock %s: %w", name, errLost)
	}
	ok, err := r.take(ctx, name, l.token)
	switch {
	case err != nil:
		return err
	case !ok:
		r.held.lose(l, true)
		return fmt.Errorf("renew lock %s: %w", name, errLost)
	}
	r.held.lose(l, false)
	return nil
}

// Unlock implements certmagic.Locker. A lock that another has by now stays the other's.
func (r *Redis) Unlock(ctx context.Context, name string) error {
	r.held.mu.Lock()
	l := r.held.all[name]
	delete(r.held.all, name)
	r.held.mu.Unlock()
	if l == nil {
		return fmt.Errorf("unlock %s: it is not locked", name)
	}
	close(l.stop)
	<-l.ended
	if _, err := r.run(ctx, unlockLua, []string{r.locks + name}, l.token); err != nil {
		return fmt.Errorf("unlock %s: %w", name, err)
	}
	return nil
}

// closeAll gives all locks back.
func (h *leases) closeAll(r *Redis) {
	h.mu.Lock()
	var names []string
	for name := range h.all {
		names = append(names, name)
	}
	h.mu.Unlock()
	for _, name := range names {
		_ = r.Unlock(context.Background(), name) // its lease ends by itself
	}
}
