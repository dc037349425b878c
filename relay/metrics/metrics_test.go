package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/relay/deliver"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// box is an outbox of which only the answers are there.
type box struct {
	health, countsErr, fillErr error
	counts                     map[string]outbox.Counts
	fill                       float64
	asked                      int
	block                      bool // Health answers only when its context ends
}

func (b *box) Health(ctx context.Context) error {
	b.asked++
	if b.block {
		<-ctx.Done()
		return ctx.Err()
	}
	return b.health
}

func (b *box) Counts(ctx context.Context) (map[string]outbox.Counts, error) {
	return b.counts, errors.Join(b.countsErr, ctx.Err())
}

func (b *box) Fill(ctx context.Context) (float64, error) {
	return b.fill, errors.Join(b.fillErr, ctx.Err())
}

// warned is an outbox that sees something at its server.
type warned struct{ *box }

func (warned) Warnings() []outbox.Warning {
	return []outbox.Warning{{}, {Danger: true}, {Danger: true}}
}

func TestWarnings(t *testing.T) {
	o := fleet()
	o.Outbox = warned{o.Outbox.(*box)}
	if text := scrape(t, New(o)); !strings.Contains(text, "\nrelay_outbox_warnings 2\n") {
		t.Errorf("the metric is missing:\n%s", text)
	}
}

// fleet is two busy endpoints and a quiet one, with what else the outbox knows.
func fleet() Options {
	h := deliver.Histogram{Bounds: []float64{0.1, 1}, Counts: []uint64{3, 2, 1}, Sum: 9.5}
	return Options{
		Version: "v1",
		Outbox: &box{fill: 0.25, counts: map[string]outbox.Counts{
			"busy": {Accepted: 9, Pending: 4, Delivered: 1, Failed: 3, Discarded: 1, Oldest: time.Now().Add(-time.Hour)}, "held": {Accepted: 7, Pending: 7}, "removed": {Accepted: 2, Pending: 2}, "theirs": {Accepted: 5, Pending: 5},
		}},
		Status: func() []deliver.Status {
			return []deliver.Status{
				{Endpoint: "busy", State: deliver.Active, Waiting: deliver.WaitBreaker, Breaker: deliver.BreakerOpen, Limit: 50, Tokens: 1.5, InFlight: 2,
					Attempts: map[deliver.Outcome]int64{deliver.Delivered: 5, deliver.Retry: 1}, LateBy: h, Took: h},
				{Endpoint: "held", State: deliver.Paused, Waiting: deliver.WaitPaused},
				{Endpoint: "idle", State: deliver.Active},
			}
		},
		Config: func() Config {
			return Config{Generation: 3, Hash: "0123456789ab", LoadedAt: time.Unix(1e9, 5e8), Refused: true}
		},
		Kind:       func(string) Kind { return Own },
		LogDropped: func() uint64 { return 7 }, TraceDropped: func() uint64 { return 9 },
		Firing: func(context.Context) []Firing { return []Firing{{Alert: "bad", About: "billing"}} },
		InFiles: func(context.Context) map[string]bool {
			return map[string]bool{"busy": true, "held": true, "idle": true, "theirs": true}
		},
	}
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || !strings.HasPrefix(got, "text/plain; version=0.0.4; charset=utf-8") {
		t.Fatalf("answered %d, %s", w.Code, got)
	}
	return w.Body.String()
}

// ours are the lines that are Relay's own and do not depend on time.
func ours(text string) (lines []string) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "relay_") && !strings.HasPrefix(line, "relay_build_info") && !strings.HasPrefix(line, "relay_deliver_oldest") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func TestScrape(t *testing.T) {
	m := New(fleet())
	m.OwnEventsDropped(2)
	text := scrape(t, m)
	want := `relay_alert_firing{about="billing",alert="bad"} 1
relay_config_generation 3
relay_config_info{hash="0123456789ab"} 1
relay_config_loaded_timestamp_seconds 1.0000000005e+09
relay_config_reload_failed 1
relay_ingest_unwanted_events_total 0
relay_log_dropped_total 7
relay_outbox_fill_ratio 0.25
relay_outbox_up 1
relay_own_events_dropped_total 2
relay_trace_dropped_total 9
relay_deliver_attempts_total{endpoint="busy",outcome="delivered"} 5
relay_deliver_attempts_total{endpoint="busy",outcome="retry"} 1
relay_deliver_attempts_total{endpoint="busy",outcome="refused"} 0
relay_deliver_attempts_total{endpoint="busy",outcome="gone"} 0
relay_deliver_attempts_total{endpoint="held",outcome="delivered"} 0
relay_deliver_attempts_total{endpoint="held",outcome="retry"} 0
relay_deliver_attempts_total{endpoint="held",outcome="refused"} 0
relay_deliver_attempts_total{endpoint="held",outcome="gone"} 0
relay_deliver_attempts_total{endpoint="idle",outcome="delivered"} 0
relay_deliver_attempts_total{endpoint="idle",outcome="retry"} 0
relay_deliver_attempts_total{endpoint="idle",outcome="refused"} 0
relay_deliver_attempts_total{endpoint="idle",outcome="gone"} 0
relay_deliver_waiting{endpoint="busy",cause="limit"} 0
relay_deliver_waiting{endpoint="busy",cause="breaker"} 1
relay_deliver_waiting{endpoint="busy",cause="retry_after"} 0
relay_deliver_waiting{endpoint="busy",cause="consent"} 0
relay_deliver_waiting{endpoint="busy",cause="paused"} 0
relay_deliver_waiting{endpoint="busy",cause="disabled"} 0
relay_deliver_waiting{endpoint="busy",cause="slots"} 0
relay_deliver_waiting{endpoint="held",cause="limit"} 0
relay_deliver_waiting{endpoint="held",cause="breaker"} 0
relay_deliver_waiting{endpoint="held",cause="retry_after"} 0
relay_deliver_waiting{endpoint="held",cause="consent"} 0
relay_deliver_waiting{endpoint="held",cause="paused"} 1
relay_deliver_waiting{endpoint="held",cause="disabled"} 0
relay_deliver_waiting{endpoint="held",cause="slots"} 0
relay_deliver_waiting{endpoint="idle",cause="limit"} 0
relay_deliver_waiting{endpoint="idle",cause="breaker"} 0
relay_deliver_waiting{endpoint="idle",cause="retry_after"} 0
relay_deliver_waiting{endpoint="idle",cause="consent"} 0
relay_deliver_waiting{endpoint="idle",cause="paused"} 0
relay_deliver_waiting{endpoint="idle",cause="disabled"} 0
relay_deliver_waiting{endpoint="idle",cause="slots"} 0
relay_deliver_breaker_state{endpoint="busy",state="closed"} 0
relay_deliver_breaker_state{endpoint="busy",state="open"} 1
relay_deliver_breaker_state{endpoint="busy",state="half_open"} 0
relay_deliver_limiter_tokens{endpoint="busy"} 1.5
relay_deliver_in_flight{endpoint="busy"} 2
relay_deliver_in_flight{endpoint="held"} 0
relay_deliver_in_flight{endpoint="idle"} 0
relay_deliver_late_seconds_total{endpoint="busy"} 9.5
relay_deliver_late_seconds_total{endpoint="held"} 0
relay_deliver_late_seconds_total{endpoint="idle"} 0
relay_deliver_attempt_seconds_total{endpoint="busy"} 9.5
relay_deliver_attempt_seconds_total{endpoint="held"} 0
relay_deliver_attempt_seconds_total{endpoint="idle"} 0
relay_deliver_late_seconds_bucket{endpoint="busy",le="0.1"} 3
relay_deliver_late_seconds_bucket{endpoint="busy",le="1"} 5
relay_deliver_late_seconds_bucket{endpoint="busy",le="+Inf"} 6
relay_deliver_late_seconds_sum{endpoint="busy"} 9.5
relay_deliver_late_seconds_count{endpoint="busy"} 6
relay_deliver_attempt_seconds_bucket{endpoint="busy",le="0.1"} 3
relay_deliver_attempt_seconds_bucket{endpoint="busy",le="1"} 5
relay_deliver_attempt_seconds_bucket{endpoint="busy",le="+Inf"} 6
relay_deliver_attempt_seconds_sum{endpoint="busy"} 9.5
relay_deliver_attempt_seconds_count{endpoint="busy"} 6
relay_deliver_pending{endpoint="busy"} 4
relay_deliver_pending{endpoint="held"} 0
relay_deliver_pending{endpoint="removed"} 0
relay_deliver_pending{endpoint="theirs"} 5
relay_deliver_held{endpoint="busy"} 0
relay_deliver_held{endpoint="held"} 7
relay_deliver_held{endpoint="removed"} 2
relay_deliver_held{endpoint="theirs"} 0
relay_deliver_failed_total{endpoint="busy"} 4
relay_deliver_failed_total{endpoint="held"} 0
relay_deliver_failed_total{endpoint="idle"} 0
relay_deliver_failed_total{endpoint="removed"} 0
relay_deliver_failed_total{endpoint="theirs"} 0`
	if diff := cmp.Diff(strings.Split(want, "\n"), ours(text)); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	for _, line := range []string{"relay_build_info{goversion=\"" + runtime.Version() + "\",version=\"v1\"} 1\n", "relay_deliver_oldest_age_seconds{endpoint=\"busy\"} 3600.", "\ngo_goroutines ", "\nprocess_start_time_seconds "} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in it", line)
		}
	}
}

// Something may be remembered about an endpoint that is in no file any more.
func TestRemovedEndpointIsHeld(t *testing.T) {
	o := fleet()
	o.Status = func() []deliver.Status {
		return []deliver.Status{{Endpoint: "removed", State: deliver.Active}, {Endpoint: "theirs", State: deliver.Disabled}}
	}
	lines := ours(scrape(t, New(o)))
	for _, want := range []string{`relay_deliver_held{endpoint="removed"} 2`, `relay_deliver_held{endpoint="theirs"} 5`} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %s", want)
		}
	}
}

// The names and types follow Prometheus' conventions, and its parser reads them.
func TestNamesAreGood(t *testing.T) {
	m := New(fleet())
	_, _ = m.Count(accepts{err: outbox.ErrFull}).Accept(t.Context(), outbox.Batch{})
	text := scrape(t, m)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range families {
		if f.GetHelp() == "" || f.GetType() == dto.MetricType_UNTYPED {
			t.Errorf("%s has no help or no type", name)
		}
	}
}

// The outbox is asked at most every five seconds, and what it does not tell is missing.
func TestOutboxIsSpared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := fleet()
		b := o.Outbox.(*box)
		m := New(o)
		for range 10 {
			scrape(t, m)
			time.Sleep(lookEvery / 10)
		}
		if b.asked != 1 {
			t.Errorf("asked %d times within %s", b.asked, lookEvery)
		}
		b.health, b.countsErr, b.fillErr = outbox.ErrUnavailable, outbox.ErrUnavailable, outbox.ErrUnavailable
		text := scrape(t, m)
		if b.asked != 2 || !strings.Contains(text, "relay_outbox_up 0\n") || strings.Contains(text, "pending") || strings.Contains(text, "fill_ratio") || !strings.Contains(text, "relay_deliver_in_flight") {
			t.Errorf("asked %d times; an outage shows\n%s", b.asked, strings.Join(ours(text), "\n"))
		}
		time.Sleep(lookEvery)
		b.block = true
		start := time.Now()
		if text = scrape(t, m); time.Since(start) != lookTimeout || !strings.Contains(text, "relay_outbox_up 0\n") {
			t.Errorf("an outbox that hangs costs %s", time.Since(start))
		}
	})
}

// Scrapes take turns, and one whose client goes leaves the queue.
func TestScrapesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := fleet()
		o.Outbox.(*box).block = true
		m := New(o)
		first := make(chan bool)
		go func() {
			m.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil))
			close(first)
		}()
		synctest.Wait()
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan bool)
		go func() {
			w := httptest.NewRecorder()
			m.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/metrics", nil))
			left <- w.Body.Len() == 0
		}()
		synctest.Wait()
		leave()
		if !<-left {
			t.Error("a second scrape went on beside the first")
		}
		<-first
		scrape(t, m)
	})
}

// accepts is the way in of an outbox.
type accepts struct {
	receipts []outbox.Receipt
	err      error
}

func (a accepts) Accept(context.Context, outbox.Batch) ([]outbox.Receipt, error) {
	return a.receipts, a.err
}
func (accepts) Durability() string { return "fsync" }

func TestCountsEvents(t *testing.T) {
	m := New(fleet())
	for _, a := range []accepts{
		{receipts: []outbox.Receipt{{Deliveries: 2}, {Deliveries: 0}, {Deliveries: 1, Duplicate: true}}},
		{err: outbox.ErrFull},
		{err: fmt.Errorf("accept: %w", &outbox.ConflictError{Index: -1})},
		{err: context.DeadlineExceeded},
		{err: outbox.ErrUnavailable},
	} {
		in := m.Count(a)
		if got, err := in.Accept(t.Context(), outbox.Batch{}); !errors.Is(err, a.err) || len(got) != len(a.receipts) || in.Durability() != "fsync" {
			t.Errorf("passed on %v, %v", got, err)
		}
	}
	lines := ours(scrape(t, m))
	for _, want := range []string{
		`relay_ingest_events_total{result="accepted"} 2`,
		`relay_ingest_events_total{result="duplicate"} 1`,
		`relay_ingest_unwanted_events_total 1`,
		`relay_ingest_outbox_refusals_total{code="outbox_full"} 1`,
		`relay_ingest_outbox_refusals_total{code="idempotency_conflict"} 1`,
		`relay_ingest_outbox_refusals_total{code="outbox_unavailable"} 2`,
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %s", want)
		}
	}
}

// weighed is a response that looks, at each family, how much memory is in use.
type weighed struct {
	http.ResponseWriter
	bytes, peak uint64
}

func (w *weighed) Write(b []byte) (int, error) {
	w.bytes += uint64(len(b))
	if i := bytes.Index(b, []byte("# HELP relay_deliver_")); i >= 0 {
		w.peak = max(w.peak, inUse())
	}
	return len(b), nil
}

func inUse() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// Up to 256 endpoints have histograms of their own. Of more there is one for all, counters tell of
// each, and what is 0 is left out, but for failed deliveries.
func TestHistogramsOfManyEndpoints(t *testing.T) {
	for _, c := range []struct {
		endpoints         int
		histograms, zeros bool
	}{{256, true, true}, {257, false, false}, {1000, false, false}} {
		o := fleet()
		busy := o.Status()[0]
		var status []deliver.Status
		for i := range c.endpoints {
			s := busy
			s.Endpoint = fmt.Sprintf("endpoint-%05d", i)
			if i%2 == 1 {
				s = deliver.Status{Endpoint: s.Endpoint, State: deliver.Active}
			}
			status = append(status, s)
		}
		o.Status, o.Outbox.(*box).counts = func() []deliver.Status { return status }, map[string]outbox.Counts{"endpoint-00000": {Accepted: 2, Failed: 2}}
		lines := ours(scrape(t, New(o)))
		n := (c.endpoints + 1) / 2 // busy ones
		for line, want := range map[string]bool{
			`relay_deliver_late_seconds_count{endpoint="endpoint-00000"} 6`:                 c.histograms,
			`relay_deliver_in_flight{endpoint="endpoint-00001"} 0`:                          c.zeros,
			`relay_deliver_waiting{endpoint="endpoint-00000",cause="limit"} 0`:              c.zeros,
			fmt.Sprintf(`relay_deliver_late_seconds_count %d`, 6*n):                         !c.histograms,
			fmt.Sprintf(`relay_deliver_late_seconds_bucket{le="1"} %d`, 5*n):                !c.histograms,
			fmt.Sprintf(`relay_deliver_attempt_seconds_sum %v`, 9.5*float64(n)):             !c.histograms,
			`relay_deliver_late_seconds_total{endpoint="endpoint-00000"} 9.5`:               true,
			`relay_deliver_attempts_total{endpoint="endpoint-00002",outcome="delivered"} 5`: true,
			`relay_deliver_waiting{endpoint="endpoint-00000",cause="breaker"} 1`:            true,
			`relay_deliver_breaker_state{endpoint="endpoint-00000",state="open"} 1`:         true,
			`relay_deliver_failed_total{endpoint="endpoint-00000"} 2`:                       true,
			`relay_deliver_failed_total{endpoint="endpoint-00001"} 0`:                       true,
		} {
			if slices.Contains(lines, line) != want {
				t.Errorf("%d endpoints: line %s is %t, want %t", c.endpoints, line, !want, want)
			}
		}
		if busy.LateBy.Counts[0] != 3 {
			t.Fatal("a scrape changed what it was given")
		}
	}
}

// Ten thousand endpoints, all of them busy, take no more than the largest family.
func TestManyEndpoints(t *testing.T) {
	o := fleet()
	const n = 10_000
	status := make([]deliver.Status, n)
	counts := map[string]outbox.Counts{}
	for i := range status {
		status[i] = o.Status()[0]
		status[i].Endpoint = fmt.Sprintf("endpoint-%05d", i)
		status[i].LateBy.Bounds, status[i].LateBy.Counts = make([]float64, 14), make([]uint64, 15)
		status[i].Took = status[i].LateBy
		counts[status[i].Endpoint] = outbox.Counts{Pending: 1, Oldest: time.Now()}
	}
	o.Status = func() []deliver.Status { return status }
	o.Outbox.(*box).counts = counts
	m := New(o)
	before := inUse()
	w := &weighed{ResponseWriter: httptest.NewRecorder()}
	m.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.bytes < 5<<20 || w.bytes > 8<<20 {
		t.Errorf("wrote %d bytes: 11 lines for each busy endpoint are 6 to 7 MB", w.bytes)
	}
	grown := int64(w.peak) - int64(before)
	t.Logf("%d bytes written, %d in use at most", w.bytes, grown)
	if grown > 48<<20 {
		t.Errorf("a scrape of %d endpoints held %d bytes at a time", n, grown)
	}
}
