package app

import (
	"crypto/tls"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relay/config"
	"relay/internal/testkit"
)

// wantFindings compares findings by their level and the begin of what they say.
func wantFindings(t *testing.T, all []Finding, want ...string) {
	t.Helper()
	if len(all) != len(want) {
		t.Fatalf("%+v, want %q", all, want)
	}
	for i, f := range all {
		if !strings.HasPrefix(f.Level+" "+f.What, want[i]) || (f.Next == "") != (f.Level == "ok") {
			t.Errorf("%+v, want %q", f, want[i])
		}
	}
}

func TestExamineFronts(t *testing.T) {
	up, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	defer up.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	testkit.Must(t, gone.Close())
	here, away := config.Upstream{Scheme: "http", Addr: up.Addr().String()}, config.Upstream{Scheme: "http", Addr: gone.Addr().String()}
	socket := config.Upstream{Scheme: "unix", Addr: filepath.Join(t.TempDir(), "none.sock")}

	wantFindings(t, ExamineFronts(t.Context(), config.Config{}, false))
	good := config.Front{Host: "a.example", Upstream: here}
	wantFindings(t, ExamineFronts(t.Context(), config.Config{Fronts: []config.Front{good}}, false), "ok fronts: 1; their upstreams can be reached")
	bad := config.Front{Host: "b.example", Upstream: away, Paths: []config.FrontPath{{Pattern: "/api/*", Upstream: socket}, {Pattern: "/x", Upstream: here}}}
	wantFindings(t, ExamineFronts(t.Context(), config.Config{Fronts: []config.Front{good, bad, {Host: "c.example", Upstream: away}}}, false),
		"warn front b.example: its upstream "+away.String()+" cannot be reached: ", "warn front b.example: its upstream "+socket.String()+" cannot be reached: ")
}

func TestExamineCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cert, key := testkit.Certificate(t, "a.example", "*.b.example") // for an hour
		front := func(host string) *config.Front {
			return &config.Front{Host: host, TLS: &config.FrontTLS{Cert: cert, Key: config.NewSecret(string(key))}}
		}
		wantFindings(t, examineCertificate(t.Context(), front("a.example"), false), "warn front a.example: its certificate ends at 2000-01-01T01:00:00Z")
		wantFindings(t, examineCertificate(t.Context(), front("*.b.example"), false), "warn front *.b.example: its certificate ends at ")
		wantFindings(t, examineCertificate(t.Context(), front("c.example"), false), "refuse front c.example: its certificate is not for this host")
		time.Sleep(2 * time.Hour)
		wantFindings(t, examineCertificate(t.Context(), front("a.example"), false), "refuse front a.example: its certificate ended at 2000-01-01T01:00:00Z")
	})
}

// Of a Relay that runs the certificate is looked at that it shows.
func TestExamineShownCertificate(t *testing.T) {
	cert, key := testkit.Certificate(t, "a.example")
	pair, err := tls.X509KeyPair(cert, key)
	testkit.Must(t, err)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	testkit.Must(t, err)
	addr := ln.Addr().String()
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake() // the caller says what is wrong
			_ = conn.Close()
		}
	}()
	at := func(host string) *config.Front { return &config.Front{Host: host, HTTPS: []string{addr}} }
	wantFindings(t, examineCertificate(t.Context(), at("a.example"), true), "warn front a.example: its certificate ends at ")
	wantFindings(t, examineCertificate(t.Context(), at("b.example"), true), "refuse front b.example: its certificate is not for this host")
	wantFindings(t, examineCertificate(t.Context(), at("*"), true)) // any name would have one obtained
	wantFindings(t, examineCertificate(t.Context(), at("a.example"), false))
	testkit.Must(t, ln.Close())
	<-served
	wantFindings(t, examineCertificate(t.Context(), at("a.example"), true), "warn front a.example shows no certificate: ")
}
