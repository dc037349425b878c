package client

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"relay/internal/testkit"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("TEST_PUBLISH"); dir != "" { // a Relay that is killed
		_, err := Running{PID: os.Getpid()}.Publish(dir)
		if err != nil {
			os.Stdout.WriteString(err.Error())
		}
		os.Stdout.WriteString("published\n")
		select {}
	}
	os.Exit(m.Run())
}

func TestPublish(t *testing.T) {
	dir := filepath.Join(testkit.Dir(t), "state", "relay")
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	want := Running{PID: 12, Version: "1", Config: []string{"/relay.hcl"}, Outbox: dir, Admin: []string{"unix:/a.sock"}, Ingest: []string{}, MaxBody: 5}
	p, err := want.Publish(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, live, err := read(dir)
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Running{})); err != nil || !live || diff != "" {
		t.Errorf("live %t, %v (-want +got):\n%s", live, err, diff)
	}
	if info, err := os.Stat(filepath.Join(dir, RunFile)); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	// One that runs is left alone.
	for _, other := range []Running{{PID: 13}, {PID: 13, Outbox: "redis://a"}} {
		if _, err := other.Publish(dir); !errors.Is(err, ErrInUse) {
			t.Errorf("a second one: %v", err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	// One that was replaced is not removed.
	if err := os.Remove(filepath.Join(dir, RunFile)); err != nil {
		t.Fatal(err)
	}
	again, err := Running{PID: 14}.Publish(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if got, live, err := read(dir); err != nil || !live || got.PID != 14 {
		t.Errorf("after the first one ended: %d, %t, %v", got.PID, live, err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := read(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after both ended: %v", err)
	}
}

// A Relay that ends has let go of its outbox a moment before its run file: the next one
// replaces that.
func TestPublishFollows(t *testing.T) {
	for _, c := range []struct {
		before, next Running
		want         bool
	}{
		{Running{Outbox: "/box", Config: []string{"/a"}}, Running{Outbox: "/box", Config: []string{"/b"}}, true},
		{Running{Outbox: "/box", Config: []string{"/a"}}, Running{Outbox: "/other", Config: []string{"/a"}}, false},
		{Running{Outbox: "redis://x", Config: []string{"/a"}}, Running{Outbox: "redis://x", Config: []string{"/a"}}, true},
		{Running{Outbox: "redis://x", Config: []string{"/a"}}, Running{Outbox: "redis://x", Config: []string{"/b"}}, false},
	} {
		dir := testkit.Dir(t)
		before, err := c.before.Publish(dir)
		if err != nil {
			t.Fatal(err)
		}
		next, err := c.next.Publish(dir)
		if (err == nil) != c.want {
			t.Errorf("%+v after %+v: %v", c.next, c.before, err)
		}
		if err := before.Close(); err != nil {
			t.Fatal(err)
		}
		if r, live, err := read(dir); c.want && (err != nil || !live || r.Config[0] != c.next.Config[0]) {
			t.Errorf("%+v after %+v: %+v, %t, %v", c.next, c.before, r, live, err)
		}
		if next != nil {
			next.Close()
		}
	}
}

// The folder that was made for the run file goes with it.
func TestPublishLeavesNothing(t *testing.T) {
	dir := filepath.Join(testkit.Dir(t), "state")
	p, err := Running{}.Publish(dir)
	if err == nil {
		err = p.Close()
	}
	if _, e := os.Stat(dir); err != nil || !errors.Is(e, os.ErrNotExist) {
		t.Errorf("%v, %v", err, e)
	}
}

// What a process left that was killed is stale, whatever has its number now, and the next
// one takes its place.
func TestStale(t *testing.T) {
	dir := testkit.Dir(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "TEST_PUBLISH="+dir)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 100)
	n, _ := out.Read(line)
	if string(line[:n]) != "published\n" {
		t.Fatalf("the other process: %s", line[:n])
	}
	if r, live, err := read(dir); err != nil || !live || r.PID != cmd.Process.Pid {
		t.Errorf("while it runs: %d, %t, %v", r.PID, live, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if r, live, err := read(dir); err != nil || live || r.PID != cmd.Process.Pid {
		t.Errorf("after its death: %d, %t, %v", r.PID, live, err)
	}
	p, err := Running{PID: 1}.Publish(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if r, live, err := read(dir); err != nil || !live || r.PID != 1 {
		t.Errorf("the next one: %d, %t, %v", r.PID, live, err)
	}
}

// A file that another user could have written names no address to send a token to.
func TestPlanted(t *testing.T) {
	dir := testkit.Dir(t)
	path := filepath.Join(dir, RunFile)
	real := filepath.Join(dir, "real")
	for name, plant := range map[string]func() error{
		"others can write it": func() error {
			return errors.Join(os.WriteFile(path, []byte("{}"), 0o644), os.Chmod(path, 0o666))
		},
		"a link": func() error { return errors.Join(os.WriteFile(real, []byte("{}"), 0o644), os.Symlink(real, path)) },
		"a pipe": func() error { return syscall.Mkfifo(path, 0o644) },
	} {
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		if _, live, err := read(dir); live || err == nil || !strings.Contains(err.Error(), "may have been written by another user") {
			t.Errorf("%s: %t, %v", name, live, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"", "{", "[]", `{"pid":"x"}`} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, live, err := read(dir); live || err == nil {
			t.Errorf("%q: %t, %v", text, live, err)
		}
	}
}

func TestTrusted(t *testing.T) {
	for _, c := range []struct {
		file, folder, me int
		want             bool
	}{
		{5, 5, 5, true},
		{5, 0, 5, true},  // a folder that is shared by its group
		{5, 5, 6, true},  // the group's operator
		{0, 5, 5, true},  // made by root
		{5, 6, 0, true},  // root asks
		{5, 0, 6, false}, // another member of the group
		{5, 6, 7, false},
	} {
		if got := believed(c.file, c.folder, c.me); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
}
