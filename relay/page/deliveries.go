package page

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"relay/relay/admin"
	"relay/relay/query"
)

// deliveryRoutes are the screens of deliveries.
func deliveryRoutes() []route {
	return []route{
		{pattern: "GET /deliveries", do: (*call).listDeliveries},
		{pattern: "GET /deliveries/bulk", do: (*call).askBulk},
		{pattern: "GET /deliveries.csv", do: (*call).export},
		{pattern: "GET /deliveries.ndjson", do: (*call).export},
		{pattern: "POST /deliveries/bulk", do: (*call).bulk},
		{pattern: "GET /deliveries/{id}", do: (*call).showDelivery},
		{pattern: "GET /deliveries/{id}/discard", do: (*call).askDiscard},
		{pattern: "POST /deliveries/{id}/{action}", do: (*call).changeDelivery},
	}
}

// deliveryList is the data of the screen.
type deliveryList struct {
	admin.DeliveryList
	Filter  filterForm
	Problem *refusal // of the filter
	Top     bool     // live rows belong on top of it
	First   bool     // the first page, newest first
	Live    string   // the filter as a query string
	Next    string   // address of the next page
	Wider   string   // a pattern that may find what a bare word of a type does not, "" for none
}

// filterForm is what the form of the filter shows.
type filterForm struct {
	url.Values
	States    []string // that can be chosen
	Endpoints []string // that there are, up to a bound
	Paths     []string // of the data by which deliveries can be found
	More      bool     // a condition is set that the form hides at first
	Some      bool     // any condition is set
	Kept      []keptCondition
}

// keptCondition is a condition beside those in fields: a further value of one that has a field, or one that has none. Its box
// takes it away.
type keptCondition struct{ Name, Value string }

// shownConditions are those with a field of their own, for one value.
func shownConditions() []string {
	return []string{"state", "endpoint", "type", "status", "since", "tenant", "event", "key", "code", "attempts", "manual", "resent", "until", "attempted_since", "order"}
}

// listQuery is the filter of an address: empty fields of a form are no conditions.
func listQuery(given url.Values) url.Values {
	q := url.Values{}
	for name, values := range given {
		values = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return strings.TrimSpace(v) == "" })
		if len(values) > 0 {
			q[name] = values
		}
	}
	return q
}

func (c *call) filterForm(q url.Values) filterForm {
	f := filterForm{Values: q, States: []string{"pending", "held", "delivered", "failed", "discarded"}}
	var list admin.EndpointList
	if err := c.get("/v1/endpoints", url.Values{"limit": {"200"}}, &list); err == nil {
		for _, e := range list.Endpoints {
			f.Endpoints = append(f.Endpoints, e.Name)
		}
	}
	f.Paths = c.indexes()
	for _, name := range slices.Sorted(maps.Keys(q)) {
		others := q[name]
		ofData := slices.Contains(f.Paths, name)
		switch {
		case name == "state" && !slices.Contains(f.States, others[0]): // another name of one, or none
		case ofData, slices.Contains(shownConditions(), name):
			others = others[1:]
		}
		for _, value := range others {
			if name != "cursor" && name != "offset" && name != "limit" {
				f.Kept = append(f.Kept, keptCondition{name, value})
			}
		}
		f.More = f.More || ofData || slices.Contains(shownConditions()[5:], name)
		f.Some = f.Some || name != "order" && name != "cursor" && name != "limit"
	}
	return f
}

func (c *call) listDeliveries() error {
	q := listQuery(c.r.URL.Query())
	data := deliveryList{Filter: c.filterForm(q)}
	ask := maps.Clone(q)
	if !ask.Has("limit") {
		ask.Set("limit", "50")
	}
	status := http.StatusOK
	if err := c.get("/v1/deliveries", ask, &data.DeliveryList); err != nil {
		data.Problem = c.refusalOf(err)
		if status = data.Problem.Status; status >= http.StatusInternalServerError {
			return err
		}
	}
	data.First = !q.Has("cursor") && !q.Has("offset") && q.Get("order") != "oldest"
	data.Top = data.First && q.Get("resent") != "true" // what has just ended was not sent again
	data.Live = q.Encode()
	if word := q.Get("type"); len(data.Items) == 0 && word != "" && !strings.ContainsAny(word, ".*,") {
		data.Wider = word + ".*"
	}
	if data.DeliveryList.Next != nil {
		next := maps.Clone(q)
		next.Set("cursor", *data.DeliveryList.Next)
		data.Next = "/deliveries?" + next.Encode()
	}
	c.show(status, "deliveries", c.t("layout.deliveries"), data)
	return nil
}

// Method offers Bulk, Export and Actions to templates.
func (d deliveryList) Method(name string) any {
	switch name {
	case "Bulk":
		return d.Bulk
	case "Export":
		return d.Export
	case "Actions":
		return d.Actions
	}
	return nil
}

// Bulk is the address of the question whether to do an action with all that match.
func (d deliveryList) Bulk(action string) string {
	q := maps.Clone(d.Filter.Values)
	for _, name := range []string{"cursor", "offset", "limit", "order", "total"} {
		q.Del(name)
	}
	q.Set("action", action)
	return "/deliveries/bulk?" + q.Encode()
}

// Export is the address of a file with all that match.
func (d deliveryList) Export(format string) string {
	q := maps.Clone(d.Filter.Values)
	for _, name := range []string{"cursor", "offset", "limit", "total"} {
		q.Del(name)
	}
	return "/deliveries." + format + "?" + q.Encode()
}

// Actions are what can be done with deliveries of the states that are asked for: what has ended is sent again, what
// has not is tried now or discarded.
func (d deliveryList) Actions() []string {
	states := d.Filter.Values["state"]
	open := func(state string) bool { return state == "pending" || state == "held" }
	over := func(state string) bool { return !open(state) }
	var actions []string
	if !slices.ContainsFunc(states, open) {
		actions = append(actions, "redeliver")
	}
	if !slices.ContainsFunc(states, over) {
		actions = append(actions, "retry", "discard")
	}
	return append(actions, "erase")
}

// bulkRoutes are the routes of the API, by action.
func bulkRoutes() map[string]string {
	return map[string]string{"retry": "/v1/retries", "redeliver": "/v1/redeliveries", "discard": "/v1/discards", "erase": "/v1/erasures"}
}

// bulkQuestion is the data of the screen that asks before something is done with many deliveries.
type bulkQuestion struct {
	Action   string
	Filter   url.Values // as it is meant: with times for durations
	Given    url.Values
	Filters  []condition // Filter for people
	Matched  admin.Total
	Resent   admin.Total // of those, of a redelivery
	Problem  *refusal
	Back     string
	CanForce bool

	Refused  *refusal // what was wrong with the answer to the question, which is asked again
	Rate, To string   // as they were typed
}

func (c *call) askBulk() error {
	q := listQuery(c.r.URL.Query())
	return c.showBulk(bulkQuestion{Action: q.Get("action"), Rate: q.Get("rate"), To: q.Get("to")}, onlyFilter(q))
}

// showBulk asks whether to do something with all deliveries of a filter.
func (c *call) showBulk(data bulkQuestion, q url.Values) error {
	q.Del("action")
	data.Given = q
	data.Back = "/deliveries?" + q.Encode()
	if len(q) > 0 && !q.Has("until") {
		q.Set("until", c.p.Now().UTC().Format(time.RFC3339Nano)) // what is counted is what is meant
	}
	path := bulkRoutes()[data.Action]
	if path == "" {
		return c.lost()
	}
	data.CanForce = data.Action == "erase"
	var out admin.BulkAnswer
	body := bulkBody(q)
	body["dry_run"] = true
	status := http.StatusOK
	if data.Refused != nil {
		status = data.Refused.Status
	}
	if err := c.send(http.MethodPost, path, body, &out); err != nil {
		data.Problem = c.refusalOf(err)
		status = data.Problem.Status
	}
	data.Matched, data.Filter, data.Filters = out.Matched, out.Filter, c.conditions(out.Filter)
	if out.Resent != nil {
		data.Resent = *out.Resent
	}
	c.show(status, "bulk", c.t("bulk.title."+data.Action), data)
	return nil
}

// bulkBody is a filter as the body of a route that acts on many deliveries.
func bulkBody(q url.Values) map[string]any {
	body := map[string]any{}
	for name, values := range q {
		if many(name) {
			body[name] = values
			continue
		}
		body[name] = values[len(values)-1]
	}
	return body
}

func many(name string) bool {
	return slices.ContainsFunc(query.Params(), func(p query.Param) bool { return p.Name == name && p.Many })
}

func (c *call) bulk() error {
	err := c.act(func() (step, error) {
		q := listQuery(c.r.PostForm)
		path := bulkRoutes()[q.Get("action")]
		if path == "" {
			return step{}, c.lost()
		}
		body := bulkBody(onlyFilter(q))
		if to := strings.TrimSpace(q.Get("to")); to != "" {
			body["to"] = to
		}
		if rate := strings.TrimSpace(q.Get("rate")); rate != "" {
			body["rate"] = rate // which the API refuses, and says what may be written
			if _, err := strconv.ParseFloat(rate, 64); err == nil && json.Valid([]byte(rate)) {
				body["rate"] = json.RawMessage(rate)
			}
		}
		if q.Get("force") != "" {
			body["force"] = true
		}
		var out admin.BulkAnswer
		if err := c.send(http.MethodPost, path, body, &out); err != nil {
			return step{}, err
		}
		return step{escaped("/jobs/%s", out.ID), "job"}, nil
	})
	r, refused := errors.AsType[*refusal](err)
	if !refused || r.Field != "rate" && r.Field != "to" {
		return err
	}
	q := c.r.PostForm
	return c.showBulk(bulkQuestion{Action: q.Get("action"), Refused: r, Rate: q.Get("rate"), To: q.Get("to")}, onlyFilter(listQuery(q)))
}

// onlyFilter is the filter in a form, without its other fields.
func onlyFilter(form url.Values) url.Values {
	q := maps.Clone(form)
	for _, of := range []string{"action", "once", "to", "rate", "force"} {
		q.Del(of)
	}
	return q
}
