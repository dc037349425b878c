package front

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"relay/config"
	"relay/internal/testkit"
)

// A reload opens new addresses and closes those that nobody uses; a request under way there ends
// as it began.
func TestReloadOfListeners(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s := newStage(t)
	c := s.frontTo(app(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(entered)
			<-release
		}
		fmt.Fprint(w, "done")
	}))
	s.open(c)
	old := s.addr("https")
	got := make(chan string, 1)
	go func() {
		_, body := s.do(request(t, "GET", "https://"+host+"/slow", ""))
		got <- body
	}()
	<-entered
	moved := c
	moved.HTTPS = []string{"localhost:0"}
	s.apply(moved)
	testkit.Until(t, "the old address to close", func() bool {
		conn, err := net.Dial("tcp", old)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	close(release)
	if body := <-got; body != "done" {
		t.Errorf("the request under way got %s", body)
	}
	conn, err := tls.Dial("tcp", s.f.Addr("https", "localhost:0").String(), &tls.Config{RootCAs: s.roots, ServerName: host})
	testkit.Must(t, err)
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
	if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || res.StatusCode != 200 {
		t.Errorf("at the new address: %v", err)
	}
	_ = conn.Close()
}

// A configuration that cannot be opened changes nothing.
func TestReloadThatFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	defer taken.Close()
	s := newStage(t)
	c := s.frontTo(app(t, echo))
	s.open(c)
	bad := c
	bad.Host, bad.HTTPS = "other.example.com", []string{"localhost:0", taken.Addr().String()}
	if _, err := s.f.Prepare(t.Context(), append(s.fronts[:1:1], bad), s.acme); err == nil {
		t.Fatal("an address that is taken was opened")
	}
	if s.f.Addr("https", "localhost:0") != nil {
		t.Error("a listener of a refused configuration stays")
	}
	if res, _ := s.do(request(t, "GET", "https://"+host+"/", "")); res.StatusCode != 200 {
		t.Errorf("got %d", res.StatusCode)
	}
}

// A certificate that changed is served from the next connection on.
func TestReloadOfCertificates(t *testing.T) {
	s := newStage(t)
	c := s.frontTo(app(t, echo))
	s.open(c)
	serial := func() string {
		conn, err := tls.Dial("tcp", s.addr("https"), &tls.Config{RootCAs: s.roots, ServerName: host})
		testkit.Must(t, err)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	c.TLS = s.certificate(host)
	s.apply(c)
	if serial() == before {
		t.Error("the old certificate is served")
	}
	c.TLS = s.certificate(host)
	c.TLS.MinVersion = "1.3"
	s.apply(c)
	if _, err := tls.Dial("tcp", s.addr("https"), &tls.Config{RootCAs: s.roots, ServerName: host, MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 is spoken against min_version")
	}
}

// A stop lets requests end, and ends streams at once.
func TestShutdown(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s := newStage(t)
	c := s.frontTo(app(t, func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		fmt.Fprint(w, "done")
	}))
	_, addr, _ := strings.Cut(sockets(t), "://")
	c.Paths = []config.FrontPath{{Pattern: "/ws", Upstream: config.Upstream{Scheme: "http", Addr: addr}}}
	s.open(c)
	_, from := s.upgrade(t)
	got := make(chan string, 1)
	go func() {
		_, body := s.do(request(t, "GET", "https://"+host+"/", ""))
		got <- body
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		stopped <- s.f.Shutdown(ctx)
	}()
	if _, err := from.ReadByte(); err == nil {
		t.Error("a stream goes on after a stop")
	}
	close(release)
	if body := <-got; body != "done" {
		t.Errorf("got %s", body)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
