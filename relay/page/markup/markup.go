// Package markup executes templates in the syntax of html/template, with a smaller part of its language.
//
// html/template looks up methods by names that the linker does not know. With it in the binary, the linker keeps every
// exported method of every type: 12 MB of 40. Here a value that offers methods to templates has
// the interface Methods, or one of a few fixed ones. The parser is that of the standard library.
//
// Escaping depends on where a value stands, as there. But there are only three such places, and a template
// that writes anywhere else is refused when it is parsed: the text of elements, the value of an attribute in
// double quotes, and such a value that is an address (href, action, src). Names of attributes that hold
// code or style, and the elements script and style with text in them, are refused as well. A test of relay/page shows all screens
// with html/template, too, and compares.
package markup

import (
	"fmt"
	"html/template"
	"io"
	"reflect"
	"text/template/parse"
)

// HTML is markup that is safe: it is written as it is, in the text of elements. Elsewhere it is refused.
type HTML = template.HTML

// Methods is a value that offers functions to templates.
type Methods interface {
	// Method returns a function, or nil for a name that it does not have.
	Method(name string) any
}

// Set is templates that call each other by name.
type Set struct {
	funcs  map[string]reflect.Value
	trees  map[string]*parse.Tree
	places map[parse.Node]place // of actions
}

// Parse reads texts by the names of their files, whose templates are those of their define blocks. funcs are called by name; they
// return a value, or a value and an error.
func Parse(files map[string]string, funcs map[string]any) (*Set, error) {
	s := &Set{funcs: map[string]reflect.Value{}, trees: map[string]*parse.Tree{}, places: map[parse.Node]place{}}
	for name, f := range builtins() {
		s.funcs[name] = reflect.ValueOf(f)
	}
	for name, f := range funcs {
		s.funcs[name] = reflect.ValueOf(f)
	}
	for name, text := range files {
		if err := s.parse(name, text); err != nil {
			return nil, fmt.Errorf("parse templates: %w", err)
		}
	}
	for name, tree := range s.trees {
		if err := s.locate(tree); err != nil {
			return nil, fmt.Errorf("parse templates: %s: %w", name, err)
		}
	}
	return s, nil
}

func (s *Set) parse(name, text string) error {
	known := map[string]any{}
	for name := range s.funcs {
		known[name] = true
	}
	trees, err := parse.Parse(name, text, "", "", known)
	if err != nil {
		return err
	}
	for name, tree := range trees {
		if tree.Root != nil && !parse.IsEmptyTree(tree.Root) {
			s.trees[name] = tree
		}
	}
	return nil
}

// Names lists the templates.
func (s *Set) Names() []string {
	var all []string
	for name := range s.trees {
		all = append(all, name)
	}
	return all
}

// Execute writes a template. What was written before an error stays written.
func (s *Set) Execute(w io.Writer, name string, data any) error {
	tree := s.trees[name]
	if tree == nil {
		return fmt.Errorf("there is no template %s", name)
	}
	x := &execution{set: s, out: w, tree: tree}
	root := reflect.ValueOf(data)
	x.vars = []variable{{"$", root}}
	_, err := x.list(root, tree.Root)
	return err
}
