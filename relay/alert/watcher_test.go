package alert

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
	"relay/relay/deliver"
)

// fleet is Watchers that share an outbox.
type fleet struct {
	t    *testing.T
	mu   sync.Mutex
	told []string
	bad  bool // the endpoint is disabled
	work sync.WaitGroup
}

// join starts a Watcher, which halt ends.
func (f *fleet) join(name string, store Outbox, alerts ...*policy.Alert) (w *Watcher, halt func()) {
	w = New(Options{
		Outbox:    store,
		Alerts:    func() []*policy.Alert { return alerts },
		Endpoints: func() []string { return []string{"billing"} },
		Status: func() []deliver.Status {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.bad {
				return []deliver.Status{{Endpoint: "billing", State: deliver.Disabled}}
			}
			return []deliver.Status{{Endpoint: "billing", State: deliver.Active}}
		},
		Tell: func(c Transition) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.told = append(f.told, fmt.Sprint(c.Alert, " ", c.Endpoint, " ", c.Resolved))
		},
		Relay: func() string { return name },
		Log:   zerolog.Nop(),
	})
	ctx, cancel := context.WithCancel(f.t.Context())
	f.work.Go(func() { w.Run(ctx) })
	return w, cancel
}

func (f *fleet) turn(bad bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bad = bad
}

// want waits for at most d, and then some.
func (f *fleet) want(d time.Duration, want ...string) {
	f.t.Helper()
	time.Sleep(d)
	f.mu.Lock()
	got := slices.Clone(f.told)
	f.mu.Unlock()
	if !slices.Equal(got, want) {
		f.t.Errorf("told %q, want %q", got, want)
	}
	time.Sleep(time.Minute)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.told) != len(want) {
		f.t.Errorf("told later %q", f.told)
	}
	f.told = nil
}

// One Relay of three tells, within the time of the alert and five seconds, once. When it is gone another one goes on.
func TestFleetTellsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{t: t}
		store := outboxtest.NewMem(outboxtest.MemOptions{Shared: true})
		a := &policy.Alert{Name: "off", On: policy.OnDisabled, For: 30 * time.Second}
		one, haltOne := f.join("one", store, a)
		time.Sleep(time.Second)
		_, haltTwo := f.join("two", store.Join(), a)
		_, haltThree := f.join("three", store.Join(), a)
		f.want(time.Minute)
		f.turn(true)
		f.want(35*time.Second, "off billing false")
		if firing, err := one.Firing(t.Context()); err != nil || len(firing) != 1 || firing[0].About != "billing" {
			t.Errorf("firing %+v, %v", firing, err)
		}
		haltOne()
		f.want(time.Minute) // another one begins to watch
		f.turn(false)
		f.want(5*time.Second, "off billing true")
		haltTwo()
		haltThree()
		f.work.Wait()
	})
}

// late is an outbox whose answers to writes may come too late.
type late struct {
	*outboxtest.Mem
	mu   sync.Mutex
	fire int    // alerts that fire, as it was written last
	made func() // called after the next write that changes that; nil for none
	lost bool   // the answer to that write gets lost
}

func (l *late) next(made func(), lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made, l.lost = made, lost
}

func (l *late) PutDocument(ctx context.Context, d outbox.Document) (outbox.Document, error) {
	stored, err := l.Mem.PutDocument(ctx, d)
	var state State
	if err := json.Unmarshal(d.Body, &state); err != nil {
		return outbox.Document{}, err
	}
	var made func()
	lost := false
	l.mu.Lock()
	if l.fire != len(state.Firing) {
		made, lost = l.made, l.lost
		l.fire, l.made, l.lost = len(state.Firing), nil, false
	}
	l.mu.Unlock()
	if made != nil {
		made()
	}
	switch {
	case lost:
		return outbox.Document{}, outbox.ErrUnavailable
	case ctx.Err() != nil:
		return outbox.Document{}, ctx.Err()
	}
	return stored, err
}

// What is stored is told once, also when the answer to the write gets lost, or the Relay stops before it comes.
func TestLateAnswer(t *testing.T) {
	for _, shared := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := &fleet{t: t}
			store := &late{Mem: outboxtest.NewMem(outboxtest.MemOptions{Shared: shared})}
			a := &policy.Alert{Name: "off", On: policy.OnDisabled, For: 5 * time.Second}
			_, halt := f.join("one", store, a)
			for _, bad := range []bool{true, false} {
				store.next(nil, true)
				f.turn(bad)
				f.want(20*time.Second, fmt.Sprint("off billing ", !bad))
			}
			store.next(func() {
				halt()
				synctest.Wait()
			}, false)
			f.turn(true)
			f.want(20*time.Second, "off billing false")
			f.work.Wait()
			_, halt = f.join("one", store, a)
			f.want(time.Minute)
			f.turn(false)
			f.want(10*time.Second, "off billing true")
			halt()
			f.work.Wait()
		})
	}
}

// Attempts count by the outbox's statistics, over the end of hours.
func TestAttemptsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{t: t}
		store := outboxtest.NewMem(outboxtest.MemOptions{})
		a := &policy.Alert{Name: "rate", On: policy.OnSuccessRate, Limit: 0.5, Window: 10 * time.Minute, Min: 5}
		_, halt := f.join("one", store, a)
		n := 0
		attempt := func(state outbox.State) {
			n++
			id := fmt.Sprint("evt_", n)
			if _, err := store.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{Event: outbox.Event{ID: id, Type: "a", Data: []byte("1")}, Endpoints: []string{"billing"}}}}); err != nil {
				t.Fatal(err)
			}
			claims, err := store.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "billing", Max: 1, Lease: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			outcome := "refused"
			if state == outbox.Delivered {
				outcome = "delivered"
			}
			if err := store.Settle(t.Context(), claims[0], outbox.Settlement{Attempt: outbox.Attempt{N: 1, Started: time.Now(), Took: time.Second, Outcome: outcome}, State: state}); err != nil {
				t.Fatal(err)
			}
		}
		for range 150 { // two hours and a half
			attempt(outbox.Delivered)
			time.Sleep(time.Minute)
		}
		f.want(0)
		for range 8 {
			attempt(outbox.Failed)
			time.Sleep(time.Minute)
		}
		f.want(0, "rate billing false")
		halt()
		f.work.Wait()
	})
}

// Without alerts nothing is read or written.
func TestNoAlerts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{t: t}
		faulty := outboxtest.NewMem(outboxtest.MemOptions{})
		if err := faulty.Close(); err != nil {
			t.Fatal(err)
		}
		_, halt := f.join("one", faulty)
		f.want(time.Hour)
		halt()
		f.work.Wait()
	})
}
