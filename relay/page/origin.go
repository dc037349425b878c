package page

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// origin is how the browser reaches this listener.
func (c *call) origin() string {
	if c.secure() {
		return "https://" + c.r.Host
	}
	return "http://" + c.r.Host
}

// secure tells whether the browser speaks TLS, with Relay or with a proxy in front of it. The browser itself says so: no header
// of a proxy has to be trusted, and no page can make a browser say otherwise. Origin comes with forms. Other requests have
// Sec-Fetch-Site, which browsers send over TLS and to this machine alone
// (https://www.w3.org/TR/fetch-metadata/#framework).
func (c *call) secure() bool {
	if c.r.TLS != nil {
		return true
	}
	if said, err := url.Parse(c.r.Header.Get("Origin")); err == nil && said.Host != "" && said.Host == c.r.Host {
		return said.Scheme == "https"
	}
	return c.r.Header.Get("Sec-Fetch-Site") != "" && !toItself(c.r)
}

// toItself tells whether the host of a request is a name or an address by which a machine reaches itself.
func toItself(r *http.Request) bool {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.Trim(host, "[]."))
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || host == "localhost" || strings.HasSuffix(host, ".localhost")
}
