package listen

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// caller is a connection from an address.
type caller struct {
	net.Conn
	from  net.Addr
	ended atomic.Bool
}

func (c *caller) RemoteAddr() net.Addr { return c.from }
func (c *caller) closed() bool         { return c.ended.Load() }
func (c *caller) Close() error         { c.ended.Store(true); return nil }

// visit is a connection that has a place, and leaves when it is closed.
type visit struct {
	*caller
	*Place
}

// hall is a Places whose connections end when they are closed.
type hall struct {
	t      *testing.T
	places *Places
	inside []visit
}

// enter returns how long a connection from there had to wait for its place.
func (h *hall) enter(from string, retire func() bool) (visit, time.Duration) {
	h.t.Helper()
	c := &caller{from: &net.UnixAddr{}}
	if from != "" {
		c.from = &net.TCPAddr{IP: net.ParseIP(from), Port: 1}
	}
	start, entered := time.Now(), make(chan *Place)
	go func() { entered <- h.places.Enter(c, retire, nil) }()
	for {
		synctest.Wait()
		select {
		case pl := <-entered:
			v := visit{c, pl}
			h.inside = append(h.inside, v)
			return v, time.Since(start)
		default:
		}
		h.inside = slices.DeleteFunc(h.inside, func(v visit) bool {
			if v.closed() {
				v.Leave()
			}
			return v.closed()
		})
		time.Sleep(time.Millisecond)
		if time.Since(start) > time.Minute {
			h.t.Fatal("no place within a minute")
		}
	}
}

// TestPlacesMakeRoom: connections that nobody needs give way; a request under way never does.
func TestPlacesMakeRoom(t *testing.T) {
	within := func(t *testing.T, got, want time.Duration) {
		t.Helper()
		if got < want || got > want+10*time.Millisecond {
			t.Errorf("waited for %s, want %s", got, want)
		}
	}
	bubble := func(name string, do func(t *testing.T, h *hall)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { do(t, &hall{t: t, places: NewPlaces(4)}) })
		})
	}
	bubble("silent ones, oldest first", func(t *testing.T, h *hall) {
		var all []visit
		for range 20 {
			v, took := h.enter("", nil)
			all = append(all, v)
			if len(all) <= 4 {
				within(t, took, 0)
			}
		}
		for i, v := range all {
			if v.closed() != (i < 16) {
				t.Errorf("connection %d: closed %v", i, v.closed())
			}
		}
	})
	bubble("not before their time", func(t *testing.T, h *hall) {
		for range 4 {
			h.enter("", nil)
		}
		_, took := h.enter("", nil)
		within(t, took, newPatience)
	})
	bubble("of the peer with the most", func(t *testing.T, h *hall) {
		quiet, _ := h.enter("192.0.2.1", nil)
		for range 3 {
			h.enter("198.51.100.7", nil)
		}
		for range 10 {
			h.enter("198.51.100.7", nil)
		}
		other, _ := h.enter("203.0.113.9", nil)
		if quiet.closed() || other.closed() {
			t.Error("others paid for the peer that has the most")
		}
	})
	bubble("one network of IPv6 is one peer", func(t *testing.T, h *hall) {
		quiet, _ := h.enter("2001:db8:1::1", nil)
		for i := range 10 {
			h.enter("2001:db8:2::"+string(rune('1'+i%9)), nil)
		}
		if quiet.closed() {
			t.Error("many addresses of one network passed for many peers")
		}
	})
	bubble("idle ones after a second, silent ones first", func(t *testing.T, h *hall) {
		var known []visit
		for range 4 {
			v, _ := h.enter("", nil)
			v.Busy()
			v.Idle(time.Now())
			known = append(known, v)
			time.Sleep(time.Microsecond) // one of them is the oldest
		}
		silent, took := h.enter("", nil)
		within(t, took, idlePatience)
		time.Sleep(time.Hour)
		_, took = h.enter("", nil)
		within(t, took, 0)
		if !known[0].closed() || known[1].closed() || !silent.closed() {
			t.Errorf("closed: %v %v, silent %v", known[0].closed(), known[1].closed(), silent.closed())
		}
	})
	bubble("never one with a request", func(t *testing.T, h *hall) {
		for range 3 {
			v, _ := h.enter("", nil)
			v.Busy()
		}
		v, _ := h.enter("", func() bool { return false }) // its next request has begun
		v.Busy()
		v.Idle(time.Now())
		other := h.inside[1]
		time.AfterFunc(30*time.Second, func() { other.Idle(time.Now()) })
		_, took := h.enter("", nil)
		within(t, took, 31*time.Second)
		if v.closed() {
			t.Error("a request that had begun was cut")
		}
	})
	bubble("a stop ends the wait", func(t *testing.T, h *hall) {
		for range 4 {
			v, _ := h.enter("", nil)
			v.Busy()
		}
		stop := make(chan struct{})
		time.AfterFunc(time.Second, func() { close(stop) })
		if h.places.Enter(&caller{from: &net.UnixAddr{}}, nil, stop) != nil {
			t.Error("there was a place")
		}
	})
}

// TestUnauthorizedCloses: who shows no token keeps no connection.
func TestUnauthorizedCloses(t *testing.T) {
	l, err := TCP(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(ServerOptions{Handler: Guard{Token: "t0ken"}.Wrap(http.NotFoundHandler())})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	res, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 401 || !res.Close || !strings.Contains(res.Header.Get("WWW-Authenticate"), "Bearer") {
		t.Errorf("got %d, closes %v", res.StatusCode, res.Close)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-served
}
