package page

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// docs/page.md says what is so: all screens of the menu and only such, all keys, and the same bounds as the code.
func TestDocsOfThePage(t *testing.T) {
	text, err := os.ReadFile("../../docs/page.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(text)
	rows := func(heading string) []string {
		_, part, _ := strings.Cut(doc, "\n## "+heading+"\n")
		part, _, _ = strings.Cut(part, "\n## ")
		return regexp.MustCompile(`(?m)^\|.*\|$`).FindAllString(part, -1)[2:]
	}
	var named []string
	for _, row := range rows("Screens") {
		named = append(named, regexp.MustCompile("^\\| `([^`]+)`").FindStringSubmatch(row)[1])
	}
	var menu []string
	for _, m := range regexp.MustCompile(`\{\{template "entry" \.With \(list \. "([^"]+)"`).FindAllStringSubmatch(templateTexts(t)["parts/layout.html"], -1) {
		menu = append(menu, m[1])
	}
	slices.Sort(named)
	slices.Sort(menu)
	if !slices.Equal(named, menu) {
		t.Errorf("the table has the screens %v, the menu has %v", named, menu)
	}
	module := string((&assets{}).body("page.js"))
	keys := strings.Join(rows("Keyboard"), "\n")
	_, list, _ := strings.Cut(module, "const keys = {")
	list, _, _ = strings.Cut(list, "\n};")
	for _, m := range regexp.MustCompile(`(?m)^  "?(.)"?: `).FindAllStringSubmatch(list, -1) {
		if !strings.Contains(keys, "`"+m[1]+"`") {
			t.Errorf("the table has no key %s", m[1])
		}
	}
	_, places, _ := strings.Cut(module, "const places = {")
	places, _, _ = strings.Cut(places, "}")
	_, help, _ := strings.Cut(templateTexts(t)["parts/layout.html"], `{{define "help"}}`)
	found := 0
	for _, m := range regexp.MustCompile(`(\w): "/`).FindAllStringSubmatch(places, -1) {
		found++
		if !strings.Contains(keys, "`g` `"+m[1]+"`") {
			t.Errorf("the table has no keys g %s", m[1])
		}
		if !strings.Contains(help, "<kbd>g</kbd> <kbd>"+m[1]+"</kbd>") {
			t.Errorf("the page's own list of keys has no g %s", m[1])
		}
	}
	if found < 6 {
		t.Errorf("found %d places to go to: the test no longer sees them", found)
	}
	for _, claim := range []string{csp, "after 12 hours", "share an answer for 2 seconds"} {
		if !strings.Contains(doc, claim) {
			t.Errorf("it does not say %q", claim)
		}
	}
	if sessionFor != 12*time.Hour || sharedFor != 2*time.Second {
		t.Errorf("a session is for %v, a shared answer for %v", sessionFor, sharedFor)
	}
	for _, lang := range languages()[1:] {
		if name := (&catalogue{}).text("en", "language."+lang); !strings.Contains(doc, name) {
			t.Errorf("it does not name %s", name)
		}
	}
}
