package admin

import (
	"context"
	"net/http"

	"relay/policy"
	"relay/relay/alert"
)

// AlertList is the answer of GET /v1/alerts.
type AlertList struct {
	Firing []alert.Firing `json:"firing"` // by name
	Alerts []Alert        `json:"alerts"` // of the file, in its order
}

// Alert is one of the file.
type Alert struct {
	Name      string   `json:"name"`
	On        string   `json:"on"`
	Limit     string   `json:"limit,omitempty"`     // for people: "below 95.0 %"
	Endpoints []string `json:"endpoints,omitempty"` // all if there are none

	WindowMS   int64 `json:"window_ms,omitempty"` // attempts of which time count
	Min        int   `json:"min,omitempty"`       // attempts in it, without which nothing is decided
	ForMS      int64 `json:"for_ms"`              // how long the condition must hold
	CooldownMS int64 `json:"cooldown_ms"`         // after its end it does not fire again for so long

	Firing int `json:"firing"` // for how many endpoints or certificates
}

func (a *api) alertRoutes() []route {
	return []route{{
		id: "listAlerts", method: "GET", path: "/v1/alerts", verb: "relay alerts", summary: "List the alerts that fire, and those of the file",
		about:  "With a shared outbox, those of the whole fleet.",
		answer: AlertList{}, handle: a.listAlerts,
	}}
}

func (a *api) listAlerts(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), countsTimeout)
	defer cancel()
	firing, err := a.Alerts(ctx)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	list := AlertList{Firing: append([]alert.Firing{}, firing...), Alerts: []Alert{}}
	for _, x := range a.Policy().Alerts {
		shown := Alert{Name: x.Name, On: x.On, Limit: limitOf(x), Endpoints: x.Endpoints, ForMS: x.For.Milliseconds(), CooldownMS: x.Cooldown.Milliseconds()}
		if x.Windowed() {
			shown.WindowMS, shown.Min = x.Window.Milliseconds(), x.Min
		}
		for _, f := range firing {
			if f.Alert == x.Name {
				shown.Firing++
			}
		}
		list.Alerts = append(list.Alerts, shown)
	}
	answer(w, http.StatusOK, list)
}

func limitOf(a *policy.Alert) string {
	text := a.ShownLimit()
	switch {
	case text == "":
		return ""
	case a.Below():
		return "below " + text
	}
	return "above " + text
}
