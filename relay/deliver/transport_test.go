package deliver

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relay/config"
	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// onEachNetwork runs a test on the network in memory, on loopback TCP and on a
// Unix socket: they differ in buffering and in how connections break.
func onEachNetwork(t *testing.T, run func(t *testing.T, w *world, put func(*delivertest.Endpoint) *policy.Endpoint)) {
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			run(t, w, func(r *delivertest.Endpoint) *policy.Endpoint { return w.inMemory("billing", r) })
		})
	})
	t.Run("tcp", func(t *testing.T) {
		run(t, newWorld(t), func(r *delivertest.Endpoint) *policy.Endpoint { return endpointAt(t, "billing", r.Listen(t)) })
	})
	t.Run("unix", func(t *testing.T) {
		w := newWorld(t)
		run(t, w, func(r *delivertest.Endpoint) *policy.Endpoint {
			path := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			e := w.inMemory("billing", delivertest.NewEndpoint())
			w.o.dialNet = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			}
			r.Serve(t, l)
			return e
		})
	})
}

// onEachSender runs a test for HTTP/1.1, for HTTP/2 and for HTTP/1.1 where HTTP/2 was
// offered.
func onEachSender(t *testing.T, run func(t *testing.T, w *world, put func(*delivertest.Endpoint) *policy.Endpoint)) {
	for _, c := range []struct {
		name, protocol string
		http2          bool
	}{
		{"http1", "http/1.1", false},
		{"http2", "h2", true},
		{"http2 = true, but HTTP/1.1", "http/1.1", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				run(t, w, func(r *delivertest.Endpoint) *policy.Endpoint {
					e := w.secureInMemory("billing", r, c.protocol)
					e.HTTP2 = c.http2
					return e
				})
			})
		})
	}
}

func TestConnectionsAreReused(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, w *world, put func(*delivertest.Endpoint) *policy.Endpoint) {
		receiver := delivertest.NewEndpoint(delivertest.Step{Body: "ok"})
		receiver.Verifier = verifier(t)
		w.start(put(receiver))
		w.accept(300, "billing")
		opened := 0
		for _, r := range w.await(300) {
			if r.State != outbox.Delivered {
				t.Fatalf("delivery is %s: %s", r.State, r.Attempt.Error)
			}
			if !r.Reused {
				opened++
			}
		}
		if opened < 1 || opened > 4 || receiver.Conns() > 4 {
			t.Errorf("%d attempts on new connections, %d connections opened, want 1 to 4, the concurrency", opened, receiver.Conns())
		}
		for _, r := range receiver.Requests() {
			if r.Err != nil {
				t.Fatalf("signature: %v", r.Err)
			}
		}
	})
}

// Fault F30: whatever a receiver does, an attempt ends at its total time and
// takes a bounded amount of memory.
func TestEndlessAnswers(t *testing.T) {
	bomb := gzipped(10 << 20)
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, c := range []struct {
		name   string
		step   delivertest.Step
		code   string
		status int
		took   time.Duration
		kept   int // bytes of the body
	}{
		{"no answer", delivertest.Step{Fault: delivertest.Hang}, "timeout", 0, 15 * time.Second, 0},
		{"head without end", delivertest.Step{Raw: ok + "X-A: 1\r\n", Fault: delivertest.Hang}, "timeout", 0, 15 * time.Second, 0},
		{"body without end", delivertest.Step{Raw: ok + "Content-Length: 9\r\n\r\nabc", Fault: delivertest.Hang}, "timeout", 200, 15 * time.Second, 3},
		{"a byte now and then", delivertest.Step{Body: strings.Repeat("x", 100), Slow: 2 * time.Second}, "timeout", 200, 15 * time.Second, 7},
		{"endless header", delivertest.Step{Raw: strings.Repeat("X-Header: value\r\n", 64), Fault: delivertest.Flood}, "bad_response", 0, 0, 0},
		{"endless header lines", delivertest.Step{Raw: ok + strings.Repeat("X-Header: value\r\n", 9000), Fault: delivertest.Hang}, "bad_response", 0, 0, 0},
		{"endless header line", delivertest.Step{Raw: ok + "X-Header: " + strings.Repeat("x", 100<<10), Fault: delivertest.Hang}, "bad_response", 0, 0, 0},
		{"endless 1xx", delivertest.Step{Raw: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", Fault: delivertest.Flood}, "bad_response", 0, 0, 0},
		{"endless 1xx of what is not kept", delivertest.Step{Raw: "HTTP/1.1 103 Early Hints\r\n" + strings.Repeat("Trailer: x\r\n", 1000) + "\r\n", Fault: delivertest.Flood}, "bad_response", 0, 0, 0},
		{"not HTTP", delivertest.Step{Raw: "SSH-2.0-OpenSSH_9.9\r\n", Fault: delivertest.Hang}, "bad_response", 0, 0, 0},
		{"broken chunks", delivertest.Step{Raw: ok + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", Fault: delivertest.Hang}, "bad_response", 200, 0, 0},
		{"little in many chunks", delivertest.Step{Raw: ok + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1;"+strings.Repeat("x", 100)+"\r\nx\r\n", 1000), Fault: delivertest.Hang}, "bad_response", 200, 0, 186},
		{"trailers without end", delivertest.Step{Raw: ok + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("X-A: 1\r\n", 10000), Fault: delivertest.Hang}, "bad_response", 200, 0, 0},
		{"body cut off", delivertest.Step{Raw: ok + "Content-Length: 9\r\n\r\nabc", Fault: delivertest.Close}, "connection_reset", 200, 0, 3},
		{"large body", delivertest.Step{Body: strings.Repeat("x", 1<<20)}, "", 200, 0, 16 << 10},
		{"endless body", delivertest.Step{Raw: ok + "Content-Length: 99999999999\r\n\r\n" + strings.Repeat("x", 1<<20), Fault: delivertest.Hang}, "", 200, 0, 16 << 10},
		{"gzip bomb", delivertest.Step{Body: bomb, Header: map[string]string{"Content-Encoding": "gzip"}}, "", 200, 0, min(len(bomb), 16<<10)},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				receiver := delivertest.NewEndpoint(c.step)
				e := w.inMemory("billing", receiver)
				read := w.meter(e.URL.Host)
				w.start(e)
				w.accept(1, "billing")
				a := w.await(1)[0].Attempt
				w.stop()
				if a.Code != c.code || a.Status != c.status || a.Took != c.took || len(a.Body) != c.kept {
					t.Errorf("code %q, status %d, took %s, kept %d bytes (%s), want %q, %d, %s, %d",
						a.Code, a.Status, a.Took, len(a.Body), a.Error, c.code, c.status, c.took, c.kept)
				}
				if n := read.Load(); n > maxHeader+maxBody+readBuffer {
					t.Errorf("%d bytes were read", n)
				}
				if len(a.Head) > maxKeptHead {
					t.Errorf("kept %d bytes of the header", len(a.Head))
				}
				if n := len(receiver.Requests()); n != 1 {
					t.Errorf("%d requests for one attempt", n)
				}
			})
		})
	}
}

// The error of an attempt out of time names the configured time.
func TestTimeoutNamesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint(delivertest.Step{Fault: delivertest.Hang}))
		e.Timeout.Total = 1500 * time.Millisecond
		w.start(e)
		w.accept(1, "billing")
		if a := w.await(1)[0].Attempt; a.Error != "no whole answer within 1.5s" {
			t.Errorf("error is %q", a.Error)
		}
	})
}

// Fault F31: an attempt is one request on the wire, also where the HTTP library
// would send it again by itself: on a reused connection that broke, and with a header
// that promises that repeating does no harm.
func TestOneRequestForOneAttempt(t *testing.T) {
	keepAlive := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for _, c := range []struct {
		name string
		step delivertest.Step
		code string
	}{
		{"reset after the request", delivertest.Step{Fault: delivertest.Reset}, "connection_reset"},
		{"closed after the request", delivertest.Step{Fault: delivertest.Close}, "connection_reset"},
		{"reset within the answer", delivertest.Step{Raw: keepAlive[:17], Fault: delivertest.Reset}, "connection_reset"},
		{"closed within the answer", delivertest.Step{Raw: keepAlive[:17], Fault: delivertest.Close}, "connection_reset"},
	} {
		t.Run(c.name, func(t *testing.T) {
			onEachNetwork(t, func(t *testing.T, w *world, put func(*delivertest.Endpoint) *policy.Endpoint) {
				receiver := delivertest.NewEndpoint()
				receiver.Answer = func(r *delivertest.Request) delivertest.Step {
					if r.Event == "evt_billing_0" {
						return delivertest.Step{Body: "ok"} // leaves a connection to reuse
					}
					return c.step
				}
				e := put(receiver)
				e.Concurrency = 1
				e.Headers = []policy.Header{{Name: "Idempotency-Key", Value: config.NewSecret("k")}, {Name: "X-Idempotency-Key", Value: config.NewSecret("k")}}
				w.start(e)
				w.accept(2, "billing")
				second := w.await(2)[1]
				w.stop()
				if !second.Reused || second.Attempt.Code != c.code {
					t.Errorf("second attempt: reused connection %t, code %q (%s), want %q", second.Reused, second.Attempt.Code, second.Attempt.Error, c.code)
				}
				if n := len(receiver.Requests()); n != 2 {
					t.Errorf("%d requests for two attempts", n)
				}
			})
		})
	}
}

// A receiver that closes a connection which it promised to keep can meet a
// request that is on its way. No attempt is seen twice all the same.
func TestStaleConnections(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, w *world, put func(*delivertest.Endpoint) *policy.Endpoint) {
		const events = 200
		receiver := delivertest.NewEndpoint(delivertest.Step{Raw: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Fault: delivertest.Close})
		e := put(receiver)
		e.Retry.Schedule = make([]time.Duration, 100)
		w.start(e)
		ids := w.accept(events, "billing")
		for done, n := 0, 1; done < events; n++ {
			if r := w.await(n)[n-1]; r.State == outbox.Delivered {
				done++
			} else if r.Attempt.Code != "connection_reset" {
				t.Fatalf("attempt came to %q: %s", r.Attempt.Code, r.Attempt.Error)
			}
		}
		w.stop()
		seen := map[string]bool{}
		for _, r := range receiver.Requests() {
			attempt := fmt.Sprint(r.Delivery, " ", r.Attempt)
			if seen[attempt] {
				t.Errorf("attempt %s was sent twice", attempt)
			}
			seen[attempt] = true
		}
		for _, id := range ids {
			if d := w.delivery(id); d.State != outbox.Delivered {
				t.Errorf("delivery of %s is %s", id, d.State)
			}
		}
	})
}

// Timings of a new connection, and none of them for a reused one.
func TestTimings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint(delivertest.Step{Delay: 3 * time.Second}))
		dial := w.o.dialNet
		w.o.dialNet = func(ctx context.Context, network, address string) (net.Conn, error) {
			time.Sleep(2 * time.Second)
			return dial(ctx, network, address)
		}
		e.Concurrency = 1
		w.start(e)
		w.accept(2, "billing")
		results := w.await(2)
		if got, want := results[0].Attempt.Timing, (outbox.Timing{Connect: 2 * time.Second, FirstByte: 3 * time.Second}); got != want || results[0].Attempt.Took != 5*time.Second {
			t.Errorf("timing is %+v of %s, want %+v", got, results[0].Attempt.Took, want)
		}
		if got, want := results[1].Attempt.Timing, (outbox.Timing{FirstByte: 3 * time.Second}); got != want {
			t.Errorf("timing on a reused connection is %+v, want %+v", got, want)
		}
	})
}
