package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"relay/internal/testkit"
	"sync"
	"testing"
	"time"
)

// neighbours are receivers that are no good, by what they do to those who send to them. Each
// returns its URL.
var neighbours = []struct {
	name string
	open func(t *testing.T) string
}{
	{"black hole", func(t *testing.T) string { return accepting(t, func(context.Context, net.Conn) {}) }},
	{"answers after 2 s", func(t *testing.T) string {
		return answering(t, func(_ http.ResponseWriter, r *http.Request) { wait(r.Context(), 2*time.Second) })
	}},
	{"503 with Retry-After", func(t *testing.T) string {
		return answering(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		})
	}},
	{"refuses connections", func(t *testing.T) string { return fmt.Sprintf("http://127.0.0.1:%d/", testkit.Port(t)) }},
	{"1 byte/s", func(t *testing.T) string {
		return accepting(t, func(ctx context.Context, c net.Conn) {
			for _, b := range []byte("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n") {
				if _, err := c.Write([]byte{b}); err != nil || !wait(ctx, time.Second) {
					return
				}
			}
		})
	}},
}

func answering(t *testing.T, h http.HandlerFunc) string {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// accepting takes connections and reads what comes; say is what it has to say.
func accepting(t *testing.T, say func(context.Context, net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				end := context.AfterFunc(ctx, func() { _ = c.Close() })
				defer end()
				serving.Go(func() { say(ctx, c) })
				_, _ = io.Copy(io.Discard, c)
			})
		}
	})
	t.Cleanup(func() {
		stop()
		_ = l.Close()
		serving.Wait()
	})
	return "http://" + l.Addr().String() + "/"
}

// Promise P8: a bad receiver delays the deliveries of no other endpoint. With RELAY_FIGURES
// set the logged ratio of the 99th percentiles is the promised one, 2 at most.
func TestIsolation(t *testing.T) {
	healthy, perSecond, length, bad := 10, 100, 300*time.Millisecond, 100
	if figures() {
		healthy, perSecond, length, bad = 50, 1000, 20*time.Second, 200
	}
	for _, e := range engines() {
		for _, n := range neighbours {
			t.Run(e.name+"/"+n.name, func(t *testing.T) {
				if !figures() {
					t.Parallel() // it mostly waits
				}
				blocks := []block{{name: "bad", url: n.open(t)}}
				var names []string
				for i := range healthy {
					names = append(names, fmt.Sprint("h", i))
					blocks = append(blocks, block{name: names[i]})
				}
				l := load(t, e, blocks...)
				want := int(length / (time.Second / time.Duration(perSecond)))
				l.drip("warm", perSecond, length/4, names...)
				l.arrived(want/4, names...)

				l.drip("alone", perSecond, length, names...)
				alone := l.arrived(want, names...)
				var posting sync.WaitGroup
				posting.Go(func() { l.drip("bad", bad, length, "bad") })
				l.drip("beside", perSecond, length, names...)
				beside := l.arrived(want, names...)
				posting.Wait()
				undelayed(t, alone, beside)
				ratio := func(q float64) float64 { return float64(at(beside, q)) / float64(at(alone, q)) }
				t.Logf("%d events/s at %d endpoints: alone p50 %s, p99 %s; beside %d/s for a neighbour p50 %s (× %.2f), p99 %s (× %.2f); RSS %d MiB",
					perSecond, healthy, at(alone, 0.5), at(alone, 0.99), bad, at(beside, 0.5), ratio(0.5), at(beside, 0.99), ratio(0.99), l.memory())
			})
		}
	}
}
