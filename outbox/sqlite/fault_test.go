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

// TestSyncs counts what a commit costs: one write, and one sync for what is accepted at level
// fsync, none for settlements.
func TestSyncs(t *testing.T) {
	for _, test := range []struct {
		durability           string
		perAccept, perSettle int
	}{
		{Fsync, 1, 0},
		{Relaxed, 0, 0},
	} {
		t.Run(test.durability, func(t *testing.T) {
			fs := newCrashFS(t)
			s := openTest(t, Options{Dir: t.TempDir(), VFS: t.Name(), Durability: test.durability, raise: time.Hour})
			mustAccept(t, s, event("evt_0", "a"))
			for i := range 3 {
				before, writes := fs.syncs, fs.writes
				mustAccept(t, s, event(fmt.Sprintf("evt_1%d", i), "a"))
				if got, written := fs.syncs-before, fs.writes-writes; got != test.perAccept || written != 1 {
					t.Errorf("an accept took %d writes and %d syncs, want 1 and %d", written, got, test.perAccept)
				}
				before, writes = fs.syncs, fs.writes
				mustSettle(t, s, claimOne(t, s, "a"), outbox.Delivered)
				if got, written := fs.syncs-before, fs.writes-writes; got != test.perSettle || written != 1 {
					t.Errorf("a settlement took %d writes and %d syncs, want 1 and %d", written, got, test.perSettle)
				}
			}
		})
	}
}

// TestBrokenDisk lets each write and each sync of a commit fail in turn. The store
// must break at once (fault F7), try nothing again, and leave nothing of the batch and all
// of what came before (promise P2).
func TestBrokenDisk(t *testing.T) {
	for at, survived := 1, false; !survived; at++ {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			fs := newCrashFS(t)
			o := Options{Dir: t.TempDir(), VFS: t.Name(), ballast: 1}
			s := openTest(t, o)
			mustAccept(t, s, event("evt_before", "a"))
			claim := claimOne(t, s, "a")

			n, after := 0, 0
			fs.fault = func(string, string) error {
				if n++; n == at {
					return syscall.EIO
				}
				if n > at {
					after++
				}
				return nil
			}
			_, err := s.Accept(t.Context(), batch(event("evt_lost", "a", "b"), event("evt_lost2", "b")))
			if n < at {
				survived = true
				return
			}
			if !errors.Is(err, outbox.ErrUnavailable) || !errors.Is(err, syscall.EIO) {
				t.Fatalf("Accept: %v, want ErrUnavailable for EIO", err)
			}
			select {
			case <-s.Broken():
			default:
				t.Error("the store is not broken")
			}
			_, errAccept := s.Accept(t.Context(), batch(event("evt_late", "a")))
			_, errClaim := s.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: time.Minute})
			errSettle := s.Settle(t.Context(), claim, outbox.Settlement{State: outbox.Delivered})
			_, errLookup := s.Lookup(t.Context(), "evt_before")
			for name, err := range map[string]error{"Accept": errAccept, "Claim": errClaim, "Settle": errSettle, "Lookup": errLookup, "Health": s.Health(t.Context())} {
				if !errors.Is(err, outbox.ErrUnavailable) {
					t.Errorf("%s of a broken store: %v, want ErrUnavailable", name, err)
				}
			}
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if after > 0 {
				t.Errorf("%d operations after the failed one", after)
			}

			fs.fault = nil
			s = openTest(t, o)
			if _, err := s.Lookup(t.Context(), "evt_before"); err != nil {
				t.Errorf("Lookup of what was acknowledged: %v", err)
			}
			// Where only the sync failed, the batch may be there: whole.
			_, err = s.Lookup(t.Context(), "evt_lost")
			_, err2 := s.Lookup(t.Context(), "evt_lost2")
			if errors.Is(err, outbox.ErrNotFound) != errors.Is(err2, outbox.ErrNotFound) {
				t.Errorf("half a batch is there: %v, %v", err, err2)
			}
			if err := sound(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFlippedLog flips a bit in the log of an outbox that was not closed (fault F11):
// what lies before is there, the rest is cut off.
func TestFlippedLog(t *testing.T) {
	fs := newCrashFS(t)
	o := Options{Dir: t.TempDir(), VFS: t.Name(), ballast: 1}
	s := openTest(t, o)
	var ends []int // of the log after each event
	for i := range 3 {
		mustAccept(t, s, event(fmt.Sprintf("evt_%d", i), "a"))
		ends = append(ends, len(fs.files[s.db.path+"-wal"].seen))
	}
	left := fs.clone()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for kept := range 3 {
		fs.files = left.clone().files
		from := append([]int{0}, ends...)[kept] + 100 // past a header
		fs.files[s.db.path+"-wal"].seen[from] ^= 1
		s := openTest(t, o)
		for i := range 3 {
			if _, err := s.Lookup(t.Context(), fmt.Sprintf("evt_%d", i)); errors.Is(err, outbox.ErrNotFound) == (i < kept) {
				t.Errorf("with a flipped bit in commit %d: Lookup of event %d: %v", kept, i, err)
			}
		}
		if err := sound(t.Context(), s); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDiskFull fills the disk to the last byte (fault F8): accepts are refused, what was
// accepted can be delivered, and when retention has freed space accepts work again by
// themselves.
func TestDiskFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const disk, ballast = 40 << 20, ballastSize
		fs := newCrashFS(t)
		dir := t.TempDir()
		fs.capacity = func() int64 {
			if _, err := os.Stat(dir + "/relay.ballast"); err == nil {
				return disk - ballast
			}
			return disk
		}
		s := openTest(t, Options{Dir: dir, VFS: t.Name(), free: func() (int64, error) {
			// So that only the write finds out; for a new ballast it must be right.
			if fs.size() > disk/2 {
				return minFree, nil
			}
			return 1 << 40, nil
		}})

		n := 0
		var err error
		for ; err == nil; n++ {
			_, err = s.Accept(t.Context(), batch(sized(fmt.Sprintf("evt_%d", n), 64<<10, "a")))
		}
		if n--; !errors.Is(err, outbox.ErrFull) || n < 200 {
			t.Fatalf("Accept: %v after %d events", err, n)
		}
		if err := s.Health(t.Context()); !errors.Is(err, outbox.ErrFull) {
			t.Errorf("Health: %v, want ErrFull", err)
		}
		for range n {
			mustSettle(t, s, claimOne(t, s, "a"), outbox.Delivered)
		}
		time.Sleep(time.Second)
		removed := 0
		for more := true; more; {
			var slice int
			if slice, more, err = s.Reap(t.Context(), outbox.Retention{}); err != nil {
				t.Fatal(err)
			}
			removed += slice
		}
		if removed != n {
			t.Errorf("reaped %d deliveries of %d", removed, n)
		}
		time.Sleep(5 * time.Second)
		mustAccept(t, s, event("evt_again", "a"))
		if err := s.Health(t.Context()); err != nil {
			t.Errorf("Health: %v", err)
		}
		if _, err := os.Stat(dir + "/relay.ballast"); err != nil {
			t.Errorf("no new ballast: %v", err)
		}
	})
}

// TestFullAtSync has the fsync find out that the disk is full: what it was to make
// safe may be gone, so the store breaks.
func TestFullAtSync(t *testing.T) {
	fs := newCrashFS(t)
	s := openTest(t, Options{Dir: t.TempDir(), VFS: t.Name(), ballast: 1})
	mustAccept(t, s, event("evt_0", "a"))
	fs.fault = func(op, _ string) error {
		if op == "sync" {
			return syscall.ENOSPC
		}
		return nil
	}
	if _, err := s.Accept(t.Context(), batch(event("evt_1", "a"))); !errors.Is(err, outbox.ErrUnavailable) || errors.Is(err, outbox.ErrFull) {
		t.Errorf("Accept: %v, want ErrUnavailable", err)
	}
	select {
	case <-s.Broken():
	default:
		t.Error("the store is not broken")
	}
}

// TestDiskFullForAll takes even the ballast's space: settlements stay in line, and
// are written when there is space.
func TestDiskFullForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newCrashFS(t)
		s := openTest(t, Options{Dir: t.TempDir(), VFS: t.Name(), ballast: 1})
		mustAccept(t, s, event("evt_0", "a"))
		claim := claimOne(t, s, "a")
		synctest.Wait()
		fs.mu.Lock()
		fs.fault = func(op, _ string) error {
			if op == "write" {
				return syscall.ENOSPC
			}
			return nil
		}
		fs.mu.Unlock()
		if err := s.Settle(t.Context(), claim, outbox.Settlement{State: outbox.Delivered}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if r, err := s.Lookup(t.Context(), "evt_0"); err != nil || r.Deliveries[0].State != outbox.Pending {
			t.Errorf("Lookup on a full disk: %+v, %v", r, err)
		}
		fs.mu.Lock()
		fs.fault = nil
		fs.mu.Unlock()
		time.Sleep(10 * time.Second)
		if r, err := s.Lookup(t.Context(), "evt_0"); err != nil || r.Deliveries[0].State != outbox.Delivered {
			t.Errorf("Lookup: %+v, %v, want it delivered", r, err)
		}
	})
}

// TestLowDisk refuses accepts while the file system is nearly full.
func TestLowDisk(t *testing.T) {
	free := int64(minFree - 1)
	s := openTest(t, Options{Dir: t.TempDir(), free: func() (int64, error) { return free, nil }, ballast: 1 << 10})
	_, err := s.Accept(t.Context(), batch(event("evt_0", "a")))
	if !errors.Is(err, outbox.ErrFull) || !strings.Contains(err.Error(), "its disk has only 63 MiB left, and 64 MiB must stay free: free space on the disk") {
		t.Errorf("Accept: %v", err)
	}
	free = 1 << 40
	mustAccept(t, s, event("evt_0", "a"))
}

// TestShrink gives space back to the file system after a backlog has gone.
func TestShrink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, Options{Dir: t.TempDir()})
		const n = 16
		for i := range n {
			mustAccept(t, s, sized(fmt.Sprintf("evt_%d", i), 1<<20, "a"))
		}
		for range n {
			mustSettle(t, s, claimOne(t, s, "a"), outbox.Delivered)
		}
		size := func() int64 {
			time.Sleep(2 * calm) // for a checkpoint
			info, err := s.disk.root.Stat(databaseFile)
			if err != nil {
				t.Fatal(err)
			}
			return info.Size()
		}
		full := size()
		for more := true; more; {
			var err error
			if _, more, err = s.Reap(t.Context(), outbox.Retention{}); err != nil {
				t.Fatal(err)
			}
		}
		if now := size(); full < n<<20 || now > walLong*pageSize*5/4 {
			t.Errorf("the file had %d bytes, has %d after reap", full, now)
		}
	})
}
