package trace

import (
	"strings"
	"testing"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// TestKept has the cases of https://www.w3.org/TR/trace-context/ section 3.2 and 3.3.
func TestKept(t *testing.T) {
	for _, tt := range []struct{ name, parent, state, want string }{
		{"good", parent, "", parent},
		{"state", parent, " app=1,other=2 ", parent + " app=1,other=2"},
		{"not sampled", parent[:53] + "00", "", parent[:53] + "00"},
		{"random flag", parent[:53] + "03", "", parent[:53] + "03"},
		{"a later version", "cc" + parent[2:], "", "cc" + parent[2:]},
		{"a later version with more", "cc" + parent[2:] + "-what", "", "cc" + parent[2:]},
		{"none", "", "app=1", ""},
		{"version 00 with more", parent + "-what", "", ""},
		{"a later version with other letters", "cc" + parent[2:] + ".what", "", ""},
		{"version ff", "ff" + parent[2:], "", ""},
		{"upper case", strings.ToUpper(parent), "", ""},
		{"short", parent[:54], "", ""},
		{"no hexadecimal digits", parent[:10] + "x" + parent[11:], "", ""},
		{"no trace", "00-" + strings.Repeat("0", 32) + parent[35:], "", ""},
		{"no span", parent[:36] + strings.Repeat("0", 16) + "-01", "", ""},
		{"wrong separators", strings.ReplaceAll(parent, "-", "_"), "", ""},
		{"a long state", parent, strings.Repeat("x", 513), parent},
		{"a state at the limit", parent, strings.Repeat("x", 512), parent + " " + strings.Repeat("x", 512)},
		{"a line in the state", parent, "a\nb", parent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Kept(tt.parent, tt.state)
			if got != tt.want {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
			if got == "" {
				return
			}
			c := Parse(got)
			if back := c.Keep(); back[2:] != got[2:] || back[:2] != "00" { // sent on in the version that is known
				t.Errorf("it is %q when it is read and written", back)
			}
			if c.Sampled() != (got[54] == '1' || got[54] == '3') {
				t.Errorf("sampled is %v", c.Sampled())
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(parent, "a=b")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, parent, state string) {
		kept := Kept(parent, state)
		c := Parse(kept)
		if (kept == "") != (c == Context{}) {
			t.Errorf("Kept is %q, and Parse reads %+v", kept, c)
		}
		if kept != "" && Kept(c.Parent(), c.State) != c.Keep() {
			t.Errorf("%q does not survive", kept)
		}
	})
}

// TestBegin: a child stays in its trace, with a span of its own; the sample decides only where no
// context came.
func TestBegin(t *testing.T) {
	for _, sample := range []float64{0, 1} {
		tr := New(Options{Sample: sample})
		c, above := tr.Begin("")
		if c.Sampled() != (sample == 1) || above != (SpanID{}) || c.Trace == (ID{}) || c.Span == (SpanID{}) {
			t.Errorf("sample %v: %+v below %v", sample, c, above)
		}
		for _, kept := range []string{parent + " app=1", parent[:53] + "00"} {
			from := Parse(kept)
			c, above := tr.Begin(kept)
			if c.Trace != from.Trace || above != from.Span || c.Span == from.Span || c.Flags != from.Flags || c.State != from.State {
				t.Errorf("sample %v, %s: %+v below %v", sample, kept, c, above)
			}
		}
	}
	tr, recorded := New(Options{Sample: 0.25}), 0
	for range 10_000 {
		if c, _ := tr.Begin(""); c.Sampled() {
			recorded++
		}
	}
	if recorded < 2000 || recorded > 3000 { // more than ten standard deviations
		t.Errorf("%d of 10000 are recorded, want about 2500", recorded)
	}
}

// TestAttempt: the span of an attempt is the same each time, and another one for each attempt.
func TestAttempt(t *testing.T) {
	c := Parse(parent)
	seen := map[SpanID]bool{c.Span: true}
	for _, delivery := range []string{"dlv_1", "dlv_11"} {
		for n := range 3 {
			a := c.Attempt(delivery, n)
			if a != c.Attempt(delivery, n) || a.Trace != c.Trace || seen[a.Span] {
				t.Errorf("attempt %d of %s: %+v", n, delivery, a)
			}
			seen[a.Span] = true
		}
	}
}
