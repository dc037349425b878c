package post

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relay/config"
	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// metered counts what is read from a connection.
type metered struct {
	net.Conn
	read *atomic.Int64
}

func (c *metered) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.read.Add(int64(n))
	return n, err
}

// meter counts what is read on all connections to come, by the address dialled.
func (w *world) meter(address string) *atomic.Int64 {
	var read atomic.Int64
	dial := w.o.Network.Dial
	w.o.Network.Dial = func(ctx context.Context, network, to string) (net.Conn, error) {
		c, err := dial(ctx, network, to)
		if err != nil || to != address {
			return c, err
		}
		return &metered{c, &read}, nil
	}
	return &read
}

func gzipped(n int) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(make([]byte, n))
	_ = z.Close()
	return b.String()
}

// forEver writes what comes next until the client has had enough.
func forEver(next func(w http.ResponseWriter) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil && next(w) == nil {
			continue
		}
	}
}

func headerOf(size int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := range size / 1000 {
			w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1000))
		}
	}
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
		{"body without end", delivertest.Step{Raw: ok + "Content-Length: 9\r\n\r\nabc", Fault: delivertest.Hang}, "body_timeout", 200, 15 * time.Second, 3},
		{"a byte now and then", delivertest.Step{Body: strings.Repeat("x", 100), Slow: 2 * time.Second}, "body_timeout", 200, 15 * time.Second, 7},
		{"endless header", delivertest.Step{Raw: strings.Repeat("X-Header: value\r\n", 64), Fault: delivertest.Flood}, "bad_response", 0, 0, 0},
		{"endless header lines", delivertest.Step{Raw: ok + strings.Repeat("X-Header: value\r\n", 9000), Fault: delivertest.Hang}, "bad_response", 0, 0, 0},
		{"endless header line", delivertest.Step{Raw: ok + "X-Header: " + strings.Repeat("x", 100<<10), Fault: delivertest.Hang}, "bad_response", 0, 0, 0},
		{"endless 1xx", delivertest.Step{Raw: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", Fault: delivertest.Flood}, "bad_response", 0, 0, 0},
		{"endless 1xx of what is not kept", delivertest.Step{Raw: "HTTP/1.1 103 Early Hints\r\n" + strings.Repeat("Trailer: x\r\n", 1000) + "\r\n", Fault: delivertest.Flood}, "bad_response", 0, 0, 0},
		{"not HTTP", delivertest.Step{Raw: "SSH-2.0-OpenSSH_9.9\r\n", Fault: delivertest.Hang}, "bad_response", 0, 0, 0},
		{"broken chunks", delivertest.Step{Raw: ok + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", Fault: delivertest.Hang}, "body_cut", 200, 0, 0},
		{"little in many chunks", delivertest.Step{Raw: ok + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1;"+strings.Repeat("x", 100)+"\r\nx\r\n", 1000), Fault: delivertest.Hang}, "body_cut", 200, 0, 186},
		{"trailers without end", delivertest.Step{Raw: ok + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("X-A: 1\r\n", 10000), Fault: delivertest.Hang}, "body_cut", 200, 0, 0},
		{"body cut off", delivertest.Step{Raw: ok + "Content-Length: 9\r\n\r\nabc", Fault: delivertest.Close}, "body_cut", 200, 0, 3},
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

// Fault F30, S10: whatever a receiver does over HTTP/2, or over net/http's HTTP/1.1, an
// attempt ends at its total time or at a limit, little is read, and a healthy endpoint
// beside it notices nothing. TestEndlessAnswers has the same for HTTP/1.1.
func TestHostileReceivers(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	bomb := gzipped(8 << 20)
	for _, c := range []struct {
		name     string
		protocol string
		step     delivertest.Step
		code     string
		took     time.Duration
		kept     int // bytes of the body
	}{
		{"no answer", "h2", delivertest.Step{Fault: delivertest.Hang}, "timeout", 15 * time.Second, 0},
		{"a byte now and then", "h2", delivertest.Step{Body: strings.Repeat("x", 100), Slow: 2 * time.Second}, "body_timeout", 15 * time.Second, 7},
		{"body that stops", "h2", delivertest.Step{Serve: func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte("abc"))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}}, "body_timeout", 15 * time.Second, 3},
		{"endless body", "h2", delivertest.Step{Serve: forEver(func(w http.ResponseWriter) error {
			_, err := w.Write(make([]byte, 32<<10))
			return err
		})}, "", 0, maxKeptBody},
		{"endless 1xx", "h2", delivertest.Step{Serve: forEver(func(w http.ResponseWriter) error {
			w.WriteHeader(http.StatusEarlyHints)
			return nil
		})}, "bad_response", 0, 0},
		// net/http breaks the connection, and does not tell that it was its own doing.
		{"large header", "h2", delivertest.Step{Serve: headerOf(100 << 10)}, "connection_reset", 0, 0},
		{"gzip bomb", "h2", delivertest.Step{Body: bomb, Header: map[string]string{"Content-Encoding": "gzip"}}, "", 0, min(len(bomb), maxKeptBody)},
		{"body cut off", "h2", delivertest.Step{Serve: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("abc"))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}}, "body_cut", 0, 3},

		{"no answer", "http/1.1", delivertest.Step{Fault: delivertest.Hang}, "timeout", 15 * time.Second, 0},
		{"a byte now and then", "http/1.1", delivertest.Step{Body: strings.Repeat("x", 100), Slow: 2 * time.Second}, "body_timeout", 15 * time.Second, 7},
		{"endless header", "http/1.1", delivertest.Step{Raw: ok + strings.Repeat("X-Header: value\r\n", 9000), Fault: delivertest.Hang}, "bad_response", 0, 0},
		{"endless 1xx", "http/1.1", delivertest.Step{Raw: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", Fault: delivertest.Flood}, "bad_response", 0, 0},
		{"endless body", "http/1.1", delivertest.Step{Raw: ok + "Content-Length: 99999999999\r\n\r\n" + strings.Repeat("x", 1<<20), Fault: delivertest.Hang}, "", 0, maxKeptBody},
		{"gzip bomb", "http/1.1", delivertest.Step{Body: bomb, Header: map[string]string{"Content-Encoding": "gzip"}}, "", 0, min(len(bomb), maxKeptBody)},
	} {
		t.Run(c.protocol+" "+c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				receiver := delivertest.NewEndpoint(c.step)
				hostile := w.secureInMemory("hostile", receiver, c.protocol)
				hostile.HTTP2 = true
				healthy := w.inMemory("healthy", delivertest.NewEndpoint())
				read := w.meter(hostile.URL.Host)
				w.start(hostile, healthy)
				w.accept(1, "hostile")
				w.accept(10, "healthy")
				var a outbox.Attempt
				for _, r := range w.await(11) {
					if r.Endpoint == "hostile" {
						a = r.Attempt
					} else if r.State != outbox.Delivered || r.Attempt.Took != 0 {
						t.Errorf("healthy endpoint: %s after %s", r.State, r.Attempt.Took)
					}
				}
				w.stop()
				if a.Code != c.code || a.Took != c.took || len(a.Body) != c.kept {
					t.Errorf("code %q after %s, kept %d bytes (%s), want %q after %s, %d", a.Code, a.Took, len(a.Body), a.Error, c.code, c.took, c.kept)
				}
				if n := read.Load(); n > maxHeader+2*maxBody+room {
					t.Errorf("%d bytes were read", n)
				}
				if n := len(receiver.Requests()); n != 1 {
					t.Errorf("%d requests for one attempt", n)
				}
			})
		})
	}
}

// room is for what TLS, HTTP/2 and the buffers of readers add.
const room = 64 << 10

// Fault F30: memory does not grow with what receivers send.
func TestMemoryStaysFlat(t *testing.T) {
	for _, protocol := range []string{"h2", "http/1.1"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			block := make([]byte, 32<<10)
			e := w.secureInMemory("billing", delivertest.NewEndpoint(delivertest.Step{Serve: forEver(func(w http.ResponseWriter) error {
				_, err := w.Write(block)
				return err
			})}), protocol)
			w.start(e)
			heap := func() int64 {
				var m runtime.MemStats
				synctest.Wait() // receivers learn that connections have ended, and let go of what they had to write
				runtime.GC()
				runtime.ReadMemStats(&m)
				return int64(m.HeapAlloc)
			}
			w.accept(10, "billing")
			w.await(10)
			before := heap()
			const more = 40
			w.accept(more, "billing")
			w.await(10 + more)
			// The outbox keeps the attempts' records, 16 KiB of body each.
			if grown := heap() - before; grown > more*maxKeptBody+4<<20 {
				t.Errorf("%s: heap grew by %d KiB in %d attempts", protocol, grown>>10, more)
			}
		})
	}
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
		w.accept(events, "billing")
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
	})
}

// Fault F31: a receiver resets the connection before or during the request; TestOneRequestForOneAttempt has after it. That
// is one recorded attempt on one connection, whatever sends it and whatever promises
// its headers make that repeating does no harm.
func TestResets(t *testing.T) {
	const size = 1 << 20
	for _, c := range []struct {
		name string
		read int // bytes of the request, beside TLS; -1 for none of TLS either
	}{
		{"before", -1},
		{"before, after the handshake", 0},
		{"within the header", 40},
		{"within the body", 1000},
		{"within the body, later", size / 2},
	} {
		for _, protocol := range []string{"", "http/1.1", "h2"} {
			t.Run(fmt.Sprintf("%s, %q", c.name, protocol), func(t *testing.T) {
				if protocol == "h2" && c.read == size/2 {
					c.read = 50_000 // no more comes without the receiver's leave
				}
				w := newWorld(t)
				a := delivertest.NewAuthority(t)
				w.o.Network.Roots = a.Pool()
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				var accepted atomic.Int64
				var serving sync.WaitGroup
				serving.Go(func() {
					for {
						conn, err := l.Accept()
						if err != nil {
							return
						}
						accepted.Add(1)
						var in net.Conn = conn
						if protocol != "" && c.read >= 0 {
							server := a.Issue("billing.test", time.Now().Add(time.Hour))
							server.NextProtos = []string{protocol}
							in = tls.Server(conn, server)
							_ = in.(*tls.Conn).Handshake()
						}
						_, _ = io.ReadFull(in, make([]byte, max(c.read, 0)))
						_ = conn.(*net.TCPConn).SetLinger(0)
						conn.Close()
					}
				})
				e := endpointAt("billing", &url.URL{Scheme: "http", Host: l.Addr().String()})
				if protocol != "" {
					e.URL.Scheme, e.HTTP2, e.TLS.ServerName = "https", true, "billing.test"
				}
				e.Headers = []policy.Header{{Name: "Idempotency-Key", Value: config.NewSecret("k")}, {Name: "X-Idempotency-Key", Value: config.NewSecret("k")}}
				e.Retry.Schedule = []time.Duration{time.Nanosecond, time.Nanosecond}
				w.start(e)
				w.acceptSized(size)
				w.await(3)
				w.stop()
				results := w.await(3)
				l.Close()
				serving.Wait()
				for _, r := range results {
					if r.Attempt.Code != "connection_reset" || r.Attempt.Status != 0 {
						t.Errorf("attempt %d: code %q (%s), want connection_reset", r.Attempt.N, r.Attempt.Code, r.Attempt.Error)
					}
				}
				if accepted.Load() != 3 || len(results) != 3 {
					t.Errorf("%d connections for %d attempts, want 3, 3", accepted.Load(), len(results))
				}
			})
		}
	}
}

// Fault F32, HTTP/1.1: one attempt loses its time on a dead connection. Other idle ones
// are not tried one after the other.
func TestDeadIdleConnections(t *testing.T) {
	for _, c := range []struct {
		name  string
		http2 bool // by the policy; the receiver has HTTP/1.1 only
	}{{"http1", false}, {"http2 = true", true}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				receiver := delivertest.NewEndpoint(delivertest.Step{Delay: time.Second})
				e := w.secureInMemory("billing", receiver, "http/1.1")
				e.HTTP2 = c.http2
				e.Retry.Schedule = []time.Duration{time.Millisecond}
				w.start(e)
				w.accept(4, "billing") // as many connections as there are slots
				w.await(4)
				w.net.Lose()
				w.accept(1, "billing")
				results := w.await(6)
				if a := results[4].Attempt; a.Code != "timeout" || !results[4].Reused {
					t.Errorf("attempt on a dead connection: %q (%s), reused %t, want timeout", a.Code, a.Error, results[4].Reused)
				}
				if r := results[5]; r.State != outbox.Delivered || r.Reused {
					t.Errorf("the attempt after it: %s, reused connection %t (%s)", r.State, r.Reused, r.Attempt.Error)
				}
			})
		})
	}
}
