package config

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

// parseText loads a source; a stack overflow would end the test process.
func parseText(src string) error {
	_, err := Parse("relay.hcl", []byte(src), environ{"A": "1"}.get)
	return err
}

// Bad input B24: source that would exhaust the stack is refused before it is
// parsed, with its place.
func TestDeepSourceIsRefused(t *testing.T) {
	full := func(part string) string { return strings.Repeat(part, 100_000/len(part)) }
	fill := func(part string) string { return strings.Repeat(part, 5_000/len(part)) }
	for name, src := range map[string]string{
		"parentheses":     "x = " + full("("),
		"lists":           "x = " + full("["),
		"objects":         "x = " + full("{a="),
		"not":             "x = " + full("!") + "true",
		"65 times not":    "x = " + strings.Repeat("!", 65) + "true",
		"minus":           "x = " + full("-") + "1",
		"minus lines":     "x = (" + fill("-\n") + "1)",
		"templates":       "x = " + full(`"${`),
		"template if":     `x = "` + fill("%{ if true }") + `"`,
		"template for":    `x = "` + fill("%{ for a in b }") + `"`,
		"heredoc if":      "x = <<E\n" + fill("%{ if true }\n") + "\nE\n",
		"calls":           "x = " + fill("upper("),
		"conditional":     "x = " + fill("true ? 1 : "),
		"conditional 2":   "x = " + fill("true ? "),
		"sum":             "x = " + fill("1+") + "1",
		"sum in brackets": "x = (" + fill("1+\n") + "1)",
		"and":             "x = " + fill("true&&") + "true",
		"compare":         "x = " + fill("1==") + "1",
		"index":           "x = a" + fill("[0]"),
		"index of call":   "x = a" + fill("[upper(1)]"),
		"attributes":      "x = a" + fill(".b"),
		"splat":           "x = a" + fill("[*]"),
		"attribute splat": "x = a" + fill(".*"),
		"blocks":          fill("a {\n"),
		"labelled blocks": fill("a \"b\" {\n"),
		"for":             "x = " + fill("[for a in "),
		"object for":      "x = {for k, v in b: k => " + fill("1+\n") + "1}",
		"grown":           "x = [1]" + fill("...") + "\n",
		"mixed":           "x = " + fill("([{a=!-"),
		"unclosed":        "x = " + fill("(]"),
		"namespaces":      "x = " + fill("a::") + "b()",
	} {
		t.Run(name, func(t *testing.T) {
			err := parseText(src)
			d, ok := errors.AsType[Diagnostics](err)
			if !ok || len(d) != 1 || d[0].Summary != "Expression is nested too deeply" || d[0].Range.Start.Line < 1 {
				t.Fatalf("got %.300v", err)
			}
		})
	}
}

// What the check lets through must not come near the limit of the stack, even at
// its worst: each level full, and evaluated.
func TestDeepestSourceAllowed(t *testing.T) {
	chain := func(op string, n int) string { return strings.Repeat("1"+op, n) }
	for name, src := range map[string]string{
		"sums": strings.Repeat("("+chain("+", 200), 60) + "1" + strings.Repeat(")", 60),
		"left": strings.Repeat("(", 60) + "1" + strings.Repeat(strings.Repeat("+1", 200)+")", 60),
		"ifs":  strings.Repeat("("+strings.Repeat("true ? 1 : ", 200), 60) + "1" + strings.Repeat(")", 60),
		"text": strings.Repeat(`"${`+chain("+", 200), 30) + "1" + strings.Repeat(`}"`, 30),
		"call": strings.Repeat(chain("+", 200)+"abs(", 60) + "1" + strings.Repeat(")", 60),
		"not":  strings.Repeat("("+strings.Repeat("!", 64), 60) + "true" + strings.Repeat(")", 60),
	} {
		t.Run(name, func(t *testing.T) {
			err := parseText("log {\n level = " + src + "\n}\n")
			if err == nil || strings.Contains(err.Error(), "nested") {
				t.Fatalf("want the value to be reached and refused, got %.300v", err)
			}
		})
	}
}

// Real files are flat and long: the check must not mind their length.
func TestLongSourceIsAccepted(t *testing.T) {
	var b strings.Builder
	b.WriteString("# -----------------------------------------------------------------------------------------------------\n")
	b.WriteString("log { level = \"info\" }\n")
	for range 300 {
		b.WriteString("endpoint \"a\" {\n  url = \"${env(\"A\")}-${upper(\"x\")}\" # !!!!\n  events = [\"a.*\", -1, !true, [1, 2], { a = 1, b : -2 }]\n  retry { jitter = 1 - 2 + 3 }\n}\n\n")
	}
	if err := parseText(b.String()); err != nil {
		t.Fatalf("%.500v", err)
	}
}

func TestSourceSize(t *testing.T) {
	src := "log {}\n#" + strings.Repeat("x", int(MiB))
	if err := parseText(src); err == nil || !strings.Contains(err.Error(), "larger than 1MiB") {
		t.Errorf("got %v", err)
	}
	if err := parseText(src[:MiB]); err != nil {
		t.Errorf("exactly 1 MiB: %v", err)
	}
	if err := parseText("log {}\n# \xff"); err == nil || !strings.Contains(err.Error(), "not UTF-8") {
		t.Errorf("got %v", err)
	}
}

// A short file can have a problem in every second byte, all in one long line.
func TestManyProblems(t *testing.T) {
	for name, src := range map[string]string{
		"parsed":  "x = \"" + strings.Repeat(`\q`, 10_000) + "\"\n",
		"decoded": "ingest {\n  http \"127.0.0.1:0\" { hosts = [" + strings.Repeat(`"",`, 10_000) + "] }\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			d, ok := errors.AsType[Diagnostics](parseText(src))
			if !ok || len(d) != maxProblems+1 || d[maxProblems].Summary != "Too many problems" {
				t.Errorf("got %d problems", len(d))
			}
		})
	}
}

// Random tokens: whatever the brackets do, the process lives.
func TestRandomTokens(t *testing.T) {
	tokens := strings.Split("( ) [ ] { } ${ %{ } \" \n , = : ? ! - + * . a if for in endif 1 && == => ... <<E\nE\n [*] .* # /* */ ~ ; '", " ")
	r := rand.New(rand.NewPCG(1, 2))
	for range 10 {
		var b strings.Builder
		subset := 2 + r.IntN(len(tokens)-2)
		for b.Len() < 50_000 {
			b.WriteString(tokens[r.IntN(subset)])
			b.WriteString(strings.Repeat(" ", r.IntN(2)))
		}
		parseText(b.String())
	}
}
