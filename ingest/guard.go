package ingest

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Guard keeps web pages and strangers out of a listener.
//
// The Host header must be an IP literal, localhost or one of Hosts, else 421:
// a web page whose own name was made to point here (DNS rebinding) still sends
// its name. A request that a page of another site caused is refused with 403.
// A missing or wrong token is 401.
type Guard struct {
	Token   string   // bearer token that every request must show; "" = none is asked for
	Hosts   []string // host names that are answered, beside localhost and IP literals
	AnyHost bool     // for Unix sockets, which no web page can reach
}

// caller is what a request says about where it comes from, whatever the HTTP
// library. A header that is there twice counts by its first value.
type caller struct {
	host          string // of the request target if it names one, else the Host header
	site          string // Sec-Fetch-Site
	origin        string // Origin
	authorization string // Authorization
}

// gate is a Guard made ready to be asked.
type gate struct {
	anyHost bool
	hosts   []string // as hostName gives them
	locked  bool
	token   [sha256.Size]byte
}

func (g Guard) gate() *gate {
	t := &gate{anyHost: g.AnyHost, locked: g.Token != "", token: sha256.Sum256([]byte(g.Token))}
	for _, h := range g.Hosts {
		t.hosts = append(t.hosts, hostName(h))
	}
	return t
}

// check returns nil for a caller that may pass.
func (g *gate) check(c *caller) *problem {
	switch {
	case !g.anyHost && c.host == "":
		return refuse(missingHost, "send the Host header")
	case !g.anyHost && !isLocal(c.host) && !slices.Contains(g.hosts, hostName(c.host)):
		return refuse(unknownHost, "use localhost or an IP address, or add the name to hosts in the configuration")
	case c.isCrossOrigin():
		return refuse(crossOrigin, "this listener is for programs, not for web pages")
	case g.locked && !c.hasToken(g.token):
		return refuse(unauthorized, "send the header Authorization: Bearer with the token of this listener")
	}
	return nil
}

// hostName takes port, brackets and a final dot off a Host header.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// isLocal tells whether a Host header is one that DNS has no say in.
func isLocal(host string) bool {
	name := hostName(host)
	_, err := netip.ParseAddr(name)
	return err == nil || name == "localhost"
}

// isCrossOrigin tells whether a browser sent the request for a page of another
// origin. It decides as http.CrossOriginProtection does, but for GET as well,
// and never lets a null origin pass.
func (c *caller) isCrossOrigin() bool {
	switch c.site {
	case "same-origin", "none":
		return false
	case "":
		if c.origin == "" {
			return false // no browser
		}
		u, err := url.Parse(c.origin)
		return err != nil || u.Host == "" || u.Host != c.host
	}
	return true
}

// hasToken compares hashes, so that the time says nothing about the token.
func (c *caller) hasToken(want [sha256.Size]byte) bool {
	scheme, token, _ := strings.Cut(c.authorization, " ")
	got := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}
