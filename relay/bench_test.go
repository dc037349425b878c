package main

import (
	"encoding/json"
	"strings"
	"testing"

	"relay/internal/testkit"
)

// Without redis-server the error says what to install.
func TestBenchNeedsRedisServer(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	out, code := relay(t, "bench", "--outbox", "redis")
	if code != exitFailed || !strings.Contains(out, "redis-server is not on this machine's PATH: install it") {
		t.Errorf("exit %d: %s", code, out)
	}
}

// The workloads that need more than a Relay with one endpoint, small: they run to their end, with each delivery, and measure
// what they say.
func TestBenchWorkloads(t *testing.T) {
	for _, outbox := range []string{"sqlite", "redis"} {
		t.Run(outbox, func(t *testing.T) {
			out, code := relay(t, "bench", "--outbox", outbox, "--workload", "sparse,backlog,rate", "--events", "300", "--endpoints", "1500", "--rate", "1000",
				"--rounds", "1", "--senders", "4", "--json")
			var figures []struct {
				Workload struct{ Name string }
				Rounds   []struct {
					Delivered   float64 `json:"delivered_per_second"`
					RestRSS     int64   `json:"rest_rss_bytes"`
					Pending     int     `json:"pending"`
					AcceptRatio float64 `json:"accept_ratio"`
					HeldRSS     int64   `json:"held_rss_bytes"`
					RedisBytes  int64   `json:"redis_rss_bytes"`
					Start       int64   `json:"start_ns"`
				} `json:"rounds"`
			}
			if code != 0 {
				t.Fatalf("exit %d: %s", code, out)
			}
			testkit.Must(t, json.Unmarshal([]byte(out), &figures))
			if len(figures) != 3 {
				t.Fatalf("%d figures: %s", len(figures), out)
			}
			for _, f := range figures {
				r := f.Rounds[0]
				if r.Delivered <= 0 || r.RestRSS <= 0 {
					t.Errorf("%s: %+v", f.Workload.Name, r)
				}
				backlog := f.Workload.Name == "backlog"
				if backlog != (r.Pending == 300+2*30+3) || backlog != (r.AcceptRatio > 0 && r.HeldRSS > 0 && r.Start > 0) || (backlog && outbox == "redis") != (r.RedisBytes > 0) {
					t.Errorf("%s has the backlog %+v", f.Workload.Name, r)
				}
			}
		})
	}
}
