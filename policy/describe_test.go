package policy

import (
	"os"
	"regexp"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"relay/config"
)

func described() []config.Attribute {
	return config.Describe(func(f *config.File) { _, _ = Decode(f) })
}

// The description is made of what decoders ask for, so all that the example file shows is in
// it, and the example shows all that is in it.
func TestDescribeAndTheExampleFileAgree(t *testing.T) {
	const name = "../relay.hcl.example"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	f, diags := hclsyntax.ParseConfig(text, name, hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	inDocs := map[string]bool{}
	for _, a := range described() {
		inDocs[a.Block+" "+a.Name] = true
		if !regexp.MustCompile(`(?m)^[# ]*` + a.Name + ` *=|[{;] ` + a.Name + ` +=`).Match(text) {
			t.Errorf("the example file does not show %s of %s", a.Name, a.Block)
		}
	}
	walk(f.Body.(*hclsyntax.Body), "", func(block, attribute string) {
		if !inDocs[block+" "+attribute] {
			t.Errorf("%s of %q is in the example file, and no decoder asked for it in an empty block", attribute, block)
		}
	})
}

// walk calls visit for each attribute, with the blocks around it as in config.Attribute.
func walk(body *hclsyntax.Body, block string, visit func(block, attribute string)) {
	for name := range body.Attributes {
		visit(block, name)
	}
	for _, b := range body.Blocks {
		path := b.Type
		switch {
		case b.Type == "outbox":
			path += ` "` + b.Labels[0] + `"`
		case len(b.Labels) > 0:
			path += ` "LABEL"`
		}
		if block != "" {
			path = block + " " + path
		}
		walk(b.Body, path, visit)
	}
}

func TestDescribeTellsDefaultsAndBounds(t *testing.T) {
	want := map[string]config.Attribute{
		"retry jitter":           {Kind: "number", Default: "0.1", Least: "0", Most: "1"},
		"retry \"LABEL\" jitter": {Kind: "number", Least: "0", Most: "1"}, // as in retry
		"timeout total":          {Kind: "duration", Default: `"15s"`, Least: `"1ms"`, Most: `"10m"`},
		"batch max_bytes":        {Kind: "size", Default: `"256KiB"`, Least: `"1KiB"`, Most: `"16MiB"`},
		"breaker enabled":        {Kind: "bool", Default: "true"},
		"rate_limit limit":       {Kind: "integer", Least: "1", Most: "1000000"}, // no default
	}
	for _, a := range described() {
		w, ok := want[a.Block[min(len(a.Block), len(`policy "LABEL" `)):]+" "+a.Name]
		if !ok || a.Block[0] != 'p' {
			continue
		}
		w.Block, w.Name = a.Block, a.Name
		if a != w {
			t.Errorf("got %+v, want %+v", a, w)
		}
		delete(want, a.Block[len(`policy "LABEL" `):]+" "+a.Name)
	}
	for key := range want {
		t.Errorf("%s is not described", key)
	}
}
