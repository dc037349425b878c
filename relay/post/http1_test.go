package post

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/outbox"
	"relay/policy/sign"
	"relay/relay/deliver/delivertest"
)

// A request is what it was given, byte for byte, with what HTTP needs and nothing else.
func TestRequestOnTheWire(t *testing.T) {
	for _, c := range []struct {
		name, url string
		line      string
		host      string
	}{
		{"plain", "http://billing.test/hook", "/hook", "billing.test"},
		{"no path", "http://billing.test", "/", "billing.test"},
		{"query without path", "http://billing.test?a=b", "/?a=b", "billing.test"},
		{"port", "http://billing.test:8080/", "/", "billing.test:8080"},
		{"port of the scheme", "http://billing.test:80/", "/", "billing.test"},
		{"port of the other scheme", "http://billing.test:443/", "/", "billing.test:443"},
		{"trailing dot", "http://billing.test./", "/", "billing.test"},
		{"trailing dot and port", "http://billing.test.:8080/", "/", "billing.test:8080"},
		{"trailing dot and port of the scheme", "http://billing.test.:80/", "/", "billing.test"},
		{"IPv6, port of the scheme", "http://[::1]:80/", "/", "[::1]"},
		{"IPv6", "http://[::1]:8080/", "/", "[::1]:8080"},
		{"as written", "http://Billing.test/a//b/../c/./%7Ed%2fe%2Ff/;g=h,i?j=%20k+l&&m=/?n:@!$'()*", "/a//b/../c/./%7Ed%2fe%2Ff/;g=h,i?j=%20k+l&&m=/?n:@!$'()*", "Billing.test"},
		{"empty query", "http://billing.test/hook?", "/hook?", "billing.test"},
		{"star", "http://billing.test/*", "/*", "billing.test"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := url.Parse(c.url)
			if err != nil {
				t.Fatal(err)
			}
			var wire strings.Builder
			e := endpointAt("billing", u)
			s := newHTTP1(t.Context(), e, &dialer{plaintext: true, dialNet: func(context.Context, string, string) (net.Conn, error) {
				return &recorded{told: told{say: strings.NewReader(ok + "\r\n"), asked: make(chan struct{}), gone: make(chan struct{})}, wire: &wire}, nil
			}}, &sync.Pool{New: newExchange})
			defer s.Close()
			header := []sign.Header{
				{Name: "Content-Type", Value: "text/x"}, {Name: "user-agent", Value: "u"}, {Name: "webhook-id", Value: "evt_1"}, {Name: "X-mixedCASE", Value: " a  b "},
				{Name: "X-Sum", Value: "1"}, {Name: "X-Sum", Value: "2"}, {Name: "cookie", Value: "b=1; a; b=2"}, {Name: "X-Empty", Value: ""},
				{Name: "X-Lines", Value: "a\r\nX-Other: b\nc"},
			}
			if _, f := s.Send(t.Context(), Request{Header: header, Body: []byte("{}"), Until: time.Now().Add(time.Minute)}); f != nil {
				t.Fatal(f)
			}
			want := "POST " + c.line + " HTTP/1.1\r\nHost: " + c.host + "\r\nContent-Type: text/x\r\nuser-agent: u\r\nwebhook-id: evt_1\r\nX-mixedCASE:  a  b \r\n" +
				"X-Sum: 1\r\nX-Sum: 2\r\ncookie: b=1; a; b=2\r\nX-Empty: \r\nX-Lines: a  X-Other: b c\r\nContent-Length: 2\r\n\r\n{}"
			if diff := cmp.Diff(want, wire.String()); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

// recorded keeps what is written to it.
type recorded struct {
	told
	wire *strings.Builder
}

func (c *recorded) Write(b []byte) (int, error) {
	c.wire.Write(b)
	return c.told.Write(b)
}

// Which answers leave a connection that can be used again.
func TestKeptConnections(t *testing.T) {
	for _, c := range []struct {
		name string
		raw  string
		body string
		kept bool
	}{
		{"sized", ok + "Content-Length: 2\r\n\r\nok", "ok", true},
		{"empty", ok + "Content-Length: 0\r\n\r\n", "", true},
		{"no content", "HTTP/1.1 204 No Content\r\n\r\n", "", true},
		{"chunks and trailers", ok + "Trailer: X-A\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\nX-A: 1\r\n\r\n", "ok", true},
		{"informational", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok + "Content-Length: 2\r\n\r\nok", "ok", true},
		{"64 KiB", ok + "Content-Length: 65536\r\n\r\n" + strings.Repeat("x", 65536), strings.Repeat("x", maxKeptBody), true},
		{"a large header", ok + "X: " + strings.Repeat("x", 60000) + "\r\nContent-Length: 2\r\n\r\nok", "ok", true},
		{"HTTP/1.0 that keeps", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", "ok", true},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", false},
		{"close", ok + "Connection: close\r\nContent-Length: 2\r\n\r\nok", "ok", false},
		{"Close among others", ok + "connection: x, Close\r\nContent-Length: 2\r\n\r\nok", "ok", false},
		{"close, said elsewhere than keep-alive", ok + "Connection: close\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", "ok", false},
		{"more than the answer", ok + "Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n", "ok", false},
		{"a body where none may be", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", "", false},
		{"more than 64 KiB", ok + "Content-Length: 65537\r\n\r\n" + strings.Repeat("x", 65537), strings.Repeat("x", maxKeptBody), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := w.inMemory("billing", delivertest.NewEndpoint())
				e.Concurrency = 1
				dials := 0
				w.o.Network.Dial = func(context.Context, string, string) (net.Conn, error) {
					dials++
					ours, theirs := net.Pipe()
					go sayToEach(theirs, c.raw)
					return ours, nil
				}
				w.start(e)
				w.accept(2, "billing")
				for i, r := range w.await(2) {
					if r.State != outbox.Delivered || string(r.Attempt.Body) != c.body {
						t.Errorf("attempt %d: %s, %q (%s)", i, r.State, clip(string(r.Attempt.Body)), r.Attempt.Error)
					}
				}
				if kept := dials == 1; kept != c.kept {
					t.Errorf("%d connections for two attempts, want it kept: %t", dials, c.kept)
				}
			})
		})
	}
}

// sayToEach answers each request on c with raw.
func sayToEach(c net.Conn, raw string) {
	defer c.Close()
	for in := bufio.NewReader(c); ; {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		if _, err := io.WriteString(c, raw); err != nil {
			return
		}
	}
}

// An answer may come before the request was wholly sent: it counts, and nothing
// more is sent. A receiver that reads nothing and says nothing costs the attempt's time.
func TestAnswersBeforeTheEndOfTheRequest(t *testing.T) {
	const early = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n"
	for _, c := range []struct {
		name   string
		say    string
		end    bool // the receiver closes
		status int
		code   string
		took   time.Duration
	}{
		{"answers and waits", early, false, 413, "", 0},
		{"answers and closes", early, true, 413, "", 0},
		{"waits", "", false, 0, "timeout", 15 * time.Second},
		{"closes", "", true, 0, "connection_reset", 0},
	} {
		for _, size := range []int{1 << 20, 100} { // beyond maxAtOnce, and below
			t.Run(fmt.Sprintf("%s after some of %d bytes", c.name, size), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					e := w.inMemory("billing", delivertest.NewEndpoint())
					over := make(chan struct{})
					t.Cleanup(func() { close(over) })
					w.o.Network.Dial = func(context.Context, string, string) (net.Conn, error) {
						ours, theirs := net.Pipe()
						go func() {
							defer theirs.Close()
							if size > maxAtOnce {
								_, _ = io.ReadFull(theirs, make([]byte, 100))
							} else {
								_, _ = http.ReadRequest(bufio.NewReader(theirs)) // small requests come at once
							}
							_, _ = io.WriteString(theirs, c.say)
							if !c.end {
								<-over
							}
						}()
						return ours, nil
					}
					w.start(e)
					w.acceptSized(size)
					if a := w.await(1)[0].Attempt; a.Status != c.status || a.Code != c.code || a.Took != c.took {
						t.Errorf("status %d, code %q after %s (%s), want %d, %q after %s", a.Status, a.Code, a.Took, a.Error, c.status, c.code, c.took)
					}
				})
			})
		}
	}
}

// The same on a real socket, where what is not read fills buffers.
func TestEarlyAnswerOnTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	var serving sync.WaitGroup
	serving.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.ReadFull(c, make([]byte, 100))
		_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
		<-done
	})
	w := newWorld(t)
	e := endpointAt("billing", &url.URL{Scheme: "http", Host: l.Addr().String()})
	e.Timeout.Total = time.Minute
	w.start(e)
	w.acceptSized(32 << 20)
	if a := w.await(1)[0].Attempt; a.Status != 413 || a.Code != "" {
		t.Errorf("status %d, code %q (%s), want 413", a.Status, a.Code, a.Error)
	}
	close(done)
	serving.Wait()
}

// answering is a connection whose receiver answers each request at once.
type answering struct {
	net.Conn
	answer string

	asked         bool
	reads, writes int
}

func (c *answering) Write(b []byte) (int, error) {
	c.asked = true
	c.writes++
	return len(b), nil
}

func (c *answering) Read(b []byte) (int, error) {
	if !c.asked {
		return 0, errPeeking{}
	}
	c.asked = false
	c.reads++
	return copy(b, c.answer), nil
}

func (*answering) SetDeadline(time.Time) error { return nil }
func (*answering) Close() error                { return nil }
func (*answering) RemoteAddr() net.Addr        { return &net.TCPAddr{} }

// keeper returns a sender with one connection, which is kept, and one request for it.
func keeper(t testing.TB, answer string) (Sender, *answering, Request) {
	c := &answering{answer: answer}
	d := &dialer{plaintext: true, dialNet: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
	e := endpointAt("billing", &url.URL{Scheme: "http", Host: "billing.test", Path: "/hook"})
	s := newHTTP1(t.Context(), e, d, &sync.Pool{New: newExchange})
	t.Cleanup(s.Close)
	return s, c, Request{Header: []sign.Header{{Name: "webhook-id", Value: "evt_1"}}, Body: []byte(`{"a":1}`), Until: time.Now().Add(time.Hour)}
}

// A small request is one write, and an answer that comes in one piece one read.
func TestReadsAndWrites(t *testing.T) {
	s, c, r := keeper(t, ok+"Content-Length: 2\r\n\r\nok")
	for range 10 {
		if a, f := s.Send(t.Context(), r); f != nil || a.Status != 200 {
			t.Fatal(a, f)
		}
	}
	if c.writes != 10 || c.reads != 10 {
		t.Errorf("10 requests are %d writes and %d reads", c.writes, c.reads)
	}
}
