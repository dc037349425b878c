package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"relay/ingest/listen"
	"relay/internal/testkit"
	"relay/outbox/outboxtest"
)

// pipes is a listener whose connections are net.Pipe, for tests in a bubble.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	ended chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), ended: make(chan struct{})} }

func (p *pipes) dial(t *testing.T) *wire {
	client, server := net.Pipe()
	p.conns <- server
	return newWire(t, client)
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.ended) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// TestSlow: a client that stalls is cut off at the deadline, and nothing of what
// it sent is stored (bad inputs B12, B13).
func TestSlow(t *testing.T) {
	tests := map[string]struct {
		send   string
		answer string // the statuses that come, in their order
		after  time.Duration
	}{
		"nothing":           {send: "", answer: "", after: 5 * time.Second},
		"half a line":       {send: "POST /v1/events/a HT", answer: "408", after: 5 * time.Second},
		"half the headers":  {send: head, answer: "408", after: 5 * time.Second},
		"half a body":       {send: head + "Content-Length: 9\r\n\r\n{}", answer: "408", after: 30 * time.Second},
		"half a chunk":      {send: head + "Transfer-Encoding: chunked\r\n\r\n5\r\n{}", answer: "408", after: 30 * time.Second},
		"expects, no body":  {send: head + "Expect: 100-continue\r\nContent-Length: 9\r\n\r\n", answer: "100 408", after: 30 * time.Second},
		"idle after answer": {send: withLength("{"), answer: "400", after: 2 * time.Minute},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, rec, _ := newIngest(t, Options{})
				l := newPipes()
				serve(t, l, NewServer(ServerOptions{Ingest: in, Guard: listen.Guard{AnyHost: true}}))
				start := time.Now()
				w := l.dial(t)
				if test.send != "" {
					w.send(test.send)
				}
				for _, status := range strings.Fields(test.answer) {
					if res, body := w.read(); strconv.Itoa(res.StatusCode) != status {
						t.Fatalf("got %d %s, want %s", res.StatusCode, body, status)
					}
				}
				w.closed()
				if took := time.Since(start); took != test.after {
					t.Errorf("closed after %s, want %s", took, test.after)
				}
				if len(rec.entries()) > 0 {
					t.Error("something was stored")
				}
			})
		})
	}
}

// TestHalfBody is TestSlow's sibling on real sockets: the client ends its side
// instead of stalling.
func TestHalfBody(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			in, rec, _ := newIngest(t, Options{})
			var addr string
			if network == "tcp" {
				addr = serveTCP(t, in, listen.Guard{})
			} else {
				addr = filepath.Join(testkit.Dir(t), "relay.sock")
				serve(t, listenUnix(t, addr), NewServer(ServerOptions{Ingest: in, Guard: listen.Guard{AnyHost: true}}))
			}

			w := dial(t, network, addr)
			w.send(withLength(`{"whole":1}`))
			if res, body := w.read(); res.StatusCode != 202 {
				t.Fatalf("whole body: %d %s", res.StatusCode, body)
			}
			w.send(head + "Content-Length: 9\r\n\r\n{}")
			if err := w.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			res, body := w.read()
			if res.StatusCode != 400 || decodeAnswer(t, body).Code != "invalid_body" {
				t.Errorf("half a body: %d %s", res.StatusCode, body)
			}
			w.closed()
			if n := len(rec.entries()); n != 1 {
				t.Errorf("%d events stored, want 1", n)
			}
		})
	}
}

// TestBytesInFlight: bodies beyond the budget are shed, and room comes back
// (fault F46).
func TestBytesInFlight(t *testing.T) {
	in, _, _ := newIngest(t, Options{MaxBody: 100, maxInFlight: 220})
	addr := serveTCP(t, in, listen.Guard{})
	long := `"` + strings.Repeat("x", 98) + `"`
	expecting := func(headers string) *wire {
		w := dial(t, "tcp", addr)
		w.send(head + "Expect: 100-continue\r\n" + headers + "\r\n\r\n")
		return w
	}
	first, second := expecting("Content-Length: 100"), expecting("Transfer-Encoding: chunked")
	for _, w := range []*wire{first, second} {
		if res, _ := w.read(); res.StatusCode != 100 { // it waits for the body now
			t.Fatalf("got %d, want 100", res.StatusCode)
		}
	}

	third := expecting("Content-Length: 21")
	res, body := third.read()
	if res.StatusCode != 503 || decodeAnswer(t, body).Code != "overloaded" || res.Header.Get("Retry-After") != "1" || !res.Close {
		t.Fatalf("got %d %s", res.StatusCode, body)
	}
	small := dial(t, "tcp", addr)
	small.send(withLength(`"small, but it goes"`))
	if res, body := small.read(); res.StatusCode != 202 {
		t.Fatalf("small body: %d %s", res.StatusCode, body)
	}

	first.send(long)
	second.send("64\r\n" + long + "\r\n0\r\n\r\n")
	for _, w := range []*wire{first, second} {
		if res, body := w.read(); res.StatusCode != 202 {
			t.Fatalf("got %d %s, want 202", res.StatusCode, body)
		}
	}
	again := dial(t, "tcp", addr)
	again.send(withLength(long))
	if res, body := again.read(); res.StatusCode != 202 {
		t.Fatalf("after that: %d %s", res.StatusCode, body)
	}
}

// TestBodiesAreApart: bodies share memory from request to request, events do not.
func TestBodiesAreApart(t *testing.T) {
	in, rec, _ := newIngest(t, Options{})
	addr := serveTCP(t, in, listen.Guard{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			w := dial(t, "tcp", addr)
			for j := range 50 {
				data := fmt.Sprintf(`"%d-%d-%s"`, i, j, strings.Repeat("x", j))
				if _, err := io.WriteString(w, withLength(data)); err != nil {
					t.Error(err)
					return
				}
				res, err := http.ReadResponse(w.in, nil)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, e := range rec.entries() {
		if !json.Valid(e.Event.Data) {
			t.Fatalf("stored %q", e.Event.Data)
		}
		seen[string(e.Event.Data)] = true
	}
	if len(seen) != 400 {
		t.Errorf("%d different events, want 400", len(seen))
	}
}

// servers are both servers, in front of the same Ingest.
func servers(in *Ingest, maxConns int) map[string]server {
	return map[string]server{
		"events": NewServer(ServerOptions{Ingest: in, Guard: listen.Guard{AnyHost: true}, MaxConns: maxConns}),
		"admin":  listen.NewServer(listen.ServerOptions{Handler: listen.Guard{AnyHost: true}.Wrap(reference{in}), MaxConns: maxConns}),
	}
}

// inBubble runs a test in a bubble for each of the servers.
func inBubble(t *testing.T, do func(t *testing.T, in *Ingest, faulty *outboxtest.Faulty, s server)) {
	for _, name := range []string{"events", "admin"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, _, faulty := newIngest(t, Options{})
				do(t, in, faulty, servers(in, 1)[name])
			})
		})
	}
}

// TestConnectionCap: connections over the cap wait for a place.
func TestConnectionCap(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *Ingest, _ *outboxtest.Faulty, s server) {
		l := newPipes()
		serve(t, l, s)
		first, second := l.dial(t), l.dial(t)
		answered := make(chan int)
		go func() {
			second.send(withLength("1")) // blocks: a pipe has no buffer
			res, _ := second.read()
			answered <- res.StatusCode
		}()
		synctest.Wait()
		select {
		case status := <-answered:
			t.Fatalf("a second connection was answered beside the first: %d", status)
		default:
		}
		first.Close()
		if status := <-answered; status != 202 {
			t.Errorf("got %d", status)
		}
	})
}

// TestShutdownAtTheCap: a connection that waits for a place is let go at once,
// while a request under way is answered.
func TestShutdownAtTheCap(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *Ingest, faulty *outboxtest.Faulty, s server) {
		commit := make(chan struct{})
		faulty.Before("Accept", func(context.Context) error {
			<-commit
			return nil
		})
		l := newPipes()
		served, shut := make(chan error), make(chan error)
		go func() { served <- s.Serve(l) }()
		first, second := l.dial(t), l.dial(t)
		first.send(withLength("1"))
		synctest.Wait() // until it is being handled
		go func() { shut <- s.Shutdown(t.Context()) }()
		if err := <-served; !errors.Is(err, listen.ErrServerClosed) {
			t.Error(err)
		}
		second.closed()
		close(commit)
		if res, body := first.read(); res.StatusCode != 202 {
			t.Errorf("got %d %s", res.StatusCode, body)
		}
		if err := <-shut; err != nil {
			t.Error(err)
		}
	})
}

// TestClientLeaves: the client goes while its event is being committed. What is
// committed stays, and the repeat is known as one.
func TestClientLeaves(t *testing.T) {
	in, rec, faulty := newIngest(t, Options{})
	addr := serveTCP(t, in, listen.Guard{})
	committed, gone := make(chan struct{}), make(chan struct{})
	faulty.After("Accept", func(ctx context.Context, err error) error {
		close(committed)
		<-gone
		return err
	})
	request := strings.Replace(withLength("1"), "\r\n", "\r\nIdempotency-Key: k\r\n", 1)
	first := dial(t, "tcp", addr)
	first.send(request)
	<-committed
	first.Close()
	faulty.After("Accept", nil)
	close(gone)

	second := dial(t, "tcp", addr)
	second.send(request)
	res, body := second.read()
	if got := decodeAnswer(t, body); res.StatusCode != 202 || !got.Duplicate || got.ID != rec.entries()[0].Event.ID {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
}

// TestServerLog: what net/http has to say goes to the log.
func TestServerLog(t *testing.T) {
	var said bytes.Buffer
	s := listen.NewServer(listen.ServerOptions{Handler: http.NotFoundHandler(), Log: zerolog.New(&said)})
	s.ErrorLog.Print("accept: too many open files\nbecause")
	want := `{"level":"warn","error":"accept: too many open files\nbecause","message":"http server"}` + "\n"
	if diff := cmp.Diff(want, said.String()); diff != "" {
		t.Error(diff)
	}
	for name, d := range map[string]time.Duration{"header": s.ReadHeaderTimeout, "read": s.ReadTimeout, "write": s.WriteTimeout, "idle": s.IdleTimeout} {
		if d <= 0 {
			t.Errorf("no %s timeout", name)
		}
	}
	if s.WriteTimeout < s.ReadTimeout+acceptTimeout {
		t.Error("the answer to a slow body could be cut off")
	}
}
