package show

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

var tags = regexp.MustCompile(`</?span(?: class="j-(?:key|str|num|lit|punc|chip|hex|cut)")?>`)

// seen is HTML without its tags, as a reader sees it. It fails the test if there are other tags, or tags that do not match.
func seen(t *testing.T, h string) string {
	t.Helper()
	open := 0
	for _, tag := range tags.FindAllString(h, -1) {
		if open++; tag == spanEnd {
			open -= 2
		}
		if open < 0 {
			t.Fatalf("a span is closed that was not opened: %s", h)
		}
	}
	s := tags.ReplaceAllString(h, "")
	if open != 0 || strings.ContainsAny(s, `<>"'`) {
		t.Fatalf("tags that do not match, or not escaped: %s", h)
	}
	return html.UnescapeString(s)
}

func TestJSON(t *testing.T) {
	got := Body([]byte(` {"b":1e400,"a":[12345678901234567890,1.0,-0,[],{ },true,false,null,"\u0041é\"<"], "b" : {"x":"]}"}}` + "\n"))
	const want = `{
  "b": 1e400,
  "a": [
    12345678901234567890,
    1.0,
    -0,
    [],
    {},
    true,
    false,
    null,
    "\u0041é\"<"
  ],
  "b": {
    "x": "]}"
  }
}`
	if s := seen(t, string(got.HTML)); s != want || got.Form != FormJSON || !got.UTF8 || got.Truncated {
		t.Errorf("%+v\n%s", got, s)
	}
	for _, part := range []string{
		`<span class="j-key">&#34;b&#34;</span><span class="j-punc">:</span> <span class="j-num">1e400</span>`,
		`<span class="j-lit">null</span>`, `<span class="j-str">&#34;]}&#34;</span>`,
	} {
		if !strings.Contains(string(got.HTML), part) {
			t.Errorf("%s is missing in\n%s", part, got.HTML)
		}
	}
}

func TestBodiesOfOtherForms(t *testing.T) {
	deep := strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1)
	for _, c := range []struct {
		name, raw, want string
		form            Form
	}{
		{"nothing", "", "", FormEmpty},
		{"a number", "1.0", "1.0", FormJSON},
		{"a string of brackets", `"[{"`, `"[{"`, FormJSON},
		{"only white space", " \n", " \n", FormText},
		{"no JSON", `{"a":`, `{"a":`, FormText},
		{"two values", `1 2`, `1 2`, FormText},
		{"as deep as is pretty-printed", deep[1 : len(deep)-1], "", FormJSON},
		{"too deep", deep, deep, FormText},
		{"script", `</script><img src=x onerror=alert(1)>`, `</script><img src=x onerror=alert(1)>`, FormText},
		{"controls", "a\x00b\u202ec\u200bd\ufeff\r\n\t\u2028\U000e0041", "a⟨U+0000⟩b⟨U+202E⟩c⟨U+200B⟩d⟨U+FEFF⟩\n\t⟨U+2028⟩⟨U+E0041⟩", FormText},
		{"controls in JSON", "\"\u202e\x7f\"", `"⟨U+202E⟩⟨U+007F⟩"`, FormJSON},
		{"one bad byte", "caf\xe9 au lait", "caf⟨0xE9⟩ au lait", FormText},
		{"UTF-16", "<\x00a\x00", "0000  3c 00 61 00              <.a.\n", FormHex},
		{"bytes", "\x89PNG\r\n\x1a\n\x00\x00\xff<", "0000  89 50 4e 47 0d 0a 1a 0a  .PNG....\n0008  00 00 ff 3c              ...<\n", FormHex},
	} {
		got := Body([]byte(c.raw))
		s := seen(t, string(got.HTML))
		if got.Form != c.form || (c.want != "" || c.raw == "") && s != c.want || got.Truncated || got.UTF8 != utf8.ValidString(c.raw) {
			t.Errorf("%s: %+v\n%q", c.name, got, s)
		}
	}
}

// The limit cuts neither a character nor a tag, and is told.
func TestLargeBodies(t *testing.T) {
	for name, raw := range map[string]string{
		"a string":   `{"a":"` + strings.Repeat("é", MaxBody) + `"}`,
		"an array":   "[" + strings.Repeat("1,", MaxBody) + "1]",
		"characters": "x" + strings.Repeat("界", MaxBody),
		"deep":       strings.Repeat("[", 31) + strings.Repeat("1,", 30_000) + "1" + strings.Repeat("]", 31),
		"bytes":      strings.Repeat("\xff", maxHex+1),
		"endless":    strings.Repeat("[", 10*MaxBody),
	} {
		got := Body([]byte(raw))
		s := seen(t, string(got.HTML))
		if !got.Truncated || got.Size != len(raw) || !strings.HasSuffix(s, "…") || strings.Contains(s, "⟨") || len(got.HTML) > maxHTML+MaxBody+1024 {
			t.Errorf("%s: truncated %v, size %d, %d bytes of HTML, ends in %q", name, got.Truncated, got.Size, len(got.HTML), s[max(0, len(s)-20):])
		}
	}
	if got := Body([]byte(`"` + strings.Repeat("a", MaxBody-2) + `"`)); got.Truncated {
		t.Error("as large as the limit: truncated")
	}
}

func TestText(t *testing.T) {
	for s, want := range map[string]string{
		"":                     "",
		"<b>\"it's\"&":         "&lt;b&gt;&#34;it&#39;s&#34;&amp;",
		"a\u202e\u2066b":       `a<span class="j-chip">⟨U+202E⟩⟨U+2066⟩</span>b`,
		"a\r\n\r":              "a\n<span class=\"j-chip\">⟨U+000D⟩</span>",
		"\x00":                 `<span class="j-chip">⟨U+0000⟩</span>`,
		"\ufffd":               "\ufffd",
		"繁體 שלום ❤️":           "繁體 שלום ❤️",
		"\U000e0100\u3164\xc3": `<span class="j-chip">⟨U+E0100⟩⟨U+3164⟩⟨0xC3⟩</span>`,
	} {
		if got := string(Text(s)); got != want {
			t.Errorf("Text(%q) = %s, want %s", s, got, want)
		}
	}
}

// tokens are the parts of JSON by encoding/json, numbers as written; strings are decoded.
func tokens(t *testing.T, raw []byte) (list []string) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	for {
		token, err := d.Token()
		if err != nil {
			return list
		}
		list = append(list, fmt.Sprintf("%T %v", token, token))
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"<a href='x'>&amp;\"", "\r\n\r\x00", "\u202e\u2066\ufeff", "\xff\xc3", "繁體\n\t"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := seen(t, string(Text(s)))
		if strings.ContainsFunc(got, hidden) || !utf8.ValidString(got) {
			t.Fatalf("%q is shown as %q", s, got)
		}
		if utf8.ValidString(s) && !strings.ContainsFunc(s, hidden) && got != s {
			t.Fatalf("%q became %q", s, got)
		}
	})
}

func FuzzBody(f *testing.F) {
	for _, s := range []string{`{"a":[1e400,1.0,{}],"a":"<\u202e"}`, "\xff\xfe", "</script>", "[[[[", "\"\u202e\"", `{"":[[],{"":{}}]}`, " 1 ", "-0.0e-1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got := Body(raw)
		s := seen(t, string(got.HTML))
		if !utf8.ValidString(s) {
			t.Fatalf("not UTF-8: %q", s)
		}
		for _, r := range s {
			if hidden(r) {
				t.Fatalf("U+%04X is hidden in %q", r, s)
			}
		}
		if got.Form == FormJSON != (json.Valid(raw) && utf8.Valid(raw) && depth(raw) <= maxDepth) {
			t.Fatalf("%q is %s", raw, got.Form)
		}
		if got.Form != FormJSON || got.Truncated || strings.Contains(s, "⟨") {
			return
		}
		if a, b := tokens(t, raw), tokens(t, []byte(s)); !slices.Equal(a, b) {
			t.Fatalf("%q became %q", a, b)
		}
		compact := &bytes.Buffer{}
		if json.Compact(compact, []byte(s)) != nil {
			t.Fatalf("%q is not JSON", s)
		}
		want := &bytes.Buffer{}
		if json.Compact(want, raw) != nil || compact.String() != want.String() {
			t.Fatalf("%q became %q", want, compact)
		}
	})
}

// Every class has a rule, and every rule a class.
func TestClassesAreInTheStyleSheet(t *testing.T) {
	css, err := os.ReadFile("../assets/show.css")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`\.(j-[a-z]+)`).FindAllStringSubmatch(string(css), -1)
	classes := []string{}
	for _, m := range found {
		classes = append(classes, m[1])
	}
	slices.Sort(classes)
	if want := []string{"j-chip", "j-cut", "j-hex", "j-key", "j-lit", "j-num", "j-punc", "j-str"}; !slices.Equal(slices.Compact(classes), want) {
		t.Errorf("show.css has %q, want %q", classes, want)
	}
}
