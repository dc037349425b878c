package sqlite

import "testing"

// TestProbeOfMemory: /dev/shm is a tmpfs on every Linux.
func TestProbeOfMemory(t *testing.T) {
	wantFinding(t, Probe(Options{Dir: "/dev/shm/relay-that-is-not-there"}), levelWarn, "it is in memory")
}
