package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"relay/outbox"
)

// state collects the state of the outbox and the configuration.
type state struct {
	m *Metrics

	up, fill, ahead, warnings          *prometheus.Desc
	generation, info, loaded, rejected *prometheus.Desc

	spoolUsed, spoolPending, spoolAge, spoolMoved, spoolRefused *prometheus.Desc
	firing                                                      *prometheus.Desc
}

func newState(m *Metrics) *state {
	return &state{
		m: m,
		up: prometheus.NewDesc("relay_outbox_up",
			"1 when the outbox would accept an event, 0 when it is full or does not answer.", nil, nil),
		fill: prometheus.NewDesc("relay_outbox_fill_ratio",
			"How much of the room for events is in use, from 0 to 1.", nil, nil),
		ahead: prometheus.NewDesc("relay_outbox_clock_ahead_seconds",
			"By how much this machine's clock is ahead of that of the shared outbox; negative where it is behind.", nil, nil),
		warnings: prometheus.NewDesc("relay_outbox_warnings",
			"How many things Relay sees at the server of a shared outbox that endanger accepted events: settings that the start would refuse or that became worse since, too few replicas, keys that somebody overwrote. GET /readyz tells them, with danger.", nil, nil),
		spoolUsed: prometheus.NewDesc("relay_outbox_spool_used",
			"1 while events go through the spool, because Redis is away or the spool is not empty; missing without a spool, like the next four.", nil, nil),
		spoolPending: prometheus.NewDesc("relay_outbox_spool_pending",
			"Requests in the spool.", nil, nil),
		spoolAge: prometheus.NewDesc("relay_outbox_spool_oldest_age_seconds",
			"Age of the oldest request in the spool; 0 if it is empty.", nil, nil),
		spoolMoved: prometheus.NewDesc("relay_outbox_spool_moved_total",
			"Requests that moved from the spool to Redis, since the spool was made.", nil, nil),
		spoolRefused: prometheus.NewDesc("relay_outbox_spool_refused_total",
			"Requests of the spool that Redis refused for good, because an id or key was used before with other content.", nil, nil),
		generation: prometheus.NewDesc("relay_config_generation",
			"The configuration that runs: 1 is that of the start, one more with each reload that was taken over.", nil, nil),
		info: prometheus.NewDesc("relay_config_info",
			"1, with the hash of the settings of all endpoints.", []string{"hash"}, nil),
		loaded: prometheus.NewDesc("relay_config_loaded_timestamp_seconds",
			"When the configuration that runs was loaded.", nil, nil),
		firing: prometheus.NewDesc("relay_alert_firing",
			"1 for each alert of the file that fires, with the endpoint or certificate that it is about.", []string{"alert", "about"}, nil),
		rejected: prometheus.NewDesc("relay_config_reload_failed",
			"1 when the last reload was refused, so that the configuration before it still runs.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (s *state) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{s.up, s.fill, s.ahead, s.warnings, s.generation, s.info, s.loaded, s.rejected, s.spoolUsed, s.spoolPending, s.spoolAge, s.spoolMoved, s.spoolRefused, s.firing} {
		to <- d
	}
}

// Collect implements prometheus.Collector. It is called during a scrape.
func (s *state) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	seen, c := &s.m.seen, s.m.o.Config()
	gauge(s.up, bit(seen.up))
	if seen.filled {
		gauge(s.fill, seen.fill)
	}
	if s.m.o.Clock != nil {
		now := time.Now()
		gauge(s.ahead, now.Round(0).Sub(s.m.o.Clock.At(now)).Seconds())
	}
	if store, ok := s.m.o.Outbox.(outbox.Warned); ok {
		dangers := slices.DeleteFunc(store.Warnings(), func(w outbox.Warning) bool { return !w.Danger })
		gauge(s.warnings, float64(len(dangers)))
	}
	if now := seen.spool; now != nil {
		gauge(s.spoolUsed, bit(now.Used))
		gauge(s.spoolPending, float64(now.Waiting))
		age := 0.0
		if !now.Oldest.IsZero() {
			age = max(0, time.Since(now.Oldest).Seconds())
		}
		gauge(s.spoolAge, age)
		to <- prometheus.MustNewConstMetric(s.spoolMoved, prometheus.CounterValue, float64(now.Moved))
		to <- prometheus.MustNewConstMetric(s.spoolRefused, prometheus.CounterValue, float64(now.Refused))
	}
	for _, f := range seen.firing {
		gauge(s.firing, 1, f.Alert, f.About)
	}
	gauge(s.generation, float64(c.Generation))
	gauge(s.info, 1, c.Hash)
	gauge(s.loaded, float64(c.LoadedAt.UnixMilli())/1000)
	gauge(s.rejected, bit(c.Refused))
}

func bit(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
