package main

import (
	"strings"
	"testing"
)

// Without redis-server the error says what to install.
func TestBenchNeedsRedisServer(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	out, code := relay(t, "bench", "--outbox", "redis")
	if code != exitFailed || !strings.Contains(out, "redis-server is not on this machine's PATH: install it") {
		t.Errorf("exit %d: %s", code, out)
	}
}
