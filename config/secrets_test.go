package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const rawSecret = "0123456789abcdef0123456789abcdef"

// What editors and shells leave around a secret is taken off, with a warning that names
// the place; what cannot be meant is an error, and neither quotes the secret.
func TestSecretsAreTidied(t *testing.T) {
	const taken = "white space, a line end or a byte order mark around a secret is taken off"
	for _, tt := range []struct {
		name, given, want string
		warning, err      string
	}{
		{"as it is", rawSecret, rawSecret, "", ""},
		{"one line end of a file", rawSecret + "\n", rawSecret, "env only", ""},
		{"carriage return", rawSecret + "\r", rawSecret, "env only", ""},
		{"two line ends", rawSecret + "\n\n", rawSecret, taken, ""},
		{"line end of Windows, twice", rawSecret + "\r\n\r\n", rawSecret, taken, ""},
		{"space and line end", rawSecret + " \n", rawSecret, taken, ""},
		{"tab in front", "\t" + rawSecret, rawSecret, taken, ""},
		{"byte order mark", "\ufeff" + rawSecret, rawSecret, taken, ""},
		{"no-break space", rawSecret + "\u00a0", rawSecret, taken, ""},
		{"double quotes", `"` + rawSecret + `"`, `"` + rawSecret + `"`, "stands in quotes", ""},
		{"single quotes", "'" + rawSecret + "'", "'" + rawSecret + "'", "stands in quotes", ""},
		{"line end inside", rawSecret + "\n" + rawSecret, "", "", "line end or another control character is inside"},
		{"zero inside", rawSecret + "\x00" + rawSecret, "", "", "line end or another control character is inside"},
		{"escape inside", rawSecret + "\x1b[2J" + rawSecret, "", "", "line end or another control character is inside"},
		{"byte order mark inside", rawSecret + "\ufeff" + rawSecret, "", "", "line end or another control character is inside"},
		{"nothing but white space", " \r\n", "", "", "empty"},
	} {
		for _, call := range []string{`env("SEC")`, `file("sec")`} {
			t.Run(tt.name+" from "+call, func(t *testing.T) {
				dir := write(t, map[string]string{"sec": tt.given})
				if err := os.Chmod(filepath.Join(dir, "sec"), 0o600); err != nil {
					t.Fatal(err)
				}
				src := fmt.Sprintf("endpoint \"a\" {}\nadmin {\n  token = %s\n}\n", call)
				f, err := Parse(filepath.Join(dir, "relay.hcl"), []byte(src), environ{"SEC": tt.given}.get)
				if tt.err != "" {
					want := tt.err
					if tt.err == "empty" && strings.HasPrefix(call, "env") {
						want = "nothing but white space"
					}
					if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "relay.hcl:3,") || strings.Contains(err.Error(), rawSecret) {
						t.Errorf("got %v, want %q", err, want)
					}
					return
				}
				if err != nil && !strings.Contains(tt.name, "quotes") { // which a token cannot have
					t.Fatal(err)
				}
				if got := f.Config.Admin.Token.Reveal(); err == nil && got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				want := tt.warning
				if want == "env only" {
					want = taken
					if strings.HasPrefix(call, "file") {
						want = ""
					}
				}
				all := strings.Join(f.Warnings, "\n")
				if want == "" && all != "" || !strings.Contains(all, want) || want != "" && !strings.Contains(all, "relay.hcl:3,") {
					t.Errorf("warnings %q, want %q", all, want)
				}
				if strings.Contains(all, rawSecret) {
					t.Errorf("a warning quotes the secret: %s", all)
				}
			})
		}
	}
}

// Every attribute that holds a secret is tidied, as a whole and in parts.
func TestWhichSecretsAreTidied(t *testing.T) {
	env := environ{"SEC": rawSecret + "\r", "URL": "redis://u:p@127.0.0.1:6379/0 \n", "NAME": "user\r\n"}
	for _, src := range []string{
		`ingest { 
			http "127.0.0.1:0" { 
				token = env("SEC") 
			} 
		}`,
		`admin {
			token = "x${env("SEC")}"
		}`,
		`outbox "redis" {
			url      = env("URL")
			username = env("NAME")
			password = env("SEC")
		}`,
		`outbox "redis" {
			sentinel {
				master   = "m"
				addrs    = ["127.0.0.1:1"]
				username = env("NAME")
				password = upper(env("SEC"))
			}
		}`,
	} {
		f, err := Parse("relay.hcl", []byte(src+"\nendpoint \"a\" {}\n"), env.get)
		if err != nil {
			t.Error(err)
			continue
		}
		if len(f.Warnings) != strings.Count(src, "env(") {
			t.Errorf("%s\nwarnings: %q", src, f.Warnings)
		}
		shown := fmt.Sprintf("%q %q %q", f.Config.Admin.Token.Reveal(), f.Config.Outbox.Redis.URL.Reveal(), f.Config.Outbox.Redis.Username)
		if strings.Contains(shown, `\r`) || strings.Contains(shown, `\n`) {
			t.Errorf("%s\nkept %s", src, shown)
		}
	}
}

// A secret in several parts is tidied in each, and a function gets what was given.
func TestPartsOfSecrets(t *testing.T) {
	_, err := Parse("relay.hcl", []byte("endpoint \"a\" {}\nadmin {\n  token = \"${env(\"A\")}-${split(\"\\n\", \"x\\ny\")[1]}\"\n}\n"), environ{"A": "a\n"}.get)
	if d, ok := errors.AsType[Diagnostics](err); !ok || !strings.Contains(d.Error(), "control character") {
		t.Errorf("with a function: %v, want a control character inside", err)
	}
	f, err := Parse("relay.hcl", []byte("endpoint \"a\" {}\nadmin {\n  token = \"${env(\"A\")}-${env(\"B\")}\"\n}\n"), environ{"A": "a\n", "B": "\ufeffb-long-enough-for-all"}.get)
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Config.Admin.Token.Reveal(); got != "a-b-long-enough-for-all" || len(f.Warnings) != 2 {
		t.Errorf("got %q, warnings %q", got, f.Warnings)
	}
}

// What is odd with a secret is said once, at the first of the places that use it.
func TestSecretsUsedTwiceAreWarnedOfOnce(t *testing.T) {
	dir := write(t, map[string]string{"sec": rawSecret, "tidy": rawSecret + " \n"})
	for _, name := range []string{"sec", "tidy"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	src := "endpoint \"a\" {}\ningest {\n"
	for i, call := range []string{`file("sec")`, `file("./sec")`, `env("Q")`, `env("Q")`, `file("tidy")`, `file("tidy")`} {
		src += fmt.Sprintf("  http \"127.0.0.1:%d\" {\n    token = %s\n  }\n", 9000+i, call)
	}
	f, err := Parse(filepath.Join(dir, "relay.hcl"), []byte(src+"}\n"), environ{"Q": `"` + rawSecret + `"`}.get)
	if err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]int{"sec\"): it holds": 1, "stands in quotes": 1, "tidy\"): it holds": 1, "is taken off": 1} {
		if all := strings.Join(f.Warnings, "\n"); strings.Count(all, what) != want {
			t.Errorf("%q is said %d times, want %d:\n%s", what, strings.Count(all, what), want, all)
		}
	}
}
