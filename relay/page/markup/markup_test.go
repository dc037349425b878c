package markup

import (
	"bytes"
	"html/template"
	"strings"
	"testing"
	"time"
)

type item struct {
	Name  string
	Count int
	Big   int64
	Rate  *float64
	When  time.Time
	Tags  []string
	Of    map[string][]string
	Safe  HTML
	Inner *item
	Any   any
}

func (i *item) Greet(who string) string { return "<" + who + ">" }

// Method offers Greet.
func (i *item) Method(name string) any {
	if name == "Greet" {
		return i.Greet
	}
	return nil
}

func funcs() map[string]any {
	return map[string]any{
		"t":    func(key string, args ...any) string { return key },
		"n":    func(key string, n int64) string { return key },
		"list": func(items ...any) []any { return items },
		"safe": func() HTML { return "<b>safe</b>" },
		"fail": func() (string, error) { return "", errTest },
	}
}

type testError string

func (e testError) Error() string { return string(e) }

const errTest = testError("it failed")

func hostile() *item {
	rate := 0.5
	return &item{
		Name: `"><script>alert('1')</script>&+` + "\x00", Count: 3, Big: 1 << 40, Rate: &rate, When: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Tags: []string{"a<b", "", `c"d`}, Of: map[string][]string{"z": {"1"}, "a": {"<", ">"}}, Safe: "<i>x</i>",
		Inner: &item{Name: "inner", Tags: []string{"/path?q=a b&c='d'(e)"}}, Any: "text",
	}
}

// good are templates that html/template writes the same way.
var good = []string{
	`<p>{{.Name}}</p><p title="{{.Name}}">{{.Count}} {{.Big}} {{.Rate}} {{.Safe}}</p>`,
	`{{range .Tags}}<li>{{.}}</li>{{else}}none{{end}}{{range $i, $t := .Tags}}{{if $i}}, {{end}}{{$t}}{{end}}`,
	`{{range $k, $v := .Of}}{{$k}}={{range $v}}{{.}};{{end}}{{end}}`,
	`{{with .Inner}}{{.Name}} {{with .Inner}}never{{else}}empty{{end}}{{end}}{{with $x := .Count}}{{$x}}{{end}}`,
	`{{if and .Name (eq .Count 3)}}yes{{else if not .Name}}no{{end}}{{if or .Inner.Inner .Tags}}or{{end}}`,
	`<a href="{{index .Inner.Tags 0}}">x</a><a href="/a/{{.Inner.Name}}?b={{.Inner.Name}}">y</a><form action="{{"/x"}}"></form>`,
	`{{.Greet "you"}}{{.Greet .Name | printf "%s!"}}{{len .Tags}}{{index .Of "a" 0}}{{printf "%d-%s" .Count .Inner.Name}}{{print 1 2.5 true}}`,
	`{{define "part"}}[{{.}}{{$}}]{{end}}{{template "part" .Name}}{{template "part" .Inner.Name}}`,
	`<option value="{{.Name}}"{{if eq .Inner.Name "inner" "x"}} selected{{end}}>{{t .Name}}</option>`,
	`<button{{with .Inner}} class="{{.Name}}"{{end}}>{{safe}}</button>`,
	`{{$a := 1}}{{if true}}{{$a = 2}}{{end}}{{$a}}{{range 3}}{{.}}{{if eq . 1}}{{break}}{{end}}{{end}}`,
	`{{range .Tags}}{{if not .}}{{continue}}{{end}}({{.}}){{end}}{{if .When.IsZero}}zero{{end}}{{lt 1 2}}{{ge .Big 5}}{{ne "a" "b"}}`,
	`<textarea>{{.Name}}</textarea><title>{{.Name}}</title><input value="{{.Tags}}"><script type="module" src="/x.js"></script>`,
	`{{/* a comment */}}{{- " x " -}}{{(index (list .Inner) 0).Name}}{{n "key" .Big}}{{eq .Any "text"}}{{.Inner.Any}}`,
}

func both(t *testing.T, text string) (ours, theirs string) {
	t.Helper()
	set, err := Parse(map[string]string{"x": text}, funcs())
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var a, b bytes.Buffer
	if err := set.Execute(&a, "x", hostile()); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	std, err := template.New("x").Funcs(funcs()).Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := std.Execute(&b, hostile()); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return a.String(), b.String()
}

func TestSameAsHTMLTemplate(t *testing.T) {
	for _, text := range good {
		if ours, theirs := both(t, text); ours != theirs {
			t.Errorf("%s\nours:   %s\ntheirs: %s", text, ours, theirs)
		}
	}
}

// Values can be of any text, in every place.
func FuzzSameAsHTMLTemplate(f *testing.F) {
	for _, s := range []string{"", "a", hostile().Name, "javascript:alert(1)", "//evil", "/a b", `\`, "é\xff\u2028", "%zz%41", "/?a=b&c=<"} {
		f.Add(s)
	}
	const text = `<p title="{{.}}">{{.}}</p><textarea>{{.}}</textarea><a href="/x/{{.}}">{{.}}</a>`
	set, err := Parse(map[string]string{"x": text}, nil)
	if err != nil {
		f.Fatal(err)
	}
	std := template.Must(template.New("x").Parse(text))
	f.Fuzz(func(t *testing.T, s string) {
		var a, b bytes.Buffer
		if err := set.Execute(&a, "x", s); err != nil {
			t.Fatal(err)
		}
		if err := std.Execute(&b, s); err != nil {
			t.Fatal(err)
		}
		if a.String() != b.String() {
			t.Errorf("%q\nours:   %s\ntheirs: %s", s, &a, &b)
		}
	})
}

// Addresses of other sites, and code as an address, cannot be put in.
func TestAddresses(t *testing.T) {
	set, err := Parse(map[string]string{"x": `<a href="{{.}}">x</a>`}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"/a": "/a", "?b=1": "?b=1", "#c": "#c", "javascript:alert(1)": unsafe, "https://evil": unsafe, "//evil": unsafe, `/\evil`: unsafe, "": unsafe, " /a": unsafe,
	} {
		var out strings.Builder
		if err := set.Execute(&out, "x", in); err != nil || out.String() != `<a href="`+want+`">x</a>` {
			t.Errorf("%q: %s %v", in, &out, err)
		}
	}
}

// A value behind a branch may be the first part of an address.
func TestAddressBehindBranch(t *testing.T) {
	set, err := Parse(map[string]string{"x": `<a href="{{if .Count}}{{else}}/a/{{end}}{{.Name}}">x</a>`}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := set.Execute(&out, "x", &item{Count: 1, Name: "javascript:alert(1)"}); err != nil || out.String() != `<a href="`+unsafe+`">x</a>` {
		t.Errorf("%s %v", &out, err)
	}
}

func TestRefusedTemplates(t *testing.T) {
	for text, want := range map[string]string{
		`<a {{.Name}}>`:                              "nothing may be put in",
		`<a href={{.Name}}>`:                         "nothing may be put in",
		`<a href='x'>`:                               "not in double quotes",
		`<{{.Name}}>`:                                "nothing may be put in",
		`<script>alert({{.Name}})</script>`:          "nothing may be put in",
		`<style>a { color: {{.Name}} }</style>`:      "nothing may be put in",
		`<script>alert(1)</script>`:                  "script has text",
		`<p style="{{.Name}}">`:                      "attribute style",
		`<p onclick="x()">`:                          "attribute onclick",
		`<p {{if .Name}}on{{end}}click="x()">`:       "a name that a branch began",
		`<p title="{{if .Name}}a"{{end}}`:            "another place",
		`<p title="`:                                 "within a tag",
		`<p {{template "p"}}>{{define "p"}}x{{end}}`: "within a tag",
		`<!-- {{.Name}} -->`:                         "comment",
		`{{nothing}}`:                                "not defined",
	} {
		if _, err := Parse(map[string]string{"x": text}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, not %q", text, err, want)
		}
	}
}

func TestErrorsOfExecution(t *testing.T) {
	for text, want := range map[string]string{
		`{{.Missing}}`:            "no field or method Missing",
		`{{.Inner.Inner.Name}}`:   "no Name of nothing",
		`{{template "nowhere"}}`:  "no template nowhere",
		`{{fail}}`:                "it failed",
		`{{.Greet}}`:              "takes 1 arguments",
		`{{.Greet 5}}`:            "argument 1",
		`{{index .Tags 9}}`:       "no item 9",
		`{{lt .Name 1}}`:          "cannot be compared",
		`<p title="{{.Safe}}">`:   "markup cannot be put into attribute title",
		`{{range .Name}}x{{end}}`: "has no items",
		`{{define "a"}}{{template "a"}}{{end}}{{template "a"}}`: "without an end",
	} {
		set, err := Parse(map[string]string{"x": text}, funcs())
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if err := set.Execute(&bytes.Buffer{}, "x", hostile()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, not %q", text, err, want)
		}
	}
}
