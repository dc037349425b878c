package post

import (
	"context"
	"crypto/tls"
	"net"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// TestLook opens connections to receivers that are well and to others. None gets a request.
func TestLook(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(*delivertest.Endpoint, *policy.Endpoint)
		expires time.Duration
		code    string
		asks    bool
	}{
		{name: "good", expires: 30 * time.Minute},
		{name: "its authority ends first", expires: 1000 * time.Hour},
		{name: "expired", expires: -time.Minute, code: policy.CodeTLSExpired},
		{name: "another name", expires: time.Hour, code: policy.CodeTLSName, change: func(_ *delivertest.Endpoint, e *policy.Endpoint) { e.TLS.ServerName = "other.test" }},
		{name: "unknown authority", expires: time.Hour, code: policy.CodeTLSAuthority, change: func(_ *delivertest.Endpoint, e *policy.Endpoint) { e.TLS.Roots = delivertest.NewAuthority(t).Pool() }},
		{name: "asks for a certificate", expires: time.Hour, asks: true, change: func(r *delivertest.Endpoint, _ *policy.Endpoint) { r.TLS.ClientAuth = tls.RequestClientCert }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, r := newWorld(t), &delivertest.Endpoint{}
				a := delivertest.NewAuthority(t)
				w.o.Network.Roots, w.o.Network.Dial, w.net.Buffered = a.Pool(), w.net.Dial, true
				r.TLS = a.Issue("billing.test", time.Now().Add(tt.expires))
				e := endpointAt("billing", &url.URL{Scheme: "https", Host: "billing.test:443"})
				if tt.change != nil {
					tt.change(r, e)
				}
				l, err := w.net.Listen(e.URL.Host)
				if err != nil {
					t.Fatal(err)
				}
				r.Serve(t, l)
				seen, f := NewClient(w.o).Look(t.Context(), e)
				if f == nil {
					f = &Failure{}
				}
				if f.Code != tt.code || seen.AsksCertificate != tt.asks {
					t.Errorf("code %q, asks %v, want %q, %v: %s", f.Code, seen.AsksCertificate, tt.code, tt.asks, f.Text)
				}
				if want := time.Now().Add(min(tt.expires, time.Hour)); tt.code == "" && (seen.Until.Sub(want).Abs() > time.Second || seen.TLS != "TLS 1.3" || seen.Peer == "") {
					t.Errorf("until %v, want %v; TLS %q, peer %q", seen.Until, want, seen.TLS, seen.Peer)
				}
				if n := len(r.Requests()); n != 0 {
					t.Errorf("the receiver got %d requests", n)
				}
			})
		})
	}
}

// TestLookObeysTheGuard on a real network: nothing is dialled that an attempt may not dial.
func TestLookObeysTheGuard(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e := endpointAt("billing", &url.URL{Scheme: "http", Host: l.Addr().String()})
	if seen, f := NewClient(Options{}).Look(t.Context(), e); f != nil || seen.Peer != l.Addr().String() {
		t.Errorf("allowed: %+v, %v", seen, f)
	}
	e.Egress.AllowPrivate = nil
	if _, f := NewClient(Options{}).Look(t.Context(), e); f == nil || f.Code != policy.CodeEgress || !strings.Contains(f.Text, "denied") {
		t.Errorf("a private address: %+v, want %s", f, policy.CodeEgress)
	}
	e.Egress.AllowPlaintext = false
	if _, f := NewClient(Options{}).Look(t.Context(), e); f == nil || f.Code != policy.CodeEgress {
		t.Errorf("plaintext: %+v, want %s", f, policy.CodeEgress)
	}
}

// TestLookEnds at the end of its context.
func TestLookEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.o.Network.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		e := endpointAt("billing", &url.URL{Scheme: "http", Host: "billing.test"})
		if _, f := NewClient(w.o).Look(ctx, e); f == nil || f.Code != policy.CodeTimeout {
			t.Errorf("%+v, want %s", f, policy.CodeTimeout)
		}
	})
}
