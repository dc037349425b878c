package deliver

import (
	"strings"
	"testing"
	"testing/synctest"

	"relay/config"
	"relay/policy"
	"relay/policy/sign"
	"relay/relay/deliver/delivertest"
)

// Records tell how an attempt was made, without what is secret of it.
func TestRecordOfAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint(delivertest.Step{Status: 503})
		e := w.inMemory("billing", receiver)
		e.Headers = []policy.Header{{Name: "Authorization", Value: config.NewSecret("Bearer canary")}}
		e.URL.RawQuery = "token=canary"
		w.o.Self = func() Self { return Self{"relay-1", 7} }
		w.start(e)
		id := w.accept(1, "billing")[0]
		w.await(2)

		d := w.delivery(id)
		first, second := d.Attempts[0], d.Attempts[1]
		if first.Reused || !second.Reused || first.Peer == "" {
			t.Errorf("first attempt reused %t, second %t, peer %q", first.Reused, second.Reused, first.Peer)
		}
		if first.Relay != "relay-1" || first.Generation != 7 {
			t.Errorf("made by %q, generation %d", first.Relay, first.Generation)
		}
		lines := strings.Split(first.Request, "\r\n")
		if !strings.HasPrefix(lines[0], "POST http") || !strings.Contains(lines[0], "billing") {
			t.Errorf("first line of the request is %q", lines[0])
		}
		for _, want := range []string{"webhook-id: " + id, "Authorization: ***", "webhook-signature: ***", "Relay-Attempt: 1"} {
			if !strings.Contains(first.Request, want+"\r\n") {
				t.Errorf("no line %q in\n%s", want, first.Request)
			}
		}
		if strings.Contains(first.Request, "canary") || strings.Contains(first.Request, "v1,") {
			t.Errorf("the record has a secret:\n%s", first.Request)
		}
	})
}

// A request with a long header is cut at the end of a line.
func TestRecordIsBounded(t *testing.T) {
	r := recorder{first: "POST https://a.test/\r\n"}
	var header []sign.Header
	for range 100 {
		header = append(header, sign.Header{Name: "X-Long", Value: strings.Repeat("x", 100)})
	}
	got := r.text(header)
	if len(got) > maxKeptRequest || len(got) < maxKeptRequest-200 || !strings.HasSuffix(got, "x\r\n") {
		t.Errorf("%d bytes, ends with %q", len(got), got[len(got)-10:])
	}
}
