package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// Shape says how a block's parts are written: which of its members are blocks, and which are
// expressions. Members are named like retry.schedule. Others are attributes.
type Shape struct {
	blocks, labelled, exprs, attrs map[string]bool
}

// ShapeOf is the shape of a block, given as in Attribute.Block, from the attributes that Describe lists.
func ShapeOf(block string, all []Attribute) Shape {
	s := Shape{blocks: map[string]bool{}, labelled: map[string]bool{}, exprs: map[string]bool{}, attrs: map[string]bool{}}
	for _, a := range all {
		inner, ok := strings.CutPrefix(a.Block+" ", block+" ")
		if !ok {
			continue
		}
		inner = strings.TrimSpace(inner)
		inner, labelled := strings.CutSuffix(inner, ` "LABEL"`)
		name := a.Name
		if inner != "" {
			inner = strings.ReplaceAll(inner, " ", ".")
			s.blocks[inner] = true
			s.labelled[inner] = s.labelled[inner] || labelled
			name = inner + "." + a.Name
		}
		s.attrs[name] = true
		if a.Kind == "expression" || a.Kind == "template" {
			s.exprs[name] = true
		}
	}
	return s
}

// Fragment is a block of the file that was made from JSON, as text. It can be shown to people,
// and put into a file.
type Fragment struct {
	kind   string
	text   bytes.Buffer
	places []string // a JSON pointer (RFC 6901) for each line
	shape  Shape
}

// Flaw is a problem of a Fragment's JSON.
type Flaw struct {
	Pointer string // of the value (RFC 6901); "" for the whole
	Detail  string // why, and what to write
}

func (f Flaw) Error() string {
	if f.Pointer == "" {
		return f.Detail
	}
	return f.Pointer + ": " + f.Detail
}

// Flaws are all problems.
type Flaws []Flaw

func (fs Flaws) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// NewFragment writes a block with the label from a JSON object: members are attributes, and objects
// where the file has a block. In a block that can have labels, members that are objects
// and no attributes are such blocks: {"retry":{"jitter":0,"429":{…}}}. Texts are what they say, without
// interpolation; null is an absent member. Errors: Flaws.
func NewFragment(kind, label string, object []byte, s Shape) (*Fragment, error) {
	f := &Fragment{kind: kind, shape: s}
	if !jsontext.Value(object).IsValid() {
		return nil, Flaws{{"", "this is not JSON, or an object has a name twice"}}
	}
	if !isObject(object) {
		return nil, Flaws{{"", "write an object: {…}"}}
	}
	f.line("", kind+" "+quoteHCL(label)+" {")
	if flaws := f.members("", "", object); flaws != nil {
		return nil, flaws
	}
	f.line("", "}")
	return f, nil
}

// Text is the fragment as the file would have it.
func (f *Fragment) Text() string { return string(hclwrite.Format(f.text.Bytes())) }

func (f *Fragment) line(pointer, text string) {
	f.text.WriteString(text)
	f.text.WriteByte('\n')
	for range 1 + strings.Count(text, "\n") {
		f.places = append(f.places, pointer)
	}
}

// members writes the members of an object. path is its place in the Shape.
func (f *Fragment) members(path, pointer string, object json.RawMessage) (flaws Flaws) {
	all := map[string]json.RawMessage{}
	if json.Unmarshal(object, &all) != nil {
		return Flaws{{pointer, "write an object: {…}"}}
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		v, at, name := all[key], pointer+"/"+EscapePointer(key), strings.TrimPrefix(path+"."+key, ".")
		switch {
		case string(v) == "null":
		case f.shape.blocks[name]:
			flaws = append(flaws, f.blocksOf(name, at, v)...)
		case !f.shape.attrs[name]:
			flaws = append(flaws, Flaw{at, "there is no such attribute." + Suggest(key, f.shape.namesIn(path))})
		default:
			text, err := f.value(name, v)
			if err != nil {
				flaws = append(flaws, Flaw{at, err.Error()})
				continue
			}
			f.line(at, key+" = "+text)
		}
	}
	return flaws
}

// namesIn are the members that a block can have.
func (s Shape) namesIn(path string) (names []string) {
	for _, set := range []map[string]bool{s.attrs, s.blocks} {
		for name := range set {
			if inner, ok := strings.CutPrefix(name, path); ok && !strings.Contains(strings.TrimPrefix(inner, "."), ".") {
				names = append(names, strings.TrimPrefix(inner, "."))
			}
		}
	}
	slices.Sort(names)
	return names
}

// blocksOf writes the blocks of one type: that without a label, then those with labels.
func (f *Fragment) blocksOf(name, pointer string, object json.RawMessage) (flaws Flaws) {
	all := map[string]json.RawMessage{}
	if !isObject(object) || json.Unmarshal(object, &all) != nil {
		return Flaws{{pointer, "write an object: {…}"}}
	}
	kind := name[strings.LastIndexByte(name, '.')+1:]
	labelled := map[string]json.RawMessage{}
	if f.shape.labelled[name] {
		for key, v := range all {
			if member := name + "." + key; isObject(v) && !f.shape.attrs[member] && !f.shape.blocks[member] {
				labelled[key] = v
				delete(all, key)
			}
		}
	}
	if len(all) > 0 || len(labelled) == 0 {
		plain, err := json.Marshal(all)
		if err != nil {
			return Flaws{{pointer, err.Error()}}
		}
		f.line(pointer, kind+" {")
		flaws = append(flaws, f.members(name, pointer, plain)...)
		f.line(pointer, "}")
	}
	for _, label := range slices.Sorted(maps.Keys(labelled)) {
		at := pointer + "/" + EscapePointer(label)
		f.line(at, kind+" "+quoteHCL(label)+" {")
		flaws = append(flaws, f.members(name, at, labelled[label])...)
		f.line(at, "}")
	}
	return flaws
}

// value is the value of an attribute as the file has it: a literal, or an expression, in parentheses so
// that it cannot end early.
func (f *Fragment) value(name string, v json.RawMessage) (string, error) {
	if !f.shape.exprs[name] {
		return literal(v)
	}
	var text string
	if json.Unmarshal(v, &text) != nil {
		return "", errors.New(`write the expression as a text: "event.data.amount > 100"`)
	}
	e, diags := hclsyntax.ParseExpression([]byte(text), "", hcl.InitialPos)
	if diags.HasErrors() {
		return "", errors.New("this is no expression: " + diags[0].Summary)
	}
	if drawingOf(e).any {
		return "", errors.New("env() and file() are for the file alone")
	}
	return "(\n" + text + "\n)", nil
}

// literal is a value as the file has it.
func literal(v json.RawMessage) (string, error) {
	t, err := ctyjson.ImpliedType(v)
	if err != nil {
		return "", err
	}
	value, err := ctyjson.Unmarshal(v, t)
	if err != nil {
		return "", err
	}
	return string(hclwrite.TokensForValue(value).Bytes()), nil
}

// quoteHCL writes a text in quotes, without interpolation.
func quoteHCL(s string) string { return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes()) }

func isObject(v json.RawMessage) bool { return bytes.HasPrefix(bytes.TrimSpace(v), []byte("{")) }

// EscapePointer escapes a name for a JSON pointer (RFC 6901 section 3).
func EscapePointer(key string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(key) }

// Block parses the fragment and returns its block. env and file are not there, and attributes take no paths of files. Flaws names the
// problems of the block by their places in the JSON.
func (f *Fragment) Block() (*Block, error) {
	file := &File{Paths: []string{fragmentName}, sources: []*source{{name: fragmentName, text: f.text.Bytes()}}, fragment: true}
	s := file.sources[0]
	if problems := s.parse(); len(problems) > 0 {
		return nil, f.flaws(problems)
	}
	none := func(string) (string, bool) { return "", false }
	s.plain, _ = contexts(s.name, none, file)
	// value refuses calls of them; should one pass all the same, there is nothing to read.
	s.plain.Functions["file"] = s.plain.Functions["env"]
	s.draw = func(d drawer) map[string]function.Function {
		empty := envFunction(none, d)
		return map[string]function.Function{"env": empty, "file": empty}
	}
	root := file.Root()
	root.askedBlocks = []string{f.kind}
	return root.children(f.kind, func(int) bool { return true }, "")[0], nil
}

const fragmentName = "endpoint.json"

// Flaws are the problems of a Block of the fragment, nil for none.
func (f *Fragment) Flaws(b *Block) error {
	err := b.Err()
	if problems, ok := errors.AsType[Diagnostics](err); ok {
		return f.flaws(problems)
	}
	return err
}

func (f *Fragment) flaws(problems Diagnostics) Flaws {
	var flaws Flaws
	for _, p := range problems {
		pointer := ""
		if n := p.Range.Start.Line; n > 0 && n <= len(f.places) {
			pointer = f.places[n-1]
		}
		detail := p.Summary
		if p.Detail != "" {
			detail += ". " + p.Detail
		}
		flaws = append(flaws, Flaw{pointer, detail})
	}
	return flaws
}
