package redistest_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"relay/internal/testkit"
	"relay/outbox/redisstream/redistest"
)

// wire is a client's connection: commands go out as lines, replies come back.
type wire struct {
	*testing.T
	net.Conn
	*bufio.Reader
}

func dial(t *testing.T, p *redistest.FaultProxy) wire {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	testkit.Must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	testkit.Must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	return wire{t, conn, bufio.NewReader(conn)}
}

func (w wire) send(commands ...string) {
	w.Helper()
	_, err := w.Conn.Write([]byte(strings.Join(commands, "\r\n") + "\r\n"))
	testkit.Must(w.T, err)
}

// want reads replies of one line each; "" is the end of the connection.
func (w wire) want(replies ...string) {
	w.Helper()
	for _, want := range replies {
		got, err := w.ReadString('\n')
		if want == "" && errors.Is(err, os.ErrDeadlineExceeded) {
			w.Fatal("the connection has not ended")
		}
		if got = strings.TrimSpace(got); got != want {
			w.Fatalf("reply = %q, %v, want %q", got, err, want)
		}
	}
}

// wantSilence looks for a reply that must not come.
func (w wire) wantSilence() {
	w.Helper()
	testkit.Must(w.T, w.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	if b, err := w.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		w.Fatalf("a reply begins with %q, %v, want silence", b, err)
	}
	testkit.Must(w.T, w.SetReadDeadline(time.Now().Add(30*time.Second)))
}

func TestProxyPasses(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--enable-debug-command", "local")
	for network, upstream := range map[string]string{"unix": s.Socket(), "tcp": s.Addr()} {
		p := redistest.StartFaultProxy(t, network, upstream)
		if p.URL() != "redis://"+p.Addr() {
			t.Errorf("URL = %s", p.URL())
		}
		s.MustDo(t, "FLUSHALL")
		w := dial(t, p)
		data := strings.Repeat("\r\n*$x", 50000)
		w.send("*3", "$3", "SET", "$1", "s", "$250000", data, "STRLEN s", "GET s")
		w.want("+OK", ":250000", "$250000")
		got := make([]byte, len(data)+2)
		_, err := io.ReadFull(w.Reader, got)
		testkit.Must(t, err)
		if string(got) != data+"\r\n" {
			t.Error("the data came back changed")
		}
		// RESP3: maps, booleans, nulls, and pushes, which answer nothing.
		w.send("HELLO 3")
		w.want("%7")
		for range 14 - 1 {
			_, err := w.ReadString('\n')
			testkit.Must(t, err)
		}
		for line := ""; line != "*0\r\n"; {
			line, err = w.ReadString('\n')
			testkit.Must(t, err)
		}
		w.send("CLIENT TRACKING ON", "GET none", "EVAL 'redis.setresp(3); return true' 0", "DEBUG PROTOCOL double", "DEBUG PROTOCOL attrib")
		w.want("+OK", "_", "#t", ",3.141", "|1")
		for range 8 {
			_, err := w.ReadString('\n')
			testkit.Must(t, err)
		}
		s.MustDo(t, "SET", "none", "1")
		w.want(">2", "$10", "invalidate", "*1", "$4", "none")
		p.DropReplyTo("INCR n")
		w.send("INCR m", "INCR n", "INCR n")
		w.want(":1", "")
		wantReply(t, s, "2", "GET", "n")
	}
}

// TestProxyLosesOneReply: the command before it has its reply, the lost one and
// those after it are done, and the next client finds nothing amiss.
func TestProxyLosesOneReply(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	p := redistest.StartFaultProxy(t, "unix", s.Socket())
	other := dial(t, p)
	other.send("PING")
	other.want("+PONG")

	p.DropReplyTo("incr b")
	w := dial(t, p)
	w.send("INCR a", "INCR b", "INCR c")
	w.want(":1", "")
	for _, key := range []string{"a", "b", "c"} {
		wantReply(t, s, "1", "GET", key)
	}
	other.send("INCR b")
	other.want(":2")

	p.DropReplyTo("EVAL")
	p.DropReplyTo("EVAL")
	for range 2 {
		w := dial(t, p)
		w.send("SET d 1", "EVAL 'return 1' 0")
		w.want("+OK", "")
	}
	other.send("EVAL 'return 1' 0")
	other.want(":1")

	p.DropReplies(2)
	for range 2 {
		w := dial(t, p)
		w.send("INCR e")
		w.want("")
	}
	other.send("INCR e")
	other.want(":3")
	if n := p.Dropped(); n != 5 {
		t.Errorf("Dropped = %d, want 5", n)
	}

	p.DropReplies(1)
	p.DropReplies(0)
	other.send("INCR e")
	other.want(":4")
}

func TestProxyHangs(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	p := redistest.StartFaultProxy(t, "unix", s.Socket())
	old := dial(t, p)
	old.send("PING")
	old.want("+PONG")

	p.Hang()
	p.Hang()
	fresh := dial(t, p)
	for _, w := range []wire{old, fresh} {
		w.send("INCR n")
		w.wantSilence()
	}
	wantReply(t, s, nil, "GET", "n")
	p.Resume()
	p.Resume()
	old.ReadString('\n')
	fresh.ReadString('\n')
	wantReply(t, s, "2", "GET", "n")

	// A reply is held, too.
	old.send("BLPOP l 0")
	for deadline := time.Now().Add(10 * time.Second); ; {
		info := s.MustDo(t, "INFO", "clients").(string)
		if strings.Contains(info, "blocked_clients:1") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the client never waited for the list")
		}
	}
	p.Hang()
	s.MustDo(t, "RPUSH", "l", "x")
	old.wantSilence()
	p.Resume()
	old.want("*2", "$1", "l", "$1", "x")

	p.Hang()
	fresh.send("INCR n")
	p.Cut()
	fresh.want("")
	p.Resume()
	wantReply(t, s, "2", "GET", "n")
}

func TestProxyCutsAndRefuses(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	p := redistest.StartFaultProxy(t, "unix", s.Socket())
	w := dial(t, p)
	w.send("PING")
	w.want("+PONG")
	p.Refuse()
	dial(t, p).want("")
	w.send("PING")
	w.want("+PONG")
	p.Allow()
	p.Cut()
	w.want("")
	again := dial(t, p)
	again.send("PING")
	again.want("+PONG")

	s.Kill()
	again.want("")
	dial(t, p).want("")
	s.Restart()
	again = dial(t, p)
	again.send("PING")
	again.want("+PONG")

	p.Hang() // the end of the test does not wait for Resume
	again.send("PING")
}
