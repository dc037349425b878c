package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"relay/config"
)

const runtimeFile = `
policy "default" {
  egress {
    allow_plaintext = true
  }
}
policy "customer" {
  concurrency = 3
}
policy "internal" {}
runtime {
  policies  = ["customer"]
  overrides = ["timeout", "retry", "rate_limit", "breaker", "dedupe", "crossing", "sample"]
  max_url   = 60
}
body "chat" {
  body = { text = event.type }
}
endpoint "fixed" {
  url     = "https://fixed.test/"
  secrets = ["0123456789abcdef"]
  sign    = ["github"]
}
`

func compilerOf(t testing.TB, file string) *Compiler {
	t.Helper()
	f, err := config.Parse("relay.hcl", []byte(file), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	p, err := Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	f.Forget()
	return p.Compiler()
}

// An endpoint in JSON is the endpoint that the file would make of the same words.
func TestCompile(t *testing.T) {
	c := compilerOf(t, runtimeFile)
	spec := `{
		"url": "https://acme.test/hooks?a=${b}%{c}", "events": ["invoice.*", "!invoice.x"], "tenants": ["acme"],
		"when": "event.data.amount > 100 # a comment", "secrets": ["0123456789abcdef"], "sign": ["github"],
		"headers": {"X-Env": "a \"b\" ${c}"}, "description": "line\nline \u00e9", "body": null,
		"timeout": {"total": "9s"},
		"retry": {"schedule": ["1s", "2s"], "jitter": 0, "on": ["5xx", "429"], "429": {"schedule": ["1m"]}},
		"rate_limit": {"limit": 5, "per": "1s"},
		"breaker": {"enabled": false},
		"dedupe": {"by": "event.key", "window": "1h"},
		"sample": 0.5
	}`
	got, err := c.Compile("acme", []byte(spec))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(runtimeFile, "endpoint \"fixed\"", `
endpoint "acme" {
  url     = "https://acme.test/hooks?a=$${b}%%{c}"
  events  = ["invoice.*", "!invoice.x"]
  tenants = ["acme"]
  when    = (
event.data.amount > 100 # a comment
)
  secrets = ["0123456789abcdef"]
  sign    = ["github"]
  headers = { "X-Env" = "a \"b\" $${c}" }
  policy  = "customer"
  description = "line\nline é"
  timeout {
    total = "9s"
  }
  retry {
    schedule = ["1s", "2s"]
    jitter   = 0
    on       = ["5xx", "429"]
  }
  retry "429" {
    schedule = ["1m"]
  }
  rate_limit {
    limit = 5
    per   = "1s"
  }
  breaker {
    enabled = false
  }
  dedupe {
    by     = event.key
    window = "1h"
  }
  sample = 0.5
}
endpoint "fixed"`, 1)
	f, err := config.Parse("relay.hcl", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	p, err := Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	want := p.Endpoint("acme")
	want.Made = true
	filter := func(e *Endpoint) []config.Setting {
		return slices.DeleteFunc(e.settings(), func(s config.Setting) bool { return s.Name == "when" || s.Name == "dedupe.by" }) // with their parentheses
	}
	if diff := cmp.Diff(filter(want), filter(got), cmp.Comparer(func(a, b config.Secret) bool { return a.Equal(b) })); diff != "" {
		t.Errorf("-file +JSON:\n%s", diff)
	}
	if got.Concurrency != 3 || !slices.EqualFunc(got.Headers, want.Headers, func(a, b Header) bool { return a.Value.Equal(b.Value) }) || !got.Signers[0].Equal(want.Signers[0]) {
		t.Error("policy, headers or signature differ")
	}
}

// No file of the machine is read for an endpoint that anybody made by a request, and nothing says whether it exists.
func TestCompileReadsNoFile(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(there, []byte("-----BEGIN CERTIFICATE-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := compilerOf(t, "policy \"customer\" {}\nruntime { overrides = [\"tls\"] }")
	for _, name := range []string{"ca", "cert", "key"} {
		said := map[string]bool{}
		for _, path := range []string{there, filepath.Join(dir, "none.pem")} {
			_, err := c.Compile("acme", fmt.Appendf(nil, `{"url":"https://a.test/","sign":["none"],"tls":{%q:%q}}`, name, path))
			if err == nil || !strings.Contains(err.Error(), "/tls/"+name+": ") || !strings.Contains(err.Error(), "for the file alone") {
				t.Errorf("%s: %v", name, err)
				continue
			}
			said[err.Error()] = true
		}
		if len(said) > 1 {
			t.Errorf("%s: the answer says whether the file exists: %v", name, said)
		}
	}
}

// All that is wrong is said with its place and a hint, and quotes no secret.
func TestCompileFlaws(t *testing.T) {
	c := compilerOf(t, runtimeFile)
	const good = `"url":"https://a.test/","sign":["none"]`
	for spec, want := range map[string]string{
		``:                                       `write a JSON object`,
		`[]`:                                     `write a JSON object`,
		`{"a":1} {"b":2}`:                        `write a JSON object`,
		`{}`:                                     `Missing url`,
		`{"url":1,"sign":["none"]}`:              `/url: Invalid url`,
		`{"url":"ftp://a.test","sign":["none"]}`: `/url: Invalid url. It must begin with https`,
		`{"url":"https://u:canary@a.test/","sign":["none"]}`:                                  `/url: Invalid url. It holds a user name or password`,
		`{` + good + `,"evnts":["a"]}`:                                                        `/evnts: there is no such attribute. Did you mean "events"?`,
		`{` + good + `,"events":["a b"]}`:                                                     `/events`,
		`{` + good + `,"events":"a"}`:                                                         `/events: Invalid events. Write a list`,
		`{` + good + `,"timeout":"9s"}`:                                                       `/timeout: write an object`,
		`{` + good + `,"timeout":{"totl":"9s"}}`:                                              `/timeout/totl: there is no such attribute. Did you mean "total"?`,
		`{` + good + `,"timeout":{"total":9}}`:                                                `/timeout/total: Invalid total`,
		`{` + good + `,"retry":{"429":{"schedule":["x"]}}}`:                                   `/retry/429/schedule`,
		`{` + good + `,"retry":{"a/b":{"schedule":["1s"]}}}`:                                  `/retry/a~1b`,
		`{` + good + `,"when":"event.data.("}`:                                                `/when: this is no expression`,
		`{` + good + `,"when":"1) \n url = (\"x\""}`:                                          `/when: this is no expression`,
		`{` + good + `,"when":"env(\"HOME\") == \"\""}`:                                       `/when: env() and file() are for the file alone`,
		`{` + good + `,"when":true}`:                                                          `/when: write the expression as a text`,
		`{` + good + `,"when":"nope.x == 1"}`:                                                 `/when`,
		`{` + good + `,"dedupe":{"by":"file(\"/etc/passwd\")"}}`:                              `/dedupe/by: env() and file() are for the file alone`,
		`{` + good + `,"policy":"internal"}`:                                                  `/policy: the file allows [customer]`,
		`{` + good + `,"policy":"default"}`:                                                   `/policy: the file allows [customer]`,
		`{` + good + `,"egress":{"allow_private":["10.0.0.0/8"]}}`:                            `/egress: the file does not let endpoints override it; runtime { overrides = […, "egress"] } would`,
		`{` + good + `,"tls":{"ca":"x"}}`:                                                     `/tls: the file does not let`,
		`{` + good + `,"body":"slack"}`:                                                       `/body: the file has no body "slack"`,
		`{` + good + `,"body":{"a":1}}`:                                                       `/body: write the name of a body block`,
		`{` + good + `,"body":"chat","headers":{"Content-Type":"a/b"}}`:                       `/headers: the body has its own content type`,
		`{` + good + `,"headers":{"Relay-X":"canary"}}`:                                       `/headers: Reserved header`,
		`{` + good + `,"ecmascript":true}`:                                                    `/ecmascript`,
		`{"url":"https://` + strings.Repeat("a", 60) + `.test/","sign":["none"]}`:             `/url: it has`,
		`{"url":"https://a.test/","secrets":["can"],"sign":["github"]}`:                       `/secrets: Invalid secrets`,
		`{"url":"https://a.test/","sign":["github"]}`:                                         `Missing secrets`,
		`{"url":"https://127.0.0.1/","sign":["none"]}`:                                        `/url: Invalid url. It points at a private address`,
		`{"url":"https://a.test/","url":"https://b.test/","sign":["none"]}`:                   ``, // the last one, as encoding/json has it
		`{` + good + `,"events":` + strings.Repeat("[", 400) + strings.Repeat("]", 400) + `}`: `nest`,
	} {
		_, err := c.Compile("acme", []byte(spec))
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", spec, err)
			}
			continue
		}
		if _, ok := errors.AsType[config.Flaws](err); !ok {
			t.Errorf("%.100s: %T %v", spec, err, err)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%.100s:\n%.300v\nwithout %s", spec, err, want)
		}
		if strings.Contains(err.Error(), "canary") {
			t.Errorf("%.100s: the error has a secret: %v", spec, err)
		}
	}
	if _, err := c.Compile("a b", []byte(`{`+good+`}`)); err == nil || !strings.Contains(err.Error(), "name") {
		t.Errorf("a name with a space: %v", err)
	}
}

// The text of an endpoint can be put into the file.
func TestCompiledText(t *testing.T) {
	c := compilerOf(t, runtimeFile)
	text, err := c.Text("acme", []byte(`{"url":"https://a.test/","secrets":["canary-0123456789"],"retry":{"429":{"schedule":["1m"]}},"when":"event.data.a == \"b\""}`))
	if err != nil || strings.Contains(text, "canary") {
		t.Fatalf("%v\n%s", err, text)
	}
	text = strings.Replace(text, "{\n", "{\n sign = [\"none\"]\n", 1)
	f, err := config.Parse("relay.hcl", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(f); err != nil {
		t.Error(err, "\n", text)
	}
}

// Endpoints made at run time stand behind those of the file, and replace earlier ones.
func TestWith(t *testing.T) {
	f, err := config.Parse("relay.hcl", []byte(runtimeFile), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	p, err := Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	made := func(name string) *Endpoint {
		e, err := p.Compiler().Compile(name, []byte(`{"url":"https://a.test/","sign":["none"],"body":"chat"}`))
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	one := p.With([]*Endpoint{made("one")})
	two := one.With([]*Endpoint{made("two"), made("three")})
	if names := two.Match("a"); !slices.Equal(names, []string{"fixed", "two", "three"}) {
		t.Errorf("endpoints are %v", names)
	}
	if two.Endpoint("one") != nil || two.Endpoint("two").Body == nil || one.Compiler() != p.Compiler() {
		t.Error("With left out what it should keep, or kept what it should not")
	}
}

// Whatever the JSON is, Compile answers flaws or an endpoint, and never reads the environment or a file.
func FuzzCompile(f *testing.F) {
	for _, seed := range []string{`{"url":"https://a.test/","sign":["none"]}`, `{"url":"https://a.test/${env(\"X\")}","retry":{"429":{"schedule":["1s"]}}}`, `{"when":"1)\nurl=(1"}`} {
		f.Add(seed)
	}
	c := compilerOf(f, runtimeFile)
	f.Fuzz(func(t *testing.T, spec string) {
		e, err := c.Compile("acme", []byte(spec))
		if err == nil && (e.Name != "acme" || e.URL == nil || !json.Valid([]byte(spec))) {
			t.Fatalf("%q: %+v", spec, e)
		}
		if _, ok := errors.AsType[config.Flaws](err); err != nil && !ok {
			t.Fatalf("%q: %T %v", spec, err, err)
		}
	})
}
