package page

import (
	"regexp"
	"strings"
	"testing"
)

// A session that is bound reads the text that is for it, with the same arguments; any other never does.
func TestWordsForABoundSession(t *testing.T) {
	all := &catalogue{texts: map[string][]string{"a": {"file", "檔", "档"}, "a.your": {"provider", "您", "您"}, "b": {"both", "皆", "皆"}}}
	all.once.Do(func() {})
	for your, want := range map[bool]string{true: "provider both", false: "file both"} {
		w := words{all, "en", your}
		if got := w.text("a") + " " + string(w.html("b")); got != want {
			t.Errorf("bound %v: %q, want %q", your, got, want)
		}
	}
	argument := regexp.MustCompile(`%(\[[0-9]\])?[a-z]`)
	known := entries(t)
	for key, texts := range known {
		base, is := strings.CutSuffix(key, yours)
		if !is {
			continue
		}
		of := known[base]
		if of == nil {
			t.Errorf("%s is a variant of no text", key)
			continue
		}
		if a, b := argument.FindAllString(texts["en"], -1), argument.FindAllString(of["en"], -1); len(a) != len(b) && !strings.Contains(texts["en"], "[1]") {
			t.Errorf("%s has the arguments %v, and %s %v", key, a, base, b)
		}
	}
}
