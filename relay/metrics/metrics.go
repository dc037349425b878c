// Package metrics is Relay's metrics for Prometheus. Between scrapes they cost a few counters;
// all else is collected during a scrape.
//
// No label has a value from an event or a request: endpoints have their names in the file or the
// outbox. There are no secrets here.
//
// Metrics of the process are in a registry. Those of endpoints are not, because with ten thousand
// of them a registry would build some hundred megabytes for a scrape. Here one family after the
// other is built, written and forgotten (endpoints.go).
package metrics

import (
	"context"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"relay/outbox"
	"relay/relay/deliver"
)

const (
	lookEvery   = 5 * time.Second // least time between looks at the outbox
	lookTimeout = 3 * time.Second // below Prometheus' own of 10 s, so that an outage leaves the other figures
)

// Outbox is the part of the outbox that metrics need.
type Outbox interface {
	Health(ctx context.Context) error
	Counts(ctx context.Context) (map[string]outbox.Counts, error)
	Fill(ctx context.Context) (float64, error)
}

// Config is the running configuration.
type Config struct {
	Generation int64
	Hash       string // of the settings of all endpoints, without secrets
	LoadedAt   time.Time
	Refused    bool // the last reload
}

// Options of Metrics; all are required, except Clock.
type Options struct {
	Version string
	Outbox  Outbox
	Status  func() []deliver.Status
	Config  func() Config
	Clock   outbox.Clock // of an outbox that has its own; nil for this process's

	// Kind says which series an endpoint has. Its name may be of none.
	Kind func(endpoint string) Kind

	// LogDropped counts lost log lines.
	LogDropped func() uint64

	// TraceDropped counts lost spans.
	TraceDropped func() uint64

	// Certificates says when those of fronts end, by host; zero where there is none yet.
	Certificates func() map[string]time.Time

	// InFiles names the endpoints that are in the file of a Relay of this outbox; deliveries of
	// others are held. It obeys the context's deadline.
	InFiles func(ctx context.Context) map[string]bool

	// Firing lists the alerts that fire, in the whole fleet. It obeys the context's deadline.
	Firing func(ctx context.Context) []Firing
}

// Firing is an alert that fires.
type Firing struct{ Alert, About string }

// Metrics is the handler of GET /metrics, and counters that belong to no other package. Its
// methods may be called at the same time.
type Metrics struct {
	o        Options
	registry *prometheus.Registry
	turn     chan struct{} // holds a token between scrapes; one scrape at a time bounds the memory
	seen     look          // belongs to the scrape,
	sums     map[string]steady

	events    *prometheus.CounterVec // by result
	unwanted  prometheus.Counter
	refused   *prometheus.CounterVec // by code
	ownEvents prometheus.Counter     // dropped ones
	fronts    *fronts
}

// New makes Metrics. It collects nothing before the first scrape.
func New(o Options) *Metrics {
	m := &Metrics{
		o:        o,
		registry: prometheus.NewRegistry(),
		turn:     make(chan struct{}, 1),
		sums:     map[string]steady{},
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relay_ingest_events_total",
			Help: "Events answered with 202: accepted ones, and duplicates of those.",
		}, []string{"result"}),
		unwanted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "relay_ingest_unwanted_events_total",
			Help: "Accepted events without a delivery: no endpoint wants them, or filters left them out.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relay_ingest_outbox_refusals_total",
			Help: "Requests that the outbox did not take, by the code of the answer.",
		}, []string{"code"}),
		ownEvents: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "relay_own_events_dropped_total",
			Help: "Relay's own events that were lost, because there were too many or the outbox refused them.",
		}),
	}
	m.fronts = newFronts(o.Certificates)
	m.turn <- struct{}{}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "relay_build_info",
		Help:        "1, with the version of Relay and of Go.",
		ConstLabels: prometheus.Labels{"version": o.Version, "goversion": runtime.Version()},
	})
	build.Set(1)
	logDropped := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "relay_log_dropped_total",
		Help: "Lines of the log that were lost, because nobody read them fast enough or they could not be written.",
	}, func() float64 { return float64(o.LogDropped()) })
	traceDropped := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "relay_trace_dropped_total",
		Help: "Spans that were lost, because the collector did not take them or too many waited for it.",
	}, func() float64 { return float64(o.TraceDropped()) })
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		build, m.events, m.unwanted, m.refused, m.ownEvents, logDropped, traceDropped, m.fronts, newState(m))
	return m
}

// OwnEventsDropped counts lost own events.
func (m *Metrics) OwnEventsDropped(n int) { m.ownEvents.Add(float64(n)) }

// ServeHTTP answers a scrape, one at a time.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-m.turn:
		defer func() { m.turn <- struct{}{} }()
	case <-r.Context().Done():
		return
	}
	m.look(r.Context())
	process, err := m.registry.Gather()
	if err != nil {
		http.Error(w, "gather metrics: "+err.Error(), http.StatusInternalServerError)
		return
	}
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	w.Header().Set("Content-Type", string(format))
	w.Header().Set("Cache-Control", "no-store")
	out := expfmt.NewEncoder(w, format)
	write := func(f *dto.MetricFamily) error {
		if len(f.Metric) == 0 {
			return nil
		}
		return out.Encode(f)
	}
	for _, f := range process {
		if write(f) != nil {
			return // the client has gone
		}
	}
	for f := range m.endpoints() {
		if write(f) != nil {
			return
		}
	}
}

// look is the last answer of the outbox.
type look struct {
	at      time.Time
	up      bool
	fill    float64
	filled  bool                // fill is known
	spool   *outbox.SpoolStatus // nil without one
	counts  map[string]outbox.Counts
	inFiles map[string]bool
	firing  []Firing
}

// look asks the outbox, unless it did so within lookEvery. Figures that do not arrive in time are
// missing from this scrape, because old ones would look new.
func (m *Metrics) look(ctx context.Context) {
	if !m.seen.at.IsZero() && time.Since(m.seen.at) < lookEvery {
		return
	}
	// A client that goes away must not make the next scrape see an outage.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout)
	defer cancel()
	l := look{up: m.o.Outbox.Health(ctx) == nil}
	fill, err := m.o.Outbox.Fill(ctx)
	l.fill, l.filled = fill, err == nil
	if store, ok := m.o.Outbox.(outbox.Spooling); ok {
		if s, err := store.Spool(ctx); err == nil {
			l.spool = &s
		}
	}
	if l.counts, err = m.o.Outbox.Counts(ctx); err == nil {
		l.inFiles = m.o.InFiles(ctx)
	} else {
		l.counts = nil
	}
	l.firing = m.o.Firing(ctx)
	l.at = time.Now()
	m.seen = l
}
