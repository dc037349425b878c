package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Attribute is one that a block of the file can have.
type Attribute struct {
	Block   string // the types of the blocks around it, from the outside: `policy retry "LABEL"`
	Name    string
	Kind    string // text, list, duration, …
	Default string // as it is written in the file; "" where there is none or code derives it
	Least   string // as Default, "" for a kind without order
	Most    string
	Secret  bool // no diagnostic shows its value
}

// Describe returns every attribute that decoders ask for, in their order. rest decodes the parts
// of other packages.
//
// It decodes a file of empty blocks, adds the blocks that decoders ask for, and repeats that
// until there are no new ones. So no attribute has to be listed. Decoders must ask for all
// attributes even in empty blocks, whatever the values of others.
func Describe(rest func(*File)) []Attribute {
	o := &observer{}
	for {
		known := len(o.forms)
		o.attributes = nil
		src := []byte(o.write("", 0))
		f := &File{Paths: []string{"describe.hcl"}, observer: o, sources: []*source{{name: "describe.hcl", text: append(src, '\n')}}}
		env := func(string) (string, bool) { return "", false }
		if problems := f.sources[0].parse(); len(problems) > 0 {
			panic(problems) // the text is ours
		}
		f.sources[0].plain, f.sources[0].draw = contexts("describe.hcl", env, f)
		f.Config = decode(f.Root(), Default(env))
		rest(f)
		if len(o.forms) == known {
			return o.attributes
		}
	}
}

// observer records the attributes that decoders ask for; a File has one only in Describe.
type observer struct {
	attributes []Attribute
	forms      []form
}

// form is a way to write a block.
type form struct {
	parent   string // as Attribute.Block
	kind     string
	labelled bool
}

// path is the block's Attribute.Block. An engine has blocks and attributes of its own.
func (f form) path(label string) string {
	switch {
	case f.kind == "outbox":
		label = ` "` + label + `"`
	case f.labelled:
		label = ` "LABEL"`
	}
	return strings.TrimSpace(f.parent + " " + f.kind + label)
}

// labels are the labels with which a block of the type is tried.
func (f form) labels() []string {
	switch {
	case !f.labelled:
		return []string{""}
	case f.kind == "outbox":
		return []string{"sqlite", "redis"}
	}
	return []string{"default"} // a policy of this name begins with the defaults
}

// write makes the text of all blocks below one.
func (o *observer) write(parent string, depth int) string {
	indent := strings.Repeat("  ", depth)
	var text strings.Builder
	for _, f := range o.forms {
		if f.parent != parent {
			continue
		}
		for _, label := range f.labels() {
			head := f.kind
			if f.labelled {
				head = fmt.Sprintf("%s %q", f.kind, label)
			}
			fmt.Fprintf(&text, "%s%s {\n%s%s}\n", indent, head, o.write(f.path(label), depth+1), indent)
		}
	}
	return text.String()
}

// block notes a type of block that b was asked for.
func (o *observer) block(b *Block, kind string, labelled bool) {
	if f := (form{b.path, kind, labelled}); o != nil && !slices.Contains(o.forms, f) {
		o.forms = append(o.forms, f)
	}
}

// note adds an attribute that b was asked for; the first time counts.
func (b *Block) note(a Attribute) {
	o := b.file.observer
	if o == nil {
		return
	}
	a.Block = b.path
	same := func(x Attribute) bool { return x.Block == a.Block && x.Name == a.Name }
	if !slices.ContainsFunc(o.attributes, same) {
		o.attributes = append(o.attributes, a)
	}
}

// written is a default as text, or "" if the value cannot be written in a file because code
// derives it.
func written(valid bool, value string) string {
	if !valid {
		return ""
	}
	return value
}

// decimal writes a number, or "" for the largest ones, which bound nothing.
func decimal(f float64) string {
	return written(math.Abs(f) < math.MaxFloat64, strconv.FormatFloat(f, 'g', -1, 64))
}

func quote(s string) string { return fmt.Sprintf("%q", s) }
