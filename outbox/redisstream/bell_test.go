package redisstream

import (
	"context"
	"testing"
	"time"

	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// A ring that is gone before a Relay hears it, because thousands of others came at once, is not lost: an endpoint that
// was rung for is not rung for again.
func TestRingsThatAreGone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s, other := openTest(t, at(server.URL())), openTest(t, at(server.URL()))
	sh := s.shards[0]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	type answer struct {
		claims []outbox.Claim
		err    error
	}
	came := make(chan answer, 1)
	go func() {
		claims, err := s.Claim(ctx, outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: time.Minute})
		came <- answer{claims, err}
	}()
	await(t, "the first look is over", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		e := s.endpoints["a"]
		return e != nil && e.wait.ready != nil && e.maybe == 0 && e.fetching == 0
	})
	server.MustDo(t, "EVAL", `
		redis.call('HSET', KEYS[1], 'a|rung', '1')
		redis.call('XADD', KEYS[2], '*', 'e', 'a')
		for i = 1, 9999 do redis.call('XADD', KEYS[2], 'MAXLEN', '~', 4096, '*', 'e', 'other' .. i) end
	`, "2", sh.endpoints, sh.bell)
	acceptOne(t, other, "evt_1", "a")
	if a := <-came; a.err != nil || len(a.claims) != 1 {
		t.Errorf("claims: %v, %v", a.claims, a.err)
	}
}
