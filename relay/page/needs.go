package page

import (
	"cmp"
	"strings"
	"time"

	"relay/internal/sorting"
	"relay/relay/admin"
	"relay/relay/page/show"
)

// need is one line of what needs a person.
type need struct {
	Class string // bad, wait or held: a colour and a shape
	Text  string // what is wrong
	About string // name of the endpoint or alert, "" for none
	Since time.Time
	For   float64 // how long it has been so, in milliseconds, where only that is known
	To    string  // where to see it
	Do    string  // address of a form that mends it, "" for none
	DoKey string
	Right string // that Do needs
	rank  int
	key   string // of Text, or what tells it apart from others about the same
	slow  bool   // only statistics tell of it
}

// Mark tells it apart from the others, for the module of the page.
func (n need) Mark() string { return n.Class + " " + n.About + " " + n.key }

// Method offers Mark to templates.
func (n need) Method(name string) any {
	if name == "Mark" {
		return n.Mark
	}
	return nil
}

const (
	nearlyFull  = 0.8              // of the outbox
	farBehind   = 15 * time.Minute // age of an active endpoint's oldest delivery
	manyRecent  = 3                // failures in the last steps, of an endpoint that fails
	recentSteps = 2
)

// overviewNeeds lists what needs a person, what is worst first.
func (c *call) overviewNeeds(v *overviewView, a *overviewAnswers) {
	all := c.needsOfWhole(&a.ready)
	for _, f := range a.alerts.Firing {
		all = append(all, c.needOfAlert(c.firing(f)))
	}
	endpoints := 0
	for i := range a.endpoints.Endpoints {
		if n, is := c.needOfEndpoint(&a.endpoints.Endpoints[i]); is {
			endpoints++
			all = append(all, n)
		}
	}
	sorting.Stable(all, func(a, b need) int { return cmp.Compare(a.rank, b.rank) })
	v.MoreNeeds = int64(max(0, len(all)-overviewNeeds) + max(0, int(v.Summary.Attention)-endpoints))
	v.Needs = all[:min(len(all), overviewNeeds)]
	v.Calm = len(v.Needs) == 0 && !v.Missing
}

// needsOfWhole are those of the process, the outbox and the fleet.
func (c *call) needsOfWhole(s *admin.Status) (all []need) {
	if s.Status != "" && s.Status != "ready" {
		all = append(all, need{Class: "bad", key: "unready", Text: c.t("overview.need.unready", s.Reason), To: "/config"})
	}
	if o := s.Outbox; o != nil {
		if o.Fill != nil && *o.Fill >= nearlyFull {
			all = append(all, need{Class: "bad", key: "full", Text: c.t("overview.need.full", show.Lang(c.lang).Percent(min(1, *o.Fill))), To: "/config"})
		}
		if p := o.Spool; p != nil && (p.Used || p.Waiting > 0) {
			all = append(all, need{Class: "wait", key: "spool", Text: c.t("overview.need.spool", show.Lang(c.lang).Count(p.Waiting)), For: float64(p.OldestMS), To: "/config"})
		}
		if what := dangers(o.Warnings); what != "" {
			all = append(all, need{Class: "bad", key: "warnings " + strings.Map(noDigit, what), Text: c.t("overview.need.warning", what), To: "/config", rank: 1})
		}
	}
	if s.Config != nil && s.Config.Error != "" {
		all = append(all, need{Class: "bad", key: "refused", Text: c.t("overview.need.refused", s.Config.Error), To: "/config", Do: "/reload", DoKey: "config.reload", Right: "operate", rank: 1})
	}
	versions := map[string]bool{}
	for _, r := range s.Relays {
		versions[r.Version] = true
	}
	if n := len(s.Disagreements); n > 0 {
		all = append(all, need{Class: "wait", key: "differ", Text: c.words().count("overview.need.differ", int64(n), show.Lang(c.lang).Count(int64(n))), To: "/config", rank: 2})
	} else if len(versions) > 1 {
		all = append(all, need{Class: "wait", key: "versions", Text: c.t("config.versions"), To: "/config", rank: 2})
	}
	return all
}

// dangers is what endangers accepted events; the screen of the configuration shows the rest, too.
func dangers(all []admin.Warning) string {
	var what []string
	for _, w := range all {
		if w.Danger {
			what = append(what, w.What)
		}
	}
	return strings.Join(what, "; ")
}

// noDigit leaves figures out, so that a need stays the same one while they change.
func noDigit(r rune) rune {
	if '0' <= r && r <= '9' {
		return -1
	}
	return r
}

func (c *call) needOfAlert(f firing) need {
	n := need{Class: "bad", key: "alert " + f.Alert, Text: c.t("overview.need.alert", f.Alert), Since: f.Since, To: "/alerts", rank: 1}
	if f.Value != "" && c.p.texts.has("alerts.what."+f.On) {
		n.Text = c.t("overview.need.alert.value", f.Alert, c.t("alerts.what."+f.On), f.Value, f.Limit)
	}
	if n.About = f.About; f.Endpoint {
		n.To = escaped("/endpoints/%s", f.About)
	}
	return n
}

// needOfEndpoint says what is wrong with an endpoint, and whether anything is.
func (c *call) needOfEndpoint(e *admin.Endpoint) (n need, is bool) {
	n = need{About: e.Name, Since: e.Since, To: escaped("/endpoints/%s", e.Name), rank: 3, key: "endpoint " + e.State}
	mend := func(verb, label string) {
		n.Do, n.DoKey, n.Right = escaped("/endpoints/%s/"+verb, e.Name), "endpoint."+label, "operate"
		if right := c.mayEnable(e); verb == "enable" && right != "" {
			n.Right = string(right)
		}
	}
	backlog := e.Deliveries.Pending + e.Deliveries.Held
	switch {
	case e.State == "invalid":
		n.Class, n.Text = "bad", c.t("overview.need.invalid", e.Reason)
	case e.State == "disabled" && (e.Code == "gone" || e.Code == "failing"):
		n.Class, n.Text = "bad", c.t("overview.need.disabled."+e.Code)
		mend("enable", "enable")
	case e.Breaker == "open" || e.Breaker == "half_open":
		n.key = "breaker"
		n.Class, n.Text, n.rank = "bad", c.t("overview.need.breaker"), 4
		if n.Since = (time.Time{}); e.Failing != nil { // that of the state is when it became active
			n.Since = e.Failing.Since
		}
		mend("resume", "resumeyes")
	case e.State == "disabled" && e.Enabled:
		n.Class, n.Text, n.rank = "held", c.t("overview.need.disabled"), 5
		mend("enable", "enable")
	case e.State == "paused":
		n.Class, n.Text, n.rank = "held", c.t("overview.need.paused"), 5
		mend("resume", "resumeno")
	case (e.State == "disabled" || e.State == "removed") && backlog > 0:
		n.Class, n.Text, n.rank = "held", c.t("overview.need."+e.State+".held"), 5
	case e.State == "active" && e.Failing != nil:
		n.Class, n.Text, n.rank, n.Since = "bad", c.t("overview.need.fails", spaced(e.Failing.Code)), 4, e.Failing.Since
		n.key = "fails"
	case e.State == "active" && !mostlyFails(e.Stats).IsZero():
		n.Class, n.Text, n.rank, n.Since = "bad", c.t("overview.need.failing"), 4, mostlyFails(e.Stats)
		n.slow = true
	case e.State == "active" && e.Deliveries.OldestMS != nil && *e.Deliveries.OldestMS > farBehind.Milliseconds():
		n.Class, n.Text, n.rank, n.Since = "wait", c.words().count("overview.need.behind", backlog, show.Lang(c.lang).Count(backlog)), 6, time.Time{}
		n.For = float64(*e.Deliveries.OldestMS)
	default:
		return n, false
	}
	return n, true
}

// mostlyFails is since when most deliveries failed, where that is so of the newest steps together; else zero.
func mostlyFails(s *admin.EndpointStats) (since time.Time) {
	if s == nil {
		return since
	}
	var failed, delivered int64
	newest := s.Steps[max(0, len(s.Steps)-recentSteps):]
	for _, r := range newest {
		failed, delivered = failed+r.Failed, delivered+r.Delivered
	}
	if failed >= manyRecent && failed > delivered {
		since = newest[0].Start
	}
	return since
}
