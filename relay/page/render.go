package page

import (
	"bytes"
	"cmp"
	_ "embed" // for the templates
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"relay/internal/packed"
	"relay/relay/admin"
	"relay/relay/page/markup"
	"relay/relay/page/show"
)

//go:embed templates.gz
var templateArchive []byte

// screens is the templates, by words and name of the screen. Each is read when it is first shown: most Relays
// show none.
type screens struct {
	now   func() time.Time
	parse func(files map[string]string, funcs map[string]any) (executor, error)

	mu    sync.Mutex
	files map[string]string // the texts of all templates, which what was read of them shares; nil before the first
	read  map[string]executor
}

// executor is the templates of a screen.
type executor interface {
	Execute(w io.Writer, name string, data any) error
}

func parseMarkup(files map[string]string, funcs map[string]any) (executor, error) {
	return markup.Parse(files, funcs)
}

// screen is the templates of a screen: its own, and those in parts, which belong to all.
func (s *screens) screen(w words, name string) (executor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := w.lang + name
	if w.your {
		key += yours
	}
	if t := s.read[key]; t != nil {
		return t, nil
	}
	if s.files == nil {
		s.files = packed.Files(templateArchive)
	}
	own := name + ".html"
	files := map[string]string{own: s.files[own]}
	for file, text := range s.files {
		if strings.HasPrefix(file, "parts/") {
			files[file] = text
		}
	}
	t, err := s.parse(files, functions(w, s.now))
	if err == nil {
		s.read[key] = t
	}
	return t, err
}

// frame is what every template gets.
type frame struct {
	c      *call
	Screen string
	Title  string
	Data   any

	Lang    string
	Look    Look
	Version string // of Relay
	Now     time.Time
	Known   bool // somebody is logged in, or need not be
	Session bool // that can be ended
	Whole   bool // all tenants and endpoints
	Tenants bool // several tenants can be seen
	Who     string
	Query   string // of the search box
	Notice  string
	Bad     bool // the notice tells of a failure
	Part    bool
}

// Method offers the methods of a frame to templates.
func (f *frame) Method(name string) any {
	switch name {
	case "May":
		return f.May
	case "Here":
		return f.Here
	case "InLanguage":
		return f.InLanguage
	case "At":
		return f.At
	case "Asset":
		return f.Asset
	case "Languages":
		return f.Languages
	case "Mark":
		return f.Mark
	case "Called":
		return f.Called
	case "With":
		return f.With
	}
	return nil
}

// May tells whether the session has a right.
func (f *frame) May(right string) bool { return f.c.may(admin.Right(right)) }

// Here is the address with one parameter of the query changed; "" removes it. What only holds for one page or one
// look goes.
func (f *frame) Here(name, value string) string {
	q := f.c.r.URL.Query()
	for _, once := range []string{"cursor", "offset", "page", "lang"} {
		q.Del(once)
	}
	q.Del(name)
	if value != "" {
		q.Set(name, value)
	}
	u := url.URL{Path: f.c.r.URL.Path, RawQuery: q.Encode()}
	return u.String()
}

// InLanguage is the same address in another language.
func (f *frame) InLanguage(lang string) string {
	q := f.c.r.URL.Query()
	q.Set("lang", lang)
	u := url.URL{Path: f.c.r.URL.Path, RawQuery: q.Encode()}
	if f.c.r.Method != http.MethodGet {
		u.Path = "/"
	}
	return u.String()
}

// At tells whether the screen belongs to an entry of the menu.
func (f *frame) At(entry string) bool {
	if entry == "/" {
		return f.c.r.URL.Path == "/"
	}
	return f.c.r.URL.Path == entry || strings.HasPrefix(f.c.r.URL.Path, entry+"/")
}

// Asset is the address of an asset.
func (f *frame) Asset(name string) string { return "/assets/" + name + "?v=" + f.c.p.version(name) }

// Languages lists the tags of all languages.
func (f *frame) Languages() []string { return languages() }

// Mark is a mark for a form. In an answer that viewers share it stands for one that each of them gets.
func (f *frame) Mark() string { return cmp.Or(f.c.mark, newMark()) }

// With is the frame of a part, with data of its own.
func (f *frame) With(data any) *frame {
	part := *f
	part.Data = data
	return &part
}

// frame is the frame of a screen.
func (c *call) frame(screen, title string, data any) *frame {
	return &frame{
		c: c, Screen: screen, Title: show.Plain(title), Data: data, Lang: c.lang, Look: c.p.Look(), Version: c.p.Version, Now: c.p.Now(),
		Known: c.known, Session: c.session, Whole: c.whole(), Tenants: c.seesTenants(), Who: show.Plain(c.nameOf(c.access)), Query: c.r.URL.Query().Get("q"), Part: c.part(),
	}
}

// render is a part of a screen, with the frame of the request.
func (c *call) render(screen, part string, data any) (string, error) {
	t, err := c.p.screens.screen(c.words(), screen)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	err = t.Execute(&out, part, c.frame(screen, "", data))
	return out.String(), err
}

// show answers a screen.
func (c *call) show(status int, screen, title string, data any) {
	t, err := c.p.screens.screen(c.words(), screen)
	var out bytes.Buffer
	if err == nil {
		f := c.frame(screen, title, data)
		f.Notice, f.Bad = c.notice()
		err = t.Execute(&out, "layout", f)
	}
	if err != nil {
		http.Error(c.w, "relay: the page "+screen+" cannot be shown: "+err.Error(), http.StatusInternalServerError)
		return
	}
	h := c.w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", c.lang)
	h.Set("Vary", "Accept-Language, Cookie")
	if screen == "again" {
		h.Set("Refresh", "0; url="+fmt.Sprint(data))
	}
	c.w.WriteHeader(status)
	if c.r.Method != http.MethodHead {
		_, _ = c.w.Write(out.Bytes()) // the client has gone
	}
}

// functions are what templates call without a frame.
func functions(texts words, now func() time.Time) map[string]any {
	all := formats(texts, now)
	maps.Copy(all, map[string]any{
		"t":    texts.text,
		"th":   texts.html,
		"has":  texts.has,
		"or1":  func(a, b string) string { return cmp.Or(a, b) },
		"list": func(items ...any) []any { return items },
		"path": func(format string, names ...any) string { return escaped(format, names...) },
	})
	return all
}
