package post

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
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
			e := endpointAt("billing", u)
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

// trap listens where no connection may come, and counts those that do.
func trap(t *testing.T, address string) (caught *atomic.Int64, port string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	caught = new(atomic.Int64)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			caught.Add(1)
			c.Close()
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return caught, port
}

// byName puts a receiver on 127.0.0.1, the only address that its endpoint may be on, under
// the name billing.test, and a trap on 127.0.0.2 and the same port. With protocols it has
// TLS, and net/http sends to it.
func (w *world) byName(r *delivertest.Endpoint, answer func(string) delivertest.Reply, protocols ...string) (*policy.Endpoint, *delivertest.Names, *atomic.Int64) {
	w.t.Helper()
	if len(protocols) > 0 {
		a := delivertest.NewAuthority(w.t)
		w.o.Network.Roots = a.Pool()
		r.TLS = a.Issue("billing.test", time.Now().Add(time.Hour))
		r.TLS.NextProtos = protocols
	}
	u := r.Listen(w.t)
	caught, _ := trap(w.t, "127.0.0.2:"+u.Port())
	u.Host = "billing.test.:" + u.Port()
	e := endpointAt("billing", u)
	e.HTTP2 = len(protocols) > 0
	e.Egress.AllowPrivate = prefixes("127.0.0.1/32")
	names := delivertest.NewNames(w.t, answer)
	w.o.Network.Resolver = names.Resolver()
	return e, names, caught
}

// Fault F33, S1 and S2: what names lead to is judged when it is dialled, each time, in
// whatever form it comes.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		name  string
		reply delivertest.Reply
		code  string
	}{
		{"allowed", delivertest.Reply{Addrs: addrs("127.0.0.1")}, ""},
		{"allowed, as IPv6", delivertest.Reply{Addrs: addrs("::ffff:127.0.0.1")}, ""},
		{"asked for by TCP", delivertest.Reply{Addrs: addrs("127.0.0.1"), Cut: true}, ""},
		{"aliases", delivertest.Reply{Aliases: []string{"a.test", "b.test", "c.test"}, Addrs: addrs("127.0.0.1")}, ""},
		{"aliases to a private one", delivertest.Reply{Aliases: []string{"a.test", "b.test", "c.test"}, Addrs: addrs("127.0.0.2")}, "egress_denied"},
		{"private", delivertest.Reply{Addrs: addrs("10.0.0.1")}, "egress_denied"},
		{"this machine", delivertest.Reply{Addrs: addrs("127.0.0.2")}, "egress_denied"},
		{"this machine, IPv6", delivertest.Reply{Addrs: addrs("::1")}, "egress_denied"},
		{"metadata", delivertest.Reply{Addrs: addrs("169.254.169.254")}, "egress_denied"},
		{"metadata of Azure", delivertest.Reply{Addrs: addrs("168.63.129.16")}, "egress_denied"},
		{"metadata, IPv6", delivertest.Reply{Addrs: addrs("fd00:ec2::254")}, "egress_denied"},
		{"mapped", delivertest.Reply{Addrs: addrs("::ffff:127.0.0.2")}, "egress_denied"},
		{"mapped metadata", delivertest.Reply{Addrs: addrs("::ffff:169.254.169.254")}, "egress_denied"},
		{"NAT64", delivertest.Reply{Addrs: addrs("64:ff9b::7f00:2")}, "egress_denied"},
		{"local NAT64", delivertest.Reply{Addrs: addrs("64:ff9b:1::7f00:2")}, "egress_denied"},
		{"6to4", delivertest.Reply{Addrs: addrs("2002:7f00:2::1")}, "egress_denied"},
		{"link-local", delivertest.Reply{Addrs: addrs("fe80::1")}, "egress_denied"},
		{"several, none allowed", delivertest.Reply{Addrs: addrs("127.0.0.2", "::1", "10.0.0.1")}, "egress_denied"},
		{"several, the last allowed", delivertest.Reply{Addrs: addrs("127.0.0.2", "::ffff:127.0.0.2", "127.0.0.1")}, ""},
		{"not found", delivertest.Reply{Code: dnsmessage.RCodeNameError}, "dns_not_found"},
		{"no address", delivertest.Reply{}, "dns_not_found"},
		{"server failure", delivertest.Reply{Code: dnsmessage.RCodeServerFailure}, "dns_failed"},
		{"no answer", delivertest.Reply{Mute: true}, "dns_failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			onBothSenders(t, func(t *testing.T, protocols ...string) {
				w := newWorld(t)
				receiver := delivertest.NewEndpoint()
				e, _, caught := w.byName(receiver, func(string) delivertest.Reply { return c.reply }, protocols...)
				if c.reply.Mute {
					e.Timeout.Connect = 50 * time.Millisecond
				}
				w.start(e)
				w.accept(1, "billing")
				res := w.await(1)[0]
				w.stop()
				if res.Attempt.Code != c.code {
					t.Errorf("code is %q (%s), want %q", res.Attempt.Code, res.Attempt.Error, c.code)
				}
				if strings.HasPrefix(c.code, "dns_") && (!strings.Contains(res.Attempt.Error, e.URL.Hostname()+": ") || strings.Contains(res.Attempt.Error, " on ")) {
					t.Errorf("the text names the name server: %s", res.Attempt.Error)
				}
				if c.code != "" && res.State != outbox.Pending {
					t.Errorf("state is %s: DNS may be mended, so it must be tried again", res.State)
				}
				if n := len(receiver.Requests()); (n == 1) != (c.code == "") || caught.Load() != 0 {
					t.Errorf("%d requests came, %d connections to a denied address", n, caught.Load())
				}
				if res.Attempt.Timing.DNS <= 0 {
					t.Errorf("timing is %+v", res.Attempt.Timing)
				}
			})
		})
	}
}

// Fault F33, S1: a name whose answer flips between allowed and private (DNS rebinding)
// gets through exactly as often as it is allowed, and never a packet to where it is not.
func TestNameThatFlips(t *testing.T) {
	onBothSenders(t, func(t *testing.T, protocols ...string) {
		const events = 20
		w := newWorld(t)
		receiver := delivertest.NewEndpoint(delivertest.Step{Header: map[string]string{"Connection": "close"}})
		var asked atomic.Int64
		e, _, caught := w.byName(receiver, func(string) delivertest.Reply {
			if (asked.Add(1)-1)/2%2 == 0 { // each attempt asks for A and for AAAA
				return delivertest.Reply{Addrs: addrs("127.0.0.1")}
			}
			return delivertest.Reply{Addrs: addrs("127.0.0.2")}
		}, protocols[len(protocols)/2:]...) // HTTP/1.1: each attempt dials
		e.Concurrency = 1
		w.start(e)
		w.accept(events, "billing")
		results := w.await(events)
		w.stop()
		for i, r := range results {
			if want := []string{"", "egress_denied"}[i%2]; r.Attempt.Code != want {
				t.Errorf("attempt %d: code %q (%s), want %q", i, r.Attempt.Code, r.Attempt.Error, want)
			}
		}
		if n := len(receiver.Requests()); n != events/2 || caught.Load() != 0 {
			t.Errorf("%d requests came, %d connections to a denied address", n, caught.Load())
		}
	})
}

// S1: spellings of 127.0.0.1 that some resolvers take for an address. Here they are
// names, and whatever a name leads to is judged.
func TestOddSpellings(t *testing.T) {
	names := delivertest.NewNames(t, func(string) delivertest.Reply { return delivertest.Reply{Addrs: addrs("127.0.0.1")} })
	caught, port := trap(t, "127.0.0.1:0")
	d := &dialer{
		guard:     newGuard(policy.Egress{}, nil),
		plaintext: true,
		timeout:   policy.Timeout{Connect: 5 * time.Second, Total: 15 * time.Second},
		resolver:  names.Resolver(),
	}
	for _, host := range []string{
		"0x7f000001", "0x7f.0.0.1", "0x7f.1", "2130706433", "017700000001", "0177.0.0.1", "0127.0.0.1", "127.1", "127.0.1", "127.0.0.1.",
		"0", "00000177.0.0.1", "localhost", "LOCALHOST.", "sub.localhost.", "::1%lo", "::ffff:127.0.0.1", "0:0:0:0:0:ffff:7f00:1", "::ffff:7f00:1", "127.0.0.1.nip.test.",
	} {
		for _, dial := range []string{host, url.PathEscape(host)} {
			_, err := d.dial(t.Context(), "tcp", net.JoinHostPort(dial, port))
			e, ok := errors.AsType[*dialError](err)
			if !ok || e.code != policy.CodeEgress && e.code != policy.CodeNoSuchHost {
				t.Errorf("dial %s: %v, want egress_denied, or that there is no such name", dial, err)
			}
		}
	}
	if n := caught.Load(); n != 0 {
		t.Errorf("%d connections came", n)
	}
}

// proxies stand in the environment of all tests of this package (TestMain): one that
// used them would reach nobody.
var proxies = []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"}

// S4: no proxy is ever used.
func TestNoProxy(t *testing.T) {
	for _, name := range proxies {
		if os.Getenv(name) == "" {
			t.Fatalf("%s is not set: this proves nothing", name)
		}
	}
	for _, protocols := range [][]string{nil, {"http/1.1"}, {"h2"}} {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint()
		e, _, _ := w.byName(receiver, func(string) delivertest.Reply { return delivertest.Reply{Addrs: addrs("127.0.0.1")} }, protocols...)
		w.start(e)
		w.accept(1, "billing")
		if r := w.await(1)[0]; r.State != outbox.Delivered {
			t.Errorf("%v: delivery is %s, %s", protocols, r.State, r.Attempt.Error)
		}
		w.stop()
		for _, r := range receiver.Requests() {
			if r.Path != "/hook" { // a proxy is sent the whole URL
				t.Errorf("%v: request for %q", protocols, r.Path)
			}
		}
	}
}

// S6: a name does not lead to our own listener, however its range is listed.
func TestOwnListenerByName(t *testing.T) {
	onBothSenders(t, func(t *testing.T, protocols ...string) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint()
		e, _, _ := w.byName(receiver, func(string) delivertest.Reply {
			return delivertest.Reply{Addrs: addrs("127.0.0.1", "::ffff:127.0.0.1")}
		}, protocols...)
		w.o.Own = func() []netip.AddrPort {
			return []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), e.Port())}
		}
		w.start(e)
		w.accept(1, "billing")
		r := w.await(1)[0]
		w.stop()
		if r.Attempt.Code != "egress_denied" || !strings.Contains(r.Attempt.Error, "a listener of this process") || receiver.Conns() != 0 {
			t.Errorf("code %q (%s), %d connections", r.Attempt.Code, r.Attempt.Error, receiver.Conns())
		}
	})
}

// S7: only the ports that the policy lists.
func TestPortsByName(t *testing.T) {
	onBothSenders(t, func(t *testing.T, protocols ...string) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint()
		e, _, _ := w.byName(receiver, func(string) delivertest.Reply { return delivertest.Reply{Addrs: addrs("127.0.0.1")} }, protocols...)
		e.Egress.Ports = []uint16{443}
		w.start(e)
		w.accept(1, "billing")
		r := w.await(1)[0]
		w.stop()
		if r.Attempt.Code != "egress_denied" || !strings.Contains(r.Attempt.Error, "egress.ports") || receiver.Conns() != 0 {
			t.Errorf("code %q (%s), %d connections", r.Attempt.Code, r.Attempt.Error, receiver.Conns())
		}
	})
}

// A trailing dot in the URL's host is for the resolver alone: receivers see neither the dot nor
// the port that their scheme has by default.
func TestHostOfTheRequest(t *testing.T) {
	for _, c := range []struct{ host, dialled, said string }{
		{"billing.test", "billing.test:443", "billing.test"},
		{"billing.test:443", "billing.test:443", "billing.test"},
		{"billing.test.", "billing.test.:443", "billing.test"},
		{"billing.test.:443", "billing.test.:443", "billing.test"},
		{"billing.test.:8443", "billing.test.:8443", "billing.test:8443"},
	} {
		onBothSecureSenders(t, func(t *testing.T, protocols ...string) {
			w := newWorld(t)
			receiver := delivertest.NewEndpoint()
			a := delivertest.NewAuthority(t)
			w.o.Network.Roots = a.Pool()
			receiver.TLS = a.Issue("billing.test", time.Now().Add(time.Hour))
			receiver.TLS.NextProtos = protocols
			var asked names
			receiver.TLS.GetConfigForClient = asked.note
			e := w.named(receiver)
			e.URL.Host, e.HTTP2 = c.host, protocols[0] == "h2"
			var dialled string
			dial := w.o.Network.Dial
			w.o.Network.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				dialled = address
				return dial(ctx, network, address)
			}
			w.start(e)
			w.accept(1, "billing")
			r := w.await(1)[0]
			w.stop()
			if r.State != outbox.Delivered {
				t.Fatalf("%s: %q (%s)", c.host, r.Attempt.Code, r.Attempt.Error)
			}
			if said := receiver.Requests()[0].Host; dialled != c.dialled || said != c.said || !slices.Equal(asked.list(), []string{"billing.test"}) {
				t.Errorf("%s: dialled %q, Host %q, asked for %q by TLS, want %q, %q, billing.test", c.host, dialled, said, asked.list(), c.dialled, c.said)
			}
		})
	}
}

// A name with a trailing dot is asked for as it is: no search domain is tried after it.
func TestTrailingDotIsAbsolute(t *testing.T) {
	onBothSenders(t, func(t *testing.T, protocols ...string) {
		w := newWorld(t)
		var mu sync.Mutex
		asked := map[string]bool{}
		e, _, _ := w.byName(delivertest.NewEndpoint(), func(name string) delivertest.Reply {
			mu.Lock()
			defer mu.Unlock()
			asked[name] = true
			return delivertest.Reply{Code: dnsmessage.RCodeNameError}
		}, protocols...)
		w.start(e)
		w.accept(1, "billing")
		r := w.await(1)[0]
		w.stop()
		mu.Lock()
		defer mu.Unlock()
		if r.Attempt.Code != policy.CodeNoSuchHost || len(asked) != 1 {
			t.Errorf("%q (%s) after questions for %v, want dns_not_found after one name", r.Attempt.Code, r.Attempt.Error, asked)
		}
	})
}
