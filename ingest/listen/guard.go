package listen

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"relay/ingest/problem"
)

// Guard keeps web pages and strangers out of a listener.
//
// The Host header must be an IP literal, localhost or one of Hosts, else 421: a web page whose
// name resolves to this machine (DNS rebinding) sends its own name. A request from a page of
// another site is refused with 403, a missing or wrong token with 401.
type Guard struct {
	Token   string   // bearer token that every request must show; "" = none is asked for
	Hosts   []string // host names that are answered, beside localhost and IP literals
	AnyHost bool     // for Unix sockets, which no web page can reach
	Visits  bool     // a person may come by a link on a page of another site
}

// Caller is the origin of a request, independent of the HTTP library. Of a repeated header the
// first value counts.
type Caller struct {
	Host          string // of the request target if it names one, else the Host header
	Site          string // Sec-Fetch-Site
	Origin        string // Origin
	Authorization string // Authorization

	// Visit tells whether a browser asks for a document to show it: GET with Sec-Fetch-Mode: navigate and
	// Sec-Fetch-Dest: document. The page that led here cannot read the answer.
	Visit bool
}

// Check returns nil if the caller is allowed.
func (g Guard) Check(c *Caller) *problem.Problem {
	switch {
	case !g.AnyHost && c.Host == "":
		return problem.New(problem.MissingHost, "send the Host header")
	case !g.AnyHost && !isLocal(c.Host) && !g.hasHost(hostName(c.Host)):
		return problem.New(problem.UnknownHost, "use localhost or an IP address, or add the name to hosts in the configuration")
	case c.isCrossOrigin() && !(g.Visits && c.Visit):
		return problem.New(problem.CrossOrigin, "this listener is for programs, not for web pages")
	case g.Token != "" && !c.hasToken(g.Token):
		return problem.New(problem.Unauthorized, "send the header Authorization: Bearer with the token of this listener")
	}
	return nil
}

// Wrap refuses requests that are not allowed, and hands the others to next.
func (g Guard) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := g.Check(&Caller{
			Host:          r.Host,
			Site:          r.Header.Get("Sec-Fetch-Site"),
			Origin:        r.Header.Get("Origin"),
			Authorization: r.Header.Get("Authorization"),
			Visit:         isVisit(r),
		})
		if p != nil {
			p.Write(w)
			return
		}
		Passed(r.Context())
		next.ServeHTTP(w, r)
	})
}

func isVisit(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

func (g Guard) hasHost(name string) bool {
	return name != "" && slices.ContainsFunc(g.Hosts, func(h string) bool { return hostName(h) == name })
}

// hostName is a Host header without port, brackets and final dot, in small letters; "" for one that is none (RFC 3986
// section 3.2.2). Brackets are for IPv6 addresses, and a port is a number: a name is not to pass for an address by what
// comes behind a colon.
func hostName(host string) string {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = host, ""
		if inner, ok := strings.CutPrefix(host, "["); ok {
			name, ok = strings.CutSuffix(inner, "]")
			if !ok {
				return ""
			}
		}
	}
	if port != "" {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return ""
		}
	}
	if strings.HasPrefix(host, "[") {
		if a, err := netip.ParseAddr(name); err != nil || !a.Is6() {
			return ""
		}
	}
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// isLocal reports whether a Host header is resolved without DNS.
func isLocal(host string) bool {
	name := hostName(host)
	a, err := netip.ParseAddr(name)
	return err == nil && a.Zone() == "" || name == "localhost"
}

// isCrossOrigin tells whether a browser sent the request for a page of another origin. It decides
// as http.CrossOriginProtection does, but for GET as well, and it always counts a null origin.
func (c *Caller) isCrossOrigin() bool {
	switch c.Site {
	case "same-origin", "none":
		return false
	case "":
		if c.Origin == "" {
			return false // no browser
		}
		u, err := url.Parse(c.Origin)
		return err != nil || u.Host == "" || u.Host != c.Host
	}
	return true
}

// hasToken compares hashes, so that the time does not depend on the token.
func (c *Caller) hasToken(token string) bool {
	scheme, sent, _ := strings.Cut(c.Authorization, " ")
	want, got := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(strings.TrimSpace(sent)))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}
