package main

import (
	"encoding/base64"
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
%s)

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
		fmt.Println(verify(%s, h, []byte(x.Body)))
	}
}
`

// signedRequest is what a sample is asked about.
type signedRequest struct {
	Headers map[string]string
	Body    string
}

// goImports are the packages that a program around a Go sample needs.
func goImports(sample []byte) string {
	var lines strings.Builder
	for _, path := range []string{"crypto/ed25519", "crypto/hmac", "crypto/sha256", "encoding/base64", "encoding/json", "fmt", "net/http", "os", "strconv", "strings", "time"} {
		if name := filepath.Base(path) + "."; strings.Contains(string(sample), name) || strings.Contains(goSample, name) {
			fmt.Fprintf(&lines, "\t%q\n", path)
		}
	}
	return lines.String()
}

// sampleURL is where the requests go that a sample is asked about.
const sampleURL = "https://receiver.example/hooks?from=relay"

// runSample says what a sample of the page answers to requests, a line for each. key is the secret, or its public half.
func runSample(t *testing.T, file, key string, all []signedRequest) string {
	t.Helper()
	text, err := os.ReadFile(file)
	testkit.Must(t, err)
	input, err := json.Marshal(all)
	testkit.Must(t, err)
	dir := t.TempDir()
	var name string
	var args []string
	program := filepath.Join(dir, "main")
	given := strconv.Quote(key)
	if strings.HasPrefix(filepath.Base(file), "rfc9421") {
		given += ", " + strconv.Quote(sampleURL)
	}
	switch {
	case strings.HasSuffix(file, ".mjs"):
		program += ".mjs"
		name, args = "node", []string{program}
		text = fmt.Appendf(text, "\nimport { readFileSync } from 'node:fs';\nfor (const x of JSON.parse(readFileSync(0))) console.log(verify(%s, x.Headers, x.Body));\n", given)
	case strings.HasSuffix(file, ".py"):
		program += ".py"
		name, args = "python3", []string{program}
		text = fmt.Appendf(text, "\nimport json, sys\nfor x in json.load(sys.stdin):\n    print(str(verify(%s, x[\"Headers\"], x[\"Body\"].encode())).lower())\n", given)
	default:
		program += ".go"
		name, args = "go", []string{"run", program}
		text = fmt.Appendf(nil, goSample, goImports(text), text, given)
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

// sampleKeys are what a sample verifies with: a secret, an older one, another's; and which of them a receiver has.
func sampleKeys(t *testing.T, scheme *sign.Scheme, ed25519 bool) (secret, newer, other, key string) {
	t.Helper()
	if !ed25519 {
		return sharedKey, newSecret, otherSecret, sharedKey
	}
	private := func(b string) string {
		return "whsk_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(b, 32)))
	}
	signer, err := sign.NewSigner(scheme, []string{private("s")})
	testkit.Must(t, err)
	return private("s"), private("n"), private("o"), signer.PublicKeys()[0].Prefixed()
}

// signedAs is a request's headers as a sample gets them: those of the same name as one, and in lower case for Node.js.
func signedAs(file string, signer *sign.Signer, m *sign.Message) map[string]string {
	headers := map[string]string{}
	if strings.HasPrefix(filepath.Base(file), "rfc9421") {
		headers["Content-Type"], headers["webhook-id"] = m.ContentType, m.EventID
	}
	for _, h := range signer.Sign(nil, m) {
		if before, is := headers[h.Name]; is && before != h.Value {
			h.Value = before + ", " + h.Value
		}
		headers[h.Name] = h.Value
	}
	if strings.HasSuffix(file, ".mjs") {
		for name, value := range headers {
			delete(headers, name)
			headers[strings.ToLower(name)] = value
		}
	}
	return headers
}

// Each sample that the page shows takes what Relay signs, by one of two secrets where both sign, and refuses what was changed,
// is old, has another's signature, or has headers that are missing or broken. Each scheme has one.
func TestPageSamplesVerify(t *testing.T) {
	t.Parallel() // it waits for other programs
	files, err := filepath.Glob("page/samples/*")
	testkit.Must(t, err)
	for _, scheme := range append(sign.BuiltinNames(), "standard-ed25519", "rfc9421-ed25519") {
		if scheme != "none" && !slices.Contains(files, "page/samples/"+scheme+".py") {
			t.Errorf("the page has no sample for %s", scheme)
		}
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			full, _, _ := strings.Cut(filepath.Base(file), ".")
			name, ed25519 := strings.CutSuffix(full, "-ed25519")
			scheme, is := sign.Builtin(name)
			if !is {
				t.Fatalf("there is no scheme %s", name)
			}
			secret, newer, other, key := sampleKeys(t, scheme, ed25519)
			const body = "{ \"a\": 1 }"
			signed := func(at time.Time, secrets ...string) map[string]string {
				signer, err := sign.NewSigner(scheme, secrets)
				testkit.Must(t, err)
				return signedAs(file, signer, &sign.Message{EventID: "evt_1", Time: at, Body: []byte(body), Method: "POST", URL: sampleURL, ContentType: "application/json"})
			}
			now := time.Now()
			want := []string{"true", "false", "false"}
			all := []signedRequest{{signed(now, secret), body}, {signed(now, secret), "{\"a\": 1}"}, {signed(now, other), body}}
			if slices.Contains([]string{"standard", "svix", "stripe", "rfc9421"}, name) { // both secrets sign
				all, want = append(all, signedRequest{signed(now, newer, secret), body}), append(want, "true")
			}
			if slices.Contains([]string{"standard", "svix", "stripe", "slack", "rfc9421"}, name) { // the time is signed
				all, want = append(all, signedRequest{signed(now.Add(-time.Hour), secret), body}), append(want, "false")
			}
			text, err := os.ReadFile(file)
			testkit.Must(t, err)
			for _, one := range brokenHeaders(string(text), signed(now, secret), strconv.FormatInt(now.Unix(), 10)) {
				all, want = append(all, signedRequest{one, body}), append(want, "false")
			}
			if got := runSample(t, file, key, all); got != strings.Join(want, "\n")+"\n" {
				t.Errorf("it answers %q, want %q", got, want)
			}
		})
	}
}
