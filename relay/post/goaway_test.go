package post

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	h2 "golang.org/x/net/http2"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// A receiver that ends each connection in good order after a few streams costs no attempt, and no
// event reaches it twice.
func TestGoAwayAfterAFewStreams(t *testing.T) {
	for _, streams := range []int64{5, 2, 1} {
		t.Run(fmt.Sprint(streams), func(t *testing.T) {
			const events = 300
			type counter struct{}
			var mu sync.Mutex
			seen := map[string]int{}
			var conns atomic.Int64
			w := newWorld(t)
			a := delivertest.NewAuthority(t)
			w.o.Network.Roots = a.Pool()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{
				TLSConfig: a.Issue("billing.test", time.Now().Add(time.Hour)),
				ErrorLog:  log.New(io.Discard, "", 0),
				ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
					conns.Add(1)
					return context.WithValue(ctx, counter{}, new(atomic.Int64))
				},
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					seen[r.Header.Get("webhook-id")]++
					mu.Unlock()
					if r.Context().Value(counter{}).(*atomic.Int64).Add(1) == streams {
						w.Header().Set("Connection", "close") // GOAWAY
					}
				}),
			}
			server.TLSConfig.NextProtos = []string{"h2"}
			var serving sync.WaitGroup
			serving.Go(func() { _ = server.ServeTLS(l, "", "") })
			t.Cleanup(func() {
				_ = server.Close()
				serving.Wait()
			})

			e := endpointAt("billing", &url.URL{Scheme: "https", Host: l.Addr().String(), Path: "/hook"})
			e.HTTP2, e.Concurrency, e.TLS.ServerName, e.Timeout.Total = true, 16, "billing.test", time.Minute
			w.start(e)
			w.accept(events, "billing")
			for _, r := range w.await(events) {
				if r.State != outbox.Delivered {
					t.Errorf("%s: %q (%s)", r.EventID, r.Attempt.Code, r.Attempt.Error)
				}
			}
			w.stop()
			mu.Lock()
			defer mu.Unlock()
			if len(seen) != events || conns.Load() < 2 {
				t.Errorf("%d events came, on %d connections", len(seen), conns.Load())
			}
			for id, n := range seen {
				if n != 1 {
					t.Errorf("%s came %d times", id, n)
				}
			}
		})
	}
}

// frames serves HTTP/2 by hand: answer is called for each request with the number of requests
// so far on any connection. It returns false to end the connection.
func (w *world) frames(answer func(f *h2.Framer, stream uint32, n int64) bool) *policy.Endpoint {
	w.t.Helper()
	a := delivertest.NewAuthority(w.t)
	server := a.Issue("billing.test", time.Now().Add(1000*time.Hour))
	server.NextProtos = []string{"h2"}
	var requests atomic.Int64
	w.o.Network.Roots = a.Pool()
	w.o.Network.Dial = func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := delivertest.Pipe()
		go func() {
			c := tls.Server(theirs, server)
			defer c.Close()
			if _, err := io.ReadFull(c, make([]byte, len(h2.ClientPreface))); err != nil {
				return
			}
			f := h2.NewFramer(c, c)
			for err := f.WriteSettings(); err == nil; {
				var frame h2.Frame
				if frame, err = f.ReadFrame(); err != nil {
					return
				}
				switch frame := frame.(type) {
				case *h2.SettingsFrame:
					if !frame.IsAck() {
						err = f.WriteSettingsAck()
					}
				case *h2.DataFrame:
					if frame.StreamEnded() && !answer(f, frame.StreamID, requests.Add(1)) {
						return
					}
				}
			}
		}()
		return ours, nil
	}
	e := endpointAt("billing", &url.URL{Scheme: "https", Host: "billing.test", Path: "/hook"})
	e.HTTP2, e.Concurrency = true, 1
	return e
}

// status204 is the header block of an answer with :status 204, from HPACK's static table.
var status204 = []byte{0x89}

// A request is sent again within its attempt only where the receiver says that it did not process it.
func TestUnprocessedStreams(t *testing.T) {
	ok := func(f *h2.Framer, stream uint32) bool {
		_ = f.WriteHeaders(h2.HeadersFrameParam{StreamID: stream, BlockFragment: status204, EndHeaders: true, EndStream: true})
		return true
	}
	for _, c := range []struct {
		name     string
		refuse   func(f *h2.Framer, stream uint32) bool
		times    int64 // that refuse is called; then the receiver answers
		code     string
		requests int64
	}{
		{"refused", func(f *h2.Framer, s uint32) bool { return f.WriteRSTStream(s, h2.ErrCodeRefusedStream) == nil }, 3, "", 4},
		{"goaway before it", func(f *h2.Framer, s uint32) bool { return f.WriteGoAway(0, h2.ErrCodeNo, nil) == nil }, 3, "", 4},
		{"goaway and end", func(f *h2.Framer, s uint32) bool { _ = f.WriteGoAway(0, h2.ErrCodeNo, nil); return false }, 3, "", 4},
		{"goaway after it", func(f *h2.Framer, s uint32) bool { return f.WriteGoAway(s, h2.ErrCodeNo, nil) == nil && ok(f, s) }, 1, "", 1},
		{"goaway after it, and end", func(f *h2.Framer, s uint32) bool {
			_ = f.WriteGoAway(s, h2.ErrCodeNo, []byte("http2: client conn not usable; REFUSED_STREAM"))
			return false
		}, 1, "connection_reset", 1},
		{"error on a new connection", func(f *h2.Framer, s uint32) bool { return f.WriteGoAway(0, h2.ErrCodeEnhanceYourCalm, nil) == nil }, 1, "connection_reset", 1},
		{"broken", func(f *h2.Framer, s uint32) bool { return f.WriteRSTStream(s, h2.ErrCodeInternal) == nil }, 1, "connection_reset", 1},
		{"protocol error", func(f *h2.Framer, s uint32) bool { return f.WriteRSTStream(s, h2.ErrCodeProtocol) == nil }, 1, "connection_reset", 1},
		{"cancelled", func(f *h2.Framer, s uint32) bool { return f.WriteRSTStream(s, h2.ErrCodeCancel) == nil }, 1, "connection_reset", 1},
		{"end", func(*h2.Framer, uint32) bool { return false }, 1, "connection_reset", 1},
		{"refused for ever", func(f *h2.Framer, s uint32) bool { return f.WriteRSTStream(s, h2.ErrCodeRefusedStream) == nil }, 1 << 30, "timeout", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				var requests atomic.Int64
				e := w.frames(func(f *h2.Framer, stream uint32, n int64) bool {
					requests.Store(n)
					if n <= c.times {
						return c.refuse(f, stream)
					}
					return ok(f, stream)
				})
				w.start(e)
				w.accept(1, "billing")
				r := w.await(1)[0]
				w.stop()
				if r.Attempt.Code != c.code || c.requests != 0 && requests.Load() != c.requests {
					t.Errorf("%q (%s) after %d requests, want %q after %d", r.Attempt.Code, r.Attempt.Error, requests.Load(), c.code, c.requests)
				}
				if n := requests.Load(); n > 500 {
					t.Errorf("%d requests in one attempt", n)
				}
				if strings.Contains(r.Attempt.Error, "GetBody") {
					t.Errorf("the error is for programmers: %s", r.Attempt.Error)
				}
			})
		})
	}
}

// Attempts that begin together wait for one connection, and share what comes of it.
func TestFirstHTTP2ConnectionIsShared(t *testing.T) {
	for _, c := range []struct {
		protocol string
		conns    int
	}{{"h2", 1}, {"http/1.1", 16}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			receiver := delivertest.NewEndpoint(delivertest.Step{Delay: time.Second})
			e := w.secureInMemory("billing", receiver, c.protocol)
			e.HTTP2, e.Concurrency = true, 16
			w.start(e)
			w.accept(32, "billing")
			begin := time.Now()
			for _, r := range w.await(32) {
				if r.State != outbox.Delivered {
					t.Errorf("%q (%s)", r.Attempt.Code, r.Attempt.Error)
				}
			}
			if took := time.Since(begin); took != 2*time.Second || receiver.Conns() != c.conns {
				t.Errorf("%s: %s on %d connections, want 2s on %d", c.protocol, took, receiver.Conns(), c.conns)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.secureInMemory("billing", delivertest.NewEndpoint(), "h2")
		e.Concurrency = 16
		dials := 0
		w.o.Network.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			dials++
			<-ctx.Done()
			return nil, ctx.Err()
		}
		e.Timeout.Connect = time.Hour
		w.start(e)
		w.accept(16, "billing")
		for _, r := range w.await(16) {
			if r.Attempt.Code != policy.CodeTimeout || r.Attempt.Took != 15*time.Second {
				t.Errorf("%q after %s (%s), want timeout after 15s", r.Attempt.Code, r.Attempt.Took, r.Attempt.Error)
			}
		}
		if dials < 1 || dials > 16 {
			t.Errorf("%d dials", dials)
		}
	})
}
