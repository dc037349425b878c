package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var manFolder = flag.String("man", "", "write the manual pages into this folder: make man")

// manPages are the manual pages by file name: one of each verb, with the verbs below it, and relay.1. They are
// made of the same texts as docs/verbs.md, and are no part of the program.
func manPages(t *testing.T) map[string]string {
	t.Helper()
	tables := newTables(t)
	verbs := &strings.Builder{}
	pages := map[string]string{}
	for _, verb := range tables.root.Commands() {
		if verb.Name() == "help" || verb.Name() == "completion" {
			continue
		}
		fmt.Fprintf(verbs, ".TP\n.B %s\n%s\n", roff(verb.Use), roff(verb.Short))
		page := &strings.Builder{}
		head(page, "relay-"+verb.Name(), verb.Short)
		manual(page, verb)
		for _, below := range verb.Commands() {
			manual(page, below)
		}
		fmt.Fprintf(page, ".SH EXIT STATUS\n0: done; 1: failed; 2: wrong usage.\n.SH SEE ALSO\nrelay(1)\n")
		pages["relay-"+verb.Name()+".1"] = page.String()
	}
	page := &strings.Builder{}
	head(page, "relay", tables.root.Short)
	fmt.Fprintf(page, ".SH DESCRIPTION\n%s\n.SH VERBS\n%s.SH EXIT STATUS\n0: done; 1: failed; 2: wrong usage.\n", roff(tables.root.Long), verbs)
	pages["relay.1"] = page.String()
	return pages
}

func head(b *strings.Builder, name, short string) {
	fmt.Fprintf(b, ".TH %s 1\n.SH NAME\n%s \\- %s\n", strings.ToUpper(name), roff(name), roff(short))
}

func manual(b *strings.Builder, verb *cobra.Command) {
	text := verb.Short + "."
	if verb.Long != "" {
		text = verb.Long
	}
	fmt.Fprintf(b, ".SH %s\n.B %s %s\n.PP\n.nf\n%s\n.fi\n", strings.ToUpper(roff(verb.CommandPath())), roff(verb.Parent().CommandPath()), roff(verb.Use), roff(text))
	verb.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" {
			kind, usage := pflag.UnquoteUsage(f)
			fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(strings.TrimSpace("--"+f.Name+" "+kind)), roff(usage))
		}
	})
	if verb.Example != "" {
		fmt.Fprintf(b, ".PP\nExamples:\n.PP\n.nf\n%s\n.fi\n", roff(verb.Example))
	}
}

// roff is a text in which nothing is a request or an escape.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(strings.TrimSpace(text))
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

func TestManPages(t *testing.T) {
	pages := manPages(t)
	if len(pages) < 25 || !strings.Contains(pages["relay-endpoints.1"], `.SH RELAY ENDPOINTS ADD`) || !strings.Contains(pages["relay-deliveries.1"], `.B \-\-attempted\-since time`) {
		t.Errorf("%d pages, or parts of them are missing", len(pages))
	}
	if *manFolder == "" {
		*manFolder = t.TempDir()
	}
	if err := os.MkdirAll(*manFolder, 0o755); err != nil {
		t.Fatal(err)
	}
	requests := []string{".TH", ".SH", ".TP", ".B", ".PP", ".nf", ".fi"}
	for name, page := range pages {
		for line := range strings.Lines(page) {
			if request, _, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(line, ".") && !slices.Contains(requests, request) || strings.HasPrefix(line, "'") {
				t.Errorf("%s: a text is taken for a request: %s", name, line)
			}
		}
		path := filepath.Join(*manFolder, name)
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		if groff, err := exec.LookPath("groff"); err == nil {
			if out, err := exec.CommandContext(t.Context(), groff, "-man", "-ww", "-z", "-Tutf8", "-K", "utf8", path).CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%s: %s %v", name, out, err)
			}
		}
	}
}
