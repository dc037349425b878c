package delivertest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"relay/relay/sign"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
