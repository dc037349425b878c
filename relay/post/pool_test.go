package post

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// Idle connections are closed in time, by one timer that is there only for them.
func TestIdleConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint(delivertest.Step{Delay: time.Second})
		e := w.inMemory("billing", receiver)
		var open atomic.Int64
		w.o.Network.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := w.net.Dial(ctx, network, address)
			open.Add(1)
			return &counted{Conn: c, open: &open}, err
		}
		w.start(e)
		w.accept(3, "billing")
		w.await(3)
		time.Sleep(30 * time.Second)
		w.accept(1, "billing") // takes the one used last
		w.await(4)
		p := &w.senders["billing"].(*http1).pool
		for _, step := range []struct {
			wait     time.Duration
			open     int64
			sweeping bool
		}{
			{0, 3, true},
			{idleTimeout - 31*time.Second - time.Nanosecond, 3, true},
			{time.Nanosecond, 1, true},
			{31*time.Second - time.Nanosecond, 1, true},
			{time.Nanosecond, 0, false},
		} {
			time.Sleep(step.wait)
			synctest.Wait()
			p.mu.Lock()
			if open.Load() != step.open || p.alarm.at.IsZero() == step.sweeping || len(p.all) != int(step.open) {
				t.Errorf("%d connections open, %d known, timer runs %t, want %d, %t", open.Load(), len(p.all), !p.alarm.at.IsZero(), step.open, step.sweeping)
			}
			p.mu.Unlock()
		}
		w.accept(1, "billing")
		if last := w.await(5)[4]; last.Reused || last.State != outbox.Delivered {
			t.Errorf("attempt after that: reused connection %t, %s", last.Reused, last.State)
		}
	})
}

// meeting is a pool and a receiver that accepted its connections.
type meeting struct {
	pool     *pool
	accepted chan net.Conn
}

func meet(t *testing.T, secure bool) *meeting {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &dialer{plaintext: true, timeout: policy.Timeout{Connect: time.Minute, Total: time.Minute}, guard: newGuard(policy.Egress{AllowPrivate: prefixes("127.0.0.0/8")}, nil)}
	dial := d.dial
	if secure {
		a := delivertest.NewAuthority(t)
		d.tls = &tls.Config{RootCAs: a.Pool(), ServerName: "billing.test"}
		dial = d.dialTLS
		l = tls.NewListener(l, a.Issue("billing.test", time.Now().Add(time.Hour)))
	}
	m := &meeting{accepted: make(chan net.Conn)}
	m.pool = &pool{dial: func(ctx context.Context) (net.Conn, error) { return dial(ctx, "tcp", l.Addr().String()) }}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if s, ok := c.(*tls.Conn); ok {
				_ = s.Handshake()
			}
			m.accepted <- c
		}
	})
	t.Cleanup(func() {
		m.pool.close()
		l.Close()
		serving.Wait()
	})
	return m
}

// take takes a connection, and returns the receiver's end of a new one.
func (m *meeting) take(t *testing.T) (*link, net.Conn) {
	t.Helper()
	var theirs net.Conn
	got := make(chan struct{})
	quit := make(chan struct{})
	go func() {
		defer close(got)
		select {
		case theirs = <-m.accepted:
		case <-quit:
		}
	}()
	l, err := m.pool.take(t.Context(), time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if l.reused {
		close(quit)
	}
	<-got
	return l, theirs
}

// An idle connection that the receiver ended, or spoke on unasked, is not used.
func TestIdleConnectionsAreLookedAt(t *testing.T) {
	for _, c := range []struct {
		name   string
		do     func(t *testing.T, theirs net.Conn)
		reused bool
	}{
		{"nothing", nil, true},
		{"closed", func(t *testing.T, theirs net.Conn) { theirs.Close() }, false},
		{"reset", func(t *testing.T, theirs net.Conn) {
			if s, ok := theirs.(*tls.Conn); ok {
				theirs = s.NetConn()
			}
			_ = theirs.(*net.TCPConn).SetLinger(0)
			theirs.Close()
		}, false},
		{"speaks", func(t *testing.T, theirs net.Conn) { _, _ = io.WriteString(theirs, "HTTP/1.1 408 ") }, false},
	} {
		for _, secure := range []bool{false, true} {
			name := c.name
			if secure {
				name += ", TLS"
			}
			t.Run(name, func(t *testing.T) {
				m := meet(t, secure)
				l, theirs := m.take(t)
				defer theirs.Close()
				greet(t, l, theirs)
				m.pool.put(l)
				if c.do != nil {
					c.do(t, theirs)
					until(t, func() bool { return noticed(t, l) })
				}
				l.since = l.since.Add(-trustIdle)
				again, other := m.take(t)
				if again.reused != c.reused || (again == l) != c.reused {
					t.Errorf("the connection is taken again: %t, want %t", again.reused, c.reused)
				}
				if other != nil {
					defer other.Close()
				}
				m.pool.drop(again)
			})
		}
	}
}

// A receiver that once ended a connection which it let us keep is trusted no longer:
// connections are looked at however short they were idle.
func TestReceiversThatHangUpAreNotTrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.inMemory("billing", delivertest.NewEndpoint(delivertest.Step{}, delivertest.Step{}, delivertest.Step{Fault: delivertest.Close}))
		e.Concurrency = 1
		w.start(e)
		for n, want := range []bool{false, false, true} {
			w.accept(1, "billing")
			w.await(n + 1)
			if got := w.senders["billing"].(*http1).pool.distrust.Load(); got != want {
				t.Errorf("after attempt %d the receiver is mistrusted: %t, want %t", n+1, got, want)
			}
		}
	})
	m := meet(t, false)
	m.pool.distrust.Store(true)
	l, theirs := m.take(t)
	theirs.Close()
	until(t, func() bool { return noticed(t, l) })
	l.since, l.reused = time.Now().Add(time.Hour), true // not idle for any time
	m.pool.idle = append(m.pool.idle, l)
	again, other := m.take(t)
	defer other.Close()
	if again == l {
		t.Error("a connection that was ended is taken again")
	}
	m.pool.drop(again)
}

// Once attempts are cut short none begins, on a new connection or on an idle one.
func TestNothingIsTakenAfterTheCut(t *testing.T) {
	m := meet(t, false)
	l, theirs := m.take(t)
	defer theirs.Close()
	m.pool.put(l)
	m.pool.end()
	go func() { (<-m.accepted).Close() }()
	if _, err := m.pool.take(t.Context(), time.Now().Add(time.Minute)); !errors.Is(err, errCut) {
		t.Errorf("take after the cut: %v, want %v", err, errCut)
	}
	if len(m.pool.all) != 0 {
		t.Errorf("%d connections are left", len(m.pool.all))
	}
}

// With TLS an answer may bring more than was asked for into our own memory. It
// must not be taken for the next one, however soon that is.
func TestMoreThanAnAnswerOverTLS(t *testing.T) {
	m := meet(t, true)
	l, theirs := m.take(t)
	defer theirs.Close()
	greet(t, l, theirs)
	const record = 5 + 1 + 16 // of TLS 1.3, beside what it holds
	for _, s := range []string{"ok", "HTTP/1.1 200 OK\r\n"} {
		if _, err := io.WriteString(theirs, s); err != nil {
			t.Fatal(err)
		}
	}
	// Both records are here when reading begins, so TLS takes both.
	until(t, func() bool { return queued(t, l) == 2*record+2+17 })
	if _, err := io.ReadFull(l, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	m.pool.put(l)
	again, other := m.take(t)
	if again == l {
		t.Error("a connection with an answer on it was taken again")
	}
	defer other.Close()
	m.pool.drop(again)
}

// greet passes a few bytes each way, so that TLS has said all that it has to say
// at the beginning.
func greet(t *testing.T, l *link, theirs net.Conn) {
	t.Helper()
	for _, way := range [][2]net.Conn{{l, theirs}, {theirs, l}} {
		if _, err := io.WriteString(way[0], "hello"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(way[1], make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
}

func raw(t *testing.T, l *link) syscall.RawConn {
	t.Helper()
	c, err := l.base.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// noticed tells whether what the receiver did is here.
func noticed(t *testing.T, l *link) bool { return l.peek.waiting() }

// queued returns how many bytes wait to be read, up to 100.
func queued(t *testing.T, l *link) (n int) {
	t.Helper()
	err := raw(t, l).Read(func(fd uintptr) bool {
		n, _, _ = syscall.Recvfrom(int(fd), make([]byte, 100), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// until waits for a condition that needs nothing but the kernel.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	for !ok() {
		if t.Context().Err() != nil {
			t.Fatal("it never came")
		}
		runtime.Gosched()
	}
}
