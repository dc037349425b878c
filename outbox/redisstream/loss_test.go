package redisstream

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// reconcileAll looks through all events.
func reconcileAll(t *testing.T, s *Store) (mended int) {
	t.Helper()
	mended, err := s.shards[0].reconcile(t.Context())
	if err != nil {
		t.Fatalf("reconcile: %v", err)
	}
	return mended
}

// ids are the events of claims, sorted.
func ids(claims []outbox.Claim) []string {
	var all []string
	for _, c := range claims {
		all = append(all, c.EventID)
	}
	slices.Sort(all)
	return all
}

// Faults F27 and F28: an operator deletes what keeps the order of work. The
// reconciler finds the deliveries, and each is there once.
func TestReconcileDeletedKeys(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	three := []string{"e1", "e2", "e3"}
	for name, c := range map[string]struct {
		begin  func(t *testing.T, s *Store)
		delete func(k keys) []string
		mended int
	}{
		"XTRIM backlog": {nil, func(k keys) []string { return []string{"XTRIM", k.backlog("a"), "MAXLEN", "1"} }, 2},
		"DEL backlog":   {nil, func(k keys) []string { return []string{"DEL", k.backlog("a")} }, 3},
		"DEL retries": {func(t *testing.T, s *Store) {
			for _, c := range claimSome(t, s, "a", 3, time.Minute) {
				if err := s.Settle(t.Context(), c, retry(c, 2*time.Second)); err != nil {
					t.Fatal(err)
				}
			}
			await(t, "the retries are recorded", func() bool {
				return server.MustDo(t, "ZCARD", s.shards[0].retries("a")) == int64(3)
			})
		}, func(k keys) []string { return []string{"DEL", k.retries("a")} }, 3},
		"XGROUP DESTROY": {nil, func(k keys) []string { return []string{"XGROUP", "DESTROY", k.backlog("a"), group} }, 0},
		"XGROUP DESTROY while they are claimed": {func(t *testing.T, s *Store) {
			claimSome(t, s, "a", 3, time.Hour)
		}, func(k keys) []string { return []string{"XGROUP", "DESTROY", k.backlog("a"), group} }, 0},
		"XGROUP DELCONSUMER": {func(t *testing.T, s *Store) {
			claimSome(t, s, "a", 3, time.Hour)
		}, func(k keys) []string { return []string{"XGROUP", "DELCONSUMER", k.backlog("a"), group, host()} }, 3},
		"DEL leases": {func(t *testing.T, s *Store) {
			claimSome(t, s, "a", 3, time.Second)
		}, func(k keys) []string { return []string{"DEL", k.leases} }, 0},
		"DEL agenda": {func(t *testing.T, s *Store) {
			for _, c := range claimSome(t, s, "a", 3, time.Minute) {
				if err := s.Settle(t.Context(), c, retry(c, 2*time.Second)); err != nil {
					t.Fatal(err)
				}
			}
			await(t, "the retries are recorded", func() bool {
				return server.MustDo(t, "ZCARD", s.shards[0].retries("a")) == int64(3)
			})
		}, func(k keys) []string { return []string{"DEL", k.agenda} }, 0},
		"DEL times of accept": {func(t *testing.T, s *Store) {
			if err := s.Release(t.Context(), claimSome(t, s, "a", 3, time.Hour)...); err != nil {
				t.Fatal(err)
			}
		}, func(k keys) []string { return []string{"DEL", k.created("a")} }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			o := at(server.URL())
			o.Namespace = strings.ReplaceAll(name, " ", "-")
			server.MustDo(t, "SET", newKeys(o.Namespace, 0).prefix+"reconciler", "this test")
			s := openTest(t, o)
			for _, id := range three {
				acceptOne(t, s, id, "a")
			}
			if c.begin != nil {
				c.begin(t, s)
			}
			if n := reconcileAll(t, s); n != 0 {
				t.Errorf("reconciled %d, nothing was amiss", n)
			}
			server.MustDo(t, c.delete(s.shards[0].keys)...)
			if n := reconcileAll(t, s); n != c.mended {
				t.Errorf("reconciled %d, want %d", n, c.mended)
			}
			claims := claimSome(t, s, "a", 3, time.Minute)
			if got := ids(claims); !slices.Equal(got, three) {
				t.Errorf("claimed %v, want %v", got, three)
			}
			deliver(t, s, claims...)
			if n := countsOf(t, s, "a"); n.Accepted != 3 || n.Delivered != 3 {
				t.Errorf("counts %+v, want 3 delivered", n)
			}
			nothing(t, s, "a", 50*time.Millisecond)
		})
	}
}

// A retry that the reconciler puts back keeps its due time.
func TestReconcileKeepsDueTime(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, "SET", newKeys("relay", 0).prefix+"reconciler", "this test")
	s := openTest(t, at(server.URL()))
	acceptOne(t, s, "e", "a")
	c := claimSome(t, s, "a", 1, time.Minute)[0]
	o := retry(c, 2*time.Second)
	if err := s.Settle(t.Context(), c, o); err != nil {
		t.Fatal(err)
	}
	await(t, "the retry waits", func() bool { return server.MustDo(t, "EXISTS", s.shards[0].retries("a")) == int64(1) })
	server.MustDo(t, "DEL", s.shards[0].retries("a"))
	server.MustDo(t, "DEL", s.shards[0].agenda)
	if n := reconcileAll(t, s); n != 1 {
		t.Errorf("reconciled %d, want 1", n)
	}
	other := openTest(t, at(server.URL())) // knows of the retry only from Redis
	again := claimSome(t, other, "a", 1, time.Minute)[0]
	if early := time.Until(o.Due); early > 0 || again.Attempts != 1 {
		t.Errorf("claimed %s before it was due, after %d attempts", early, again.Attempts)
	}
}

// Fault F27: an operator deletes an event. Its deliveries end as discarded, are
// counted and told; one that is under way leaves nothing behind.
func TestEventDeleted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	var log testkit.Log
	o := at(server.URL())
	o.Log = zerolog.New(&log)
	other := openTest(t, o) // has nothing in memory
	acceptOne(t, s, "gone", "a")
	acceptOne(t, s, "kept", "a")
	server.MustDo(t, "DEL", s.shards[0].event("gone"))
	claims := claimSome(t, other, "a", 1, time.Minute)
	if claims[0].EventID != "kept" {
		t.Errorf("claimed %v", ids(claims))
	}
	deliver(t, other, claims...)
	if c := countsOf(t, other, "a"); c.Accepted != 2 || c.Delivered != 1 || c.Discarded != 1 || c.Pending != 0 {
		t.Errorf("counts %+v, want one delivered and one discarded", c)
	}
	if n := log.Count(`"event_id":"gone"`); n != 1 {
		t.Errorf("%d lines about it, want 1", n)
	}

	acceptOne(t, s, "under way", "a")
	claims = claimSome(t, s, "a", 1, time.Minute)
	server.MustDo(t, "DEL", s.shards[0].event("under way"))
	deliver(t, s, claims...)
	if _, err := s.Lookup(t.Context(), "under way"); !errors.Is(err, outbox.ErrNotFound) {
		t.Errorf("Lookup: %v, want ErrNotFound", err)
	}
	if c := countsOf(t, s, "a"); c.Accepted != 3 || c.Pending != 0 {
		t.Errorf("counts %+v, want nothing pending", c)
	}
	key := s.shards[0].event("under way")
	if kept := server.MustDo(t, "EXISTS", key); kept != int64(1) {
		t.Errorf("no record is left: this test tests nothing")
	}
	if receipt := acceptOne(t, s, "under way", "a"); receipt.Duplicate {
		t.Error("the event is known, though it was deleted")
	}
	claims = claimSome(t, s, "a", 1, time.Minute)
	server.MustDo(t, "DEL", key)
	deliver(t, s, claims...)
	countsOf(t, s, "a")
	if _, _, err := s.Reap(t.Context(), outbox.Retention{}); err != nil {
		t.Fatal(err)
	}
	await(t, "retention removes the record of a deleted event", func() bool {
		_, _, err := s.Reap(t.Context(), outbox.Retention{})
		return err == nil && server.MustDo(t, "EXISTS", key) == int64(0)
	})
}

// Fault F23: another program has put something of another type where a key of ours
// goes. The accept is refused, names the key, and leaves nothing behind; what is for
// other endpoints goes on.
func TestWrongType(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	k := s.shards[0].keys
	acceptOne(t, s, "first", "good")
	deliver(t, s, claimSome(t, s, "good", 1, time.Minute)...)
	keyed := one("e", "good")
	keyed.Key, keyed.Fingerprint = "r", [32]byte{1}
	for _, c := range []struct {
		key   string
		batch outbox.Batch
	}{
		{k.backlog("bad"), one("e", "bad", "good")},
		{k.event("e"), one("e", "good")},
		{k.tombstone("e"), one("e", "good")},
		{k.request("r"), keyed},
		{k.prefix + "m:k,", onTerms("e", []string{"good", "good2"}, outbox.Term{}, level(1))},
		{k.failed, onTerms("e", []string{"good"}, outbox.Term{Code: "when_error"})},
	} {
		before := countsOf(t, s, "good")
		server.MustDo(t, "RPUSH", c.key, "theirs")
		receipts, err := s.Accept(t.Context(), c.batch)
		if !errors.Is(err, outbox.ErrUnavailable) || !strings.Contains(err.Error(), c.key) {
			t.Errorf("%s: accept %+v, %v, want ErrUnavailable with the key", c.key, receipts, err)
		}
		// A group with it is refused whole, or only what touches the key: never half.
		acceptOne(t, s, "other"+c.key[len(k.prefix):], "good")
		deliver(t, s, claimSome(t, s, "good", 1, time.Minute)...)
		server.MustDo(t, "DEL", c.key)
		after := countsOf(t, s, "good")
		if after.Accepted != before.Accepted+1 || after.Delivered != before.Delivered+1 || after.Pending != 0 {
			t.Errorf("%s: counts %+v, then %+v", c.key, before, after)
		}
		if _, err := s.Lookup(t.Context(), "e"); !errors.Is(err, outbox.ErrNotFound) {
			t.Errorf("%s: Lookup: %v, want ErrNotFound", c.key, err)
		}
	}
	if receipt := acceptOne(t, s, "e", "bad", "good"); receipt.Duplicate || receipt.Deliveries != 2 {
		t.Errorf("receipt %+v", receipt)
	}
}

// A group of accepts in which one meets a key of another type keeps the others whole.
func TestWrongTypeInGroup(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	server.MustDo(t, "SET", s.shards[0].event("bad"), "theirs")
	group := func(ids ...string) (list []*accept) {
		for _, id := range ids {
			b := one(id, "a")
			e := encodeEvent(&b.Entries[0], 1)
			list = append(list, &accept{ctx: t.Context(), batch: &b, events: [][]byte{e}, done: make(chan error, 1)})
		}
		return list
	}
	list := group("e1", "bad", "e2")
	s.shards[0].commitAccepts(list)
	accepted := int64(0)
	for _, a := range list {
		err := <-a.done
		_, found := s.Lookup(t.Context(), a.batch.Entries[0].Event.ID)
		if err == nil {
			accepted++
		}
		if kept := found == nil; kept != (err == nil) {
			t.Errorf("event %s: accept says %v, lookup %v", a.batch.Entries[0].Event.ID, err, found)
		}
	}
	if c := countsOf(t, s, "a"); c.Accepted != accepted {
		t.Errorf("counts %+v, want %d accepted", c, accepted)
	}
}

// Fault F22 without a clock to turn: the outbox has seen a time an hour ahead. What is
// accepted afterwards is in order, due now, and retried on time.
func TestClockWentBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	ahead := time.Now().Add(time.Hour).UnixMicro()
	server.MustDo(t, "HSET", s.shards[0].meta, "last", strconv.FormatInt(ahead, 10))
	want := []string{"e1", "e2", "e3"}
	for _, id := range want {
		acceptOne(t, s, id, "a")
	}
	other := openTest(t, at(server.URL()))
	var got []string
	for range want {
		c := claimSome(t, other, "a", 1, time.Minute)[0]
		got = append(got, c.EventID)
		o := retry(c, 300*time.Millisecond)
		if err := other.Settle(t.Context(), c, o); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("claimed %v, want %v", got, want)
	}
	for range want {
		c := claimSome(t, other, "a", 1, time.Minute)[0]
		if early := time.Until(c.Due); early > 0 || c.Attempts != 1 {
			t.Errorf("event %s was claimed %s early, after %d attempts", c.EventID, early, c.Attempts)
		}
		if err := other.Release(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		c = claimSome(t, other, "a", 1, time.Minute)[0]
		deliver(t, other, c)
	}
	if c := countsOf(t, other, "a"); c.Delivered != 3 {
		t.Errorf("counts %+v, want 3 delivered", c)
	}
}

// The window in which ids and keys are known is kept, and then ends.
func TestIdempotencyWindow(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	const window = 2 * time.Second
	s, err := open(t.Context(), at(server.URL()), window)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	keyed := one("keyed", "a")
	keyed.Key, keyed.Fingerprint = "k", [32]byte{1}
	began := time.Now()
	acceptOne(t, s, "chosen", "a")
	if _, err := s.Accept(t.Context(), keyed); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, claimSome(t, s, "a", 2, time.Minute)...)
	await(t, "retention removes them", func() bool {
		_, _, err := s.Reap(t.Context(), outbox.Retention{})
		_, gone := s.Lookup(t.Context(), "keyed")
		return err == nil && errors.Is(gone, outbox.ErrNotFound)
	})
	known := func(b outbox.Batch) bool {
		receipts, err := s.Accept(t.Context(), b)
		return err == nil && receipts[0].Duplicate
	}
	for _, b := range []outbox.Batch{one("chosen", "a"), keyed} {
		if duplicate := known(b); !duplicate && time.Since(began) < window {
			t.Errorf("%s is unknown within the window", b.Entries[0].Event.ID)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	await(t, "the window ends", func() bool { return !known(one("chosen", "a")) || ctx.Err() != nil })
	await(t, "the window ends", func() bool { return !known(keyed) || ctx.Err() != nil })
}
