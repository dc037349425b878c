package explain

import (
	"fmt"
	"slices"
	"strings"

	"relay/config"
	"relay/policy"
)

// Changes is what another configuration means to a Relay that runs.
type Changes struct {
	Endpoints []EndpointChange     `json:"endpoints"`
	Types     []policy.TypeChange  `json:"event_types"`
	Alerts    []policy.AlertChange `json:"alerts"`
	Runtime   []config.Change      `json:"runtime"` // of what endpoints made at run time may be
	Process   []SettingChange      `json:"process"`
	Restart   []string             `json:"restart"` // blocks that need one
}

// EndpointChange is what it means to an endpoint.
type EndpointChange struct {
	Name     string          `json:"name"`
	Kind     string          `json:"kind"` // added, removed, changed
	Means    string          `json:"means,omitempty"`
	Settings []SettingChange `json:"settings,omitempty"`
}

// SettingChange is a setting that differs.
type SettingChange struct {
	config.Change
	Means string `json:"means,omitempty"`
}

// Compare says what the configuration now means to a Relay that runs with old. Values of secrets and headers are
// compared and not told.
func Compare(old, now config.Config, oldPolicy, nowPolicy *policy.Policy) *Changes {
	c := &Changes{
		Endpoints: []EndpointChange{}, Types: policy.DiffTypes(oldPolicy, nowPolicy), Alerts: policy.DiffAlerts(oldPolicy, nowPolicy),
		Runtime: policy.DiffRuntime(oldPolicy, nowPolicy), Process: []SettingChange{}, Restart: config.NeedRestart(old, now),
	}
	for _, e := range policy.Diff(oldPolicy, nowPolicy) {
		c.Endpoints = append(c.Endpoints, compareEndpoint(e, nowPolicy.Endpoint(e.Endpoint)))
	}
	for _, s := range config.Diff(old, now) {
		c.Process = append(c.Process, SettingChange{s, processMeaning(s)})
	}
	return c
}

// compareEndpoint describes the effect of a change; now is the endpoint, nil if it is removed.
func compareEndpoint(c policy.Change, now *policy.Endpoint) EndpointChange {
	out := EndpointChange{Name: c.Endpoint, Kind: c.Kind}
	switch {
	case c.Kind == policy.Removed:
		out.Means = "it gets no more events; its pending deliveries will be held"
	case c.Kind == policy.Added && !now.Enabled:
		out.Means = fmt.Sprintf("it gets events that are accepted from then on (%s), and they are held: enabled = false", now.Show("events", now.Events.String()))
	case c.Kind == policy.Added:
		out.Means = fmt.Sprintf("it gets events that are accepted from then on (%s), at %s", now.Show("events", now.Events.String()), now.ShownURL())
	}
	for _, s := range c.Settings {
		out.Settings = append(out.Settings, SettingChange{s, endpointMeaning(s)})
	}
	return out
}

// endpointMeaning describes the effect of a changed setting that its values do not show: which
// deliveries it affects.
func endpointMeaning(s config.Change) string {
	switch block, _, _ := strings.Cut(s.Name, "."); {
	case s.Name == "url":
		return "pending deliveries go to the new one, too"
	case s.Name == "enabled" && s.New == "false":
		return "its deliveries are accepted and held"
	case s.Name == "enabled":
		return "what was held goes out"
	case s.Name == "events":
		return "decides about events that are accepted from then on; pending deliveries stay"
	case s.Name == "retry.schedule":
		return "due times that are set stay, and attempts that were made count"
	case s.Name == "retry.max_age":
		return "of pending deliveries too"
	case block == "tls":
		return "from the next attempt on: connections are made again"
	case block == "sign" || block == "signature" || block == "secrets" || block == "headers":
		return "from the next attempt on, of pending deliveries too"
	}
	return ""
}

func processMeaning(s config.Change) string {
	switch s.Name {
	case "outbox", "outbox.path", "outbox.server", "outbox.namespace":
		if s.Unseen {
			return ""
		}
		return "what is pending in the old outbox stays there, until a Relay is started with it"
	}
	return ""
}

// Lines are the changes as sentences, those of settings indented; none if Relay would do nothing else.
func (c *Changes) Lines() []string {
	var lines []string
	add := func(line string) { lines = append(lines, line) }
	for _, e := range c.Endpoints {
		add(strings.TrimSuffix(fmt.Sprintf("endpoint %s: %s: %s", e.Name, e.Kind, e.Means), ": "))
		for _, s := range e.Settings {
			add(s.line())
		}
	}
	for _, t := range c.Types {
		add(fmt.Sprintf("event_type %s: %s", t.Type, t.Kind))
	}
	for _, a := range c.Alerts {
		add(fmt.Sprintf("alert %s: %s", a.Alert, a.Kind))
		for _, s := range a.Settings {
			add(SettingChange{Change: s}.line())
		}
	}
	if len(c.Runtime) > 0 {
		add("runtime: changed; endpoints that were made stay")
	}
	for _, s := range c.Runtime {
		add(SettingChange{Change: s}.line())
	}
	if len(c.Restart) > 0 {
		add("process: needs a restart for " + strings.Join(c.Restart, ", "))
	} else if len(c.Process) > 0 {
		add("process: changed")
	}
	gone := ""
	for _, s := range c.Process {
		if isAccess := strings.HasPrefix(s.Name, "admin.access "); isAccess && s.Name == gone+s.Name[strings.LastIndex(s.Name, " "):] {
			continue
		}
		if name, is := c.removedAccess(s.Name); is {
			gone = "admin.access " + name
			add("  access " + name + ": removed")
			continue
		}
		add(s.line())
	}
	return lines
}

// removedAccess is the access of a setting if all of it is gone: every access has rights.
func (c *Changes) removedAccess(setting string) (name string, removed bool) {
	rest, is := strings.CutPrefix(setting, "admin.access ")
	end := strings.LastIndex(rest, " ")
	if !is || end < 0 {
		return "", false
	}
	name = rest[:end]
	return name, slices.ContainsFunc(c.Process, func(s SettingChange) bool {
		return s.Name == "admin.access "+name+" may" && s.New == ""
	})
}

func (s SettingChange) line() string {
	line := "  " + settingText(s.Change)
	if s.Means != "" {
		line += "; " + s.Means
	}
	return line
}

// settingText is a text like "concurrency: 16 → 4", or only that the setting changed if its
// values are not shown.
func settingText(c config.Change) string {
	header, isHeader := strings.CutPrefix(c.Name, "headers.")
	switch {
	case isHeader && c.Unseen:
		return fmt.Sprintf("header %s: its value changed", header)
	case isHeader && c.Old == "":
		return fmt.Sprintf("header %s: added", header)
	case isHeader:
		return fmt.Sprintf("header %s: removed", header)
	case c.Name == "secrets":
		return fmt.Sprintf("secrets changed (%s → %s)", c.Old, c.New)
	case c.Unseen && c.Name == "url":
		return fmt.Sprintf("url: its query changed, which is not shown (%s)", c.New)
	case c.Unseen:
		return c.Name + " changed"
	case c.Old == "":
		return fmt.Sprintf("%s: none → %s", c.Name, c.New)
	case c.New == "":
		return fmt.Sprintf("%s: %s → none", c.Name, c.Old)
	}
	return fmt.Sprintf("%s: %s → %s", c.Name, c.Old, c.New)
}
