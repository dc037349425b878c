package front

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"relay/config"
	"relay/ingest/problem"
)

// proxy hands requests of a site on to an upstream.
type proxy struct {
	site    *site
	to      *upstream
	reverse *httputil.ReverseProxy
}

func (s *site) newProxy(to *upstream) *proxy {
	p := &proxy{site: s, to: to}
	p.reverse = &httputil.ReverseProxy{
		Transport:      to.transport,
		Rewrite:        p.rewrite,
		ModifyResponse: p.modify,
		ErrorHandler:   p.failed,
		BufferPool:     &s.f.buffers,
		ErrorLog:       log.New(warner{s}, "", 0),
	}
	return p
}

// ServeHTTP answers a request with what the upstream answers.
//
// A request that may change something at the upstream goes on when its client leaves, until the
// answer's head is there: what the app has done by then may have an event.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	st := stateOf(r.Context())
	if limit := p.site.c.MaxBody; limit > 0 && r.ContentLength > limit {
		tooLarge(limit).Write(w)
		return
	}
	if r.ContentLength != 0 {
		r.Body = &body{ReadCloser: r.Body, st: st, trailer: r.Trailer, left: p.site.c.MaxBody, bounded: p.site.c.MaxBody > 0}
	}
	ctx, cancel := context.WithCancel(r.Context())
	if p.site.c.Events.Enabled && !isSafe(r.Method) {
		cancel()
		ctx, cancel = context.WithCancel(context.WithoutCancel(r.Context()))
	}
	defer cancel()
	st.client, st.cancel = r.Context(), cancel
	p.reverse.ServeHTTP(w, r.WithContext(ctx))
}

// isSafe tells whether a method changes nothing (RFC 9110, section 9.2.1).
func isSafe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// rewrite makes the request for the upstream. ReverseProxy has removed hop-by-hop headers.
func (p *proxy) rewrite(r *httputil.ProxyRequest) {
	out := r.Out
	out.URL.Scheme, out.URL.Host = p.to.scheme, p.to.host
	out.Host = r.In.Host
	out.URL.RawQuery = r.In.URL.RawQuery // as it came: Relay reads no query
	trusted := p.trusts(r.In.RemoteAddr)
	for name := range out.Header {
		if plain := strings.ReplaceAll(name, "_", "-"); plain != name && isOurs(plain) || isOurs(name) && !trusted || isEvent(name) {
			delete(out.Header, name)
		}
	}
	removeEvents(r.In.Trailer)
	out.Trailer = r.In.Trailer // the same map: its values come at the end of the body
	if trusted {
		out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"] // SetXForwarded continues it
	}
	r.SetXForwarded()
	if trusted {
		for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded"} {
			if v := r.In.Header[name]; len(v) > 0 {
				out.Header[name] = v
			}
		}
	}
	if p.site.c.Events.Enabled {
		readable(out.Header)
	}
}

// isOurs tells of headers by which an app learns who its client is. A client may not set them.
// name is in canonical form.
func isOurs(name string) bool {
	name = http.CanonicalHeaderKey(name)
	return strings.HasPrefix(name, "X-Forwarded-") || name == "Forwarded" || name == "X-Real-Ip" || isEvent(name)
}

func (p *proxy) trusts(remote string) bool {
	addr, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	for _, prefix := range p.site.c.TrustedProxies {
		if prefix.Contains(addr.Addr().Unmap().WithZone("")) {
			return true
		}
	}
	return false
}

// modify looks at the head of an answer before any of it is passed on.
func (p *proxy) modify(res *http.Response) error {
	st := stateOf(res.Request.Context())
	said := takeEvents(res.Header)
	removeEvents(res.Trailer)
	if res.StatusCode == http.StatusSwitchingProtocols || isStream(res.Header) {
		st.stream = true
		st.onEnd(context.AfterFunc(p.site.streams, st.cancel))
	} else {
		res.Body = &trailed{ReadCloser: res.Body, res: res}
	}
	if len(said.types) > 0 && p.site.c.Events.Enabled && res.StatusCode/100 == 2 {
		if err := p.site.accept(res, said); err != nil {
			return err
		}
	}
	st.onEnd(context.AfterFunc(st.client, st.cancel)) // from here on, a client that leaves ends it
	return nil
}

// isStream tells whether an answer goes on until one of both ends it.
func isStream(h http.Header) bool {
	kind, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case "text/event-stream", "multipart/x-mixed-replace", "application/x-ndjson", "application/stream+json", "application/grpc":
		return true
	}
	return false
}

// trailed removes events from trailers that were not announced, which are there at the end of the
// body.
type trailed struct {
	io.ReadCloser
	res *http.Response
}

func (t *trailed) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err != nil {
		removeEvents(t.res.Trailer)
	}
	return n, err
}

// failed answers for an upstream that did not.
func (p *proxy) failed(w http.ResponseWriter, r *http.Request, err error) {
	st := stateOf(r.Context())
	if e, ok := errors.AsType[*eventError](err); ok {
		p.site.refuse(w, r, e.problem)
		return
	}
	switch {
	case st.bodyTooLarge.Load():
		tooLarge(p.site.c.MaxBody).Write(w)
		return
	case st.bodyLate.Load():
		problem.New(problem.RequestTimeout, "the body made no progress for "+p.site.c.IdleTimeout.String()).Write(w)
		return
	case st.client.Err() != nil:
		st.status = statusGone
		panic(http.ErrAbortHandler) // nobody waits for an answer
	}
	what := problem.New(problem.BadGateway, "the app behind this host cannot be reached, or ended the connection")
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() && !isDial(err) {
		what = problem.New(problem.GatewayTimeout, "the app behind this host did not answer within "+p.site.c.ResponseTimeout.String())
	}
	p.site.warn("upstream", err, p.to.name.String(), "the upstream does not answer")
	p.site.refuse(w, r, what)
}

func isDial(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

func tooLarge(limit int64) *problem.Problem {
	return problem.New(problem.BodyTooLarge, "a body has at most "+config.FormatSize(limit)+" here")
}

// refuse answers with a page for people, if the site has one, else with the problem.
func (s *site) refuse(w http.ResponseWriter, r *http.Request, p *problem.Problem) {
	if s.c.ErrorPage == "" || !strings.Contains(r.Header.Get("Accept"), "text/html") {
		p.Write(w)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_, _ = w.Write([]byte(s.c.ErrorPage)) // a client that has gone needs none
}

// warn logs a trouble of the site, the first of a kind and then one in 10 seconds.
func (s *site) warn(kind string, err error, upstream, text string) {
	if repeats, ok := s.f.lines.Allow(s.c.Host + " " + kind); ok {
		e := s.f.o.Log.Warn().Str("host", s.c.Host).Err(err).Int("repeats", repeats)
		if upstream != "" {
			e = e.Str("upstream", upstream)
		}
		e.Msg(text)
	}
}

// warner logs what ReverseProxy says, which happens after the head of an answer.
type warner struct{ site *site }

func (w warner) Write(line []byte) (int, error) {
	w.site.warn("proxy", errors.New(strings.TrimSpace(string(line))), "", "an answer of the upstream ended early")
	return len(line), nil
}

// upstreamKey says which upstreams can share connections.
type upstreamKey struct {
	name              config.Upstream
	connect, response time.Duration
}

// upstream is an app with the connections to it.
type upstream struct {
	name         config.Upstream
	scheme, host string // of URLs
	transport    *http.Transport
}

// Limits of connections to an upstream.
const (
	maxIdle = 512

	// idleFor is shorter than the 5 s after which common app servers close an idle connection: a
	// request on a connection that is being closed fails, and may not be sent twice.
	idleFor = 4 * time.Second

	maxAnswerHeader = 1 << 20 // bytes
)

// upstream returns the one with this name and these timeouts.
func (f *Front) upstream(name config.Upstream, c *config.Front) *upstream {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := upstreamKey{name, c.ConnectTimeout, c.ResponseTimeout}
	u := f.upstreams[key]
	if u == nil {
		u = newUpstream(key)
		f.upstreams[key] = u
	}
	return u
}

// forgetUpstreams closes idle connections to upstreams that no site has any more. The caller
// holds mu.
func (f *Front) forgetUpstreams(sites []*site) {
	used := map[*upstream]bool{}
	for _, s := range sites {
		for _, r := range s.routes {
			used[r.proxy.to] = true
		}
	}
	for key, u := range f.upstreams {
		if !used[u] {
			delete(f.upstreams, key)
			u.transport.CloseIdleConnections()
		}
	}
}

func newUpstream(key upstreamKey) *upstream {
	u := &upstream{name: key.name, scheme: "http", host: key.name.Addr}
	dialer := &net.Dialer{Timeout: key.connect, KeepAlive: 30 * time.Second}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	t := &http.Transport{
		DialContext:            dialer.DialContext,
		Protocols:              protocols,
		DisableCompression:     true, // bodies pass as they are
		MaxIdleConns:           0,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleFor,
		TLSHandshakeTimeout:    key.connect,
		ResponseHeaderTimeout:  key.response,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxAnswerHeader,
		WriteBufferSize:        16 << 10,
		ReadBufferSize:         16 << 10,
	}
	switch key.name.Scheme {
	case "https":
		u.scheme = "https"
		protocols.SetHTTP2(true)
	case "h2c":
		protocols.SetHTTP1(false)
		protocols.SetUnencryptedHTTP2(true)
	case "unix":
		u.host = "localhost"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", key.name.Addr)
		}
	}
	u.transport = t
	return u
}

// bufferPool has buffers for copying bodies.
type bufferPool struct{ pool sync.Pool }

const copyBuffer = 32 << 10

func (b *bufferPool) Get() []byte {
	if v, ok := b.pool.Get().(*[]byte); ok {
		return *v
	}
	return make([]byte, copyBuffer)
}

func (b *bufferPool) Put(v []byte) { b.pool.Put(&v) }

// isLate tells whether a read failed because of its deadline.
func isLate(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
