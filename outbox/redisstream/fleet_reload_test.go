package redisstream

import (
	"context"
	"testing"
	"time"

	"relay/outbox/redisstream/redistest"
)

// After a reload the others see the new hashes; with an outage in between, after it.
func TestSetEndpoints(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	o := at(server.URL())
	o.Endpoints = map[string]string{"a": "old"}
	s, other := openTest(t, o), openTest(t, at(server.URL()))
	shows := func(hash string) func() bool {
		return func() bool {
			fleet, err := other.Relays(t.Context())
			return err == nil && len(fleet) == 2 && fleet[0].Endpoints["a"] == hash && !fleet[0].Started.IsZero()
		}
	}
	await(t, "the hash at the start", shows("old"))
	if err := s.SetEndpoints(t.Context(), map[string]string{"a": "new"}); err != nil {
		t.Fatal(err)
	}
	if !shows("new")() {
		t.Error("the other Relay does not see the new hash")
	}
	server.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.SetEndpoints(ctx, map[string]string{"a": "newer"}); err == nil {
		t.Error("a Redis that hangs took the new hash")
	}
	server.Continue()
	await(t, "the hash after the outage", shows("newer"))
}
