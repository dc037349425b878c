package main

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// plainTexts are the texts that are checked for plain English, as patterns of paths from the root.
// A package's comments come in as "ingest/*.go". The list grows until it is all of the tree.
var plainTexts = []string{"*.md", "docs/*.md", "examples/*/*.md", "relay.hcl.example", "relay/deliver/*.md", "outbox/*.md", "outbox/redisstream/*.md", "relay/app/testdata/*.md"}

// phrases are those of no textbook. Each says how to write it instead.
var phrases = map[string]*regexp.Regexp{
	`say which one: "the old file", "the present time"`:              regexp.MustCompile(`(?i)\bof (before|then|now)\b`),
	`name who: "a caller that", "each Relay that"`:                   regexp.MustCompile(`(?i)\bwho(so)?ever\b`),
	"begin the sentence with the thing, not with a question":         regexp.MustCompile(`(?m)(^|[.:;] )(What|Who|Whatever|Which) [^?.|\n]+\. `),
	`"obey", "apply", "observe" or "honour"`:                         regexp.MustCompile(`(?i)\bheed(s|ed|ing)?\b`),
	`"due since"`:                                                    regexp.MustCompile(`(?i)\bripe\b`),
	`"unlimited", or how large`:                                      regexp.MustCompile(`(?i)\bno bound\b`),
	`"if" and "because" with a full clause`:                          regexp.MustCompile(`(?i)\bwhere that says it\b`),
	`"clamp"`:                                                        regexp.MustCompile(`(?i)\bbrought near\b`),
	"use the glossary: event, endpoint, delivery, attempt, failed":   regexp.MustCompile(`(?i)\b(dead.letter(s|ed)?|DLQ|destinations?|subscriptions?)\b`),
	`"held" only for pending deliveries that nobody works on: lease`: regexp.MustCompile(`(?i)\bheld (lease|claim)s?\b`),
}

func TestTextsArePlainEnglish(t *testing.T) {
	found := 0
	for _, pattern := range plainTexts {
		paths, err := filepath.Glob("../" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			found++
			for i, line := range strings.Split(prose(t, path), "\n") {
				for instead, phrase := range phrases {
					if m := phrase.FindString(line); m != "" {
						t.Errorf("%s:%d: %q: write %s", strings.TrimPrefix(path, "../"), i+1, strings.TrimSpace(m), instead)
					}
				}
			}
		}
	}
	if found < 15 {
		t.Errorf("found only %d texts: the test no longer sees them", found)
	}
}

// prose is what people read of a file: of Go its comments, else all; lines keep their numbers.
func prose(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(path, ".go") {
		return string(text)
	}
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, path, text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	lines := make([]string, strings.Count(string(text), "\n")+1)
	for _, group := range f.Comments {
		for _, c := range group.List {
			first := files.Position(c.Pos()).Line
			for i, line := range strings.Split(c.Text, "\n") {
				lines[first-1+i] = strings.TrimSpace(strings.TrimPrefix(line, "//"))
			}
		}
	}
	return strings.Join(lines, "\n")
}
