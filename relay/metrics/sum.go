package metrics

import (
	"maps"
	"slices"
	"strconv"
	"time"

	dto "github.com/prometheus/client_model/go"

	"relay/relay/deliver"
)

// Kind says which series an endpoint has.
type Kind int

const (
	Own   Kind = iota // series of its own
	Made              // one for all endpoints made at run time
	Other             // no endpoint of this Relay: its own, of many of them one for all
)

// Values of the label endpoint of series for many. They are no names of endpoints.
const (
	madeLabel  = "(made)"
	otherLabel = "(other)"
)

// row is the figures of an endpoint's Status, or the sum of many.
type row struct {
	*deliver.Status
	label *dto.LabelPair

	sum      bool
	waits    map[string]float64 // of a sum: how many endpoints wait, by cause,
	breakers map[string]float64 // and breakers by state
}

func (r *row) waitsFor(cause string) float64 {
	if r.sum {
		return r.waits[cause]
	}
	return bit(r.Waiting == cause)
}

// hasBreaker tells whether there is a breaker.
func (r *row) hasBreaker() bool { return r.Breaker != "" || len(r.breakers) > 0 }

func (r *row) breakersIn(state string) float64 {
	if r.sum {
		return r.breakers[state]
	}
	return bit(r.Breaker == state)
}

// include adds an endpoint to a sum.
func (r *row) include(s *deliver.Status) {
	if s.Waiting != "" {
		r.waits[s.Waiting]++
	}
	if s.Breaker != "" {
		r.breakers[s.Breaker]++
	}
	r.InFlight += s.InFlight
	for o, n := range s.Attempts {
		r.Attempts[o] += n
	}
	include(&r.LateBy, &s.LateBy)
	include(&r.Took, &s.Took)
}

func include(all, h *deliver.Histogram) {
	if len(h.Counts) == 0 {
		return
	}
	if all.Counts == nil {
		all.Bounds, all.Counts = h.Bounds, make([]uint64, len(h.Counts)) // the bounds of all are the same
	}
	for i, n := range h.Counts {
		all.Counts[i] += n
	}
	all.Sum += h.Sum
}

// steady is a sum over endpoints that come and go.
type steady struct{ last, gone float64 }

// keep is a counter that is a sum. It does not fall when an endpoint leaves the sum: Prometheus would take that
// for a new start, and count the rest again.
func (m *Metrics) keep(name string, sum float64) float64 {
	s := m.sums[name]
	s.gone += max(0, s.last-sum)
	s.last = sum
	m.sums[name] = s
	return s.gone + sum
}

// keepAll is keep for all counters of a sum.
func (m *Metrics) keepAll(r *row) {
	for _, o := range outcomes() {
		r.Attempts[o] = int64(m.keep(r.Endpoint+" "+string(o), float64(r.Attempts[o])))
	}
	for name, h := range map[string]*deliver.Histogram{"late": &r.LateBy, "took": &r.Took} {
		h.Sum = m.keep(r.Endpoint+" "+name, h.Sum)
		for i, n := range h.Counts {
			h.Counts[i] = uint64(m.keep(r.Endpoint+" "+name+" "+strconv.Itoa(i), float64(n)))
		}
	}
}

// scene is what a scrape tells of endpoints.
type scene struct {
	label   map[string]*dto.LabelPair // by endpoint; those that are summed up share one
	stopped map[string]bool           // endpoints that are paused or disabled
	rows    []*row
	many    bool // more series than maxDetailed
}

// scene sorts the endpoints into series.
func (m *Metrics) scene() scene {
	status, kind := m.o.Status(), m.o.Kind
	names := map[string]bool{}
	for i := range status {
		names[status[i].Endpoint] = true
	}
	for name := range m.seen.counts {
		names[name] = true
	}
	others := 0
	for name := range names {
		if kind(name) == Other {
			others++
		}
	}
	s := scene{label: make(map[string]*dto.LabelPair, len(names)), stopped: map[string]bool{}}
	series := map[string]*dto.LabelPair{}
	for name := range names {
		value := name
		switch k := kind(name); {
		case k == Made:
			value = madeLabel
		case k == Other && others > maxDetailed:
			value = otherLabel
		}
		if series[value] == nil {
			series[value] = &dto.LabelPair{Name: new("endpoint"), Value: &value}
		}
		s.label[name] = series[value]
	}
	s.many = len(series) > maxDetailed
	sums := map[string]*row{}
	for i := range status {
		s.stopped[status[i].Endpoint] = status[i].State != deliver.Active
		label := s.label[status[i].Endpoint]
		value := label.GetValue()
		if value != madeLabel && value != otherLabel {
			s.rows = append(s.rows, &row{Status: &status[i], label: label})
			continue
		}
		if sums[value] == nil {
			sums[value] = &row{
				Status: &deliver.Status{Endpoint: value, Attempts: map[deliver.Outcome]int64{}}, label: label,
				sum: true, waits: map[string]float64{}, breakers: map[string]float64{},
			}
		}
		sums[value].include(&status[i])
	}
	for _, value := range slices.Sorted(maps.Keys(sums)) {
		m.keepAll(sums[value])
		s.rows = append(s.rows, sums[value])
	}
	return s
}

// waiting is the backlog of an endpoint, or of many.
type waiting struct {
	pending, held, failed float64
	oldest                time.Time
}

// backlogs are those in the outbox at the last look, by label.
func (m *Metrics) backlogs(s scene) map[string]*waiting {
	all := map[string]*waiting{}
	for name, c := range m.seen.counts {
		value := s.label[name].GetValue()
		w := all[value]
		if w == nil {
			w = new(waiting)
			all[value] = w
		}
		if s.stopped[name] || !m.seen.inFiles[name] {
			w.held += float64(c.Pending)
		} else {
			w.pending += float64(c.Pending)
		}
		w.failed += float64(c.Failed + c.Discarded)
		if !c.Oldest.IsZero() && (w.oldest.IsZero() || c.Oldest.Before(w.oldest)) {
			w.oldest = c.Oldest
		}
	}
	for _, value := range []string{madeLabel, otherLabel} {
		if w := all[value]; w != nil {
			w.failed = m.keep(value+" failed", w.failed)
		}
	}
	return all
}
