package page

import (
	"html/template"
	"net/http"
	"net/url"
	"sync"
	"time"

	"relay/relay/admin"
	"relay/relay/page/chart"
	"relay/relay/page/show"
)

const (
	overviewEndpoints = 20 // in its table
	overviewFailures  = 5
	overviewNeeds     = 12 // lines of what needs a person
)

// span is a time that the overview tells of.
type span struct {
	Name string // in addresses, and of the API
	back time.Duration
	step string // of its charts
}

func spans() []span {
	return []span{{"24h", 24 * time.Hour, "hour"}, {"7d", 7 * 24 * time.Hour, "day"}, {"30d", 30 * 24 * time.Hour, "day"}}
}

// spanOf is the one that an address asks for, the first one by default.
func spanOf(q url.Values) span {
	for _, s := range spans() {
		if s.Name == q.Get("span") {
			return s
		}
	}
	return spans()[0]
}

// overviewView is the data of the screen.
type overviewView struct {
	Span  span
	Spans []span

	Needs     []need
	MoreNeeds int64
	Calm      bool
	Watch     string // signature of the needs

	Stats    admin.StatRow
	Summary  admin.EndpointSummary
	Backlog  int64
	OldestMS float64
	Spooled  *admin.Spool
	charts

	Rows  []overviewRow
	Total int64

	Failures []admin.Delivery
	Missing  bool // a part could not be read
}

// overviewRow is an endpoint with how it did.
type overviewRow struct {
	admin.Endpoint
	Spark    template.HTML // success
	Slow     template.HTML // p95 of attempts
	Backlog  int64
	OldestMS float64
	WhyKey   string // of the text that says why it rests
}

// overview is the first screen: what needs a person, then how well it goes.
func (c *call) overview() error {
	s := spanOf(c.r.URL.Query())
	return c.shared(func(c *call) error {
		data, err := c.overviewData(s)
		if err != nil {
			return err
		}
		c.show(http.StatusOK, "overview", c.t("layout.overview"), data)
		return nil
	})
}

// overviewAnswers are the answers of the API that the overview is made of.
type overviewAnswers struct {
	endpoints admin.EndpointList
	stats     admin.Statistics
	ready     admin.Status
	alerts    admin.AlertList
	failed    admin.DeliveryList
}

// ask asks the API for all parts at the same time. Only the first two must be there.
func (a *overviewAnswers) ask(c *call, s span) (missing bool, err error) {
	questions := []func() error{
		func() error {
			return c.get("/v1/endpoints", url.Values{"sort": {"attention"}, "limit": {"20"}, "stats": {s.Name}}, &a.endpoints)
		},
		func() error {
			return c.get("/v1/stats", url.Values{"since": {s.Name}, "step": {s.step}, "backlog": {"false"}}, &a.stats)
		},
		func() error {
			return c.get("/v1/deliveries", url.Values{"state": {"failed"}, "limit": {"5"}, "total": {"false"}}, &a.failed)
		},
	}
	if c.whole() {
		questions = append(questions,
			func() (err error) { a.ready, err = c.ready(); return err },
			func() error { return c.get("/v1/alerts", nil, &a.alerts) })
	}
	errs := make([]error, len(questions))
	var all sync.WaitGroup
	for i, ask := range questions {
		all.Go(func() { errs[i] = ask() })
	}
	all.Wait()
	for i, e := range errs {
		switch {
		case e == nil:
		case i < 2:
			return false, e
		default:
			missing = true
		}
	}
	return missing, nil
}

func (c *call) overviewData(s span) (*overviewView, error) {
	var a overviewAnswers
	missing, err := a.ask(c, s)
	if err != nil {
		return nil, err
	}
	v := &overviewView{Span: s, Spans: spans(), Stats: a.stats.Total, Failures: a.failed.Items, Total: int64(a.endpoints.Total), Missing: missing}
	if sum := a.endpoints.Summary; sum != nil {
		v.Summary, v.Backlog = *sum, sum.Pending+sum.Held
		if sum.OldestMS != nil {
			v.OldestMS = float64(*sum.OldestMS)
		}
	}
	if o := a.ready.Outbox; o != nil && o.Spool != nil && (o.Spool.Used || o.Spool.Waiting > 0) {
		v.Spooled = o.Spool
	}
	c.overviewNeeds(v, &a)
	v.Watch = v.signature()
	c.overviewRows(v, a.endpoints.Endpoints)
	v.charts = c.drawn(&a.stats, s.step == "day", func(id string) (title, about string) {
		return c.t("overview.chart." + id), c.t("overview.chart." + id + ".about")
	})
	return v, nil
}

// overviewRows are the endpoints, with a tiny chart each.
func (c *call) overviewRows(v *overviewView, all []admin.Endpoint) {
	lang := show.Lang(c.lang)
	for i := range all {
		e := &all[i]
		row := overviewRow{Endpoint: *e, Backlog: e.Deliveries.Pending + e.Deliveries.Held, WhyKey: whyKey(e)}
		if e.Deliveries.OldestMS != nil {
			row.OldestMS = float64(*e.Deliveries.OldestMS)
		}
		row.Spark = chart.Spark(chart.SparkSuccess, c.t("overview.spark", c.calledOf(e)), stepsOfEndpoint(e.Stats, v.Span, successOf), lang.Percent)
		if e.Stats != nil && e.Stats.P95MS != nil {
			row.Slow = chart.Spark(chart.SparkLatency, c.t("overview.spark.p95", c.calledOf(e)), stepsOfEndpoint(e.Stats, v.Span, p95Of), lang.Duration)
		}
		v.Rows = append(v.Rows, row)
	}
}

// stepsOfEndpoint are values of an endpoint by step, with gaps where there are none.
func stepsOfEndpoint(s *admin.EndpointStats, asked span, of func(*admin.StatRow) *float64) []float64 {
	if s == nil {
		return nil
	}
	step := time.Hour
	if asked.step == "day" {
		step = 24 * time.Hour
	}
	var values []float64
	for at := s.Since; !at.After(s.Since.Add(asked.back)); at = at.Add(step) {
		value := chart.Gap()
		for i := range s.Steps {
			if r := &s.Steps[i]; r.Start.Equal(at) && of(r) != nil {
				value = *of(r)
			}
		}
		values = append(values, value)
	}
	return values
}

func successOf(r *admin.StatRow) *float64 { return r.SuccessRate }

// p95Of is what 95 % of the attempts took at most, nil without any.
func p95Of(r *admin.StatRow) *float64 {
	if r.TookMS == nil {
		return nil
	}
	return &r.TookMS.P95
}
