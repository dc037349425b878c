package page

import (
	"html/template"
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

// deliveryView is the data of the screen of one delivery.
type deliveryView struct {
	admin.DeliveryWhole
	Verdict  verdict
	Picture  template.HTML // attempts as a waterfall
	Attempts []attemptView // newest first
	Payload  *bodyView     // nil if it is hidden or erased
	Sent     *bodyView     // body of the last attempt's request, made again; nil if there is none
	Differs  bool          // Sent was made by a configuration that may have other settings of the endpoint than the attempt's
	Masked   bool          // some headers of the request are not shown
	Curl     string        // repeats the request without secrets; "" if its body is not known
	To       []string      // endpoints to which it can be sent again

	Open     bool            // it is not over
	Enable   *enableView     // of its endpoint, where it is held and the session may; else nil
	Again    *admin.Delivery // the newest one that repeats it; nil if there is none, or it cannot be read
	Due      bool            // it is pending, and its time has come
	Last     *attemptView    // the last attempt; nil if there was none
	LastBody *bodyView       // of its answer; nil if there is none
	Below    bool            // the request and the answer of the last attempt are shown below the attempts
	Count    int64           // of attempts that are shown
	Emphasis string          // class of the button that sends it again: nothing calls for it where it arrived
}

func isOpen(d *admin.Delivery) bool { return d.State == "pending" || d.State == "held" }

// attemptView is an attempt as it is shown.
type attemptView struct {
	admin.Attempt
	Class  string // of its state
	Word   string // how it ended
	Phases []phase
	Body   *bodyView // of the answer; nil if there is none or it is hidden
}

// phase is a part of an attempt's time.
type phase struct {
	Name string
	MS   float64
}

// delivery reads a delivery, and what is to be said of it.
func (c *call) delivery() (*deliveryView, error) {
	d := new(deliveryView)
	if err := c.get(escaped("/v1/deliveries/%s", c.r.PathValue("id")), nil, &d.DeliveryWhole); err != nil {
		return nil, err
	}
	d.Verdict, d.Open, d.Emphasis = c.judge(&d.DeliveryWhole), isOpen(&d.Delivery), "primary"
	d.Due = d.State == "pending" && c.due(d.NextAttempt)
	if n := len(d.RedeliveredAs); n > 0 {
		again := new(admin.DeliveryWhole)
		if c.get(escaped("/v1/deliveries/%s", d.RedeliveredAs[n-1]), nil, again) == nil {
			d.Again = &again.Delivery
		}
	}
	if d.State == "delivered" || d.Again != nil && (isOpen(d.Again) || d.Again.State == "delivered") {
		d.Emphasis = "plain"
	}
	if e := d.Verdict.Endpoint; d.State == "held" && e != nil {
		d.Enable = c.enableOf(e, "primary")
	}
	return d, nil
}

func (c *call) showDelivery() error {
	d, err := c.delivery()
	if err != nil {
		return err
	}
	for i := range d.History {
		d.Attempts = append(d.Attempts, c.attempt(&d.History[i], d.LeftOut))
	}
	d.Picture = c.waterfall(d.History)
	slices.Reverse(d.Attempts)
	d.Count = int64(len(d.Attempts))
	if d.Count > 0 {
		d.Last = &d.Attempts[0]
		d.LastBody = d.Last.Body.as("answer")
	}
	if !d.LeftOut && d.Erased.IsZero() {
		d.Payload = newBody("payload", d.DeliveryWhole.Payload)
		d.Payload.Link = escaped("/events/%s/data", d.Event.ID)
	}
	if r := d.Request; r != nil {
		d.Below = true
		d.Masked = slices.ContainsFunc(r.Headers, func(h admin.Header) bool { return strings.Contains(h.Value, "***") })
	}
	if r := d.Request; r != nil && r.Body != nil {
		d.Sent = newBody("sent", []byte(r.Body.Text))
		d.Differs = c.mayDiffer(&d.History[len(d.History)-1], d.Endpoint, r.Body)
		d.Curl = curl(r)
	}
	if !d.Open && d.Erased.IsZero() && c.may(admin.Redeliver) {
		d.To = slices.DeleteFunc(c.endpointNames(), func(name string) bool { return name == d.Endpoint })
	}
	c.show(http.StatusOK, "delivery", c.t("delivery.title", d.Event.Type, c.called(d.Endpoint)), d)
	return nil
}

// mayDiffer tells whether the settings of an endpoint may have changed between an attempt and the configuration that
// made its body again. Of reloads only the last one that changed something is known, and only to a session of the whole.
func (c *call) mayDiffer(a *admin.Attempt, endpoint string, made *admin.RebuiltBody) bool {
	if !made.MayDiffer || !c.whole() {
		return made.MayDiffer
	}
	var running admin.Running
	if c.get("/v1/config", nil, &running) != nil {
		return true
	}
	last := running.LastChange
	if last == nil || last.Generation != a.Generation+1 || last.At.Before(a.Started) {
		return true
	}
	return slices.Contains(slices.Concat(last.Changed, last.Added, last.Removed), endpoint)
}

// attempt is an attempt as it is shown; hidden without the right to see bodies.
func (c *call) attempt(a *admin.Attempt, hidden bool) attemptView {
	v := attemptView{Attempt: *a, Class: "bad"}
	word := a.Outcome
	switch {
	case word == "delivered":
		v.Class = "ok"
	case word == "retry" && a.NextAttempt.IsZero():
		word = "last"
	}
	v.Word = c.t("attempt." + word)
	for _, p := range []phase{{"dns", a.Timings.DNS}, {"connect", a.Timings.Connect}, {"tls", a.Timings.TLS}, {"first", a.Timings.FirstByte}} {
		if p.MS > 0 {
			v.Phases = append(v.Phases, phase{c.t("phase." + p.Name), p.MS})
		}
	}
	if a.Response != nil && !hidden {
		v.Body = responseBody("answer-"+strconv.Itoa(a.N), a.Response)
	}
	return v
}

// waterfall draws attempts, oldest first.
func (c *call) waterfall(all []admin.Attempt) template.HTML {
	lang := show.Lang(c.lang)
	in := chart.Attempts{
		DNS: c.t("phase.dns"), Connect: c.t("phase.connect"), TLS: c.t("phase.tls"), FirstByte: c.t("phase.first"), Rest: c.t("phase.rest"), Total: c.t("phase.total"),
		Value: lang.Duration, Later: func(ms float64) string { return c.t("attempt.later", lang.Duration(ms)) },
	}
	for i := range all {
		a := &all[i]
		state := chart.Bad
		if a.Outcome == "delivered" {
			state = chart.OK
		}
		t := a.Timings
		in.Attempts = append(in.Attempts, chart.Attempt{
			Name: c.t("attempt.n", lang.Count(int64(a.N))), Note: noteOf(a), State: state, Start: a.Started, DNS: t.DNS, Connect: t.Connect, TLS: t.TLS, FirstByte: t.FirstByte, Total: t.Total,
		})
	}
	return chart.Waterfall(chart.Text{
		ID: "attempts-picture", Title: c.t("delivery.attempts"), Description: c.words().count("delivery.attempts.n", int64(len(all)), lang.Count(int64(len(all)))),
		Table: c.t("delivery.values"), Step: c.t("delivery.attempt"), Empty: c.t("delivery.attempts.none"),
	}, in)
}

// noteOf is how an attempt ended, in a word.
func noteOf(a *admin.Attempt) string {
	if a.Status != 0 {
		return strconv.Itoa(a.Status)
	}
	return spaced(a.Code)
}

// endpointNames are those that the session sees, up to a bound.
func (c *call) endpointNames() []string {
	var list admin.EndpointList
	if err := c.get("/v1/endpoints", url.Values{"limit": {"200"}}, &list); err != nil {
		return nil
	}
	var names []string
	for i := range list.Endpoints {
		names = append(names, list.Endpoints[i].Name)
	}
	return names
}

// askDiscard asks before a delivery is discarded, which ends it for good.
func (c *call) askDiscard() error {
	if err := c.need(admin.Operate); err != nil {
		return err
	}
	d, err := c.delivery()
	if err != nil {
		return err
	}
	c.show(http.StatusOK, "discard", c.t("discard.title"), d)
	return nil
}

func (c *call) changeDelivery() error {
	return c.act(func() (step, error) {
		id, action := c.r.PathValue("id"), c.r.PathValue("action")
		var body any
		switch action {
		case "retry", "discard":
		case "redeliver":
			if to := c.r.PostForm.Get("to"); to != "" {
				body = admin.RedeliveryRequest{To: to}
			}
		default:
			return step{}, c.lost()
		}
		var out struct {
			ID string `json:"id"`
		}
		if err := c.send(http.MethodPost, escaped("/v1/deliveries/%s/%s", id, action), body, &out); err != nil {
			return step{}, err
		}
		if action == "redeliver" {
			id = out.ID
		}
		return step{escaped("/deliveries/%s", id), action}, nil
	})
}

// due tells whether a time has come.
func (c *call) due(t time.Time) bool { return !t.After(c.p.Now()) }
