package sqlite

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
)

// killed opens what a process has left that was killed now.
func killed(t *testing.T, fs *crashFS, s *Store, o Options) *Store {
	t.Helper()
	left := fs.clone()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fs.files = left.files
	return openTest(t, o)
}

// wantPending counts the rows of pending deliveries, and tells how many events are above the watermark.
func wantPending(t *testing.T, s *Store, rows, above int64) {
	t.Helper()
	err := s.do(t.Context(), func() error {
		got, err := s.db.number(`SELECT count(*) FROM pending`)
		kept, err2 := s.db.number(`SELECT next_event - 1 - watermark FROM meta`)
		if got != rows || s.meta.nextEvent-1-s.meta.watermark != above || above == 0 && kept != 0 {
			t.Errorf("%d deliveries have a row, want %d; %d events are above the watermark, want %d", got, rows, s.meta.nextEvent-1-s.meta.watermark, above)
		}
		return errors.Join(err, err2)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := sound(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// hold keeps an endpoint active.
func hold(t *testing.T, s *Store, endpoint string) outbox.Claim {
	t.Helper()
	mustAccept(t, s, event("evt_held_"+endpoint, endpoint))
	return claimOne(t, s, endpoint)
}

// TestRows follows deliveries: those that are in memory have no row for a second.
func TestRows(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		held := hold(t, s, "a") // nobody worked on it before
		wantPending(t, s, 1, 1)
		mustAccept(t, s, event("evt_0", "a", "paused"), event("evt_1", "a"))
		wantPending(t, s, 2, 3)
		mustSettle(t, s, claimOne(t, s, "a"), outbox.Delivered) // evt_0 at a
		wantPending(t, s, 2, 3)
		mustSettle(t, s, held, outbox.Delivered)
		wantPending(t, s, 1, 3)
		mustSettle(t, s, claimOne(t, s, "a"), outbox.Pending) // evt_1
		wantPending(t, s, 2, 3)

		held = hold(t, s, "b")
		mustAccept(t, s, event("evt_2", "b"))
		time.Sleep(raiseAfter - time.Millisecond)
		wantPending(t, s, 3, 5)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		wantPending(t, s, 4, 0)
		mustSettle(t, s, claimOne(t, s, "b"), outbox.Delivered)
		mustSettle(t, s, held, outbox.Delivered)
		wantPending(t, s, 2, 0)
	})
}

// TestManyRows lets more deliveries grow old than one commit writes: all get their rows, and the
// watermark rises to the end.
func TestManyRows(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		hold(t, s, "a")
		const n = 2*raiseSlice + 100
		for i := range n {
			mustAccept(t, s, event(fmt.Sprint("evt_", i), "a"))
		}
		wantPending(t, s, 1, n+1)
		time.Sleep(raiseAfter)
		synctest.Wait()
		wantPending(t, s, n+1, 0)
		for range n {
			mustSettle(t, s, claimOne(t, s, "a"), outbox.Delivered)
		}
		wantPending(t, s, 1, 0)
		if len(s.loaded) > 1 || len(s.bare) > 0 {
			t.Errorf("%d deliveries count as loaded, %d have no row", len(s.loaded), len(s.bare))
		}
	})
}

// TestKilledWithAllInMemory kills a process when none of what is pending has a row: all of it is found, in
// its order, and nothing of what is over.
func TestKilledWithAllInMemory(t *testing.T) {
	fs := newCrashFS(t)
	o := Options{Dir: t.TempDir(), VFS: t.Name(), ballast: 1, raise: time.Hour}
	s := openTest(t, o)
	held := hold(t, s, "a")
	hold(t, s, "b")
	const n = 20
	for i := range n {
		mustAccept(t, s, event(fmt.Sprintf("evt_%02d", i), "a", "b"))
	}
	for range n / 2 {
		mustSettle(t, s, claimOne(t, s, "a"), outbox.Delivered)
	}
	mustSettle(t, s, held, outbox.Failed)
	wantPending(t, s, 1, n+2)
	for range 2 {
		s = killed(t, fs, s, o)
		wantPending(t, s, n/2+n+1, 0)
		for i, c := range claimMany(t, s, "a", n) {
			if want := fmt.Sprintf("evt_%02d", n/2+i); c.EventID != want || c.Attempts != 0 {
				t.Errorf("claim %d is of %s, want %s", i, c.EventID, want)
			}
		}
	}
}

// TestReapedIsNotFresh removes a delivery at once when it is over, while older ones are in memory
// without a row. Killed then, the outbox must not take it for one of those.
func TestReapedIsNotFresh(t *testing.T) {
	fs := newCrashFS(t)
	o := Options{Dir: t.TempDir(), VFS: t.Name(), ballast: 1}
	s := openTest(t, o)
	hold(t, s, "a")
	hold(t, s, "b")
	mustAccept(t, s, event("evt_0", "a", "b"), event("evt_1", "a"))
	mustSettle(t, s, claimOne(t, s, "b"), outbox.Delivered)
	time.Sleep(time.Millisecond) // by which it is older
	if n, _, err := s.Reap(t.Context(), outbox.Retention{}); n != 1 || err != nil {
		t.Fatalf("Reap: %d, %v", n, err)
	}
	for range 2 {
		if r, err := s.Lookup(t.Context(), "evt_0"); err != nil || len(r.Deliveries) != 1 || r.Deliveries[0].Endpoint != "a" {
			t.Errorf("Lookup: %+v, %v, want one delivery", r, err)
		}
		if err := soundReaped(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		s = killed(t, fs, s, o)
	}
	if claims := claimMany(t, s, "b", 9); len(claims) != 1 || !strings.HasPrefix(claims[0].EventID, "evt_held") {
		t.Errorf("claimed %+v, want only what is not over", claims)
	}
}

// TestRowsOnFullDisk has no room for rows: nothing is given up for them, and they are written when there is
// room.
func TestRowsOnFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newCrashFS(t)
		o := Options{Dir: t.TempDir(), VFS: t.Name()}
		s := openTest(t, o)
		hold(t, s, "a")
		mustAccept(t, s, event("evt_0", "a"))
		synctest.Wait()
		full := func(full bool) {
			fs.mu.Lock()
			defer fs.mu.Unlock()
			fs.fault = func(op, file string) error {
				if full && op == "write" && strings.HasSuffix(file, "-wal") {
					return syscall.ENOSPC
				}
				return nil
			}
		}
		full(true)
		time.Sleep(10 * time.Second)
		wantPending(t, s, 1, 2)
		if _, err := os.Stat(o.Dir + "/" + ballastFile); err != nil {
			t.Errorf("the ballast was given up: %v", err)
		}
		full(false)
		time.Sleep(2 * raiseAfter)
		synctest.Wait()
		wantPending(t, s, 2, 0)
	})
}

// TestFewTakeNotAll gives many slow endpoints more than memory holds of each: there is room left for one
// that comes late, whose deliveries need no row.
func TestFewTakeNotAll(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		for e := range 24 {
			name := fmt.Sprint("slow", e)
			hold(t, s, name)
			for i := range 24 {
				var list []outbox.Entry
				for j := range 100 {
					list = append(list, sized(fmt.Sprintf("evt_%d_%d_%d", e, i, j), 1<<10, name))
				}
				mustAccept(t, s, list...)
			}
		}
		if held, bytes := held(s); bytes > queueBytes*3/4 || bytes < queueBytes/2 {
			t.Errorf("%d deliveries of %d bytes are in memory", held, bytes)
		}
		hold(t, s, "late")
		mustAccept(t, s, event("evt_late", "late"))
		if c := claimOne(t, s, "late"); c.EventID != "evt_late" || s.leases[c.Fence].row {
			t.Errorf("claimed %s, with a row: %v", c.EventID, s.leases[c.Fence].row)
		}
	})
}

// TestOldest finds the oldest pending delivery among fresh ones and retries, with a row and without.
func TestOldest(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		began := time.Now()
		want := func(after time.Duration) {
			t.Helper()
			counts, err := s.Counts(t.Context())
			if err != nil || !counts["a"].Oldest.Equal(began.Add(after)) {
				t.Errorf("Counts: %+v, %v, want the oldest made after %v", counts["a"], err, after)
			}
		}
		claims := []outbox.Claim{hold(t, s, "a")}
		for i := range 3 { // each has a row when the next one comes
			time.Sleep(time.Minute)
			mustAccept(t, s, event(fmt.Sprint("evt_", i), "a"))
			claims = append(claims, claimOne(t, s, "a"))
		}
		want(0)
		mustSettle(t, s, claims[0], outbox.Delivered)
		want(time.Minute)
		retryIn(t, s, claims[1], 10*time.Minute)
		synctest.Wait()
		want(time.Minute)
		mustSettle(t, s, claims[2], outbox.Delivered)
		want(time.Minute)
		time.Sleep(10 * time.Minute) // and is due before the third
		mustSettle(t, s, claimOne(t, s, "a"), outbox.Delivered)
		want(3 * time.Minute)
		mustSettle(t, s, claims[3], outbox.Pending)
		mustAccept(t, s, event("evt_3", "a"))
		want(3 * time.Minute)

		s = openTest(t, Options{Dir: t.TempDir()}) // where only one without a row is pending
		held := hold(t, s, "a")
		time.Sleep(time.Minute)
		mustAccept(t, s, event("evt_0", "a"))
		mustSettle(t, s, held, outbox.Delivered)
		wantPending(t, s, 0, 1)
		began = time.Now()
		want(0)
	})
}
