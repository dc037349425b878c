package sqlite

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// wantFinding finds one with this level and a part of its text, and a remedy unless all is well.
func wantFinding(t *testing.T, all []Finding, level, part string) {
	t.Helper()
	for _, f := range all {
		if f.Level == level && strings.Contains(f.What, part) {
			if (f.Next == "") != (level == levelOK) {
				t.Errorf("%q has the remedy %q", f.What, f.Next)
			}
			return
		}
	}
	t.Errorf("no finding %q with %q in %+v", level, part, all)
}

// TestProbe damages an outbox in each way that Probe knows. It changes none of its files.
func TestProbe(t *testing.T) {
	write := func(name, text string) func(*testing.T, *Options) {
		return func(t *testing.T, o *Options) {
			if err := os.WriteFile(filepath.Join(o.Dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	sql := func(text string) func(*testing.T, *Options) {
		return func(t *testing.T, o *Options) { execute(t, filepath.Join(o.Dir, databaseFile), text) }
	}
	for _, tt := range []struct {
		name        string
		change      func(*testing.T, *Options)
		level, part string
	}{
		{"good", func(*testing.T, *Options) {}, levelOK, "format version"},
		{"room", func(*testing.T, *Options) {}, levelOK, "% of max_size (4.0 GiB) are in use"},
		{"no database", write(databaseFile, strings.Repeat("x", 200)), levelRefuse, "is no database"},
		{"a cut one", write(databaseFile, "SQLite"), levelRefuse, "is no database"},
		{"another program's", sql(`PRAGMA application_id = 7`), levelRefuse, "another program's database (application id 0x7)"},
		{"a newer format", sql(`PRAGMA user_version = 99`), levelRefuse, "format version 99"},
		{"an older format", sql(`PRAGMA user_version = 1`), levelRefuse, "format version 1"},
		{"full", func(_ *testing.T, o *Options) { o.MaxSize = 100 << 10 }, levelRefuse, "events are refused with 507"},
		{"nearly full", func(t *testing.T, o *Options) {
			info, err := os.Stat(filepath.Join(o.Dir, databaseFile))
			if err != nil {
				t.Fatal(err)
			}
			o.MaxSize = info.Size() * 10 / 8
		}, levelWarn, "80 % of max_size"},
		{"no disk", func(_ *testing.T, o *Options) { o.free = func() (int64, error) { return minFree - 1, nil } }, levelRefuse, "64 MiB events are refused"},
		{"little disk", func(_ *testing.T, o *Options) { o.free = func() (int64, error) { return 1 << 30, nil } }, levelWarn, "the disk is full before max_size"},
		{"clock set back", func(_ *testing.T, o *Options) { o.wall = func() time.Time { return time.Now().Add(-time.Hour) } }, levelWarn, "the clock was set back"},
		{"open to all", func(t *testing.T, o *Options) {
			if err := os.Chmod(o.Dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}, levelWarn, "other users can get at events"},
		{"in use", func(t *testing.T, o *Options) { openTest(t, Options{Dir: o.Dir}) }, levelOK, "has the outbox open"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := Options{Dir: t.TempDir()}
			if err := os.Chmod(o.Dir, 0o700); err != nil {
				t.Fatal(err)
			}
			s := openTest(t, o)
			for i := range 20 {
				mustAccept(t, s, sized(fmt.Sprint("evt_", i), 10<<10, "billing"))
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			tt.change(t, &o)
			before := listing(t, o.Dir)
			wantFinding(t, Probe(o), tt.level, tt.part)
			if after := listing(t, o.Dir); after != before {
				t.Errorf("Probe changed files:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

// TestProbeOfNothing: a folder that is not there is judged by the one it will be in.
func TestProbeOfNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there")
	all := Probe(Options{Dir: dir, free: func() (int64, error) { return 1 << 40, nil }})
	wantFinding(t, all, levelOK, "free")
	for _, f := range all {
		if f.Level == levelRefuse {
			t.Errorf("%+v", f)
		}
	}
	if _, err := os.Stat(filepath.Dir(dir)); err == nil {
		t.Error("Probe made a folder")
	}
}

// listing has names, sizes, modes and times of all files.
func listing(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(info.Name() + " " + info.Mode().String() + " " + info.ModTime().String() + "\n")
	}
	return b.String()
}
