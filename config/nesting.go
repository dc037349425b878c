package config

import (
	"bytes"
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"relay/config/eval"
)

// HCL parses and evaluates by recursion without a limit, and a Go stack that
// overflows cannot be recovered: 100 KB of "(" would end the process. So the
// tokens are counted before the parser sees them. Stack use grows at most with
// maxNesting × maxChain.
const (
	maxSource  = MiB // bytes of one file
	maxNesting = 64  // open brackets and templates, and "!" or "-" in a row
	maxChain   = 256 // operators of one expression, which nest to the left or right
)

// level is an open bracket, or the file itself.
type level struct {
	open  hclsyntax.TokenType
	body  bool // has arguments and blocks, so a line's end ends an expression
	chain int  // operators since the last separator
	ifs   int  // open %{ if } and %{ for } since then: each bracket of theirs closes, yet they nest
}

// checkNesting refuses a source that could exhaust the stack, or with a number whose digits could
// exhaust the memory. If brackets do not match it assumes the worst case: a closing bracket of
// the wrong kind closes nothing.
func checkNesting(name string, src []byte) *Diagnostic {
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos) // the parser reports syntax errors
	levels := []level{{body: true}}
	header := true // only names and labels so far on this line, so a "{" opens a body
	unary := 0     // "!" and "-" in a row

	for i, t := range tokens {
		if t.Type == hclsyntax.TokenNumberLit && !eval.ValidLiteral(string(t.Bytes)) {
			d := problem(src, Place{at: t.Range}, "Number out of range", "Write a number of at most 100 digits, from 1e-300 to 1e300.")
			return &d
		}
		top := &levels[len(levels)-1]
		wasHeader, wasUnary := header, unary
		header, unary = false, 0

		switch t.Type {
		case hclsyntax.TokenIdent, hclsyntax.TokenOQuote, hclsyntax.TokenQuotedLit, hclsyntax.TokenCQuote:
			header = wasHeader
		case hclsyntax.TokenStringLit, hclsyntax.TokenNumberLit, hclsyntax.TokenOHeredoc, hclsyntax.TokenCHeredoc,
			hclsyntax.TokenColon, hclsyntax.TokenFatArrow, hclsyntax.TokenEOF:
		case hclsyntax.TokenOParen, hclsyntax.TokenOBrack, hclsyntax.TokenOBrace, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			switch t.Type {
			case hclsyntax.TokenOBrack:
				top.chain++ // a[0][0][0]… nests, though each bracket closes
			case hclsyntax.TokenTemplateControl:
				switch string(tokens[i+1].Bytes) { // the last token is always EOF
				case "if", "for":
					top.ifs++
				case "endif", "endfor":
					top.ifs = max(top.ifs-1, 0)
				}
			}
			header = wasHeader && t.Type == hclsyntax.TokenOBrace
			levels = append(levels, level{open: t.Type, body: header})
			top = &levels[len(levels)-2]
		case hclsyntax.TokenCParen, hclsyntax.TokenCBrack, hclsyntax.TokenCBrace, hclsyntax.TokenTemplateSeqEnd:
			if closes(top.open, t.Type) {
				levels = levels[:len(levels)-1]
			}
		case hclsyntax.TokenComma, hclsyntax.TokenEqual:
			top.chain, top.ifs = 0, 0
		case hclsyntax.TokenNewline, hclsyntax.TokenComment:
			header, unary = wasHeader, wasUnary
			if top.body && bytes.HasSuffix(t.Bytes, []byte("\n")) { // a comment to the line's end includes that end
				top.chain, top.ifs, header = 0, 0, true
			}
		case hclsyntax.TokenBang, hclsyntax.TokenMinus:
			unary = wasUnary + 1
			top.chain++
		default: // all other operators, and tokens that the language does not have
			top.chain++
		}

		switch {
		case len(levels) > maxNesting+1, top.ifs > maxNesting:
			return tooDeep(src, t, fmt.Sprintf("More than %d brackets or templates are open here.", maxNesting))
		case unary > maxNesting:
			return tooDeep(src, t, fmt.Sprintf("More than %d of ! and - stand in a row.", maxNesting))
		case top.chain > maxChain:
			return tooDeep(src, t, fmt.Sprintf("More than %d operators are in one expression.", maxChain))
		}
	}
	return nil
}

func closes(open, end hclsyntax.TokenType) bool {
	switch open {
	case hclsyntax.TokenOParen:
		return end == hclsyntax.TokenCParen
	case hclsyntax.TokenOBrack:
		return end == hclsyntax.TokenCBrack
	case hclsyntax.TokenOBrace:
		return end == hclsyntax.TokenCBrace
	case hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
		return end == hclsyntax.TokenTemplateSeqEnd
	}
	return false
}

func tooDeep(src []byte, t hclsyntax.Token, what string) *Diagnostic {
	d := problem(src, Place{at: t.Range}, "Expression is nested too deeply", what+" Write it in a simpler way.")
	return &d
}
