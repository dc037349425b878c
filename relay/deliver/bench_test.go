package deliver

import (
	"bytes"
	"context"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver/delivertest"
	"relay/relay/sign"
)

// settled is a Source that keeps nothing.
type settled struct{ Source }

func (settled) Settle(context.Context, outbox.Claim, outbox.Settlement) error { return nil }

// One attempt on a connection in memory, receiver included.
func BenchmarkAttempt(b *testing.B) {
	network := delivertest.NewNetwork()
	l, err := network.Listen("billing.test:80")
	if err != nil {
		b.Fatal(err)
	}
	receiver := delivertest.NewEndpoint()
	receiver.Serve(b, l)
	e := endpointAt(b, "billing", &url.URL{Scheme: "http", Host: "billing.test:80"})
	d := New(Options{Source: settled{}, dialNet: network.Dial}, &policy.Policy{Endpoints: []*policy.Endpoint{e}})
	r := d.runners["billing"]
	defer r.close()
	c := benchClaim()
	b.ReportAllocs()
	for b.Loop() {
		r.attempt(r.now, c, nil, false)
	}
}

// One attempt over loopback TCP to a receiver that costs next to nothing: what
// is left is ours and the kernel's.
func BenchmarkAttemptOnLoopback(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { answerAll(c) })
		}
	})
	defer serving.Wait()
	defer l.Close()
	e := endpointAt(b, "billing", &url.URL{Scheme: "http", Host: l.Addr().String(), Path: "/hook"})
	d := New(Options{Source: settled{}}, &policy.Policy{Endpoints: []*policy.Endpoint{e}})
	r := d.runners["billing"]
	defer r.close()
	c := benchClaim()
	b.ReportAllocs()
	for b.Loop() {
		r.attempt(r.now, c, nil, false)
	}
}

// answerAll answers each request of the benchmark, which come one at a time and end
// with "}}.
func answerAll(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 8<<10)
	answer := []byte("HTTP/1.1 200 OK\r\nDate: Fri, 02 Jan 2026 03:04:05 GMT\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok")
	for n := 0; ; {
		m, err := c.Read(buf[n:])
		if err != nil {
			return
		}
		if n += m; bytes.HasSuffix(buf[:n], []byte(`"}}`)) {
			if _, err := c.Write(answer); err != nil {
				return
			}
			n = 0
		}
	}
}

// What an attempt costs before the network: body and header.
func BenchmarkBuild(b *testing.B) {
	e := endpointAt(b, "billing", &url.URL{Scheme: "https", Host: "billing.test"})
	d := New(Options{Source: settled{}}, &policy.Policy{Endpoints: []*policy.Endpoint{e}})
	r := d.runners["billing"]
	r.now.wire.once.Do(func() { r.now.wire.out = discard{} })
	c := benchClaim()
	b.ReportAllocs()
	for b.Loop() {
		r.attempt(r.now, c, nil, false)
	}
}

// discard is a sender whose receiver takes everything at once.
type discard struct{}

func (discard) send(context.Context, time.Time, []sign.Header, []byte) (answer, *failure) {
	return answer{status: 200}, nil
}

func (discard) close() {}

func benchClaim() []outbox.Claim {
	data := []byte(`{"amount":1000,"text":"` + strings.Repeat("x", 1000) + `"}`)
	e := &outbox.Event{ID: "evt_01234567", Type: "invoice.paid", Time: time.Now(), Data: data}
	return []outbox.Claim{{Delivery: outbox.Delivery{ID: "dlv_01234567", EventID: e.ID, Endpoint: "billing"}, Event: e}}
}
