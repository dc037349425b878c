package main

import (
	"os"
	"path/filepath"
	"testing"

	"relay/internal/testkit"
)

// A file that the search order found is the one that is read again: another one, which
// its removal would bring up, is not.
func TestReloadKeepsToTheFile(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile(filepath.Join(dir, "relay.hcl"), []byte("log {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &command{streams: streams{err: new(testkit.Log)}, env: func(string) (string, bool) { return "", false }}
	file, _, err := c.load(nil)
	if err != nil {
		t.Fatal(err)
	}
	again := c.again(nil, file)
	if f, _, err := again(); err != nil || len(f.Paths) != 1 || f.Paths[0] != "relay.hcl" {
		t.Errorf("read again: %v", err)
	}
	if err := os.Remove("relay.hcl"); err != nil {
		t.Fatal(err)
	}
	if f, _, err := again(); err == nil {
		t.Errorf("after the removal %v were read", f.Paths)
	}
	// A folder may have other files by now.
	if err := os.WriteFile("one.hcl", []byte("log {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	again = c.again([]string{dir}, file)
	if err := os.WriteFile("two.hcl", []byte("retention {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, _, err := again(); err != nil || len(f.Paths) != 2 {
		t.Errorf("a folder read again: %v", err)
	}
}
