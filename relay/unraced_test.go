package main

import (
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// make test runs each test once: with the race detector, or in the run without it, which names tests and packages.
func TestEveryTestRuns(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	value := func(name string) string {
		m := regexp.MustCompile(`(?m)^` + name + ` *= (.*)$`).FindSubmatch(makefile)
		if m == nil {
			t.Fatalf("the Makefile sets no %s", name)
		}
		return strings.ReplaceAll(string(m[1]), "$$", "$")
	}
	unraced, packages := regexp.MustCompile(value("UNRACED")), strings.Fields(value("UNRACED_PACKAGES"))
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w+)\(`)
	found := 0
	for file, text := range goFiles(t) {
		if !strings.HasSuffix(file, "_test.go") || strings.HasPrefix(file, "examples/deploy/check/") {
			continue
		}
		for _, m := range declared.FindAllStringSubmatch(text, -1) {
			switch named, excluded := unraced.MatchString(m[1]), strings.HasPrefix(text, "//go:build !race\n"); {
			case excluded && !named:
				t.Errorf("%s: %s is not built with the race detector, and UNRACED of the Makefile does not name it", file, m[1])
			case named && !slices.Contains(packages, "./"+path.Dir(file)):
				t.Errorf("%s: UNRACED of the Makefile names %s: add its package to UNRACED_PACKAGES, or name another", file, m[1])
			case named:
				found++
			}
		}
	}
	if found < 20 {
		t.Errorf("the run without the race detector has only %d tests", found)
	}
}
