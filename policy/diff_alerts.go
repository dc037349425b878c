package policy

import (
	"strconv"
	"strings"

	"relay/config"
)

// AlertChange is the difference that another policy makes for one alert.
type AlertChange struct {
	Alert    string          `json:"alert"`
	Kind     string          `json:"kind"`               // Added, Removed or Changed
	Settings []config.Change `json:"settings,omitempty"` // of one that is changed
}

// DiffAlerts lists the alerts that differ, in the order of Diff.
func DiffAlerts(old, new *Policy) []AlertChange {
	changes := []AlertChange{}
	for _, a := range new.Alerts {
		before := old.alert(a.Name)
		if before == nil {
			changes = append(changes, AlertChange{Alert: a.Name, Kind: Added})
		} else if settings := config.Compare(before.settings(), a.settings()); len(settings) > 0 {
			changes = append(changes, AlertChange{Alert: a.Name, Kind: Changed, Settings: settings})
		}
	}
	for _, a := range old.Alerts {
		if new.alert(a.Name) == nil {
			changes = append(changes, AlertChange{Alert: a.Name, Kind: Removed})
		}
	}
	return changes
}

func (p *Policy) alert(name string) *Alert {
	for _, a := range p.Alerts {
		if a.Name == name {
			return a
		}
	}
	return nil
}

func (a *Alert) settings() []config.Setting {
	limit := "above"
	if a.Below() {
		limit = "below"
	}
	return a.drawn.hide([]config.Setting{
		{Name: "on", Value: a.On}, {Name: limit, Value: a.Show(a.Limit)},
		{Name: "window", Value: config.FormatDuration(a.Window)}, {Name: "min", Value: strconv.Itoa(a.Min)},
		{Name: "for", Value: config.FormatDuration(a.For)}, {Name: "cooldown", Value: config.FormatDuration(a.Cooldown)},
		{Name: "endpoints", Value: sorted(append([]string{}, a.Endpoints...))},
	})
}

// DiffRuntime lists what differs in what endpoints made at run time may be.
func DiffRuntime(old, new *Policy) []config.Change {
	return append([]config.Change{}, config.Compare(old.runtimeSettings(), new.runtimeSettings())...)
}

func (p *Policy) runtimeSettings() []config.Setting {
	if p.compiler == nil {
		return nil
	}
	r := p.compiler.Runtime
	secrets := "sealed"
	if r.PlainSecrets {
		secrets = "plain"
	}
	return r.drawn.hide([]config.Setting{
		{Name: "enabled", Value: strconv.FormatBool(r.Enabled)}, {Name: "policies", Value: strings.Join(r.Policies, " ")},
		{Name: "overrides", Value: sorted(append([]string{}, r.Overrides...))}, {Name: "max_endpoints", Value: strconv.Itoa(r.MaxEndpoints)},
		{Name: "per_tenant", Value: count(r.PerTenant)}, {Name: "https_only", Value: strconv.FormatBool(r.HTTPSOnly)},
		{Name: "max_url", Value: strconv.Itoa(r.MaxURL)}, {Name: "secrets", Value: secrets},
	})
}

// hide leaves out settings without a value, and masks those that must not be shown.
func (d drawn) hide(all []config.Setting) (some []config.Setting) {
	for _, s := range all {
		if d.has(s.Name) {
			s.Value, s.Hidden = Hidden, config.NewSecret(s.Value)
		}
		if s.Value != "" {
			some = append(some, s)
		}
	}
	return some
}
