package front

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"relay/config"
	"relay/ingest"
	"relay/ingest/listen"
	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy/sign"
)

func TestMain(m *testing.M) {
	testkit.Main(m,
		// They belong to libraries: a closed connection ends within half a second, what keeps a lock of
		// certmagic's folder within five, and its rate limiter has no end.
		goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"),
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*RingBufferRateLimiter).loop"),
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"))
}

// stage is a Front with all around it.
type stage struct {
	t       *testing.T
	f       *Front
	fronts  []config.Front
	acme    config.ACME
	options Options
	log     *testkit.Log
	outbox  *outboxtest.Faulty
	roots   *x509.CertPool
	docs    Documents

	mu       sync.Mutex
	accepted []outbox.Entry
}

const host = "app.example.com"

// frontTo is a front block as the file's defaults make it, on free ports, with a certificate from
// files.
func (s *stage) frontTo(to string) config.Front {
	scheme, addr, _ := strings.Cut(to, "://")
	f := config.Front{
		Host: host, Upstream: config.Upstream{Scheme: scheme, Addr: addr},
		HTTPS: []string{"127.0.0.1:0"}, HTTP: []string{"127.0.0.1:0"},
		WellKnown: []string{"jwks", "webhooks"},
		Events:    config.FrontEvents{Enabled: true, OnRefused: "fail", MaxData: 256 << 10},
		MaxBody:   1 << 30, StreamCloseDelay: time.Minute,
		ConnectTimeout: 5 * time.Second, ResponseTimeout: time.Minute, IdleTimeout: time.Minute,
	}
	f.TLS = s.certificate(host)
	return f
}

func (s *stage) certificate(hosts ...string) *config.FrontTLS {
	cert, key := testkit.Certificate(s.t, hosts...)
	if s.roots == nil {
		s.roots = x509.NewCertPool()
	}
	s.roots.AppendCertsFromPEM(cert)
	return &config.FrontTLS{Cert: cert, Key: config.NewSecret(string(key)), MinVersion: "1.2"}
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, log: new(testkit.Log)}
	s.outbox = outboxtest.NewFaulty(outboxtest.NewMem(outboxtest.MemOptions{}))
	s.options = Options{
		Ingest: ingest.New(ingest.Options{Outbox: s, MaxBody: 64 << 10, Log: zerolog.Nop(), KeepTrace: func() bool { return true },
			Route: func(*outbox.Event) ([]string, []outbox.Term) { return []string{"e"}, nil }}),
		WellKnown: func() Documents { return s.docs },
		Listen:    listen.TCP,
		Log:       zerolog.New(s.log).Level(zerolog.InfoLevel),
	}
	s.docs = Documents{Keys: sign.JWKS{Keys: []sign.JWK{}}, Types: []TypeShown{}, Signs: []string{}}
	return s
}

// Accept records what the outbox accepted.
func (s *stage) Accept(ctx context.Context, b outbox.Batch) ([]outbox.Receipt, error) {
	receipts, err := s.outbox.Accept(ctx, b)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.accepted = append(s.accepted, b.Entries...)
	}
	return receipts, err
}

func (s *stage) Durability() string { return "memory" }

// events are the accepted ones, as "type id key tenant data".
func (s *stage) events() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []string{}
	for _, e := range s.accepted {
		id := e.Event.ID
		if strings.HasPrefix(id, "evt_") {
			id = "-"
		}
		all = append(all, fmt.Sprintf("%s %s %q %q %s", e.Event.Type, id, e.Event.Key, e.Event.Tenant, e.Event.Data))
	}
	return all
}

// open starts the front with these blocks.
func (s *stage) open(fronts ...config.Front) *stage {
	s.t.Helper()
	s.f = New(s.options)
	s.apply(fronts...)
	done := make(chan error, 1)
	go func() { done <- s.f.Serve() }()
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.f.Shutdown(ctx); err != nil {
			s.t.Errorf("shut down: %v", err)
			_ = s.f.Close()
		}
		if err := <-done; !errors.Is(err, listen.ErrServerClosed) {
			s.t.Errorf("serve: %v", err)
		}
		testkit.Must(s.t, s.outbox.Close())
	})
	return s
}

// apply is a reload.
func (s *stage) apply(fronts ...config.Front) {
	s.t.Helper()
	next, err := s.f.Prepare(s.t.Context(), fronts, s.acme)
	testkit.Must(s.t, err)
	next.Apply()
	s.fronts = fronts
}

func (s *stage) addr(kind string) string { return s.f.Addr(kind, "127.0.0.1:0").String() }

// client speaks to the front whatever host it asks for.
func (s *stage) client(h2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	tr := &http.Transport{
		Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: s.roots}, DisableCompression: true,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			kind := "https"
			if strings.HasSuffix(addr, ":80") {
				kind = "http"
			}
			return new(net.Dialer).DialContext(ctx, "tcp", s.addr(kind))
		},
	}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// do sends a request and returns the answer with its whole body.
func (s *stage) do(r *http.Request) (*http.Response, string) {
	s.t.Helper()
	res, err := s.client(false).Do(r)
	testkit.Must(s.t, err)
	return res, bodyOf(s.t, res)
}

func bodyOf(t *testing.T, res *http.Response) string {
	t.Helper()
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	testkit.Must(t, err)
	return string(b)
}

func request(t *testing.T, method, url, body string, header ...string) *http.Request {
	t.Helper()
	var b io.Reader
	if body != "" {
		b = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url, b)
	testkit.Must(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

// app is an upstream.
func app(t *testing.T, h http.HandlerFunc) string {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// dial opens a connection to the front that a test writes bytes to.
func (s *stage) dial() *tls.Conn {
	s.t.Helper()
	c, err := tls.Dial("tcp", s.addr("https"), &tls.Config{RootCAs: s.roots, ServerName: host, NextProtos: []string{"http/1.1"}})
	testkit.Must(s.t, err)
	s.t.Cleanup(func() { _ = c.Close() })
	testkit.Must(s.t, c.SetDeadline(time.Now().Add(time.Minute)))
	return c
}
