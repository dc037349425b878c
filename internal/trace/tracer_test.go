package trace

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// TestEncoding has a span read by the official reader. An ExportTraceServiceRequest has the form
// of a TracesData.
func TestEncoding(t *testing.T) {
	at := time.Unix(1770091500, 123456789)
	c := Parse(parent + " app=1")
	spans := []*Span{{
		Context: c, Parent: SpanID{1, 2, 3}, Name: "attempt", Kind: Client, Start: at, End: at.Add(time.Second),
		Attributes: []Attribute{{Key: "relay.endpoint", Text: "billing"}, {Key: "relay.attempt", Number: 3}, {Key: "less", Number: -1}},
		Events:     []Event{{"dns", at.Add(time.Millisecond)}, {"connect", at.Add(2 * time.Millisecond)}},
		Failed:     true, Error: "refused",
	}, {Context: c, Name: "accept", Kind: Server, Start: at, End: at}}
	var got otlp.TracesData
	if err := proto.Unmarshal(appendRequest(nil, []Attribute{{Key: "service.name", Text: "relay"}}, "v1", spans), &got); err != nil {
		t.Fatal(err)
	}
	text := func(key, v string) *common.KeyValue {
		return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: v}}}
	}
	number := func(key string, v int64) *common.KeyValue {
		return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: v}}}
	}
	nano := uint64(at.UnixNano())
	want := &otlp.TracesData{ResourceSpans: []*otlp.ResourceSpans{{
		Resource: &resource.Resource{Attributes: []*common.KeyValue{text("service.name", "relay")}},
		ScopeSpans: []*otlp.ScopeSpans{{
			Scope: &common.InstrumentationScope{Name: "relay", Version: "v1"},
			Spans: []*otlp.Span{{
				TraceId: c.Trace[:], SpanId: c.Span[:], TraceState: "app=1", ParentSpanId: []byte{1, 2, 3, 0, 0, 0, 0, 0}, Name: "attempt",
				Kind: otlp.Span_SPAN_KIND_CLIENT, StartTimeUnixNano: nano, EndTimeUnixNano: nano + 1e9, Flags: 1,
				Attributes: []*common.KeyValue{text("relay.endpoint", "billing"), number("relay.attempt", 3), number("less", -1)},
				Events:     []*otlp.Span_Event{{TimeUnixNano: nano + 1e6, Name: "dns"}, {TimeUnixNano: nano + 2e6, Name: "connect"}},
				Status:     &otlp.Status{Code: otlp.Status_STATUS_CODE_ERROR, Message: "refused"},
			}, {
				TraceId: c.Trace[:], SpanId: c.Span[:], TraceState: "app=1", Name: "accept",
				Kind: otlp.Span_SPAN_KIND_SERVER, StartTimeUnixNano: nano, EndTimeUnixNano: nano, Flags: 1,
			}},
		}},
	}}}
	if diff := cmp.Diff(want, &got, protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// collector answers as it is told, on a network in memory.
type collector struct {
	answer func(http.ResponseWriter, *http.Request)
	log    bytes.Buffer

	mu       sync.Mutex
	requests []*otlp.TracesData
	headers  []http.Header
}

// trace makes a Tracer that sends to c, and runs it until the end of the test.
func (c *collector) trace(t *testing.T) (tr *Tracer, stop func()) {
	t.Helper()
	tr = New(Options{URL: "http://collector.test:4318/", Header: http.Header{"Authorization": {"Bearer canary"}}, Version: "v1", Log: zerolog.New(&c.log)})
	transport := tr.client.Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		s := &http.Server{Handler: c}
		go func() { _ = s.Serve(&one{conn: theirs, done: make(chan struct{})}) }()
		context.AfterFunc(t.Context(), func() { s.Close() })
		return ours, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { tr.Run(ctx) })
	return tr, func() { cancel(); run.Wait() }
}

// one is a listener with a single connection.
type one struct {
	conn net.Conn
	once sync.Once
	done chan struct{}
}

func (l *one) Accept() (c net.Conn, err error) {
	l.once.Do(func() { c = l.conn })
	if c != nil {
		return c, nil
	}
	<-l.done
	return nil, net.ErrClosed
}
func (l *one) Addr() net.Addr { return l.conn.LocalAddr() }
func (l *one) Close() error   { close(l.done); return nil }

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var data otlp.TracesData
	if err := proto.Unmarshal(body, &data); err != nil || r.Method != "POST" || r.URL.Path != "/v1/traces" {
		w.WriteHeader(400)
		return
	}
	c.mu.Lock()
	c.requests, c.headers = append(c.requests, &data), append(c.headers, r.Header)
	c.mu.Unlock()
	if c.answer != nil {
		c.answer(w, r)
	}
}

// sizes are how many spans each request had.
func (c *collector) sizes() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []int
	for _, r := range c.requests {
		all = append(all, len(r.ResourceSpans[0].ScopeSpans[0].Spans))
	}
	return all
}

func span(n int) *Span {
	return &Span{Context: Parse(parent), Name: fmt.Sprint("s", n), Start: time.Now(), End: time.Now()}
}

// TestBatches: spans go together, after a second or when there are enough, and the rest at the end.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c collector
		tr, stop := c.trace(t)
		for i := range 600 {
			tr.Add(span(i))
		}
		time.Sleep(gatherFor - time.Millisecond)
		if diff := cmp.Diff([]int{perRequest}, c.sizes()); diff != "" {
			t.Errorf("before a second (-want +got):\n%s", diff)
		}
		time.Sleep(2 * time.Millisecond)
		tr.Add(span(1))
		stop()
		if diff := cmp.Diff([]int{perRequest, 600 - perRequest, 1}, c.sizes()); diff != "" || tr.Dropped() != 0 {
			t.Errorf("dropped %d (-want +got):\n%s", tr.Dropped(), diff)
		}
		if h := c.headers[0]; h.Get("Content-Type") != "application/x-protobuf" || h.Get("Authorization") != "Bearer canary" || h.Get("User-Agent") != "Relay/v1" {
			t.Errorf("header %v", h)
		}
	})
}

// TestCollectors that do not take spans: those are counted, and one line says why.
func TestCollectors(t *testing.T) {
	partial := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 3)
	partial = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), partial)
	status := func(code int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	for _, tt := range []struct {
		name     string
		answer   func(http.ResponseWriter, *http.Request)
		requests int
		dropped  uint64
		log      string
	}{
		{"takes", status(200), 1, 0, ""},
		{"rejects some", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(partial) }, 1, 3, "rejected 3 spans"},
		{"answers with what is no answer", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "\xff\xff\xff") }, 1, 0, ""},
		{"refuses", status(400), 1, 5, "400 Bad Request"},
		{"redirects", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://elsewhere.test/")
			w.WriteHeader(307)
		}, 1, 5, "307"},
		{"is busy", status(503), 3, 5, "503"},
		{"breaks off", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 3, 5, "EOF"},
		{"hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 3, 5, "deadline exceeded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := collector{answer: tt.answer}
				tr, stop := c.trace(t)
				for i := range 5 {
					tr.Add(span(i))
				}
				time.Sleep(time.Minute)
				stop()
				if n := len(c.sizes()); n != tt.requests || tr.Dropped() != tt.dropped {
					t.Errorf("%d requests, %d spans dropped, want %d and %d", n, tr.Dropped(), tt.requests, tt.dropped)
				}
				if got := c.log.String(); strings.Count(got, "\n") != min(1, len(tt.log)) || !strings.Contains(got, tt.log) || strings.Contains(got, "canary") {
					t.Errorf("log %q, want %q", got, tt.log)
				}
			})
		})
	}
}

// TestHangingCollectorIsNotWaitedFor: Add never blocks, the queue is bounded, and a stop takes a
// second.
func TestHangingCollectorIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		c := collector{answer: func(_ http.ResponseWriter, r *http.Request) { asked.Add(1); <-r.Context().Done() }}
		tr, stop := c.trace(t)
		began := time.Now()
		const n = 3 * queued
		for i := range n {
			tr.Add(span(i))
			synctest.Wait() // the tracer has taken what it takes
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("Add took %s", took)
		}
		if got := tr.Dropped(); got != n-queued-perRequest {
			t.Errorf("%d spans are dropped, want %d", got, n-queued-perRequest)
		}
		began = time.Now()
		stop()
		if took := time.Since(began); took > lastLimit {
			t.Errorf("the stop took %s", took)
		}
		if got := tr.Dropped(); got != n {
			t.Errorf("%d spans are dropped, want all %d", got, n)
		}
	})
}

// TestNilTracer has dropped nothing.
func TestNilTracer(t *testing.T) {
	if n := (*Tracer)(nil).Dropped(); n != 0 {
		t.Errorf("dropped %d", n)
	}
}
