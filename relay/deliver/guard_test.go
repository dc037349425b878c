package deliver

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// Which test proves which rule of the guard:
//
//	S1  judged after resolution, at the dial   TestNames, TestNameThatFlips, TestOddSpellings, TestGuardAtTheDialer
//	S2  every range that is not public         TestEveryRangeIsDenied, TestGuardDeniesByDefault
//	S3  what a list opens, and never opens     TestGuardWithAllowedRanges, TestNothingOpensTheNeverAllowed
//	S4  no proxy                               TestNoProxy, and every test here that uses a name
//	S5  no redirects, no other scheme          TestRefusals; the policy's decoder takes http and https only
//	S6  own listeners                          TestGuardOwnListeners, TestOwnListenerByName
//	S7  ports                                  TestGuardPorts, TestPortsByName
//	S8  connections go with the policy         TestApplyAndConnections, TestApplyClosesConnections, TestSameWireLooksAtTLS
//	S9  TLS                                    TestTLS, TestTLSOfAnEndpoint
//	S10 limits of an attempt                   TestDial, TestNoTLS, TestEndlessAnswers, TestHostileReceivers, TestNothingUnpacks

// notPublic are the ranges of S2 and S3. It is a list of its own, beside the one that the
// guard takes from a library.
var notPublic = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"168.63.129.16/32",
	"::/3", "4000::/2", "8000::/1", // all but 2000::/3
	"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
)

// forms are ways to write an IPv4 address as one of IPv6. All but the first are denied
// whatever is inside, where the policy lists nothing.
var forms = []struct{ name, prefix string }{
	{"mapped", "::ffff:0:0"}, {"compatible", "::"}, {"translated", "::ffff:0:0:0"}, {"NAT64", "64:ff9b::"}, {"local NAT64", "64:ff9b:1::"},
}

func inForm(prefix string, v4 netip.Addr) netip.Addr {
	b := netip.MustParseAddr(prefix).As16()
	inside := v4.As4()
	copy(b[12:], inside[:])
	return netip.AddrFrom16(b)
}

// lastOf returns the last address of a range.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// S2: the first and the last address of each range that is not public, and any between,
// in all forms and with a zone, are denied by default.
func TestEveryRangeIsDenied(t *testing.T) {
	g := newGuard(policy.Egress{AllowPlaintext: true}, nil)
	check := func(t interface{ Errorf(string, ...any) }, a netip.Addr) {
		if g.deny(netip.AddrPortFrom(a, 443)) == "" {
			t.Errorf("%s is allowed", a)
		}
	}
	for _, p := range notPublic {
		for _, a := range []netip.Addr{p.Addr(), lastOf(p)} {
			check(t, a)
			if a.Is6() {
				check(t, a.WithZone("lo"))
				continue
			}
			for _, f := range forms {
				check(t, inForm(f.prefix, a))
			}
			v4 := a.As4()
			check(t, netip.MustParseAddr(fmt.Sprintf("2002:%02x%02x:%02x%02x::1", v4[0], v4[1], v4[2], v4[3])))
		}
	}
	for _, neighbour := range []string{
		"1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0",
		"172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.0.3.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0",
		"203.0.112.255", "203.0.114.0", "223.255.255.255", "168.63.129.15", "168.63.129.17", "2000::1", "2001:200::1", "2003::1", "3ffe::1",
	} {
		if reason := g.deny(netip.AddrPortFrom(netip.MustParseAddr(neighbour), 443)); reason != "" {
			t.Errorf("%s is denied: %s", neighbour, reason)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom(notPublic).Draw(t, "range")
		b := p.Addr().AsSlice()
		for i := range b {
			random := rapid.Byte().Draw(t, "byte")
			free := max(0, min(8, 8*(i+1)-p.Bits())) // bits of this byte
			b[i] = b[i]&^(1<<free-1) | random&byte(1<<free-1)
		}
		a, _ := netip.AddrFromSlice(b)
		if !p.Contains(a) {
			t.Fatalf("%s is not in %s: the test is wrong", a, p)
		}
		check(t, a)
		if a.Is4() {
			check(t, inForm(rapid.SampledFrom(forms).Draw(t, "form").prefix, a))
		}
	})
}

// S3: link-local addresses, metadata services and what is not one host's address stay
// closed where everything is listed, in any form.
func TestNothingOpensTheNeverAllowed(t *testing.T) {
	g := newGuard(policy.Egress{AllowPrivate: prefixes("0.0.0.0/0", "::/0")}, nil)
	for _, a := range addrs("169.254.0.1", "169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192", "0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255") {
		for _, f := range forms {
			if in := inForm(f.prefix, a); g.deny(netip.AddrPortFrom(in, 443)) == "" {
				t.Errorf("%s, %s of %s, is allowed where everything is listed", in, f.name, a)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		b := binary.BigEndian.AppendUint32(nil, rapid.Uint32().Draw(t, "address"))
		for _, start := range [][]byte{{169, 254}, {0}, {255}, {230}} {
			copy(b, start)
			a, _ := netip.AddrFromSlice(b)
			in := inForm(rapid.SampledFrom(forms).Draw(t, "form").prefix, a)
			if in != netip.IPv6Loopback() && g.deny(netip.AddrPortFrom(in, 443)) == "" {
				t.Fatalf("%s is allowed where everything is listed", in)
			}
		}
	})
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

// S10: no compressed answer is asked for, and none is unpacked.
func TestNothingUnpacks(t *testing.T) {
	packed := gzipped(1000)
	onEachSender(t, func(t *testing.T, w *world, put func(*delivertest.Endpoint) *policy.Endpoint) {
		receiver := delivertest.NewEndpoint(delivertest.Step{Body: packed, Header: map[string]string{"Content-Encoding": "gzip"}})
		w.start(put(receiver))
		w.accept(1, "billing")
		if r := w.await(1)[0]; string(r.Attempt.Body) != packed {
			t.Errorf("body is %q (%s)", r.Attempt.Body, r.Attempt.Error)
		}
		w.stop()
		if v := receiver.Requests()[0].Header.Values("Accept-Encoding"); len(v) != 0 {
			t.Errorf("asks for %q", v)
		}
	})
}
