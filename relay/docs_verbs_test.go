package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Every command of Relay that a text shows can be typed: its verb, its flags and the number of its arguments are right.
// The texts are the pages, with code in lines and blocks, and the examples, with their comments.
func TestCommandsOfTextsParse(t *testing.T) {
	found := 0
	check := func(path, line string) {
		for _, words := range commandsOf(line) {
			found++
			if err := parses(words); err != nil {
				t.Errorf("%s: relay %s: %v", path, strings.Join(words, " "), err)
			}
		}
	}
	for path, text := range pages(t) {
		if path == "docs/verbs.md" {
			continue // written by the program, in the form of its help
		}
		for _, line := range codeOf(text) {
			check(path, line)
		}
	}
	for _, path := range exampleFiles(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range codeOf(string(text)) {
			check(path, line)
		}
		if strings.HasSuffix(path, ".sh") {
			for _, line := range shellLines(string(text)) {
				check(path, line)
			}
		}
	}
	if found < 250 {
		t.Errorf("found only %d commands: the test no longer sees them", found)
	}
}

// What the test of the texts has to refuse, and what it has to take.
func TestParsesCommands(t *testing.T) {
	for line, want := range map[string]bool{
		"relay endpoints remove NAME --force": false, "relay endpoints rm NAME --force": true, "relay frobnicate": false, "relay check --nonsense": false,
		"relay secret show a b c": false, "relay deliveries --state failed --since 1h | head": true, "relay redeliver --endpoint billing …": true, "X=1 relay serve &": true,
	} {
		all := commandsOf(line)
		if len(all) != 1 {
			t.Errorf("%s: found %q", line, all)
			continue
		}
		if err := parses(all[0]); (err == nil) != want {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// exampleFiles are the files of the examples that are no pages.
func exampleFiles(t *testing.T) (all []string) {
	t.Helper()
	err := filepath.WalkDir("../examples", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "node_modules" {
			return filepath.SkipDir
		}
		if err == nil && d.Type().IsRegular() {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return append(all, "../relay.hcl.example")
}

var inline = regexp.MustCompile("`([^`\n]+)`")

// codeOf is the code of a text that may have commands: blocks of a shell, and code in lines.
func codeOf(text string) (lines []string) {
	for _, language := range []string{"sh", "console", "text", ""} {
		_, sources := blocks(text, language)
		for _, source := range sources {
			lines = append(lines, shellLines(source)...)
		}
	}
	for _, m := range inline.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		lines = append(lines, m[1])
	}
	return lines
}

// shellLines are the lines of a script without comments, those that go on with a backslash in one.
func shellLines(script string) (lines []string) {
	for line := range strings.Lines(strings.ReplaceAll(script, "\\\n", " ")) {
		line, _, _ = strings.Cut(line, "  #") // of a comment that is set off
		if line = strings.TrimPrefix(strings.TrimSpace(line), "$ "); !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}

var relayCall = regexp.MustCompile(`(?:^|[|;&(]\s*|\$\(|^[A-Z_]+=\S+ )relay ((?:"[^"]*"|'[^']*'|[^|;&>)"'])*)`)

// commandsOf are the arguments of the commands of Relay in a line.
func commandsOf(line string) (all [][]string) {
	for _, m := range relayCall.FindAllStringSubmatch(line, -1) {
		var words []string
		for _, word := range regexp.MustCompile(`(?:"[^"]*"|'[^']*'|[^\s"'])+`).FindAllString(m[1], -1) {
			if strings.HasPrefix(word, "#") {
				break
			}
			words = append(words, strings.Trim(word, `"'`))
		}
		if len(words) > 0 {
			all = append(all, words)
		}
	}
	return all
}

// parses tells what is wrong with a command. Arguments and the value of a flag may be left out at its end, as a text does
// that only mentions it; of one that is abbreviated with "…" what stands before counts.
func parses(words []string) (err error) {
	for i, word := range words {
		if word == "…" && i > 0 && !strings.HasPrefix(words[i-1], "--") {
			words = words[:i]
			break
		}
	}
	for _, more := range [][]string{nil, {"X"}, {"X", "X"}, {"--", "X"}} {
		c := &command{streams: streams{out: io.Discard, err: io.Discard}}
		root := c.root()
		root.InitDefaultCompletionCmd()
		var cmd *cobra.Command
		var rest []string
		if cmd, rest, err = root.Find(slices.Concat(words, more)); err != nil {
			return err
		}
		if err = cmd.ParseFlags(rest); err == nil {
			err = cmd.ValidateArgs(cmd.Flags().Args())
		}
		if err == nil || more == nil && strings.HasPrefix(err.Error(), "flag needs an argument") {
			return nil
		}
	}
	return err
}
