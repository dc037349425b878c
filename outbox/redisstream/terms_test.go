package redisstream

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// onTerms is a batch of one event with terms, one for each endpoint.
func onTerms(id string, endpoints []string, terms ...outbox.Term) outbox.Batch {
	b := one(id, endpoints...)
	b.Entries[0].Terms = terms
	return b
}

// level is a term with a mark that all tests of an outbox share.
func level(n int64) outbox.Term {
	return outbox.Term{Mark: &outbox.Mark{Key: "k,", Level: n, For: time.Hour}}
}

// The reply to an accept on terms is lost: the accept that is executed again finds what the
// first one has made, and its mark as it left it.
func TestLostReplyToTerms(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartFaultProxy(t, "unix", server.Socket())
	s := openTest(t, at(proxy.URL()))
	keyed := onTerms("keyed", []string{"a", "b"}, level(2), level(2))
	keyed.Key, keyed.Fingerprint = "request", [32]byte{1}
	for i, b := range []outbox.Batch{
		onTerms("chosen", []string{"a", "b", "c"}, outbox.Term{Code: "when_error"}, level(1), level(1)),
		keyed,
	} {
		id, want := b.Entries[0].Event.ID, 2-i
		proxy.DropReplyTo("e:" + id)
		receipts, err := s.Accept(t.Context(), b)
		if err != nil || receipts[0] != (outbox.Receipt{ID: id, Deliveries: want}) {
			t.Errorf("Accept %s: %+v, %v, want the first receipt with %d deliveries", id, receipts, err, want)
		}
		if proxy.Dropped() != i+1 {
			t.Error("no reply was lost")
		}
		if receipts, err = s.Accept(t.Context(), b); err != nil || receipts[0] != (outbox.Receipt{ID: id, Deliveries: want, Duplicate: true}) {
			t.Errorf("Accept %s again: %+v, %v", id, receipts, err)
		}
	}
	if a, b := countsOf(t, s, "a"), countsOf(t, s, "b"); a.Accepted != 2 || a.Failed != 1 || b.Accepted != 1 || b.Pending != 1 {
		t.Errorf("counts %+v and %+v", a, b)
	}
}

// What retention removes gives all its room back, whatever became of an event's deliveries, and
// a repeat is still answered with the number that was made.
func TestTermsGiveRoomBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	failed := outbox.Term{Code: "body_error", Error: "no amount"}
	abc := []string{"a", "b", "c"}
	batches := []outbox.Batch{
		onTerms("all", abc, level(1), outbox.Term{}, failed),
		onTerms("some", abc, level(1), outbox.Term{}, failed),
		onTerms("pending", abc, level(1), outbox.Term{}, level(1)),
		onTerms("failed", abc, failed, failed, failed),
		onTerms("none", abc, level(1), level(1), level(1)),
		onTerms("only", []string{"a"}, level(1)),
	}
	want := []int{3, 2, 1, 3, 0, 0}
	var made []int
	for _, b := range batches {
		receipts, err := s.Accept(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, receipts[0].Deliveries)
	}
	deliver(t, s, claimSome(t, s, "a", 1, time.Minute)...)
	deliver(t, s, claimSome(t, s, "b", 3, time.Minute)...)
	if mended := reconcileAll(t, s); mended != 0 {
		t.Errorf("%d deliveries were put back in line", mended)
	}
	removed := 0
	await(t, "retention removes them", func() bool {
		n, _, err := s.Reap(t.Context(), outbox.Retention{})
		if err != nil {
			t.Fatal(err)
		}
		removed += n
		return len(server.MustDo(t, "KEYS", s.shards[0].event("*")).([]any)) == 0
	})
	if removed != 9 {
		t.Errorf("%d deliveries were removed, want 9", removed)
	}
	rows := statBytes(t, server, s)
	if bytes := server.MustDo(t, "HGET", s.shards[0].meta, "bytes"); bytes != rows {
		t.Errorf("%v bytes are in use, want %s, those of statistics", bytes, rows)
	}
	for i, b := range batches {
		receipts, err := s.Accept(t.Context(), b)
		if err != nil || receipts[0] != (outbox.Receipt{ID: b.Entries[0].Event.ID, Deliveries: want[i], Duplicate: true}) {
			t.Errorf("a repeat says %+v, %v, want %d deliveries", receipts, err, want[i])
		}
	}
	if diff := cmp.Diff(want, made); diff != "" {
		t.Errorf("deliveries made (-want +got):\n%s", diff)
	}
}

// A group of accepts in which one is on terms changes nothing for the endpoints of the others:
// what they want is leased at once. A delivery that is left out calls nobody.
func TestTermsBesideOthers(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	sh := s.shards[0]
	if _, err := s.Accept(t.Context(), onTerms("first", []string{"b"}, level(1))); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, claimSome(t, s, "b", 1, time.Minute)...)
	claims := make(chan []outbox.Claim, 2)
	for _, name := range []string{"a", "b"} {
		go func() { claims <- claimSome(t, s, name, 1, time.Minute) }()
	}
	idle := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, name := range []string{"a", "b"} {
			if e := s.endpoints[name]; e == nil || e.wait.ready == nil || e.fetching != 0 || e.maybe != 0 {
				return false
			}
		}
		return true
	}
	await(t, "both wait", idle)
	fetched := func() [2]time.Time {
		s.mu.Lock()
		defer s.mu.Unlock()
		return [2]time.Time{s.endpoints["a"].fetched, s.endpoints["b"].fetched}
	}
	before := fetched()
	var list []*accept
	for _, b := range []outbox.Batch{onTerms("on terms", []string{"b"}, level(1)), one("plain", "a")} {
		e := encodeEvent(&b.Entries[0], 1)
		list = append(list, &accept{ctx: t.Context(), batch: &b, events: [][]byte{e}, done: make(chan error, 1)})
	}
	sh.commitAccepts(list)
	if c := <-claims; c[0].EventID != "plain" {
		t.Errorf("claimed %+v", c)
	}
	if after := fetched(); after != before {
		t.Errorf("redis was asked for deliveries: at %v, then at %v", before, after)
	}
	acceptOne(t, s, "last", "b")
	if c := <-claims; c[0].EventID != "last" {
		t.Errorf("claimed %+v", c)
	}
}

// Marks are known in one shard: with more of them they would let through what they should not.
func TestMarksNeedOneShard(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := at(server.URL())
	o.Shards = 2
	s := openTest(t, o)
	_, err := s.Accept(t.Context(), onTerms("e", []string{"a"}, level(1)))
	if err == nil || !strings.Contains(err.Error(), "shards = 1") {
		t.Errorf("Accept: %v, want what to do", err)
	}
	if _, err := s.Lookup(t.Context(), "e"); !errors.Is(err, outbox.ErrNotFound) {
		t.Errorf("Lookup: %v, want ErrNotFound", err)
	}
}

// statBytes rolls up statistics and returns how many bytes they take of max_size.
func statBytes(t *testing.T, server *redistest.Server, s *Store) string {
	t.Helper()
	if _, err := s.Statistics(t.Context(), outbox.StatQuery{}); err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, key := range server.MustDo(t, "KEYS", s.shards[0].prefix+"hour:*").([]any) {
		for i, text := range server.MustDo(t, "HGETALL", key.(string)).([]any) {
			sum += len(text.(string)) + i%2*statCost
		}
	}
	return strconv.Itoa(sum)
}
