package config

import (
	"regexp"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Partial reads as much of the files as possible, for verbs that have to find a running Relay.
// Parts that cannot be read are as in Default. The error says why the Config is incomplete; it is
// nil for a valid file.
func Partial(paths []string, env func(string) (string, bool)) (Config, error) {
	f, err := Load(paths, env)
	if err == nil {
		return f.Config, nil
	}
	for _, s := range f.sources {
		s.salvage()
		s.plain, s.draw = contexts(s.name, env, f)
	}
	f.sources = slices.DeleteFunc(f.sources, func(s *source) bool { return s.body == nil })
	return decode(f.Root(), Default(env)), err
}

// placed are the blocks that say where a Relay is.
var placed = []string{"ingest", "outbox", "admin"}

// salvage returns the readable blocks of a source with errors: those that the parser found
// despite an error, and then those of placed that stand at the start of a line up to the next
// brace there, as `hclfmt` writes them.
func (s *source) salvage() {
	if s.body != nil || s.unfit() != nil {
		return
	}
	s.body = &hclsyntax.Body{}
	if parsed, _ := hclsyntax.ParseConfig(s.text, s.name, hcl.InitialPos); parsed != nil {
		s.body = parsed.Body.(*hclsyntax.Body)
	}
	for _, at := range topBlock.FindAllIndex(s.text, -1) {
		parsed, diags := hclsyntax.ParseConfig(s.text[at[0]:at[1]], s.name, hcl.InitialPos)
		if diags.HasErrors() {
			continue
		}
		for _, b := range parsed.Body.(*hclsyntax.Body).Blocks {
			known := func(k *hclsyntax.Block) bool { return k.Type == b.Type }
			if slices.Contains(placed, b.Type) && !slices.ContainsFunc(s.body.Blocks, known) {
				s.body.Blocks = append(s.body.Blocks, b)
			}
		}
	}
}

// topBlock is a block from the start of a line to the next brace at the start of one, or
// to the end of its line.
var topBlock = regexp.MustCompile(`(?m)^(?:ingest|outbox|admin)\b[^\n{]*\{(?:[^\n]*\}[ \t\r]*$|(?s:.*?)^\})`)
