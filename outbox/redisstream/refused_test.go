package redisstream

import (
	"errors"
	"strings"
	"testing"
	"time"

	"relay/outbox"
	"relay/outbox/redisstream/redistest"
)

// A user that Redis does not know any more is an outage, also for pipelines, of
// which go-redis then tells no command.
func TestUserIsDeleted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.MustDo(t, "ACL", "SETUSER", "relay", "on", ">secret", "~*", "+@all")
	s := openTest(t, at(strings.Replace(server.URL(), "unix://", "unix://relay:secret@", 1)))
	sh := s.shards[0]
	server.MustDo(t, "ACL", "DELUSER", "relay")
	await(t, "new connections are refused", func() bool {
		_, why := sh.outage()
		f, ok := errors.AsType[*fault](why)
		return ok && f.code == "unauthenticated"
	})
	f := &fetch{endpoint: &endpoint{name: "a"}, shard: sh, max: 1, lease: time.Minute}
	if err := sh.fetch(t.Context(), []*fetch{f}); err != nil || !errors.Is(f.err, outbox.ErrUnavailable) {
		t.Errorf("fetch: %v, %v, want ErrUnavailable", err, f.err)
	}
	if lasts, _ := sh.outage(); lasts == 0 {
		t.Error("a refused connection counts as an answer")
	}
}
