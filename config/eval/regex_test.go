package eval

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Patterns that would compile to much, or match for long, are refused.
func TestPatternBounds(t *testing.T) {
	for pattern, want := range map[string]string{
		"((x{1,30}){1,30}){1,1}y":         "",
		"x{1,1000}":                       "",
		"(x{1,60}){1,16}y{1,999}z{1,999}": "more than 3000 instructions",
		strings.Repeat("x{1000}", 500):    "more than 3000 instructions",
		strings.Repeat("a", 5000):         "longer than 4096 bytes",
		strings.Repeat("(a)", 51):         "more than 50 opening parentheses",
		"(":                               "invalid regexp pattern",
		"(?P<a>x)(y)":                     "cannot mix",
	} {
		_, err := NewPattern(pattern)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want %q", pattern, err, want)
		}
	}
}

// sameAsGo compares what is found rune by rune with what Go finds.
func sameAsGo(t *testing.T, pattern, text, template string) {
	t.Helper()
	p, err := NewPattern(pattern)
	if err != nil {
		return
	}
	re := regexp.MustCompile(pattern)
	left := new(Allowance)
	left.Begin(time.Hour, nil)

	want := re.FindAllStringSubmatchIndex(text, -1)
	var found [][]int
	p.eachMetered(text, left, func(m []int) { found = append(found, append([]int(nil), m...)) })
	if fmt.Sprint(found) != fmt.Sprint(want) {
		t.Errorf("%q in %q: %v, want %v", pattern, text, found, want)
	}
	if got, want := p.replaceMetered(text, template, left), re.ReplaceAllString(text, template); got != want {
		t.Errorf("%q in %q by %q: %q, want %q", pattern, text, template, got, want)
	}
	if got, want := p.re.MatchReader(p.metered(text, left)), re.MatchString(text); got != want {
		t.Errorf("%q in %q: %t", pattern, text, got)
	}
}

func FuzzRegexIsGos(f *testing.F) {
	for _, pattern := range []string{
		``, `x*`, `x*y|x`, `^a|b$`, `(?m)^.`, `(?m)$`, `\ba`, `\Bb`, `(a)(b)?`, `(?i)É+`, `(?P<n>[a-c]+)`, `\A\w`, `a??`, `(|a)+`, `(?s).\n`, `[^a]*`, `\z`,
	} {
		for _, text := range []string{"", "a", "aab ab", "xxxy xx", "é\u00e9É", "a\nb\n\n", "\xffa\xfe", "日本a語"} {
			f.Add(pattern, text, "<$0|$1|${n}>")
		}
	}
	f.Fuzz(func(t *testing.T, pattern, text, template string) {
		if len(pattern) < 200 && len(text) < 200 && len(template) < 100 {
			sameAsGo(t, pattern, text, template)
		}
	})
}
