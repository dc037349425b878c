package deliver

import (
	"context"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"relay/outbox"
	"relay/outbox/redisstream"
	"relay/outbox/redisstream/redistest"
	"relay/policy"
	"relay/relay/deliver/delivertest"
	"relay/relay/post"
)

// What an attempt costs with the gate's rules in its way, from the look to the end of the
// attempt, on a connection in memory, receiver included. The fleet's limit is in a real redis.
func BenchmarkGatedAttempt(b *testing.B) {
	limited := func(e *policy.Endpoint) {
		e.RateLimit = &policy.RateLimit{N: 1_000_000, Per: time.Second, Burst: 1_000_000}
	}
	guarded := func(e *policy.Endpoint) { e.Breaker = failing() }
	for _, c := range []struct {
		name  string
		rules []func(*policy.Endpoint)
		fleet bool
	}{
		{"none", nil, false},
		{"limit", []func(*policy.Endpoint){limited}, false},
		{"breaker", []func(*policy.Endpoint){guarded}, false},
		{"limit and breaker", []func(*policy.Endpoint){limited, guarded}, false},
		{"fleet limit", []func(*policy.Endpoint){limited}, true},
		{"fleet limit and breaker", []func(*policy.Endpoint){limited, guarded}, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			network := delivertest.NewNetwork()
			l, err := network.Listen("billing.test:80")
			if err != nil {
				b.Fatal(err)
			}
			var serving sync.WaitGroup
			serving.Go(func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					serving.Go(func() { answerAll(conn) })
				}
			})
			defer serving.Wait()
			defer l.Close()
			e := endpointAt(b, "billing", &url.URL{Scheme: "http", Host: "billing.test:80"})
			for _, rule := range c.rules {
				rule(e)
			}
			o := Options{Source: settled{}, network: post.Network{Dial: network.Dial}}
			if c.fleet {
				o.Limiter = openRedis(b)
			}
			d := New(o, &policy.Policy{Endpoints: []*policy.Endpoint{e}})
			r := d.runners["billing"]
			defer r.close()
			claim, ctx := benchClaim(), context.Background()
			b.ReportAllocs()
			for b.Loop() {
				v := r.gate.Look(ctx, e.Concurrency)
				r.gate.Passed(ctx)
				n, probe := r.gate.Admit(ctx, min(v.N, 1))
				if n == 0 {
					b.Fatalf("no attempt may begin: %+v", v)
				}
				r.attempt(r.now, claim, nil, probe)
			}
		})
	}
}

func openRedis(b *testing.B) outbox.Limiter {
	b.Helper()
	server := redistest.Start(b)
	store, err := redisstream.Open(b.Context(), redisstream.Options{URL: server.URL(), Database: -1, Namespace: "bench", Log: zerolog.Nop()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	})
	return store
}
