package deliver

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
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
	dial := w.o.dialNet
	w.o.dialNet = func(ctx context.Context, network, to string) (net.Conn, error) {
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
		{"a byte now and then", "h2", delivertest.Step{Body: strings.Repeat("x", 100), Slow: 2 * time.Second}, "timeout", 15 * time.Second, 7},
		{"body that stops", "h2", delivertest.Step{Serve: func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte("abc"))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}}, "timeout", 15 * time.Second, 3},
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
		}}, "connection_reset", 0, 3},

		{"no answer", "http/1.1", delivertest.Step{Fault: delivertest.Hang}, "timeout", 15 * time.Second, 0},
		{"a byte now and then", "http/1.1", delivertest.Step{Body: strings.Repeat("x", 100), Slow: 2 * time.Second}, "timeout", 15 * time.Second, 7},
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

// Fault F30: over HTTP/2 a receiver can send ahead of what is read, but little.
func TestUnreadBodyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		block := make([]byte, 32<<10)
		e := w.secureInMemory("billing", delivertest.NewEndpoint(delivertest.Step{Serve: forEver(func(w http.ResponseWriter) error {
			_, err := w.Write(block)
			return err
		})}), "h2")
		read := w.meter(e.URL.Host)
		s := newSender(t.Context(), e, &w.o, nil).(*http2)
		defer s.close()
		req, err := http.NewRequestWithContext(t.Context(), "POST", e.URL.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.http.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		synctest.Wait()
		if n := read.Load(); n > maxBody+room {
			t.Errorf("%d bytes came that nobody read", n)
		}
	})
}
