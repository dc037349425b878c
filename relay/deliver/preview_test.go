package deliver

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/config"
	"relay/outbox"
	"relay/policy"
	"relay/relay/post"
)

// wireLog is a network whose receivers keep what they get and hang up.
type wireLog struct{ bytes.Buffer }

func (l *wireLog) dial(context.Context, string, string) (net.Conn, error) {
	return &logged{log: l}, nil
}

type logged struct {
	net.Conn
	log *wireLog
}

func (c *logged) Write(b []byte) (int, error) { return c.log.Write(b) }

func (c *logged) Read([]byte) (int, error) { return 0, io.EOF }

func (c *logged) RemoteAddr() net.Addr { return &net.TCPAddr{} }

func (c *logged) Close() error { return nil }

func (c *logged) SetDeadline(time.Time) error { return nil }

// What is shown of a request is what goes over the wire.
func TestPreviewIsWhatIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := endpointAt(t, "billing", &url.URL{Scheme: "http", Host: "billing.test:80", Path: "/hook", RawQuery: "a=%20b"})
		e.Headers = []policy.Header{{Name: "X-MixedCase", Value: config.NewSecret("prod")}, {Name: "user-agent", Value: config.NewSecret("Acme")}}
		var sent wireLog
		d := New(Options{Source: settled{}, Version: "1", network: post.Network{Dial: sent.dial}}, policy.New([]*policy.Endpoint{e}))
		event := &outbox.Event{ID: "evt_1", Type: "a.b", Time: time.Now(), Data: []byte(`{"x": 1}`)}
		c := outbox.Claim{Delivery: outbox.Delivery{ID: PreviewDelivery, EventID: event.ID, Endpoint: e.Name}, Event: event}
		r := d.runners[e.Name]
		r.attempt(r.now, []outbox.Claim{c}, nil, false)
		r.close()

		shown, err := Preview(e, event, "1", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		got := shown.Line + "\r\n"
		for _, h := range shown.Header {
			got += h.Name + ": " + h.Value + "\r\n"
		}
		got += "\r\n" + string(shown.Body)
		if diff := cmp.Diff(sent.String(), got); diff != "" {
			t.Errorf("preview (-sent +shown):\n%s", diff)
		}
	})
}

func TestSpans(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name string
		s    policy.Steps
		want []Span
	}{
		{"no retries", policy.Steps{}, []Span{{}}},
		{"no jitter", policy.Steps{Schedule: []time.Duration{s, 2 * s}}, []Span{{}, {s, s}, {3 * s, 3 * s}}},
		{"jitter", policy.Steps{Schedule: []time.Duration{4 * s, 8 * s}, Jitter: 0.5}, []Span{{}, {2 * s, 6 * s}, {6 * s, 18 * s}}},
		{"all of it", policy.Steps{Schedule: []time.Duration{s}, Jitter: 1}, []Span{{}, {0, 2 * s}}},
	} {
		if diff := cmp.Diff(c.want, Spans(&c.s)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}
