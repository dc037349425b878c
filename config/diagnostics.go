package config

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"relay/internal/sorting"
)

// Diagnostics are the problems of a file, in the order of the file. They never
// hold the value of a secret.
type Diagnostics []Diagnostic

// Diagnostic is one problem.
type Diagnostic struct {
	Range   hcl.Range // the place; only a file name, or empty, if it concerns no line
	Summary string    // the problem, in a few words
	Detail  string    // the reason, and what to do

	excerpt string // the line with a caret, without what may be secret
}

// Error has one line for each problem.
func (ds Diagnostics) Error() string {
	lines := make([]string, len(ds))
	for i, d := range ds {
		lines[i] = d.String()
	}
	return strings.Join(lines, "\n")
}

// Pretty is for a terminal: each problem with the line it is about and a caret under the place.
// Parts of the line that may be secret are left out.
func (ds Diagnostics) Pretty() string {
	var b strings.Builder
	for _, d := range ds {
		b.WriteString(d.String())
		b.WriteByte('\n')
		b.WriteString(d.excerpt)
	}
	return b.String()
}

// String is `relay.hcl:7,1-8: summary; detail`, the form of HCL itself.
func (d Diagnostic) String() string {
	s := d.Summary
	if d.Detail != "" {
		s += "; " + d.Detail
	}
	s = strings.Map(printable, s)
	switch {
	case d.Range.Start.Line > 0:
		return d.Range.String() + ": " + s
	case d.Range.Filename != "":
		return d.Range.Filename + ": " + s
	}
	return s
}

// maxProblems bounds the output for one file.
const maxProblems = 100

// add keeps the first maxProblems, each once, and says that there are more.
func (ds *Diagnostics) add(src []byte, p Place, summary, detail string) {
	switch n := len(*ds); {
	case n < maxProblems:
		if d := problem(src, p, summary, detail); !slices.Contains(*ds, d) { // both packages look at labels
			*ds = append(*ds, d)
		}
	case n == maxProblems:
		*ds = append(*ds, Diagnostic{Summary: "Too many problems", Detail: fmt.Sprintf("Only %d of them are shown.", maxProblems)})
	}
}

// sort brings problems into the order of the files; those without a place are last.
func (ds Diagnostics) sort(files []string) {
	order := func(d Diagnostic) int {
		if i := slices.Index(files, d.Range.Filename); i >= 0 {
			return i
		}
		return len(files)
	}
	sorting.Stable(ds, func(a, b Diagnostic) int {
		return cmp.Or(order(a)-order(b), a.Range.Start.Byte-b.Range.Start.Byte)
	})
}

// Place is a part of the file that a problem points at.
type Place struct {
	at   hcl.Range
	show hcl.Range            // the parts of the file's text that may be shown
	expr hclsyntax.Expression // nil for a part of the file that is no value
}

// String is `relay.hcl:7,1-8`.
func (p Place) String() string { return p.at.String() }

// problem builds a diagnostic about a place in src.
func problem(src []byte, p Place, summary, detail string) Diagnostic {
	return Diagnostic{Range: p.at, Summary: summary, Detail: sentence(clip(detail, 500)), excerpt: excerpt(src, p)}
}

// sentence gives an error's text the form that HCL's own details have.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	first, rest, _ := strings.Cut(s, " ")
	if rest != "" && strings.Trim(first, "abcdefghijklmnopqrstuvwxyz") == "" {
		s = strings.ToUpper(first[:1]) + first[1:] + " " + rest
	}
	if !strings.HasSuffix(s, ".") && !strings.HasSuffix(s, "?") {
		s += "."
	}
	return s
}

// lineHead is the start of a line that is shown if the file could not be parsed: a plain
// lower-case name, a space, and "=", "{" or a label. It cannot be an unquoted secret.
var lineHead = regexp.MustCompile(`^([ \t]*[a-z_]{1,20}[ \t]+)[={"]`)

// excerpt shows the first line of p.at, with "…" for all that p.show leaves out,
// and a caret under the place.
func excerpt(src []byte, p Place) string {
	if p.at.Start.Line == 0 || p.at.Start.Byte > len(src) {
		return ""
	}
	start := bytes.LastIndexByte(src[:p.at.Start.Byte], '\n') + 1
	line, _, _ := bytes.Cut(src[start:], []byte("\n"))

	inLine := func(offset int) int { return min(max(offset-start, 0), len(line)) }
	from, to := inLine(p.at.Start.Byte), inLine(p.at.End.Byte)
	seen, unseen := inLine(p.show.Start.Byte), inLine(p.show.End.Byte)
	if p.show.Empty() {
		seen, unseen = 0, 0
		if head := lineHead.FindSubmatch(line); head != nil {
			unseen = len(head[1])
		}
	}

	cuts := []int{0, from, to, seen, unseen, len(line)}
	slices.Sort(cuts)
	var text strings.Builder
	var caret, width int // in columns
	for i, cut := range cuts[1:] {
		before := cuts[i]
		part := string(line[before:cut])
		if before < seen || cut > unseen {
			part = hide(part)
		}
		part = clip(strings.Map(printable, part), 120)
		if strings.HasPrefix(part, "…") && strings.HasSuffix(text.String(), "…") {
			part = strings.TrimPrefix(part, "…") // one is enough
			if before == from {
				caret--
			}
		}
		n := utf8.RuneCountInString(part)
		if cut <= from {
			caret += n
		} else if cut <= to {
			width += n
		}
		text.WriteString(part)
	}
	number := strconv.Itoa(p.at.Start.Line)
	margin := strings.Repeat(" ", len(number))
	return fmt.Sprintf("  %s | %s\n  %s | %s%s\n",
		number, strings.TrimRight(text.String(), " "), margin, strings.Repeat(" ", caret), strings.Repeat("^", max(width, 1)))
}

// hide keeps the white space at the start, which is the line's indentation.
func hide(s string) string {
	rest := strings.TrimLeft(s, " \t")
	if rest == "" {
		return s
	}
	return s[:len(s)-len(rest)] + "…"
}

// clip bounds what is printed, to n characters.
func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}

// printable keeps the file's bytes from steering the terminal.
func printable(r rune) rune {
	if r == '\t' || r == '\n' || r == '\r' {
		return ' '
	}
	if !unicode.IsPrint(r) {
		return '\uFFFD'
	}
	return r
}
