package page

import (
	"html/template"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"relay/relay/admin"
	"relay/relay/page/chart"
	"relay/relay/page/show"
)

// endpointRoutes are the screens of endpoints.
func endpointRoutes() []route {
	return []route{
		{pattern: "GET /endpoints", do: (*call).listEndpoints},
		{pattern: "GET /endpoints/{name}", do: (*call).showEndpoint},
		{pattern: "POST /endpoints/{name}/{action}", do: (*call).changeEndpoint},
		{pattern: "GET /endpoints/{name}/test", do: (*call).askTest},
		{pattern: "POST /endpoints/{name}/test", do: (*call).test},
		{pattern: "GET /endpoints/new", do: (*call).newEndpoint},
		{pattern: "POST /endpoints", do: (*call).makeEndpoint},
		{pattern: "GET /endpoints/{name}/edit", do: (*call).editEndpoint},
		{pattern: "POST /endpoints/{name}/edit", do: (*call).saveEndpoint},
		{pattern: "GET /endpoints/{name}/delete", do: (*call).askDelete},
		{pattern: "POST /endpoints/{name}/delete", do: (*call).deleteEndpoint},
		{pattern: "GET /endpoints/{name}/secret", do: (*call).showSecret},
		{pattern: "POST /endpoints/{name}/secret/rotate", do: (*call).rotateSecret},
	}
}

// endpointsPage is how many endpoints a page has.
const endpointsPage = 50

// endpointList is the data of the screen.
type endpointList struct {
	Rows    []endpointRow
	Tenants bool // some of them are for some tenants alone
	Total   int64
	Asked   url.Values
	Some    bool     // any condition is set
	More    bool     // one that the form hides at first
	Problem *refusal // of the filter
	NewOff  bool     // the file allows no endpoints at run time
	From    int64    // the number of the first one that is shown
	To      int64
	Earlier string // offsets of the pages beside this one, "" for none
	Later   string
}

// endpointRow is an endpoint with how it did in the last day.
type endpointRow struct {
	admin.Endpoint
	Day   *admin.StatRow // nil if nothing ended and nothing was tried
	Spark template.HTML  // success
	Slow  template.HTML  // p95 of attempts
	Told  bool           // for which tenants it is
}

// Method offers methods to templates.
func (r endpointRow) Method(name string) any {
	switch name {
	case "Backlog":
		return r.Backlog
	case "Oldest":
		return r.Oldest
	case "Why":
		return r.Why
	}
	return nil
}

// Backlog is how many deliveries are not over.
func (r endpointRow) Backlog() int64 { return r.Deliveries.Pending + r.Deliveries.Held }

// Oldest is the age of the oldest of them, in milliseconds.
func (r endpointRow) Oldest() float64 {
	if r.Deliveries.OldestMS == nil {
		return 0
	}
	return float64(*r.Deliveries.OldestMS)
}

// Why is the key of the text that says in short why an endpoint rests, "" for none.
func (r endpointRow) Why() string { return whyKey(&r.Endpoint) }

// whyKey is the key of the text for the state of an endpoint, in short.
func whyKey(e *admin.Endpoint) string {
	if e.Agrees != nil && !*e.Agrees {
		return "endpoint.why.differs"
	}
	switch e.Waiting {
	case "breaker", "retry_after", "consent", "limit", "slots":
		return "endpoint.why." + e.Waiting
	}
	switch e.Code {
	case "gone", "failing":
		return "endpoint.why." + e.Code
	}
	if e.State == "active" && e.Failing != nil {
		return "endpoint.why.fails"
	}
	return ""
}

func (c *call) listEndpoints() error {
	q := listQuery(c.r.URL.Query())
	ask := maps.Clone(q)
	for _, given := range ask["label"] { // the form has one field for name and value
		if name, value, ok := strings.Cut(given, "="); ok {
			ask.Set("label."+strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	for _, of := range []string{"label", "cursor"} {
		ask.Del(of)
	}
	ask.Set("limit", strconv.Itoa(endpointsPage))
	data := endpointList{Asked: q}
	for name := range q {
		data.Some = data.Some || name != "offset" && name != "sort"
		data.More = data.More || name == "tenant" || name == "label" || name == "made"
	}
	var list admin.EndpointList
	if err := c.get("/v1/endpoints", ask, &list); err != nil {
		if data.Problem = c.refusalOf(err); data.Problem.Status >= http.StatusInternalServerError {
			return err
		}
		c.show(data.Problem.Status, "endpoints", c.t("endpoints.title"), data)
		return nil
	}
	data.Total = int64(list.Total)
	data.NewOff = list.Runtime != nil && !list.Runtime.Enabled
	data.pages(q.Get("offset"), len(list.Endpoints))
	var err error
	if data.Rows, err = c.endpointRows(list.Endpoints); err != nil {
		return err
	}
	data.Tenants = c.seesTenants() && slices.ContainsFunc(data.Rows, func(r endpointRow) bool { return len(r.Endpoint.Tenants) > 0 })
	for i := range data.Rows {
		data.Rows[i].Told = data.Tenants
	}
	c.show(http.StatusOK, "endpoints", c.t("endpoints.title"), data)
	return nil
}

// pages sets what tells of the pages beside the one that begins at an offset and has some endpoints.
func (l *endpointList) pages(offset string, shown int) {
	at, _ := strconv.Atoi(offset) // the API refused one that is no number
	if l.From, l.To = int64(at+1), int64(at+shown); shown == 0 {
		l.From = 0
	}
	if at > 0 {
		l.Earlier = strconv.Itoa(max(0, at-endpointsPage))
	}
	if int64(at+shown) < l.Total {
		l.Later = strconv.Itoa(at + shown)
	}
}

// endpointRows adds to endpoints how they did in the last day.
func (c *call) endpointRows(all []admin.Endpoint) ([]endpointRow, error) {
	rows := make([]endpointRow, len(all))
	if len(all) == 0 {
		return rows, nil
	}
	var names []string
	for i := range all {
		rows[i].Endpoint = all[i]
		names = append(names, all[i].Name)
	}
	var hours, whole admin.Statistics
	if err := c.get("/v1/stats", url.Values{"by": {"endpoint"}, "step": {"hour"}, "endpoint": names, "backlog": {"false"}}, &hours); err != nil {
		return nil, err
	}
	if err := c.get("/v1/stats", url.Values{"by": {"endpoint"}, "since": {hours.Since.Format(time.RFC3339)}, "endpoint": names, "backlog": {"false"}}, &whole); err != nil {
		return nil, err
	}
	byName := map[string]*admin.StatRow{}
	for i := range whole.Rows {
		if r := &whole.Rows[i]; r.Endpoint != nil && (r.Ended > 0 || r.Attempts > 0) {
			byName[*r.Endpoint] = r
		}
	}
	success, slow := byHour(&hours, successOf), byHour(&hours, p95Of)
	lang := show.Lang(c.lang)
	for i := range rows {
		name := rows[i].Name
		rows[i].Day = byName[name]
		rows[i].Spark = chart.Spark(chart.SparkSuccess, c.t("endpoints.spark", c.calledOf(&rows[i].Endpoint)), success(name), lang.Percent)
		if d := rows[i].Day; d != nil && d.TookMS != nil {
			rows[i].Slow = chart.Spark(chart.SparkLatency, c.t("overview.spark.p95", c.calledOf(&rows[i].Endpoint)), slow(name), lang.Duration)
		}
	}
	return rows, nil
}

// byHour returns values of an endpoint by hour; hours without one are gaps.
func byHour(s *admin.Statistics, of func(*admin.StatRow) *float64) func(name string) []float64 {
	steps := int(math.Ceil(s.Until.Sub(s.Since).Hours()))
	values := map[string][]float64{}
	for i := range s.Rows {
		r := &s.Rows[i]
		at := int(r.Start.Sub(s.Since) / time.Hour)
		if r.Endpoint == nil || of(r) == nil || at < 0 || at >= steps {
			continue
		}
		if values[*r.Endpoint] == nil {
			values[*r.Endpoint] = slices.Repeat([]float64{chart.Gap()}, steps)
		}
		values[*r.Endpoint][at] = *of(r)
	}
	return func(name string) []float64 { return values[name] }
}

// Method offers methods to templates.
func (l endpointList) Method(name string) any {
	switch name {
	case "Field":
		return l.Field
	case "Sorts":
		return l.Sorts
	case "States":
		return l.States
	}
	return nil
}

// Field is a condition of the filter.
func (l endpointList) Field(name string) string { return l.Asked.Get(name) }

// Sorts are the orders that can be asked for.
func (l endpointList) Sorts() []string {
	return []string{"", "name", "state", "pending", "failed", "created"}
}

// States are the states that can be asked for.
func (l endpointList) States() []string {
	return []string{"active", "paused", "disabled", "invalid", "removed", "elsewhere"}
}
