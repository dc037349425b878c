package page

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"relay/internal/testkit"
)

// Sizes of text and of space are of the scales that page.css names, so that screens look as if of one hand.
func TestStyleSheetKeepsItsScales(t *testing.T) {
	paths, err := filepath.Glob("assets/*.css")
	testkit.Must(t, err)
	var all strings.Builder
	for _, path := range paths {
		text, err := os.ReadFile(path)
		testkit.Must(t, err)
		all.Write(text)
	}
	text := all.String()
	scale := func(name string) []string {
		found := regexp.MustCompile(name + `\s+\(([0-9 ]+) px\)`).FindStringSubmatch(text)
		if found == nil {
			t.Fatalf("page.css does not say the scale of %q", name)
		}
		return strings.Fields(found[1])
	}
	for _, part := range []struct {
		what, property string
		scale          []string
		least          int // of sizes that the test must see
	}{
		{"type", `font(?:-size)?`, scale("of type"), 30},
		{"space", `(?:padding|margin|gap|row-gap|column-gap)(?:-[a-z]+)*`, append(scale("of space"), "1"), 150}, // 1 px is a line
	} {
		seen := 0
		for _, rule := range regexp.MustCompile(`[{;\s]`+part.property+`:([^;}]+)`).FindAllStringSubmatch(text, -1) {
			for _, size := range regexp.MustCompile(`-?([0-9.]+)(px|r?em)\b`).FindAllStringSubmatch(rule[1], -1) {
				seen++
				if size[2] != "px" || !slices.Contains(part.scale, size[1]) {
					t.Errorf("%q is not of the scale of %s %v", strings.TrimSpace(rule[0]), part.what, part.scale)
				}
			}
		}
		if seen < part.least {
			t.Errorf("saw %d sizes of %s: the test no longer sees them", seen, part.what)
		}
	}
}
