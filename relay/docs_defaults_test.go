package main

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"relay/config"
	"relay/policy"
)

// A default that code derives stands in the pages as somebody wrote it. Written into
// the file it must change nothing.
func TestWrittenDefaultsChangeNothing(t *testing.T) {
	page := pages(t)["docs/configuration.md"]
	observed := map[string]bool{}
	for _, x := range config.Describe(func(f *config.File) { _, _ = policy.Decode(f) }) {
		observed[x.Block+" "+x.Name] = x.Default != ""
	}
	tried := 0
	for _, part := range generated.FindAllStringSubmatch(page, -1) {
		block, ok := strings.CutPrefix(part[2], "attributes ")
		if !ok {
			continue
		}
		r := readRows(part[3])
		for _, name := range r.keys {
			value := regexp.MustCompile("^`([^`]*)`( with a strategy)?$").FindStringSubmatch(r.cell(name, 2))
			if value == nil || observed[block+" "+name] {
				continue
			}
			tried++
			without, with := beside(block, name), beside(block, name)+name+" = "+value[1]+"\n"
			before, old := meaning(t, block, without)
			after, now := meaning(t, block, with)
			if fmt.Sprint(before) != fmt.Sprint(after) || !old.Endpoints[0].Equal(now.Endpoints[0]) {
				t.Errorf("%s of %s is not %s by default", name, block, value[1])
			}
		}
	}
	if tried < 15 {
		t.Errorf("tried only %d defaults: the test no longer sees them", tried)
	}
}

// beside are attributes that an attribute needs in its block.
func beside(block, name string) string {
	switch {
	case strings.HasSuffix(block, " retry") && (name == "initial" || name == "max" || name == "multiplier" || name == "max_attempts"):
		return "strategy = \"exponential\"\n"
	case strings.HasSuffix(block, " retry") && name == "strategy":
		return `schedule = ["5s"]` + "\n"
	case block == `front "LABEL"` && name != "upstream":
		return "upstream = \"http://127.0.0.1:1\"\n"
	case block == "trace" && name != "otlp":
		return "otlp = \"http://127.0.0.1:4318\"\n"
	case strings.HasPrefix(block, "signature"):
		return "signed = \"${body}\"\nheaders = { \"X-A\" = signature }\n"
	}
	return ""
}

// meaning is what a file with this text in one block means.
func meaning(t *testing.T, block, text string) (config.Config, *policy.Policy) {
	t.Helper()
	labels := map[string]string{"http": "127.0.0.1:1", "unix": "a.sock", "policy": "default", "retry": "429", "path": "/x/*"}
	file, ends := "", ""
	for _, m := range regexp.MustCompile(`(\w+)( "\w+")?`).FindAllStringSubmatch(block, -1) {
		label := m[2]
		if label == ` "LABEL"` {
			name := labels[m[1]]
			if name == "" {
				name = "x"
			}
			label = fmt.Sprintf(" %q", name)
		}
		file, ends = file+m[1]+label+" {\n", ends+"}\n"
	}
	if strings.HasPrefix(block, "endpoint") {
		file += endpointOf("standard")
	}
	file += text + ends
	if !strings.HasPrefix(block, "endpoint") {
		sign := "standard"
		if strings.HasPrefix(block, "signature") {
			sign = "x"
		}
		file += "endpoint \"x\" {\n" + endpointOf(sign) + "}\n"
	}
	f, err := config.Parse("relay.hcl", []byte(file), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatalf("%v in\n%s", err, file)
	}
	p, err := policy.Decode(f)
	if err != nil {
		t.Fatalf("%v in\n%s", err, file)
	}
	return f.Config, p
}

func endpointOf(sign string) string {
	secret := "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	text := fmt.Sprintf("url = \"https://a.example\"\nsecrets = [%q]\n", secret)
	if sign != "standard" {
		text += fmt.Sprintf("sign = [%q]\n", sign)
	}
	return text
}
