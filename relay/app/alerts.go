package app

import (
	"context"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/alert"
	"relay/relay/deliver"
	"relay/relay/metrics"

	"github.com/rs/zerolog"
)

// The types of the own events of alerts.
const (
	alertFiring   = "relay.alert.firing"
	alertResolved = "relay.alert.resolved"
)

// alertChanged is the data of relay.alert.*.
type alertChanged struct {
	Alert     string    `json:"alert"`
	On        string    `json:"on"`
	Endpoint  string    `json:"endpoint,omitempty"`
	About     string    `json:"about,omitempty"` // the certificate
	Value     *float64  `json:"value,omitempty"` // a share, a number, or seconds; left out where there is none
	Limit     float64   `json:"limit"`
	ValueText string    `json:"value_text,omitempty"` // for people
	LimitText string    `json:"limit_text,omitempty"`
	Reason    string    `json:"reason,omitempty"` // it ended without a value, for people
	Since     time.Time `json:"since"`            // when the condition began to hold
}

// newAlerts makes the watcher of the file's alerts.
func (a *App) newAlerts(store alert.Outbox) *alert.Watcher {
	o := alert.Options{
		Outbox:    store,
		Alerts:    func() []*policy.Alert { return a.live.Load().policy.Alerts },
		Endpoints: a.endpointNames,
		Status:    func() []deliver.Status { return a.deliverer.Status() },
		Tell:      a.tellAlert,
		Clock:     a.clock(),
		Log:       a.o.Log.With().Str("component", "alert").Logger(),
	}
	if _, shared := a.store.(outbox.Fleet); shared {
		o.Relay = a.relayName()
	}
	return alert.New(o)
}

func (a *App) endpointNames() []string {
	var names []string
	for _, e := range a.live.Load().policy.Endpoints {
		names = append(names, e.Name)
	}
	return names
}

// tellAlert logs a transition and raises its event.
func (a *App) tellAlert(t alert.Transition) {
	data := alertChanged{
		Alert: t.Alert, On: t.On, Endpoint: t.Endpoint,
		Limit: t.Bound, ValueText: t.Value, LimitText: t.Limit, Reason: t.Why, Since: t.Since,
	}
	if t.Why == "" {
		data.Value = &t.Number
	}
	if t.Endpoint == "" {
		data.About = t.About
	}
	kind, level, what := alertFiring, zerolog.WarnLevel, "alert "+t.Alert+" fires: "+t.On
	if t.Resolved {
		kind, level, what = alertResolved, zerolog.InfoLevel, "alert "+t.Alert+" is resolved: "+t.On
	}
	switch {
	case t.Why != "":
		what += ": " + t.Why
	case t.Value != "":
		what += " is " + t.Value
	}
	line := a.o.Log.WithLevel(level).Str("component", "alert")
	switch {
	case t.Endpoint != "":
		line = line.Str("endpoint", t.Endpoint)
	case t.About != "":
		line = line.Str("host", t.About) // of a certificate
	}
	line.Msg(what)
	a.events.raise(deliver.OwnEvent{Type: kind, Endpoint: t.Endpoint, At: t.At, Data: data})
}

// firing lists the alerts that fire, for metrics; none if the outbox does not answer.
func (a *App) firing(ctx context.Context) []metrics.Firing {
	if a.alerts == nil || len(a.live.Load().policy.Alerts) == 0 {
		return nil
	}
	var all []metrics.Firing
	firing, _ := a.alerts.Firing(ctx)
	for _, f := range firing {
		all = append(all, metrics.Firing{Alert: f.Alert, About: f.About})
	}
	return all
}
