package sqlite

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ncruces/go-sqlite3"
	"github.com/rs/zerolog"

	"relay/internal/testkit"
	"relay/outbox"
)

// TestRefuse opens files that cannot be trusted, or are another's: Open says why and
// changes nothing (promise P14, bad input B39).
func TestRefuse(t *testing.T) {
	flip := func(offset int) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			edit(t, path, func(data []byte) []byte {
				data[offset] ^= 0x40
				return data
			})
		}
	}
	for _, test := range []struct {
		name    string
		spoil   func(t *testing.T, path string)
		corrupt bool
		say     string
	}{
		{"newer version", func(t *testing.T, path string) { execute(t, path, `PRAGMA user_version = 7`) }, false, "format version 7, this Relay knows version 5"},
		{"older version", func(t *testing.T, path string) { execute(t, path, `PRAGMA user_version = 3`) }, false, "drain it with that build, or move it away"},
		{"another program's", func(t *testing.T, path string) { execute(t, path, `PRAGMA application_id = 99`) }, false, "no outbox of Relay"},
		{"another program's, unmarked", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			execute(t, path, `CREATE TABLE bookmark (url TEXT)`)
		}, false, "no outbox of Relay"},
		{"garbage", func(t *testing.T, path string) {
			edit(t, path, func([]byte) []byte { return []byte(strings.Repeat("not a database ", 1000)) })
		}, true, "relay.db"},
		{"truncated", func(t *testing.T, path string) {
			edit(t, path, func(data []byte) []byte { return data[:len(data)/2/pageSize*pageSize] })
		}, true, "relay.db"},
		{"cut in the first page", func(t *testing.T, path string) { edit(t, path, func(data []byte) []byte { return data[:1000] }) }, true, "relay.db"},
		{"bit flip in the magic", flip(3), true, "relay.db"},
		{"bit flip in the page size", flip(16), true, "relay.db"},
		{"bit flip in the change counter", flip(27), true, "relay.db"},
		{"bit flip in the version", flip(63), true, "relay.db"},
		{"bit flip in the schema", flip(3000), true, "relay.db"},
		{"bit flip in the page of the endpoints", flip(4*pageSize + 4000), true, "relay.db"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openTest(t, Options{Dir: dir})
			mustAccept(t, s, event("evt_0", "a"))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			test.spoil(t, filepath.Join(dir, "relay.db"))
			before := contents(t, dir)

			s, err := Open(t.Context(), Options{Dir: dir})
			if err == nil {
				s.Close()
				t.Fatal("Open took it")
			}
			if errors.Is(err, outbox.ErrCorrupt) != test.corrupt || !strings.Contains(err.Error(), test.say) {
				t.Errorf("Open: %v, want it to say %q", err, test.say)
			}
			if test.corrupt && !strings.Contains(err.Error(), "restore") {
				t.Errorf("Open: %v, want a remedy", err)
			}
			if diff := cmp.Diff(before, contents(t, dir)); diff != "" {
				t.Errorf("files changed (-before +after):\n%.1000s", diff)
			}
		})
	}
}

// TestFlippedBit flips a bit of an event at rest: it is found when the event is
// read, and nothing else suffers (fault F11).
func TestFlippedBit(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, Options{Dir: dir})
	mustAccept(t, s, sized("evt_good", 9000, "a"), sized("evt_bad", 9000, "a"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, filepath.Join(dir, "relay.db"), func(data []byte) []byte {
		at := bytes.LastIndex(data, make([]byte, 4000)) // the last page of the last event
		data[at+2000] ^= 1
		return data
	})
	s = openTest(t, Options{Dir: dir})
	good, errGood := s.Lookup(t.Context(), "evt_good")
	bad, errBad := s.Lookup(t.Context(), "evt_bad")
	if errGood != nil || len(good.Event.Data) != 9000 || !errors.Is(errBad, outbox.ErrCorrupt) {
		t.Errorf("Lookup: %v and %v (%v), want the first and ErrCorrupt", errGood, errBad, bad != nil)
	}
	if err := s.Health(t.Context()); err != nil {
		t.Errorf("Health: %v", err)
	}
}

// TestModes checks that nobody else can read an outbox, whatever the umask (S18).
func TestModes(t *testing.T) {
	for _, umask := range []int{0, 0o027, 0o277} {
		dir := filepath.Join(t.TempDir(), "outbox")
		old := syscall.Umask(umask)
		s, err := Open(t.Context(), Options{Dir: dir})
		if err == nil {
			mustAccept(t, s, event("evt_0", "a"))
		}
		syscall.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]fs.FileMode{}
		err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err == nil {
				got[d.Name()] = info.Mode().Perm()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]fs.FileMode{"outbox": 0o700, "relay.db": 0o600, "relay.db-wal": 0o600, "relay.lock": 0o600, "relay.ballast": 0o600}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("umask %#o: modes (-want +got):\n%s", umask, diff)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWarnings warns of a directory that others can look into.
func TestWarnings(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	var log testkit.Log
	openTest(t, Options{Dir: dir, Log: zerolog.New(&log)})
	if !strings.Contains(log.String(), "mode 0750") {
		t.Errorf("log: %s", &log)
	}
}

// TestPlantedLink refuses a file that leads out of the directory.
func TestPlantedLink(t *testing.T) {
	for _, name := range []string{databaseFile, lockFile} {
		dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
		if err := errors.Join(os.WriteFile(victim, []byte("precious"), 0o644), os.Symlink(victim, filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(t.Context(), Options{Dir: dir}); err == nil {
			s.Close()
			t.Errorf("Open followed a link for %s", name)
		}
		if data, err := os.ReadFile(victim); err != nil || string(data) != "precious" {
			t.Errorf("the file behind the link of %s has changed: %q, %v", name, data, err)
		}
	}
}

// TestOptions are those that Open refuses.
func TestOptions(t *testing.T) {
	for _, o := range []Options{{}, {Dir: t.TempDir(), Durability: "perhaps"}, {Dir: filepath.Join(os.DevNull, "outbox")}} {
		if s, err := Open(t.Context(), o); err == nil {
			s.Close()
			t.Errorf("Open(%+v) succeeded", o)
		}
	}
}

// execute runs statements on a database as another program would.
func execute(t *testing.T, path, sql string) {
	t.Helper()
	c, err := sqlite3.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Exec(sql), c.Close()); err != nil {
		t.Fatal(err)
	}
}

func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, change(data), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// contents is what files of the database there are, and what is in them.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	paths, err := filepath.Glob(filepath.Join(dir, "relay.db*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > 0 { // an empty log says nothing
			all[filepath.Base(path)] = string(data)
		}
	}
	return all
}
