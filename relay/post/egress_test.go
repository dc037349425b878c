package post

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"testing"

	"pgregory.net/rapid"

	"relay/policy"
)

// Addresses that lead to this machine, its network or its cloud: none may be
// dialled by default (promise P11).
var nasty = []string{
	"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254",
	"169.254.0.1", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1",
	"192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
	"240.0.0.1", "255.255.255.255", "168.63.129.16",
	"::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1",
	"64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "2002:7f00:1::1",
	"2002:a00:1::1", "3fff::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "5f00::1",
}

func TestGuardDeniesByDefault(t *testing.T) {
	g := newGuard(policy.Egress{AllowPlaintext: true}, nil)
	for _, a := range nasty {
		if g.deny(netip.AddrPortFrom(netip.MustParseAddr(a), 443)) == "" {
			t.Errorf("%s is allowed", a)
		}
	}
	for _, a := range []string{"1.1.1.1", "8.8.8.8", "::ffff:8.8.8.8", "172.32.0.1", "11.0.0.1", "2606:4700::1111", "2a00:1450::1"} {
		if reason := g.deny(netip.AddrPortFrom(netip.MustParseAddr(a), 443)); reason != "" {
			t.Errorf("%s is denied: %s", a, reason)
		}
	}
}

// What a policy lists is opened, but never link-local, metadata and disguises.
func TestGuardWithAllowedRanges(t *testing.T) {
	everything := newGuard(policy.Egress{AllowPrivate: prefixes("0.0.0.0/0", "::/0")}, nil)
	for _, a := range []string{
		"169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192", "0.0.0.0", "224.0.0.1", "255.255.255.255",
		"::", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "fd20:ce::254", "ff02::1", "::ffff:169.254.169.254",
		"64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
	} {
		if everything.deny(netip.AddrPortFrom(netip.MustParseAddr(a), 443)) == "" {
			t.Errorf("%s is allowed where everything is listed", a)
		}
	}
	some := newGuard(policy.Egress{AllowPrivate: prefixes("10.1.2.3/16", "127.0.0.0/8", "::1/128", "fd12::/16", "64:ff9b::/96")}, nil)
	for a, want := range map[string]bool{
		"10.1.0.1": true, "10.1.255.255": true, "10.2.0.1": false, "127.0.0.1": true, "::ffff:10.1.0.1": true, "::ffff:10.2.0.1": false,
		"::1": true, "::2": false, "fd12::1": true, "fd13::1": false, "192.168.0.1": false, "8.8.8.8": true,
		"64:ff9b::808:808": true, "64:ff9b::a01:1": true, "64:ff9b::a02:1": false,
	} {
		if reason := some.deny(netip.AddrPortFrom(netip.MustParseAddr(a), 443)); (reason == "") != want {
			t.Errorf("%s: allowed %t, want %t (%s)", a, reason == "", want, reason)
		}
	}
}

func TestGuardPorts(t *testing.T) {
	g := newGuard(policy.Egress{Ports: []uint16{443, 8443}}, nil)
	for port, want := range map[uint16]bool{443: true, 8443: true, 80: false, 22: false} {
		if got := g.deny(netip.AddrPortFrom(netip.MustParseAddr("8.8.8.8"), port)) == ""; got != want {
			t.Errorf("port %d: allowed %t, want %t", port, got, want)
		}
	}
}

// An endpoint must not reach ingest or admin of this process.
func TestGuardOwnListeners(t *testing.T) {
	own := func() []netip.AddrPort {
		return []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:7071"), netip.MustParseAddrPort("[::]:7070"), netip.MustParseAddrPort("8.8.8.8:443")}
	}
	g := newGuard(policy.Egress{AllowPrivate: prefixes("127.0.0.0/8", "::1/128", "10.0.0.0/8")}, own)
	for target, want := range map[string]bool{
		"127.0.0.1:7071": false, "[::ffff:127.0.0.1]:7071": false, "127.0.0.1:7072": true, "127.0.0.2:7071": true,
		"127.0.0.1:7070": false, "127.9.9.9:7070": false, "[::1]:7070": false, "10.9.9.9:7070": true, "8.8.8.8:443": false, "8.8.8.8:80": true,
	} {
		if reason := g.deny(netip.MustParseAddrPort(target)); (reason == "") != want {
			t.Errorf("%s: allowed %t, want %t (%s)", target, reason == "", want, reason)
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if p := netip.MustParsePrefix(a.String()); !g.isOwn(netip.AddrPortFrom(p.Addr(), 7070)) {
			t.Errorf("%s is not known as this machine's", p)
		}
	}
}

// The guard's place is between name resolution and the first packet: here it
// stands in a real dialer, with URLs that look harmless.
func TestGuardAtTheDialer(t *testing.T) {
	d := &dialer{
		guard:     newGuard(policy.Egress{AllowPlaintext: true}, nil),
		plaintext: true,
		timeout:   policy.Timeout{Connect: 5e9, Total: 15e9},
	}
	for _, host := range []string{"127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "169.254.169.254", "[fd00:ec2::254]", "10.0.0.1"} {
		_, err := d.dial(context.Background(), "tcp", host+":80")
		if e, ok := errors.AsType[*dialError](err); !ok || e.code != policy.CodeEgress {
			t.Errorf("dial %s: %v, want egress_denied", host, err)
		}
	}
	d.plaintext = false
	if _, err := d.dial(context.Background(), "tcp", "8.8.8.8:80"); !errors.Is(err, errPlaintext) {
		t.Errorf("dial without TLS: %v, want it denied", err)
	}
}

// Which test proves which rule of the guard:
//
//	S1  judged after resolution, at the dial   TestNames, TestNameThatFlips, TestOddSpellings, TestGuardAtTheDialer
//	S2  every range that is not public         TestEveryRangeIsDenied, TestGuardDeniesByDefault
//	S3  what a list opens, and never opens     TestGuardWithAllowedRanges, TestNothingOpensTheNeverAllowed
//	S4  no proxy                               TestNoProxy, and every test here that uses a name
//	S5  no redirects, no other scheme          TestRefusals (relay/deliver); the policy's decoder takes http and https only
//	S6  own listeners                          TestGuardOwnListeners, TestOwnListenerByName
//	S7  ports                                  TestGuardPorts, TestPortsByName
//	S8  connections go with the policy         TestApplyAndConnections, TestApplyClosesConnections, TestSame (relay/post)
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

func TestDenied(t *testing.T) {
	own := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:7070")}
	for _, c := range []struct {
		url    string
		egress policy.Egress
		reason string
		known  bool
	}{
		{"https://billing.test/x", policy.Egress{}, "", false},
		{"https://93.184.216.34", policy.Egress{}, "", true},
		{"https://93.184.216.34", policy.Egress{Ports: []uint16{8443}}, "the port is not one of egress.ports", true},
		{"https://10.1.2.3", policy.Egress{}, "not a public address; egress.allow_private may open private ones", true},
		{"https://10.1.2.3", policy.Egress{AllowPrivate: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, "", true},
		{"https://[fd00:ec2::254]", policy.Egress{}, "a cloud's metadata service", true},
		{"http://127.0.0.1:7070", policy.Egress{AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, "a listener of this process", true},
	} {
		u, err := url.Parse(c.url)
		if err != nil {
			t.Fatal(err)
		}
		reason, known := Denied(&policy.Endpoint{URL: u, Egress: c.egress}, own)
		if reason != c.reason || known != c.known {
			t.Errorf("%s with %v: %q, known %t; want %q, %t", c.url, c.egress, reason, known, c.reason, c.known)
		}
	}
}
