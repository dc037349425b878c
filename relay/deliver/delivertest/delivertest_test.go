package delivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"relay/internal/testkit"
	"relay/policy/sign"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

func post(t *testing.T, c *http.Client, url string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Relay-Attempt", "3")
	req.Header.Set("webhook-id", "evt_1")
	return c.Do(req)
}

func TestScript(t *testing.T) {
	e := NewEndpoint(Step{Status: 503, Header: map[string]string{"Retry-After": "7"}}, Step{Body: "ok"})
	url := e.Listen(t).String()
	c := &http.Client{Transport: &http.Transport{}}
	defer c.CloseIdleConnections()
	for i, want := range []int{503, 200, 200} {
		resp, err := post(t, c, url)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want || (resp.Header.Get("Retry-After") == "7") != (i == 0) {
			t.Errorf("request %d was answered %d, %v", i, resp.StatusCode, resp.Header)
		}
	}
	requests := e.Await(t, 3)
	if r := requests[2]; r.Attempt != 3 || r.Event != "evt_1" || string(r.Body) != "{}" || r.Hash != requests[0].Hash {
		t.Errorf("record of a request is %+v", r)
	}
	if e.Conns() != 1 || e.Peak() != 1 {
		t.Errorf("%d connections, %d requests at a time, want 1 and 1", e.Conns(), e.Peak())
	}
}

func TestFaults(t *testing.T) {
	e := NewEndpoint(Step{Fault: Reset}, Step{Fault: Close}, Step{Raw: "HTTP/1.1 200 OK\r\nX: ", Fault: Flood})
	url := e.Listen(t).String()
	c := &http.Client{Transport: &http.Transport{MaxResponseHeaderBytes: 1 << 10}}
	defer c.CloseIdleConnections()
	for i, check := range []func(error) bool{
		func(err error) bool { return errors.Is(err, syscall.ECONNRESET) },
		func(err error) bool { return errors.Is(err, io.EOF) },
		func(err error) bool { return err != nil },
	} {
		resp, err := post(t, c, url)
		if err == nil {
			resp.Body.Close()
		}
		if !check(err) {
			t.Errorf("fault %d: %v", i, err)
		}
	}
}

func TestVerifier(t *testing.T) {
	signer, err := sign.NewSigner(sign.Standard(), []string{secret})
	if err != nil {
		t.Fatal(err)
	}
	e := NewEndpoint()
	if e.Verifier, err = sign.NewVerifier(sign.Standard(), []string{secret}); err != nil {
		t.Fatal(err)
	}
	url := e.Listen(t).String()
	c := &http.Client{Transport: &http.Transport{}}
	defer c.CloseIdleConnections()
	for _, body := range []string{"{}", "{ }"} {
		req, err := http.NewRequestWithContext(t.Context(), "POST", url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range signer.Sign(nil, &sign.Message{EventID: "evt_1", Time: time.Now(), Body: []byte("{}")}) {
			req.Header.Set(h.Name, h.Value)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if r := e.Requests(); r[0].Err != nil || r[1].Err == nil {
		t.Errorf("signature of the body that was signed: %v; of another: %v", r[0].Err, r[1].Err)
	}
}

func TestNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		if _, err := n.Dial(t.Context(), "tcp", "a.test:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial where nobody listens: %v", err)
		}
		l, err := n.Listen("a.test:80")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Listen("a.test:80"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("listen twice: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := n.Dial(ctx, "tcp", "a.test:80"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial where nobody accepts: %v", err)
		}
		NewEndpoint(Step{Delay: time.Hour}).Serve(t, l)
		c := &http.Client{Transport: &http.Transport{DialContext: n.Dial}}
		start := time.Now()
		resp, err := post(t, c, "http://a.test/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if took := time.Since(start); took != time.Hour {
			t.Errorf("answer after %s, want the step's hour", took)
		}
		c.CloseIdleConnections()
		l.Close()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after close: %v", err)
		}
	})
}

// What Pipe promises: order, room, ends and deadlines as a socket has them.
func TestPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := Pipe()
		sent := bytes.Repeat([]byte("0123456789"), room/5) // twice the room
		go func() {
			_, _ = ours.Write(sent)
			ours.Close()
		}()
		synctest.Wait()
		got, err := io.ReadAll(theirs)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("read %d bytes of %d (%v)", len(got), len(sent), err)
		}
		theirs.Close()
		if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after close: %v", err)
		}

		ours, theirs = Pipe()
		for name, wait := range map[string]func() error{
			"read":  func() error { _, err := ours.Read(make([]byte, 1)); return err },
			"write": func() error { _, err := ours.Write(make([]byte, 2*room)); return err },
		} {
			start := time.Now()
			_ = ours.SetDeadline(start.Add(time.Second))
			if err := wait(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
				t.Errorf("%s ends after %s: %v", name, time.Since(start), err)
			}
		}
		theirs.Close()
		_ = ours.SetDeadline(time.Time{})
		if _, err := ours.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write to one who left: %v", err)
		}
		ours.Close()
	})
}

// After Lose nothing arrives, not even the end, and the writer does not notice.
func TestLose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		n.Buffered = true
		l, err := n.Listen("billing.test:80")
		if err != nil {
			t.Fatal(err)
		}
		dial := func() (ours, theirs net.Conn) {
			accepted := make(chan net.Conn, 1)
			go func() {
				c, _ := l.Accept()
				accepted <- c
			}()
			ours, err := n.Dial(t.Context(), "tcp", "billing.test:80")
			if err != nil {
				t.Fatal(err)
			}
			return ours, <-accepted
		}
		ours, theirs := dial()
		n.Lose()
		if size, err := ours.Write(make([]byte, 2*room)); err != nil || size != 2*room {
			t.Errorf("wrote %d bytes: %v", size, err)
		}
		ours.Close()
		_ = theirs.SetReadDeadline(time.Now().Add(time.Hour))
		if n, err := theirs.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes arrived: %v", n, err)
		}
		ours, theirs = dial()
		_, _ = ours.Write([]byte("ok"))
		if _, err := io.ReadFull(theirs, make([]byte, 2)); err != nil {
			t.Errorf("a new connection: %v", err)
		}
	})
}

// Names answers as it is told, by UDP and, where that is too small, by TCP.
func TestNames(t *testing.T) {
	n := NewNames(t, func(name string) Reply {
		switch name {
		case "two.test":
			return Reply{Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}}
		case "alias.test":
			return Reply{Aliases: []string{"a.test", "b.test"}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}, Cut: true}
		}
		return Reply{Code: dnsmessage.RCodeNameError}
	})
	for name, want := range map[string]string{"two.test.": "[10.0.0.1 fd00::1]", "alias.test.": "[10.0.0.2]"} {
		got, err := n.Resolver().LookupNetIP(t.Context(), "ip", name)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s is %v (%v), want %s", name, got, err, want)
		}
	}
	_, err := n.Resolver().LookupNetIP(t.Context(), "ip", "no.test.")
	if e, ok := errors.AsType[*net.DNSError](err); !ok || !e.IsNotFound {
		t.Errorf("no.test: %v", err)
	}
	if got := n.Asked("two.test"); got != 2 { // A and AAAA
		t.Errorf("asked %d times for two.test", got)
	}
}
