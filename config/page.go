package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Page says how the page for people on the admin listeners looks. A reload replaces it.
type Page struct {
	Enabled bool   // false: the admin listeners answer the API alone
	Title   string // at most 60 characters; "" for Relay's own
	Accent  string // #rrggbb in lower case; "" for Relay's own
}

// maxTitle bounds the title of the page, in characters.
const maxTitle = 60

func (p *Page) read(b *Block) {
	if b == nil {
		return
	}
	b.Bool("enabled", &p.Enabled)
	b.String("title", &p.Title, checkTitle)
	if b.String("accent", &p.Accent, optional(checkColour)) {
		p.Accent = strings.ToLower(p.Accent)
	}
	b.Done()
}

func checkTitle(s string) error {
	if n := utf8.RuneCountInString(s); n > maxTitle {
		return fmt.Errorf("a title has at most %d characters, this one has %d", maxTitle, n)
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return errors.New("a title is one line without control characters")
	}
	return nil
}

func checkColour(s string) error {
	digits, ok := strings.CutPrefix(s, "#")
	if !ok || len(digits) != 6 || strings.Trim(digits, "0123456789abcdefABCDEF") != "" {
		return errors.New(`write a colour as #rrggbb, like "#2f6f4f"`)
	}
	return nil
}

func (p Page) settings() []Setting {
	var all []Setting
	for _, s := range []Setting{{Name: "admin.page.enabled", Value: fmt.Sprint(p.Enabled)}, {Name: "admin.page.title", Value: p.Title}, {Name: "admin.page.accent", Value: p.Accent}} {
		if s.Value != "" {
			all = append(all, s)
		}
	}
	return all
}
