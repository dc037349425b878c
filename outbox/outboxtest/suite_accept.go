package outboxtest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"relay/outbox"
)

func testAcceptedSurvives(s *suite) {
	before := time.Now().Truncate(time.Microsecond)
	receipts := s.accept(entry("evt_1", "a", "b"), entry("evt_2", "b"))
	s.want("receipts", []outbox.Receipt{{ID: "evt_1", Deliveries: 2}, {ID: "evt_2", Deliveries: 1}}, receipts)
	ids := s.deliveryIDs("evt_1")
	record := s.lookup("evt_1")
	if record.Accepted.Before(before.Add(-outbox.OrderSlack)) || record.Accepted.After(time.Now().Add(outbox.OrderSlack)) {
		s.Errorf("Accepted = %v, want between %v and now", record.Accepted, before)
	}

	s.reopen()
	s.want("record over reopen", record, s.lookup("evt_1"))
	s.want("delivery ids over reopen", ids, s.deliveryIDs("evt_1"))
	c := s.claimOne("a")
	s.want("claimed at a", ids[0], c.ID)
	if c.Event == nil {
		s.Fatal("Claim.Event is nil")
	}
	s.want("event", entry("evt_1").Event, *c.Event)
	s.want("claimed at b", []string{"evt_1", "evt_2"}, eventIDs(s.claimAll("b", 2)))
}

func testBatchOfThousand(s *suite) {
	list := entries("evt_", 1000, "a", "b")
	for i, r := range s.accept(list...) {
		s.want("receipt", outbox.Receipt{ID: list[i].Event.ID, Deliveries: 2}, r)
	}
	s.reopen()
	s.wantCounts("a", outbox.Counts{Accepted: 1000, Pending: 1000})
	var want []string
	for _, e := range list {
		want = append(want, e.Event.ID)
	}
	seen := map[string]bool{}
	for _, endpoint := range []string{"a", "b"} {
		claims := s.claimAll(endpoint, 1000)
		s.want("claimed at "+endpoint, want, eventIDs(claims))
		for _, c := range claims {
			if seen[c.ID] {
				s.Fatalf("delivery id %s is there twice", c.ID)
			}
			seen[c.ID] = true
		}
		s.claimNone(endpoint)
	}
}

// repeatable is an entry whose id the app chose.
func repeatable(id, content string, endpoints ...string) outbox.Entry {
	e := entry(id, endpoints...)
	e.Event.Data = []byte(content)
	e.Fingerprint = sha256.Sum256(e.Event.Data)
	return e
}

func testRefusedBatch(s *suite) {
	s.accept(repeatable("evt_known", "1", "a"))
	counts := s.counts()
	s.conflict(outbox.Batch{
		Entries:     []outbox.Entry{entry("evt_1", "a"), repeatable("evt_2", "2", "b"), repeatable("evt_known", "other", "a"), entry("evt_3")},
		Key:         "key",
		Fingerprint: sha256.Sum256([]byte("batch")),
	}, 2)
	for _, id := range []string{"evt_1", "evt_2", "evt_3"} {
		s.absent(id)
	}
	s.want("counts", counts, s.counts())

	// Neither the key nor the ids of the refused batch are remembered.
	receipts := s.acceptBatch(outbox.Batch{
		Entries:     []outbox.Entry{entry("evt_1", "a"), repeatable("evt_2", "other", "b")},
		Key:         "key",
		Fingerprint: sha256.Sum256([]byte("other batch")),
	})
	s.want("receipts", []outbox.Receipt{{ID: "evt_1", Deliveries: 1}, {ID: "evt_2", Deliveries: 1}}, receipts)
}

// testCrashInAccept crashes the store while eight producers accept batches.
func testCrashInAccept(s *suite) {
	store := s.store
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	underway := make(chan struct{})
	var producers sync.WaitGroup
	for p := range 8 {
		producers.Go(func() {
			for n := range 25 {
				prefix := fmt.Sprintf("evt_%d_%d_", p, n)
				_, err := store.Accept(s.ctx(), outbox.Batch{Entries: entries(prefix, 5, "a", "b", "c")})
				if err != nil {
					return // the crash: whether the batch is there is open
				}
				mu.Lock()
				acknowledged[prefix] = true
				if len(acknowledged) == 20 {
					close(underway)
				}
				mu.Unlock()
			}
		})
	}
	<-underway
	s.reopen()
	producers.Wait()

	var kept int64
	for p := range 8 {
		for n := range 25 {
			prefix := fmt.Sprintf("evt_%d_%d_", p, n)
			found := 0
			for i := range 5 {
				r, err := s.store.Lookup(s.ctx(), fmt.Sprintf("%s%04d", prefix, i))
				if errors.Is(err, outbox.ErrNotFound) {
					continue
				}
				if err != nil {
					s.Fatalf("Lookup: %v", err)
				}
				found++
				if len(r.Deliveries) != 3 {
					s.Errorf("event %s has %d deliveries, want 3", r.Event.ID, len(r.Deliveries))
				}
			}
			if found != 5 && (found != 0 || acknowledged[prefix]) {
				s.Errorf("batch %s: %d of 5 events are there, acknowledged = %t", prefix, found, acknowledged[prefix])
			}
			kept += int64(found)
		}
	}
	for _, endpoint := range []string{"a", "b", "c"} {
		s.wantCounts(endpoint, outbox.Counts{Accepted: kept, Pending: kept})
	}
}

func testNoEndpoints(s *suite) {
	s.want("receipts", []outbox.Receipt{{ID: "evt_1"}}, s.accept(entry("evt_1")))
	s.reopen()
	r := s.lookup("evt_1")
	s.want("event", entry("evt_1").Event, r.Event)
	s.want("deliveries", 0, len(r.Deliveries))
	s.want("counts", map[string]outbox.Counts{}, s.counts())

	// As old as a delivered one, it goes.
	s.want("reaped", 0, s.reap(outbox.Retention{Delivered: long, Failed: long}))
	s.lookup("evt_1")
	s.elapse(time.Millisecond)
	s.want("reaped", 0, s.reap(outbox.Retention{Failed: long}))
	s.absent("evt_1")
}

func testAnyBytes(s *suite) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	payloads := [][]byte{
		nil,
		[]byte("{}"),
		[]byte(" {\n\t\"a\" : 1.000e+0,\r\n\"a\":\"\\u00e9\\ud83d\\ude00 \u00e9\" } \n"),
		[]byte("\"\x00\xff\xfe\xed\xa0\x80\""),
		[]byte(`{"blob":"` + string(every) + `"}`),
		every,
		{0},
		bytes.Repeat([]byte("\r\n"), 5000),
	}
	var list []outbox.Entry
	for i, data := range payloads {
		e := entry(fmt.Sprintf("evt_%d", i), "a")
		e.Event.Data = data
		list = append(list, e)
	}
	s.accept(list...)
	check := func(how string, i int, got []byte) {
		if !bytes.Equal(got, payloads[i]) {
			s.Errorf("payload %d by %s = %q, want %q", i, how, got, payloads[i])
		}
	}
	for _, how := range []string{"lookup", "lookup over reopen"} {
		for i, e := range list {
			check(how, i, s.lookup(e.Event.ID).Event.Data)
		}
		s.reopen()
	}
	for i, c := range s.claimAll("a", len(payloads)) {
		check("claim", i, c.Event.Data)
	}
}

func testLargeData(s *suite) {
	data := make([]byte, 16<<20)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(data) // never fails, and yields no zero bytes in a row to compress
	e := entry("evt_1", "a")
	e.Event.Data = data
	s.accept(e)
	s.reopen()
	if c := s.claimOne("a"); !bytes.Equal(c.Event.Data, data) {
		s.Errorf("claimed %d bytes that are not the %d accepted", len(c.Event.Data), len(data))
	}
	if r := s.lookup("evt_1"); !bytes.Equal(r.Event.Data, data) {
		s.Errorf("looked up %d bytes that are not the %d accepted", len(r.Event.Data), len(data))
	}
}

func testEventFields(s *suite) {
	full := outbox.Event{
		ID:     "evt_" + string(bytes.Repeat([]byte("x"), 60)),
		Type:   string(bytes.Repeat([]byte("t"), 128)),
		Time:   time.Date(1969, 12, 31, 23, 59, 59, 999_999_999, time.FixedZone("east", 3600)),
		Tenant: "ténant 1",
		Key:    "a/b:c é\n",
		Trace:  "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 " + strings.Repeat("s", 512),
		Data:   []byte("1"),
	}
	bare := outbox.Event{ID: "0", Type: "t", Time: time.Now(), Data: []byte("2")}
	s.accept(outbox.Entry{Event: full, Endpoints: []string{"a-b_c.9"}}, outbox.Entry{Event: bare, Endpoints: []string{"a-b_c.9"}})
	s.reopen()
	for i, c := range s.claimAll("a-b_c.9", 2) {
		want := []outbox.Event{full, bare}[i]
		want.Time = want.Time.UTC().Truncate(time.Microsecond)
		s.want("claimed event", want, *c.Event)
		s.want("event looked up", want, s.lookup(want.ID).Event)
		if c.Event.Time.Location() != time.UTC {
			s.Errorf("Event.Time is in %v, want UTC", c.Event.Time.Location())
		}
	}
}
