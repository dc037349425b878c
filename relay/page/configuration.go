package page

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"

	"relay/relay/admin"
	"relay/relay/page/show"
)

func configRoutes() []route {
	return []route{
		{pattern: "GET /config", do: (*call).showConfig},
		{pattern: "POST /reload", do: (*call).reload},
	}
}

// configView is the data of the screen.
type configView struct {
	admin.Running
	Status   admin.Status
	Diff     []changedLine // of the last reload that changed something
	Differ   []difference
	Problem  *refusal // of the reload that was asked for
	Versions int      // of the Relays that share the outbox
}

// The parts of the screen as templates need them.
func (v configView) EndpointCount() int64 { return int64(v.Running.Endpoints) }
func (v configView) TypeCount() int64     { return int64(v.Running.EventTypes) }

// All are the problems of the reload that was refused last.
func (v configView) All() []string {
	if v.Problem != nil && len(v.Problem.diagnostics) > 0 {
		return v.Problem.diagnostics
	}
	return v.Problems
}

// ClockText says how far the clock of this machine is from that of a shared outbox.
func (v configView) ClockText(f *frame) string {
	if v.Status.Outbox == nil || v.Status.Outbox.ClockAheadMS == nil {
		return ""
	}
	ms := *v.Status.Outbox.ClockAheadMS
	key := "config.clock.ahead"
	if ms < 0 {
		key, ms = "config.clock.behind", -ms
	}
	return f.c.t(key, show.Lang(f.c.lang).Duration(float64(ms)))
}

// Float is an integer for functions that take none.
func (f *frame) Float(n int64) float64 { return float64(n) }

// By is what made a reload.
func (f *frame) By(by string) string {
	if key := "config.by." + by; f.c.p.texts.has(key) {
		by = f.c.t(key)
	}
	return f.c.t("config.change.by", by)
}

// changedLine is a line of what a reload changed: sign is added, removed or changed.
type changedLine struct{ Sign, Kind, Name string }

// difference is an endpoint whose settings differ between Relays.
type difference struct{ Endpoint, How string }

// ready asks whether Relay is ready: both answers have what is known of the outbox and the fleet.
func (c *call) ready() (s admin.Status, err error) {
	r, err := c.inner(http.MethodGet, "/readyz", nil, nil)
	if err != nil {
		return s, err
	}
	answer := &recorder{header: http.Header{}}
	c.p.API.ServeHTTP(answer, r)
	if answer.status == http.StatusServiceUnavailable {
		answer.status = http.StatusOK
	}
	var text []byte
	if err := answer.read("/readyz", &text); err != nil {
		return s, err
	}
	return s, json.Unmarshal(text, &s)
}

func (c *call) showConfig() error {
	return c.configScreen(http.StatusOK, nil)
}

func (c *call) configScreen(status int, problem *refusal) error {
	data := configView{Problem: problem}
	if err := c.get("/v1/config", nil, &data.Running); err != nil {
		return err
	}
	var err error
	if data.Status, err = c.ready(); err != nil {
		return err
	}
	data.Diff = linesOf(data.LastChange)
	for _, name := range slices.Sorted(maps.Keys(data.Status.Disagreements)) {
		data.Differ = append(data.Differ, difference{name, data.Status.Disagreements[name]})
	}
	versions := map[string]bool{}
	for _, r := range data.Status.Relays {
		versions[r.Version] = true
	}
	data.Versions = len(versions)
	c.show(status, "config", c.t("layout.config"), data)
	return nil
}

// linesOf lists what a reload changed.
func linesOf(change *admin.Change) []changedLine {
	if change == nil {
		return nil
	}
	var all []changedLine
	for _, part := range []struct {
		sign, kind string
		names      []string
	}{
		{"added", "endpoint", change.Added}, {"changed", "endpoint", change.Changed}, {"removed", "endpoint", change.Removed},
		{"changed", "type", change.EventTypes},
	} {
		for _, name := range part.names {
			all = append(all, changedLine{part.sign, part.kind, name})
		}
	}
	return all
}

// reload reads the files again. A refusal is shown on the screen of the configuration, with all its problems.
func (c *call) reload() error {
	err := c.act(func() (string, error) {
		var done admin.Reloaded
		if err := c.send(http.MethodPost, "/v1/reload", nil, &done); err != nil {
			return "", err
		}
		if done.Differs() {
			return went("/config", "reload"), nil
		}
		return went("/config", "reload.same"), nil
	})
	if err == nil {
		return nil
	}
	r := c.refusalOf(err)
	if r.code != "invalid_config" && r.code != "needs_restart" {
		return err
	}
	return c.configScreen(r.status, r)
}
