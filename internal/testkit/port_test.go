package testkit

import (
	"os"
	"path/filepath"
	"testing"
)

// A lock on a file that was removed, or made again, keeps nobody off.
func TestRemovedLock(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	f, err := os.Create(name)
	Must(t, err)
	defer f.Close()
	if !isThere(f) {
		t.Error("the file that was made has its name")
	}
	Must(t, os.Remove(name))
	if isThere(f) {
		t.Error("the file that was removed has its name")
	}
	Must(t, os.WriteFile(name, nil, 0o600))
	if isThere(f) {
		t.Error("the file in place of which there is another has its name")
	}
}
