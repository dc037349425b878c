package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// write makes files below a new folder, which it returns.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFind(t *testing.T) {
	dir := write(t, map[string]string{
		"one.hcl": "", "conf/b.hcl": "", "conf/a.hcl": "", "conf/.hidden.hcl": "", "conf/notes.txt": "", "conf/sub.hcl/x.hcl": "", "empty/x.txt": "",
	})
	t.Chdir(dir)
	for _, tt := range []struct {
		name  string
		flags []string
		env   environ
		want  []string
		err   string
	}{
		{"flag", []string{"./one.hcl"}, environ{"RELAY_CONFIG": "conf"}, []string{"one.hcl"}, ""},
		{"folder by name, without hidden files and folders", []string{"conf"}, nil, []string{"conf/a.hcl", "conf/b.hcl"}, ""},
		{"flags in their order, each file once", []string{"one.hcl", "conf", "conf/a.hcl"}, nil, []string{"one.hcl", "conf/a.hcl", "conf/b.hcl"}, ""},
		{"environment", nil, environ{"RELAY_CONFIG": "conf"}, []string{"conf/a.hcl", "conf/b.hcl"}, ""},
		{"missing", []string{"two.hcl"}, nil, nil, "two.hcl: no such file"},
		{"missing in the environment", nil, environ{"RELAY_CONFIG": "two.hcl"}, nil, "two.hcl: no such file"},
		{"empty folder", []string{"empty"}, nil, nil, "folder empty has no *.hcl file"},
		{"none (bad input B36)", nil, environ{"RELAY_CONFIG": ""}, nil, "looked for --config, $RELAY_CONFIG, ./relay.hcl and /etc/relay/relay.hcl"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Find(tt.flags, tt.env.get)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
	t.Run("in the working directory", func(t *testing.T) {
		t.Chdir(write(t, map[string]string{"relay.hcl": ""}))
		if got, err := Find(nil, environ{}.get); err != nil || !slices.Equal(got, []string{"relay.hcl"}) {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

func TestLoadSeveralFiles(t *testing.T) {
	dir := write(t, map[string]string{
		"a.hcl": "log { level = \"warn\" }\nendpoint \"a\" {}\n",
		"b.hcl": "retention { failed = \"1d\" }\n",
		"c.hcl": "\n  log {}\n",
		"d.hcl": "endpoint \"a\" {\n",
		"e.hcl": "x = (\n",
	})
	load := func(names ...string) (*File, error) {
		for i := range names {
			names[i] = filepath.Join(dir, names[i])
		}
		return Load(names, environ{}.get)
	}
	f, err := load("a.hcl", "b.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if f.Config.Log.Level != "warn" || f.Config.Retention.Failed != Day || len(f.Paths) != 2 {
		t.Errorf("got %+v", f)
	}

	_, err = load("a.hcl", "c.hcl")
	if want := fmt.Sprintf("%s/c.hcl:2,3-6: Duplicate log; Log stands already at %s/a.hcl:1,1-4. Put both into one block.", dir, dir); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}

	// All files' syntax errors come at once, and a file that cannot be read is one.
	_, err = load("d.hcl", "e.hcl")
	d, ok := errors.AsType[Diagnostics](err)
	if !ok || len(d) < 2 || !strings.Contains(err.Error(), "d.hcl") || !strings.Contains(err.Error(), "e.hcl") {
		t.Errorf("got %v", err)
	}
	_, err = load("nothing.hcl")
	if d, ok = errors.AsType[Diagnostics](err); !ok || d.Error() != filepath.Join(dir, "nothing.hcl")+": Cannot read the file; no such file or directory" {
		t.Errorf("got %v", err)
	}
	if _, err = load("."); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("got %v", err)
	}
}

func TestDefault(t *testing.T) {
	for _, tt := range []struct {
		env  environ
		want string
	}{
		{nil, "relay-data"},
		{environ{"XDG_STATE_HOME": "/home/a/.state"}, "/home/a/.state/relay"},
		{environ{"XDG_STATE_HOME": "relative"}, "relay-data"},
		{environ{"XDG_STATE_HOME": ""}, "relay-data"},
		{environ{"STATE_DIRECTORY": "/var/lib/relay", "XDG_STATE_HOME": "/x"}, "/var/lib/relay"},
		{environ{"STATE_DIRECTORY": "/var/lib/relay:/var/lib/other"}, "/var/lib/relay"},
	} {
		c := Default(tt.env.get)
		if c.Outbox.Path != tt.want || c.Ingest.Unix[0].Path != tt.want+"/relay.sock" {
			t.Errorf("%v: got %q and %q, want %q", tt.env, c.Outbox.Path, c.Ingest.Unix[0].Path, tt.want)
		}
	}
	long := environ{"STATE_DIRECTORY": "/" + strings.Repeat("x", 100)}
	if _, err := Parse("relay.hcl", []byte("log {}\n"), long.get); err == nil || !strings.Contains(err.Error(), "Invalid default socket") {
		t.Errorf("got %v", err)
	}
	if _, err := Parse("relay.hcl", []byte("ingest {\n http \"127.0.0.1:0\" {}\n}\n"), long.get); err != nil {
		t.Error(err)
	}
}

// Bad input B33: what file() accepts.
func TestFileFunction(t *testing.T) {
	outside := write(t, map[string]string{"secret": "outside-secret\n", "credential": "from-systemd"})
	dir := write(t, map[string]string{
		"plain": "value", "newline": "value\n", "crlf": "value\r\n", "two": "value\n\n", "empty": "", "only-newline": "\n",
		"big": strings.Repeat("x", int(maxFile)), "too-big": strings.Repeat("x", int(maxFile)+1), "binary": "\xff\xfe", "sub/x": "below",
	})
	for link, to := range map[string]string{"link-in": "sub/x", "link-out": filepath.Join(outside, "secret"), "link-dir": outside} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ path, want, err string }{
		{"plain", "value", ""},
		{"newline", "value", ""},
		{"crlf", "value", ""},
		{"two", "value\n", ""},
		{"sub/x", "below", ""},
		{"sub/../plain", "value", ""},
		{filepath.Join(dir, "plain"), "value", ""},
		{"link-in", "below", ""},
		{filepath.Join(outside, "credential"), "from-systemd", ""},
		{"big", strings.Repeat("x", int(maxFile)), ""},
		{"too-big", "", "is larger than 64KiB"},
		{"empty", "", "is empty"},
		{"only-newline", "", "is empty"},
		{"missing", "", "no such file"},
		{"sub", "", "is not a regular file"},
		{"binary", "", "is not UTF-8"},
		{"/etc/passwd", "", "is outside the folders"},
		{"../../../../../../../../etc/passwd", "", "is outside the folders"},
		{"", "", "is not a regular file"},
	} {
		t.Run(tt.path, func(t *testing.T) {
			src := fmt.Sprintf("admin {\n  token = replace(file(%q), \"\\n\", \"+\")\n}\n", tt.path)
			f, err := Parse(filepath.Join(dir, "relay.hcl"), []byte(src), environ{"CREDENTIALS_DIRECTORY": outside}.get)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := f.Config.Admin.Token.Reveal(); got != strings.ReplaceAll(tt.want, "\n", "+") {
				t.Errorf("got %.50q, want %.50q", got, tt.want)
			}
		})
	}

	// Checklist S30: a link does not lead out of the folder.
	for _, path := range []string{"link-out", "link-dir/secret", "sub/../link-out"} {
		src := fmt.Sprintf("admin {\n  token = file(%q)\n}\n", path)
		_, err := Parse(filepath.Join(dir, "relay.hcl"), []byte(src), environ{}.get)
		if err == nil || !strings.Contains(err.Error(), "is outside the folders") {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	dir := write(t, map[string]string{"secret": "long-value"})
	path := filepath.Join(dir, "secret")
	parse := func(src string) []string {
		f, err := Parse(filepath.Join(dir, "relay.hcl"), []byte(src), environ{}.get)
		if err != nil {
			t.Fatal(err)
		}
		return f.Warnings
	}
	if w := parse("log {}\n"); len(w) != 1 || !strings.Contains(w[0], "no endpoint") {
		t.Errorf("no endpoint: %v", w)
	}
	const endpoint = "endpoint \"a\" {}\n"
	const secret = endpoint + "admin {\n  token = \"${file(\"secret\")}${file(\"secret\")}\"\n}\n"
	if w := parse(secret); len(w) != 0 {
		t.Errorf("private file: %v", w)
	}
	for n, want := range map[int]int{1: 1, 15: 1, 16: 0} {
		if w := parse(fmt.Sprintf("%sadmin {\n  token = %q\n}\n", endpoint, strings.Repeat("x", n))); len(w) != want || want > 0 && !strings.Contains(w[0], "fewer than 16 characters") {
			t.Errorf("a token of %d characters: %v", n, w)
		}
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if w := parse(secret); len(w) != 1 || !strings.Contains(w[0], path) {
		t.Errorf("world-readable file: %v", w)
	}
	if w := parse(endpoint + "outbox \"sqlite\" {\n  path = file(\"secret\")\n}\n"); len(w) != 0 {
		t.Errorf("not a secret: %v", w)
	}
}

func TestEnvFunction(t *testing.T) {
	for src, want := range map[string]string{
		`env("SET")`:            "value",
		`env("SET", "other")`:   "value",
		`env("UNSET", "other")`: "other",
		`env("EMPTY", "other")`: "",
		`env("EMPTY")`:          "",
	} {
		f, err := Parse("relay.hcl", []byte("admin {\n  token = "+src+"\n}\n"), environ{"SET": "value", "EMPTY": ""}.get)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if got := f.Config.Admin.Token.Reveal(); got != want {
			t.Errorf("%s = %q, want %q", src, got, want)
		}
	}
	for src, want := range map[string]string{
		`env("UNSET")`:  `relay.hcl:2,11-15: Error in function call; Call to function "env" failed: environment variable "UNSET" is not set`,
		`env("BINARY")`: `environment variable "BINARY" is not UTF-8 text`,
		`env()`:         "Not enough function arguments",
		`env(null)`:     "Invalid function argument",
	} {
		_, err := Parse("relay.hcl", []byte("admin {\n  token = "+src+"\n}\n"), environ{"BINARY": "\xff"}.get)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", src, err, want)
		}
	}
}

// The file's bytes must not steer the terminal that shows a problem.
func TestPrettyIsPrintable(t *testing.T) {
	for _, src := range []string{
		"log {\n  level = \"\\u001b[31m\x1b[31m\u202e\"\n\tlevl\t=\t1\n}\n",
		"endpoint \"\x1b]0;x\x07\" {\n  x = \n}\n",
		"\x00\x1b[2J",
	} {
		_, err := Parse("relay.hcl", []byte(src), environ{}.get)
		d, ok := errors.AsType[Diagnostics](err)
		if !ok {
			t.Fatalf("got %v", err)
		}
		if p := d.Pretty() + d.Error(); strings.ContainsAny(p, "\x00\x07\x1b\u202e\t") {
			t.Errorf("got %q", p)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, src := range []string{
		"", "log {}\n", "ingest {\n unix \"a\" { mode = \"0660\" }\n http \"127.0.0.1:1\" {\n token = env(\"A\")\n }\n}\n",
		"outbox \"sqlite\" {\n path = file(\"x\")\n max_size = \"4GiB\"\n}\nadmin {\n http = \"\"\n}\n", "x = ((((", "a = \"${b}%{ if c }\"\n", "\xff", "log {\n level = <<E\n x\nE\n}\n",
	} {
		f.Add([]byte(src))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		_, err := Parse("relay.hcl", src, environ{"A": "b"}.get)
		if d, ok := errors.AsType[Diagnostics](err); err != nil && (!ok || d.Pretty() == "" || d.Error() == "") {
			t.Errorf("got %v", err)
		}
	})
}
