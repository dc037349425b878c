package deliver

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"syscall"
	"testing"
	"time"

	"relay/outbox"
	"relay/policy"
)

// Each way of not getting a connection has its code, and ends in its time (S10).
func TestDial(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	mute, err := net.Listen("tcp", "127.0.0.1:0") // accepts, says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	full := fullListener(t)
	for _, c := range []struct {
		name string
		url  string
		code string
	}{
		{"nobody listens", "http://" + closed.Addr().String(), "connection_refused"},
		{"no connection in time", "http://" + full, "connect_timeout"},
		{"stalled handshake", "https://" + mute.Addr().String(), "connect_timeout"},
		{"stalled answer", "http://" + mute.Addr().String(), "timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := url.Parse(c.url)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t)
			e := endpointAt(t, "billing", u)
			e.Timeout = policy.Timeout{Connect: 200 * time.Millisecond, Total: time.Second}
			w.start(e)
			w.accept(1, "billing")
			if res := w.await(1)[0]; res.Attempt.Code != c.code || res.State != outbox.Pending {
				t.Errorf("code %q, state %s (%s), want %s, pending", res.Attempt.Code, res.State, res.Attempt.Error, c.code)
			}
		})
	}
}

// fullListener returns an address where a connection is neither made nor refused: nobody
// accepts those that wait, and no more may wait.
func fullListener(t *testing.T) (address string) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*syscall.SockaddrInet4).Port)).String()
	for range 8 {
		c, err := net.DialTimeout("tcp", address, 500*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the queue of a listener is never full here")
	return ""
}
