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
		{pattern: "GET /config", whole: true, do: (*call).showConfig},
		{pattern: "POST /reload", whole: true, do: (*call).reload},
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

	EndpointCount, TypeCount int64
	All                      []string // problems of the reload that was refused last
	Clock                    string   // how far it is from that of a shared outbox, "" if it has none of its own
	Oldest                   string   // how long the oldest request in the spool waits, "" for none
	By                       string   // what made the last change
	Lines                    []string // of it, in words
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
	data.EndpointCount, data.TypeCount = int64(data.Running.Endpoints), int64(data.Running.EventTypes)
	if data.All = data.Problems; problem != nil && len(problem.Diagnostics) > 0 {
		data.All = problem.Diagnostics
	}
	if change := data.LastChange; change != nil {
		data.Diff, data.By, data.Lines = linesOf(change), c.changedBy(change.By), change.Lines
	}
	if o := data.Status.Outbox; o != nil {
		data.Clock = c.clockText(o.ClockAheadMS)
		if o.Spool != nil && o.Spool.OldestMS > 0 {
			data.Oldest = show.Lang(c.lang).Duration(float64(o.Spool.OldestMS))
		}
	}
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

// clockText says how far the clock of this machine is from that of a shared outbox.
func (c *call) clockText(ahead *int64) string {
	switch {
	case ahead == nil:
		return ""
	case *ahead < 0:
		return c.t("config.clock.behind", show.Lang(c.lang).Duration(float64(-*ahead)))
	}
	return c.t("config.clock.ahead", show.Lang(c.lang).Duration(float64(*ahead)))
}

// changedBy says what made a reload.
func (c *call) changedBy(by string) string {
	if key := "config.by." + by; c.p.texts.has(key) {
		by = c.t(key)
	}
	return c.t("config.change.by", by)
}

// linesOf lists what a reload changed.
func linesOf(change *admin.Change) []changedLine {
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
	err := c.act(func() (step, error) {
		var done admin.Reloaded
		if err := c.send(http.MethodPost, "/v1/reload", nil, &done); err != nil {
			return step{}, err
		}
		if done.Differs() {
			return step{"/config", "reload"}, nil
		}
		return step{"/config", "reload.same"}, nil
	})
	if err == nil {
		return nil
	}
	r := c.refusalOf(err)
	if r.Code != "invalid_config" && r.Code != "needs_restart" {
		return err
	}
	return c.configScreen(r.Status, r)
}
