package page

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"relay/internal/testkit/golden"
)

// isGolden compares the main part of a screen with a file of testdata.
func isGolden(t *testing.T, name, body string) {
	t.Helper()
	_, main, _ := strings.Cut(body, "<main")
	main, _, _ = strings.Cut("<main"+main, "</main>")
	main = regexp.MustCompile(`name="once" value="[^"]+"`).ReplaceAllString(main, `name="once" value="MARK"`)
	main = strings.TrimSpace(regexp.MustCompile(`\n+`).ReplaceAllString(main, "\n")) + "\n"
	file := filepath.Join("testdata", name+".html")
	golden.Check(t, file, main)
}
