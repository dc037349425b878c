package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"relay/internal/testkit"
	"relay/internal/trace/tracetest"
	"relay/relay/deliver/delivertest"
)

// sendTraced posts an event with a trace context, "" for none.
func (p *process) sendTraced(context string) {
	p.t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://relay/v1/events", strings.NewReader(`{"type":"invoice.paid","data":{}}`))
	testkit.Must(p.t, err)
	req.Header.Set("Content-Type", "application/json")
	if context != "" {
		req.Header.Set("Traceparent", context)
	}
	resp, err := p.client().Do(req)
	testkit.Must(p.t, err)
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusAccepted {
		p.t.Fatalf("%s: %s", resp.Status, body)
	}
}

// TestTraces: one trace goes from the app through Relay to the receiver, over a retry, and a
// collector hears of it.
func TestTraces(t *testing.T) {
	t.Parallel() // it mostly waits
	collector := tracetest.Start(t)
	receiver := delivertest.NewEndpoint(delivertest.Step{Status: 503}, delivertest.Step{Status: 200})
	p := newProcess(t, receiver.Listen(t).String(), "a")
	p.rewrite(`policy "default" {`, fmt.Sprintf("trace {\n otlp = %q\n sample = 0\n service = \"shop\"\n}\npolicy \"default\" {\n propagate_trace = true\n", collector.URL))
	p.start()
	p.await()
	const app = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	p.sendTraced(app)
	receiver.Await(t, 2) // both answers of the script that are not for the next event
	p.sendTraced("")     // the sample is 0
	requests := receiver.Await(t, 3)
	spans := collector.Await(t, 3)
	if code := p.stop(syscall.SIGTERM); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	spans = append(spans[:0:0], collector.Spans()...)
	if len(spans) != 3 {
		t.Fatalf("%d spans: %+v", len(spans), spans)
	}
	byName := map[string][]tracetest.Span{}
	for _, s := range spans {
		byName[s.Name] = append(byName[s.Name], s)
		if s.Trace != app[3:35] || s.Service != "shop" {
			t.Errorf("%+v", s)
		}
	}
	accept, attempts := byName["accept"], byName["attempt"]
	if len(accept) != 1 || accept[0].Above != app[36:52] || accept[0].Attributes["relay.deliveries"] != "1" || len(attempts) != 2 {
		t.Fatalf("%+v", spans)
	}
	sent := map[string]bool{}
	for _, r := range requests {
		sent[r.Header.Get("Traceparent")] = true
	}
	for i, s := range attempts {
		failed := s.Attributes["http.response.status_code"] == "503"
		if s.Above != accept[0].ID || s.Failed != failed || s.Attributes["relay.attempt"] != fmt.Sprint(i+1) || !sent[s.Parent] {
			t.Errorf("attempt %d: %+v; the receiver got %v", i+1, s, sent)
		}
		if !strings.HasSuffix(strings.Join(s.Events, " "), "first_byte") {
			t.Errorf("events %v", s.Events)
		}
	}
	if !sent[""] || len(sent) != 3 {
		t.Errorf("the receiver got %v, want one request without a trace", sent)
	}
}

// TestHangingCollector: a collector that takes connections and never answers costs spans, which are
// counted, and neither events nor deliveries nor a quick stop.
func TestHangingCollector(t *testing.T) {
	t.Parallel() // it mostly waits
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	defer l.Close() // the kernel takes connections; nobody reads
	for name, url := range map[string]string{"hangs": "http://" + l.Addr().String(), "refuses": "http://127.0.0.1:1"} {
		t.Run(name, func(t *testing.T) {
			receiver := delivertest.NewEndpoint()
			p := newProcess(t, receiver.Listen(t).String(), "a")
			p.rewrite(`policy "default" {`, fmt.Sprintf("trace {\n otlp = %q\n sample = 1\n}\npolicy \"default\" {\n", url))
			p.start()
			p.await()
			began := time.Now()
			const n = 300
			for range n {
				p.sendTraced("")
			}
			receiver.Await(t, n)
			took := time.Since(began)
			if name == "refuses" { // three tries take three seconds
				testkit.Until(t, "dropped spans", func() bool { return p.metric("relay_trace_dropped_total") > 0 })
			}
			began = time.Now()
			if code := p.stop(os.Interrupt.(syscall.Signal)); code != exitOK {
				t.Errorf("exit code %d", code)
			}
			t.Logf("%d events took %s, the stop %s", n, took, time.Since(began))
			if !strings.Contains(p.log.String(), "spans were lost") {
				t.Error("the log does not say that spans were lost")
			}
		})
	}
}
