package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Page says how the page for people on the admin listeners looks. A reload replaces it.
type Page struct {
	Enabled bool   // false: the admin listeners answer the API alone
	Title   string // at most 60 characters; "" for Relay's own
	Accent  string // #rrggbb in lower case; "" for Relay's own
	DocsURL string // of the platform's own page about its webhooks, https or on loopback http; "" for none
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
	b.String("docs_url", &p.DocsURL, optional(checkDocsURL))
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

// maxDocsURL bounds the address of the platform's page, in bytes.
const maxDocsURL = 500

func checkDocsURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.User != nil || len(s) > maxDocsURL || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf(`write an address like "https://example.com/webhooks", without user and password and at most %d characters`, maxDocsURL)
	case u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(net.JoinHostPort(u.Hostname(), "0"))):
		return errors.New("it must begin with https:// (or with http:// on loopback)")
	}
	return nil
}

func (p Page) settings() []Setting {
	var all []Setting
	for _, s := range []Setting{{Name: "admin.page.enabled", Value: fmt.Sprint(p.Enabled)}, {Name: "admin.page.title", Value: p.Title}, {Name: "admin.page.accent", Value: p.Accent}, {Name: "admin.page.docs_url", Value: p.DocsURL}} {
		if s.Value != "" {
			all = append(all, s)
		}
	}
	return all
}
