package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"relay/internal/testkit"
)

// indented puts braces on lines of their own where HCL wants that.
func indented(src string) string {
	return strings.NewReplacer("{ ", "{\n", " }", "\n}\n", "; ", "\n").Replace(src)
}

func TestFront(t *testing.T) {
	src := indented(`endpoint "e" { }
front "App.Example.com" { upstream = "http://127.0.0.1:3000"; path "/api/*" { upstream = "unix:///run/api.sock" } path "/healthz" { upstream = "h2c://localhost:9" } }
front "other.example.com" { upstream = "https://up.example.com"; https = ["127.0.0.1:8443"]; http = []; serve = ["ingest"]; token = "t0ken"; well_known = []; addresses = ["203.0.113.7", "198.51.100.0/24"]; max_body = "0"
 stream_close_delay = "0s"; trusted_proxies = ["10.0.0.0/8", "::1"]; access_log = true; timeout { connect = "1s"; response = "2s"; idle = "3s" } events { enabled = false; on_refused = "pass"; max_data = "1KiB" } }
acme { ca = "https://ca.example.com/dir"; email = "ops@example.com"; challenges = ["tls-alpn-01"]; eab { key_id = "kid"; hmac = "aGFsbG8" } on_demand { ask = "http://127.0.0.1:1/ask" } }
`)
	f, err := Parse("relay.hcl", []byte(src), environ{}.get)
	if err != nil {
		t.Fatal(err)
	}
	one := defaultFront("app.example.com")
	one.Upstream = Upstream{"http", "127.0.0.1:3000"}
	one.Paths = []FrontPath{{"/api/*", Upstream{"unix", "/run/api.sock"}}, {"/healthz", Upstream{"h2c", "localhost:9"}}}
	two := Front{
		Host: "other.example.com", Upstream: Upstream{"https", "up.example.com:443"}, HTTPS: []string{"127.0.0.1:8443"},
		Serve: []string{"ingest"}, Token: NewSecret("t0ken"), Addresses: []string{"203.0.113.7", "198.51.100.0/24"},
		Events: FrontEvents{OnRefused: "pass", MaxData: KiB}, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		ConnectTimeout: time.Second, ResponseTimeout: 2 * time.Second, IdleTimeout: 3 * time.Second, AccessLog: true,
	}
	same := cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(Secret.Equal), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
	if diff := cmp.Diff([]Front{one, two}, f.Config.Fronts, same); diff != "" {
		t.Errorf("fronts (-want +got):\n%s", diff)
	}
	acme := ACME{CA: "https://ca.example.com/dir", Email: "ops@example.com", Challenges: []string{"tls-alpn-01"}, KeyID: NewSecret("kid"), HMAC: NewSecret("aGFsbG8"), Ask: "http://127.0.0.1:1/ask"}
	if diff := cmp.Diff(acme, f.Config.ACME, same); diff != "" {
		t.Errorf("acme (-want +got):\n%s", diff)
	}
}

func TestFrontErrors(t *testing.T) {
	const up = `upstream = "http://127.0.0.1:3000"; `
	for src, want := range map[string]string{
		`front "a.example" { }`:                                                                                   "Missing upstream",
		`front "http://a.example" { ` + up + ` }`:                                                                 "without scheme and port",
		`front "a.example:443" { ` + up + ` }`:                                                                    "without scheme and port",
		`front "*.*.example" { ` + up + ` }`:                                                                      "Invalid host",
		`front "*" { ` + up + ` }`:                                                                                "on_demand",
		`front "*.a.example" { ` + up + ` }`:                                                                      "on_demand",
		`front "192.0.2.1" { ` + up + ` }`:                                                                        "for names, not for addresses",
		`front "a.example" { ` + up + `https = []; http = [] }`:                                                   "listens nowhere",
		`front "a.example" { upstream = "http://127.0.0.1:3000/base" }`:                                           "without a path",
		`front "a.example" { upstream = "ftp://127.0.0.1" }`:                                                      "Invalid upstream",
		`front "a.example" { upstream = "http://u:canary@127.0.0.1" }`:                                            "Invalid upstream",
		`front "a.example" { upstream = "unix://run/app.sock" }`:                                                  "whole path of the socket",
		`front "a.example" { path "api" { ` + up + ` } }`:                                                         "Invalid path",
		`front "a.example" { path "/api*" { ` + up + ` } }`:                                                       "after a slash",
		`front "a.example" { path "/api/*" { } }`:                                                                 "Missing upstream",
		`front "a.example" { path "/a" { ` + up + ` } path "/a" { ` + up + ` } }`:                                 "Duplicate path",
		`front "a.example" { ` + up + ` } front "A.example" { ` + up + ` }`:                                       "Duplicate front",
		`front "a.example" { serve = ["admin"] }`:                                                                 "Token required",
		`front "a.example" { ` + up + `serve = ["ingest"] }`:                                                      "Token required",
		`admin { token = "x" } front "a.example" { ` + up + `serve = ["admin"] }`:                                 "host of its own",
		`front "a.example" { ` + up + `serve = ["metrics"] }`:                                                     `must be "admin" or "ingest"`,
		`front "a.example" { ` + up + `https = ["127.0.0.1:7070"] }`:                                              "Duplicate listener",
		`front "a.example" { ` + up + `https = ["127.0.0.1:7071"] }`:                                              "Duplicate listener",
		`front "a.example" { ` + up + `https = [":80"] }`:                                                         "either of https or of http",
		`front "a.example" { ` + up + `http = [] } acme { challenges = ["http-01"] }`:                             "needs an address in http",
		`front "a.example" { ` + up + `https = []; tls { cert = "testdata/no.pem"; key = "testdata/no.pem" } }`:   "no such file",
		`front "a.example" { ` + up + `tls { cert = "-----BEGIN CERTIFICATE-----" } }`:                            "Missing key",
		`front "a.example" { ` + up + `tls { cert = "-----BEGIN CERTIFICATE-----"; key = "-----BEGIN canary" } }`: "cannot be used together",
		`front "a.example" { ` + up + `max_body = "-1" }`:                                                         "Invalid max_body",
		`front "a.example" { ` + up + `trusted_proxies = ["10.0.0.1/8"] }`:                                        "Invalid trusted_proxies",
		`front "a.example" { ` + up + `error_page = "testdata/none.html" }`:                                       "no such file",
		`front "a.example" { ` + up + `events { on_refused = "drop" } }`:                                          `must be "fail" or "pass"`,
		`front "a.example" { ` + up + `upstreams = [] }`:                                                          `Did you mean "upstream"?`,
		`acme { ca = "http://ca.example.com/dir" }`:                                                               "must begin with https://",
		`acme { email = "ops" }`:                                                                                  "write one address",
		`acme { challenges = [] }`:                                                                                "at least one",
		`acme { challenges = ["dns-01"] }`:                                                                        `must be "http-01" or "tls-alpn-01"`,
		`acme { eab { key_id = "x" } }`:                                                                           "Missing hmac",
		`acme { on_demand { } }`:                                                                                  "Missing ask",
		`acme { on_demand { ask = "127.0.0.1:1" } }`:                                                              "URL to ask",
	} {
		_, err := Parse("relay.hcl", []byte("endpoint \"e\" {}\n"+indented(src)), environ{}.get)
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(want)) || !strings.Contains(err.Error(), "relay.hcl:") {
			t.Errorf("%s:\n got %v\nwant %s", src, err, want)
		} else if strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: the error quotes a secret: %v", src, err)
		}
	}
}

// Fronts may share addresses, and files of certificates and pages are watched.
func TestFrontFiles(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	cert, key := testkit.Certificate(t, "a.example")
	for name, data := range map[string][]byte{"c.pem": cert, "k.pem": key, "e.html": []byte("<p>away</p>")} {
		testkit.Must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	src := ""
	for _, host := range []string{"a.example", "*"} {
		src += fmt.Sprintf("front %q {\n upstream = \"http://127.0.0.1:1\"\n error_page = \"e.html\"\n tls {\n cert = \"c.pem\"\n key = \"k.pem\"\n }\n}\n", host)
	}
	f, err := Parse("relay.hcl", []byte("endpoint \"e\" {}\n"+src), environ{}.get)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(f.Reads(), " "); got != "c.pem e.html k.pem" {
		t.Errorf("watched: %s", got)
	}
	if one := f.Config.Fronts[0]; one.ErrorPage != "<p>away</p>" || one.ByACME() {
		t.Errorf("got %+v", one)
	}
	if shown := fmt.Sprintf("%+v %v", f.Config, Diff(Default(environ{}.get), f.Config)); strings.Contains(shown, "PRIVATE KEY") {
		t.Error("a private key is shown")
	}
}

func TestFrontDiff(t *testing.T) {
	load := func(text string) Config {
		f, err := Parse("relay.hcl", []byte("endpoint \"e\" {}\n"+indented(text)), environ{}.get)
		testkit.Must(t, err)
		return f.Config
	}
	old := load(`front "a.example" { upstream = "http://127.0.0.1:1"; token = "canary-one"; path "/x" { upstream = "http://127.0.0.1:2" } } acme { eab { key_id = "k"; hmac = "canary" } }`)
	now := load(`front "a.example" { upstream = "http://127.0.0.1:3"; token = "canary-two"; access_log = true } acme { eab { key_id = "k"; hmac = "canary2" } }`)
	want := []Change{
		{Name: "acme.eab", Old: "set", New: "set", Unseen: true},
		{Name: "front.upstream a.example", Old: "http://127.0.0.1:1", New: "http://127.0.0.1:3"},
		{Name: "front.token a.example", Old: "set", New: "set", Unseen: true},
		{Name: "front.access_log a.example", Old: "false", New: "true"},
		{Name: "front.path.upstream a.example/x", Old: "http://127.0.0.1:2"},
	}
	if diff := cmp.Diff(want, Diff(old, now)); diff != "" {
		t.Errorf("difference (-want +got):\n%s", diff)
	}
	if blocks := NeedRestart(old, now); len(blocks) > 0 {
		t.Errorf("a restart is needed for %v", blocks)
	}
}
