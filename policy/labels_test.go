package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"relay/config"
)

func TestLabels(t *testing.T) {
	const rest = "\n url = \"https://example.com\"\n sign = [\"none\"]\n}\n"
	p := mustDecode(t, "endpoint \"a\" {\n labels = { project = \"web\", team = env(\"NAME\") }"+rest+"endpoint \"b\" {\n labels = { project = \"web\" }"+rest+"endpoint \"c\" {"+rest)
	name, _ := testEnv("NAME")
	if diff := cmp.Diff([]string{"a", "b"}, p.Labelled("project", "web")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := p.Labelled("project", "app"); got != nil {
		t.Errorf("nobody's label is of %v", got)
	}
	// What env() gave can be searched for, and is not shown.
	if got := p.Labelled("team", name); len(got) != 1 || p.Endpoint("a").Shown().Labels != nil || p.Endpoint("b").Shown().Labels == nil {
		t.Errorf("labels: %v, %v", got, p.Endpoint("a").Shown().Labels)
	}
	changed := mustDecode(t, "endpoint \"b\" {\n labels = { project = \"app\" }"+rest)
	want := []Change{{Endpoint: "b", Kind: Changed}}
	got := Diff(New([]*Endpoint{p.Endpoint("b")}), changed)
	if len(got) != 1 || got[0].Kind != want[0].Kind || len(got[0].Settings) != 1 || got[0].Settings[0].Name != "labels.project" {
		t.Errorf("diff is %+v", got)
	}
	// Nor is it as the name of a label.
	drawn := mustDecode(t, "endpoint \"b\" {\n labels = { (env(\"NAME\")) = \"web\" }"+rest)
	got = Diff(New([]*Endpoint{p.Endpoint("b")}), drawn)
	if want := []config.Change{{Name: "labels", New: Hidden}, {Name: "labels.project", Old: `"web"`}}; len(got) != 1 || !cmp.Equal(want, got[0].Settings) {
		t.Errorf("diff is %+v, want %+v", got, want)
	}
}
