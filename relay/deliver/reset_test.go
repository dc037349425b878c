package deliver

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relay/config"
	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

// Fault F31: a receiver resets the connection before or during the request; TestOneRequestForOneAttempt has after it. That
// is one recorded attempt on one connection, whatever sends it and whatever promises
// its headers make that repeating does no harm.
func TestResets(t *testing.T) {
	const size = 1 << 20
	for _, c := range []struct {
		name string
		read int // bytes of the request, beside TLS; -1 for none of TLS either
	}{
		{"before", -1},
		{"before, after the handshake", 0},
		{"within the header", 40},
		{"within the body", 1000},
		{"within the body, later", size / 2},
	} {
		for _, protocol := range []string{"", "http/1.1", "h2"} {
			t.Run(fmt.Sprintf("%s, %q", c.name, protocol), func(t *testing.T) {
				if protocol == "h2" && c.read == size/2 {
					c.read = 50_000 // no more comes without the receiver's leave
				}
				w := newWorld(t)
				a := newAuthority(t)
				w.o.roots = a.pool()
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				var accepted atomic.Int64
				var serving sync.WaitGroup
				serving.Go(func() {
					for {
						conn, err := l.Accept()
						if err != nil {
							return
						}
						accepted.Add(1)
						var in net.Conn = conn
						if protocol != "" && c.read >= 0 {
							server := a.issue("billing.test", time.Now().Add(time.Hour))
							server.NextProtos = []string{protocol}
							in = tls.Server(conn, server)
							_ = in.(*tls.Conn).Handshake()
						}
						_, _ = io.ReadFull(in, make([]byte, max(c.read, 0)))
						_ = conn.(*net.TCPConn).SetLinger(0)
						conn.Close()
					}
				})
				e := endpointAt(t, "billing", &url.URL{Scheme: "http", Host: l.Addr().String()})
				if protocol != "" {
					e.URL.Scheme, e.HTTP2, e.TLS.ServerName = "https", true, "billing.test"
				}
				e.Headers = []policy.Header{{Name: "Idempotency-Key", Value: config.NewSecret("k")}, {Name: "X-Idempotency-Key", Value: config.NewSecret("k")}}
				e.Retry.Schedule = []time.Duration{time.Nanosecond, time.Nanosecond}
				w.start(e)
				id := w.acceptSized(size)
				results := w.await(3)
				w.stop()
				l.Close()
				serving.Wait()
				for _, r := range results {
					if r.Attempt.Code != "connection_reset" || r.Attempt.Status != 0 {
						t.Errorf("attempt %d: code %q (%s), want connection_reset", r.Attempt.N, r.Attempt.Code, r.Attempt.Error)
					}
				}
				if d := w.delivery(id); accepted.Load() != 3 || len(d.Attempts) != 3 || d.State != outbox.Failed {
					t.Errorf("%d connections for %d recorded attempts, want 3, 3; the delivery is %s", accepted.Load(), len(d.Attempts), d.State)
				}
			})
		}
	}
}

// Fault F35 and S5: answers that are not deliveries, over HTTP/2 as over HTTP/1.1.
// Redirects are not followed; what Retry-After asks for is bounded, or ignored.
func TestRefusals(t *testing.T) {
	type wait struct{ least, most time.Duration }
	usual := wait{4 * time.Second, 6 * time.Second} // the schedule's 5 s
	type answer struct {
		name   string
		status int
		header map[string]string
		state  outbox.State
		code   string
		wait
	}
	answers := []answer{{"gone", 410, nil, outbox.Failed, "gone", wait{}}}
	for _, status := range []int{300, 301, 302, 303, 307, 308} {
		answers = append(answers, answer{fmt.Sprint(status), status, map[string]string{"Location": "https://elsewhere.test:443/"}, outbox.Failed, "redirect_not_followed", wait{}})
	}
	for _, status := range []int{429, 503} {
		for value, w := range map[string]wait{
			"0":                             usual,
			"-1":                            usual,
			"7200":                          {2 * time.Hour, 2 * time.Hour},
			"1000000000000":                 {24 * time.Hour, 24 * time.Hour},
			"99999999999999999999999999":    {24 * time.Hour, 24 * time.Hour},
			"Wed, 21 Oct 1998 07:28:00 GMT": usual,
			"Sat, 01 Jan 2000 01:00:00 GMT": {59 * time.Minute, time.Hour},
			"Sat, 01 Jan 3000 01:00:00 GMT": {24 * time.Hour, 24 * time.Hour},
			"soon; \"x\"":                   usual,
			"":                              usual,
			"1e3":                           usual,
			"5.5":                           usual,
		} {
			answers = append(answers, answer{fmt.Sprintf("%d wait %q", status, value), status, map[string]string{"Retry-After": value}, outbox.Pending, fmt.Sprintf("http_%d", status), w})
		}
	}
	for _, c := range answers {
		for _, protocol := range []string{"http/1.1", "h2"} {
			t.Run(c.name+" by "+protocol, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					receiver := delivertest.NewEndpoint(delivertest.Step{Status: c.status, Header: c.header})
					e := w.secureInMemory("billing", receiver, protocol)
					dials, dial := 0, w.o.dialNet
					w.o.dialNet = func(ctx context.Context, network, address string) (net.Conn, error) {
						dials++
						return dial(ctx, network, address)
					}
					w.start(e)
					w.accept(1, "billing")
					r := w.await(1)[0]
					w.stop()
					if r.State != c.state || r.Attempt.Code != c.code || r.Attempt.Error == "" {
						t.Errorf("state %s, code %q (%s), want %s, %q", r.State, r.Attempt.Code, r.Attempt.Error, c.state, c.code)
					}
					if wait := r.Due.Sub(r.Attempt.Started.Add(r.Attempt.Took)); c.state == outbox.Pending && (wait < c.least || wait > c.most) {
						t.Errorf("next attempt in %s, want %s to %s", wait, c.least, c.most)
					}
					if n := len(receiver.Requests()); dials != 1 || n != 1 {
						t.Errorf("%d requests on %d connections, want 1 on 1", n, dials)
					}
				})
			})
		}
	}
}
