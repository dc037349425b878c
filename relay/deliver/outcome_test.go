package deliver

import (
	"context"
	"fmt"
	"net"
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
		{"a body that cannot be made is final", retryOn("network", "timeout", "3xx", "4xx", "5xx"), []string{"body_error"}, Refused},
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
