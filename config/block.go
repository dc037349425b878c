package config

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Block reads a block of the file. A method that reads an attribute takes a variable that already
// holds the default: it stays when the attribute is absent or null. The methods report whether
// they have set it. Problems are collected; Done adds unknown attributes and blocks, and Err
// returns all.
type Block struct {
	Type string
	Name string // the label, "" for a block without

	header hcl.Range // type and label
	label  hcl.Range
	attrs  []*hclsyntax.Attribute
	blocks []*hclsyntax.Block

	askedAttrs, askedBlocks []string

	path     string // as Attribute.Block
	file     *File
	source   *source // nil for the root, which may stand in several
	problems *Diagnostics
}

func (b *Block) add(body *hclsyntax.Body) {
	b.attrs = append(b.attrs, slices.Collect(maps.Values(body.Attributes))...)
	b.blocks = append(b.blocks, body.Blocks...)
}

// Blocks returns the blocks of one type. With labelled each has one label, its
// Name.
func (b *Block) Blocks(kind string, labelled bool) []*Block {
	b.file.observer.block(b, kind, labelled)
	if labelled {
		return b.children(kind, func(labels int) bool { return labels == 1 }, fmt.Sprintf(`one label: %s "…" { … }`, kind))
	}
	return b.children(kind, func(labels int) bool { return labels == 0 }, fmt.Sprintf(`no label: %s { … }`, kind))
}

// children returns the blocks of one type with the right number of labels; usage describes it.
func (b *Block) children(kind string, fits func(labels int) bool, usage string) []*Block {
	b.askedBlocks = append(b.askedBlocks, kind)
	var found []*Block
	for _, h := range b.blocks {
		if h.Type != kind {
			continue
		}
		c := &Block{Type: kind, header: h.DefRange(), file: b.file, source: b.source, problems: b.problems}
		if c.source == nil {
			c.source = b.file.source(h.TypeRange.Filename)
		}
		if !fits(len(h.Labels)) {
			c.Fail(c.Place(), "Wrong number of labels", fmt.Sprintf("%s takes %s", kind, usage))
			continue
		}
		if len(h.Labels) > 0 {
			c.Name, c.label = h.Labels[0], h.LabelRanges[0]
		}
		c.path = form{b.path, kind, len(h.Labels) > 0}.path(c.Name)
		c.add(h.Body)
		found = append(found, c)
	}
	return found
}

// One returns the only block of its type, which has no label, or nil; a second one
// is a problem.
func (b *Block) One(kind string) *Block { return b.only(b.Blocks(kind, false)) }

// OneAndLabelled returns the only block of its type that has no label, or nil, and those with one
// label. Duplicates are a problem.
func (b *Block) OneAndLabelled(kind string) (*Block, []*Block) {
	b.file.observer.block(b, kind, false)
	b.file.observer.block(b, kind, true)
	usage := fmt.Sprintf(`one label at most: %s { … } or %s "…" { … }`, kind, kind)
	blocks := b.children(kind, func(labels int) bool { return labels <= 1 }, usage)
	var plain, labelled []*Block
	for _, c := range blocks {
		if c.label.Empty() {
			plain = append(plain, c)
		} else {
			labelled = append(labelled, c)
		}
	}
	return b.only(plain), b.Unique(labelled)
}

// only returns the first block. The content of others of its file is read as a part of it, so
// that what else is wrong there is reported too.
func (b *Block) only(blocks []*Block) *Block {
	if len(blocks) == 0 {
		return nil
	}
	one := blocks[0]
	for _, again := range blocks[1:] {
		b.Fail(again.Place(), "Duplicate "+again.Type, fmt.Sprintf("%s stands already at %s. Put both into one block.", again.Type, one.Place()))
		if again.source == one.source {
			one.attrs, one.blocks = append(one.attrs, again.attrs...), append(one.blocks, again.blocks...)
		}
	}
	return one
}

// onceAtTop reports an attribute of the top level that stands in several files.
func (b *Block) onceAtTop(name string) {
	first := b.attr(name)
	for _, a := range b.attrs {
		if a.Name == name && a != first {
			at := Place{at: a.NameRange, show: a.NameRange}
			b.Fail(at, "Duplicate "+name, fmt.Sprintf("%s stands already at %s. Keep one.", name, first.NameRange))
		}
	}
}

// Unique reports blocks of the same Name. It returns all of them, so that what else is wrong
// with them is reported too.
func (b *Block) Unique(blocks []*Block) []*Block {
	first := map[string]*Block{}
	for _, c := range blocks {
		if one, ok := first[c.Name]; ok {
			b.Fail(c.Label(), "Duplicate "+c.Type, fmt.Sprintf("%s %q stands already at %s. Rename or remove one.", c.Type, c.Name, one.Label()))
			continue
		}
		first[c.Name] = c
	}
	return blocks
}

// Refuse reports attributes and blocks of these names, which are known but not allowed here. The
// detail has a %q for the name.
func (b *Block) Refuse(summary, detail string, names ...string) {
	for _, a := range b.attrs {
		if slices.Contains(names, a.Name) {
			b.Fail(Place{at: a.NameRange, show: a.NameRange}, summary, fmt.Sprintf(detail, a.Name))
		}
	}
	for _, c := range b.blocks {
		if slices.Contains(names, c.Type) {
			b.Fail(Place{at: c.TypeRange, show: c.TypeRange}, summary, fmt.Sprintf(detail, c.Type))
		}
	}
	b.askedAttrs = append(b.askedAttrs, names...)
	b.askedBlocks = append(b.askedBlocks, names...)
}

// Done reports the attributes and blocks that no method has asked for.
func (b *Block) Done() {
	for _, a := range b.attrs {
		if slices.Contains(b.askedAttrs, a.Name) {
			continue
		}
		at := Place{at: a.NameRange, show: a.NameRange}
		hint := Suggest(a.Name, b.askedAttrs)
		if slices.Contains(b.askedBlocks, a.Name) {
			hint = fmt.Sprintf(" It is a block: write %s { … } without the equals sign.", a.Name)
		}
		b.Fail(at, "Unsupported argument", fmt.Sprintf("An argument named %q is not expected here.%s", a.Name, hint))
	}
	for _, c := range b.blocks {
		if slices.Contains(b.askedBlocks, c.Type) {
			continue
		}
		at := Place{at: c.TypeRange, show: c.TypeRange}
		hint := Suggest(c.Type, b.askedBlocks)
		if slices.Contains(b.askedAttrs, c.Type) {
			hint = fmt.Sprintf(" It is an argument: write %s = …", c.Type)
		}
		b.Fail(at, "Unsupported block type", fmt.Sprintf("Blocks of type %q are not expected here.%s", c.Type, hint))
	}
}

// Err is nil, or the Diagnostics of all blocks with the same root.
func (b *Block) Err() error {
	if len(*b.problems) == 0 {
		return nil
	}
	b.problems.sort(b.file.Paths)
	return *b.problems
}

// Fail adds a problem. The texts must not contain possible secrets.
func (b *Block) Fail(p Place, summary, detail string) {
	var text []byte
	if p.at.Start.Line > 0 {
		text = b.file.source(p.at.Filename).text
	}
	b.problems.add(text, p, summary, detail)
}

// Place is the block's head.
func (b *Block) Place() Place { return Place{at: b.header, show: b.header} }

// Label is where the block's name stands.
func (b *Block) Label() Place { return Place{at: b.label, show: b.header} }

// At is the value of an attribute, or the block's head if it is absent.
func (b *Block) At(name string) Place {
	if a := b.attr(name); a != nil {
		return place(a, false, a.Expr)
	}
	return b.Place()
}

// Require reports an attribute that is absent or null; example is how to write it.
func (b *Block) Require(name, example string) bool {
	if a := b.attr(name); a != nil {
		if len(a.Expr.Variables()) > 0 { // it is evaluated for each event
			return true
		}
		if v, diags, err := b.value(a.Expr, b.source.plain); err != nil || diags.HasErrors() || !v.IsNull() {
			return true
		}
	}
	what := "the " + b.Type + " block"
	if b.Name != "" {
		what = fmt.Sprintf("%s %q", b.Type, b.Name)
	}
	b.Fail(b.Place(), "Missing "+name, what+" needs "+example)
	return false
}

// Warn adds a warning about an attribute; Relay starts all the same.
func (b *Block) Warn(name, text string) { b.file.warn(fmt.Sprintf("%s: %s", b.At(name), text)) }

// WarnOnce is Warn about one thing outside of the file, which key names, at the first of the
// attributes that use it.
func (b *Block) WarnOnce(name, key, text string) { b.file.warnOnce(b.At(name), key, text) }

// String reads a string. Errors of the checks are shown with the place.
func (b *Block) String(name string, to *string, checks ...func(string) error) bool {
	b.note(Attribute{Name: name, Kind: "text", Default: written(*to != "", quote(*to))})
	v, ok := b.read(name, cty.String)
	if !ok {
		return false
	}
	for _, check := range checks {
		if err := check(v.AsString()); err != nil {
			b.Invalid(name, err.Error())
			return false
		}
	}
	*to = v.AsString()
	return true
}

// Invalid reports the value of an attribute.
func (b *Block) Invalid(name, detail string) { b.Fail(b.At(name), "Invalid "+name, detail) }

// Bool reads true or false.
func (b *Block) Bool(name string, to *bool) bool {
	b.note(Attribute{Name: name, Kind: "bool", Default: fmt.Sprint(*to)})
	v, ok := b.read(name, cty.Bool)
	if ok {
		*to = v.True()
	}
	return ok
}

// Int reads a whole number from lo to hi.
func (b *Block) Int(name string, to *int, lo, hi int) bool {
	b.note(Attribute{Name: name, Kind: "integer", Default: written(*to >= lo, fmt.Sprint(*to)), Least: fmt.Sprint(lo), Most: fmt.Sprint(hi)})
	v, ok := b.read(name, cty.Number)
	if !ok {
		return false
	}
	n, accuracy := v.AsBigFloat().Int64()
	if accuracy != big.Exact || n < int64(lo) || n > int64(hi) {
		b.Invalid(name, fmt.Sprintf("write a whole number from %d to %d.", lo, hi))
		return false
	}
	*to = int(n)
	return true
}

// Float reads a number from lo to hi.
func (b *Block) Float(name string, to *float64, lo, hi float64) bool {
	b.note(Attribute{Name: name, Kind: "number", Default: written(*to >= lo, decimal(*to)), Least: decimal(lo), Most: decimal(hi)})
	v, ok := b.read(name, cty.Number)
	if !ok {
		return false
	}
	n, _ := v.AsBigFloat().Float64()
	if n < lo || n > hi {
		b.Invalid(name, fmt.Sprintf("write a number from %g to %g.", lo, hi))
		return false
	}
	*to = n
	return true
}

// Share reads a number above 0 and at most 1.
func (b *Block) Share(name string, to *float64) bool {
	b.note(Attribute{Name: name, Kind: "number", Default: written(*to > 0, decimal(*to)), Least: "above 0", Most: "1"})
	v, ok := b.read(name, cty.Number)
	if !ok {
		return false
	}
	n, _ := v.AsBigFloat().Float64()
	if n <= 0 || n > 1 {
		b.Invalid(name, "write a number above 0, up to 1.")
		return false
	}
	*to = n
	return true
}

// Duration reads a duration from lo to hi.
func (b *Block) Duration(name string, to *time.Duration, lo, hi time.Duration) bool {
	b.note(Attribute{Name: name, Kind: "duration", Default: written(*to >= lo, quote(FormatDuration(*to))), Least: quote(FormatDuration(lo)), Most: quote(FormatDuration(hi))})
	v, ok := b.read(name, cty.String)
	if !ok {
		return false
	}
	d, err := DurationBetween(v.AsString(), lo, hi)
	if err != nil {
		b.Invalid(name, err.Error())
		return false
	}
	*to = d
	return true
}

// DurationBetween is ParseDuration with limits.
func DurationBetween(s string, lo, hi time.Duration) (time.Duration, error) {
	d, err := ParseDuration(s)
	if err == nil && (d < lo || d > hi) {
		err = fmt.Errorf("must be from %s to %s", FormatDuration(lo), FormatDuration(hi))
	}
	return d, err
}

// Size reads a number of bytes from lo to hi.
func (b *Block) Size(name string, to *int64, lo, hi int64) bool {
	b.note(Attribute{Name: name, Kind: "size", Default: written(*to >= lo, quote(FormatSize(*to))), Least: quote(FormatSize(lo)), Most: quote(FormatSize(hi))})
	v, ok := b.read(name, cty.String)
	if !ok {
		return false
	}
	n, err := ParseSize(v.AsString())
	if err == nil && (n < lo || n > hi) {
		err = fmt.Errorf("must be from %s to %s", FormatSize(lo), FormatSize(hi))
	}
	if err != nil {
		b.Invalid(name, err.Error())
		return false
	}
	*to = n
	return true
}

// OneOf is a check for String.
func OneOf(allowed ...string) func(string) error {
	return func(s string) error {
		if slices.Contains(allowed, s) {
			return nil
		}
		return fmt.Errorf(`must be "%s".%s`, strings.Join(allowed, `" or "`), Suggest(s, allowed))
	}
}

func (b *Block) attr(name string) *hclsyntax.Attribute {
	i := slices.IndexFunc(b.attrs, func(a *hclsyntax.Attribute) bool { return a.Name == name })
	if i < 0 {
		return nil
	}
	return b.attrs[i]
}

// ask finds an attribute and marks it as known.
func (b *Block) ask(name string) *hclsyntax.Attribute {
	b.askedAttrs = append(b.askedAttrs, name)
	return b.attr(name)
}

// read evaluates an attribute that holds no secret.
func (b *Block) read(name string, want cty.Type) (cty.Value, bool) {
	a := b.ask(name)
	if a == nil {
		return cty.NilVal, false
	}
	v, ok := b.evaluate(a.Expr, want, place(a, false, a.Expr), false)
	return v, ok && !v.IsNull()
}
