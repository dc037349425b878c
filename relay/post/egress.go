package post

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"code.dny.dev/ssrf"

	"relay/policy"
)

// guard decides which addresses an endpoint's connections may go to. It checks the address that
// is dialled, after name resolution, so that no name, redirect or changing DNS answer can evade
// it (promise P11).
type guard struct {
	public *ssrf.Guardian // public addresses, and those that the policy lists
	never  []reserved
	inside []netip.Prefix          // IPv6 prefixes whose last 32 bits are an IPv4 address
	own    func() []netip.AddrPort // of this process
}

// reserved is a range that no policy can allow.
type reserved struct {
	prefix netip.Prefix
	what   string
}

// deniedError is the guard's refusal. It is retried, because DNS may be corrected.
type deniedError struct {
	target netip.AddrPort
	reason string
}

func (e *deniedError) Error() string {
	return fmt.Sprintf("connection to %s denied: %s", e.target, e.reason)
}

func newGuard(e policy.Egress, own func() []netip.AddrPort) *guard {
	var v4, v6 []netip.Prefix
	for _, p := range e.AllowPrivate {
		if p = p.Masked(); p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	return &guard{
		public: ssrf.New(
			ssrf.WithPorts(e.Ports...), // none given: only the URL's own port is dialled
			ssrf.WithAllowedV4Prefixes(v4...),
			ssrf.WithAllowedV6Prefixes(v6...),
		),
		never:  neverAllowed(),
		inside: []netip.Prefix{netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("::/96"), netip.MustParsePrefix("::ffff:0:0:0/96")},
		own:    own,
	}
}

func neverAllowed() []reserved {
	var all []reserved
	add := func(what string, prefixes ...string) {
		for _, p := range prefixes {
			all = append(all, reserved{netip.MustParsePrefix(p), what})
		}
	}
	add("a link-local address", "169.254.0.0/16", "fe80::/10")
	add("a cloud's metadata service", // beside 169.254.169.254
		"fd00:ec2::254/128",  // AWS
		"fd20:ce::254/128",   // Google
		"168.63.129.16/32",   // Azure
		"100.100.100.200/32", // Alibaba
		"192.0.0.192/32")     // Oracle
	add("not the address of one host", "0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "::/128", "ff00::/8")
	add("an IPv4 address in disguise", "64:ff9b:1::/48", "2001::/32", "2002::/16") // local NAT64, Teredo, 6to4
	return all
}

// control is a net.Dialer's ControlContext: it checks each address before a packet is sent.
func (g *guard) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return &deniedError{reason: "not an address: " + network}
	}
	if reason := g.deny(target); reason != "" {
		return &deniedError{target, reason}
	}
	return nil
}

// deny returns why connections to target are denied, "" if they are allowed.
func (g *guard) deny(target netip.AddrPort) string {
	ip := target.Addr().Unmap() // one with a zone is in no range; it is denied below
	for _, r := range g.never {
		if r.prefix.Contains(ip) {
			return r.what
		}
	}
	if b := ip.As16(); ip != netip.IPv6Loopback() && slices.ContainsFunc(g.inside, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		// NAT64, if the policy lists it, leads to the embedded IPv4 address. So may the older
		// forms.
		inside := netip.AddrFrom4([4]byte(b[12:]))
		if reason := g.deny(netip.AddrPortFrom(inside, target.Port())); reason != "" {
			return reason
		}
	}
	if g.isOwn(netip.AddrPortFrom(ip, target.Port())) {
		return "a listener of this process"
	}
	switch err := g.public.SafeAddrPort(netip.AddrPortFrom(ip, target.Port())); {
	case errors.Is(err, ssrf.ErrProhibitedPort):
		return "the port is not one of egress.ports"
	case err != nil:
		return "not a public address; egress.allow_private may open private ones"
	}
	return ""
}

// isOwn reports whether target is one of this process's own listeners. A listener on the
// unspecified address is reached by every address of this machine.
func (g *guard) isOwn(target netip.AddrPort) bool {
	if g.own == nil {
		return false
	}
	return slices.ContainsFunc(g.own(), func(l netip.AddrPort) bool {
		ip := l.Addr().Unmap()
		return l.Port() == target.Port() &&
			(ip == target.Addr() || ip.IsUnspecified() && isLocal(target.Addr()))
	})
}

func isLocal(ip netip.Addr) bool {
	if ip.IsLoopback() {
		return true
	}
	addrs, _ := net.InterfaceAddrs()
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().Unmap() == ip
	})
}

// Denied returns why connections to the address of e's URL are denied, "" if they are allowed.
// known is false for a URL with a name, whose addresses are checked when they are dialled. own
// are this process's listeners.
func Denied(e *policy.Endpoint, own []netip.AddrPort) (reason string, known bool) {
	ip, err := netip.ParseAddr(e.URL.Hostname())
	if err != nil {
		return "", false
	}
	g := newGuard(e.Egress, func() []netip.AddrPort { return own })
	return g.deny(netip.AddrPortFrom(ip, e.Port())), true
}
