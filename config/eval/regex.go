package eval

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"regexp/syntax"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"
)

// Limits of a regular expression. Go's own take up to 128 MiB and seconds.
const (
	maxPattern = 4096 // bytes
	MaxProgram = 3000 // instructions; x{1,30} has about 60
	maxGroups  = 50   // opening parentheses
)

// Pattern is a regular expression of bounded size. Go's matcher takes time linear in the text for
// a match, and up to its square for all of them, and cannot be interrupted. So a long text is fed
// to it rune by rune, and ends when the allowance is spent.
type Pattern struct {
	re        *regexp.Regexp
	canonical string         // the pattern as Go writes it: in parentheses it means the same
	program   int            // about the instructions that each rune may take
	later     *regexp.Regexp // finds the next match, from the rune before where it may begin
	result    cty.Type       // of a match
}

// NewPattern compiles a pattern. The error is for people, and holds no part of the pattern.
func NewPattern(s string) (*Pattern, error) {
	if len(s) > maxPattern {
		return nil, BoundError(fmt.Sprintf("a pattern is longer than %d bytes", maxPattern))
	}
	if strings.Count(s, "(") > maxGroups {
		return nil, BoundError(fmt.Sprintf("a pattern has more than %d opening parentheses", maxGroups))
	}
	tree, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		if wrong, ok := errors.AsType[*syntax.Error](err); ok {
			return nil, BoundError("invalid regexp pattern: " + wrong.Code.String())
		}
		return nil, BoundError("invalid regexp pattern")
	}
	p := &Pattern{program: int(program(tree)), canonical: tree.String()}
	if p.program > MaxProgram {
		return nil, BoundError(fmt.Sprintf("a pattern becomes more than %d instructions: its repetitions multiply", MaxProgram))
	}
	if p.re, err = regexp.Compile(s); err != nil {
		return nil, BoundError("invalid regexp pattern")
	}
	p.result, err = resultType(p.re)
	return p, err
}

// program estimates the instructions of a compiled pattern with its repetitions expanded.
func program(re *syntax.Regexp) int64 {
	const most = 1 << 40
	n := int64(1)
	switch re.Op {
	case syntax.OpLiteral:
		n = int64(len(re.Rune))
	case syntax.OpRepeat:
		times := int64(max(re.Max, re.Min, 1))
		n = times*program(re.Sub[0]) + times - int64(re.Min) + 1
	default:
		for _, sub := range re.Sub {
			n = min(n+program(sub)+1, most)
		}
	}
	return min(n, most)
}

// resultType is the type of a match: text without groups, else an object of named groups or a
// tuple of those without names.
func resultType(re *regexp.Regexp) (cty.Type, error) {
	named := map[string]cty.Type{}
	unnamed := []cty.Type{}
	for _, name := range re.SubexpNames()[1:] {
		if name == "" {
			unnamed = append(unnamed, cty.String)
		} else {
			named[name] = cty.String
		}
	}
	switch {
	case len(named) > 0 && len(unnamed) > 0:
		return cty.NilType, BoundError("invalid regexp pattern: cannot mix both named and unnamed capture groups")
	case len(named) > 0:
		return cty.Object(named), nil
	case len(unnamed) > 0:
		return cty.Tuple(unnamed), nil
	}
	return cty.String, nil
}

// stepCost is what an instruction may take for a rune, in nanoseconds.
const stepCost = 5

// short is the time up to which a text is matched at once, in nanoseconds.
const short = int(100 * time.Microsecond)

// quick reports whether matching a text takes a short time at worst, and takes a part of that
// from the allowance.
func (p *Pattern) quick(s string, times int, left *Allowance) bool {
	steps := len(s) * times * p.program
	return steps*stepCost <= short && left.Spend(200+steps)
}

// MatchString reports whether a text has a match. It returns false if the allowance is spent.
func (p *Pattern) MatchString(s string, left *Allowance) bool {
	if p.quick(s, 1, left) {
		return p.re.MatchString(s)
	}
	return p.re.MatchReader(p.metered(s, left)) && left.Err() == nil
}

func (p *Pattern) metered(s string, left *Allowance) *metered {
	return &metered{s: s, cost: 20 + p.program*(1+p.re.NumSubexp()/10), left: left}
}

// metered yields a text rune by rune, and ends it when the allowance is spent.
type metered struct {
	s    string
	at   int
	cost int
	left *Allowance
}

// ReadRune implements io.RuneReader.
func (m *metered) ReadRune() (rune, int, error) {
	if m.at >= len(m.s) || !m.left.Spend(m.cost) {
		return 0, 0, io.EOF
	}
	r, size := utf8.DecodeRuneInString(m.s[m.at:])
	m.at += size
	return r, size, nil
}

// find returns the indexes in s of the first match at or after from; nil for none, or if the
// allowance is spent.
func (p *Pattern) find(s string, from int, left *Allowance) []int {
	if from == 0 {
		return p.re.FindReaderSubmatchIndex(p.metered(s, left))
	}
	if p.later == nil {
		later, err := regexp.Compile(`\A(?s:.)(?s:.*?)(` + p.canonical + `)`)
		if err != nil { // no pattern is known for which this happens
			left.failed = ErrTooLong
			return nil
		}
		p.later = later
	}
	_, width := utf8.DecodeLastRuneInString(s[:from])
	before := from - width // what a match begins with may depend on this rune
	found := p.later.FindReaderSubmatchIndex(p.metered(s[before:], left))
	if found == nil {
		return nil
	}
	found = found[2:] // without the runes that are passed over
	for i := range found {
		if found[i] >= 0 {
			found[i] += before
		}
	}
	return found
}

// first is the first match.
func (p *Pattern) first(s string, left *Allowance) []int {
	if p.quick(s, 1, left) {
		return p.re.FindStringSubmatchIndex(s)
	}
	return p.find(s, 0, left)
}

// each calls with the matches that Go's FindAll finds.
func (p *Pattern) each(s string, left *Allowance, match func([]int)) {
	if p.quick(s, len(s), left) {
		for _, found := range p.re.FindAllStringSubmatchIndex(s, -1) {
			match(found)
		}
		return
	}
	p.eachMetered(s, left, match)
}

func (p *Pattern) eachMetered(s string, left *Allowance, match func([]int)) {
	end := -1 // of the match before
	for at := 0; at <= len(s); {
		found := p.find(s, at, left)
		if found == nil || left.Err() != nil {
			return
		}
		accept := true
		if found[1] == at { // empty
			accept = found[0] != end
			_, width := utf8.DecodeRuneInString(s[at:])
			at += max(width, 1)
		} else {
			at = found[1]
		}
		if end = found[1]; accept {
			match(found)
		}
	}
}

// replace is what Go's ReplaceAllString makes.
func (p *Pattern) replace(s, template string, left *Allowance) string {
	if p.quick(s, len(s), left) {
		return p.re.ReplaceAllString(s, template)
	}
	return p.replaceMetered(s, template, left)
}

func (p *Pattern) replaceMetered(s, template string, left *Allowance) string {
	var made []byte
	last := 0
	for at := 0; at <= len(s); {
		found := p.find(s, at, left)
		if found == nil || left.Err() != nil {
			break
		}
		made = append(made, s[last:found[0]]...)
		if found[1] > last || found[0] == 0 { // not an empty one right behind another
			made = p.re.ExpandString(made, template, s, found)
		}
		last = found[1]
		_, width := utf8.DecodeRuneInString(s[at:])
		at = max(at+max(width, 1), found[1])
	}
	return string(append(made, s[last:]...))
}

// value is a match as HCL has it.
func (p *Pattern) value(s string, found []int) cty.Value {
	group := func(i int) cty.Value {
		if found[2*i] < 0 {
			return cty.NullVal(cty.String)
		}
		return cty.StringVal(s[found[2*i]:found[2*i+1]])
	}
	switch {
	case p.result.IsObjectType():
		all := map[string]cty.Value{}
		for i, name := range p.re.SubexpNames()[1:] {
			all[name] = group(i + 1)
		}
		return cty.ObjectVal(all)
	case p.result.IsTupleType():
		all := make([]cty.Value, len(found)/2-1)
		for i := range all {
			all[i] = group(i + 1)
		}
		return cty.TupleVal(all)
	}
	return group(0)
}
