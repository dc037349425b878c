package page

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata")

// isGolden compares the main part of a screen with a file of testdata.
func isGolden(t *testing.T, name, body string) {
	t.Helper()
	_, main, _ := strings.Cut(body, "<main")
	main, _, _ = strings.Cut("<main"+main, "</main>")
	main = regexp.MustCompile(`name="once" value="[^"]+"`).ReplaceAllString(main, `name="once" value="MARK"`)
	main = strings.TrimSpace(regexp.MustCompile(`\n+`).ReplaceAllString(main, "\n")) + "\n"
	file := filepath.Join("testdata", name+".html")
	if *update {
		if err := os.WriteFile(file, []byte(main), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), main); diff != "" {
		t.Errorf("%s is not what the screen shows (-want +got); after a wanted change: go test ./relay/page -args -update\n%s", file, diff)
	}
}
