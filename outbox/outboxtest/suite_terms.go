package outboxtest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"relay/outbox"
)

func testFailedFromStart(s *suite) {
	before := time.Now().Truncate(time.Microsecond)
	e := repeatable("app-1", "1", "a", "b", "c")
	e.Terms = []outbox.Term{{}, {Code: "when_error", Error: "relay.hcl:7,3-20: no amount"}, {Code: "body_error"}}
	first := s.accept(e)
	s.want("receipts", []outbox.Receipt{{ID: "app-1", Deliveries: 3}}, first)
	after := time.Now()

	record := s.lookup("app-1")
	s.want("deliveries", 3, len(s.deliveryIDs("app-1")))
	for i, term := range e.Terms[1:] {
		d := record.Deliveries[i+1]
		if d.Finished.Before(before) || d.Finished.After(after) {
			s.Errorf("Finished = %v, want between %v and %v", d.Finished, before, after)
		}
		s.want("failed from the start", outbox.DeliveryRecord{
			Delivery: outbox.Delivery{ID: d.ID, EventID: "app-1", Endpoint: e.Endpoints[i+1], State: outbox.Failed,
				Due: d.Due, Created: record.Accepted, Finished: d.Finished, Code: term.Code},
			Error: term.Error,
		}, d)
	}
	check := func() {
		s.Helper()
		s.want("record", record, s.lookup("app-1"))
		s.wantCounts("a", outbox.Counts{Accepted: 1, Pending: 1})
		for _, endpoint := range e.Endpoints[1:] {
			s.wantCounts(endpoint, outbox.Counts{Accepted: 1, Failed: 1})
			s.claimNone(endpoint)
		}
	}
	check()
	s.want("repeat", duplicates(first), s.accept(e))
	s.reopen()
	check()

	// It is in nobody's way.
	s.accept(entry("evt_2", "b"))
	s.want("claimed at a", "app-1", s.claimOne("a").EventID)
	s.want("claimed at b", "evt_2", s.claimOne("b").EventID)
	e = entry("evt_3", "b") // while b is worked on
	e.Terms = []outbox.Term{{Code: "when_error"}}
	s.accept(e)
	s.claimNone("b")
}

func testFailedIsKept(s *suite) {
	failed := []outbox.Term{{Code: "when_error", Error: "no amount"}}
	alone, beside := entry("evt_alone", "a"), entry("evt_beside", "a", "b")
	alone.Terms, beside.Terms = failed, append(failed, outbox.Term{})
	s.accept(alone, beside)
	s.settle(s.claimOne("b"), outbox.Delivered)
	s.commit()
	s.elapse(time.Millisecond)
	s.want("reaped", 1, s.reap(outbox.Retention{Failed: long}))
	for _, id := range []string{"evt_alone", "evt_beside"} {
		if r := s.lookup(id); len(r.Deliveries) != 1 || r.Deliveries[0].Error != "no amount" {
			s.Errorf("event %s over reap: %+v, want its failed delivery", id, r.Deliveries)
		}
	}
	s.want("reaped", 2, s.reap(outbox.Retention{Delivered: long}))
	s.absent("evt_alone")
	s.absent("evt_beside")
	s.wantCounts("a", outbox.Counts{Accepted: 2, Failed: 2})
}

// marked is an event for endpoint a, on the terms of a mark that lasts.
func marked(id, key string, level int64) outbox.Entry {
	return markedWith(id, outbox.Mark{Key: key, Level: level, For: long})
}

func markedWith(id string, m outbox.Mark) outbox.Entry {
	e := entry(id, "a")
	e.Terms = []outbox.Term{{Mark: &m}}
	return e
}

// wantMade accepts an event for one endpoint and checks whether its delivery was made.
func (s *suite) wantMade(want bool, e outbox.Entry) {
	s.Helper()
	receipt := outbox.Receipt{ID: e.Event.ID}
	if want {
		receipt.Deliveries = 1
	}
	s.want(fmt.Sprintf("receipts for %+v", *e.Terms[0].Mark), []outbox.Receipt{receipt}, s.accept(e))
	s.want("deliveries", receipt.Deliveries, len(s.lookup(e.Event.ID).Deliveries))
}

func testMarkLevels(s *suite) {
	var made []string
	for i, step := range []struct {
		level int64
		lower bool
		made  bool
	}{
		{level: 0}, // what is not remembered is 0
		{level: 3, made: true},
		{level: 3},
		{level: 2},
		{level: 3}, // 2 was not remembered
		{level: 5, made: true},
		{level: 2, lower: true},
		{level: 3, made: true}, // 2 was
		{level: 3, lower: true},
		{level: 1 << 62, lower: true, made: true},
		{level: 1<<62 - 1},
		{level: 0, lower: true},
		{level: 0},
		{level: 1, made: true},
	} {
		id := fmt.Sprintf("evt_%d", i)
		s.wantMade(step.made, markedWith(id, outbox.Mark{Key: "a/1", Level: step.level, Lower: step.lower, For: long}))
		if step.made {
			made = append(made, id)
		}
	}
	s.wantMade(true, marked("evt_other", "a/2", 1))
	made = append(made, "evt_other")
	s.wantCounts("a", outbox.Counts{Accepted: int64(len(made)), Pending: int64(len(made))})
	s.want("claimed", made, eventIDs(s.claimAll("a", len(made))))
	s.claimNone("a")
}

// testMarksInBatch: what is earlier in a batch is remembered for what is later.
func testMarksInBatch(s *suite) {
	var batch outbox.Batch
	for i, level := range []int64{1, 2, 2, 1, 3} {
		batch.Entries = append(batch.Entries, marked(fmt.Sprintf("evt_%d", i), "k", level))
	}
	again := repeatable("app-1", "1", "a", "b", "c")
	term := outbox.Term{Mark: &outbox.Mark{Key: "other", Level: 1, For: long}}
	again.Terms = []outbox.Term{{}, term, term}
	batch.Entries = append(batch.Entries, again, again)
	s.want("receipts", []outbox.Receipt{
		{ID: "evt_0", Deliveries: 1}, {ID: "evt_1", Deliveries: 1}, {ID: "evt_2"}, {ID: "evt_3"}, {ID: "evt_4", Deliveries: 1},
		{ID: "app-1", Deliveries: 2}, {ID: "app-1", Deliveries: 2, Duplicate: true},
	}, s.acceptBatch(batch))
	var endpoints []string
	for _, d := range s.lookup("app-1").Deliveries {
		endpoints = append(endpoints, d.Endpoint)
	}
	s.want("deliveries", []string{"a", "b"}, endpoints)
	s.want("claimed", []string{"evt_0", "evt_1", "evt_4", "app-1"}, eventIDs(s.claimAll("a", 4)))
	s.want("claimed", "app-1", s.claimOne("b").EventID)
	s.want("counts of c", outbox.Counts{}, s.counts()["c"])

	// A delivery that is failed from the start is made on the same terms.
	failing := marked("evt_failing", "k", 4)
	failing.Terms[0].Code = "body_error"
	s.wantMade(true, failing)
	failing.Event.ID = "evt_left_out"
	s.wantMade(false, failing)
	s.wantMade(false, marked("evt_5", "k", 4))
	s.wantCounts("a", outbox.Counts{Accepted: 5, Pending: 4, Failed: 1})
}

func testMarkEnds(s *suite) {
	n := 0
	passing := func(want bool) {
		s.Helper()
		n++
		s.wantMade(want, markedWith(fmt.Sprintf("evt_%d", n), outbox.Mark{Key: "k", Level: 1, For: s.delay}))
	}
	reap := func() { s.reap(outbox.Retention{Delivered: long, Failed: long}) }
	s.wantMade(true, marked("evt_lasting", "lasting", 1))
	passing(true)
	if s.engine.Bubble { // real time may pass at any speed
		s.elapse(s.delay / 2)
		passing(false)
		reap()
		s.elapse(s.delay/2 - 10*time.Millisecond)
		passing(false) // dropped events did not extend it
		s.elapse(20 * time.Millisecond)
	} else {
		s.elapse(s.delay + 20*time.Millisecond)
	}
	passing(true)
	s.elapse(s.delay + 20*time.Millisecond)
	reap()
	passing(true)
	s.wantMade(false, marked("evt_left_out", "lasting", 1))
}

func testMarksSurvive(s *suite) {
	s.wantMade(true, marked("evt_1", "k", 5))
	s.reopen()
	s.wantMade(false, marked("evt_2", "k", 5))
	s.wantMade(false, markedWith("evt_3", outbox.Mark{Key: "k", Level: 2, Lower: true, For: long}))
	s.reopen()
	s.wantMade(false, marked("evt_4", "k", 2))
	s.wantMade(true, marked("evt_5", "k", 3))
}

func testMarksRefused(s *suite) {
	s.openSized()
	s.accept(repeatable("app-1", "1"))
	s.acceptBatch(keyed("key", "1", "first"))
	first := marked("evt_1", "k", 3)
	s.conflict(outbox.Batch{Entries: []outbox.Entry{first, repeatable("app-1", "other")}}, 1)
	s.conflict(outbox.Batch{Entries: []outbox.Entry{first}, Key: "key", Fingerprint: outbox.Fingerprint{1}}, -1)
	n := s.fill("evt_fill", 256<<10)
	batch := outbox.Batch{Entries: []outbox.Entry{first}}
	for i := range 8 {
		batch.Entries = append(batch.Entries, sized(fmt.Sprintf("evt_batch%d", i), 256<<10, "a"))
	}
	if _, err := s.store.Accept(s.ctx(), batch); !errors.Is(err, outbox.ErrFull) {
		s.Fatalf("Accept: %v, want ErrFull", err)
	}
	for _, c := range s.claimAll("a", n+2) {
		s.settle(c, outbox.Delivered)
	}
	s.elapse(time.Millisecond)
	s.want("reaped", n+2, s.reap(outbox.Retention{}))
	s.wantMade(true, first)
}

func testMarksRepeated(s *suite) {
	byID := func(level int64) outbox.Entry {
		e := repeatable("app-1", "1", "a")
		e.Terms = marked("", "k", level).Terms
		return e
	}
	byKey := func(prefix string, level int64) outbox.Batch {
		b := keyed("key", "1", prefix)
		b.Entries[0].Terms = marked("", "k", level).Terms
		return b
	}
	s.wantMade(true, marked("evt_1", "k", 3))
	first := s.accept(byID(2))
	s.want("receipts", []outbox.Receipt{{ID: "app-1"}}, first)
	firstByKey := s.acceptBatch(byKey("first", 3))
	s.want("receipts", []outbox.Receipt{{ID: "evt_first0000"}, {ID: "evt_first0001"}, {ID: "evt_first0002", Deliveries: 1}}, firstByKey)
	for _, level := range []int64{2, 9} { // on terms that have changed since, too
		s.want("repeat by id", duplicates(first), s.accept(byID(level)))
		s.want("repeat by key", duplicates(firstByKey), s.acceptBatch(byKey("second", level)))
	}
	s.wantMade(true, marked("evt_4", "k", 4))
	s.wantCounts("a", outbox.Counts{Accepted: 3, Pending: 3})
}

// testAllLeftOut: such an event is kept like one that nobody wanted.
func testAllLeftOut(s *suite) {
	s.wantMade(true, marked("evt_1", "k", 1))
	e := marked("evt_2", "k", 1)
	e.Endpoints = []string{"b"}
	s.wantMade(false, e)
	s.reopen()
	s.want("event", e.Event, s.lookup("evt_2").Event)
	if _, ok := s.counts()["b"]; ok {
		s.Error("an endpoint without deliveries is counted")
	}
	s.want("reaped", 0, s.reap(outbox.Retention{Delivered: long, Failed: long}))
	s.lookup("evt_2")
	s.elapse(time.Millisecond)
	s.want("reaped", 0, s.reap(outbox.Retention{Failed: long}))
	s.absent("evt_2")
	s.lookup("evt_1")
}

// testRacingMarks accepts events of four levels under one key from sixteen goroutines.
func testRacingMarks(s *suite) {
	const top = 4
	receipts, errs := make([][]outbox.Receipt, 16), make([]error, 16)
	var producers sync.WaitGroup
	for i := range receipts {
		producers.Go(func() {
			batch := outbox.Batch{Entries: []outbox.Entry{
				marked(fmt.Sprintf("evt_%d", i), "k", int64(i%top+1)),
				marked(fmt.Sprintf("evt_once%d", i), "once", 1),
			}}
			receipts[i], errs[i] = s.store.Accept(s.ctx(), batch)
		})
	}
	producers.Wait()
	var made [top]int
	once, all := 0, int64(0)
	for i, r := range receipts {
		if errs[i] != nil {
			s.Fatalf("Accept: %v", errs[i])
		}
		made[i%top] += r[0].Deliveries
		once += r[1].Deliveries
		all += int64(r[0].Deliveries + r[1].Deliveries)
	}
	s.want("deliveries of the one level", 1, once)
	for i, n := range made {
		if n > 1 || i == top-1 && n == 0 {
			s.Errorf("%d deliveries of level %d, want one", n, i+1)
		}
	}
	s.wantCounts("a", outbox.Counts{Accepted: all, Pending: all})
	s.claimAll("a", int(all))
	s.claimNone("a")
}
