package deliver

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
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

// settled is a Source that keeps nothing.
type settled struct{ Source }

func (settled) Settle(context.Context, outbox.Claim, outbox.Settlement) error { return nil }

// One attempt on a connection in memory, receiver included.
func BenchmarkAttempt(b *testing.B) {
	network := delivertest.NewNetwork()
	l, err := network.Listen("billing.test:80")
	if err != nil {
		b.Fatal(err)
	}
	receiver := delivertest.NewEndpoint()
	receiver.Serve(b, l)
	e := endpointAt(b, "billing", &url.URL{Scheme: "http", Host: "billing.test:80"})
	d := New(Options{Source: settled{}, network: post.Network{Dial: network.Dial}}, &policy.Policy{Endpoints: []*policy.Endpoint{e}})
	r := d.runners["billing"]
	defer r.close()
	c := benchClaim()
	b.ReportAllocs()
	for b.Loop() {
		r.attempt(r.now, c, nil, false)
	}
}

// One attempt over loopback TCP to a receiver that costs next to nothing: what
// is left is ours and the kernel's.
func BenchmarkAttemptOnLoopback(b *testing.B) {
	r := onLoopback(b, nil)
	c := benchClaim()
	b.ReportAllocs()
	for b.Loop() {
		r.attempt(r.now, c, nil, false)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// The same with 100 events in each request, from claims to records.
func BenchmarkBatchOnLoopback(b *testing.B) {
	r := onLoopback(b, &policy.Batch{MaxEvents: 100, MaxBytes: 256 << 10, Split: true})
	claims := slices.Repeat(benchClaim(), 100)
	g := gathering{r: r, s: r.now}
	b.ReportAllocs()
	for b.Loop() {
		batch := new(batch)
		g.rest = claims
		g.fill(batch)
		r.attempt(r.now, batch.claims, batch.draft, false)
	}
	b.ReportMetric(float64(100*b.N)/b.Elapsed().Seconds(), "events/s")
}

// onLoopback returns the runner of an endpoint whose receiver takes everything.
func onLoopback(b *testing.B, batch *policy.Batch) *runner {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { answerAll(c) })
		}
	})
	e := endpointAt(b, "billing", &url.URL{Scheme: "http", Host: l.Addr().String(), Path: "/hook"})
	e.Batch = batch
	d := New(Options{Source: settled{}}, &policy.Policy{Endpoints: []*policy.Endpoint{e}})
	r := d.runners["billing"]
	b.Cleanup(func() {
		r.close()
		_ = l.Close()
		serving.Wait()
	})
	return r
}

// answerAll answers each request of the benchmarks, which come one at a time: their header
// tells how long they are.
func answerAll(c net.Conn) {
	defer c.Close()
	in := bufio.NewReaderSize(c, 64<<10)
	answer := []byte("HTTP/1.1 200 OK\r\nDate: Fri, 02 Jan 2026 03:04:05 GMT\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok")
	for length := 0; ; {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		if n, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("Content-Length: ")); ok {
			length, _ = strconv.Atoi(string(n))
		}
		if len(line) > 2 {
			continue
		}
		if _, err := in.Discard(length); err != nil {
			return
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// What an attempt costs before the network: body and header.
func BenchmarkBuild(b *testing.B) {
	e := endpointAt(b, "billing", &url.URL{Scheme: "https", Host: "billing.test"})
	d := New(Options{Source: settled{}}, &policy.Policy{Endpoints: []*policy.Endpoint{e}})
	r := d.runners["billing"]
	r.now.conns.once.Do(func() { r.now.conns.out = discard{} })
	c := benchClaim()
	b.ReportAllocs()
	for b.Loop() {
		r.attempt(r.now, c, nil, false)
	}
}

// discard is a sender whose receiver takes everything at once.
type discard struct{}

func (discard) Send(context.Context, post.Request) (post.Answer, *post.Failure) {
	return post.Answer{Status: 200}, nil
}

func (discard) Close() {}

func benchClaim() []outbox.Claim {
	data := []byte(`{"amount":1000,"text":"` + strings.Repeat("x", 1000) + `"}`)
	e := &outbox.Event{ID: "evt_01234567", Type: "invoice.paid", Time: time.Now(), Data: data}
	return []outbox.Claim{{Delivery: outbox.Delivery{ID: "dlv_01234567", EventID: e.ID, Endpoint: "billing"}, Event: e}}
}

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
