package config

import (
	"errors"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// Item is an element of a list, with its place.
type Item struct {
	Value string
	Place Place
}

// Pair is a part of an object, in the order of the file, with its places.
type Pair struct {
	Key      string
	KeyPlace Place
	Expr     hclsyntax.Expression
	Place    Place // of Expr
}

// Entry is a Pair with its value.
type Entry struct {
	Key      string
	KeyPlace Place
	Value    Secret
	Place    Place
}

// List reads a list of strings and numbers, which become strings.
func (b *Block) List(name string) ([]Item, bool) { return b.list(name, false, false) }

// Texts reads a list of strings.
func (b *Block) Texts(name string) ([]Item, bool) { return b.list(name, true, false) }

// Secrets reads a list of strings that no diagnostic shows.
func (b *Block) Secrets(name string) ([]Item, bool) { return b.list(name, true, true) }

func (b *Block) list(name string, texts, secret bool) ([]Item, bool) {
	b.note(Attribute{Name: name, Kind: "list", Secret: secret})
	a := b.ask(name)
	if a == nil {
		return nil, false
	}
	whole := place(a, secret, a.Expr)
	v, ok := b.evaluate(a.Expr, cty.DynamicPseudoType, whole, secret)
	if !ok || v.IsNull() {
		return nil, false
	}
	if t := v.Type(); !t.IsTupleType() && !t.IsListType() && !t.IsSetType() {
		b.Fail(whole, "Invalid "+name, `write a list of strings: ["…"].`)
		return nil, false
	}
	// Elements are converted one by one, because converting a tuple as a whole takes time
	// quadratic in its length.
	elements := v.AsValueSlice()
	items := make([]Item, len(elements))
	tuple, _ := a.Expr.(*hclsyntax.TupleConsExpr)
	for i, e := range elements {
		items[i].Place = whole
		if tuple != nil {
			items[i].Place = place(a, secret, tuple.Exprs[i])
		}
		e, err := element(e, texts)
		if err != nil {
			b.Fail(items[i].Place, "Invalid "+name, err.Error())
			return nil, false
		}
		text, ok := e.AsString(), true
		if secret {
			if text, ok = b.tidy(name, items[i].Place, text); !ok {
				return nil, false
			}
		}
		items[i].Value = text
	}
	return items, true
}

// element is a string that an element of a list is or becomes.
func element(e cty.Value, texts bool) (cty.Value, error) {
	switch t := e.Type(); {
	case e.IsNull():
		return e, errors.New("an element is null")
	case t == cty.String:
		return e, nil
	case texts:
		return e, errors.New(`an element is not a string: write it in quotes, like ["…"]`)
	case t != cty.Number:
		return e, errors.New("an element is neither a string nor a number")
	}
	return convert.Convert(e, cty.String)
}

// Strings reads a list of strings that each pass the check.
func (b *Block) Strings(name string, to *[]string, check func(string) error) bool {
	items, ok := b.Texts(name)
	if !ok {
		return false
	}
	var all []string
	for _, item := range items {
		if err := check(item.Value); err != nil {
			b.Fail(item.Place, "Invalid "+name, err.Error())
			ok = false
		}
		all = append(all, item.Value)
	}
	if ok {
		*to = all
	}
	return ok
}

// Secret reads a string that no diagnostic shows.
func (b *Block) Secret(name string, to *Secret, check func(string) error) bool {
	return b.secret(name, "text", to, check)
}

func (b *Block) secret(name, kind string, to *Secret, check func(string) error) bool {
	b.note(Attribute{Name: name, Kind: kind, Secret: true})
	a := b.ask(name)
	if a == nil {
		return false
	}
	p := place(a, true, a.Expr)
	v, ok := b.evaluate(a.Expr, cty.String, p, true)
	if !ok || v.IsNull() {
		return false
	}
	text := v.AsString()
	if kind != "PEM" { // which has lines
		if text, ok = b.tidy(name, p, text); !ok {
			return false
		}
	}
	if err := check(text); err != nil {
		b.Fail(p, "Invalid "+name, err.Error()+InQuotes(text))
		return false
	}
	*to = NewSecret(text)
	return true
}

// Pairs reads the keys of a literal object and leaves the values to the caller.
func (b *Block) Pairs(name string) ([]Pair, bool) {
	b.note(Attribute{Name: name, Kind: "object"})
	a := b.ask(name)
	if a == nil {
		return nil, false
	}
	object, ok := a.Expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		b.Invalid(name, `write an object: { "Name" = … }`)
		return nil, false
	}
	return b.pairs(a, object, false)
}

func (b *Block) pairs(a *hclsyntax.Attribute, object *hclsyntax.ObjectConsExpr, secret bool) ([]Pair, bool) {
	var pairs []Pair
	ok := true
	for _, item := range object.Items {
		p := Pair{
			KeyPlace: place(a, secret, item.KeyExpr),
			Expr:     item.ValueExpr,
			Place:    place(a, secret, item.ValueExpr),
		}
		key, keyOK := b.evaluate(item.KeyExpr, cty.String, p.KeyPlace, secret)
		if keyOK && key.IsNull() {
			b.Fail(p.KeyPlace, "Invalid "+a.Name, "a key is null.")
			keyOK = false
		}
		if !keyOK {
			ok = false
			continue
		}
		p.Key = key.AsString()
		pairs = append(pairs, p)
	}
	return pairs, ok
}

// Map reads an object of strings, values hidden, in the order of the file; an object made by a
// function is in the order of its keys. Keys with a null value are left out.
func (b *Block) Map(name string) []Entry { return b.entries(name, true) }

// TextMap is Map for values that may be shown.
func (b *Block) TextMap(name string) []Entry { return b.entries(name, false) }

func (b *Block) entries(name string, secret bool) []Entry {
	b.note(Attribute{Name: name, Kind: "object", Secret: secret})
	a := b.ask(name)
	if a == nil {
		return nil
	}
	var entries []Entry
	if object, ok := a.Expr.(*hclsyntax.ObjectConsExpr); ok {
		pairs, _ := b.pairs(a, object, secret)
		for _, p := range pairs {
			if v, ok := b.evaluate(p.Expr, cty.String, p.Place, secret); ok && !v.IsNull() {
				if text, ok := b.tidy(name, p.Place, v.AsString()); ok {
					entries = append(entries, Entry{p.Key, p.KeyPlace, NewSecret(text), p.Place})
				}
			}
		}
		return entries
	}
	whole := place(a, secret, a.Expr)
	v, ok := b.evaluate(a.Expr, cty.Map(cty.String), whole, secret)
	if !ok || v.IsNull() {
		return nil
	}
	for key, value := range v.Elements() { // in the order of the keys
		if !value.IsNull() {
			if text, ok := b.tidy(name, whole, value.AsString()); ok {
				entries = append(entries, Entry{key.AsString(), whole, NewSecret(text), whole})
			}
		}
	}
	return entries
}

// Expr gives an attribute's expression as it is written.
func (b *Block) Expr(name string) (hclsyntax.Expression, bool) {
	b.note(Attribute{Name: name, Kind: "template"})
	a := b.ask(name)
	if a == nil {
		return nil, false
	}
	return a.Expr, true
}

// place is a part of an attribute. If the attribute holds secrets, only its name is shown.
func place(a *hclsyntax.Attribute, secret bool, part hclsyntax.Expression) Place {
	show := a.SrcRange
	if secret {
		show = hcl.RangeBetween(a.NameRange, a.EqualsRange)
	}
	return Place{part.Range(), show, part}
}
