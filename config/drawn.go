package config

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// drawing describes how an expression calls env() and file(). Their results may be secret
// wherever they are used, so no text for people quotes a value made of them.
type drawing struct {
	any    bool // there is such a call
	nested bool // in an argument of another such call, whose error would quote it
	others bool // other functions are called, too
}

func drawingOf(e hclsyntax.Expression) (d drawing) {
	w := &drawingWalker{to: &d}
	_ = hclsyntax.Walk(e, w)
	return d
}

// drawingWalker looks at calls; depth is how many of env() and file() are around.
type drawingWalker struct {
	to    *drawing
	depth int
}

func draws(n hclsyntax.Node) bool {
	call, ok := n.(*hclsyntax.FunctionCallExpr)
	return ok && (call.Name == "env" || call.Name == "file")
}

// Enter implements hclsyntax.Walker.
func (w *drawingWalker) Enter(n hclsyntax.Node) hcl.Diagnostics {
	_, call := n.(*hclsyntax.FunctionCallExpr)
	switch {
	case draws(n):
		w.to.any = true
		w.to.nested = w.to.nested || w.depth > 0
		w.depth++
	case call:
		w.to.others = true
	}
	return nil
}

// Exit implements hclsyntax.Walker.
func (w *drawingWalker) Exit(n hclsyntax.Node) hcl.Diagnostics {
	if draws(n) {
		w.depth--
	}
	return nil
}

// Draws reports whether an attribute's expression calls env() or file(), so that its value may
// contain more than the file's text.
func (b *Block) Draws(name string) bool {
	a := b.attr(name)
	return a != nil && drawingOf(a.Expr).any
}

// Drawn names the attributes of the block and of those inside it that call env() or
// file(): "retry.schedule". Labels are not in it.
func (b *Block) Drawn() []string { return drawn(b.attrs, b.blocks, "") }

func drawn(attrs []*hclsyntax.Attribute, blocks []*hclsyntax.Block, prefix string) (names []string) {
	for _, a := range attrs {
		if drawingOf(a.Expr).any {
			names = append(names, prefix+a.Name)
		}
	}
	for _, c := range blocks {
		inner := &Block{}
		inner.add(c.Body)
		names = append(names, drawn(inner.attrs, inner.blocks, prefix+c.Type+".")...)
	}
	return names
}

// Hidden replaces values that are not shown.
const Hidden = "***"

// Quote is the value at the place, or Hidden if env() or file() gave a part of it.
func (p Place) Quote(value string) string {
	if p.expr != nil && drawingOf(p.expr).any {
		return Hidden
	}
	return value
}

// drawer is env() and file() for one expression.
type drawer struct {
	quiet bool              // their errors quote no argument
	clean bool              // they trim white space that an editor or a shell left around a secret
	warn  func(text string) // of a secret
}

// called is a call without its possibly secret arguments.
func (d drawer) called(function, argument string) string {
	if d.quiet {
		return function + "(…)"
	}
	return fmt.Sprintf("%s(%q)", function, argument)
}

// trim removes white space, line ends and byte order marks around a secret.
func (d drawer) trim(text, call string) string {
	trimmed := strings.TrimFunc(text, isBlank)
	if d.clean && trimmed != text {
		d.warn(call + ": white space, a line end or a byte order mark around a secret is taken off. Remove it there")
		return trimmed
	}
	return text
}

func isBlank(r rune) bool { return unicode.IsSpace(r) || r == '\uFEFF' }

// tidy trims a secret of which env() or file() gave a part. Characters that cannot be meant are
// an error.
func (b *Block) tidy(name string, p Place, text string) (string, bool) {
	if !drawingOf(p.expr).any {
		return text, true
	}
	source := filepath.Dir(p.at.Filename) + "\n" + string(p.at.SliceBytes(b.file.source(p.at.Filename).text))
	warn := func(what string) { b.file.warnOnce(p, source, what) }
	text = drawer{clean: true, warn: warn}.trim(text, "what env() or file() gives")
	if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || r == '\uFEFF' }) {
		b.Fail(p, "Invalid "+name, "a line end or another control character is inside of what env() or file() gives. Look at it with od -c.")
		return "", false
	}
	if InQuotes(text) != "" {
		warn("what env() or file() gives stands in quotes, which are taken as a part of the secret. Remove them there if they are not")
	}
	return text, true
}

// InQuotes is what to say of a secret that stands in quotes and is refused; "" of others.
func InQuotes(secret string) string {
	if n := len(secret); n > 1 && (secret[0] == '"' || secret[0] == '\'') && secret[n-1] == secret[0] {
		return ". It stands in quotes, which are taken as a part of it: remove them where it comes from"
	}
	return ""
}
