package markup

import (
	"fmt"
	"slices"
	"strings"
	"text/template/parse"
)

// place is where in the markup something stands.
type place struct {
	kind  kind
	attr  string // name of the attribute, in lower case
	begun bool   // something of the value is there already
	raw   string // element whose text is no markup: script, style; "" for none
	whole bool   // the name ends here: one way of a branch ended in it
}

type kind int

const (
	inText  kind = iota // of elements
	inTag               // between attributes
	inName              // of an element or attribute
	afterEq             // a value comes
	inValue             // of an attribute, in double quotes
)

// address tells whether the place is in an attribute that is an address.
func (p place) address() bool {
	return slices.Contains([]string{"href", "action", "src", "formaction", "cite", "poster"}, p.attr)
}

// locate finds the places of all actions of a template, which begins and ends in text.
func (s *Set) locate(tree *parse.Tree) error {
	end, err := s.walk(place{}, tree.Root)
	if err == nil && end.kind != inText {
		err = fmt.Errorf("it ends within a tag")
	}
	return err
}

func (s *Set) walk(p place, node parse.Node) (place, error) {
	switch n := node.(type) {
	case *parse.ListNode:
		if n == nil {
			return p, nil
		}
		for _, child := range n.Nodes {
			var err error
			if p, err = s.walk(p, child); err != nil {
				return p, err
			}
		}
	case *parse.TextNode:
		return p.over(string(n.Text))
	case *parse.ActionNode:
		if len(n.Pipe.Decl) > 0 {
			return p, nil // it writes nothing
		}
		if p.kind != inText && p.kind != inValue || p.kind == inText && p.raw != "" {
			return p, fmt.Errorf("line %d: %s stands where nothing may be put in: only in text and in values in double quotes", n.Line, n)
		}
		s.places[n] = p
		p.begun = true
	case *parse.IfNode:
		return s.branch(p, &n.BranchNode)
	case *parse.WithNode:
		return s.branch(p, &n.BranchNode)
	case *parse.RangeNode:
		return s.branch(p, &n.BranchNode)
	case *parse.TemplateNode:
		if p.kind != inText || p.raw != "" {
			return p, fmt.Errorf("line %d: template %s is called within a tag", n.Line, n.Name)
		}
	}
	return p, nil
}

// branch walks both ways, which must end in the same place.
func (s *Set) branch(p place, n *parse.BranchNode) (place, error) {
	a, err := s.walk(p, n.List)
	if err != nil {
		return p, err
	}
	b, err := s.walk(p, n.ElseList)
	if err != nil {
		return p, err
	}
	if named(a.kind) && named(b.kind) {
		a.kind, a.attr, a.whole = inTag, "", true
		b.kind, b.attr = inTag, ""
	}
	if a.kind != b.kind || a.attr != b.attr || a.raw != b.raw {
		return p, fmt.Errorf("line %d: %s ends in another place than it begins", n.Line, strings.SplitN(n.String(), "}}", 2)[0])
	}
	a.begun = a.begun && b.begun // else a value may be the first part
	return a, nil
}

// named tells whether the place is in a tag, outside of values.
func named(k kind) bool { return k == inTag || k == inName }

// over is the place behind a text.
func (p place) over(text string) (place, error) {
	for text != "" {
		switch p.kind {
		case inText:
			i := strings.IndexByte(text, '<')
			if p.raw != "" {
				if i = strings.Index(text, "</"+p.raw); i != 0 && strings.TrimSpace(text[:max(0, i)]) != "" {
					return p, fmt.Errorf("%s has text in it: it belongs in a file of its own", p.raw)
				}
			}
			if i < 0 {
				return p, nil
			}
			text = text[i+1:]
			if strings.HasPrefix(text, "!--") {
				return p, fmt.Errorf("it has a comment of HTML: write {{/* */}}")
			}
			p.kind, p.attr = inName, ""
			name := text
			if end := strings.IndexAny(text, " \t\r\n/>"); end >= 0 && text[0] != '/' {
				name = text[:end]
			}
			p.raw = ""
			if element := strings.ToLower(name); element == "script" || element == "style" {
				p.raw = element
			}
		case inName, inTag:
			if p.whole && strings.IndexByte(" \t\r\n/>", text[0]) < 0 {
				return p, fmt.Errorf("%.20q goes on with a name that a branch began", text)
			}
			p.whole = false
			if text[0] == '>' {
				p.kind, p.attr = inText, ""
			} else if strings.IndexByte(" \t\r\n/", text[0]) >= 0 {
				p.kind, p.attr = inTag, ""
			} else if text[0] == '=' {
				if p.attr == "style" || strings.HasPrefix(p.attr, "on") || p.attr == "srcdoc" {
					return p, fmt.Errorf("attribute %s: the page has no style and no code in its markup", p.attr)
				}
				p.kind = afterEq
			} else {
				if p.kind == inTag {
					p.kind, p.attr = inName, ""
				}
				p.attr += strings.ToLower(text[:1])
			}
			text = text[1:]
		case afterEq:
			if text[0] != '"' {
				return p, fmt.Errorf("the value of %s is not in double quotes", p.attr)
			}
			p.kind, p.begun, text = inValue, false, text[1:]
		case inValue:
			end := strings.IndexByte(text, '"')
			if end < 0 {
				p.begun = true
				return p, nil
			}
			p.kind, p.attr, p.begun, text = inTag, "", false, text[end+1:]
		}
	}
	return p, nil
}
