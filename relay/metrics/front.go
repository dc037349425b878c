package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// fronts counts what fronts answer.
type fronts struct {
	requests *prometheus.CounterVec // by host and class of status
	events   *prometheus.CounterVec // by result
	expires  *prometheus.Desc
	certs    func() map[string]time.Time
}

func newFronts(certs func() map[string]time.Time) *fronts {
	return &fronts{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relay_front_requests_total",
			Help: "Requests to fronts that were answered, by host of the file and class of status; 499: the client left first.",
		}, []string{"host", "status"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relay_front_events_total",
			Help: "Events of Relay-Event headers: accepted, or refused.",
		}, []string{"result"}),
		expires: prometheus.NewDesc("relay_front_certificate_expires_timestamp_seconds",
			"When the certificate of a front ends, in seconds since 1970; 0: there is none yet.", []string{"host"}, nil),
		certs: certs,
	}
}

// Describe implements prometheus.Collector.
func (f *fronts) Describe(to chan<- *prometheus.Desc) {
	f.requests.Describe(to)
	f.events.Describe(to)
	to <- f.expires
}

// Collect implements prometheus.Collector.
func (f *fronts) Collect(to chan<- prometheus.Metric) {
	f.requests.Collect(to)
	f.events.Collect(to)
	if f.certs == nil {
		return
	}
	for host, at := range f.certs() {
		value := 0.0
		if !at.IsZero() {
			value = float64(at.Unix())
		}
		to <- prometheus.MustNewConstMetric(f.expires, prometheus.GaugeValue, value, host)
	}
}

// FrontRequest counts a request to the front of a host of the file.
func (m *Metrics) FrontRequest(host string, status int) {
	class := strconv.Itoa(status/100) + "xx"
	if status == 499 {
		class = "499"
	}
	m.fronts.requests.WithLabelValues(host, class).Inc()
}

// FrontEvents counts events of answers.
func (m *Metrics) FrontEvents(n int, accepted bool) {
	result := "refused"
	if accepted {
		result = "accepted"
	}
	m.fronts.events.WithLabelValues(result).Add(float64(n))
}
