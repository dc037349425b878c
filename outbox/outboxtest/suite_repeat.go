package outboxtest

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"relay/outbox"
)

// keyed is a batch with an idempotency key. As from an app that repeats a
// request, its events get new ids each time.
func keyed(key, content, prefix string) outbox.Batch {
	list := entries("evt_"+prefix, 3, "a")
	list[1].Endpoints = nil
	return outbox.Batch{Entries: list, Key: key, Fingerprint: sha256.Sum256([]byte(content))}
}

func testRepeatedID(s *suite) {
	s.want("first", []outbox.Receipt{{ID: "app-1", Deliveries: 2}}, s.accept(repeatable("app-1", "1", "a", "b")))
	again := []outbox.Receipt{{ID: "app-1", Deliveries: 2, Duplicate: true}}
	s.want("repeat", again, s.accept(repeatable("app-1", "1", "a", "b")))

	// Routes that have changed since give the known event no new deliveries.
	s.want("repeat", again, s.accept(repeatable("app-1", "1", "a", "b", "c")))
	s.want("deliveries", 2, len(s.deliveryIDs("app-1")))
	s.claimNone("c")
	s.conflict(outbox.Batch{Entries: []outbox.Entry{repeatable("app-1", "other", "a", "b")}}, 0)
	s.want("data", "1", string(s.lookup("app-1").Event.Data))

	// A repeat beside new events: only these are written.
	s.want("mixed batch", []outbox.Receipt{{ID: "evt_new", Deliveries: 1}, again[0], {ID: "app-2"}},
		s.accept(entry("evt_new", "a"), repeatable("app-1", "1", "a"), repeatable("app-2", "2")))
	s.wantCounts("a", outbox.Counts{Accepted: 2, Pending: 2})
	s.wantCounts("b", outbox.Counts{Accepted: 1, Pending: 1})

	// What has been delivered is known still.
	s.settle(s.claimOne("a"), outbox.Delivered)
	s.want("repeat", again, s.accept(repeatable("app-1", "1", "a", "b")))
	s.want("claimed", []string{"evt_new"}, eventIDs(s.claimAll("a", 1)))
	s.claimNone("a")
}

func testRepeatedTrace(s *suite) {
	first := repeatable("app-1", "1", "a")
	first.Event.Trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	s.accept(first)
	again := first
	again.Event.Trace = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
	s.want("repeat", []outbox.Receipt{{ID: "app-1", Deliveries: 1, Duplicate: true}}, s.accept(again))
	s.want("trace", first.Event.Trace, s.lookup("app-1").Event.Trace)
	s.want("claimed trace", first.Event.Trace, s.claimOne("a").Event.Trace)
}

func testRepeatedKey(s *suite) {
	first := s.acceptBatch(keyed("key", "1", "first"))
	s.want("first", []outbox.Receipt{{ID: "evt_first0000", Deliveries: 1}, {ID: "evt_first0001"}, {ID: "evt_first0002", Deliveries: 1}}, first)
	s.want("repeat", duplicates(first), s.acceptBatch(keyed("key", "1", "second")))
	s.absent("evt_second0000")
	s.conflict(keyed("key", "other", "third"), -1)
	s.absent("evt_third0000")
	s.wantCounts("a", outbox.Counts{Accepted: 2, Pending: 2})

	// The same content under another key, or none, is another request.
	for i, key := range []string{"key2", "", ""} {
		for _, r := range s.acceptBatch(keyed(key, "1", fmt.Sprintf("more%d_", i))) {
			s.want("duplicate", false, r.Duplicate)
		}
	}
	s.wantCounts("a", outbox.Counts{Accepted: 8, Pending: 8})

	// An id is not a key: both may be spelt the same.
	s.want("receipts", []outbox.Receipt{{ID: "key", Deliveries: 1}}, s.accept(repeatable("key", "9", "b")))

	// Key and ids both known.
	both := outbox.Batch{Entries: []outbox.Entry{repeatable("app-1", "1", "b")}, Key: "both", Fingerprint: sha256.Sum256([]byte("both"))}
	first = s.acceptBatch(both)
	s.want("repeat", duplicates(first), s.acceptBatch(both))
}

func testIDTwiceInBatch(s *suite) {
	s.want("receipts",
		[]outbox.Receipt{{ID: "app-1", Deliveries: 1}, {ID: "app-2", Deliveries: 1}, {ID: "app-1", Deliveries: 1, Duplicate: true}},
		s.accept(repeatable("app-1", "1", "a"), repeatable("app-2", "2", "a"), repeatable("app-1", "1", "a")))
	s.wantCounts("a", outbox.Counts{Accepted: 2, Pending: 2})

	s.conflict(outbox.Batch{Entries: []outbox.Entry{repeatable("app-3", "1", "a"), repeatable("app-4", "2", "a"), repeatable("app-3", "other", "a")}}, 2)
	s.absent("app-3")
	s.absent("app-4")
	s.want("receipts", []outbox.Receipt{{ID: "app-3"}}, s.accept(repeatable("app-3", "other")))
}

// testRepeatedAtOnce repeats one request by id and one by key from sixteen
// goroutines each.
func testRepeatedAtOnce(s *suite) {
	type answer struct {
		receipts []outbox.Receipt
		err      error
	}
	byID, byKey := make([]answer, 16), make([]answer, 16)
	var producers sync.WaitGroup
	for i := range 16 {
		producers.Go(func() {
			r, err := s.store.Accept(s.ctx(), outbox.Batch{Entries: []outbox.Entry{entry(fmt.Sprintf("evt_%d", i)), repeatable("app-1", "1", "a")}})
			byID[i] = answer{r, err}
		})
		producers.Go(func() {
			r, err := s.store.Accept(s.ctx(), keyed("key", "1", fmt.Sprintf("%d_", i)))
			byKey[i] = answer{r, err}
		})
	}
	producers.Wait()

	for what, answers := range map[string][]answer{"id": byID, "key": byKey} {
		firsts, ids := 0, map[string]bool{}
		for _, a := range answers {
			if a.err != nil {
				s.Fatalf("Accept by %s: %v", what, a.err)
			}
			last := a.receipts[len(a.receipts)-1]
			if !last.Duplicate {
				firsts++
			}
			ids[last.ID] = true
		}
		s.want("first accepts by "+what, 1, firsts)
		s.want("ids in the answers by "+what, 1, len(ids))
	}
	s.wantCounts("a", outbox.Counts{Accepted: 3, Pending: 3})
}

func testRepeatedAfterReopen(s *suite) {
	byID := repeatable("app-1", "1", "a", "b")
	first, firstByKey := s.accept(byID), s.acceptBatch(keyed("key", "1", "first"))
	s.reopen()
	s.want("repeat by id", duplicates(first), s.accept(byID))
	s.want("repeat by key", duplicates(firstByKey), s.acceptBatch(keyed("key", "1", "second")))
	s.conflict(outbox.Batch{Entries: []outbox.Entry{repeatable("app-1", "other")}}, 0)
	s.conflict(keyed("key", "other", "third"), -1)
	s.wantCounts("a", outbox.Counts{Accepted: 3, Pending: 3})
}

// testRepeatedAfterReap: retention may be shorter than the idempotency window.
func testRepeatedAfterReap(s *suite) {
	byID := repeatable("app-1", "1", "a")
	first, firstByKey := s.accept(byID), s.acceptBatch(keyed("key", "1", "first"))
	for _, c := range s.claimAll("a", 3) {
		s.settle(c, outbox.Delivered)
	}
	s.elapse(time.Millisecond)
	s.want("reaped", 3, s.reap(outbox.Retention{}))
	s.absent("app-1")
	s.want("repeat by id", duplicates(first), s.accept(byID))
	s.want("repeat by key", duplicates(firstByKey), s.acceptBatch(keyed("key", "1", "second")))
	s.conflict(outbox.Batch{Entries: []outbox.Entry{repeatable("app-1", "other")}}, 0)
	s.conflict(keyed("key", "other", "third"), -1)
	s.wantCounts("a", outbox.Counts{Accepted: 3, Delivered: 3})
}

// testWindow: ids and keys are known for the window, and free after it.
func testWindow(s *suite) {
	byID := repeatable("app-1", "1", "a")
	s.accept(byID)
	s.acceptBatch(keyed("key", "1", "first"))
	for _, c := range s.claimAll("a", 3) {
		s.settle(c, outbox.Delivered)
	}
	s.elapse(outbox.IdempotencyWindow - time.Minute)
	s.reap(outbox.Retention{})
	s.want("repeat by id", true, s.accept(byID)[0].Duplicate)
	s.want("repeat by key", true, s.acceptBatch(keyed("key", "1", "second"))[0].Duplicate)

	s.elapse(2 * time.Minute)
	s.reap(outbox.Retention{})
	s.want("id used again", []outbox.Receipt{{ID: "app-1", Deliveries: 1}}, s.accept(repeatable("app-1", "other", "a")))
	s.want("key used again", "evt_third0000", s.acceptBatch(keyed("key", "other", "third"))[0].ID)
	s.wantCounts("a", outbox.Counts{Accepted: 6, Delivered: 3, Pending: 3})
}

// testKeptID: as long as the event is there its id is known, window or not.
func testKeptID(s *suite) {
	first := s.accept(repeatable("app-1", "1", "a"))
	s.elapse(outbox.IdempotencyWindow + time.Hour)
	s.reap(outbox.Retention{})
	s.reopen()
	s.want("repeat", duplicates(first), s.accept(repeatable("app-1", "1", "a")))
	s.conflict(outbox.Batch{Entries: []outbox.Entry{repeatable("app-1", "other", "a")}}, 0)
	s.wantCounts("a", outbox.Counts{Accepted: 1, Pending: 1})
}
