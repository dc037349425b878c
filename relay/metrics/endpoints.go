package metrics

import (
	"iter"
	"maps"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"

	"relay/relay/deliver"
)

// outcomes are those of an attempt.
func outcomes() []deliver.Outcome {
	return []deliver.Outcome{deliver.Delivered, deliver.Retry, deliver.Refused, deliver.Gone}
}

// maxDetailed is how many endpoints have histograms of their own, and series that are 0. With
// more, a scrape would have 64 lines for each, most of them 0.
const maxDetailed = 256

// family is a metric with a series, or several, for each endpoint.
type family struct {
	*dto.MetricFamily
	many bool // more endpoints than maxDetailed
}

func newFamily(name string, kind dto.MetricType, help string, many bool) family {
	return family{&dto.MetricFamily{Name: &name, Type: &kind, Help: &help}, many}
}

// add takes the endpoint's label and, optionally, the name and value of another one.
func (f family) add(v float64, endpoint *dto.LabelPair, other ...string) {
	if f.many && v == 0 {
		return
	}
	m := &dto.Metric{Label: []*dto.LabelPair{endpoint}}
	if len(other) > 0 {
		m.Label = append(m.Label, &dto.LabelPair{Name: &other[0], Value: &other[1]})
	}
	if f.GetType() == dto.MetricType_COUNTER {
		m.Counter = &dto.Counter{Value: &v}
	} else {
		m.Gauge = &dto.Gauge{Value: &v}
	}
	f.Metric = append(f.Metric, m)
}

// addHistogram adds a histogram unless it is empty. For many endpoints it makes one series,
// without their label.
func (f family) addHistogram(h *deliver.Histogram, endpoint *dto.LabelPair) {
	if len(h.Counts) != len(h.Bounds)+1 {
		return
	}
	if f.many && len(f.Metric) > 0 {
		sumHistogram(f.Metric[0].Histogram, h)
		return
	}
	out := &dto.Histogram{SampleSum: &h.Sum, Bucket: make([]*dto.Bucket, len(h.Bounds))}
	total := uint64(0)
	for i := range h.Bounds {
		total += h.Counts[i]
		out.Bucket[i] = &dto.Bucket{UpperBound: &h.Bounds[i], CumulativeCount: new(total)}
	}
	out.SampleCount = new(total + h.Counts[len(h.Bounds)])
	m := &dto.Metric{Histogram: out}
	if f.many {
		out.SampleSum = new(h.Sum)
	} else {
		m.Label = []*dto.LabelPair{endpoint}
	}
	f.Metric = append(f.Metric, m)
}

// sumHistogram adds h, which has the same bounds, to all.
func sumHistogram(all *dto.Histogram, h *deliver.Histogram) {
	total := uint64(0)
	for i, b := range all.Bucket {
		total += h.Counts[i]
		*b.CumulativeCount += total
	}
	*all.SampleCount += total + h.Counts[len(h.Bounds)]
	*all.SampleSum += h.Sum
}

// endpoints yields all families about endpoints, from one snapshot. Each becomes garbage when the
// next one is built.
func (m *Metrics) endpoints() iter.Seq[*dto.MetricFamily] {
	s := m.scene()
	return func(yield func(*dto.MetricFamily) bool) {
		for _, part := range deliverFamilies() {
			f := newFamily(part.name, part.kind, part.help, s.many)
			for _, r := range s.rows {
				part.add(f, r)
			}
			if !yield(f.MetricFamily) {
				return
			}
		}
		m.backlog(s, yield)
	}
}

// deliverFamily is a metric from rows.
type deliverFamily struct {
	name string
	kind dto.MetricType
	help string
	add  func(family, *row)
}

func deliverFamilies() []deliverFamily {
	causes, states := deliver.WaitCauses(), deliver.BreakerStates()
	return []deliverFamily{
		{"relay_deliver_attempts_total", dto.MetricType_COUNTER, "Attempts by outcome.",
			func(f family, r *row) {
				for _, o := range outcomes() {
					f.add(float64(r.Attempts[o]), r.label, "outcome", string(o))
				}
			}},
		{"relay_deliver_waiting", dto.MetricType_GAUGE, "1 for the cause why no deliveries are claimed for the endpoint now, 0 for the others.",
			func(f family, r *row) {
				for _, cause := range causes {
					f.add(r.waitsFor(cause), r.label, "cause", cause)
				}
			}},
		{"relay_deliver_breaker_state", dto.MetricType_GAUGE, "1 for the state that the endpoint's breaker is in, 0 for the others.",
			func(f family, r *row) {
				for _, state := range states {
					if r.hasBreaker() {
						f.add(r.breakersIn(state), r.label, "state", state)
					}
				}
			}},
		{"relay_deliver_limiter_tokens", dto.MetricType_GAUGE, "Sends that the endpoint's rate limit allows at once now, as far as this Relay knows.",
			func(f family, r *row) {
				if r.Limit > 0 {
					f.add(r.Tokens, r.label)
				}
			}},
		{"relay_deliver_in_flight", dto.MetricType_GAUGE, "Attempts under way.",
			func(f family, r *row) { f.add(float64(r.InFlight), r.label) }},
		{"relay_deliver_late_seconds_total", dto.MetricType_COUNTER, "Sum of the time from when the endpoint's attempts were due to when they began.",
			func(f family, r *row) { f.add(r.LateBy.Sum, r.label) }},
		{"relay_deliver_attempt_seconds_total", dto.MetricType_COUNTER, "Sum of the time that the endpoint's attempts took.",
			func(f family, r *row) { f.add(r.Took.Sum, r.label) }},
		{"relay_deliver_late_seconds", dto.MetricType_HISTOGRAM, "Time from when attempts were due to when they began; of more than 256 endpoints one for all.",
			func(f family, r *row) { f.addHistogram(&r.LateBy, r.label) }},
		{"relay_deliver_attempt_seconds", dto.MetricType_HISTOGRAM, "Time that attempts took; of more than 256 endpoints one for all.",
			func(f family, r *row) { f.addHistogram(&r.Took, r.label) }},
	}
}

// backlog yields the backlogs in the outbox, at the last look.
func (m *Metrics) backlog(s scene, yield func(*dto.MetricFamily) bool) {
	pending := newFamily("relay_deliver_pending", dto.MetricType_GAUGE, "Deliveries that are due now or later.", s.many)
	waits := newFamily("relay_deliver_held", dto.MetricType_GAUGE, "Deliveries of an endpoint that is paused, disabled or removed.", s.many)
	oldest := newFamily("relay_deliver_oldest_age_seconds", dto.MetricType_GAUGE, "Age of the oldest delivery that is not over.", s.many)
	failed := newFamily("relay_deliver_failed_total", dto.MetricType_COUNTER, "Deliveries that ended without success, failed or discarded, since the outbox was made.", false)
	series := map[string]*dto.LabelPair{}
	for _, label := range s.label {
		series[label.GetValue()] = label
	}
	backlogs := m.backlogs(s)
	for _, value := range slices.Sorted(maps.Keys(series)) {
		label, w := series[value], backlogs[value]
		if w != nil {
			pending.add(w.pending, label)
			waits.add(w.held, label)
			if !w.oldest.IsZero() {
				oldest.add(max(0, time.Since(w.oldest).Seconds()), label)
			}
		}
		// Series that are 0 are included, even with many endpoints, because rate() misses the
		// first failure of a series that begins with it.
		if m.seen.counts != nil {
			n := 0.0
			if w != nil {
				n = w.failed
			}
			failed.add(n, label)
		}
	}
	_ = yield(pending.MetricFamily) && yield(waits.MetricFamily) && yield(oldest.MetricFamily) && yield(failed.MetricFamily)
}
