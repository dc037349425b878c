package ingest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"relay/ingest/listen"
	"relay/internal/testkit"
	"relay/outbox"
)

// TestPipelined: requests sent without waiting are answered in their order, and
// what a refused one leaves is not read as a request.
func TestPipelined(t *testing.T) {
	in, rec, _ := newIngest(t, Options{})
	w := dial(t, "tcp", serveTCP(t, in, listen.Guard{}))
	chunked := head + "Transfer-Encoding: chunked\r\n\r\n3\r\n\"c\"\r\n0\r\n\r\n"
	long := `"` + strings.Repeat("x", 2*readBuffer) + `"`
	w.send(withLength("1") + chunked + strings.Replace(withLength("2"), "POST", "PUT", 1) + withLength(long) +
		strings.Replace(withLength(long), "localhost", "evil.example", 1) + withLength("4") +
		head + "X-Long: " + strings.Repeat("x", 2*readBuffer) + "\r\nContent-Length: 1\r\n\r\n5" + withLength("6") +
		head + "Content-Length: -1\r\n\r\n" + withLength("7"))
	for i, want := range []int{202, 202, 405, 202, 421, 202, 202, 202, 400} {
		if res, body := w.read(); res.StatusCode != want {
			t.Fatalf("answer %d: %d %s, want %d", i, res.StatusCode, body, want)
		}
	}
	w.closed()
	var got []string
	for _, e := range rec.entries() {
		got = append(got, string(e.Event.Data))
	}
	if want := []string{"1", `"c"`, long, "4", "5", "6"}; strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("stored %.200q", got)
	}
}

// TestHead: the answer to HEAD has a length and no body.
func TestHead(t *testing.T) {
	in, _, _ := newIngest(t, Options{})
	w := dial(t, "tcp", serveTCP(t, in, listen.Guard{}))
	w.send("HEAD /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n" + withLength("1"))
	res, err := http.ReadResponse(w.in, &http.Request{Method: "HEAD"})
	if err != nil || res.StatusCode != 405 || res.ContentLength < 10 {
		t.Fatalf("got %+v %v", res, err)
	}
	if res, body := w.read(); res.StatusCode != 202 {
		t.Errorf("the next: %d %s", res.StatusCode, body)
	}
}

// TestGuardAsksEachRequest: that one request of a connection may pass says
// nothing about the next.
func TestGuardAsksEachRequest(t *testing.T) {
	in, rec, _ := newIngest(t, Options{})
	addr := serveTCP(t, in, listen.Guard{Token: "t0ken"})
	w := dial(t, "tcp", addr)
	known := strings.Replace(withLength("1"), "\r\n", "\r\nAuthorization: Bearer t0ken\r\n", 1)
	with := func(header string) string { return strings.Replace(known, "\r\n", "\r\n"+header+"\r\n", 1) }
	for _, step := range []struct {
		send   string
		status int
	}{
		{withLength("1"), 401}, {known, 202}, {known, 202}, {withLength("1"), 401}, {known, 202},
		{strings.Replace(known, "t0ken", "t0kem", 1), 401},
		{strings.Replace(known, "localhost", "evil.example", 1), 421},
		{strings.Replace(known, "/v1", "http://evil.example/v1", 1), 421},
		{with("Origin: https://evil.example"), 403}, {with("Sec-Fetch-Site: cross-site"), 403}, {with("Sec-Fetch-Site: none"), 202}, {known, 202},
	} {
		w.send(step.send)
		if res, body := w.read(); res.StatusCode != step.status {
			t.Fatalf("got %d %s, want %d for %q", res.StatusCode, body, step.status, step.send)
		}
		if step.status == 401 { // no connection is kept for one without a token
			w.closed()
			w = dial(t, "tcp", addr)
		}
	}
	if n := len(rec.entries()); n != 5 {
		t.Errorf("%d events stored", n)
	}
}

// TestPanic: a panic is told to its client and to the log, once, and to nobody
// else.
func TestPanic(t *testing.T) {
	var said bytes.Buffer
	bad := New(Options{Outbox: nowhere{}, Route: func(e *outbox.Event) ([]string, []outbox.Term) {
		if e.Type == "a" {
			panic("no route")
		}
		return nil, nil
	}})
	l, err := listen.TCP(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, NewServer(ServerOptions{Ingest: bad, Log: zerolog.New(&said)}))
	w, other := dial(t, "tcp", l.Addr().String()), dial(t, "tcp", l.Addr().String())
	w.send(withLength("1"))
	res, body := w.read()
	if got := decodeAnswer(t, body); res.StatusCode != 500 || got.Code != "internal_error" || !res.Close || strings.Contains(string(body), "route") {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
	w.closed()
	if got := said.String(); strings.Count(got, "panic: no route") != 1 || strings.Count(got, "\n") != 1 || !strings.Contains(got, `"level":"error"`) {
		t.Errorf("logged %s", got)
	}
	other.send(strings.Replace(withLength("1"), "/a ", "/b ", 1))
	if res, body := other.read(); res.StatusCode != 202 {
		t.Errorf("another connection: %d %s", res.StatusCode, body)
	}
	if n := bad.inFlight.Load(); n != 0 {
		t.Errorf("%d bytes of bodies are still counted", n)
	}
}

// TestOutboxKeepsTheBatch: an outbox that was given up on may still write the
// batch, long after the memory of the request is used for others.
func TestOutboxKeepsTheBatch(t *testing.T) {
	for name, size := range map[string]int{"in the connection's buffer": 100, "in a buffer of its own": 3 * readBuffer} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, rec, faulty := newIngest(t, Options{})
				l := newPipes()
				serve(t, l, NewServer(ServerOptions{Ingest: in, Guard: listen.Guard{AnyHost: true}}))
				faulty.Before("Accept", func(ctx context.Context) error {
					<-ctx.Done()
					return ctx.Err()
				})
				w := l.dial(t)
				request := func(letter string) string {
					text := withLength(`"` + strings.Repeat(letter, size) + `"`)
					return strings.NewReplacer("/a ", "/type."+letter+" ", "\r\nHost", "\r\nIdempotency-Key: "+letter+letter+"\r\nHost").Replace(text)
				}
				start := time.Now()
				w.send(request("a"))
				if res, body := w.read(); res.StatusCode != 503 || decodeAnswer(t, body).Code != "outbox_unavailable" {
					t.Fatalf("got %d %s", res.StatusCode, body)
				}
				if took := time.Since(start); took != acceptTimeout {
					t.Errorf("answered after %s", took)
				}
				faulty.Before("Accept", nil)
				w.send(request("b"))
				if res, body := w.read(); res.StatusCode != 202 {
					t.Fatalf("got %d %s", res.StatusCode, body)
				}
				for i, letter := range []string{"a", "b"} {
					b := rec.batches[i]
					if e := b.Entries[0].Event; b.Key != "ingest:"+letter+letter || e.Type != "type."+letter || string(e.Data) != `"`+strings.Repeat(letter, size)+`"` {
						t.Errorf("batch %d became %s %+v", i, b.Key, e)
					}
				}
			})
		})
	}
}

// TestAcceptTimeout: contexts are shared, and each ends 9 to 10 seconds after
// it was asked for.
func TestAcceptTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var shared sharedDeadline
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		different := map[context.Context]bool{}
		for range 100 {
			got := shared.from(ctx, time.Now())
			until, ok := got.Deadline()
			if left := time.Until(until); !ok || got.Err() != nil || left > acceptTimeout || left <= acceptTimeout-time.Second {
				t.Fatalf("%s left, %v", left, got.Err())
			}
			different[got] = true
			time.Sleep(300 * time.Millisecond)
		}
		if len(different) != 25 {
			t.Errorf("%d contexts in 30 seconds", len(different))
		}
		last := shared.from(ctx, time.Now())
		cancel()
		if last.Err() == nil {
			t.Error("outlives its parent")
		}
	})
}

// poor is a listener that lacks file descriptors at first.
type poor struct {
	*pipes
	errs []error
}

func (p *poor) Accept() (net.Conn, error) {
	if len(p.errs) > 0 {
		err := p.errs[0]
		p.errs = p.errs[1:]
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept", err)}
	}
	return p.pipes.Accept()
}

// TestAcceptFails: a want of file descriptors is waited out (fault F45), another
// error ends Serve.
func TestAcceptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, _, _ := newIngest(t, Options{})
		var said bytes.Buffer
		s := NewServer(ServerOptions{Ingest: in, Log: zerolog.New(&said)})
		l := &poor{newPipes(), []error{syscall.EMFILE, syscall.ENFILE, syscall.EMFILE}}
		start := time.Now()
		serve(t, l, s)
		w := l.dial(t)
		w.send(withLength("1"))
		if res, body := w.read(); res.StatusCode != 202 {
			t.Errorf("got %d %s", res.StatusCode, body)
		}
		if took := time.Since(start); took != 35*time.Millisecond {
			t.Errorf("tried again for %s", took)
		}
		if n := strings.Count(said.String(), "too many open files"); n != 3 {
			t.Errorf("logged %s", &said)
		}
		if err := s.Serve(&poor{newPipes(), []error{syscall.EINVAL}}); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("got %v", err)
		}
	})
}

// TestShutdown: what waits is closed at once, what is under way is answered, and
// what does not end in time is left to Close.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, _, faulty := newIngest(t, Options{})
		s := NewServer(ServerOptions{Ingest: in})
		l := newPipes()
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		fresh, idle, busy := l.dial(t), l.dial(t), l.dial(t)
		idle.send(withLength("1"))
		if res, _ := idle.read(); res.StatusCode != 202 {
			t.Fatal(res.Status)
		}
		faulty.Before("Accept", func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		busy.send(withLength("2"))
		synctest.Wait()
		start := time.Now()
		within, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		shut := make(chan error, 1)
		go func() { shut <- s.Shutdown(within) }()
		fresh.closed()
		idle.closed()
		if err := <-served; !errors.Is(err, listen.ErrServerClosed) || time.Since(start) != 0 {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
		if err := <-shut; !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		busy.closed()
		if err := s.Shutdown(t.Context()); err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
		if err := s.Serve(newPipes()); !errors.Is(err, listen.ErrServerClosed) {
			t.Errorf("serves after the end: %v", err)
		}
	})
}

// TestShutdownAnswers: a request under way is answered with the word that the
// connection ends, on real sockets.
func TestShutdownAnswers(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			in, _, faulty := newIngest(t, Options{})
			addr := filepath.Join(testkit.Dir(t), "relay.sock")
			var l net.Listener
			if network == "unix" {
				l = listenUnix(t, addr)
			} else {
				var err error
				if l, err = listen.TCP(t.Context(), "127.0.0.1:0"); err != nil {
					t.Fatal(err)
				}
				addr = l.Addr().String()
			}
			s := NewServer(ServerOptions{Ingest: in, Guard: listen.Guard{AnyHost: true}})
			served := make(chan error, 1)
			go func() { served <- s.Serve(l) }()
			begun, commit := make(chan struct{}), make(chan struct{})
			faulty.Before("Accept", func(context.Context) error {
				close(begun)
				<-commit
				return nil
			})
			idle, busy := dial(t, network, addr), dial(t, network, addr)
			busy.send(withLength("1"))
			<-begun
			shut := make(chan error, 1)
			go func() { shut <- s.Shutdown(t.Context()) }()
			<-served
			idle.closed()
			close(commit)
			if res, body := busy.read(); res.StatusCode != 202 || !res.Close {
				t.Errorf("got %d %s, closes %v", res.StatusCode, body, res.Close)
			}
			busy.closed()
			if err := <-shut; err != nil {
				t.Error(err)
			}
		})
	}
}

// slowly sends a request in pieces with a pause between them.
func slowly(w *wire, pieces []string, pause time.Duration) {
	for _, piece := range pieces {
		if _, err := io.WriteString(w, piece); err != nil {
			return
		}
		time.Sleep(pause)
	}
}

// TestDrip: bytes that keep coming do not move the deadlines.
func TestDrip(t *testing.T) {
	tests := map[string]struct {
		send   string
		answer int
		after  time.Duration
	}{
		"header":       {send: head + strings.Repeat("X-A: b\r\n", 50), answer: 408, after: 5 * time.Second},
		"body":         {send: head + "Content-Length: 9999\r\n\r\n" + strings.Repeat(" ", 999), answer: 408, after: 30 * time.Second},
		"short body":   {send: head + "Content-Length: 999\r\n\r\n" + strings.Repeat(" ", 998), answer: 408, after: 30 * time.Second},
		"chunks":       {send: head + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\n \r\n", 100), answer: 408, after: 30 * time.Second},
		"refused body": {send: strings.Replace(head, "localhost", "evil.example", 1) + "Content-Length: 999\r\n\r\n" + strings.Repeat(" ", 998), answer: 421, after: 30 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, rec, _ := newIngest(t, Options{})
				l := newPipes()
				serve(t, l, NewServer(ServerOptions{Ingest: in}))
				start := time.Now()
				w := l.dial(t)
				header, body, _ := strings.Cut(test.send, "\r\n\r\n")
				if body != "" {
					w.send(header + "\r\n\r\n")
				} else {
					body = header
				}
				var sending sync.WaitGroup
				defer sending.Wait()
				sending.Go(func() { slowly(w, strings.SplitAfter(body, ""), 100*time.Millisecond) })
				if res, got := w.read(); res.StatusCode != test.answer {
					t.Errorf("got %d %s", res.StatusCode, got)
				}
				w.closed()
				if took := time.Since(start); took != test.after || len(rec.entries()) > 0 {
					t.Errorf("closed after %s with %d stored", took, len(rec.entries()))
				}
			})
		})
	}
}

// TestIdleAgain: each request gives the connection another two minutes, less
// than a second apart or more.
func TestIdleAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, _, _ := newIngest(t, Options{})
		l := newPipes()
		serve(t, l, NewServer(ServerOptions{Ingest: in}))
		w := l.dial(t)
		var last time.Time
		for _, pause := range []time.Duration{0, 400 * time.Millisecond, 400 * time.Millisecond, 119 * time.Second, time.Minute, 800 * time.Millisecond} {
			time.Sleep(pause)
			last = time.Now()
			w.send(withLength("1"))
			if res, body := w.read(); res.StatusCode != 202 {
				t.Fatalf("got %d %s", res.StatusCode, body)
			}
		}
		w.closed()
		if idle := time.Since(last); idle > listen.IdleTimeout || idle <= listen.IdleTimeout-time.Second {
			t.Errorf("closed after %s", idle)
		}
	})
}
