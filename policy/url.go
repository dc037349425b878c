package policy

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"relay/config"

	"code.dny.dev/ssrf"
)

// maxURL bounds an endpoint's URL, in bytes.
const maxURL = 2048

// parseURL accepts an absolute https or http URL that all parsers read in the same way. Its
// errors do not repeat the URL, whose path or query may hold a credential.
func parseURL(s string) (*url.URL, error) {
	if len(s) > maxURL {
		return nil, errors.New("it is longer than 2048 characters")
	}
	for _, r := range s {
		if r <= ' ' || r > '~' {
			return nil, errors.New("only ASCII without spaces can be in it: percent-encode other characters, and write the host as punycode (xn--…)")
		}
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New(`it cannot be read; write it like "https://billing.example.com/hooks"`)
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("it must begin with https:// (or http:// where egress has allow_plaintext = true)")
	case u.Hostname() == "":
		return nil, errors.New("it has no host")
	case u.User != nil:
		return nil, errors.New(`it holds a user name or password; send those in headers = { Authorization = … }`)
	case strings.Contains(s, "#"):
		return nil, errors.New("it has a fragment (#…), which is never sent; remove it")
	case strings.HasSuffix(u.Host, ":"):
		return nil, errors.New("its port is empty")
	}
	if u.Port() != "" {
		if _, err := parsePort(u.Port()); err != nil {
			return nil, errors.New("its port must be a number from 1 to 65535")
		}
	}
	name, absolute := strings.CutSuffix(u.Hostname(), ".")
	if _, err := netip.ParseAddr(name); absolute && err == nil {
		return nil, config.ErrNoAddress // a resolver would take it for a name
	}
	if err := config.CheckHost(name); err != nil {
		return nil, err
	}
	return u, nil
}

// checkEgress reports whether the policy allows connections to a URL's address. A name is checked
// when it is dialled.
func checkEgress(u *url.URL, e Egress) error {
	if u.Scheme == "http" && !e.AllowPlaintext {
		return errors.New("http:// sends events in the clear; use https://, or set egress { allow_plaintext = true }")
	}
	port := portOf(u)
	if len(e.Ports) > 0 && !slices.Contains(e.Ports, port) {
		return errors.New("its port is not in the ports of egress")
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return nil
	}
	addr = addr.Unmap()
	if addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() {
		return errors.New("its host is not the address of one machine")
	}
	for _, p := range neverAllowed() {
		if p.Contains(addr) {
			return errors.New("link-local and metadata addresses cannot be allowed")
		}
	}
	var v4, v6 []netip.Prefix
	for _, p := range e.AllowPrivate {
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	public := ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))
	if public.SafeAddr(addr) != nil {
		return errors.New(`it points at a private address; set egress { allow_private = ["` + netip.PrefixFrom(addr, addr.BitLen()).String() + `"] } if it is meant`)
	}
	return nil
}

// Port is the port of e's URL.
func (e *Endpoint) Port() uint16 { return portOf(e.URL) }

// RequestURL is e's URL for requests, signatures and TLS: the host without a trailing dot (RFC
// 6066 section 3) and without the port that the scheme has by default (RFC 9110 section 4.2.3).
// The URL itself is dialled: its trailing dot keeps search domains away.
func (e *Endpoint) RequestURL() *url.URL {
	u := *e.URL
	port := u.Port()
	if port == "" || u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" {
		u.Host, port = strings.TrimSuffix(u.Host, ":"+port), ""
	}
	if name := u.Hostname(); strings.HasSuffix(name, ".") {
		u.Host = strings.TrimSuffix(name, ".")
		if port != "" {
			u.Host += ":" + port
		}
	}
	return &u
}

func portOf(u *url.URL) uint16 {
	if n, err := parsePort(u.Port()); err == nil {
		return n
	}
	if u.Scheme == "http" {
		return 80
	}
	return 443
}

// checkOwn refuses a URL that leads to a listener of the file: no connection is made there.
func checkOwn(u *url.URL, listeners []string) error {
	for _, l := range listeners {
		host, port, err := net.SplitHostPort(l)
		if err == nil && port == strconv.Itoa(int(portOf(u))) && sameHost(u.Hostname(), host) {
			return errors.New("it leads to a listener of this Relay, which never sends to itself; write the address of the receiver")
		}
	}
	return nil
}

// sameHost tells whether a host is that of a listener, as far as that is known without
// looking names up.
func sameHost(host, listener string) bool {
	to, from := loopback(host), loopback(listener)
	if ip, err := netip.ParseAddr(from); from == "" || err == nil && ip.IsUnspecified() { // every address of the machine
		ip, err := netip.ParseAddr(to)
		return err == nil && ip.IsLoopback()
	}
	return strings.EqualFold(to, from)
}

// loopback writes localhost and IPv4 in IPv6 as the address that they are.
func loopback(host string) string {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String()
	}
	return host
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, errors.New("write a port number from 1 to 65535")
	}
	return uint16(n), nil
}
