package deliver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"

	"relay/policy"
)

func prefixes(list ...string) (all []netip.Prefix) {
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

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
		if e, ok := errors.AsType[*dialError](err); !ok || e.code != codeEgress {
			t.Errorf("dial %s: %v, want egress_denied", host, err)
		}
	}
	d.plaintext = false
	if _, err := d.dial(context.Background(), "tcp", "8.8.8.8:80"); !errors.Is(err, errPlaintext) {
		t.Errorf("dial without TLS: %v, want it denied", err)
	}
}
