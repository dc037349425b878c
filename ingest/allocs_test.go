//go:build !race

package ingest

import (
	"testing"
	"time"
)

// Reading a header and writing an answer make nothing.
func TestAllocationsOfConn(t *testing.T) {
	var h header
	text := []byte("POST /v1/events HTTP/1.1\r\nHost: localhost\r\nUser-Agent: app\r\nContent-Type: application/json\r\n" +
		"Authorization: Bearer t0ken\r\nIdempotency-Key: k\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nContent-Length: 2\r\n\r\n")
	if n := testing.AllocsPerRun(100, func() {
		if p := h.read(text); p != nil {
			t.Fatal(p)
		}
	}); n != 0 {
		t.Errorf("a header makes %v objects", n)
	}
	off := New(Options{Outbox: nowhere{}, Route: to("billing"), KeepTrace: func() bool { return false }})
	asked := &conn{s: &Server{o: ServerOptions{Ingest: off}}, header: h}
	asked.header.keys = nil
	if n := testing.AllocsPerRun(100, func() { asked.describe("/v1/events") }); n != 0 || asked.req.TraceParent != "" {
		t.Errorf("a traceparent that is not kept makes %v objects", n)
	}
	c, res := new(conn), Response{Status: 202, ContentType: "application/json", Body: []byte("{}")}
	if n := testing.AllocsPerRun(100, func() { c.encode(&res, false, false) }); n != 0 {
		t.Errorf("an answer makes %v objects", n)
	}
}

// An event makes its entry, type, data and id, the random of the id, its receipt and the body of
// the answer, and an outbox what it keeps beside.
func TestAllocationsOfEvent(t *testing.T) {
	in := New(Options{Outbox: nowhere{}, Route: to("billing")})
	r := &Request{Method: "POST", Path: "/v1/events", ContentType: "application/json", Body: []byte(`{"type":"invoice.paid","data":{"amount":1}}`)}
	ctx := new(sharedDeadline).from(t.Context(), time.Now())
	if n := testing.AllocsPerRun(100, func() { in.Handle(ctx, r) }); n != 7 {
		t.Errorf("%v objects, want 7", n)
	}
}
