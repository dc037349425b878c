package deliver

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
)

func TestClassifyStatus(t *testing.T) {
	for status := 100; status <= 599; status++ {
		want, code := Refused, fmt.Sprintf("http_%d", status)
		switch {
		case status >= 200 && status <= 299:
			want, code = Delivered, ""
		case status >= 300 && status <= 399:
			code = "redirect_not_followed"
		case status == 410:
			want, code = Gone, "gone"
		case status == 408, status == 409, status == 425, status == 429, status >= 500:
			want = Retry
		}
		if got, gotCode := classify(status, "", defaults.On); got != want || gotCode != code {
			t.Errorf("classify(%d) = %s, %q, want %s, %q", status, got, gotCode, want, code)
		}
	}
}

func TestClassifyFailure(t *testing.T) {
	network := []string{
		"dns_not_found", "dns_failed", "egress_denied", "connection_refused", "connection_failed", "connection_reset",
		"tls_expired", "tls_wrong_name", "tls_unknown_authority", "tls_failed", "bad_response",
	}
	timeout := []string{"timeout", "connect_timeout"}
	for _, c := range []struct {
		name  string
		on    policy.Outcomes
		codes []string
		want  Outcome
	}{
		{"network retried", defaults.On, network, Retry},
		{"timeout retried", defaults.On, timeout, Retry},
		{"network final", retryOn("timeout"), network, Refused},
		{"timeout final", retryOn("network"), timeout, Refused},
		{"a body that cannot be made is final", retryOn("network", "timeout", "3xx", "4xx", "5xx"), []string{"body_error", "too_expensive"}, Refused},
		{"a body that found no place may do so later", policy.Outcomes{}, []string{"busy"}, Retry},
		{"our own defect is never the receiver's fault", policy.Outcomes{}, []string{"panic"}, Retry},
	} {
		for _, code := range c.codes {
			// A failure counts whatever status came before it.
			for _, status := range []int{0, 200, 503} {
				if got, gotCode := classify(status, code, c.on); got != c.want || gotCode != code {
					t.Errorf("%s: classify(%d, %q) = %s, %q, want %s", c.name, status, code, got, gotCode, c.want)
				}
			}
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
					dials, dial := 0, w.o.network.Dial
					w.o.network.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
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

// An answer with a whole head is an answer: its status decides, whatever becomes of the body.
func TestStatusDecides(t *testing.T) {
	flushed := func(w http.ResponseWriter, status int) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "abc")
		_ = http.NewResponseController(w).Flush()
	}
	bodies := map[string]struct {
		code  string
		took  time.Duration
		serve func(w http.ResponseWriter, r *http.Request, status int)
	}{
		"cut": {"body_cut", 0, func(w http.ResponseWriter, _ *http.Request, status int) {
			flushed(w, status)
			panic(http.ErrAbortHandler)
		}},
		"stalled": {"body_timeout", 15 * time.Second, func(w http.ResponseWriter, r *http.Request, status int) {
			flushed(w, status)
			<-r.Context().Done()
		}},
		"endless": {"body_timeout", 15 * time.Second, func(w http.ResponseWriter, r *http.Request, status int) {
			for r.Context().Err() == nil {
				flushed(w, status)
				select {
				case <-time.After(time.Second):
				case <-r.Context().Done():
				}
			}
		}},
	}
	for _, c := range []struct {
		status int
		state  outbox.State
		code   string // "" for the body's
	}{
		{200, outbox.Delivered, ""}, {202, outbox.Delivered, ""},
		{400, outbox.Failed, "http_400"}, {404, outbox.Failed, "http_404"}, {410, outbox.Failed, "gone"}, {307, outbox.Failed, "redirect_not_followed"},
		{429, outbox.Pending, "http_429"}, {503, outbox.Pending, "http_503"},
	} {
		for name, body := range bodies {
			for _, by := range []struct {
				protocol string
				http2    bool
			}{{"http/1.1", false}, {"http/1.1", true}, {"h2", true}} {
				t.Run(fmt.Sprintf("%d, %s, %s, http2 = %t", c.status, name, by.protocol, by.http2), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t)
						receiver := delivertest.NewEndpoint(delivertest.Step{Serve: func(w http.ResponseWriter, r *http.Request) { body.serve(w, r, c.status) }})
						e := w.secureInMemory("billing", receiver, by.protocol)
						e.HTTP2 = by.http2
						w.start(e)
						w.accept(1, "billing")
						r := w.await(1)[0]
						w.stop()
						code, noted := c.code, "("+body.code+": "
						if code == "" {
							code, noted = body.code, "the answer's body"
						}
						a := r.Attempt
						if r.State != c.state || a.Code != code || a.Status != c.status || !strings.Contains(a.Error, noted) {
							t.Errorf("%s, %q, status %d (%s), want %s, %q", r.State, a.Code, a.Status, a.Error, c.state, code)
						}
						if a.Took != body.took || !strings.HasPrefix(string(a.Body), "abc") || a.Head == "" {
							t.Errorf("took %s, want %s; kept body %q and head %q", a.Took, body.took, a.Body, a.Head)
						}
						if n := len(receiver.Requests()); n != 1 {
							t.Errorf("%d requests, want 1", n)
						}
					})
				})
			}
		}
	}
}

// A head that is not whole is no answer, whatever status its first line has.
func TestHeadThatIsCutIsNoAnswer(t *testing.T) {
	for code, fault := range map[string]delivertest.Fault{"connection_reset": delivertest.Close, "timeout": delivertest.Hang} {
		for _, status := range []string{"200 OK", "410 Gone"} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.start(w.inMemory("billing", delivertest.NewEndpoint(delivertest.Step{Raw: "HTTP/1.1 " + status + "\r\nContent-Length: 2\r\n", Fault: fault})))
				w.accept(1, "billing")
				if r := w.await(1)[0]; r.State != outbox.Pending || r.Attempt.Code != code || r.Attempt.Status != 0 {
					t.Errorf("%s: %s, %q, status %d", status, r.State, r.Attempt.Code, r.Attempt.Status)
				}
			})
		}
	}
}

// Answers that come while a stop cuts attempts short count too, when their head is whole.
func TestStatusDecidesDuringAStop(t *testing.T) {
	for _, protocol := range []string{"http/1.1", "h2"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.o.Grace = time.Second
			w.start(w.secureInMemory("billing", delivertest.NewEndpoint(delivertest.Step{Body: strings.Repeat("x", 100), Slow: time.Second}), protocol))
			id := w.accept(1, "billing")[0]
			time.Sleep(5 * time.Second)
			w.stop()
			if d := w.delivery(id); d.State != outbox.Delivered || d.Code != "body_cut" || w.d.Unfinished() != 0 {
				t.Errorf("%s: delivery is %s, %q; %d attempts were cut short", protocol, d.State, d.Code, w.d.Unfinished())
			}
		})
	}
}
