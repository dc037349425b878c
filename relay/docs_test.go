package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"relay/internal/testkit/golden"
)

// pages are the texts for people, by path from the root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../examples/*/*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			all[filepath.ToSlash(strings.TrimPrefix(path, "../"))] = string(text)
		}
	}
	if len(all) < 15 {
		t.Fatalf("found only %d pages", len(all))
	}
	return all
}

var generated = regexp.MustCompile(`(?s)(<!-- generated: ([^\n]*?) -->\n)(.*?)(<!-- end -->)`)

// Tables of the pages are generated from the program (docs_tables_test.go), so that no fact
// is written twice. `make docs` writes them, and this test tells when they are stale.
func TestDocsAreGenerated(t *testing.T) {
	tables := newTables(t)
	for path, text := range pages(t) {
		fresh := generated.ReplaceAllStringFunc(text, func(part string) string {
			m := generated.FindStringSubmatch(part)
			return m[1] + tables.make(t, m[2], m[3]) + m[4]
		})
		if fresh == text {
			continue
		}
		if !golden.Update() {
			t.Errorf("%s is not what the program would write there: run make docs", path)
			continue
		}
		if err := os.WriteFile("../"+path, []byte(fresh), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tables.nothingIsLeftOut(t)
}

// A README is for someone who has ten minutes.
func TestReadmeIsShort(t *testing.T) {
	readme := pages(t)["README.md"]
	if lines := strings.Count(readme, "\n"); lines > 200 || len(readme) > 12<<10 {
		t.Errorf("README.md has %d lines and %d bytes, at most 200 and %d: move something to docs/", lines, len(readme), 12<<10)
	}
}

// Each row of a table has as many cells as its head: what stands beyond is not shown.
func TestTablesAreWhole(t *testing.T) {
	divider, bar := regexp.MustCompile(`^\|[ :|-]+\|$`), regexp.MustCompile(`[^\\]\|`)
	found := 0
	for path, text := range pages(t) {
		lines := strings.Split(fenced.ReplaceAllString(text, ""), "\n")
		for i, columns := 1, 0; i < len(lines); i++ {
			switch {
			case divider.MatchString(lines[i]):
				found++
				columns = len(bar.FindAllString(lines[i-1], -1))
			case !strings.HasPrefix(lines[i], "|"):
				columns = 0
			case columns > 0 && len(bar.FindAllString(lines[i], -1)) != columns:
				t.Errorf("%s: a row has not the %d cells of its head: %s", path, columns, lines[i])
			}
		}
	}
	if found < 30 {
		t.Errorf("found only %d tables: the test no longer sees them", found)
	}
}

var (
	linked  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.+)$`)
	fenced  = regexp.MustCompile("(?ms)^```.*?^```")
)

// anchor is what GitHub makes of a heading.
func anchor(heading string) string {
	heading = regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`).ReplaceAllString(heading, "$1")
	heading = strings.ToLower(regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(heading, ""))
	return strings.ReplaceAll(heading, " ", "-")
}

func TestLinksLeadSomewhere(t *testing.T) {
	all := pages(t)
	found := 0
	for path, text := range all {
		for _, m := range linked.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
			target, fragment, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			found++
			to := path
			if target != "" {
				to = filepath.ToSlash(filepath.Join(filepath.Dir(path), target))
			}
			if _, err := os.Stat("../" + to); err != nil {
				t.Errorf("%s: the link %s leads nowhere", path, m[1])
				continue
			}
			var anchors []string
			for _, h := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(all[to], ""), -1) {
				anchors = append(anchors, anchor(h[1]))
			}
			if fragment != "" && !slices.Contains(anchors, fragment) {
				t.Errorf("%s: %s has no heading for the link %s", path, to, m[1])
			}
		}
	}
	if found < 50 {
		t.Errorf("found only %d links: the test no longer sees them", found)
	}
}

// Verbs and metrics that a page names are there.
func TestPagesNameWhatIsThere(t *testing.T) {
	known := map[string]bool{"relay completion": true} // cobra's own
	newTables(t).eachVerb(func(verb *cobra.Command) { known[verb.CommandPath()] = true })
	for _, name := range readRows(metricTable(t)).keys {
		known[name] = true
	}
	named := regexp.MustCompile("(?m)(?:^|`|[$(|] ?)(relay [a-z]+)\\b|\\b(relay_(?:deliver|ingest|outbox|config|own|log|front)_[a-z_]+)")
	found := 0
	for path, text := range pages(t) {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			found++
			if name := m[1] + m[2]; !known[name] {
				t.Errorf("%s names %s, which is not there", path, name)
			}
		}
	}
	if found < 100 {
		t.Errorf("found only %d names: the test no longer sees them", found)
	}
}

// Every number that comments and tests cite has a row in guarantees.md, and every test that
// the page names is there.
func TestGuaranteesAreShown(t *testing.T) {
	page := pages(t)["docs/guarantees.md"]
	numbers := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([PFBS]\d+) \|(.*)\|$`).FindAllStringSubmatch(page, -1) {
		numbers[m[1]] = true
		if !strings.Contains(m[2], "`Test") && !strings.Contains(m[2], ".txtar") && !strings.Contains(m[2], "not built") && !strings.HasSuffix(m[2], "| — ") {
			t.Errorf("%s has no test, and is not marked as not built", m[1])
		}
	}
	for kind, n := range map[string]int{"P": 16, "F": 50, "B": 40, "S": 34} {
		if got := len(slices.DeleteFunc(slices.Collect(maps.Keys(numbers)), func(s string) bool { return s[:1] != kind })); got < n {
			t.Errorf("%d rows of %s, want at least %d", got, kind, n)
		}
	}
	cited := regexp.MustCompile(`(?i)(?:promise|fault|bad input|checklist|safety rule)s? (?:[PFBS]\d+,? (?:and )?)*([PFBS]\d+)`)
	name := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	tests := map[string]bool{}
	for path, text := range goFiles(t) {
		for _, m := range name.FindAllStringSubmatch(text, -1) {
			tests[m[1]] = true
		}
		for _, m := range cited.FindAllStringSubmatch(text, -1) {
			if !numbers[m[1]] {
				t.Errorf("%s cites %s, which guarantees.md does not have", path, m[1])
			}
		}
	}
	for _, m := range regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(page, -1) {
		if !tests[m[1]] {
			t.Errorf("guarantees.md names %s, which is no test", m[1])
		}
	}
}

// goFiles are the texts of all Go files, tests included, by path from the root.
func goFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		files[filepath.ToSlash(strings.TrimPrefix(path, "../"))] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Commands in the text of pages are verbs with their flags, not only those in blocks.
func TestCommandsInTextAreVerbs(t *testing.T) {
	text := pages(t)["docs/operating.md"]
	found := 0
	for _, m := range regexp.MustCompile("`relay ([a-z]+[^`]*)`").FindAllStringSubmatch(text, -1) {
		found++
		c := &command{env: func(string) (string, bool) { return "", false }}
		words := strings.Fields(m[1])
		verb, rest, err := c.root().Find(words)
		if err == nil && verb.HasParent() && words[0] != "completion" {
			err = verb.ParseFlags(rest)
		}
		if err != nil || !verb.HasParent() && words[0] != "completion" && words[0] != "help" {
			t.Errorf("relay %s: %v", m[1], err)
		}
	}
	if found < 30 {
		t.Errorf("found only %d commands: the test no longer sees them", found)
	}
}
