package redisstream_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/outbox/redisstream"
	"relay/outbox/redisstream/redistest"
)

// commands are all that Relay's user of Redis must be allowed, as docs/redis.md says.
const commands = "-@all +ping +client|setname +select +info +config|get +time +wait +waitaof +scan +eval +evalsha " +
	"+exists +get +set +del +hget +hmget +hgetall +hkeys +hset +hsetnx +hdel +hlen +hstrlen +hincrby " +
	"+xadd +xlen +xrange +xrevrange +xdel +xtrim +xread +xreadgroup +xack +xpending +xclaim +xautoclaim +xgroup|create +xgroup|delconsumer +xinfo|groups " +
	"+zadd +zcard +zrange +zrem +zscore +cluster|slots"

// TestConformance runs the suite that every engine passes, on a real server, with no
// more rights than docs/redis.md asks for.
func TestConformance(t *testing.T) {
	page, err := os.ReadFile("../../docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(strings.Fields(string(page)), " "), commands) {
		t.Errorf("docs/redis.md does not have this rule:\n%s", commands)
	}
	for _, shards := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d shards", shards), func(t *testing.T) {
			t.Parallel()
			outboxtest.Run(t, engine(restricted(t), shards))
		})
	}
}

// TestOperable runs the suite of what an operator asks of an engine, in the same way.
func TestOperable(t *testing.T) {
	for _, shards := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d shards", shards), func(t *testing.T) {
			t.Parallel()
			outboxtest.RunOperable(t, engine(restricted(t), shards))
		})
	}
}

// restricted starts a server and returns the URL of a user with no more rights than docs/redis.md asks for.
func restricted(t *testing.T) string {
	server := redistest.Start(t)
	rule := strings.Fields(commands)
	if strings.Contains(fmt.Sprint(server.MustDo(t, "INFO", "server")), "redis_version:7.0.") {
		rule = slices.DeleteFunc(rule, func(s string) bool { return s == "+waitaof" }) // it came with 7.2
	}
	server.MustDo(t, append([]string{"ACL", "SETUSER", "relay", "on", ">secret", "~{suite*"}, rule...)...)
	return strings.Replace(server.URL(), "unix://", "unix://relay:secret@", 1)
}

// engine is the engine in one server. Each outbox has a namespace of its own.
func engine(url string, shards int) outboxtest.Harness {
	var n atomic.Int64
	options := map[outbox.Engine]redisstream.Options{}
	open := func(t *testing.T, o redisstream.Options) outbox.Engine {
		s, err := redisstream.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		options[s] = o
		return s
	}
	fresh := func() redisstream.Options {
		return redisstream.Options{URL: url, Database: -1, Namespace: fmt.Sprintf("suite%d", n.Add(1)), Shards: shards}
	}
	return outboxtest.Harness{
		Open: func(t *testing.T) outbox.Engine { return open(t, fresh()) },
		OpenSized: func(t *testing.T, size int64) outbox.Engine {
			o := fresh()
			o.MaxSize = size
			return open(t, o)
		},
		Reopen: func(t *testing.T, s outbox.Engine) outbox.Engine {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, options[s])
		},
		Join:    func(t *testing.T, s outbox.Engine) outbox.Engine { return open(t, options[s]) },
		Sharded: shards > 1,
	}
}
