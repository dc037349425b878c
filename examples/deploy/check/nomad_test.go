package deploy

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/nomad/api"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// The job is held against the tags of Nomad's own types, which its parser decodes into: every
// block and attribute must be one of them, with a value of its type.
func TestNomad(t *testing.T) {
	text := read(t, "nomad/shop.nomad.hcl")
	f, problems := hclsyntax.ParseConfig(text, "shop.nomad.hcl", hcl.InitialPos)
	if problems.HasErrors() {
		t.Fatal(problems)
	}
	files := 0
	for _, b := range f.Body.(*hclsyntax.Body).Blocks {
		if b.Type != "job" {
			t.Errorf("%s: block %s", b.TypeRange, b.Type)
			continue
		}
		fits(t, b.Body, reflect.TypeFor[api.Job](), func(template string) {
			if strings.Contains(template, "endpoint ") {
				files++
				checked(t, template)
			}
		})
		for _, g := range b.Body.Blocks {
			checkTasks(t, g)
		}
	}
	if files != 1 {
		t.Errorf("found %d files of Relay in templates, want 1", files)
	}
}

// checkTasks checks the arguments of Relay.
func checkTasks(t *testing.T, group *hclsyntax.Block) {
	for _, task := range group.Body.Blocks {
		if task.Type != "task" || task.Labels[0] != "relay" {
			continue
		}
		for _, b := range task.Body.Blocks {
			if b.Type != "config" {
				continue
			}
			var args []string
			list, problems := b.Body.Attributes["args"].Expr.Value(nil)
			if problems.HasErrors() {
				t.Fatal(problems)
			}
			for _, v := range list.AsValueSlice() {
				args = append(args, v.AsString())
			}
			serves(t, args)
		}
	}
}

// fits holds a body against a struct; template gets the texts of templates.
func fits(t *testing.T, body *hclsyntax.Body, as reflect.Type, template func(string)) {
	for as.Kind() == reflect.Pointer || as.Kind() == reflect.Slice {
		as = as.Elem()
	}
	if as.Kind() == reflect.Map {
		return // names of the user or of a driver
	}
	for _, a := range body.Attributes {
		field, ok := tagged(as, a.Name, "block")
		if !ok {
			t.Errorf("%s: Nomad knows no attribute %s here", a.NameRange, a.Name)
			continue
		}
		v, problems := a.Expr.Value(nil)
		if problems.HasErrors() {
			t.Error(problems)
			continue
		}
		if err := hasType(v, field.Type); err != nil {
			t.Errorf("%s: %s: %v", a.NameRange, a.Name, err)
		}
		if as == reflect.TypeFor[api.Template]() && a.Name == "data" {
			template(v.AsString())
		}
	}
	for _, b := range body.Blocks {
		field, ok := tagged(as, b.Type, "optional")
		if !ok {
			t.Errorf("%s: Nomad knows no block %s here", b.TypeRange, b.Type)
			continue
		}
		fits(t, b.Body, field.Type, template)
	}
}

// tagged finds the field for a name; not is the kind that it must not be.
func tagged(as reflect.Type, name, not string) (reflect.StructField, bool) {
	for field := range as.Fields() {
		tag, kind, _ := strings.Cut(field.Tag.Get("hcl"), ",")
		if tag == name && kind != not && kind != "label" {
			return field, true
		}
	}
	return reflect.StructField{}, false
}

// hasType tells whether a value can be decoded into a field.
func hasType(v cty.Value, as reflect.Type) error {
	for as.Kind() == reflect.Pointer {
		as = as.Elem()
	}
	want := cty.DynamicPseudoType
	switch {
	case as == reflect.TypeFor[time.Duration]():
		_, err := time.ParseDuration(v.AsString())
		return err
	case as.Kind() == reflect.String:
		want = cty.String
	case as.Kind() == reflect.Bool:
		want = cty.Bool
	case as.Kind() == reflect.Int:
		want = cty.Number
	case as.Kind() == reflect.Slice:
		want = cty.List(cty.String)
	}
	_, err := convert.Convert(v, want)
	return err
}
