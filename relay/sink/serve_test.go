package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener of in-memory connections, for tests in virtual time.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "pipe"} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p.conns <- server
	return client, nil
}

// bubble serves s in virtual time while f runs.
func bubble(t *testing.T, o Options, f func(p *pipes, c *http.Client, stop func() error)) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- Serve(ctx, p, New(o)) }()
		stopped := false
		stop := func() error {
			stopped = true
			cancel()
			return <-served
		}
		transport := &http.Transport{DialContext: p.dial}
		defer transport.CloseIdleConnections()
		f(p, &http.Client{Transport: transport}, stop)
		if !stopped {
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
	})
}

// A delay may be longer than the time a client has to send its request, on a
// connection that is used again too.
func TestDelay(t *testing.T) {
	bubble(t, Options{Script: script(t, "503@1h,204,200@24h")}, func(_ *pipes, c *http.Client, _ func() error) {
		for _, want := range []struct {
			status int
			delay  time.Duration
		}{{503, time.Hour}, {204, 0}, {200, 24 * time.Hour}} {
			began := time.Now()
			resp, err := c.Post("http://sink/", "application/json", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if got := time.Since(began); resp.StatusCode != want.status || got != want.delay {
				t.Errorf("answered %d after %s, want %d after %s", resp.StatusCode, got, want.status, want.delay)
			}
		}
	})
}

func TestHangOutlastsEverything(t *testing.T) {
	bubble(t, Options{Script: script(t, "hang")}, func(_ *pipes, c *http.Client, _ func() error) {
		began := time.Now()
		c.Timeout = 48 * time.Hour
		_, err := c.Post("http://sink/", "application/json", strings.NewReader("{}"))
		if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() || time.Since(began) != c.Timeout {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}

// A stop ends what waits and lets the client know at once.
func TestStop(t *testing.T) {
	for _, text := range []string{"hang", "200@24h"} {
		t.Run(text, func(t *testing.T) {
			came := make(chan Received, 1)
			o := Options{Script: script(t, text), Observe: func(r Received) { came <- r }}
			bubble(t, o, func(_ *pipes, c *http.Client, stop func() error) {
				answered := make(chan error, 1)
				go func() {
					_, err := c.Post("http://sink/", "application/json", strings.NewReader("{}"))
					answered <- err
				}()
				<-came
				began := time.Now()
				if err := stop(); err != nil {
					t.Error(err)
				}
				if err := <-answered; !errors.Is(err, io.EOF) {
					t.Errorf("client saw %v", err)
				}
				if took := time.Since(began); took >= stopTimeout {
					t.Errorf("stop took %s", took)
				}
			})
		})
	}
}

// A client that never finishes its request does not keep the sink from stopping.
func TestStopCutsOff(t *testing.T) {
	bubble(t, Options{}, func(p *pipes, _ *http.Client, stop func() error) {
		conn, _ := p.dial(t.Context(), "", "")
		defer conn.Close()
		io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
		synctest.Wait()
		began := time.Now()
		if err := stop(); err != nil {
			t.Error(err)
		}
		if answer, err := io.ReadAll(conn); err != nil || len(answer) > 0 {
			t.Errorf("client saw %q, %v", answer, err)
		}
		if took := time.Since(began); took != stopTimeout {
			t.Errorf("stop took %s", took)
		}
	})
}

// Server limits: a request, and a silence between two, may take only so long.
func TestSlowClients(t *testing.T) {
	for name, tt := range map[string]struct {
		sent string
		want time.Duration // until the connection is closed
	}{
		"nothing":     {"", headerTimeout},
		"half a head": {"POST / HTTP/1.1\r\nHost:", headerTimeout},
		"half a body": {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello", readTimeout},
		"idle":        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", idleTimeout},
		"large head":  {"POST / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", maxHeader+8192) + "\r\n\r\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Options{}, func(p *pipes, _ *http.Client, _ func() error) {
				conn, _ := p.dial(t.Context(), "", "")
				defer conn.Close()
				began := time.Now()
				go io.WriteString(conn, tt.sent)
				answer, err := io.ReadAll(conn)
				if err != nil {
					t.Fatal(err)
				}
				// After an early answer net/http lingers for half a second.
				if took := time.Since(began).Truncate(time.Second); took != tt.want {
					t.Errorf("closed after %s with %q, want %s", took, answer, tt.want)
				}
			})
		})
	}
}

// A client that reads no answer is cut off.
func TestClientNeverReads(t *testing.T) {
	bubble(t, Options{Script: script(t, "200@1h")}, func(p *pipes, _ *http.Client, _ func() error) {
		conn, _ := p.dial(t.Context(), "", "")
		defer conn.Close()
		io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
		time.Sleep(time.Hour + writeTimeout + time.Second)
		if answer, err := io.ReadAll(conn); err != nil || len(answer) > 0 {
			t.Errorf("still there: %q, %v", answer, err)
		}
	})
}

func TestTooManyConnections(t *testing.T) {
	o := Options{Script: script(t, fmt.Sprintf("resetx%d,200", maxConns))}
	bubble(t, o, func(p *pipes, c *http.Client, _ func() error) {
		for range maxConns { // these must not count for ever
			if _, err := c.Post("http://sink/", "application/json", strings.NewReader("{}")); err == nil {
				t.Fatal("answered, want a reset")
			}
		}
		var conns []net.Conn
		for range maxConns {
			conn, _ := p.dial(t.Context(), "", "")
			conns = append(conns, conn)
		}
		synctest.Wait()
		if _, err := c.Post("http://sink/", "application/json", strings.NewReader("{}")); err == nil {
			t.Error("answered one connection too many")
		}
		last := conns[maxConns-1]
		go io.WriteString(last, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := last.Read(make([]byte, 1<<10)); err != nil {
			t.Errorf("the last one with room: %v", err)
		}
		conns[0].Close()
		synctest.Wait()
		resp, err := c.Post("http://sink/", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatalf("with room again: %v", err)
		}
		resp.Body.Close()
		for _, conn := range conns {
			conn.Close()
		}
	})
}

func TestServeBrokenListener(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := Serve(t.Context(), ln, New(Options{})); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v", err)
	}
}
