package config

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Reads and Digest know all that a configuration depends on, good or bad.
func TestReads(t *testing.T) {
	dir := t.TempDir()
	file, key := filepath.Join(dir, "relay.hcl"), filepath.Join(dir, "key")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	noEnv := func(string) (string, bool) { return "", false }
	load := func(ok bool) *File {
		t.Helper()
		f, err := Load([]string{file}, noEnv)
		if (err == nil) != ok {
			t.Fatalf("load: %v", err)
		}
		return f
	}
	write(file, `admin {
  token = file("key")
}
endpoint "a" {}`)
	missing := load(false)
	if diff := cmp.Diff([]string{key, file}, missing.Reads()); diff != "" {
		t.Errorf("reads (-want +got):\n%s", diff)
	}
	write(key, "canary")
	first := load(true)
	again := load(true)
	if first.Digest() != again.Digest() || first.Digest() == missing.Digest() {
		t.Error("digests do not follow the content")
	}
	write(key, "canary2")
	if load(true).Digest() == first.Digest() {
		t.Error("another secret has the same digest")
	}
	write(file, "admin {")
	if broken := load(false); broken.Digest() == first.Digest() || len(broken.Reads()) != 1 {
		t.Errorf("a broken file reads %v", broken.Reads())
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if gone := load(false); len(gone.Reads()) != 1 {
		t.Errorf("a missing file reads %v", gone.Reads())
	}
	if got := fmt.Sprintf("%v %+v %#v %x", first.Digest(), first.Digest(), first.Digest(), first.Digest()); got != "[redacted] [redacted] [redacted] [redacted]" {
		t.Errorf("a digest prints as %s", got)
	}
}
