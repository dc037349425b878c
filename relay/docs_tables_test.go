package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"relay/config"
	"relay/ingest/problem"
	"relay/outbox"
	"relay/policy"
	"relay/relay/admin"
	"relay/relay/deliver"
	"relay/relay/metrics"
	"relay/relay/query"
)

// tables makes the generated parts of the pages. A part keeps what only people can write: the
// last column, and a default that code derives. A row without it is an error.
type tables struct {
	attributes []config.Attribute
	described  map[string]bool // attributes that stand in a page
	root       *cobra.Command
}

func newTables(t *testing.T) *tables {
	t.Helper()
	c := &command{env: func(string) (string, bool) { return "", false }}
	root := c.root()
	root.InitDefaultHelpCmd()
	return &tables{
		attributes: config.Describe(func(f *config.File) { _, _ = policy.Decode(f) }),
		described:  map[string]bool{},
		root:       root,
	}
}

// make is one part. kind is what stands in its marker, old what stands there now.
func (a *tables) make(t *testing.T, kind, old string) string {
	t.Helper()
	name, rest, _ := strings.Cut(kind, " ")
	switch name {
	case "attributes":
		if rest == "top" {
			rest = "" // no block
		}
		return a.attributeTable(t, rest, readRows(old))
	case "problems":
		return problemTable(t, readRows(old))
	case "codes":
		return codeTable(t, readRows(old))
	case "metrics":
		return metricTable(t)
	case "filters":
		return filterTable()
	case "routes":
		return a.routeTable(t)
	case "verbs":
		if rest == "table" {
			return a.verbTable()
		}
		return a.verbs()
	}
	t.Fatalf("there is no table named %q", kind)
	return ""
}

// rows are those of a Markdown table, by their first cell, in order.
type rows struct {
	keys  []string
	cells map[string][]string
}

func readRows(table string) rows {
	r := rows{cells: map[string][]string{}}
	for i, line := range strings.Split(strings.TrimSpace(table), "\n") {
		if i < 2 {
			continue // the head
		}
		cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "| "), "|"), " |")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		key := strings.Trim(cells[0], "`")
		r.keys = append(r.keys, key)
		r.cells[key] = cells
	}
	return r
}

// cell is what a person wrote, "" for nothing.
func (r rows) cell(key string, column int) string {
	if cells := r.cells[key]; column < len(cells) {
		return cells[column]
	}
	return ""
}

// written is a cell that must be there.
func (r rows) written(t *testing.T, key string, column int) string {
	t.Helper()
	text := r.cell(key, column)
	if text == "" {
		t.Errorf("%s has no text: write it into the table, in the last column", key)
	}
	return text
}

// in puts names into the order of the rows, new ones at the end.
func (r rows) in(names []string) []string {
	slices.SortStableFunc(names, func(a, b string) int {
		at := func(name string) int {
			if i := slices.Index(r.keys, name); i >= 0 {
				return i
			}
			return len(r.keys)
		}
		return at(a) - at(b)
	})
	return names
}

func table(head ...string) *strings.Builder {
	var b strings.Builder
	line(&b, head...)
	b.WriteString("|" + strings.Repeat("---|", len(head)) + "\n")
	return &b
}

func line(b *strings.Builder, cells ...string) {
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

func code(s string) string { return "`" + s + "`" }

// inherited tells of an endpoint's attributes that a policy has, too.
func (a *tables) inherited(x config.Attribute) bool {
	policy, ok := strings.CutPrefix(x.Block, `endpoint "LABEL"`)
	return ok && slices.ContainsFunc(a.attributes, func(y config.Attribute) bool {
		return y.Block == `policy "LABEL"`+policy && y.Name == x.Name
	})
}

// derived are defaults that the environment decides.
func derived(x config.Attribute) bool { return x.Block == `outbox "sqlite"` && x.Name == "path" }

func (a *tables) attributeTable(t *testing.T, block string, old rows) string {
	byName := map[string]config.Attribute{}
	var names []string
	for _, x := range a.attributes {
		if x.Block == block && !a.inherited(x) {
			byName[x.Name] = x
			names = append(names, x.Name)
			a.described[x.Block+" "+x.Name] = true
		}
	}
	if len(names) == 0 {
		t.Errorf("no decoder asks for attributes of %q", block)
	}
	b := table("attribute", "kind", "default", "range", "meaning")
	for _, name := range old.in(names) {
		x := byName[name]
		kind, value, bounds := x.Kind, old.cell(name, 2), ""
		if x.Secret {
			kind += ", secret"
		}
		if x.Default != "" && !derived(x) {
			value = code(x.Default)
		}
		if value == "" {
			t.Errorf("%s of %s has no default that the decoder tells: write it into the table, — for none", name, block)
		}
		if x.Least != "" {
			bounds = fmt.Sprintf("%s to %s", unquote(x.Least), unquote(x.Most))
		}
		line(b, code(name), kind, value, bounds, old.written(t, name, 4))
	}
	return b.String()
}

func unquote(s string) string { return strings.Trim(s, `"`) }

func (a *tables) nothingIsLeftOut(t *testing.T) {
	for _, x := range a.attributes {
		if !a.described[x.Block+" "+x.Name] && !a.inherited(x) {
			t.Errorf("%s of %s is in no table of docs/configuration.md", x.Name, x.Block)
		}
	}
}

func problemTable(t *testing.T, old rows) string {
	var names []string
	for _, c := range problem.Codes() {
		names = append(names, string(c))
	}
	slices.Sort(names)
	b := table("code", "status", "title", "what to do")
	for _, name := range old.in(names) {
		about := problem.Code(name).About()
		line(b, code(name), strconv.Itoa(about.Status), about.Title, old.written(t, name, 3))
	}
	return b.String()
}

// filterTable lists the parameters of filters.
func filterTable() string {
	b := table("parameter", "value", "routes", "meaning")
	for _, p := range query.Params() {
		kind := p.Kind
		if p.Values != nil && p.Kind != "true or false" {
			kind = code(strings.Join(p.Values, "` `"))
		}
		if p.Many {
			kind += ", several"
		}
		var uses []string
		for _, u := range []struct {
			use  query.Use
			name string
		}{{query.Lists, "lists"}, {query.Bulk, "bulk"}, {query.Tail, "tail"}, {query.Stats, "stats"}} {
			if p.Use&u.use != 0 {
				uses = append(uses, u.name)
			}
		}
		about := p.About
		if p.Example != "" {
			about += ". Example: " + code(p.Example)
		}
		line(b, code(p.Shown()), kind, strings.Join(uses, " "), about)
	}
	return b.String()
}

// routeTable lists the operations of the OpenAPI document.
func (a *tables) routeTable(t *testing.T) string {
	t.Helper()
	type operation struct {
		Summary, Description string
		Verb                 string `json:"x-verb"`
	}
	var document struct {
		Paths map[string]map[string]operation
	}
	if err := json.Unmarshal(admin.Document("v1"), &document); err != nil {
		t.Fatal(err)
	}
	b := table("route", "verb", "what")
	for _, path := range slices.Sorted(maps.Keys(document.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(document.Paths[path])) {
			o := document.Paths[path][method]
			verb := ""
			if words := strings.Fields(o.Verb); len(words) > 1 && slices.ContainsFunc(a.root.Commands(), func(c *cobra.Command) bool { return c.Name() == words[1] }) {
				verb = code(o.Verb)
			}
			line(b, code(strings.ToUpper(method)+" "+path), verb, strings.TrimSpace(o.Summary+". "+o.Description))
		}
	}
	return b.String()
}

// codeTable lists the constants of the code that name why an attempt or delivery failed.
func codeTable(t *testing.T, old rows) string {
	var names []string
	for path, text := range goFiles(t) {
		if !regexp.MustCompile(`^(policy|relay/deliver|relay/post)/\w+\.go$`).MatchString(path) || strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 && strings.HasPrefix(strings.ToLower(v.Names[0].Name), "code") {
				if lit, ok := v.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
					name, _ := strconv.Unquote(lit.Value)
					names = append(names, name)
				}
			}
			return true
		})
	}
	slices.Sort(names)
	b := table("code", "class", "what happened, and what to do")
	for _, name := range old.in(slices.Compact(names)) {
		class := old.cell(name, 1)
		for _, known := range []string{"timeout", "network"} {
			if o, err := policy.ParseOutcomes([]string{known}); err == nil && o.Has(0, name) {
				class = known
			}
		}
		line(b, code(name), class, old.written(t, name, 2))
	}
	return b.String()
}

// eachVerb calls do for each verb, and each verb below one.
func (a *tables) eachVerb(do func(*cobra.Command)) {
	for _, verb := range a.root.Commands() {
		if verb.Name() != "help" && verb.Name() != "completion" {
			do(verb)
			for _, below := range verb.Commands() {
				do(below)
			}
		}
	}
}

func (a *tables) verbTable() string {
	b := table("verb", "what")
	a.eachVerb(func(verb *cobra.Command) {
		if !verb.Parent().HasParent() {
			line(b, code("relay "+strings.ReplaceAll(verb.Use, "|", `\|`)), verb.Short)
		}
	})
	return b.String()
}

func (a *tables) verbs() string {
	var b strings.Builder
	a.eachVerb(func(verb *cobra.Command) {
		fmt.Fprintf(&b, "\n## %s\n\n", verb.CommandPath())
		text := verb.Short + "."
		if verb.Long != "" {
			text = strings.TrimSpace(verb.Long)
		}
		fmt.Fprintf(&b, "%s\n\n```\n%s %s\n", text, verb.Parent().CommandPath(), verb.Use)
		if verb.Example != "" {
			fmt.Fprintf(&b, "\n%s\n", verb.Example)
		}
		b.WriteString("```\n")
		if !verb.LocalFlags().HasAvailableFlags() {
			return
		}
		b.WriteString("\n")
		flags := table("flag", "default", "what")
		verb.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name == "help" {
				return
			}
			kind, usage := pflag.UnquoteUsage(f)
			value := ""
			if f.DefValue != "" && f.DefValue != "[]" {
				value = code(f.DefValue)
			}
			line(flags, code(strings.TrimSpace("--"+f.Name+" "+kind)), value, strings.ReplaceAll(usage, "|", `\|`))
		})
		b.WriteString(flags.String())
	})
	return b.String() + "\n"
}

// everything is an outbox and an endpoint of which each metric says something.
type everything struct{}

func (everything) At(t time.Time) time.Time              { return t }
func (everything) Health(context.Context) error          { return nil }
func (everything) Fill(context.Context) (float64, error) { return 0.5, nil }
func (everything) Durability() string                    { return "fsync" }
func (everything) Counts(context.Context) (map[string]outbox.Counts, error) {
	return map[string]outbox.Counts{"e": {Pending: 1, Oldest: time.Now()}}, nil
}
func (everything) Spool(context.Context) (outbox.SpoolStatus, error) {
	return outbox.SpoolStatus{Used: true, Waiting: 1, Moved: 1}, nil
}
func (everything) Warnings() []outbox.Warning { return []outbox.Warning{{What: "w"}} }
func (everything) Accept(context.Context, outbox.Batch) ([]outbox.Receipt, error) {
	return nil, errors.New("never asked")
}

// answerZero makes functions that are missing in a struct; they answer zero values.
func answerZero(o any) {
	v := reflect.ValueOf(o).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Func && f.IsNil() {
			f.Set(reflect.MakeFunc(f.Type(), func([]reflect.Value) []reflect.Value {
				var out []reflect.Value
				for j := range f.Type().NumOut() {
					out = append(out, reflect.Zero(f.Type().Out(j)))
				}
				return out
			}))
		}
	}
}

// everyMetric has a value for each metric.
func everyMetric() *metrics.Metrics {
	seen := deliver.Histogram{Bounds: []float64{1}, Counts: []uint64{1, 1}, Sum: 3}
	o := metrics.Options{
		Version: "v1", Outbox: everything{},
		Status: func() []deliver.Status {
			return []deliver.Status{{Endpoint: "e", State: deliver.Active, Breaker: "closed", Limit: 1, LateBy: seen, Took: seen}}
		},
		Config:  func() metrics.Config { return metrics.Config{Hash: "0123456789ab"} },
		InFiles: func(context.Context) map[string]bool { return map[string]bool{"e": true} },
		Clock:   everything{},

		Certificates: func() map[string]time.Time { return map[string]time.Time{"app.example.com": time.Now()} },
		Firing:       func(context.Context) []metrics.Firing { return []metrics.Firing{{Alert: "a", About: "e"}} },
	}
	answerZero(&o)
	m := metrics.New(o)
	m.Count(everything{})
	m.FrontRequest("app.example.com", 200)
	m.FrontEvents(1, true)
	return m
}

func metricTable(t *testing.T) string {
	m := everyMetric()
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))

	help, kind := map[string]string{}, map[string]string{}
	values := map[string]map[string][]string{} // by metric and label
	var names []string
	lines := bufio.NewScanner(w.Body)
	for lines.Scan() {
		text := lines.Text()
		if m := regexp.MustCompile(`^# (HELP|TYPE) (relay_\w+) (.*)`).FindStringSubmatch(text); m != nil {
			if m[1] == "HELP" {
				help[m[2]] = m[3]
				names = append(names, m[2])
			} else {
				kind[m[2]] = m[3]
			}
			continue
		}
		name := names[max(0, len(names)-1):]
		if len(name) == 0 || !strings.HasPrefix(text, name[0]) {
			continue
		}
		if values[name[0]] == nil {
			values[name[0]] = map[string][]string{}
		}
		for _, m := range regexp.MustCompile(`(\w+)="([^"]*)"`).FindAllStringSubmatch(text, -1) {
			if m[1] != "le" && !slices.Contains(values[name[0]][m[1]], m[2]) {
				values[name[0]][m[1]] = append(values[name[0]][m[1]], m[2])
			}
		}
	}
	slices.Sort(names)
	b := table("metric", "type", "labels", "meaning")
	for _, name := range names {
		var labels []string
		for _, label := range slices.Sorted(maps.Keys(values[name])) {
			text := code(label)
			if v := values[name][label]; len(v) > 1 {
				text += " (" + strings.Join(v, ", ") + ")"
			}
			labels = append(labels, text)
		}
		line(b, code(name), kind[name], strings.Join(labels, "; "), help[name])
	}
	return b.String()
}
