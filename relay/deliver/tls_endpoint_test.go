package deliver

import (
	"crypto/tls"
	"slices"
	"sync"
	"testing"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// onBothSecureSenders runs a test with TLS for HTTP/1.1 and for HTTP/2.
func onBothSecureSenders(t *testing.T, run func(t *testing.T, protocols ...string)) {
	t.Run("http1", func(t *testing.T) { run(t, "http/1.1") })
	t.Run("http2", func(t *testing.T) { run(t, "h2") })
}

// secured is a receiver with TLS, its endpoint, and two authorities, of which the
// system knows the first.
type secured struct {
	system, own *authority
	server      *tls.Config
	endpoint    *policy.Endpoint
}

// good makes a certificate of an authority for a name.
func good(a *authority, name string) []tls.Certificate {
	return a.issue(name, time.Now().Add(time.Hour)).Certificates
}

// askClient makes the receiver ask for a certificate of the own authority.
func (s *secured) askClient(version uint16) {
	s.server.ClientAuth, s.server.ClientCAs, s.server.MaxVersion = tls.RequireAndVerifyClientCert, s.own.pool(), version
}

func (s *secured) bring(c []tls.Certificate) { s.endpoint.TLS.Certificate = &c[0] }

// S9: authorities, a client's certificate, the least version and the name are each
// endpoint's own.
func TestTLSOfAnEndpoint(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(s *secured)
		code string
		sni  string // "" for the URL's
	}{
		{"system's authority", func(*secured) {}, "", ""},
		{"own authority", func(s *secured) {
			s.server.Certificates, s.endpoint.TLS.Roots = good(s.own, "billing.test"), s.own.pool()
		}, "", ""},
		{"own authority, unknown to the endpoint", func(s *secured) { s.server.Certificates = good(s.own, "billing.test") }, "tls_unknown_authority", ""},
		{"system's authority where own ones are given", func(s *secured) { s.endpoint.TLS.Roots = s.own.pool() }, "tls_unknown_authority", ""},

		{"client certificate, TLS 1.3", func(s *secured) { s.askClient(tls.VersionTLS13); s.bring(good(s.own, "relay")) }, "", ""},
		{"client certificate, TLS 1.2", func(s *secured) { s.askClient(tls.VersionTLS12); s.bring(good(s.own, "relay")) }, "", ""},
		{"no client certificate, TLS 1.3", func(s *secured) { s.askClient(tls.VersionTLS13) }, "tls_failed", ""},
		{"no client certificate, TLS 1.2", func(s *secured) { s.askClient(tls.VersionTLS12) }, "tls_failed", ""},
		{"another's client certificate, TLS 1.3", func(s *secured) { s.askClient(tls.VersionTLS13); s.bring(good(s.system, "relay")) }, "tls_failed", ""},
		{"another's client certificate, TLS 1.2", func(s *secured) { s.askClient(tls.VersionTLS12); s.bring(good(s.system, "relay")) }, "tls_failed", ""},
		{"client certificate nobody asks for", func(s *secured) { s.bring(good(s.own, "relay")) }, "", ""},

		{"TLS 1.2 by default", func(s *secured) { s.server.MaxVersion = tls.VersionTLS12 }, "", ""},
		{"TLS 1.3 wanted, 1.2 there", func(s *secured) {
			s.server.MaxVersion, s.endpoint.TLS.MinVersion = tls.VersionTLS12, tls.VersionTLS13
		}, "tls_failed", ""},
		{"TLS 1.3 wanted and there", func(s *secured) { s.endpoint.TLS.MinVersion = tls.VersionTLS13 }, "", ""},
		{"TLS 1.1 is too little, whoever wants it", func(s *secured) {
			s.server.MinVersion, s.server.MaxVersion, s.endpoint.TLS.MinVersion = tls.VersionTLS11, tls.VersionTLS11, tls.VersionTLS11
		}, "tls_failed", ""},

		{"server name", func(s *secured) {
			s.server.Certificates, s.endpoint.TLS.ServerName = good(s.system, "internal.test"), "internal.test"
		}, "", "internal.test"},
		{"server name that the certificate has not", func(s *secured) { s.endpoint.TLS.ServerName = "internal.test" }, "tls_wrong_name", "internal.test"},
		{"certificate for another name", func(s *secured) { s.server.Certificates = good(s.system, "internal.test") }, "tls_wrong_name", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			onBothSecureSenders(t, func(t *testing.T, protocols ...string) {
				w := newWorld(t)
				step := delivertest.Step{}
				if protocols[0] == "http/1.1" {
					step.Header = map[string]string{"Connection": "close"} // the second attempt resumes a session
				}
				receiver := delivertest.NewEndpoint(step)
				s := &secured{system: newAuthority(t), own: newAuthority(t), endpoint: new(policy.Endpoint)}
				s.server = &tls.Config{Certificates: good(s.system, "billing.test"), NextProtos: protocols}
				c.set(s)
				var asked names
				s.server.GetConfigForClient = asked.note
				receiver.TLS = s.server
				e := w.named(receiver)
				e.HTTP2, e.TLS = protocols[0] == "h2", s.endpoint.TLS
				e.Concurrency = 1
				w.o.roots = s.system.pool()
				w.start(e)
				w.accept(1, "billing")
				w.await(1)
				w.accept(1, "billing")
				results := w.await(2)
				w.stop()
				for _, r := range results {
					if r.Attempt.Code != c.code || (r.State == outbox.Delivered) != (c.code == "") {
						t.Errorf("code %q, state %s (%s), want %q", r.Attempt.Code, r.State, r.Attempt.Error, c.code)
					}
				}
				if c.sni == "" {
					c.sni = "billing.test"
				}
				if got := asked.list(); len(got) == 0 || slices.ContainsFunc(got, func(n string) bool { return n != c.sni }) {
					t.Errorf("asked for %q, want %q", got, c.sni)
				}
				if n := len(receiver.Requests()); c.code != "" && n != 0 {
					t.Errorf("%d requests were taken", n)
				}
			})
		})
	}
}

// names are those that clients ask for.
type names struct {
	mu  sync.Mutex
	all []string
}

func (n *names) note(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, hello.ServerName)
	return nil, nil
}

func (n *names) list() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.all)
}

// Connections are kept over a reload only where TLS is as it was.
func TestSameWireLooksAtTLS(t *testing.T) {
	e := &policy.Endpoint{URL: endpointURL(t, "https://billing.test"), TLS: policy.TLS{MinVersion: tls.VersionTLS12, ServerName: "a", Digest: "1"}}
	for name, c := range map[string]struct {
		change func(*policy.Endpoint)
		want   bool
	}{
		"nothing":      {func(*policy.Endpoint) {}, true},
		"digest":       {func(e *policy.Endpoint) { e.TLS.Digest = "2" }, false},
		"version":      {func(e *policy.Endpoint) { e.TLS.MinVersion = tls.VersionTLS13 }, false},
		"server name":  {func(e *policy.Endpoint) { e.TLS.ServerName = "b" }, false},
		"rate headers": {func(e *policy.Endpoint) { e.ObeyRateHeaders = true }, false},
	} {
		if got := sameWire(e, but(e, c.change)); got != c.want {
			t.Errorf("%s: connections are kept: %t, want %t", name, got, c.want)
		}
	}
}
