package page

import (
	"cmp"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

//go:embed texts
var textFiles embed.FS

// The languages, by their tags of BCP 47. The first one is used where none fits.
func languages() []string { return []string{"en", "zh-Hant", "zh-Hans"} }

func isLanguage(tag string) bool { return slices.Contains(languages(), tag) }

const languageCookie = "relay_lang"

// languageOf is the language of an answer: the one that was chosen, else the best of Accept-Language
// (RFC 9110, section 12.5.4).
func languageOf(r *http.Request) string {
	if cookie, err := r.Cookie(languageCookie); err == nil && isLanguage(cookie.Value) {
		return cookie.Value
	}
	return preferred(r.Header.Get("Accept-Language"))
}

// preferred is the best language of Accept-Language. What cannot be read is left out.
func preferred(header string) string {
	best, weight := languages()[0], 0.0
	for n, item := range strings.Split(header, ",") {
		if n == 20 {
			break
		}
		tag, q, _ := strings.Cut(item, ";")
		tag = languageFor(strings.ToLower(strings.TrimSpace(tag)))
		w := 1.0
		if value, ok := strings.CutPrefix(strings.TrimSpace(q), "q="); ok {
			if parsed, err := strconv.ParseFloat(value, 64); err == nil {
				w = parsed
			}
		}
		if tag != "" && w > weight && w <= 1 {
			best, weight = tag, w
		}
	}
	return best
}

// languageFor is the language for a tag in lower case, "" for none.
func languageFor(tag string) string {
	parts := strings.Split(tag, "-")
	switch parts[0] {
	case "en":
		return "en"
	case "zh", "yue":
		if slices.Contains(parts, "hans") {
			return "zh-Hans"
		}
		traditional := func(p string) bool { return p == "hant" || p == "tw" || p == "hk" || p == "mo" }
		if slices.ContainsFunc(parts, traditional) || parts[0] == "yue" {
			return "zh-Hant"
		}
		return "zh-Hans"
	}
	return ""
}

// catalogue is all texts: by language, then by key.
type catalogue struct{ texts map[string]map[string]string }

// readCatalogue reads the files of texts, each of which has keys with a text for every language.
func readCatalogue() (*catalogue, error) {
	c := &catalogue{texts: map[string]map[string]string{}}
	for _, lang := range languages() {
		c.texts[lang] = map[string]string{}
	}
	files, err := fs.Glob(textFiles, "texts/*.json")
	if err != nil {
		return nil, fmt.Errorf("read texts: %w", err)
	}
	for _, name := range files {
		body, err := textFiles.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read texts: %w", err)
		}
		var keys map[string]map[string]string
		if err := json.Unmarshal(body, &keys); err != nil {
			return nil, fmt.Errorf("read texts: %s: %w", name, err)
		}
		for key, texts := range keys {
			for _, lang := range languages() {
				if texts[lang] == "" || c.texts[lang][key] != "" {
					return nil, fmt.Errorf("read texts: %s: %s has no text for %s, or is there twice", name, key, lang)
				}
				c.texts[lang][key] = texts[lang]
			}
		}
	}
	return c, nil
}

// has tells whether there is a text.
func (c *catalogue) has(key string) bool { return c.texts[languages()[0]][key] != "" }

// text is a text with its arguments put in. A key without a text is shown as it is; a test looks for such keys.
func (c *catalogue) text(lang, key string, args ...any) string {
	text := cmp.Or(c.texts[lang][key], key)
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// count is a text for a number: its first part for 1, its second for all others. A part has one %s.
func (c *catalogue) count(lang, key string, n int64, shown string) string {
	one, many, two := strings.Cut(cmp.Or(c.texts[lang][key], key), "|")
	if n != 1 && two {
		one = many
	}
	return fmt.Sprintf(one, shown)
}

// html is a text with markup of its own; arguments are escaped.
func (c *catalogue) html(lang, key string, args ...any) template.HTML {
	for i, a := range args {
		if safe, is := a.(template.HTML); is {
			args[i] = string(safe)
			continue
		}
		args[i] = template.HTMLEscapeString(fmt.Sprint(a))
	}
	return template.HTML(c.text(lang, key, args...)) //nolint:gosec // texts are our own
}
