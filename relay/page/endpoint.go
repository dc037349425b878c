package page

import (
	"net/http"
	"net/url"
	"slices"
	"time"

	"relay/relay/admin"
)

// endpointView is the data of the screen of one endpoint.
type endpointView struct {
	admin.Endpoint
	Notes []stateNote // what a person has to know of its state, the most urgent first
	By    string      // who paused or disabled it, "" if that is not known

	Enable *enableView // nil where the session may not

	Month bool // the charts are of 30 days, else of 24 hours
	charts
	Unknown    []string // patterns that fit no event type of the catalogue
	HCL        string   // of one made at run time, for those who may change it
	Filter     string   // its deliveries, as a query string
	All, Retry string   // addresses of the list of them, and of the question whether to try all now
}

// stateNote says something of an endpoint's state, and what to do about it. Both are keys of texts.
type stateNote struct {
	Class string // problem or warning
	Key   string
	Help  string
	Text  string    // that the API has about it, "" for none
	At    time.Time // since when, or until when; zero for neither
}

func (c *call) showEndpoint() error {
	name := c.r.PathValue("name")
	filter := url.Values{"endpoint": {name}}.Encode()
	data := endpointView{Filter: filter, All: "/deliveries?" + filter, Retry: "/deliveries/bulk?action=retry&" + filter, Month: c.r.URL.Query().Get("range") == "30d"}
	if err := c.get(escaped("/v1/endpoints/%s", name), nil, &data.Endpoint); err != nil {
		return err
	}
	if data.Made != nil && c.whole() && c.may(admin.Endpoints) {
		var text admin.Exported
		if err := c.get(escaped("/v1/endpoints/%s/hcl", name), nil, &text); err == nil { // one that is not in force may have none
			data.HCL = text.HCL
		}
	}
	if data.Code == "operator" && c.whole() && c.may(admin.Operate) {
		data.By = c.whoChanged(&data.Endpoint)
	}
	data.Unknown = unknownTypes(data.Events, c.catalogueTypes())
	data.Notes, data.Enable = stateNotes(&data.Endpoint), c.enableOf(&data.Endpoint, "")
	if data.Enable != nil && !c.whole() {
		c.ownHelp(data.Notes)
	}
	if err := c.endpointCharts(&data); err != nil {
		return err
	}
	c.show(http.StatusOK, "endpoint", c.calledOf(&data.Endpoint), data)
	return nil
}

// whoChanged finds in the audit who paused or disabled an endpoint.
func (c *call) whoChanged(e *admin.Endpoint) string {
	verb := map[string]string{"paused": "pause", "disabled": "disable"}[e.State]
	var list admin.AuditList
	ask := url.Values{"verb": {verb}, "what": {"endpoint " + e.Name}, "limit": {"20"}}
	if !e.Since.IsZero() {
		ask.Set("since", e.Since.Add(-time.Minute).UTC().Format(time.RFC3339))
	}
	if verb == "" || c.get("/v1/audit", ask, &list) != nil {
		return ""
	}
	for _, entry := range list.Items {
		if entry.Verb == verb && entry.What == "endpoint "+e.Name {
			return entry.Who
		}
	}
	return ""
}

// stateNotes are what there is to say of an endpoint's state.
func stateNotes(e *admin.Endpoint) (all []stateNote) {
	add := func(class, key string, at time.Time, text string) {
		key = "endpoint.note." + key
		all = append(all, stateNote{class, key, key + ".help", text, at})
	}
	switch e.State {
	case "invalid":
		add("problem", "invalid", time.Time{}, e.Reason)
	case "removed", "elsewhere":
		add("warning", e.State, time.Time{}, "")
	case "paused":
		add("warning", "paused", e.Since, "")
	case "disabled":
		switch {
		case slices.Contains([]string{"gone", "failing", "operator"}, e.Code):
			add("problem", e.Code, e.Since, "")
		case e.Made != nil:
			add("warning", "off.made", time.Time{}, "")
		default:
			add("warning", "off.file", time.Time{}, "")
		}
		if e.Paused {
			add("warning", "paused.too", time.Time{}, "")
		}
	}
	if e.State == "active" {
		if f := e.Failing; f != nil {
			add("problem", "fails", f.Since, f.Code)
		}
		switch {
		case e.Code == "consent":
			add("problem", "consent", time.Time{}, e.Reason)
		case e.Waiting == "breaker":
			add("warning", "breaker", e.OpenUntil, "")
		case e.Waiting == "retry_after":
			add("warning", "retry_after", e.HeldUntil, "")
		case e.Waiting == "limit", e.Waiting == "slots":
			add("warning", e.Waiting, time.Time{}, "")
		}
	}
	if e.Agrees != nil && !*e.Agrees {
		add("problem", "differs", time.Time{}, "")
	}
	return all
}

// Method offers methods to templates.
func (v endpointView) Method(name string) any {
	switch name {
	case "Here":
		return v.Here
	case "CanResume":
		return v.CanResume
	case "Backlog":
		return v.Backlog
	case "Oldest":
		return v.Oldest
	}
	return nil
}

// Here tells whether this Relay can send to the endpoint.
func (v endpointView) Here() bool {
	return v.State == "active" || v.State == "paused" || v.State == "disabled"
}

// CanResume tells whether resume would end something: a pause, an open breaker, or a time that the receiver asked for.
func (v endpointView) CanResume() bool {
	return v.State == "paused" || v.Paused || v.Waiting == "breaker" || v.Waiting == "retry_after"
}

// Backlog is how many deliveries are not over.
func (v endpointView) Backlog() int64 { return v.Deliveries.Pending + v.Deliveries.Held }

// Oldest is the age of the oldest of them, in milliseconds.
func (v endpointView) Oldest() float64 { return endpointRow{Endpoint: v.Endpoint}.Oldest() }

// changeEndpoint pauses, resumes, enables or disables.
func (c *call) changeEndpoint() error {
	return c.act(func() (step, error) {
		name, action := c.r.PathValue("name"), c.r.PathValue("action")
		if !slices.Contains([]string{"pause", "resume", "enable", "disable"}, action) {
			return step{}, c.lost()
		}
		if err := c.send(http.MethodPost, escaped("/v1/endpoints/%s/%s", name, action), nil, nil); err != nil {
			return step{}, err
		}
		return step{escaped("/endpoints/%s", name), action}, nil
	})
}
