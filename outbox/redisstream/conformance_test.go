package redisstream_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/outbox/redisstream"
)

// TestConformance runs the suite that every engine passes, on a real server that
// the subtests share, each in a namespace of its own.
func TestConformance(t *testing.T) {
	server := outboxtest.StartRedis(t)
	for _, shards := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d shards", shards), func(t *testing.T) {
			outboxtest.Run(t, engine(server, shards))
		})
	}
}

func engine(server *outboxtest.RedisServer, shards int) outboxtest.Engine {
	var n atomic.Int64
	options := map[outbox.Store]redisstream.Options{}
	open := func(t *testing.T, o redisstream.Options) outbox.Store {
		s, err := redisstream.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		options[s] = o
		return s
	}
	fresh := func() redisstream.Options {
		return redisstream.Options{URL: server.URL(), Database: -1, Namespace: fmt.Sprintf("n%d-%d", shards, n.Add(1)), Shards: shards}
	}
	return outboxtest.Engine{
		Sharded: shards > 1,
		Open:    func(t *testing.T) outbox.Store { return open(t, fresh()) },
		OpenSized: func(t *testing.T, size int64) outbox.Store {
			o := fresh()
			o.MaxSize = size
			return open(t, o)
		},
		Reopen: func(t *testing.T, s outbox.Store) outbox.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, options[s])
		},
	}
}
