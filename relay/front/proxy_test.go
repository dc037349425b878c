package front

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relay/config"
	"relay/internal/testkit"
)

// echo says what of a request arrived.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s host=%s length=%d body=%s", r.Method, r.RequestURI, r.Host, r.ContentLength, body)
}

func TestUpstreams(t *testing.T) {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	h2c := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("h2c upstream got %s", r.Proto)
		}
		echo(w, r)
	}))
	h2c.Config.Protocols = protocols
	h2c.Start()
	t.Cleanup(h2c.Close)
	socket := filepath.Join(testkit.Dir(t), "app.sock")
	ln, err := net.Listen("unix", socket)
	testkit.Must(t, err)
	unix := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.HandlerFunc(echo)}}
	unix.Start()
	t.Cleanup(unix.Close)
	for name, to := range map[string]string{
		"http": app(t, echo),
		"h2c":  strings.Replace(h2c.URL, "http:", "h2c:", 1),
		"unix": "unix://" + socket,
	} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, h2 %v", name, h2), func(t *testing.T) {
				s := newStage(t)
				s.open(s.frontTo(to))
				res, err := s.client(h2).Do(request(t, "PUT", "https://"+host+"/a%2Fb/../c;x?q=1;2&z=%zz", "hello"))
				testkit.Must(t, err)
				if got, want := bodyOf(t, res), "PUT /a%2Fb/../c;x?q=1;2&z=%zz host="+host+" length=5 body=hello"; got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
				if want := map[bool]int{false: 1, true: 2}[h2]; res.ProtoMajor != want {
					t.Errorf("the client speaks %s", res.Proto)
				}
			})
		}
	}
}

func TestForwardedHeadersAreMadeAnew(t *testing.T) {
	got := make(chan http.Header, 1)
	to := app(t, func(_ http.ResponseWriter, r *http.Request) { got <- r.Header })
	send := func(s *stage) http.Header {
		s.do(request(t, "GET", "https://"+host+"/", "", "X-Forwarded-For", "203.0.113.9", "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "gopher",
			"X-Forwarded-Prefix", "/evil", "X-Real-Ip", "203.0.113.9", "Forwarded", "for=203.0.113.9", "X_Forwarded_For", "203.0.113.9", "Relay_Event", "a.b",
			"Relay-Event", "a.b", "Relay-Event-Data", "{}", "Relay-Event-New", "x", "Connection", "X-Forwarded-For, X-Hop", "X-Hop", "1", "X-Keep", "1"))
		return <-got
	}
	s := newStage(t)
	s.open(s.frontTo(to))
	h := send(s)
	for name, want := range map[string]string{
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": host, "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "", "X-Real-Ip": "", "Forwarded": "",
		"X_forwarded_for": "", "Relay_event": "", "Relay-Event": "", "Relay-Event-Data": "", "Relay-Event-New": "", "X-Hop": "", "X-Keep": "1",
	} {
		if h.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, h.Get(name), want)
		}
	}
	s = newStage(t)
	c := s.frontTo(to)
	c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	s.open(c)
	h = send(s)
	for name, want := range map[string]string{
		"X-Forwarded-For": "203.0.113.9, 127.0.0.1", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "gopher", "X-Real-Ip": "203.0.113.9",
		"Forwarded": "for=203.0.113.9", "X_forwarded_for": "", "Relay-Event": "",
	} {
		if h.Get(name) != want {
			t.Errorf("from a trusted proxy %s is %q, want %q", name, h.Get(name), want)
		}
	}
}

func TestHostsAndPaths(t *testing.T) {
	named := func(name string) config.Upstream {
		_, addr, _ := strings.Cut(app(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }), "://")
		return config.Upstream{Scheme: "http", Addr: addr}
	}
	s := newStage(t)
	exact, wild, any, plain := s.frontTo("http://127.0.0.1:1"), s.frontTo("http://127.0.0.1:1"), s.frontTo("http://127.0.0.1:1"), s.frontTo("http://127.0.0.1:1")
	exact.Upstream = named("exact")
	exact.Paths = []config.FrontPath{{Pattern: "/api/*", Upstream: named("api")}, {Pattern: "/api/v2/*", Upstream: named("v2")}, {Pattern: "/healthz", Upstream: named("health")}}
	wild.Host, wild.Upstream = "*.example.com", named("wild")
	any.Host, any.Upstream = "*", named("any")
	plain.Host, plain.HTTPS, plain.TLS, plain.Upstream = "plain.example.org", nil, nil, named("plain")
	s.open(exact, wild, any, plain)
	for url, want := range map[string]string{
		"https://app.example.com/":             "exact",
		"https://APP.example.com./x":           "exact",
		"https://app.example.com/api":          "exact",
		"https://app.example.com/api/":         "api",
		"https://app.example.com/api/x":        "api",
		"https://app.example.com/%61pi/x":      "api",
		"https://app.example.com/x/../api/x":   "api",
		"https://app.example.com/y/..//api//x": "api",
		"https://app.example.com/api/../x":     "exact",
		"https://app.example.com/api/v2/x":     "v2",
		"https://app.example.com/healthz":      "health",
		"https://app.example.com/healthz/x":    "exact",
		"https://other.example.com/":           "wild",
		"https://a.b.example.com/":             "any",
		"https://example.net/":                 "any",
		"http://plain.example.org/":            "plain",
	} {
		r := request(t, "GET", "https://"+host+"/", "")
		scheme, rest, _ := strings.Cut(url, "://")
		at := strings.Index(rest, "/")
		r.URL.Scheme, r.Host, r.URL.Opaque = scheme, rest[:at], rest[at:]
		if res, got := s.do(r); got != want {
			t.Errorf("%s: %d %s, want %s", url, res.StatusCode, got, want)
		}
	}
}

func TestUnknownHosts(t *testing.T) {
	s := newStage(t)
	c := s.frontTo(app(t, echo))
	other := s.frontTo(app(t, echo))
	other.Host, other.HTTPS, other.HTTP = "other.example.com", []string{"localhost:0"}, nil
	s.open(c, other)
	for _, name := range []string{"evil.example", "127.0.0.1", "x.app.example.com", "other.example.com"} {
		r := request(t, "GET", "https://"+host+"/", "")
		r.Host = name
		if res, body := s.do(r); res.StatusCode != http.StatusMisdirectedRequest || !strings.Contains(body, "unknown_host") {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
	}
	_, err := tls.Dial("tcp", s.addr("https"), &tls.Config{ServerName: "evil.example", RootCAs: s.roots})
	if err == nil {
		t.Error("a host that is not served gets a certificate")
	}
}

func TestRedirect(t *testing.T) {
	s := newStage(t)
	s.open(s.frontTo(app(t, echo)))
	res, _ := s.do(request(t, "POST", "http://"+host+"/a%2Fb?q=1", "x"))
	_, port, _ := net.SplitHostPort(s.addr("https"))
	if want := "https://" + host + ":" + port + "/a%2Fb?q=1"; res.StatusCode != 308 || res.Header.Get("Location") != want {
		t.Errorf("%d to %s, want %s", res.StatusCode, res.Header.Get("Location"), want)
	}
}

// The head of a stream goes out before anything else comes, and each part at once; a client that
// leaves ends it at the upstream.
func TestEventStream(t *testing.T) {
	next, left := make(chan string), make(chan struct{})
	to := app(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		for {
			select {
			case text := <-next:
				fmt.Fprintf(w, "data: %s\n\n", text)
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				close(left)
				return
			}
		}
	})
	for _, h2 := range []bool{false, true} {
		next, left = make(chan string), make(chan struct{})
		s := newStage(t)
		s.open(s.frontTo(to))
		ctx, leave := context.WithCancel(t.Context())
		res, err := s.client(h2).Do(request(t, "POST", "https://"+host+"/", "").WithContext(ctx))
		testkit.Must(t, err)
		lines := bufio.NewReader(res.Body)
		for _, text := range []string{"one", "two"} {
			next <- text
			if line, err := lines.ReadString('\n'); err != nil || line != "data: "+text+"\n" {
				t.Fatalf("got %q, %v", line, err)
			}
			_, _ = lines.ReadString('\n')
		}
		leave()
		<-left
		_ = res.Body.Close()
	}
}

// upgrade asks for a WebSocket and returns the connection and what comes back on it.
func (s *stage) upgrade(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	c := s.dial()
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", host)
	from := bufio.NewReader(c)
	res, err := http.ReadResponse(from, nil)
	testkit.Must(t, err)
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("got %v", res)
	}
	return c, from
}

// sockets is an upstream that upgrades and sends back what it gets, line by line.
func sockets(t *testing.T) string {
	return app(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-WebSocket-Key") == "" {
			t.Errorf("the upgrade did not arrive: %v", r.Header)
		}
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		w.WriteHeader(http.StatusSwitchingProtocols)
		c, rw, err := http.NewResponseController(w).Hijack()
		testkit.Must(t, err)
		defer c.Close()
		for {
			line, err := rw.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(line))
		}
	})
}

func speak(t *testing.T, c net.Conn, from *bufio.Reader, text string) {
	t.Helper()
	_, err := c.Write([]byte(text + "\n"))
	testkit.Must(t, err)
	if line, err := from.ReadString('\n'); err != nil || line != text+"\n" {
		t.Fatalf("got %q, %v", line, err)
	}
}

// A WebSocket passes, goes on over a reload of its own front, and ends after the delay.
func TestWebSocketSurvivesReload(t *testing.T) {
	s := newStage(t)
	c := s.frontTo(sockets(t))
	other := s.frontTo(app(t, echo))
	other.Host = "other.example.com"
	s.open(c, other)
	conn, from := s.upgrade(t)
	speak(t, conn, from, "before")
	other.MaxBody++ // another front changes
	s.apply(c, other)
	speak(t, conn, from, "beside")
	slow := c
	slow.MaxBody++ // its own front changes, and has a minute
	s.apply(slow, other)
	speak(t, conn, from, "after")
	second, from2 := s.upgrade(t)
	quick := slow
	quick.StreamCloseDelay = 10 * time.Millisecond
	s.apply(quick)
	third, from3 := s.upgrade(t)
	speak(t, third, from3, "third")
	s.apply(c) // quick goes, and ends its streams soon
	if _, err := from3.ReadByte(); err == nil {
		t.Error("the stream did not end after its delay")
	}
	speak(t, second, from2, "second")
	speak(t, conn, from, "first")
}

func TestBodiesStream(t *testing.T) {
	first := make(chan string)
	to := app(t, func(w http.ResponseWriter, r *http.Request) {
		p := make([]byte, 5)
		_, _ = io.ReadFull(r.Body, p)
		first <- string(p)
		rest, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %v %d", rest, err, r.ContentLength)
	})
	s := newStage(t)
	s.open(s.frontTo(to))
	in, out := io.Pipe()
	r := request(t, "POST", "https://"+host+"/", "")
	r.Body, r.ContentLength = in, -1
	go func() {
		_, _ = out.Write([]byte("first"))
		if got := <-first; got != "first" {
			t.Errorf("got %q", got)
		}
		_, _ = out.Write([]byte("rest"))
		_ = out.Close()
	}()
	if _, body := s.do(r); body != "rest <nil> -1" {
		t.Errorf("got %s", body)
	}
}

func TestMaxBody(t *testing.T) {
	s := newStage(t)
	c := s.frontTo(app(t, echo))
	c.MaxBody = 10
	s.open(c)
	for _, chunked := range []bool{false, true} {
		for n, want := range map[int]int{10: 200, 11: 413, 100_000: 413} {
			r := request(t, "POST", "https://"+host+"/", strings.Repeat("x", n))
			if chunked {
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader(strings.Repeat("x", n))), -1
			}
			if res, body := s.do(r); res.StatusCode != want || want == 413 && !strings.Contains(body, "body_too_large") {
				t.Errorf("%d bytes, chunked %v: %d %s", n, chunked, res.StatusCode, body)
			}
		}
	}
}

// A body that makes no progress ends with a 408; one that is slow goes on.
func TestSlowBodies(t *testing.T) {
	s := newStage(t)
	c := s.frontTo(app(t, echo))
	c.IdleTimeout = 50 * time.Millisecond
	s.open(c)
	conn := s.dial()
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 5\r\n\r\nhel", host)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	testkit.Must(t, err)
	if body := bodyOf(t, res); res.StatusCode != http.StatusRequestTimeout || !strings.Contains(body, "request_timeout") {
		t.Errorf("got %d %s", res.StatusCode, body)
	}
}

func TestUpstreamTroubles(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	cut := app(t, func(w http.ResponseWriter, _ *http.Request) {
		c, _, _ := http.NewResponseController(w).Hijack()
		_ = c.Close()
	})
	junk := app(t, func(w http.ResponseWriter, _ *http.Request) {
		c, _, _ := http.NewResponseController(w).Hijack()
		_, _ = c.Write([]byte("HELLO\r\n\r\n"))
		_ = c.Close()
	})
	slow := app(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	for name, tt := range map[string]struct {
		to, code string
		status   int
	}{
		"nobody":      {"http://127.0.0.1:1", "bad_gateway", 502},
		"no socket":   {"unix:///nonexistent/app.sock", "bad_gateway", 502},
		"closes":      {cut, "bad_gateway", 502},
		"speaks junk": {junk, "bad_gateway", 502},
		"hangs":       {slow, "gateway_timeout", 504},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			c := s.frontTo(tt.to)
			if c.ErrorPage = "<h1>away</h1>"; name == "hangs" {
				c.ResponseTimeout = 50 * time.Millisecond
			}
			s.open(c)
			res, body := s.do(request(t, "POST", "https://"+host+"/", "x"))
			if res.StatusCode != tt.status || !strings.Contains(body, tt.code) || res.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("got %d %s", res.StatusCode, body)
			}
			res, body = s.do(request(t, "GET", "https://"+host+"/", "", "Accept", "text/html,*/*"))
			if res.StatusCode != tt.status || body != "<h1>away</h1>" || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
				t.Errorf("page: %d %s", res.StatusCode, body)
			}
			if n := s.log.Count("the upstream does not answer"); n != 1 {
				t.Errorf("%d lines in the log, want 1:\n%s", n, s.log)
			}
		})
	}
}

// Interim answers, 100 Continue and trailers pass.
func TestInterimAnswersAndTrailers(t *testing.T) {
	to := app(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hints" {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.Header().Set("Relay-Event", "leak")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Relay-Event")
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum, Relay-Event-Data")
		fmt.Fprintf(w, "%s %s", body, r.Trailer.Get("X-Check"))
		w.Header().Set("X-Sum", "42")
		w.Header().Set("Relay-Event-Data", "leak")
		w.Header().Set(http.TrailerPrefix+"X-Late", "43")
		w.Header().Set(http.TrailerPrefix+"Relay-Event", "leak")
	})
	s := newStage(t)
	s.open(s.frontTo(to))
	for _, h2 := range []bool{false, true} {
		for _, path := range []string{"/", "/hints"} {
			var continued bool
			var hints, leaked string
			r := request(t, "POST", "https://"+host+path, "")
			if path == "/" {
				r.Header.Set("Expect", "100-continue")
			}
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("body")), -1
			r.Trailer = http.Header{"X-Check": {"sum"}}
			client := s.client(h2)
			client.Transport.(*http.Transport).ExpectContinueTimeout = time.Minute
			res, err := client.Do(r.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				Got100Continue: func() { continued = true },
				Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
					if code == http.StatusEarlyHints {
						hints, leaked = h.Get("Link"), h.Get("Relay-Event")
					}
					return nil
				},
			})))
			testkit.Must(t, err)
			body := bodyOf(t, res)
			if body != "body sum" || leaked != "" || (hints != "") != (path == "/hints") || continued != (path == "/") {
				t.Errorf("h2 %v, %s: body %q, hints %q, leaked %q, continued %v", h2, path, body, hints, leaked, continued)
			}
			if res.Trailer.Get("X-Sum") != "42" || res.Trailer.Get("X-Late") != "43" || strings.Contains(fmt.Sprint(res.Trailer, res.Header), "leak") {
				t.Errorf("h2 %v: trailers %v", h2, res.Trailer)
			}
		}
	}
}

func TestAccessLog(t *testing.T) {
	s := newStage(t)
	c := s.frontTo(app(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201); fmt.Fprint(w, "hello") }))
	c.AccessLog = true
	s.open(c)
	s.do(request(t, "POST", "https://"+host+"/a%20b?token=canary", "x", "Authorization", "Bearer canary"))
	line := s.log.String()
	for _, part := range []string{`"host":"app.example.com"`, `"method":"POST"`, `"path":"/a%20b"`, `"status":201`, `"bytes":5`, `"client":"127.0.0.1"`, `"protocol":"HTTP/1.1"`, `"took":`} {
		if !strings.Contains(line, part) {
			t.Errorf("%s is missing in %s", part, line)
		}
	}
	if strings.Contains(line, "canary") {
		t.Errorf("a secret is logged: %s", line)
	}
}
