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

// plainTexts are texts that are checked for plain English, as patterns of paths from the root;
// the comments of all Go files are, too.
var plainTexts = []string{
	"*.md", "docs/*.md", "examples/*/*.md", "relay.hcl.example",
	"outbox/*.md", "outbox/redisstream/*.md", "relay/deliver/*.md", "relay/app/testdata/*.md",
}

// phrases are those of no textbook. Each says how to write it instead.
var phrases = map[string]*regexp.Regexp{
	`say which one: "the old file", "the present time"`:              regexp.MustCompile(`(?i)\bof (before|then|now)\b`),
	`name who: "a caller that", "each Relay that"`:                   regexp.MustCompile(`(?i)\bwho(so)?ever\b`),
	"begin the sentence with the thing, not with a question":         regexp.MustCompile(`(?m)(^|[.:;] )(What|Who|Whatever|Which) [^?.|\n]+\. `),
	`"obey", "apply", "observe" or "honour"`:                         regexp.MustCompile(`(?i)\bheed(s|ed|ing)?\b`),
	`"due since"`:                                                    regexp.MustCompile(`(?i)\bripe\b`),
	`"if" and "because" with a full clause`:                          regexp.MustCompile(`(?i)\bwhere that says it\b`),
	`"clamp"`:                                                        regexp.MustCompile(`(?i)\bbrought near\b`),
	`"again"`:                                                        regexp.MustCompile(`(?i)\banew\b`),
	`"silently"`:                                                     regexp.MustCompile(`(?i)\bin silence\b`),
	`"from time to time", "rarely"`:                                  regexp.MustCompile(`(?i)\bnow and then\b`),
	`"succeed", "work"`:                                              regexp.MustCompile(`(?i)\b((go(es)?|went) well|well again)\b`),
	`"replace", "instead of"`:                                        regexp.MustCompile(`(?i)\bin the place of\b`),
	`"masked if it must not be shown"`:                               regexp.MustCompile(`(?i)\bfit to be (shown|printed)\b`),
	`say who logs, reports or answers it`:                            regexp.MustCompile(`(?i)\btold (of|by)\b`),
	`"apply", "replace", "keep"`:                                     regexp.MustCompile(`(?i)\btakes over\b`),
	"use the glossary: event, endpoint, delivery, attempt, failed":   regexp.MustCompile(`(?i)\b(dead.letter(s|ed)?|DLQ|destinations?|subscriptions?)\b`),
	`"held" only for pending deliveries that nobody works on: lease`: regexp.MustCompile(`(?i)\bheld (lease|claim)s?\b`),
}

func TestTextsArePlainEnglish(t *testing.T) {
	texts := map[string]string{}
	for _, pattern := range plainTexts {
		paths, err := filepath.Glob("../" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			texts[strings.TrimPrefix(path, "../")] = string(text)
		}
	}
	for path, text := range goFiles(t) {
		texts[path] = comments(t, path, text)
	}
	for path, text := range texts {
		for i, line := range strings.Split(text, "\n") {
			for instead, phrase := range phrases {
				if m := phrase.FindString(line); m != "" {
					t.Errorf("%s:%d: %q: write %s", path, i+1, strings.TrimSpace(m), instead)
				}
			}
		}
	}
	if len(texts) < 200 {
		t.Errorf("found only %d texts: the test no longer sees them", len(texts))
	}
}

// comments are those of a Go file; lines keep their numbers.
func comments(t *testing.T, path, text string) string {
	t.Helper()
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, path, text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	lines := make([]string, strings.Count(text, "\n")+1)
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
