package outboxtest_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
)

// TestFaultyWithoutCue: the wrapper alone changes nothing, so the suite passes. It
// does so on a shared engine, whose leases outlive a crash.
func TestFaultyWithoutCue(t *testing.T) {
	e := mem(true, nil)
	wrapped := e
	wrapped.Open = func(t *testing.T) outbox.Engine { return outboxtest.NewFaulty(e.Open(t)) }
	wrapped.OpenSized = func(t *testing.T, n int64) outbox.Engine { return outboxtest.NewFaulty(e.OpenSized(t, n)) }
	wrapped.Reopen = func(t *testing.T, s outbox.Engine) outbox.Engine {
		return outboxtest.NewFaulty(e.Reopen(t, s.(*outboxtest.Faulty).Engine))
	}
	wrapped.Join = func(t *testing.T, s outbox.Engine) outbox.Engine {
		return outboxtest.NewFaulty(e.Join(t, s.(*outboxtest.Faulty).Engine))
	}
	outboxtest.Run(t, wrapped)
}

var errCue = errors.New("as cued")

// calls makes each call that can fail once, on a store with one claim.
func calls(t *testing.T, f *outboxtest.Faulty, c outbox.Claim) map[string]func() error {
	ctx := t.Context()
	return map[string]func() error{
		"Accept": func() error {
			receipts, err := f.Accept(ctx, outbox.Batch{Entries: []outbox.Entry{{Event: outbox.Event{ID: "evt_2"}, Endpoints: []string{"a"}}}})
			return unless(t, receipts != nil, err)
		},
		"Claim": func() error {
			claims, err := f.Claim(ctx, outbox.ClaimRequest{Endpoint: "b", Max: 1, Lease: time.Hour})
			return unless(t, claims != nil, err)
		},
		"Settle":  func() error { return f.Settle(ctx, c, outbox.Settlement{State: outbox.Delivered}) },
		"Release": func() error { return f.Release(ctx, c) },
		"Notes": func() error {
			notes, _, err := f.Notes(ctx)
			return unless(t, notes != nil, err)
		},
		"AwaitNotes": func() error { return f.AwaitNotes(ctx, 0) },
		"SetNote": func() error {
			n, err := f.SetNote(ctx, outbox.Note{Endpoint: rand.Text(), Text: []byte("paused")})
			return unless(t, n.Revision != 0, err)
		},
		"Lookup": func() error {
			record, err := f.Lookup(ctx, "evt_1")
			return unless(t, record != nil, err)
		},
		"Counts": func() error {
			counts, err := f.Counts(ctx)
			return unless(t, counts != nil, err)
		},
		"Reap":   func() error { _, _, err := f.Reap(ctx, outbox.Retention{}); return err },
		"Health": func() error { return f.Health(ctx) },
		"Close":  f.Close,
	}
}

// unless checks that a call gives a result or an error, not both.
func unless(t *testing.T, result bool, err error) error {
	t.Helper()
	if result == (err != nil) {
		t.Errorf("result = %t beside the error %v", result, err)
	}
	return err
}

// opened returns a wrapped store that has an event for a, claimed, and more than
// enough for b.
func opened(t *testing.T) (*outboxtest.Faulty, outbox.Claim) {
	f := outboxtest.NewFaulty(outboxtest.NewMem(outboxtest.MemOptions{}))
	entries := []outbox.Entry{{Event: outbox.Event{ID: "evt_1"}, Endpoints: []string{"a"}}}
	for i := range 10 {
		entries = append(entries, outbox.Entry{Event: outbox.Event{ID: fmt.Sprintf("evt_b%d", i)}, Endpoints: []string{"b"}})
	}
	_, err := f.Accept(t.Context(), outbox.Batch{Entries: entries})
	testkit.Must(t, err)
	claims, err := f.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: time.Hour})
	testkit.Must(t, err)
	_, err = f.SetNote(t.Context(), outbox.Note{Endpoint: "a"})
	testkit.Must(t, err)
	return f, claims[0]
}

func TestFaultyFail(t *testing.T) {
	f, c := opened(t)
	for method := range calls(t, f, c) {
		t.Run(method, func(t *testing.T) {
			f, c := opened(t)
			call := calls(t, f, c)[method]
			f.Fail(method, errCue, 2)
			for range 2 {
				if err := call(); !errors.Is(err, errCue) {
					t.Errorf("%s = %v, want the cued error", method, err)
				}
			}
			// The store was not reached, so that the call still does its work.
			if err := call(); err != nil {
				t.Errorf("%s after the cue = %v", method, err)
			}
			f.Fail(method, errCue, -1)
			for range 5 {
				if err := call(); !errors.Is(err, errCue) {
					t.Errorf("%s = %v, want the cued error for ever", method, err)
				}
			}
			f.Fail(method, nil, 0)
			if err := call(); errors.Is(err, errCue) {
				t.Errorf("%s = %v after the cue was taken back", method, err)
			}
		})
	}
}

// TestFaultyHooks: before the work, after it, and the answer that gets lost.
func TestFaultyHooks(t *testing.T) {
	f, c := opened(t)
	for method := range calls(t, f, c) {
		t.Run(method, func(t *testing.T) {
			f, c := opened(t)
			call := calls(t, f, c)[method]
			var steps []string
			f.Before(method, func(context.Context) error { steps = append(steps, "before"); return errCue })
			f.After(method, func(_ context.Context, err error) error {
				steps = append(steps, "after")
				if err != nil {
					t.Errorf("After %s: %v, want the store's nil", method, err)
				}
				return errCue
			})
			if err := call(); !errors.Is(err, errCue) || len(steps) != 1 {
				t.Errorf("%s = %v after %v, want the cued error after [before]", method, err, steps)
			}
			f.Before(method, nil)
			if err := call(); !errors.Is(err, errCue) || len(steps) != 2 {
				t.Errorf("%s = %v after %v, want the cued error after [before after]", method, err, steps)
			}
		})
	}
}

// TestFaultyLostAnswer: the accept is done but its answer is lost; the repeat is
// a duplicate.
func TestFaultyLostAnswer(t *testing.T) {
	f, _ := opened(t)
	f.After("Accept", func(context.Context, error) error { return errCue })
	b := outbox.Batch{Entries: []outbox.Entry{{Event: outbox.Event{ID: "evt_9"}}}, Key: "key", Fingerprint: [32]byte{1}}
	if receipts, err := f.Accept(t.Context(), b); !errors.Is(err, errCue) || receipts != nil {
		t.Errorf("Accept = %v, %v, want no receipts and the cued error", receipts, err)
	}
	f.After("Accept", nil)
	receipts, err := f.Accept(t.Context(), b)
	testkit.Must(t, err)
	if !receipts[0].Duplicate {
		t.Errorf("the repeat is no duplicate: %+v", receipts)
	}
}

// TestFaultyBlocks: a hook may hold a call back while others go on.
func TestFaultyBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c := opened(t)
		gate := make(chan struct{})
		f.Before("Settle", func(context.Context) error { <-gate; return nil })
		settled := make(chan error, 1)
		go func() { settled <- f.Settle(t.Context(), c, outbox.Settlement{State: outbox.Delivered}) }()
		synctest.Wait()
		counts, err := f.Counts(t.Context())
		testkit.Must(t, err)
		if counts["a"].Pending != 1 {
			t.Errorf("counts = %+v while the call is held back, want 1 pending", counts["a"])
		}
		close(gate)
		testkit.Must(t, <-settled)
		counts, err = f.Counts(t.Context())
		testkit.Must(t, err)
		if counts["a"].Delivered != 1 {
			t.Errorf("counts = %+v after the call, want 1 delivered", counts["a"])
		}
	})
}

func TestFaultyMisspelt(t *testing.T) {
	for _, method := range []string{"accept", "Ack", "", "Broken", "Durability"} {
		t.Run(method, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Errorf("a cue for %q was taken", method)
				}
			}()
			outboxtest.NewFaulty(nil).Fail(method, errCue, 1)
		})
	}
}
