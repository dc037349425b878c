package deliver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// authority is a certificate authority for one test.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: key, cert: &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// issue makes a server's settings with a certificate for name.
func (a *authority) issue(name string, expires time.Time) *tls.Config {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2),
		NotBefore:    time.Now().Add(-2 * time.Hour),
		NotAfter:     expires,
		DNSNames:     []string{name},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		NextProtos:   []string{"http/1.1"},
	}
}

// Fault F34: each trouble with TLS has its code.
func TestTLS(t *testing.T) {
	for _, c := range []struct {
		name  string
		serve func(a *authority) *tls.Config
		code  string
	}{
		{"good", func(a *authority) *tls.Config { return a.issue("billing.test", time.Now().Add(time.Hour)) }, ""},
		{"TLS 1.2", func(a *authority) *tls.Config {
			s := a.issue("billing.test", time.Now().Add(time.Hour))
			s.MaxVersion = tls.VersionTLS12
			return s
		}, ""},
		{"expired", func(a *authority) *tls.Config { return a.issue("billing.test", time.Now().Add(-time.Hour)) }, "tls_expired"},
		{"wrong name", func(a *authority) *tls.Config { return a.issue("crm.test", time.Now().Add(time.Hour)) }, "tls_wrong_name"},
		{"unknown authority", func(a *authority) *tls.Config {
			return newAuthority(a.t).issue("billing.test", time.Now().Add(time.Hour))
		}, "tls_unknown_authority"},
		{"TLS 1.1", func(a *authority) *tls.Config {
			s := a.issue("billing.test", time.Now().Add(time.Hour))
			s.MinVersion, s.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
			return s
		}, "tls_failed"},
		{"wants a client certificate", func(a *authority) *tls.Config {
			s := a.issue("billing.test", time.Now().Add(time.Hour))
			s.ClientAuth = tls.RequireAnyClientCert
			return s
		}, "tls_failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			onBothSecureSenders(t, func(t *testing.T, protocols ...string) {
				w := newWorld(t)
				a := newAuthority(t)
				w.o.roots = a.pool()
				receiver := delivertest.NewEndpoint()
				receiver.TLS = c.serve(a)
				receiver.TLS.NextProtos = protocols
				e := w.named(receiver)
				e.HTTP2 = protocols[0] == "h2"
				w.start(e)
				w.accept(1, "billing")
				res := w.await(1)[0]
				w.stop()
				if res.Attempt.Code != c.code || (res.State == outbox.Delivered) != (c.code == "") {
					t.Errorf("code %q, state %s (%s), want %q", res.Attempt.Code, res.State, res.Attempt.Error, c.code)
				}
			})
		})
	}
}

// named puts a receiver on loopback under the name billing.test. TLS needs a
// network with buffers: in a handshake both sides may write at the same time.
func (w *world) named(r *delivertest.Endpoint) *policy.Endpoint {
	u := r.Listen(w.t)
	address := u.Host
	w.o.dialNet = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	u.Host = "billing.test:" + u.Port()
	return endpointAt(w.t, "billing", u)
}

// Fault F34: a port that answers something else than TLS, or nothing, or turns away.
func TestNoTLS(t *testing.T) {
	for name, c := range map[string]struct {
		say     string
		end     bool
		connect time.Duration
		code    string
		took    time.Duration
	}{
		"plain HTTP":                 {"HTTP/1.1 400 Bad Request\r\n\r\n", false, 5 * time.Second, "tls_failed", 0},
		"alert":                      {"\x15\x03\x03\x00\x02\x02\x28", false, 5 * time.Second, "tls_failed", 0},
		"end":                        {"", true, 5 * time.Second, "tls_failed", 0},
		"silence":                    {"", false, 5 * time.Second, "connect_timeout", 5 * time.Second},
		"silence in a record":        {"\x16\x03\x03\x40\x00\x02", false, 5 * time.Second, "connect_timeout", 5 * time.Second},
		"silence for the whole time": {"", false, time.Minute, "timeout", 15 * time.Second},
	} {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, http2 = %t", name, http2), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					e := w.inMemory("billing", delivertest.NewEndpoint())
					e.URL.Scheme, e.HTTP2 = "https", http2
					e.Timeout.Connect = c.connect
					w.o.dialNet = func(_ context.Context, _, _ string) (net.Conn, error) {
						ours, theirs := net.Pipe()
						go func() {
							defer theirs.Close()
							buf := make([]byte, 4096)
							_, _ = theirs.Read(buf)
							_, _ = theirs.Write([]byte(c.say))
							for err := error(nil); err == nil && !c.end; {
								_, err = theirs.Read(buf)
							}
						}()
						return ours, nil
					}
					w.start(e)
					w.accept(1, "billing")
					if a := w.await(1)[0].Attempt; a.Code != c.code || a.Took != c.took {
						t.Errorf("code %q after %s (%s), want %q after %s", a.Code, a.Took, a.Error, c.code, c.took)
					}
				})
			})
		}
	}
}

// HTTP/2 where the receiver chooses it: all attempts on one connection, and still one
// request for each, also where the stream is reset.
func TestHTTP2(t *testing.T) {
	w := newWorld(t)
	a := newAuthority(t)
	w.o.roots = a.pool()
	receiver := delivertest.NewEndpoint()
	receiver.Verifier = verifier(t)
	receiver.Answer = func(r *delivertest.Request) delivertest.Step {
		if r.Event == "evt_billing_39" {
			return delivertest.Step{Fault: delivertest.Reset}
		}
		return delivertest.Step{Body: "ok"}
	}
	receiver.TLS = a.issue("billing.test", time.Now().Add(time.Hour))
	receiver.TLS.NextProtos = []string{"h2", "http/1.1"}
	e := w.named(receiver)
	e.HTTP2 = true
	w.start(e)
	w.accept(40, "billing")
	for _, r := range w.await(40) {
		want := ""
		if r.EventID == "evt_billing_39" {
			want = "connection_reset"
		}
		if r.Attempt.Code != want {
			t.Errorf("attempt for %s came to %q (%s), want %q", r.EventID, r.Attempt.Code, r.Attempt.Error, want)
		}
	}
	w.stop()
	requests := receiver.Requests()
	for _, r := range requests {
		if r.Proto != "HTTP/2.0" || r.Err != nil {
			t.Fatalf("request by %s, signature %v", r.Proto, r.Err)
		}
	}
	if len(requests) != 40 || receiver.Conns() > 4 {
		t.Errorf("%d requests on %d connections for 40 attempts", len(requests), receiver.Conns())
	}
}

// Without http2 = true a receiver that prefers HTTP/2 is not offered it.
func TestNoHTTP2UnlessAskedFor(t *testing.T) {
	for _, c := range []struct {
		name   string
		http2  bool
		offers []string
		proto  string
	}{
		{"prefers HTTP/2", false, []string{"h2", "http/1.1"}, "HTTP/1.1"},
		{"prefers HTTP/2, and may", true, []string{"h2", "http/1.1"}, "HTTP/2.0"},
		{"has no HTTP/2", true, []string{"http/1.1"}, "HTTP/1.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			a := newAuthority(t)
			w.o.roots = a.pool()
			receiver := delivertest.NewEndpoint(delivertest.Step{Body: "ok"})
			receiver.TLS = a.issue("billing.test", time.Now().Add(time.Hour))
			receiver.TLS.NextProtos = c.offers
			e := w.named(receiver)
			e.HTTP2 = c.http2
			w.start(e)
			w.accept(1, "billing")
			if r := w.await(1)[0]; r.State != outbox.Delivered {
				t.Fatalf("delivery is %s, %s", r.State, r.Attempt.Error)
			}
			w.stop()
			if proto := receiver.Requests()[0].Proto; proto != c.proto {
				t.Errorf("request by %q, want %q", proto, c.proto)
			}
		})
	}
}
