package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTrace(t *testing.T) {
	load := func(text string) (Config, error) {
		f, err := Parse("relay.hcl", []byte(text), environ{"TOKEN": "canary-token", "HOST": "canary.example.com"}.get)
		if f == nil {
			return Config{}, err
		}
		return f.Config, err
	}
	if c, err := load("log {}"); err != nil || c.Trace.OTLP != "" {
		t.Errorf("without a block: %+v, %v", c.Trace, err)
	}
	c, err := load("trace {\n otlp = \"https://otel.example.com/base\"\n headers = { Authorization = env(\"TOKEN\") }\n}")
	if err != nil || c.Trace.Sample != 0.01 || c.Trace.Service != "relay" || len(c.Trace.Headers) != 1 || c.Trace.Headers[0].Value.Reveal() != "canary-token" {
		t.Errorf("%+v, %v", c.Trace, err)
	}
	before, _ := load("log {}")
	want := []Change{{Name: "trace.otlp", New: "https://otel.example.com/base"}, {Name: "trace.sample", New: "0.01"},
		{Name: "trace.service", New: "relay"}, {Name: "trace.headers Authorization", New: "set"}}
	if diff := cmp.Diff(want, Diff(before, c)); diff != "" {
		t.Errorf("Diff (-want +got):\n%s", diff)
	}
	if got := NeedRestart(before, c); len(got) != 1 || got[0] != "trace" {
		t.Errorf("NeedRestart: %v", got)
	}
	hidden, err := load("trace {\n otlp = \"http://${env(\"HOST\")}:4318\"\n}")
	if err != nil {
		t.Fatal(err)
	}
	if text := hidden.Hush("dial tcp canary.example.com:4318: refused"); strings.Contains(text, "canary") {
		t.Errorf("Hush: %q", text)
	}

	if c, err = load("trace {\n otlp = \"http://h\"\n headers = { (env(\"HOST\")) = \"x\" }\n}"); err != nil {
		t.Fatal(err)
	}
	if all := Diff(before, c); all[len(all)-1].Name != "trace.headers ***" {
		t.Errorf("a name that env() gave is shown: %v", all)
	}

	for text, want := range map[string]string{
		"sample = 0.5":                                                       "otlp",
		"otlp = \"127.0.0.1:4318\"":                                          "rite the address of a collector",
		"otlp = \"grpc://127.0.0.1:4317\"":                                   "rite the address of a collector",
		"otlp = \"http://u:canary@127.0.0.1\"":                               "write headers",
		"otlp = \"http://127.0.0.1/v1/traces\"":                              "without /v1/traces",
		"otlp = \"http://127.0.0.1/?x\"":                                     "neither ? nor #",
		"otlp = \"http://127.1\"":                                            "looks like an IP address",
		"otlp = \"http://h\"\n sample = 1.5":                                 "sample",
		"otlp = \"http://h\"\n service = \"\"":                               "1 to 255 bytes",
		"otlp = \"http://h\"\n headers = { \"a b\" = \"canary\" }":           "Invalid header name",
		"otlp = \"http://h\"\n headers = { Content-Type = \"canary\" }":      "Reserved header",
		"otlp = \"http://h\"\n headers = { a = \"canary\", A = \"canary\" }": "Duplicate header",
		"otlp = \"http://h\"\n headers = { a = \"canary\\u0001\" }":          "Invalid header value",
		"otlp = \"http://h\"\n grpc = true":                                  "Unsupported argument",
	} {
		_, err := load("trace {\n " + text + "\n}")
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary")) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
