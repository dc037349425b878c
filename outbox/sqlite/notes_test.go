package sqlite

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"

	"relay/outbox"
)

func setNote(t testing.TB, s *Store, endpoint string, on uint64, text string) outbox.Note {
	t.Helper()
	n, err := s.SetNote(t.Context(), outbox.Note{Endpoint: endpoint, Revision: on, Text: []byte(text)})
	if err != nil {
		t.Fatalf("SetNote: %v", err)
	}
	return n
}

// A full disk takes notes at the expense of the ballast, as it takes settlements. When
// even that is gone, a note is refused and all else goes on.
func TestNotesOnFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newCrashFS(t)
		dir := t.TempDir()
		s := openTest(t, Options{Dir: dir, VFS: t.Name()})
		mustAccept(t, s, event("evt_0", "a"))
		synctest.Wait()
		size := fs.size()
		limit := func(capacity func() int64) {
			fs.mu.Lock()
			defer fs.mu.Unlock()
			fs.capacity = capacity
		}
		limit(func() int64 { // only the ballast's space is left
			if _, err := os.Stat(dir + "/" + ballastFile); err == nil {
				return size
			}
			return size + ballastSize
		})
		first := setNote(t, s, "a", 0, "paused")
		if s.disk.hasBallast {
			t.Error("the disk was not full")
		}

		// The log starts again, with room for less than this.
		limit(nil)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openTest(t, Options{Dir: dir, VFS: t.Name()})
		limit(func() int64 { return 0 })
		long := outbox.Note{Endpoint: "b", Text: make([]byte, outbox.MaxNote)}
		if n, err := s.SetNote(t.Context(), long); !errors.Is(err, outbox.ErrUnavailable) || n.Revision != 0 {
			t.Errorf("SetNote without any room: %+v, %v, want ErrUnavailable", n, err)
		}
		wantNotes(t, s, first)
		claimOne(t, s, "a")
		limit(nil)
		long, err := s.SetNote(t.Context(), long)
		if err != nil {
			t.Fatalf("SetNote with room again: %v", err)
		}
		wantNotes(t, s, first, long)
	})
}

// A write that fails leaves unknown what is on the disk: the store breaks, and tells
// those who wait for notes.
func TestNoteBreaksStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newCrashFS(t)
		s := openTest(t, Options{Dir: t.TempDir(), VFS: t.Name()})
		first := setNote(t, s, "a", 0, "paused")
		answer := make(chan error)
		go func() { answer <- s.AwaitNotes(t.Context(), first.Revision) }()
		synctest.Wait()
		fs.mu.Lock()
		fs.fault = func(string, string) error { return errDead }
		fs.mu.Unlock()
		if n, err := s.SetNote(t.Context(), first); !errors.Is(err, outbox.ErrUnavailable) || n.Revision != 0 {
			t.Errorf("SetNote: %+v, %v, want ErrUnavailable", n, err)
		}
		if err := <-answer; !errors.Is(err, outbox.ErrUnavailable) {
			t.Errorf("AwaitNotes: %v, want ErrUnavailable", err)
		}
		<-s.Broken()
	})
}
