package redisstream

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// lookupState is the state of an event's only delivery.
func lookupState(t *testing.T, s *Store, id string) outbox.State {
	t.Helper()
	r, err := s.Lookup(t.Context(), id)
	if err != nil || len(r.Deliveries) != 1 {
		t.Fatalf("Lookup %s: %+v, %v", id, r, err)
	}
	return r.Deliveries[0].State
}

// Somebody writes a key of another type where an event was, while its delivery is under way or in line. That event is lost:
// all others are claimed, settled, found, mended and removed as if it was not there.
func TestStrayKeys(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var log testkit.Log
	o := at(server.URL())
	o.Log = zerolog.New(&log)
	s := openTest(t, o)
	sh := s.shards[0]
	stray := func(id string) { server.MustDo(t, "SET", sh.event(id), "theirs") }

	settlements := map[string]func(outbox.Claim) outbox.Settlement{
		"done":  done,
		"retry": func(c outbox.Claim) outbox.Settlement { return retry(c, time.Millisecond) },
		"failed": func(c outbox.Claim) outbox.Settlement {
			return outbox.Settlement{State: outbox.Failed, Attempt: outbox.Attempt{N: 1, Status: 410, Outcome: "failed"}}
		},
	}
	for kind := range settlements { // three under way each, the second one spoilt
		for i := range 3 {
			acceptOne(t, s, fmt.Sprintf("%s%d", kind, i), "a")
		}
	}
	claims := claimSome(t, s, "a", 9, time.Minute)
	for kind := range settlements {
		stray(kind + "1")
	}
	for _, c := range claims {
		if err := s.Settle(t.Context(), c, settlements[c.EventID[:len(c.EventID)-1]](c)); err != nil {
			t.Fatalf("Settle %s: %v", c.EventID, err)
		}
	}
	deliver(t, s, claimSome(t, s, "a", 2, time.Minute)...) // the sound retries
	for id, want := range map[string]outbox.State{"done0": outbox.Delivered, "done2": outbox.Delivered, "retry0": outbox.Delivered, "failed2": outbox.Failed} {
		if got := lookupState(t, s, id); got != want {
			t.Errorf("%s is %s, want %s", id, got, want)
		}
	}

	// In line: read back from Redis by another Relay.
	for i := range 3 {
		acceptOne(t, s, fmt.Sprintf("line%d", i), "b")
	}
	stray("line1")
	other := openTest(t, o)
	deliver(t, other, claimSome(t, other, "b", 2, time.Minute)...)
	await(t, "all is over", func() bool { return countsOf(t, s, "a").Pending == 0 && countsOf(t, s, "b").Pending == 0 })
	if c := countsOf(t, s, "a"); c.Delivered != 5 || c.Failed != 3 || c.Discarded != 1 {
		t.Errorf("counts %+v, want the outcomes of all attempts, and the retry that cannot be made discarded", c)
	}
	if c := countsOf(t, s, "b"); c.Delivered != 2 || c.Discarded != 1 {
		t.Errorf("counts %+v, want the delivery that cannot be made discarded", c)
	}

	if _, err := s.Lookup(t.Context(), "line1"); !errors.Is(err, outbox.ErrNotFound) {
		t.Errorf("Lookup of what is lost: %v", err)
	}
	page, err := s.Deliveries(t.Context(), outbox.Query{Limit: 100})
	if err != nil || len(page.Items) != 8 {
		t.Errorf("the history has %d deliveries, %v, want the 8 sound ones", len(page.Items), err)
	}
	if _, err := sh.mendEndpoints(t.Context(), map[string]bool{"a": true, "b": true}); err != nil {
		t.Errorf("reconcile: %v", err)
	}
	if n, _, err := s.Reap(t.Context(), outbox.Retention{}); err != nil {
		t.Errorf("retention removed %d: %v", n, err)
	}
	if got := server.MustDo(t, "GET", sh.event("done1")); got != "theirs" {
		t.Errorf("the key of somebody else is %v", got)
	}

	for _, id := range []string{"done1", "retry1", "failed1", "line1"} {
		if n := strings.Count(log.String(), `"event_id":"`+id+`","next":"look at it with TYPE`); n < 1 || n > 2 { // two Relays
			t.Errorf("the log has %d lines about %s:\n%s", n, id, log.String())
		}
	}
	if w := s.strayWarning(); len(w) != 1 || !strings.HasPrefix(w[0].What, "4 keys hold") && !strings.HasPrefix(w[0].What, "3 keys hold") || w[0].Next == "" {
		t.Errorf("warnings %+v", w)
	}
	for id := range s.strays.list() {
		server.MustDo(t, "DEL", id)
	}
	s.lookAtStrays(t.Context())
	if w := s.strayWarning(); len(w) != 0 {
		t.Errorf("warnings after the keys were removed: %+v", w)
	}
}

// A flood of such keys fills neither the memory nor the log.
func TestStrayKeysAreBounded(t *testing.T) {
	var log bytes.Buffer
	s := &Store{log: zerolog.New(&log)}
	sh := newShard(s, 0)
	for i := range 10 * straysKnown {
		sh.stray(fmt.Sprint("e", i%(2*straysKnown)))
	}
	if n := strings.Count(log.String(), "\n"); n != straysKnown+1 || len(s.strays.list()) != straysKnown {
		t.Errorf("%d lines, %d keys remembered, want %d and one line more", n, len(s.strays.list()), straysKnown)
	}
	if w := s.strayWarning()[0].What; !strings.HasPrefix(w, "at least 100 keys") || !strings.Contains(w, "and 97 more") {
		t.Errorf("warning %q", w)
	}
	for key := range s.strays.list() {
		s.strays.remove(key)
	}
	sh.stray("again")
	if w := s.strayWarning()[0].What; !strings.HasPrefix(w, "1 key holds") {
		t.Errorf("warning %q after all were removed", w)
	}
}
