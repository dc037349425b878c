package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty/function"

	"relay/config/eval"
)

// File is a configuration that was read and parsed, from one file or several.
// Package policy decodes the rest of it through Root.
type File struct {
	Config Config
	Paths  []string // what was read, in order

	// Warnings are for people; Relay starts all the same. policy.Decode evaluates expressions, so
	// it can add warnings.
	Warnings []string

	sources  []*source
	warned   map[string]bool // keys of warnOnce
	problems Diagnostics     // of the blocks of this package
	reads    reads
	fragment bool           // it is a Fragment, for which nothing on the machine is read
	observer *observer      // of Describe
	left     eval.Allowance // of the present expression
	took     time.Duration  // all that were evaluated
}

// source is one file's text.
type source struct {
	name  string
	text  []byte
	body  *hclsyntax.Body
	plain *hcl.EvalContext
	draw  func(drawer) map[string]function.Function // env and file
}

// Find names the files to read: those of flags (a folder stands for its *.hcl files, by name),
// else of $RELAY_CONFIG, else ./relay.hcl, else /etc/relay/relay.hcl. Error: there is none.
func Find(flags []string, env func(string) (string, bool)) ([]string, error) {
	if path, _ := env("RELAY_CONFIG"); len(flags) == 0 && path != "" {
		flags = []string{path}
	}
	var found []string
	for _, path := range flags {
		files, err := expand(path)
		if err != nil {
			return nil, fmt.Errorf("find configuration: %w", err)
		}
		for _, f := range files {
			if !slices.Contains(found, f) {
				found = append(found, f)
			}
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	for _, path := range []string{"relay.hcl", "/etc/relay/relay.hcl"} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return []string{path}, nil // if it cannot be read, Load says why
		}
	}
	return nil, errors.New("no configuration found: looked for --config, $RELAY_CONFIG, ./relay.hcl and /etc/relay/relay.hcl; " +
		"copy relay.hcl.example to relay.hcl, or name a file with --config")
}

func expand(path string) ([]string, error) {
	path = filepath.Clean(path)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasSuffix(name, ".hcl") && !strings.HasPrefix(name, ".") && !e.IsDir() {
			files = append(files, filepath.Join(path, name))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("folder %s has no *.hcl file", path)
	}
	return files, nil
}

// Load reads the files as one configuration. Errors: Diagnostics with all problems of syntax or,
// if there are none, all problems of the blocks of this package. With an error, only Reads and
// Digest of the File are of use.
func Load(paths []string, env func(string) (string, bool)) (*File, error) {
	f := &File{Paths: paths}
	var problems Diagnostics
	for _, path := range paths {
		text, err := readSource(path)
		f.reads.add(path, text)
		if err != nil {
			problems = append(problems, Diagnostic{Range: hcl.Range{Filename: path}, Summary: "Cannot read the file", Detail: reason(err).Error()})
			continue
		}
		f.sources = append(f.sources, &source{name: path, text: text})
	}
	if len(problems) > 0 {
		return f, problems
	}
	return f.load(env)
}

// Parse is Load for one source in memory. The folder of name is where file()
// starts.
func Parse(name string, src []byte, env func(string) (string, bool)) (*File, error) {
	f := &File{Paths: []string{name}, sources: []*source{{name: name, text: src}}}
	return f.load(env)
}

// readSource reads one byte more than is allowed, so that load can see that the file is too
// large.
func readSource(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSource+1))
}

func (f *File) load(env func(string) (string, bool)) (*File, error) {
	var problems Diagnostics
	blocks := 0
	for _, s := range f.sources {
		if p := s.parse(); len(p) > 0 {
			problems = append(problems, p...)
			continue
		}
		blocks += len(s.body.Blocks) + len(s.body.Attributes)
		s.plain, s.draw = contexts(s.name, env, f)
	}
	if len(problems) > 0 {
		return f, problems
	}
	if blocks == 0 {
		// A truncated or empty file must not remove what runs.
		f.problems = Diagnostics{{
			Range:   hcl.Range{Filename: strings.Join(f.Paths, ", ")},
			Summary: "The configuration is empty",
			Detail:  `write at least one block, like endpoint "billing" { … }; relay.hcl.example shows all.`,
		}}
		return f, f.problems
	}
	root := f.Root()
	f.Config = decode(root, Default(env))
	err := root.Err()
	f.problems = *root.problems
	return f, err
}

// Decodable tells whether the files could be parsed, so that there are blocks to decode. The
// problems that Load found then come with those of policy.Decode.
func (f *File) Decodable() bool {
	return len(f.sources) == len(f.Paths) && !slices.ContainsFunc(f.sources, func(s *source) bool { return s.draw == nil })
}

func (s *source) parse() Diagnostics {
	if d := s.unfit(); d != nil {
		return Diagnostics{*d}
	}
	parsed, diags := hclsyntax.ParseConfig(s.text, s.name, hcl.InitialPos)
	if diags.HasErrors() {
		return s.formProblems(diags)
	}
	s.body = parsed.Body.(*hclsyntax.Body)
	return nil
}

// formProblems are what the parser says. Behind the first string that is not closed it takes
// texts for syntax and syntax for texts, so nothing from there on is repeated.
func (s *source) formProblems(diags hcl.Diagnostics) Diagnostics {
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int { return a.Subject.Start.Byte - b.Subject.Start.Byte })
	open := slices.IndexFunc(diags, func(d *hcl.Diagnostic) bool { return d.Summary == "Invalid multi-line string" })
	if open >= 0 {
		first := diags[open]
		diags = diags[:open]
		if open == 0 || diags[open-1].Subject.Start.Line != first.Subject.Start.Line {
			diags = append(diags, &hcl.Diagnostic{Subject: first.Subject, Summary: "String is not closed",
				Detail: `a string ends in the line where it begins, and here a quote (") is missing. Write \n for a line break in a text.`})
		}
	}
	var problems Diagnostics
	for _, d := range diags {
		problems.add(s.text, Place{at: *d.Subject}, d.Summary, d.Detail)
	}
	return problems
}

// unfit says why the text must not be given to the parser, nil if it may.
func (s *source) unfit() *Diagnostic {
	whole := &Diagnostic{Range: hcl.Range{Filename: s.name}}
	if int64(len(s.text)) > maxSource {
		whole.Summary = "The file is larger than " + FormatSize(maxSource)
		whole.Detail = "Split it: --config can be given several times, or name a folder of *.hcl files."
		return whole
	}
	if !utf8.Valid(s.text) {
		whole.Summary = "The file is not UTF-8 text"
		return whole
	}
	return checkNesting(s.name, s.text)
}

// Forget drops the text and the syntax of the files, which nothing needs after decoding. With
// many endpoints they are the larger part. Config, Paths, Warnings, Reads and Digest stay.
func (f *File) Forget() { f.sources = nil }

func (f *File) warn(text string) {
	if !slices.Contains(f.Warnings, text) {
		f.Warnings = append(f.Warnings, text)
	}
}

// warnOnce warns at the first of the places that use one thing outside of the file, which
// key names.
func (f *File) warnOnce(p Place, key, text string) {
	key += "\n" + text
	if f.warned[key] {
		return
	}
	if f.warned == nil {
		f.warned = map[string]bool{}
	}
	f.warned[key] = true
	f.warn(fmt.Sprintf("%s: %s", p, text))
}

// Root reads the top level of all files as one block, with the problems that Load found.
func (f *File) Root() *Block {
	root := &Block{file: f, problems: new(slices.Clone(f.problems))}
	for _, s := range f.sources {
		root.add(s.body)
	}
	return root
}

func (f *File) source(name string) *source {
	i := slices.IndexFunc(f.sources, func(s *source) bool { return s.name == name })
	return f.sources[i]
}
