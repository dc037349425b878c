package deliver

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// names is a DNS server in memory: it answers every question for an IPv4
// address with what reply says at that moment.
type names struct {
	reply func() (netip.Addr, dnsmessage.RCode)
}

func (s names) resolver(t *testing.T) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go s.serve(theirs)
		return ours, nil
	}}
}

// serve speaks DNS over a stream, RFC 1035 section 4.2.2.
func (s names) serve(c net.Conn) {
	defer c.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(query) != nil {
			return
		}
		addr, code := s.reply()
		m.Response, m.RCode, m.Additionals = true, code, nil
		if q := m.Questions[0]; code == dnsmessage.RCodeSuccess && q.Type == dnsmessage.TypeA {
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
				Body:   &dnsmessage.AResource{A: addr.As4()},
			}}
		}
		out, err := m.Pack()
		if err != nil {
			return
		}
		binary.BigEndian.PutUint16(size[:], uint16(len(out)))
		if _, err := c.Write(append(size[:], out...)); err != nil {
			return
		}
	}
}

// Fault F33: what names lead to is judged when it is dialled, each time.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		name  string
		addr  string
		rcode dnsmessage.RCode
		code  string
	}{
		{"allowed", "127.0.0.1", dnsmessage.RCodeSuccess, ""},
		{"private", "10.0.0.1", dnsmessage.RCodeSuccess, "egress_denied"},
		{"metadata", "169.254.169.254", dnsmessage.RCodeSuccess, "egress_denied"},
		{"not found", "127.0.0.1", dnsmessage.RCodeNameError, "dns_not_found"},
		{"server failure", "127.0.0.1", dnsmessage.RCodeServerFailure, "dns_failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			receiver := delivertest.NewEndpoint()
			u := receiver.Listen(t)
			u.Host = "billing.test.:" + u.Port()
			w.o.resolver = names{func() (netip.Addr, dnsmessage.RCode) { return netip.MustParseAddr(c.addr), c.rcode }}.resolver(t)
			w.start(endpointAt(t, "billing", u))
			w.accept(1, "billing")
			res := w.await(1)[0]
			if res.Attempt.Code != c.code {
				t.Errorf("code is %q (%s), want %q", res.Attempt.Code, res.Attempt.Error, c.code)
			}
			if c.code != "" && res.State != outbox.Pending {
				t.Errorf("state is %s: DNS may be mended, so it must be tried again", res.State)
			}
			if n := len(receiver.Requests()); (n == 1) != (c.code == "") {
				t.Errorf("%d requests came", n)
			}
			if res.Attempt.Timing.DNS <= 0 {
				t.Errorf("timing is %+v", res.Attempt.Timing)
			}
		})
	}
}

// A name that is harmless when first asked for and private later (DNS rebinding)
// gets through only as often as it is harmless.
func TestNameThatFlips(t *testing.T) {
	w := newWorld(t)
	receiver := delivertest.NewEndpoint(delivertest.Step{Header: map[string]string{"Connection": "close"}})
	u := receiver.Listen(t)
	u.Host = "billing.test.:" + u.Port()
	current := netip.MustParseAddr("127.0.0.1")
	w.o.resolver = names{func() (netip.Addr, dnsmessage.RCode) { return current, dnsmessage.RCodeSuccess }}.resolver(t)
	e := endpointAt(t, "billing", u)
	e.Egress.AllowPrivate = prefixes("127.0.0.1/32")
	w.start(e)
	w.accept(1, "billing")
	if first := w.await(1)[0]; first.State != outbox.Delivered {
		t.Fatalf("first delivery is %s, %s", first.State, first.Attempt.Error)
	}
	current = netip.MustParseAddr("127.0.0.2") // the same receiver listens on it
	w.accept(2, "billing")
	for _, r := range w.await(3)[1:] {
		if r.Attempt.Code != "egress_denied" {
			t.Errorf("after the flip: code %q, want egress_denied", r.Attempt.Code)
		}
	}
}

// Each way of not getting a connection has its code, and ends in its time.
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
	for _, c := range []struct {
		name string
		url  string
		code string
	}{
		{"nobody listens", "http://" + closed.Addr().String(), "connection_refused"},
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
