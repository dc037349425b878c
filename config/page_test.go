package config

import (
	"strings"
	"testing"
)

// The address of the platform's page is one that a customer's browser can be sent to.
func TestDocsURL(t *testing.T) {
	for address, want := range map[string]string{
		"":                                     "",
		"https://example.com/webhooks?v=2#top": "",
		"http://127.0.0.1:8000/hooks":          "",
		"http://[::1]/":                        "",
		"http://localhost:3000":                "",
		"http://example.com/":                  "It must begin with https://",
		"ftp://example.com/":                   "It must begin with https://",
		"javascript:alert(1)":                  "Write an address like",
		"//example.com/":                       "It must begin with https://",
		"/docs":                                "Write an address like",
		"https://u:p@example.com/":             "Write an address like",
		"https://example.com/a b":              "Write an address like",
		"https://example.com/" + strings.Repeat("a", 500): "at most 500 characters",
	} {
		f, err := Parse("relay.hcl", []byte("admin {\n page {\n docs_url = \""+address+"\"\n}\n}"), environ{}.get)
		switch {
		case want == "" && (err != nil || f.Config.Admin.Page.DocsURL != address):
			t.Errorf("%q: %v", address, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "relay.hcl:3")):
			t.Errorf("%q: %v, want %q with its line", address, err, want)
		}
	}
}
