package front

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"path"
	"reflect"
	"strings"
	"time"

	"relay/config"
	"relay/ingest/listen"
	"relay/ingest/problem"
	"relay/internal/sorting"
)

// site is one front block.
type site struct {
	f      *Front
	c      *config.Front
	routes []route // the longest pattern first
	own    []ownRoute
	cert   *tls.Certificate // nil: by ACME, or no TLS

	streams context.Context // ends when streams of the site have to
	cut     context.CancelFunc
}

// route sends paths to an upstream.
type route struct {
	pattern string
	proxy   *proxy
}

// ownRoute are requests that Relay answers itself.
type ownRoute struct {
	takes   func(*http.Request) bool
	handler http.Handler
}

func (f *Front) newSite(c *config.Front) *site {
	s := &site{f: f, c: c}
	s.streams, s.cut = context.WithCancel(f.ctx)
	add := func(pattern string, to config.Upstream) {
		if to.Scheme != "" {
			s.routes = append(s.routes, route{pattern, s.newProxy(f.upstream(to, c))})
		}
	}
	for _, p := range c.Paths {
		add(p.Pattern, p.Upstream)
	}
	add("/*", c.Upstream)
	sorting.Stable(s.routes, func(a, b route) int { return len(b.pattern) - len(a.pattern) })
	if c.TLS != nil {
		pair, err := tls.X509KeyPair(c.TLS.Cert, []byte(c.TLS.Key.Reveal()))
		if err == nil { // the configuration was checked
			s.cert = &pair
		}
	}
	s.own = s.ownRoutes()
	return s
}

// is tells whether the site has exactly this configuration.
func (s *site) is(c *config.Front) bool { return reflect.DeepEqual(s.c, c) }

// retire ends the site's streams after its delay.
func (s *site) retire() { time.AfterFunc(s.c.StreamCloseDelay, s.cut) }

// hosts are the sites of a listener.
type hosts []*site

// find returns the site of a host: the exact one, else the pattern of its domain, else "*", else
// nil.
func (h hosts) find(host string) *site {
	_, domain, _ := strings.Cut(host, ".")
	for _, name := range []string{host, "*." + domain, "*"} {
		for _, s := range h {
			if s.c.Host == name {
				return s
			}
		}
	}
	return nil
}

// hostName is a Host header without port and final dot, in lower case.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// handler answers the requests of a listener.
func (f *Front) handler(l *listener) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := f.tables.Load()
		if l.kind == "http" && t.certs.answer(w, r) {
			return
		}
		s := t.byListener[l.key()].find(hostName(r.Host))
		if s == nil {
			problem.New(problem.UnknownHost, "no front serves this host here").Write(w)
			return
		}
		listen.Passed(r.Context())
		st := newState(s, w)
		st.serve(r, l.kind == "https")
	})
}

// answer is for requests of the site, over TLS or not.
func (s *site) answer(w http.ResponseWriter, r *http.Request, secure bool) {
	if !secure && len(s.c.HTTPS) > 0 {
		s.redirect(w, r)
		return
	}
	if p := refusal(r); p != nil {
		p.Write(w)
		return
	}
	for _, o := range s.own {
		if o.takes(r) {
			o.handler.ServeHTTP(w, r)
			return
		}
	}
	if p := s.route(r.URL.Path); p != nil {
		p.ServeHTTP(w, r)
		return
	}
	problem.New(problem.NotFound, "this host has nothing at the path").Write(w)
}

// refusal refuses what net/http lets through and no app should have to judge.
func refusal(r *http.Request) *problem.Problem {
	switch {
	case r.Method == http.MethodConnect:
		return problem.New(problem.MethodNotAllowed, "this is no proxy for other hosts")
	case !strings.HasPrefix(r.URL.Path, "/"):
		return problem.New(problem.InvalidRequest, "the target of a request begins with a slash")
	}
	return nil
}

// route finds the proxy of a path, as an app would understand the path: decoded, without dots
// and double slashes.
func (s *site) route(target string) *proxy {
	clean := path.Clean(target)
	if strings.HasSuffix(target, "/") && clean != "/" {
		clean += "/"
	}
	for _, r := range s.routes {
		prefix, many := strings.CutSuffix(r.pattern, "*")
		if clean == r.pattern || many && strings.HasPrefix(clean, prefix) {
			return r.proxy
		}
	}
	return nil
}

// redirect sends a client to the same URL over TLS (308: with the same method and body).
func (s *site) redirect(w http.ResponseWriter, r *http.Request) {
	host := hostName(r.Host)
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port := s.tlsPort(); port != "443" {
		host += ":" + port
	}
	w.Header().Set("Connection", "close")
	http.Redirect(w, r, "https://"+host+r.URL.RequestURI(), http.StatusPermanentRedirect)
}

// tlsPort is 443 if the site listens there, else its first port for TLS.
func (s *site) tlsPort() string {
	first := ""
	for _, addr := range s.c.HTTPS {
		_, port, _ := net.SplitHostPort(addr)
		if at := s.f.Addr("https", addr); at != nil {
			_, port, _ = net.SplitHostPort(at.String())
		}
		if port == "443" {
			return port
		}
		if first == "" {
			first = port
		}
	}
	return first
}
