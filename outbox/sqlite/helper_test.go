package sqlite

import (
	"errors"
	"testing"
	"time"

	"relay/outbox"
)

// openTest opens a store that is closed with the test.
func openTest(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func event(id string, endpoints ...string) outbox.Entry {
	return outbox.Entry{Event: outbox.Event{ID: id, Type: "invoice.paid", Data: []byte(`{"id":"` + id + `"}`)}, Endpoints: endpoints}
}

func sized(id string, size int, endpoints ...string) outbox.Entry {
	e := event(id, endpoints...)
	e.Event.Data = make([]byte, size)
	return e
}

func batch(entries ...outbox.Entry) outbox.Batch { return outbox.Batch{Entries: entries} }

func mustAccept(t testing.TB, s *Store, entries ...outbox.Entry) {
	t.Helper()
	if _, err := s.Accept(t.Context(), batch(entries...)); err != nil {
		t.Fatalf("Accept: %v", err)
	}
}

func claimMany(t testing.TB, s *Store, endpoint string, n int) []outbox.Claim {
	t.Helper()
	claims, err := s.Claim(t.Context(), outbox.ClaimRequest{Endpoint: endpoint, Max: n, Lease: time.Hour})
	if err != nil {
		t.Fatalf("Claim: %v", err)
	}
	return claims
}

func claimOne(t testing.TB, s *Store, endpoint string) outbox.Claim {
	t.Helper()
	return claimMany(t, s, endpoint, 1)[0]
}

// mustSettle settles and waits for the commit.
func mustSettle(t testing.TB, s *Store, c outbox.Claim, state outbox.State) {
	t.Helper()
	if err := s.Settle(t.Context(), c, outbox.Settlement{State: state, Due: time.Now().Add(time.Hour)}); err != nil {
		t.Fatalf("Settle: %v", err)
	}
	if err := s.Health(t.Context()); err != nil && !errors.Is(err, outbox.ErrFull) {
		t.Fatalf("Health: %v", err)
	}
}
