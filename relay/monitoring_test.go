package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"relay/internal/testkit"
)

const monitoring = "../examples/monitoring/"

// promtool runs a check of Prometheus' own tool in a folder.
func promtool(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "promtool", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatal("promtool is not here: make setup installs it")
	}
	if err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestRulesOfPrometheus(t *testing.T) {
	promtool(t, monitoring, "check", "config", "prometheus.yml") // with the rules
	promtool(t, monitoring, "test", "rules", "relay.rules.test.yml")

	rules, err := os.ReadFile(monitoring + "relay.rules.yml")
	testkit.Must(t, err)
	tests, err := os.ReadFile(monitoring + "relay.rules.test.yml")
	testkit.Must(t, err)
	alerts := regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(string(rules), -1)
	for _, a := range alerts {
		if !strings.Contains(string(tests), fmt.Sprintf("alertname=%q", a[1])) {
			t.Errorf("no test has the alert %s", a[1])
		}
	}
	if len(alerts) < 10 || strings.Count(string(rules), "summary: ") != len(alerts) || strings.Count(string(rules), "description: ") != len(alerts) {
		t.Errorf("%d alerts do not have a summary and a remedy each", len(alerts))
	}
}

// dashboard is the part of Grafana's format that is checked.
type dashboard struct {
	Panels []struct {
		Type, Title string
		GridPos     struct{ X, Y, W, H int }
		Targets     []struct{ Expr string }
	}
	Annotations struct{ List []struct{ Expr string } }
	Templating  struct {
		List []struct {
			Name  string
			Query any
		}
	}
}

// expressions are all that the dashboard asks Prometheus for, with values for its variables.
func (d *dashboard) expressions() []string {
	var all []string
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all = append(all, target.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		all = append(all, a.Expr)
	}
	values := strings.NewReplacer("$__rate_interval", "5m", "$job", "relay", "$instance", ".*", "$endpoint", ".*")
	for i := range all {
		all[i] = values.Replace(all[i])
	}
	return all
}

// TestDashboard has each expression of the dashboard parsed by Prometheus, and no panel on another.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile(monitoring + "relay-dashboard.json")
	testkit.Must(t, err)
	var d dashboard
	testkit.Must(t, json.Unmarshal(text, &d))
	var rules strings.Builder
	rules.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	for i, expr := range d.expressions() {
		if strings.Contains(expr, "$") {
			t.Errorf("%s has a variable that nobody gives", expr)
		}
		fmt.Fprintf(&rules, "      - record: panel:%d\n        expr: %q\n", i, expr)
	}
	dir := t.TempDir()
	testkit.Must(t, os.WriteFile(filepath.Join(dir, "rules.yml"), []byte(rules.String()), 0o600))
	promtool(t, dir, "check", "rules", "rules.yml")

	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("the panel %q shows nothing", p.Title)
		}
		g := p.GridPos
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("the panel %q is not in a place of its own: %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
	if len(d.Panels) < 15 {
		t.Errorf("there are only %d panels", len(d.Panels))
	}
}

// selector is a metric with its matchers.
var selector = regexp.MustCompile(`\b((?:relay|process|go)_[a-z_]+)(?:\{([^}]*)\})?`)

// Every metric that rules and dashboard name is one that a Relay has, with these labels and
// values.
func TestMonitoringNamesRealMetrics(t *testing.T) {
	families := scraped(t)
	var d dashboard
	text, err := os.ReadFile(monitoring + "relay-dashboard.json")
	testkit.Must(t, err)
	testkit.Must(t, json.Unmarshal(text, &d))
	rules, err := os.ReadFile(monitoring + "relay.rules.yml")
	testkit.Must(t, err)
	exprs := d.expressions()
	for _, m := range regexp.MustCompile(`(?m)^ *expr: (\|\n(?: {10}.*\n)+|.*\n)`).FindAllStringSubmatch(string(rules), -1) {
		exprs = append(exprs, m[1])
	}
	found := 0
	for _, expr := range exprs {
		for _, m := range selector.FindAllStringSubmatch(regexp.MustCompile(`endpoint:\w+(:\w+)?`).ReplaceAllString(expr, ""), -1) {
			found++
			labels, known := families[m[1]]
			if !known {
				t.Errorf("no Relay has the metric %s: %s", m[1], expr)
				continue
			}
			for _, pair := range regexp.MustCompile(`(\w+)=(~?)"([^"]*)"`).FindAllStringSubmatch(m[2], -1) {
				name, pattern, value := pair[1], pair[2] != "", pair[3]
				if name == "job" || name == "instance" { // of Prometheus
					continue
				}
				if values, has := labels[name]; !has || !pattern && !slices.Contains(values, value) {
					t.Errorf("%s has no label %s=%q: %s", m[1], name, value, expr)
				}
			}
		}
	}
	if found < 40 {
		t.Errorf("found only %d metrics: the test no longer sees them", found)
	}
}

// scraped are the metrics of a Relay: their labels and the values of these.
func scraped(t *testing.T) map[string]map[string][]string {
	t.Helper()
	w := httptest.NewRecorder()
	everyMetric().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	parser := expfmt.NewTextParser(model.LegacyValidation)
	all, err := parser.TextToMetricFamilies(w.Body)
	testkit.Must(t, err)
	families := map[string]map[string][]string{}
	for name, f := range all {
		labels := map[string][]string{}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				labels[l.GetName()] = append(labels[l.GetName()], l.GetValue())
			}
		}
		families[name] = labels
		if f.GetType().String() == "HISTOGRAM" {
			families[name+"_bucket"], families[name+"_sum"], families[name+"_count"] = labels, labels, labels
		}
	}
	return families
}
