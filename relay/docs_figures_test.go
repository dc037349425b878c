package main

import (
	"os"
	"strings"
	"testing"
)

// figure is a number that a page tells in words, and the line of the code that makes it so.
type figure struct{ page, words, file, code string }

// docFigures are those that no table is generated from.
var docFigures = []figure{
	{"README.md", "64 wait there at most", "outbox/sqlite/queue.go", "laneLength = 64"},
	{"README.md", "64 wait there at most", "outbox/redisstream/fetch.go", "laneRoom = 64"},
	{"docs/api.md", "for 31 days", "relay/backlog/backlog.go", "KeptFor = 31 * 24 * time.Hour"},
	{"docs/api.md", "the 100 endpoints with the largest backlogs", "relay/backlog/backlog.go", "MaxEndpoints = 100"},
	{"docs/api.md", "by less than 5 % is not written again", "relay/backlog/backlog.go", "rise = 1.05"},
	{"docs/api.md", "a look once a minute", "relay/backlog/backlog.go", "Every = time.Minute"},
	{"docs/api.md", "Beyond 20,000 combinations", "outbox/statistics.go", "MaxStatKeys = 20_000"},
	{"docs/api.md", "Hours are kept for 14 days", "outbox/statistics.go", "HourlyFor = 14 * 24 * time.Hour"},
	{"docs/api.md", "days for 400", "outbox/statistics.go", "DailyFor = 400 * 24 * time.Hour"},
	{"docs/bodies.md", "at most 4096 bytes", "config/eval/regex.go", "maxPattern = 4096"},
	{"docs/bodies.md", "3000 instructions", "config/eval/regex.go", "MaxProgram = 3000"},
	{"docs/bodies.md", "10,000 rounds of", "config/eval/allowance.go", "maxSteps  = 10_000"},
	{"docs/bodies.md", "have 500 ms together", "policy/policy.go", "mostFilters = 500 * time.Millisecond"},
	{"docs/bodies.md", "`range`", "config/eval/functions.go", "maxRange = 1024"},
	{"docs/bodies.md", "has 200 ms for each value", "config/evaluate.go", "valueBudget = 200 * time.Millisecond"},
	{"docs/delivery.md", "At most 64 KiB of a body", "relay/post/post.go", "maxBody     = 64 << 10"},
	{"docs/delivery.md", "16 KiB of it", "relay/post/post.go", "maxKeptBody = 16 << 10"},
	{"docs/delivery.md", "8 KiB of the header are kept", "relay/post/post.go", "maxKeptHead = 8 << 10"},
	{"docs/delivery.md", "holds the endpoint for 1 second", "relay/gate/ended.go", "breather = time.Second"},
	{"docs/delivery.md", "asks again after 10 seconds", "relay/gate/consent.go", "consentAgain  = 10 * time.Second"},
	{"docs/delivery.md", "closed after 55 seconds", "relay/post/age.go", "idleTimeout = 55 * time.Second"},
	{"docs/operating.md", "left alone for 250 ms", "relay/app/watch.go", "settleTime = 250 * time.Millisecond"},
	{"docs/operating.md", "Relay looks every 30 s", "relay/app/watch.go", "pollEvery = 30 * time.Second"},
	{"docs/operating.md", "Up to 64 at a time, 5 s each", "relay/doctor.go", "looksAtOnce = 64"},
	{"docs/operating.md", "Up to 64 at a time, 5 s each", "relay/doctor.go", "lookWithin  = 5 * time.Second"},
	{"docs/operating.md", "14 days before its end", "relay/doctor/endpoints.go", "soon = 14 * 24 * time.Hour"},
	{"docs/operating.md", "Up to 256 endpoints have histograms", "relay/metrics/endpoints.go", "maxDetailed = 256"},
	{"docs/operating.md", "at most 5 s old", "relay/metrics/metrics.go", "lookEvery   = 5 * time.Second"},
	{"docs/operating.md", "behind by 15 minutes", "relay/page/needs.go", "15 * time.Minute"},
	{"docs/operating.md", "another one goes on 20 seconds after", "relay/alert/watcher.go", "lease    = 20 * time.Second"},
	{"docs/operating.md", "a buffer of 1 MiB", "relay/app/lines.go", "maxLines   = 1 << 20"},
	{"docs/operating.md", "less than 64 MiB of free disk", "outbox/sqlite/space.go", "minFree     = 64 << 20"},
	{"docs/operating.md", "its 16 MiB of ballast", "outbox/sqlite/space.go", "ballastSize = 16 << 20"},
	{"docs/operating.md", "500 ms or more is logged once", "outbox/clock/clock.go", "noise = 500 * time.Millisecond"},
	{"docs/page.md", "50 at a time", "relay/page/endpoints.go", "endpointsPage = 50"},
	{"docs/page.md", "at most 50,000, as CSV", "relay/page/export.go", "exportMost = 50_000"},
	{"docs/page.md", "at least 3 attempts were made over 10 s or more", "relay/gate/ended.go", "worthKeepingMany = 10 * time.Second"},
	{"docs/page.md", "at least 3 attempts were made over 10 s or more", "relay/gate/ended.go", "manyFailures = 3"},
	{"docs/page.md", "at most one in 10 seconds", "relay/app/people.go", "warnRefused = 10 * time.Second"},
	{"docs/page.md", "fewer than 16 characters", "config/access.go", "minAccessToken = 16"},
	{"docs/redis.md", "10 s after its last heartbeat", "outbox/redisstream/fleet.go", "deadAfter = 10 * time.Second"},
	{"docs/redis.md", "at 15/16 of it (507)", "outbox/redisstream/memory.go", "m.most - m.most/16"},
	{"docs/redis.md", "every five minutes", "outbox/redisstream/inspect.go", "inspectEvery = 5 * time.Minute"},
	{"docs/redis.md", "(100 at most)", "outbox/redisstream/strays.go", "straysKnown = 100"},
	{"docs/redis.md", "up to 100,000 lines", "outbox/editor.go", "MaxLines = 100_000"},
	{"docs/redis.md", "does not take within 2 s", "outbox/spool/spool.go", "Patience = 2 * time.Second"},
	{"docs/redis.md", "a hash for each 4,096 older ones", "outbox/redisstream/segment.go", "segmentEvents = 4096"},
	{"docs/redis.md", "from 1 s on the log warns", "outbox/redisstream/clock.go", "skewTell = time.Second"},
	{"docs/sending.md", "up to 1,000 events, all or nothing", "ingest/decode.go", "maxBatch = 1000"},
	{"docs/sending.md", "at most 50,000 deliveries together", "ingest/decode.go", "maxDeliveries = 50_000"},
	{"docs/sending.md", "has room for 1,024", "ingest/listen/limits.go", "DefaultMaxConns = 1024"},
	{"docs/sending.md", "no good request for 100 ms", "ingest/listen/places.go", "newPatience  = 100 * time.Millisecond"},
	{"docs/sending.md", "idle for a second", "ingest/listen/places.go", "idlePatience = time.Second"},
	{"docs/sending.md", "again within 24 hours is the same event", "outbox/delivery.go", "IdempotencyWindow = 24 * time.Hour"},
	{"docs/sending.md", "At most 64 levels", "ingest/json.go", "maxDepth = 64"},
	{"docs/sending.md", "At most 32 KiB of headers", "ingest/listen/limits.go", "MaxHeaderBytes = 32 << 10"},
	{"docs/sending.md", "are kept for 30 days", "relay/jobs/jobs.go", "KeepFor = 30 * 24 * time.Hour"},
}

// A number that changes in one place has to change in the other.
func TestFiguresOfPagesAreThoseOfTheCode(t *testing.T) {
	texts := map[string]string{}
	text := func(path string) string {
		if texts[path] == "" {
			b, err := os.ReadFile("../" + path)
			if err != nil {
				t.Fatal(err)
			}
			texts[path] = strings.Join(strings.Fields(string(b)), " ")
		}
		return texts[path]
	}
	for _, f := range docFigures {
		if code := strings.Join(strings.Fields(f.code), " "); !strings.Contains(text(f.file), code) {
			t.Errorf("%s has no %q: %s says %q of it, change that, too, and the table of this test", f.file, f.code, f.page, f.words)
		}
		if !strings.Contains(text(f.page), f.words) {
			t.Errorf("%s does not say %q, which %s is held to (%s)", f.page, f.words, f.file, f.code)
		}
	}
}
