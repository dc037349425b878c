package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"relay/internal/testkit"
	"relay/policy/sign"
)

// goSample is a program around the Go sample of the page.
const goSample = `package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

%s

func main() {
	var all []struct {
		Headers map[string]string
		Body    string
	}
	if err := json.NewDecoder(os.Stdin).Decode(&all); err != nil {
		panic(err)
	}
	for _, x := range all {
		h := http.Header{}
		for name, value := range x.Headers {
			h.Set(name, value)
		}
		fmt.Println(verify(%q, h, []byte(x.Body)))
	}
}
`

// signedRequest is what a sample is asked about.
type signedRequest struct {
	Headers map[string]string
	Body    string
}

// runSample says what a sample of the page answers to requests, a line for each.
func runSample(t *testing.T, file, secret string, all []signedRequest) string {
	t.Helper()
	text, err := os.ReadFile(file)
	testkit.Must(t, err)
	input, err := json.Marshal(all)
	testkit.Must(t, err)
	dir := t.TempDir()
	var name string
	var args []string
	program := filepath.Join(dir, "main")
	switch {
	case strings.HasSuffix(file, ".mjs"):
		program += ".mjs"
		name, args = "node", []string{program}
		text = fmt.Appendf(text, "\nimport { readFileSync } from 'node:fs';\nfor (const x of JSON.parse(readFileSync(0))) console.log(verify(%q, x.Headers, x.Body));\n", secret)
	case strings.HasSuffix(file, ".py"):
		program += ".py"
		name, args = "python3", []string{program}
		text = fmt.Appendf(text, "\nimport json, sys\nfor x in json.load(sys.stdin):\n    print(str(verify(%q, x[\"Headers\"], x[\"Body\"].encode())).lower())\n", secret)
	default:
		program += ".go"
		name, args = "go", []string{"run", program}
		text = fmt.Appendf(nil, goSample, text, secret)
	}
	testkit.Must(t, os.WriteFile(program, text, 0o600))
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = strings.NewReader(string(input))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v", file, err)
	}
	return string(out)
}

// brokenHeaders are headers of which one that the sample reads is missing or broken; seconds is the time in them.
func brokenHeaders(sample string, signed map[string]string, seconds string) (all []map[string]string) {
	for name, value := range signed {
		if !strings.Contains(sample, name) {
			continue
		}
		without := maps.Clone(signed)
		delete(without, name)
		all = append(all, without)
		large := strings.Repeat("9", 400)
		for _, broken := range []string{"", "é", "²", large, ",", "é" + value, strings.ReplaceAll(value, "v1=", "v1=é"), strings.ReplaceAll(value, seconds, "²"), strings.ReplaceAll(value, seconds, large)} {
			if broken != value {
				one := maps.Clone(signed)
				one[name] = broken
				all = append(all, one)
			}
		}
	}
	return all
}

// Each sample that the page shows takes what Relay signs, by one of two secrets where both sign, and refuses what was changed,
// is old, has another's signature, or has headers that are missing or broken. Each scheme whose signature a few lines can verify has one.
func TestPageSamplesVerify(t *testing.T) {
	t.Parallel() // it waits for other programs
	files, err := filepath.Glob("page/samples/*")
	testkit.Must(t, err)
	for _, scheme := range sign.BuiltinNames() {
		if scheme != "none" && scheme != "rfc9421" && !slices.Contains(files, "page/samples/"+scheme+".py") {
			t.Errorf("the page has no sample for %s", scheme)
		}
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			name, _, _ := strings.Cut(filepath.Base(file), ".")
			scheme, is := sign.Builtin(name)
			if !is {
				t.Fatalf("there is no scheme %s", name)
			}
			signed := func(at time.Time, secrets ...string) map[string]string {
				signer, err := sign.NewSigner(scheme, secrets)
				testkit.Must(t, err)
				headers := map[string]string{}
				for _, h := range signer.Sign(nil, &sign.Message{EventID: "evt_1", Time: at, Body: []byte("{ \"a\": 1 }")}) {
					headers[h.Name] = h.Value
				}
				return headers
			}
			const body = "{ \"a\": 1 }"
			now := time.Now()
			want := []string{"true", "false", "false"}
			all := []signedRequest{{signed(now, sharedKey), body}, {signed(now, sharedKey), "{\"a\": 1}"}, {signed(now, otherSecret), body}}
			if slices.Contains([]string{"standard", "svix", "stripe"}, name) { // both secrets sign
				all, want = append(all, signedRequest{signed(now, newSecret, sharedKey), body}), append(want, "true")
			}
			if slices.Contains([]string{"standard", "svix", "stripe", "slack"}, name) { // the time is signed
				all, want = append(all, signedRequest{signed(now.Add(-time.Hour), sharedKey), body}), append(want, "false")
			}
			text, err := os.ReadFile(file)
			testkit.Must(t, err)
			for _, one := range brokenHeaders(string(text), signed(now, sharedKey), strconv.FormatInt(now.Unix(), 10)) {
				all, want = append(all, signedRequest{one, body}), append(want, "false")
			}
			if got := runSample(t, file, sharedKey, all); got != strings.Join(want, "\n")+"\n" {
				t.Errorf("it answers %q, want %q", got, want)
			}
		})
	}
}
