package outboxtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"relay/outbox"
)

// sized is an event of n bytes that cannot be compressed.
func sized(id string, n int, endpoints ...string) outbox.Entry {
	e := entry(id, endpoints...)
	e.Event.Data = make([]byte, n)
	source := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32s", id))))
	_, _ = source.Read(e.Event.Data) // never fails
	return e
}

const sizeLimit = 8 << 20

// openSized replaces the store by an outbox with a limit.
func (s *suite) openSized() {
	if err := s.store.Close(); err != nil {
		s.Fatalf("Close: %v", err)
	}
	s.store = s.engine.OpenSized(s.test, sizeLimit)
}

// fill accepts events of size bytes for endpoint a until the outbox is full,
// and returns how many went in.
func (s *suite) fill(prefix string, size int) int {
	s.Helper()
	for n := range 4 * sizeLimit / max(size, 1<<10) {
		id := fmt.Sprintf("%s%05d", prefix, n)
		_, err := s.store.Accept(s.ctx(), outbox.Batch{Entries: []outbox.Entry{sized(id, size, "a")}})
		if errors.Is(err, outbox.ErrFull) {
			s.absent(id)
			return n
		}
		if err != nil {
			s.Fatalf("Accept: %v", err)
		}
	}
	s.Fatalf("an outbox of %d bytes is not full after four times as much", sizeLimit)
	return 0
}

// wantFill checks that the outbox says to be as full as it is.
func (s *suite) wantFill(least, most float64) {
	s.Helper()
	fill, err := s.store.Fill(s.ctx())
	if err != nil || fill < least || fill > most {
		s.Errorf("Fill = %.2f, %v, want %.1f to %.1f", fill, err, least, most)
	}
}

func testFull(s *suite) {
	s.openSized()
	if err := s.store.Health(s.ctx()); err != nil {
		s.Errorf("Health of an empty outbox: %v", err)
	}
	s.wantFill(0, 0.2)
	n := s.fill("evt_", 64<<10)
	if n < sizeLimit/4/(64<<10) {
		s.Errorf("full after %d events of 64 KiB", n)
	}
	n += s.fill("evt_small", 0)
	if err := s.store.Health(s.ctx()); !errors.Is(err, outbox.ErrFull) {
		s.Errorf("Health: %v, want ErrFull", err)
	}
	s.wantFill(0.9, 1.1)
	s.wantCounts("a", outbox.Counts{Accepted: int64(n), Pending: int64(n)})

	// Work goes on, with records of some size.
	a := attempt(1, outbox.Delivered)
	a.Body = make([]byte, 4<<10)
	claims := s.claimAll("a", n)
	for i, c := range claims {
		settlement := outbox.Settlement{Attempt: a, State: outbox.Delivered}
		if i == 0 {
			settlement = outbox.Settlement{Attempt: a, State: outbox.Pending, Due: time.Now().Add(long)}
		}
		if err := s.store.Settle(s.ctx(), c, settlement); err != nil {
			s.Fatalf("Settle when full: %v", err)
		}
	}
	s.elapse(time.Millisecond)
	s.want("reaped", n-1, s.reap(outbox.Retention{}))
	if err := s.store.Health(s.ctx()); err != nil {
		s.Errorf("Health after reap: %v", err)
	}
	s.wantFill(0, 0.2)
	again := s.fill("evt_again", 64<<10)
	if again < sizeLimit/4/(64<<10) {
		s.Errorf("full again after %d events of 64 KiB", again)
	}
	s.lookup(claims[0].EventID)
	s.wantCounts("a", outbox.Counts{Accepted: int64(n + again), Delivered: int64(n - 1), Pending: int64(1 + again)})
}

func testFullBatch(s *suite) {
	s.openSized()
	n := s.fill("evt_", 256<<10)
	batch := outbox.Batch{Entries: []outbox.Entry{entry("evt_first", "a")}, Key: "key", Fingerprint: [32]byte{1}}
	for i := range 8 {
		batch.Entries = append(batch.Entries, sized(fmt.Sprintf("evt_batch%d", i), 256<<10, "a", "b"))
	}
	if _, err := s.store.Accept(s.ctx(), batch); !errors.Is(err, outbox.ErrFull) {
		s.Fatalf("Accept: %v, want ErrFull", err)
	}
	for _, e := range batch.Entries {
		s.absent(e.Event.ID)
	}
	s.wantCounts("a", outbox.Counts{Accepted: int64(n), Pending: int64(n)})
	s.wantCounts("b", outbox.Counts{})

	// The refused key was not used.
	for _, c := range s.claimAll("a", n) {
		s.settle(c, outbox.Failed)
	}
	s.elapse(time.Millisecond)
	s.want("reaped", n, s.reap(outbox.Retention{Delivered: long}))
	for _, r := range s.acceptBatch(batch) {
		s.want("duplicate", false, r.Duplicate)
	}
}

func testReapKeepsPending(s *suite) {
	s.accept(entries("evt_", 5, "a", "b")...)
	claims := s.claimAll("a", 4)
	s.settle(claims[0], outbox.Delivered)
	s.elapse(time.Millisecond)
	s.retry(claims[1], time.Now())
	s.retry(claims[2], time.Now().Add(long))
	s.commit()
	s.elapse(time.Millisecond)
	s.want("reaped", 1, s.reap(outbox.Retention{}))
	s.want("reaped", 0, s.reap(outbox.Retention{}))

	// The event stays for its other delivery.
	r := s.lookup("evt_0000")
	s.want("deliveries left", 1, len(r.Deliveries))
	s.want("endpoint", "b", r.Deliveries[0].Endpoint)
	for i, attempts := range map[int]int{1: 1, 2: 1, 3: 0, 4: 0} {
		r := s.lookup(fmt.Sprintf("evt_%04d", i))
		s.want("deliveries", 2, len(r.Deliveries))
		s.want("attempts", attempts, len(r.Deliveries[0].Attempts))
	}
	s.settle(claims[3], outbox.Delivered) // its lease is as it was
	s.want("claimed", []string{"evt_0004", "evt_0001"}, eventIDs(s.claimAll("a", 2)))
	s.claimAll("b", 5)
	s.wantCounts("a", outbox.Counts{Accepted: 5, Delivered: 2, Pending: 3})
	s.wantCounts("b", outbox.Counts{Accepted: 5, Pending: 5})
}

func testReapByAge(s *suite) {
	states := []outbox.State{outbox.Delivered, outbox.Failed, outbox.Discarded}
	finish := func(prefix string) {
		s.accept(entries(prefix, len(states), "a")...)
		for i, c := range s.claimAll("a", len(states)) {
			s.settle(c, states[i])
		}
		s.commit()
	}
	left := func(prefix string) string {
		found := ""
		for i, state := range states {
			if _, err := s.store.Lookup(s.ctx(), fmt.Sprintf("%s%04d", prefix, i)); err == nil {
				found += string(state) + " "
			}
		}
		return found
	}
	finish("evt_old")
	s.elapse(s.delay)
	finish("evt_new")
	const all = "delivered failed discarded "

	s.want("reaped", 0, s.reap(outbox.Retention{Delivered: 2 * long * 24, Failed: 2 * long * 24}))
	s.want("old", all, left("evt_old"))
	s.want("reaped", 1, s.reap(outbox.Retention{Delivered: 2 * long * 24, Failed: s.delay * 9 / 10}))
	s.want("old", "delivered discarded ", left("evt_old"))
	s.want("reaped", 2, s.reap(outbox.Retention{Delivered: s.delay * 9 / 10, Failed: 2 * long * 24}))
	s.want("old", "", left("evt_old"))
	s.want("new", all, left("evt_new"))
	s.elapse(time.Millisecond)
	s.want("reaped", 2, s.reap(outbox.Retention{Failed: 2 * long * 24}))
	s.want("new", "failed ", left("evt_new"))

	// Age counts from the end, not from the accept.
	s.accept(entry("evt_late", "a"))
	s.elapse(s.delay)
	s.settle(s.claimOne("a"), outbox.Delivered)
	s.commit()
	s.want("reaped", 0, s.reap(outbox.Retention{Delivered: s.delay * 9 / 10, Failed: 2 * long * 24}))
	s.lookup("evt_late")

	// Rows go, counts stay.
	want := outbox.Counts{Accepted: 7, Delivered: 3, Failed: 2, Discarded: 2}
	s.wantCounts("a", want)
	s.reopen()
	s.wantCounts("a", want)
	s.want("old", "", left("evt_old"))
	s.claimNone("a")
}

// testReapBounded: one call has an end, and the next goes on from there.
func testReapBounded(s *suite) {
	endpoints := []string{"a", "b", "c", "d", "e"}
	s.accept(entries("evt_", 1000, endpoints...)...)
	s.accept(entry("evt_pending", "a"))
	for _, endpoint := range endpoints {
		for _, c := range s.claimAll(endpoint, 1000) {
			s.settle(c, outbox.Delivered)
		}
	}
	s.commit()
	s.elapse(time.Millisecond)
	removed, more, err := s.store.Reap(s.ctx(), outbox.Retention{Failed: long})
	if err != nil {
		s.Fatalf("Reap: %v", err)
	}
	if removed < 1 || removed >= 5000 || !more {
		s.Errorf("one Reap of 5,000 deliveries removed %d, more = %t, want a part and more to do", removed, more)
	}
	s.reopen()
	s.want("reaped", 5000, removed+s.reap(outbox.Retention{Failed: long}))
	for _, e := range entries("evt_", 1000) {
		s.absent(e.Event.ID)
	}
	s.lookup("evt_pending")
	for _, endpoint := range endpoints[1:] {
		s.wantCounts(endpoint, outbox.Counts{Accepted: 1000, Delivered: 1000})
	}
	s.wantCounts("a", outbox.Counts{Accepted: 1001, Delivered: 1000, Pending: 1})
}
