package testkit

import (
	"os"
	"testing"
)

// Dir returns a folder of the test for sockets, whose path can have 107 bytes: that of t.TempDir has the name of the
// test, too.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "relay-")
	Must(t, err)
	t.Cleanup(func() { Must(t, os.RemoveAll(dir)) })
	return dir
}
