package page

import (
	"cmp"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"relay/internal/sorting"
	"relay/relay/admin"
)

func jobRoutes() []route {
	return []route{
		{pattern: "GET /jobs", do: (*call).listJobs},
		{pattern: "GET /jobs/{id}", do: (*call).showJob},
		{pattern: "POST /jobs/{id}/cancel", do: (*call).cancelJob},
	}
}

// jobList is the data of the screen.
type jobList struct {
	Items  []jobView
	Next   string // address of the next page
	First  bool
	Active bool // one of them has not ended
}

// jobView is a job for people.
type jobView struct {
	admin.Job
	Filters []condition
	Reasons []reason // of deliveries that were skipped, the most frequent first
	Skips   int64
	Of      int64 // what the progress goes up to
	Found   string
	Over    bool
	Left    int64  // deliveries that it ended before, 0 if it is not known
	Rest    string // address that asks whether to go on with them; "" where there are none, or the session may not
}

// condition is a part of a filter.
type condition struct {
	Name   string
	Values []conditionValue
}

// conditionValue is a time, a state, or a text.
type conditionValue struct {
	Text  string
	State bool
	Time  time.Time
}

// conditions are a filter in words.
func (c *call) conditions(filter map[string][]string) (all []condition) {
	for _, name := range slices.Sorted(maps.Keys(filter)) {
		if name == "tenant" && !c.seesTenants() {
			continue
		}
		one := condition{Name: name}
		if key := "deliveries." + name; c.p.texts.has(key) {
			one.Name = c.t(key)
		}
		for _, text := range filter[name] {
			v := conditionValue{Text: text}
			switch name {
			case "endpoint":
				v.Text = c.called(text)
			case "state":
				v.State = c.p.texts.has("state." + text)
			case "since", "until", "attempted_since", "attempted_until":
				v.Time, _ = time.Parse(time.RFC3339, text) // else it is shown as it is
			case "resent", "manual":
				if key := "deliveries." + name + "." + text; c.p.texts.has(key) {
					v.Text = c.t(key)
				}
			}
			one.Values = append(one.Values, v)
		}
		all = append(all, one)
	}
	return all
}

// reason is why deliveries were skipped.
type reason struct {
	Text string
	N    int64
}

func (c *call) jobView(j admin.Job) jobView {
	v := jobView{Job: j, Of: max(1, j.Matched.N, j.Seen), Over: !j.Ended.IsZero(), Filters: c.conditions(j.Filter)}
	for code, n := range j.Skipped {
		text := code
		if key := "jobs.skip." + code; c.p.texts.has(key) {
			text = c.t(key)
		}
		v.Reasons = append(v.Reasons, reason{text, n})
		v.Skips += n
	}
	sorting.By(v.Reasons, func(a, b reason) int { return cmp.Or(cmp.Compare(b.N, a.N), cmp.Compare(a.Text, b.Text)) })
	v.Found = "/deliveries?" + url.Values(j.Filter).Encode()
	if v.Over && j.State != "done" && (j.Matched.AtLeast || j.Matched.N > j.Seen) {
		if v.Rest = c.restOf(&j); !j.Matched.AtLeast {
			v.Left = j.Matched.N - j.Seen
		}
	}
	return v
}

// restOf is the address that asks whether to do the same with what a job has left.
func (c *call) restOf(j *admin.Job) string {
	right := admin.Operate
	if j.Action == "redeliver" || j.Action == "retry" {
		right = admin.Redeliver
	}
	if !c.may(right) {
		return ""
	}
	q := maps.Clone(url.Values(j.Filter))
	q.Set("action", j.Action)
	if j.Action == "redeliver" && j.To == "" && !q.Has("resent") {
		q.Set("resent", "false") // not those that it sent
	}
	if j.To != "" {
		q.Set("to", j.To)
	}
	if j.Rate > 0 {
		q.Set("rate", strconv.FormatFloat(j.Rate, 'g', -1, 64))
	}
	return "/deliveries/bulk?" + q.Encode()
}

func (c *call) listJobs() error {
	q := url.Values{"limit": {"50"}}
	cursor := c.r.URL.Query().Get("cursor")
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	var list admin.JobList
	if err := c.get("/v1/jobs", q, &list); err != nil {
		return err
	}
	data := jobList{First: cursor == ""}
	for _, j := range list.Items {
		v := c.jobView(j)
		data.Items = append(data.Items, v)
		data.Active = data.Active || !v.Over
	}
	if list.Next != nil {
		data.Next = "/jobs?" + url.Values{"cursor": {*list.Next}}.Encode()
	}
	c.show(http.StatusOK, "jobs", c.t("layout.jobs"), data)
	return nil
}

func (c *call) showJob() error {
	var j admin.Job
	if err := c.get(escaped("/v1/jobs/%s", c.r.PathValue("id")), nil, &j); err != nil {
		return err
	}
	c.show(http.StatusOK, "job", c.t("jobs.title."+j.Action), c.jobView(j))
	return nil
}

func (c *call) cancelJob() error {
	return c.act(func() (step, error) {
		id := c.r.PathValue("id")
		if err := c.send(http.MethodPost, escaped("/v1/jobs/%s/cancel", id), nil, nil); err != nil {
			return step{}, err
		}
		return step{escaped("/jobs/%s", id), "cancel"}, nil
	})
}
