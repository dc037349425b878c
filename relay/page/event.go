package page

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"relay/relay/admin"
)

// eventRoutes are the screens of events.
func eventRoutes() []route {
	return []route{
		{pattern: "GET /events/{id}", do: (*call).showEvent},
		{pattern: "GET /events/{id}/data", do: (*call).eventData},
		{pattern: "GET /events/{id}/erase", do: (*call).askErase},
		{pattern: "POST /events/{id}/erase", do: (*call).erase},
	}
}

// eventView is the data of the screen of one event.
type eventView struct {
	admin.EventWhole
	Payload *bodyView // nil if it is hidden or erased
	Live    bool      // a delivery is not over
	Unseen  bool      // it has deliveries, none of which the session sees
	Count   int64     // of deliveries that are shown
	TraceID string    // "" if there is none
	Fields  []indexedField
}

// indexedField is a field of the data by which deliveries can be found.
type indexedField struct {
	Path, Value string
	Link        string // to all deliveries of events with the same value
}

// traceID is the id of the trace (W3C Trace Context, section 3.2), by which a tracing system finds it; "" if there is none.
func traceID(trace string) string {
	if parts := strings.SplitN(trace, "-", 4); len(parts) == 4 {
		return parts[1]
	}
	return ""
}

func (c *call) event() (*eventView, error) {
	e := new(eventView)
	if err := c.get(escaped("/v1/events/%s", c.r.PathValue("id")), nil, &e.EventWhole); err != nil {
		return nil, err
	}
	if !e.LeftOut && e.Erased.IsZero() {
		e.Payload = newBody("payload", e.Data)
		e.Payload.Link = escaped("/events/%s/data", e.ID)
	}
	e.Live = slices.ContainsFunc(e.Deliveries, func(d admin.Delivery) bool { return isOpen(&d) })
	e.Unseen = len(e.Deliveries) == 0 && !e.Unwanted
	e.Count, e.TraceID = int64(len(e.Deliveries)), traceID(e.Trace)
	for _, path := range slices.Sorted(maps.Keys(e.Indexed)) {
		value := e.Indexed[path]
		e.Fields = append(e.Fields, indexedField{path, value, "/deliveries?" + url.Values{path: {value}}.Encode()})
	}
	return e, nil
}

func (c *call) showEvent() error {
	e, err := c.event()
	if err != nil {
		return err
	}
	c.show(http.StatusOK, "event", c.t("event.title", e.Type), e)
	return nil
}

// askErase asks before the data of an event is erased.
func (c *call) askErase() error {
	if err := c.need(admin.Operate); err != nil {
		return err
	}
	e, err := c.event()
	if err != nil {
		return err
	}
	c.show(http.StatusOK, "erase", c.t("erase.title"), e)
	return nil
}

func (c *call) erase() error {
	return c.act(func() (step, error) {
		id := c.r.PathValue("id")
		q := url.Values{}
		if c.r.PostForm.Get("force") != "" {
			q.Set("force", "true")
		}
		if err := c.ask(http.MethodDelete, escaped("/v1/events/%s/data", id), q, nil, nil); err != nil {
			return step{}, err
		}
		return step{escaped("/events/%s", id), "erase"}, nil
	})
}
