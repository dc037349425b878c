package config

import (
	"strings"
	"testing"
)

func TestCheckHost(t *testing.T) {
	long := strings.Repeat("a.", 126) // 252 characters
	for host, want := range map[string]string{
		"a.example.com": "", "_dmarc.example.com": "", "localhost": "", "10.0.0.7": "", "::1": "", long + "b": "", strings.Repeat("a", 63): "",
		long + "bc":             "longer than 253",
		strings.Repeat("a", 64): "neither a name",
		"":                      "neither a name", "a..b": "neither a name", "a.": "neither a name", "*.a.com": "neither a name", "é.com": "neither a name", "a:80": "neither a name", "https://a": "neither a name",
		"127.1": "looks like an IP address", "0x7f.1": "looks like an IP address", "2130706433": "looks like an IP address", "10.0.0.007": "looks like an IP address",
	} {
		if err := CheckHost(host); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", host, err, want)
		}
	}
}
