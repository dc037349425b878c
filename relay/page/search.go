package page

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"relay/relay/admin"
)

const (
	maxSearch  = 256                    // bytes of what can be the name of anything
	searchHits = 10                     // of a group
	searchTime = 250 * time.Millisecond // for finding deliveries by what may have no index
)

// searchView is the data of the screen.
type searchView struct {
	Text   string
	Groups []hitGroup
	None   bool
	Odd    bool // too long, or with characters that no name has
	Batch  bool // the id of a batch, by which nothing can be found
	Slow   bool // a part of the search took too long
}

// hitGroup is the hits of a kind: event, delivery, job, endpoint, type, tenant, key, data or alert.
type hitGroup struct {
	Kind string
	Hits []hit
}

// hit is one thing that was found.
type hit struct {
	To    string
	Text  string
	About string // of a stranger, beside it
	State string // "" for none
}

// search goes to the only thing that an id, a type, a tenant, a key or a name is of; of several it lists all.
func (c *call) search() error {
	v := searchView{Text: strings.TrimSpace(c.r.URL.Query().Get("q"))}
	v.Odd = len(v.Text) > maxSearch || !utf8.ValidString(v.Text) || strings.ContainsFunc(v.Text, unicode.IsControl)
	v.Batch = strings.HasPrefix(v.Text, "bat_")
	if v.Text != "" && !v.Odd && !v.Batch {
		v.Groups, v.Slow = c.find(v.Text)
	}
	if len(v.Groups) == 1 && len(v.Groups[0].Hits) == 1 {
		c.redirect(v.Groups[0].Hits[0].To)
		return nil
	}
	v.None = v.Text != "" && len(v.Groups) == 0
	if len(v.Text) > maxSearch {
		v.Text = strings.ToValidUTF8(v.Text[:80], "") + "…"
	}
	c.show(http.StatusOK, "search", c.t("search.title"), v)
	return nil
}

// finder looks for one kind of thing.
type finder struct {
	kind string
	find func(c *call, text string) ([]hit, error)
}

func finders() []finder {
	return []finder{
		{"event", findEvent}, {"delivery", findDelivery}, {"job", findJob}, {"endpoint", findEndpoints}, {"type", findTypes},
		{"tenant", findBy("tenant")}, {"key", findBy("key")}, {"data", findData}, {"alert", findAlerts},
	}
}

// find asks for all kinds at the same time; a refusal means that nothing was found. slow tells whether one of them took too long.
func (c *call) find(text string) (groups []hitGroup, slow bool) {
	all := finders()
	found := make([][]hit, len(all))
	errs := make([]error, len(all))
	ctx, cancel := context.WithTimeout(c.r.Context(), searchTime)
	defer cancel()
	one := *c
	one.r = c.r.WithContext(ctx)
	var asked sync.WaitGroup
	for i, f := range all {
		if f.kind == "tenant" && !c.seesTenants() {
			continue
		}
		asked.Go(func() { found[i], errs[i] = f.find(&one, text) })
	}
	asked.Wait()
	for i, f := range all {
		slow = slow || errs[i] != nil && c.refusalOf(errs[i]).Status >= http.StatusInternalServerError
		if len(found[i]) > 0 {
			groups = append(groups, hitGroup{f.kind, found[i][:min(len(found[i]), searchHits)]})
		}
	}
	return groups, slow
}

// is tells whether a text can be an id with a prefix: it has this one, or none of Relay's.
func is(text, prefix string) bool {
	if strings.ContainsAny(text, " */") {
		return false
	}
	for _, other := range []string{"evt_", "dlv_", "job_"} {
		if other != prefix && strings.HasPrefix(text, other) {
			return false
		}
	}
	return true
}

func findEvent(c *call, text string) ([]hit, error) {
	if !is(text, "evt_") {
		return nil, nil
	}
	var e admin.EventWhole
	if err := c.get(escaped("/v1/events/%s", text), nil, &e); err != nil {
		return nil, err
	}
	return []hit{{To: escaped("/events/%s", e.ID), Text: e.ID, About: e.Type}}, nil
}

func findDelivery(c *call, text string) ([]hit, error) {
	if !strings.HasPrefix(text, "dlv_") {
		return nil, nil
	}
	var d admin.DeliveryWhole
	if err := c.get(escaped("/v1/deliveries/%s", text), nil, &d); err != nil {
		return nil, err
	}
	return []hit{{To: escaped("/deliveries/%s", d.ID), Text: d.ID, About: d.Event.Type, State: d.State}}, nil
}

func findJob(c *call, text string) ([]hit, error) {
	if !strings.HasPrefix(text, "job_") {
		return nil, nil
	}
	var j admin.Job
	if err := c.get(escaped("/v1/jobs/%s", text), nil, &j); err != nil {
		return nil, err
	}
	return []hit{{To: escaped("/jobs/%s", j.ID), Text: j.ID, State: j.State}}, nil
}

func findEndpoints(c *call, text string) ([]hit, error) {
	var list admin.EndpointList
	if err := c.get("/v1/endpoints", url.Values{"q": {text}, "limit": {"10"}}, &list); err != nil {
		return nil, err
	}
	var hits []hit
	for i := range list.Endpoints {
		e := &list.Endpoints[i]
		h := hit{To: escaped("/endpoints/%s", e.Name), Text: c.calledOf(e), About: e.Description, State: e.State}
		if h.Text != e.Name {
			h.About = e.Name
		}
		hits = append(hits, h)
	}
	return hits, nil
}

// findTypes finds the types of the file that have a text in their name, and a type or pattern of what was accepted.
func findTypes(c *call, text string) ([]hit, error) {
	to := func(pattern string) string { return "/deliveries?" + url.Values{"type": {pattern}}.Encode() }
	var hits []hit
	var list admin.TypeList
	err := c.get("/v1/types", nil, &list)
	for _, t := range list.Types {
		if strings.Contains(strings.ToLower(t.Type), strings.ToLower(text)) {
			hits = append(hits, hit{To: to(t.Type), Text: t.Type, About: t.Description})
		}
		if t.Type == text {
			return hits, nil
		}
	}
	there, errOf := c.anyDelivery("type", text)
	if there {
		hits = append(hits, hit{To: to(text), Text: text})
	}
	if errOf != nil {
		err = errOf
	}
	return hits, err
}

// findBy finds deliveries by a condition of the filter.
func findBy(name string) func(*call, string) ([]hit, error) {
	return func(c *call, text string) ([]hit, error) {
		there, err := c.anyDelivery(name, text)
		if !there {
			return nil, err
		}
		return []hit{{To: "/deliveries?" + url.Values{name: {text}}.Encode(), Text: text}}, nil
	}
}

// findData finds deliveries by what their events have at the paths of the data that the file indexes.
func findData(c *call, text string) (hits []hit, err error) {
	for _, path := range c.indexes() {
		there, errOf := c.anyDelivery(path, text)
		if errOf != nil {
			err = errOf
		}
		if there {
			hits = append(hits, hit{To: "/deliveries?" + url.Values{path: {text}}.Encode(), Text: text, About: path})
		}
	}
	return hits, err
}

// indexes are the paths of the data by which deliveries can be found; none if they cannot be read, or the session may not see the
// data: then the API refuses such a filter.
func (c *call) indexes() []string {
	if !c.may(admin.Payload) {
		return nil
	}
	var list admin.TypeList
	if err := c.get("/v1/types", nil, &list); err != nil {
		return nil
	}
	return list.Index
}

func (c *call) anyDelivery(name, value string) (bool, error) {
	var list admin.DeliveryList
	err := c.get("/v1/deliveries", url.Values{name: {value}, "limit": {"1"}, "total": {"false"}}, &list)
	return len(list.Items) > 0, err
}

func findAlerts(c *call, text string) ([]hit, error) {
	if !c.whole() {
		return nil, nil
	}
	var list admin.AlertList
	if err := c.get("/v1/alerts", nil, &list); err != nil {
		return nil, err
	}
	var hits []hit
	for _, a := range list.Alerts {
		if strings.Contains(strings.ToLower(a.Name), strings.ToLower(text)) {
			hits = append(hits, hit{To: "/alerts", Text: a.Name})
		}
	}
	return hits, nil
}
