package policy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A file can name each code that attempts record, and no other.
func TestCodesCanBeNamed(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "outcomes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	ast.Inspect(f, func(n ast.Node) bool {
		if c, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(c.Names[0].Name, "Code") {
			code, err := strconv.Unquote(c.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			codes = append(codes, code)
		}
		return true
	})
	all, err := ParseOutcomes(codes)
	if err != nil {
		t.Fatal(err)
	}
	if got := all.List(); !slices.Equal(got, []string{network, timeout}) {
		t.Errorf("with all of %q a file says %q: it knows others", codes, got)
	}
}
