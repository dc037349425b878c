// Package golden compares what a test got with a file that was looked at by people. Tests that use
// it have the flag -update, which writes the files instead: read the difference before it is committed.
package golden

import (
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden files and generated parts instead of comparing them")

// Update tells whether files are to be written.
func Update() bool { return *update }

// Check compares a text with a file, byte by byte.
func Check(t testing.TB, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got); after a wanted change run this package's tests with -args -update:\n%s", path, diff)
	}
}
