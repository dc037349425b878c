package page

import (
	_ "embed" // for the texts
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"relay/internal/packed"
)

//go:embed texts.gz
var textArchive []byte

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

// catalogue is all texts, by key and language. Its files are read when the first text is asked for.
// In a file each key has a list of texts, in the order of languages.
type catalogue struct {
	once  sync.Once
	texts map[string][]string
}

// read panics if a file cannot be read: they are part of the binary, and a test reads them. What was unpacked is let go.
func (c *catalogue) read() map[string][]string {
	c.once.Do(func() {
		c.texts = map[string][]string{}
		for name, body := range packed.Files(textArchive) {
			if err := json.Unmarshal([]byte(body), &c.texts); err != nil { // adds its keys
				panic("page: " + name + ": " + err.Error())
			}
		}
	})
	return c.texts
}

// find is the text of a key, the key itself if there is none; a test looks for such keys.
func (c *catalogue) find(lang, key string) string {
	texts, i := c.read()[key], slices.Index(languages(), lang)
	if i < 0 || i >= len(texts) {
		return key
	}
	return texts[i]
}

// has tells whether there is a text.
func (c *catalogue) has(key string) bool { return c.read()[key] != nil }

// text is a text with its arguments put in.
func (c *catalogue) text(lang, key string, args ...any) string {
	text := c.find(lang, key)
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// count is a text for a number: its first part for 1, its second for all others. A part has one %s.
func (c *catalogue) count(lang, key string, n int64, shown string) string {
	one, many, two := strings.Cut(c.find(lang, key), "|")
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
