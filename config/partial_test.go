package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file with errors still tells where its Relay is, unless the error is in that.
func TestPartial(t *testing.T) {
	const process = `ingest {
  unix "in.sock" {}
  http "127.0.0.1:7170" {
    token = "t1"
  }
}
admin {
  http  = "127.0.0.1:7171"
  token = "t2"
}
outbox "sqlite" {
  path = "box"
}
`
	const endpoint = "endpoint \"x\" {\n  url     = \"https://x.example.com\"\n  sign = [\"none\"]\n}\n"
	for name, text := range map[string]string{
		"a block that does not end":                  process + "endpoint \"x\" {\n",
		"a block in front that does not end":         "endpoint \"x\" {\n" + process,
		"an object in front that does not end":       "endpoint \"x\" {\n  body = {\n}\n" + process,
		"a heredoc in front that does not end":       "endpoint \"x\" {\n  body = <<EOT\n}\n" + process,
		"a quote in front that does not end":         "endpoint \"x\" {\n  url = \"abc\n}\n" + process,
		"a brace too many":                           "}\n" + process,
		"a conflict of git":                          "<<<<<<< HEAD\n" + process + "=======\n" + process + ">>>>>>> other\n" + endpoint,
		"an unknown block":                           "endpiont \"x\" {}\n" + process,
		"an unknown attribute":                       strings.Replace(process, "path =", "paht = 1\n  path =", 1),
		"a variable that is not set":                 strings.Replace(process, "outbox", "log {\n  level = env(\"NOT_SET\")\n}\noutbox", 1),
		"nothing wrong":                              process + endpoint,
		"two of them, of which the first one counts": process + "admin {\n  http = \"127.0.0.1:1\"\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "relay.hcl")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := Partial([]string{path}, func(string) (string, bool) { return "", false })
			if (err == nil) != (name == "nothing wrong") {
				t.Errorf("error: %v", err)
			}
			in := c.Ingest
			if len(in.Unix) != 1 || len(in.HTTP) != 1 || in.Unix[0].Path != "in.sock" || in.HTTP[0].Addr != "127.0.0.1:7170" || in.HTTP[0].Token.Reveal() != "t1" {
				t.Errorf("ingest: %+v", in)
			}
			if c.Admin.HTTP != "127.0.0.1:7171" || c.Admin.Token.Reveal() != "t2" || c.Outbox.Path != "box" {
				t.Errorf("admin %+v, outbox %s", c.Admin, c.Outbox.Path)
			}
		})
	}
}

// Of a file that cannot be read at all the defaults are left.
func TestPartialOfNothing(t *testing.T) {
	dir := t.TempDir()
	binary, nested := filepath.Join(dir, "binary.hcl"), filepath.Join(dir, "nested.hcl")
	for path, text := range map[string]string{binary: "admin {\n  http = \"\xff\"\n}\n", nested: "x = " + strings.Repeat("[", 100_000)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	none := func(string) (string, bool) { return "", false }
	for _, path := range []string{binary, nested, filepath.Join(dir, "none.hcl"), dir} {
		c, err := Partial([]string{path}, none)
		if want := Default(none); err == nil || c.Admin.HTTP != want.Admin.HTTP || c.Outbox.Path != want.Outbox.Path {
			t.Errorf("%s: %+v, %v", path, c, err)
		}
	}
	// The other files of several count.
	good := filepath.Join(dir, "good.hcl")
	if err := os.WriteFile(good, []byte("admin {\n  http = \"127.0.0.1:9\"\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Partial([]string{binary, good}, none); err == nil || c.Admin.HTTP != "127.0.0.1:9" {
		t.Errorf("with a good one beside: %+v, %v", c.Admin, err)
	}
}
