package deliver

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/config"
	"relay/outbox"
	"relay/policy"
	"relay/policy/sign"
	"relay/relay/deliver/delivertest"
)

// bodyOf reads the body of an endpoint with these lines.
func bodyOf(t testing.TB, lines string) *policy.Body {
	t.Helper()
	f, err := config.Parse("relay.hcl", []byte("endpoint \"a\" {\n url = \"https://a.test\"\n sign = [\"none\"]\n"+lines+"\n}\n"), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return p.Endpoints[0].Body
}

// Every attempt sends the same body, signed, with its content type.
func TestOwnBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint(delivertest.Step{Status: 503}, delivertest.Step{Status: 200})
		receiver.Verifier = verifier(t)
		e := w.inMemory("billing", receiver)
		e.Body = bodyOf(t, `
			content_type = "application/vnd.acme+json"
			body = { event = event.type, paid = event.data.amount, text = upper(event.data.note), delivery_id = delivery.id, webhook_id = endpoint.name }`)
		w.start(e)
		id := w.accept(1, "billing")[0]
		w.await(2)
		requests := receiver.Requests()
		want := `{"event":"invoice.paid","paid":1000,"text":"A \"B\" C","delivery_id":"` + w.delivery(id).ID + `","webhook_id":"a"}`
		for i, r := range requests {
			if string(r.Body) != want || r.Err != nil || r.Header.Get("Content-Type") != "application/vnd.acme+json" {
				t.Errorf("request %d: %s as %s, signature %v; want %s", i, r.Body, r.Header.Get("Content-Type"), r.Err, want)
			}
		}
	})
}

// A body that cannot be made is the end of the delivery, which says why.
func TestBodyError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint()
		e := w.inMemory("billing", receiver)
		e.Body = bodyOf(t, `body = { total = event.data.total }`)
		healthy := w.inMemory("crm", delivertest.NewEndpoint())
		w.start(e, healthy)
		id := w.accept(1, "billing")[0]
		w.accept(1, "crm")
		w.await(2)
		d := w.delivery(id)
		if d.State != outbox.Failed || d.Code != "body_error" || len(d.Attempts) != 1 || len(receiver.Requests()) != 0 {
			t.Fatalf("delivery is %s, code %q, %d attempts, %d requests", d.State, d.Code, len(d.Attempts), len(receiver.Requests()))
		}
		a := d.Attempts[0]
		if want := "cannot build the body: relay.hcl:4,18-34: the event has no event.data.total; write try(…, null) for what may be absent"; a.Error != want || a.Outcome != "refused" || a.Status != 0 {
			t.Errorf("attempt is %+v, want the error %s", a, want)
		}
	})
}

// A body that costs more than its budget is final, too, and says nothing about the receiver.
func TestTooExpensiveBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		receiver := delivertest.NewEndpoint()
		e := w.inMemory("billing", receiver)
		e.Body = bodyOf(t, `body = { a = [for x in event.data.l : regexreplace(event.data.s, "(x+x+)+y", "")] }`)
		w.start(e)
		data := fmt.Sprintf(`{"l":[%s1],"s":%q}`, strings.Repeat("1,", 5000), strings.Repeat("x", 100_000))
		_, err := w.store.Accept(t.Context(), outbox.Batch{Entries: []outbox.Entry{{
			Event: outbox.Event{ID: "evt_1", Type: "a.b", Time: time.Now(), Data: []byte(data)}, Endpoints: []string{"billing"}}}})
		if err != nil {
			t.Fatal(err)
		}
		w.await(1)
		d := w.delivery("evt_1")
		if d.State != outbox.Failed || d.Code != "too_expensive" || len(d.Attempts) != 1 || len(receiver.Requests()) != 0 {
			t.Errorf("delivery is %s, code %q, %d attempts, %d requests", d.State, d.Code, len(d.Attempts), len(receiver.Requests()))
		}
	})
}

func TestPreviewOfBodies(t *testing.T) {
	e := &policy.Endpoint{Name: "a", URL: &url.URL{Scheme: "https", Host: "a.test", Path: "/"}, Body: bodyOf(t, "source = \"/x\"\n body = cloudevent_binary")}
	event := &outbox.Event{ID: "evt_1", Type: "a.b", Time: time.Unix(0, 0), Key: "k", Data: []byte(`{"x": 1}`)}
	r, err := Preview(e, event, "1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var got []sign.Header
	for _, h := range r.Header {
		if strings.HasPrefix(h.Name, "ce-") || h.Name == "Content-Type" {
			got = append(got, h)
		}
	}
	want := []sign.Header{
		{Name: "Content-Type", Value: "application/json"}, {Name: "ce-specversion", Value: "1.0"}, {Name: "ce-id", Value: "evt_1"},
		{Name: "ce-source", Value: "/x"}, {Name: "ce-type", Value: "a.b"}, {Name: "ce-time", Value: "1970-01-01T00:00:00Z"},
		{Name: "ce-subject", Value: "k"}, {Name: "ce-partitionkey", Value: "k"},
	}
	if diff := cmp.Diff(want, got); diff != "" || string(r.Body) != `{"x":1}` {
		t.Errorf("body %s, header (-want +got):\n%s", r.Body, diff)
	}
	e.Body = bodyOf(t, `body = { a = event.data.y }`)
	if r, err := Preview(e, event, "1", time.Now()); err == nil {
		t.Errorf("the preview is %+v", r)
	}
}

// Own headers of an endpoint replace what they may, through to the wire.
func TestOwnHeaders(t *testing.T) {
	e := &policy.Endpoint{Headers: []policy.Header{
		{Name: "content-type", Value: config.NewSecret("application/cloudevents+json")},
		{Name: "User-Agent", Value: config.NewSecret("Acme")},
		{Name: "Relay-Delivery", Value: config.NewSecret("forged")},
	}}
	got := appendHeader(nil, e, &sign.Message{EventID: "evt_1", DeliveryID: "dlv_1", Attempt: 1}, "Relay/1")
	want := []sign.Header{
		{Name: "Content-Type", Value: "application/cloudevents+json"},
		{Name: "User-Agent", Value: "Acme"},
		{Name: "webhook-id", Value: "evt_1"},
		{Name: "Relay-Attempt", Value: "1"},
		{Name: "Relay-Delivery", Value: "dlv_1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
}

// A scheme that signs the Content-Type signs the one that is sent.
func TestOwnContentTypeIsSigned(t *testing.T) {
	scheme, _ := sign.Builtin("rfc9421")
	signer, err := sign.NewSigner(scheme, []string{secret})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse("https://billing.example.com:8443?a=1")
	if err != nil {
		t.Fatal(err)
	}
	for _, own := range []string{"", "application/cloudevents+json; charset=utf-8", "text/plain "} {
		e := endpointAt(t, "billing", u)
		e.Signers = []*sign.Signer{signer}
		want := "application/json"
		if own != "" {
			e.Headers = []policy.Header{{Name: "content-type", Value: config.NewSecret(own)}}
			want = strings.TrimSpace(own)
		}
		r, err := Preview(e, &outbox.Event{ID: "evt_1", Type: "a", Time: time.Now(), Data: []byte("1")}, "1", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header{}
		for _, line := range r.Header {
			h.Add(line.Name, strings.TrimSpace(line.Value))
		}
		if got := h.Get("Content-Type"); got != want {
			t.Errorf("sent %q, want %q", got, want)
		}
		seen := &sign.Message{Method: "POST", URL: "https://billing.example.com:8443/?a=1", Time: time.Now(), Body: r.Body}
		if err := signer.Verifier().Verify(h.Values, seen, time.Minute); err != nil {
			t.Errorf("content type %q: %v", own, err)
		}
	}
}

// Signatures that cover the URL, or its host, are of the one that the receiver sees.
func TestSignedURLIsTheReceivers(t *testing.T) {
	scheme, _ := sign.Builtin("rfc9421")
	signer, err := sign.NewSigner(scheme, []string{secret})
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"billing.test", "billing.test:80", "billing.test.", "billing.test.:80", "billing.test:8080", "billing.test.:8080"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			receiver := delivertest.NewEndpoint()
			receiver.Verifier = signer.Verifier()
			e := w.inMemory("billing", receiver)
			w.o.network.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return w.net.Dial(ctx, network, "billing.test:80")
			}
			e.URL.Host, e.Signers = host, []*sign.Signer{signer}
			w.start(e)
			w.accept(1, "billing")
			w.await(1)
			if r := receiver.Requests()[0]; r.Err != nil {
				t.Errorf("%s, seen as %s: %v", host, r.Host, r.Err)
			}
		})
	}
}
