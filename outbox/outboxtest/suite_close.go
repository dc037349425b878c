package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"relay/outbox"
)

func testCancelledContext(s *suite) {
	request := outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: long}
	ctx, cancel := context.WithCancel(s.ctx())
	answer := make(chan error, 8)
	for range cap(answer) {
		go func() {
			_, err := s.store.Claim(ctx, request)
			answer <- err
		}()
	}
	s.idle()
	cancel()
	for range cap(answer) {
		if err := <-answer; !errors.Is(err, context.Canceled) {
			s.Errorf("Claim whose context is cancelled while it waits: %v, want context.Canceled", err)
		}
	}
	if _, err := s.store.Claim(ctx, request); !errors.Is(err, context.Canceled) {
		s.Errorf("Claim with a cancelled context: %v, want context.Canceled", err)
	}
	s.claimNone("a") // a deadline is answered too

	// Written or not: it says so truly, and a repeat makes one event of it.
	e := repeatable("app-1", "1", "a")
	receipts, err := s.store.Accept(ctx, outbox.Batch{Entries: []outbox.Entry{e}})
	if err != nil && !errors.Is(err, context.Canceled) {
		s.Errorf("Accept with a cancelled context: %v, want context.Canceled or a receipt", err)
	}
	if again := s.accept(e); err == nil && !again[0].Duplicate {
		s.Errorf("Accept with a cancelled context answered %v, but wrote nothing", receipts)
	}
	s.want("claimed", []string{"app-1"}, eventIDs(s.claimAll("a", 1)))
	s.claimNone("a")
}

func testCloseUnblocks(s *suite) {
	s.accept(entry("evt_1", "ep0"))
	s.claimOne("ep0") // one waits for a lease, the others for events
	answer := make(chan error, 8)
	for i := range cap(answer) {
		go func() {
			_, err := s.store.Claim(s.ctx(), outbox.ClaimRequest{Endpoint: fmt.Sprintf("ep%d", i), Max: 1, Lease: long})
			answer <- err
		}()
	}
	s.idle()
	if err := s.store.Close(); err != nil {
		s.Errorf("Close: %v", err)
	}
	for range cap(answer) {
		if err := <-answer; !errors.Is(err, outbox.ErrClosed) {
			s.Errorf("Claim while the store is closed: %v, want ErrClosed", err)
		}
	}
}

func testCallsAfterClose(s *suite) {
	s.accept(entry("evt_1", "a"), entry("evt_2", "a"))
	c := s.claimOne("a")
	level := s.store.Durability()
	if err := s.store.Close(); err != nil {
		s.Errorf("Close: %v", err)
	}
	ctx := s.ctx()
	calls := map[string]func() error{
		"Accept": func() error {
			_, err := s.store.Accept(ctx, outbox.Batch{Entries: []outbox.Entry{entry("evt_3", "a")}})
			return err
		},
		"Claim": func() error {
			_, err := s.store.Claim(ctx, outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: long})
			return err
		},
		"Settle": func() error {
			return s.store.Settle(ctx, c, outbox.Settlement{Attempt: attempt(1, outbox.Delivered), State: outbox.Delivered})
		},
		"Release":    func() error { return s.store.Release(ctx, c) },
		"Notes":      func() error { _, _, err := s.store.Notes(ctx); return err },
		"AwaitNotes": func() error { return s.store.AwaitNotes(ctx, 0) },
		"SetNote":    func() error { _, err := s.store.SetNote(ctx, outbox.Note{Endpoint: "a"}); return err },
		"Lookup":     func() error { _, err := s.store.Lookup(ctx, "evt_1"); return err },
		"Counts":     func() error { _, err := s.store.Counts(ctx); return err },
		"Reap":       func() error { _, _, err := s.store.Reap(ctx, outbox.Retention{}); return err },
		"Health":     func() error { return s.store.Health(ctx) },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, outbox.ErrClosed) {
			s.Errorf("%s after Close: %v, want ErrClosed", name, err)
		}
	}
	s.want("durability", level, s.store.Durability())
	select {
	case <-s.store.Broken():
		s.Error("Broken is closed, but the store was closed in peace")
	default:
	}
}

// testCloseAmidWork: calls that meet Close end with an answer, and an answer
// without error stands.
func testCloseAmidWork(s *suite) {
	store := s.store
	var mu sync.Mutex
	var accepted, settled []string
	underway := make(chan struct{})
	var workers sync.WaitGroup
	check := func(what string, err error) bool {
		if err != nil && !errors.Is(err, outbox.ErrClosed) {
			s.Errorf("%s amid Close: %v, want ErrClosed", what, err)
		}
		return err == nil
	}
	for p := range 4 {
		workers.Go(func() {
			for n := range 200 {
				id := fmt.Sprintf("evt_%d_%d", p, n)
				_, err := store.Accept(s.ctx(), outbox.Batch{Entries: []outbox.Entry{entry(id, "a")}})
				if !check("Accept", err) {
					return
				}
				mu.Lock()
				accepted = append(accepted, id)
				mu.Unlock()
			}
		})
		workers.Go(func() {
			for {
				claims, err := store.Claim(s.ctx(), outbox.ClaimRequest{Endpoint: "a", Max: 3, Lease: long})
				if !check("Claim", err) {
					return
				}
				for _, c := range claims {
					err := store.Settle(s.ctx(), c, outbox.Settlement{Attempt: attempt(1, outbox.Delivered), State: outbox.Delivered})
					if !check("Settle", err) {
						return
					}
					mu.Lock()
					settled = append(settled, c.EventID)
					if len(settled) == 50 {
						close(underway)
					}
					mu.Unlock()
				}
			}
		})
	}
	select {
	case <-underway:
	case <-time.After(s.patience):
		s.Error("no fifty deliveries were settled")
	}
	if err := store.Close(); err != nil {
		s.Errorf("Close: %v", err)
	}
	workers.Wait()
	s.reopen()
	for _, id := range accepted {
		s.lookup(id)
	}
	for _, id := range settled {
		s.want("state after Close", outbox.Delivered, s.lookup(id).Deliveries[0].State)
	}
}
