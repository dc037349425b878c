package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
)

// A start writes a page or two. On a full disk that is what the ballast is for:
// without it Relay could not start, so could not deliver, so nothing would ever be freed.
func TestOpenOnFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newCrashFS(t)
		dir := t.TempDir()
		o := Options{Dir: dir, VFS: t.Name()}
		s := openTest(t, o)
		mustAccept(t, s, event("evt_0", "a"))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		full := fs.size()
		fs.capacity = func() int64 { // only the ballast's space is left
			if _, err := os.Stat(dir + "/" + ballastFile); err == nil {
				return full
			}
			return full + ballastSize
		}
		s, err := Open(t.Context(), o)
		if err != nil {
			t.Fatalf("open on a full disk with its ballast in place: %v", err)
		}
		defer s.Close()
		mustSettle(t, s, claimOne(t, s, "a"), outbox.Delivered)
	})
}

// Attempts must be recorded when the outbox is full, but what receivers said
// need not be: one that fails with a page of text must not fill the disk.
func TestRecordsStayNearMaxSize(t *testing.T) {
	const limit, n = 16 << 20, 1500
	s := openTest(t, Options{Dir: t.TempDir(), MaxSize: limit, Durability: Relaxed})
	for i := 0; i < n; i += 100 {
		entries := make([]outbox.Entry, 100)
		for j := range entries {
			entries[j] = event(fmt.Sprintf("evt_%d", i+j), "a")
		}
		mustAccept(t, s, entries...)
	}
	body, head := bytes.Repeat([]byte("x"), 16<<10), string(bytes.Repeat([]byte("y"), 8<<10))
	for range n * 2 {
		err := s.Settle(t.Context(), claimOne(t, s, "a"), outbox.Settlement{
			State: outbox.Pending, Due: time.Now(),
			Attempt: outbox.Attempt{Status: 500, Code: "http_500", Body: body, Head: head},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var used int64
	if err := s.do(t.Context(), func() (err error) { used, _, err = s.db.used(); return err }); err != nil {
		t.Fatal(err)
	}
	if used*pageSize > limit*5/4 {
		t.Errorf("the file uses %d MiB, max_size is %d MiB", used*pageSize>>20, limit>>20)
	}
	// What happened is kept all the same.
	c := claimOne(t, s, "a")
	r, err := s.Lookup(t.Context(), c.EventID)
	if err != nil {
		t.Fatal(err)
	}
	if a := r.Deliveries[0].Attempts; len(a) != c.Attempts || a[len(a)-1].Status != 500 || a[len(a)-1].Code != "http_500" {
		t.Errorf("attempts are %+v, want %d with status and code", a, c.Attempts)
	}
}

// When not even settlements have room, nothing is claimed: what was delivered
// could not be recorded, and receivers would get it again with every lease.
func TestNoClaimsWithoutRoomForSettlements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newCrashFS(t)
		s := openTest(t, Options{Dir: t.TempDir(), VFS: t.Name(), ballast: 1})
		const deliveries = 40
		for i := range deliveries {
			mustAccept(t, s, event(fmt.Sprintf("evt_%d", i), "a"))
		}
		synctest.Wait()
		fs.mu.Lock()
		fs.capacity = func() int64 { return 0 }
		fs.mu.Unlock()

		sent := map[string]int{}
		send := func(end time.Time) {
			for {
				ctx, cancel := context.WithDeadline(t.Context(), end)
				claims, err := s.Claim(ctx, outbox.ClaimRequest{Endpoint: "a", Max: 10, Lease: 10 * time.Second})
				cancel()
				if err != nil {
					return
				}
				var wg sync.WaitGroup
				for _, c := range claims {
					sent[c.ID]++
					wg.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
						defer cancel()
						_ = s.Settle(ctx, c, outbox.Settlement{State: outbox.Delivered})
					})
				}
				wg.Wait()
			}
		}
		send(time.Now().Add(5 * time.Minute))
		for id, n := range sent {
			if n > 2 {
				t.Fatalf("delivery %s was sent %d times within 5 minutes", id, n)
			}
		}
		// With room again everything goes on by itself.
		fs.mu.Lock()
		fs.capacity = nil
		fs.mu.Unlock()
		send(time.Now().Add(time.Minute))
		counts, err := s.Counts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if c := counts["a"]; c.Delivered != deliveries || c.Pending != 0 {
			t.Errorf("counts are %+v, want %d delivered", c, deliveries)
		}
	})
}

// A full outbox that knows an event says so again, but writes down no new key.
func TestFullOutboxKeepsNoKeys(t *testing.T) {
	s := openTest(t, Options{Dir: t.TempDir(), MaxSize: 1 << 20, Durability: Relaxed})
	e := event("evt_known", "a")
	e.Fingerprint = outbox.Fingerprint{1}
	mustAccept(t, s, e)
	for n := 0; ; n++ {
		if _, err := s.Accept(t.Context(), batch(event(fmt.Sprintf("evt_%d", n), "a"))); err != nil {
			break
		}
	}
	for n := range 2000 {
		b := outbox.Batch{Entries: []outbox.Entry{e}, Key: fmt.Sprintf("ingest:%0200d", n), Fingerprint: outbox.Fingerprint{2}}
		r, err := s.Accept(t.Context(), b)
		if err != nil || !r[0].Duplicate {
			t.Fatalf("receipts %+v, error %v; want the event to be known", r, err)
		}
	}
	var used int64
	if err := s.do(t.Context(), func() (err error) { used, _, err = s.db.used(); return err }); err != nil {
		t.Fatal(err)
	}
	if used*pageSize > 5<<18 {
		t.Errorf("the full outbox grew to %d KiB of 1024", used*pageSize>>10)
	}
}

// One delivery in memory must not keep the other events of its batch there.
func TestQueuedDeliveryIsAlone(t *testing.T) {
	s := openTest(t, Options{Dir: t.TempDir(), Durability: Relaxed})
	mustAccept(t, s, event("evt_first", "slow"))
	claimOne(t, s, "slow") // the endpoint is active
	before := heapSize()
	for i := range 100 {
		entries := []outbox.Entry{sized(fmt.Sprintf("evt_s%d", i), 10, "slow")}
		for j := range 10 {
			entries = append(entries, sized(fmt.Sprintf("evt_x%d_%d", i, j), 100<<10))
		}
		mustAccept(t, s, entries...)
	}
	if grew := heapSize() - before; grew > 30<<20 {
		t.Errorf("100 deliveries of 10 bytes in memory take %d MiB", grew>>20)
	}
}

func heapSize() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What is leased counts as memory: beyond the bound a claim gets one delivery.
func TestLeasedDeliveriesAreBounded(t *testing.T) {
	s := openTest(t, Options{Dir: t.TempDir(), Durability: Relaxed})
	const size, endpoints = 1 << 20, 60
	names := make([]string, endpoints)
	for i := range names {
		names[i] = fmt.Sprint("e", i)
	}
	for i := range 4 {
		mustAccept(t, s, sized(fmt.Sprintf("evt_%d", i), size, names...))
	}
	var claims []outbox.Claim
	for _, name := range names {
		c, err := s.Claim(t.Context(), outbox.ClaimRequest{Endpoint: name, Max: 4, Lease: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		claims = append(claims, c...)
	}
	most := queueBytes/size + endpoints
	if len(claims) > most || len(claims) < endpoints {
		t.Errorf("%d deliveries of 1 MiB are leased, want %d to %d", len(claims), endpoints, most)
	}
	for _, c := range claims {
		mustSettle(t, s, c, outbox.Delivered)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	queued := int64(0)
	for _, ep := range s.endpoints {
		for _, q := range []queue{ep.ready, ep.lane} {
			for _, e := range q {
				queued += e.weight()
			}
		}
	}
	if s.bytes != queued {
		t.Errorf("%d bytes counted, %d queued and nothing leased", s.bytes, queued)
	}
}

// The backlogs of many endpoints are loaded a few at a time, so that an accept does
// not wait for all of them.
func TestFewRefillsBetweenCommits(t *testing.T) {
	s := openTest(t, Options{Dir: t.TempDir(), Durability: Relaxed})
	defer busy(t, s)()
	s.mu.Lock()
	for i := range 1000 {
		s.ask(s.endpoint(fmt.Sprint("e", i)))
	}
	s.mu.Unlock()
	if g := s.take(); len(g.refills) == 0 || len(g.refills) > groupRefills {
		t.Errorf("%d endpoints are refilled at a time, want a few", len(g.refills))
	}
}

// A settlement that Settle took and the disk did not is reported by Close.
func TestCloseTellsOfLateFailure(t *testing.T) {
	fs := newCrashFS(t)
	s := openTest(t, Options{Dir: t.TempDir(), VFS: t.Name(), ballast: 1})
	mustAccept(t, s, event("evt_0", "a"))
	c := claimOne(t, s, "a")
	release := busy(t, s)
	if err := s.Settle(t.Context(), c, outbox.Settlement{State: outbox.Delivered}); err != nil {
		t.Fatal(err)
	}
	fs.mu.Lock()
	fs.fault = func(string, string) error { return errors.New("EIO") }
	fs.mu.Unlock()
	answer := make(chan error)
	go func() { answer <- s.Close() }()
	<-s.stop // Close has refused all further calls
	release()
	if err := <-answer; err == nil {
		t.Error("close answers nil, but the settlement in line was lost")
	}
}
