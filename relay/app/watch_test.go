package app

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"relay/internal/testkit"
)

// Files are read again when they were left alone for 250 ms, once, and only they count.
func TestWatchWaitsForQuiet(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "relay.hcl")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var checks []time.Duration
		start := time.Now()
		w := watch{
			log:   zerolog.Nop(),
			files: func() []string { return []string{file} },
			check: func() { checks = append(checks, time.Since(start)) },
		}
		events, failures := make(chan fsnotify.Event), make(chan error)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			w.run(ctx, events, failures)
			close(ended)
		}()
		touch := func(name string, op fsnotify.Op) { events <- fsnotify.Event{Name: name, Op: op} }
		time.Sleep(time.Second)
		for range 10 { // an editor at work
			touch(file, fsnotify.Write)
			time.Sleep(200 * time.Millisecond)
		}
		time.Sleep(time.Second)                                    // 4 s
		touch(filepath.Join(dir, "relay.hcl.swp"), fsnotify.Write) // no file of ours
		time.Sleep(time.Second)                                    // 5 s
		touch(filepath.Join(dir, "more.hcl"), fsnotify.Create)
		time.Sleep(time.Second) // 6 s
		touch(dir, fsnotify.Remove)
		time.Sleep(time.Second) // 7 s
		failures <- fsnotify.ErrEventOverflow
		time.Sleep(time.Second)      // 8 s
		time.Sleep(10 * time.Minute) // nothing changes: nothing is read
		close(events)
		close(failures)
		time.Sleep(time.Minute)
		stop()
		<-ended
		ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
		// 250: what changed since the start; 3050: 250 after the last of the ten.
		want := []time.Duration{ms(250), ms(3050), ms(5250), ms(6250), ms(7250)}
		if diff := cmp.Diff(want, checks); diff != "" {
			t.Errorf("files were read at (-want +got):\n%s", diff)
		}
	})
}

// Where the system tells of nothing, a look at the files every 30 s does.
func TestWatchWithoutEvents(t *testing.T) {
	file := filepath.Join(t.TempDir(), "relay.hcl")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("x")
	synctest.Test(t, func(t *testing.T) {
		var checks atomic.Int64
		warned := &testkit.Log{}
		w := watch{
			log:    zerolog.New(warned),
			files:  func() []string { return []string{file} },
			check:  func() { checks.Add(1) },
			add:    func(string) error { return errors.New("no space left on device") },
			remove: func(string) error { return nil },
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			w.run(ctx, nil, nil)
			close(ended)
		}()
		time.Sleep(2*pollEvery + time.Second)
		synctest.Wait()
		if n := checks.Load(); n != 1 {
			t.Errorf("read %d times before the change", n)
		}
		write("longer")
		time.Sleep(pollEvery + settleTime)
		synctest.Wait()
		if n := checks.Load(); n != 2 {
			t.Errorf("read %d times, want once more after the change", n)
		}
		stop()
		<-ended
		if n := strings.Count(warned.String(), "no space left on device"); n != 1 {
			t.Errorf("warned %d times: %s", n, warned)
		}
	})
}

// Names, links and folders that lead to the files, however many links there are.
func TestTrail(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	// As Kubernetes mounts a ConfigMap.
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "mnt", "..1"), 0o700),
		os.WriteFile(filepath.Join(dir, "mnt", "..1", "relay.hcl"), nil, 0o600),
		os.Symlink("..1", filepath.Join(dir, "mnt", "..data")),
		os.Symlink(filepath.Join("..data", "relay.hcl"), filepath.Join(dir, "mnt", "relay.hcl")),
		os.Symlink("mnt", filepath.Join(dir, "etc")),
		os.Symlink("loop", filepath.Join(dir, "loop")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	tr := newTrail([]string{filepath.Join(dir, "etc", "relay.hcl"), filepath.Join(dir, "loop"), filepath.Join(dir, "none", "such", "secret")})
	under := func(set map[string]bool) (out []string) {
		for _, path := range slices.Sorted(maps.Keys(set)) {
			if rel, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(rel) {
				out = append(out, rel)
			}
		}
		return out
	}
	names := []string{"etc", "loop", "mnt/..1/relay.hcl", "mnt/..data", "mnt/relay.hcl", "none"}
	if diff := cmp.Diff(names, under(tr.names)); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{".", "mnt", "mnt/..1"}, under(tr.folders)); diff != "" {
		t.Errorf("folders (-want +got):\n%s", diff)
	}
}

// Fault F37, on real files: every way that a file is replaced by.
func TestWatchedFiles(t *testing.T) {
	first, next := endpointBlock("a", "https://a.example.com/1"), endpointBlock("a", "https://a.example.com/2")
	renamed := func(p *place, text string) {
		p.write(p.file+".new", text)
		if err := os.Rename(p.file+".new", p.file); err != nil {
			p.t.Fatal(err)
		}
	}
	refused := func(p *place, n int) {
		p.t.Helper()
		testkit.Until(p.t, "a refused reload", func() bool { return strings.Count(p.log.String(), "reload refused") == n })
	}
	for _, c := range []struct {
		name   string
		change func(*place)
	}{
		{"written", func(p *place) { p.write(p.file, p.text(next)) }},
		{"renamed over", func(p *place) { renamed(p, p.text(next)) }},
		{"half-written", func(p *place) {
			text := p.text(next)
			p.write(p.file, text[:len(text)-5])
			refused(p, 1)
			p.write(p.file, text)
		}},
		{"emptied", func(p *place) {
			p.write(p.file, "")
			refused(p, 1)
			renamed(p, p.text(next))
		}},
		{"removed", func(p *place) {
			if err := os.Remove(p.file); err != nil {
				p.t.Fatal(err)
			}
			refused(p, 1)
			p.write(p.file, p.text(next))
		}},
		{"removed with its folder", func(p *place) {
			aside := p.dir + ".aside"
			if err := os.Rename(p.dir, aside); err != nil {
				p.t.Fatal(err)
			}
			refused(p, 1)
			p.write(filepath.Join(aside, "relay.hcl"), p.text(next))
			if err := os.Rename(aside, p.dir); err != nil {
				p.t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			p.dir = filepath.Join(p.dir, "etc") // sockets and outbox stay beside it
			p.file = filepath.Join(p.dir, "relay.hcl")
			if err := os.Mkdir(p.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			p.write(p.file, p.text(first))
			a := p.start(true)
			before := a.live.Load()
			c.change(p)
			testkit.Until(t, "the new file", func() bool { return a.live.Load() != before })
			now := a.live.Load()
			if now.generation != 2 || now.policy.Endpoint("a").URL.Path != "/2" || a.refused.Load() != nil {
				t.Errorf("live is generation %d, refused: %v", now.generation, a.refused.Load())
			}
			if n := strings.Count(p.log.String(), "reload refused"); n > 1 {
				t.Errorf("refused %d times:\n%s", n, p.log.String())
			}
		})
	}
}

// Kubernetes replaces a ConfigMap or Secret by moving the link ..data; nothing
// happens to the names in the folder themselves.
func TestWatchedConfigMap(t *testing.T) {
	p := newPlace(t)
	mount := filepath.Join(p.dir, "mount")
	version := func(name, text, key string) {
		t.Helper()
		folder := filepath.Join(mount, name)
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		p.write(filepath.Join(folder, "relay.hcl"), text)
		p.write(filepath.Join(folder, "key"), key)
		if err := os.Symlink(name, filepath.Join(mount, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(mount, "..data_tmp"), filepath.Join(mount, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	const other = "whsec_b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXI="
	text := p.text("endpoint \"a\" {\n url = \"https://a.example.com\"\n secrets = [file(\"key\")]\n}")
	version("..1", text, secret)
	for _, name := range []string{"relay.hcl", "key"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(mount, name)); err != nil {
			t.Fatal(err)
		}
	}
	p.file = filepath.Join(mount, "relay.hcl")
	a := p.start(true)
	reached := func(generation int64) {
		t.Helper()
		testkit.Until(t, "a reload", func() bool { return a.live.Load().generation >= generation })
		if g := a.live.Load().generation; g != generation {
			t.Errorf("generation %d, want %d", g, generation)
		}
	}
	hash := a.live.Load().hash
	version("..2", text, other) // only the secret is new
	reached(2)
	if now := a.live.Load(); now.hash != hash {
		t.Error("the hash tells of a secret")
	}
	if err := os.RemoveAll(filepath.Join(mount, "..1")); err != nil {
		t.Fatal(err)
	}
	version("..3", strings.Replace(text, "a.example.com", "b.example.com", 1), other)
	reached(3)
	if host := a.live.Load().policy.Endpoint("a").URL.Host; host != "b.example.com" {
		t.Errorf("endpoint is at %s", host)
	}
	// A reload is live before the log tells of it.
	testkit.Until(t, "two reloads in the log", func() bool { return strings.Count(p.log.String(), `"message":"reloaded: changed a"`) == 2 })
}

// A secret in a file of its own is watched, too, also when it is yet to come.
func TestWatchedSecret(t *testing.T) {
	p := newPlace(t)
	block := func(key string) string {
		return p.text("endpoint \"a\" {\n url = \"https://a.example.com\"\n secrets = [file(\"" + key + "\")]\n}")
	}
	p.write(filepath.Join(p.dir, "old.key"), secret)
	p.write(p.file, block("old.key"))
	a := p.start(true)
	if err := os.Mkdir(filepath.Join(p.dir, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.write(p.file, block("keys/new.key"))
	testkit.Until(t, "the missing secret to be told", func() bool { return a.refused.Load() != nil })
	p.write(filepath.Join(p.dir, "keys", "new.key"), secret)
	testkit.Until(t, "the secret", func() bool { return a.live.Load().generation == 2 })
	if strings.Contains(p.log.String(), secret) {
		t.Error("the secret is in the log")
	}
}

// Files that are touched and stay the same are no reload; nor is what SIGHUP was
// faster with.
func TestSameFilesAreNoReload(t *testing.T) {
	p := newPlace(t)
	text := p.text(endpointBlock("a", "https://a.example.com"))
	p.write(p.file, text)
	a := p.start(false)
	a.noteFiles(nil, nil)
	if _, err := a.reload(t.Context(), "watch", true); err != nil {
		t.Fatalf("files that were not seen: %v", err)
	}
	p.write(p.file, text)
	if _, err := a.reload(t.Context(), "watch", true); !errors.Is(err, errUnchanged) {
		t.Errorf("the same files: %v", err)
	}
	p.write(p.file, "endpoint {")
	if _, err := a.Reload(t.Context(), "SIGHUP"); err == nil {
		t.Error("a bad file was taken")
	}
	if _, err := a.reload(t.Context(), "watch", true); !errors.Is(err, errUnchanged) {
		t.Errorf("the same bad file: %v", err)
	}
	if n := strings.Count(p.log.String(), "reload refused"); n != 1 {
		t.Errorf("refused %d times", n)
	}
	p.write(p.file, text) // as it was when all was well: the trouble is over
	if _, err := a.reload(t.Context(), "watch", true); err != nil || a.refused.Load() != nil {
		t.Errorf("back to the good file: %v", err)
	}
}

// Reading many endpoints takes more memory than the result. It is given back when the files are
// those read before, too: the first look comes a moment after the start of each Relay.
func TestLookGivesMemoryBack(t *testing.T) {
	p := newPlace(t)
	p.write(p.file, p.text(endpointBlock("a", "https://a.example.com")))
	a := p.start(false)
	if _, err := a.reload(t.Context(), "watch", true); err != nil && !errors.Is(err, errUnchanged) {
		t.Fatal(err)
	}
	const size = 64 << 20
	p.costs.Store(size)
	used := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	runtime.GC()
	before := used()
	if _, err := a.reload(t.Context(), "watch", true); !errors.Is(err, errUnchanged) {
		t.Fatal(err)
	}
	if after := used(); after > before+size/2 {
		t.Errorf("%d bytes are in use after a look at %d, %d before", after, size, before)
	}
}
