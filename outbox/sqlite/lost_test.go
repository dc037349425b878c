package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"relay/outbox"
)

// TestLost: a folder that was moved, emptied or replaced is reported, and is found again when
// it is back; the outbox works on meanwhile.
func TestLost(t *testing.T) {
	for _, c := range []struct {
		name string
		harm func(dir string) error
		say  string
		mend func(dir string) error // nil where nothing does
	}{
		{"untouched", func(string) error { return nil }, "", nil},
		{"folder moved", func(dir string) error { return os.Rename(dir, dir+".moved") }, "is gone: put it back where it was", func(dir string) error { return os.Rename(dir+".moved", dir) }},
		{"folder removed", os.RemoveAll, "is gone: put it back where it was", nil},
		{"another folder", func(dir string) error {
			if err := os.Rename(dir, dir+".moved"); err != nil {
				return err
			}
			return errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, databaseFile), nil, 0o600))
		}, "holds the relay.db of another outbox", func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Rename(dir+".moved", dir)) }},
		{"empty folder", func(dir string) error { return errors.Join(os.Rename(dir, dir+".moved"), os.Mkdir(dir, 0o700)) },
			"relay.db is gone from the outbox folder", func(dir string) error { return errors.Join(os.Remove(dir), os.Rename(dir+".moved", dir)) }},
		{"log removed", func(dir string) error { return os.Remove(filepath.Join(dir, logFile)) }, "restart Relay with SIGTERM", nil},
		{"lock removed", func(dir string) error { return os.Remove(filepath.Join(dir, lockFile)) }, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "outbox")
			s, err := Open(t.Context(), Options{Dir: dir, Log: zerolog.Nop()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() }) // of some a folder is missing
			if err := s.Lost(); err != nil {
				t.Fatalf("before: %v", err)
			}
			if err := c.harm(dir); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				err := s.Lost()
				if (err == nil) != (c.say == "") || err != nil && (!strings.Contains(err.Error(), c.say) || !strings.Contains(err.Error(), dir)) {
					t.Fatalf("lost: %v, want %q", err, c.say)
				}
			}
			// A removed file ends with the process. A moved one may be put back.
			_, err = s.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{Event: outbox.Event{ID: "evt_1", Type: "a", Data: []byte("{}")}, Endpoints: []string{"a"}}}})
			if removed := c.name == "folder removed" || c.name == "log removed"; removed != errors.Is(err, outbox.ErrUnavailable) || err != nil && !strings.Contains(err.Error(), "was removed from the outbox folder "+dir) {
				t.Errorf("accept: %v", err)
			}
			if c.say == "" { // it is this process's alone still
				if _, err := Open(t.Context(), Options{Dir: dir, Log: zerolog.Nop()}); !errors.Is(err, outbox.ErrLocked) {
					t.Errorf("another one opened it: %v", err)
				}
			}
			if c.mend == nil {
				return
			}
			if err := c.mend(dir); err != nil {
				t.Fatal(err)
			}
			if err := s.Lost(); err != nil {
				t.Errorf("put back: %v", err)
			}
		})
	}
}

// TestLogSaved: what the log held when it was removed is saved by a stop.
func TestLogSaved(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), Options{Dir: dir, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	b := outbox.Batch{Entries: []outbox.Entry{{Event: outbox.Event{ID: "evt_1", Type: "a", Data: []byte("{}")}, Endpoints: []string{"a"}}}}
	if _, err := s.Accept(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, logFile)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = Open(t.Context(), Options{Dir: dir, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lookup(t.Context(), "evt_1"); err != nil {
		t.Errorf("the event is lost: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
