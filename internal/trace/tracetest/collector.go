// Package tracetest is a collector of OpenTelemetry for tests. It reads what it gets with the
// official definitions of OTLP.
package tracetest

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// patience bounds Await.
const patience = 30 * time.Second

// Span is one that a collector got.
type Span struct {
	Parent     string            // traceparent of the span itself
	Trace, ID  string            // in hexadecimal digits
	Above      string            // the parent's id, "" for none
	State      string            // tracestate
	Name       string            // "accept" or "attempt"
	Service    string            // of the resource
	Attributes map[string]string // numbers in decimal digits
	Events     []string          // names, in the order of time
	Failed     bool
	Took       time.Duration
}

// Collector keeps the spans it gets.
type Collector struct {
	URL string

	mu    sync.Mutex
	spans []Span
}

// Start runs a collector until the end of the test.
func Start(t testing.TB) *Collector {
	t.Helper()
	c := &Collector{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.take(r); err != nil {
			t.Errorf("a request to the collector: %v", err)
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(s.Close)
	c.URL = s.URL
	return c
}

func (c *Collector) take(r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if what := r.Method + " " + r.URL.Path + " " + r.Header.Get("Content-Type"); what != "POST /v1/traces application/x-protobuf" {
		return fmt.Errorf("it is %s", what)
	}
	var data otlp.TracesData // it has the form of an ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &data); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range data.ResourceSpans {
		service := ""
		for _, a := range resource.Resource.Attributes {
			if a.Key == "service.name" {
				service = a.Value.GetStringValue()
			}
		}
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans = append(c.spans, read(s, service))
			}
		}
	}
	return nil
}

func read(s *otlp.Span, service string) Span {
	out := Span{
		Trace: hex.EncodeToString(s.TraceId), ID: hex.EncodeToString(s.SpanId), Above: hex.EncodeToString(s.ParentSpanId),
		State: s.TraceState, Name: s.Name, Service: service, Attributes: map[string]string{},
		Failed: s.Status.GetCode() == otlp.Status_STATUS_CODE_ERROR,
		Took:   time.Duration(s.EndTimeUnixNano - s.StartTimeUnixNano),
	}
	out.Parent = fmt.Sprintf("00-%s-%s-%02x", out.Trace, out.ID, s.Flags&0xff)
	for _, a := range s.Attributes {
		if text := a.Value.GetStringValue(); text != "" {
			out.Attributes[a.Key] = text
		} else {
			out.Attributes[a.Key] = fmt.Sprint(a.Value.GetIntValue())
		}
	}
	slices.SortStableFunc(s.Events, func(a, b *otlp.Span_Event) int { return int(a.TimeUnixNano) - int(b.TimeUnixNano) })
	for _, e := range s.Events {
		out.Events = append(out.Events, e.Name)
	}
	return out
}

// Spans are those that came so far.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Await waits until there are n spans.
func (c *Collector) Await(t testing.TB, n int) []Span {
	t.Helper()
	for until := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		all := c.Spans()
		if len(all) >= n {
			return all
		}
		if time.Now().After(until) {
			t.Fatalf("%d spans came, want %d: %+v", len(all), n, all)
		}
	}
}
