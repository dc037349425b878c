package page

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"relay/internal/packed"
)

// entries reads the files of texts one by one, so that a key in two of them is seen.
func entries(t *testing.T) map[string]map[string]string {
	t.Helper()
	all := map[string]map[string]string{}
	files := packed.Files(textArchive)
	if len(files) < 5 {
		t.Fatalf("%d files", len(files))
	}
	for file, body := range files {
		var lists map[string][]string
		if err := json.Unmarshal([]byte(body), &lists); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for key, list := range lists {
			text := map[string]string{}
			for i, lang := range languages()[:min(len(list), len(languages()))] {
				text[lang] = list[i]
			}
			if len(list) > len(languages()) {
				t.Errorf("%s: %s has %d texts", file, key, len(list))
			}
			if all[key] != nil && !maps.Equal(all[key], text) {
				t.Errorf("%s: %s is in another file as well, with other words", file, key)
			}
			all[key] = text
		}
	}
	return all
}

// Every text is there in every language, with the same arguments; only a language that has a plural has one.
func TestCatalogueIsComplete(t *testing.T) {
	argument := regexp.MustCompile(`%(\[[0-9]\])?[a-z]`)
	for key, texts := range entries(t) {
		if len(texts) != len(languages()) {
			t.Errorf("%s is in %d languages, not in %d", key, len(texts), len(languages()))
		}
		want := -1
		for _, lang := range languages() {
			text := texts[lang]
			if strings.TrimSpace(text) == "" {
				t.Errorf("%s has no text in %s", key, lang)
			}
			parts := strings.Split(text, "|")
			if len(parts) > 2 || len(parts) == 2 && lang != "en" {
				t.Errorf("%s in %s has %d forms", key, lang, len(parts))
			}
			for _, part := range parts {
				n := len(argument.FindAllString(strings.ReplaceAll(part, "%%", ""), -1))
				if want < 0 {
					want = n
				}
				if n != want {
					t.Errorf("%s in %s has %d arguments, not %d: %q", key, lang, n, want, part)
				}
			}
		}
	}
}

// Traditional Chinese has no characters that are only written in simplified Chinese, and the other way round.
func TestChineseIsOfItsKind(t *testing.T) {
	for lang, foreign := range map[string]string{
		"zh-Hant": "设发状载运这为统级绝纪错询时执测试页删复",
		"zh-Hans": "設發狀載運這為統級絕紀錯詢時執測試頁刪復",
	} {
		for key, texts := range entries(t) {
			if i := strings.IndexAny(texts[lang], foreign); i >= 0 && !strings.HasPrefix(key, "language.") {
				t.Errorf("%s in %s has characters of another kind: %s", key, lang, texts[lang])
			}
		}
	}
}

// templateTexts are the templates by file.
func templateTexts(t *testing.T) map[string]string {
	t.Helper()
	all := packed.Files(templateArchive)
	if len(all) < 10 {
		t.Fatalf("%d templates", len(all))
	}
	return all
}

// literals are the texts in quotes of all Go files of the package and of all templates.
func literals(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	quoted := regexp.MustCompile(`"([^"\n]*)"`)
	action := regexp.MustCompile(`(?s)\{\{.*?\}\}`)
	for _, text := range templateTexts(t) {
		for _, a := range action.FindAllString(text, -1) {
			for _, m := range quoted.FindAllStringSubmatch(a, -1) {
				all[m[1]] = true
			}
		}
	}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if path.Ext(f.Name()) != ".go" || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			if l, is := n.(*ast.BasicLit); is && l.Kind == token.STRING {
				if text, err := strconv.Unquote(l.Value); err == nil {
					all[text] = true
				}
			}
			return true
		})
	}
	return all
}

// Every key that a template or the code names is there, and each that is there is named, whole or by how it begins.
func TestCatalogueFitsWhatIsAsked(t *testing.T) {
	texts, named := entries(t), literals(t)
	asked := regexp.MustCompile(`\b(?:t|th|n)\s+"([^"]+)"`)
	found := 0
	for file, text := range templateTexts(t) {
		for _, m := range asked.FindAllStringSubmatch(text, -1) {
			if found++; texts[m[1]] == nil {
				t.Errorf("%s asks for %s, which is in no file of texts", file, m[1])
			}
		}
	}
	called := regexp.MustCompile(`\bc\.t\("([^"]+)"[,)]`)
	files, _ := fs.Glob(os.DirFS("."), "*.go")
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range called.FindAllStringSubmatch(string(body), -1) {
			if found++; texts[m[1]] == nil {
				t.Errorf("%s asks for %s, which is in no file of texts", file, m[1])
			}
		}
	}
	prefixes := map[string]bool{}
	if found < 100 {
		t.Errorf("found only %d keys: the test no longer sees them", found)
	}
	for _, text := range templateTexts(t) {
		for _, m := range regexp.MustCompile(`print "([^"]+)"`).FindAllStringSubmatch(text, -1) {
			prefixes[m[1]] = true
		}
	}
	begins := func(key string) bool {
		for i := range key {
			if prefixes[key[:i]] || key[i] == '.' && named[key[:i+1]] {
				return true
			}
		}
		return false
	}
	for _, key := range slices.Sorted(maps.Keys(texts)) {
		did, is := strings.CutPrefix(key, "did.")
		ok := named[key] || begins(key) || is && named[did]
		for i := range key {
			ok = ok || key[i] == '.' && named[key[i:]] && (named[key[:i]] || begins(key[:i]))
		}
		if !ok {
			t.Errorf("nothing asks for %s", key)
		}
	}
}

// No template has words of its own: neither between tags nor in an attribute that people read. Samples of what to type are
// the same in all languages.
func TestNoTextOutsideTheCatalogue(t *testing.T) {
	action := regexp.MustCompile(`(?s)\{\{.*?\}\}`)
	sample := regexp.MustCompile(`(?s)<(pre|code|kbd)\b[^>]*>.*?</(pre|code|kbd)>`)
	tag := regexp.MustCompile(`(?s)<[^>]*>`)
	entity := regexp.MustCompile(`&[a-z]+;`)
	read := regexp.MustCompile(`\b(title|aria-label|placeholder|alt)="([^"]*)"`)
	typed := regexp.MustCompile(`^[a-z0-9.*=>_:/@-]*$`)
	names := regexp.MustCompile(`\bHTTP(/2)?\b|\btraceparent\b|\brelay\.test\b`) // the same in all languages
	letters := func(s string) bool { return strings.ContainsFunc(s, unicode.IsLetter) }
	for file, text := range templateTexts(t) {
		text = names.ReplaceAllString(action.ReplaceAllString(text, ""), "")
		for _, m := range read.FindAllStringSubmatch(text, -1) {
			if letters(m[2]) && !(m[1] == "placeholder" && typed.MatchString(m[2])) {
				t.Errorf("%s: %s has words of its own: %q", file, m[1], m[2])
			}
		}
		text = tag.ReplaceAllString(sample.ReplaceAllString(text, " "), "\n")
		for line := range strings.Lines(entity.ReplaceAllString(text, "")) {
			if line = strings.TrimSpace(line); letters(line) {
				t.Errorf("%s has words of its own: %q", file, line)
			}
		}
	}
}

func TestAcceptLanguage(t *testing.T) {
	for header, want := range map[string]string{
		"":                                   "en",
		"*":                                  "en",
		"de, fr;q=0.9":                       "en",
		"en-GB,en;q=0.9":                     "en",
		"zh-TW,zh;q=0.9,en;q=0.8":            "zh-Hant",
		"zh-HK":                              "zh-Hant",
		"zh-Hant-HK":                         "zh-Hant",
		"yue":                                "zh-Hant",
		"zh":                                 "zh-Hans",
		"zh-CN,zh;q=0.9":                     "zh-Hans",
		"zh-Hans-TW":                         "zh-Hans",
		"ZH-tw":                              "zh-Hant",
		"en;q=0.5, zh-TW;q=0.8":              "zh-Hant",
		"zh-TW;q=0.1,en;q=0.2":               "en",
		"zh-TW;q=0, en;q=0":                  "en",
		"zh-TW;q=99, zh-CN":                  "zh-Hans",
		"zh-TW;q=x":                          "zh-Hant",
		";;;,,,;q=,zh-":                      "zh-Hans",
		"\x00\xff<script>":                   "en",
		strings.Repeat("de,", 500) + "zh-TW": "en",
	} {
		if got := preferred(header); got != want {
			t.Errorf("%.40q: %s, want %s", header, got, want)
		}
	}
}
