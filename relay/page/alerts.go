package page

import (
	"net/http"
	"strings"
	"time"

	"relay/relay/admin"
	"relay/relay/alert"
	"relay/relay/page/show"
)

func alertRoutes() []route {
	return []route{{pattern: "GET /alerts", whole: true, do: (*call).listAlerts}}
}

// alertsView is the data of the screen.
type alertsView struct {
	Firing []firing
	Alerts []alertRule
}

// firing is an alert that fires, in words.
type firing struct {
	alert.Firing
	Endpoint bool // About is one
	Value    string
	Limit    string
}

// alertRule is an alert of the file, in words.
type alertRule struct {
	admin.Alert
	Condition string
	Within    string // which attempts count; "" for others
	Lasting   string
	Whole     bool  // it is about no endpoint
	Times     int64 // it fires
}

func (c *call) listAlerts() error {
	var list admin.AlertList
	if err := c.get("/v1/alerts", nil, &list); err != nil {
		return err
	}
	var data alertsView
	for _, f := range list.Firing {
		data.Firing = append(data.Firing, c.firing(f))
	}
	for _, a := range list.Alerts {
		data.Alerts = append(data.Alerts, c.alertRule(a))
	}
	c.show(http.StatusOK, "alerts", c.t("layout.alerts"), data)
	return nil
}

// aboutEndpoints tells whether a kind of alert is about each endpoint, not about the whole.
func aboutEndpoints(on string) bool {
	return on != "outbox_fill" && on != "certificate_expiry" && on != "silence"
}

func (c *call) firing(f alert.Firing) firing {
	return firing{Firing: f, Endpoint: f.About != "" && aboutEndpoints(f.On), Value: c.quantity(f.Value), Limit: c.quantity(f.Limit)}
}

func (c *call) alertRule(a admin.Alert) alertRule {
	_, limit, _ := strings.Cut(a.Limit, " ")
	out := alertRule{Alert: a, Condition: a.On, Whole: !aboutEndpoints(a.On), Times: int64(a.Firing)}
	if key := "alerts.on." + a.On; c.p.texts.has(key) && limit != "" {
		out.Condition = c.t(key, c.quantity(limit))
	} else if c.p.texts.has(key) {
		out.Condition = c.t(key)
	}
	l := show.Lang(c.lang)
	if a.WindowMS > 0 {
		out.Within = c.t("alerts.window", l.Duration(float64(a.WindowMS)), l.Count(int64(a.Min)))
	}
	if a.ForMS > 0 {
		out.Lasting = c.t("alerts.for", l.Duration(float64(a.ForMS)))
	}
	return out
}

// quantity is a value of an alert in the reader's language: a duration, or what is the same in all of them.
func (c *call) quantity(text string) string {
	if d, err := time.ParseDuration(text); err == nil {
		return show.Lang(c.lang).Duration(float64(d) / float64(time.Millisecond))
	}
	return text
}
