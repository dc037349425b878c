package post

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"relay/internal/testkit"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestSockets: a sender has at most half, waits for a socket that others have, and idle
// connections make room.
func TestSockets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSockets(4)
		idle := make(chan func(), 1) // connections of a
		a := s.share(func() bool {
			select {
			case closed := <-idle:
				closed()
				return true
			default:
				return false
			}
		})
		none := func() bool { return false }
		b, c := s.share(none), s.share(none)
		take := func(sh *share) (closed func()) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			dialed, closed, err := sh.take(ctx)
			if err != nil {
				return nil
			}
			dialed()
			return closed
		}
		first, second := take(a), take(a)
		if first == nil || second == nil || take(a) != nil {
			t.Fatal("a sender does not get half of the sockets, or more")
		}
		third, fourth := take(b), take(b)
		if third == nil || fourth == nil || take(c) != nil {
			t.Fatal("not all of the sockets are given, or more")
		}
		time.AfterFunc(500*time.Millisecond, third)
		if third = take(c); third == nil {
			t.Fatal("a socket that became free was not given")
		}
		time.AfterFunc(500*time.Millisecond, func() { idle <- first })
		fifth := take(c)
		if fifth == nil {
			t.Fatal("an idle connection made no room")
		}
		for _, closed := range []func(){second, third, fourth, fifth, fifth} { // the last one twice
			closed()
		}
		for _, sh := range []*share{a, b, c} {
			sh.close()
		}
		if len(s.open)+len(s.dials)+len(a.open)+len(b.open)+len(c.open)+len(s.spares) > 0 {
			t.Error("something is left")
		}
	})
}

// receivers makes servers, of which the first two hang while hang says so, after telling
// began, and senders for them that share a Client. The last one waits for a connection for a moment only.
func receivers(t *testing.T, maxConns int, hang *atomic.Bool, http2 bool) (all []Sender, open *atomic.Int64, began chan int) {
	t.Helper()
	ended := make(chan struct{})
	open, began = new(atomic.Int64), make(chan int, 2)
	var client *Client
	const n = 7
	for i := range n {
		web := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			if i < 2 && hang.Load() {
				began <- i
				<-ended
			}
		}))
		web.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				open.Add(1)
			case http.StateClosed:
				open.Add(-1)
			}
		}
		web.EnableHTTP2 = http2
		if http2 {
			web.StartTLS()
		} else {
			web.Start()
		}
		t.Cleanup(web.Close)
		if client == nil {
			o := Options{MaxConns: maxConns}
			if http2 {
				o.Network.Roots = web.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
			}
			client = NewClient(o)
		}
		u, err := url.Parse(web.URL)
		if err != nil {
			t.Fatal(err)
		}
		e := endpointAt(fmt.Sprint(i), u)
		if e.HTTP2 = http2; i == n-1 {
			e.Timeout.Connect = 300 * time.Millisecond
		}
		s := client.Sender(t.Context(), e)
		t.Cleanup(s.Close)
		all = append(all, s)
	}
	t.Cleanup(func() { close(ended) })
	return all, open, began
}

func send(t *testing.T, s Sender) (Answer, *Failure) {
	return s.Send(t.Context(), Request{Body: []byte("{}"), Until: time.Now().Add(time.Minute)})
}

// TestConnectionsAreBounded: with more endpoints than connections, idle ones make room; where
// none is idle the attempt fails with a code of its own.
func TestConnectionsAreBounded(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%v", http2), func(t *testing.T) {
			var hang atomic.Bool
			all, open, began := receivers(t, 2, &hang, http2)
			for range 2 {
				for i, s := range all[:len(all)-1] {
					if a, f := send(t, s); f != nil || a.Status != 200 {
						t.Fatalf("endpoint %d: %d, %+v", i, a.Status, f)
					}
				}
			}
			testkit.Until(t, "servers to hear that all connections but two have ended", func() bool { return open.Load() <= 2 })
			hang.Store(true)
			for _, s := range all[:2] {
				go send(t, s)
				<-began
			}
			if _, f := send(t, all[len(all)-1]); f == nil || f.Code != CodeNoSocket || !strings.Contains(f.Text, "limit of open files") {
				t.Errorf("got %+v, want %s", f, CodeNoSocket)
			}
		})
	}
}

// TestOutOfFiles: what the system refuses for want of descriptors is not the receiver's fault.
func TestOutOfFiles(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE} {
		err := &net.OpError{Op: "dial", Err: errno}
		if got := dialCode(err, false); got != CodeNoSocket {
			t.Errorf("%v has the code %s", err, got)
		}
	}
}
