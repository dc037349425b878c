package policy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"relay/config"
	"relay/internal/testkit/golden"
)

// canary stands for a secret in the files of testdata and in testEnv.
const canary = "canary"

func testEnv(name string) (string, bool) {
	v, ok := map[string]string{
		"GOOD":   "whsec_Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5", // "canary-canary-…" inside
		"HEX":    "0123456789abcdef0123456789abcdef",
		"HEADER": "canary-header",
		"NAME":   "X-Name",
		"TOKEN":  "canary-token",
		"NUMBER": "[1,2]",
	}[name]
	return v, ok
}

// TestGolden decodes each NAME.hcl of testdata/*.txtar and compares with NAME.want:
// the configuration, or the diagnostics as `relay check` shows them. PEM files are made
// for it, so it runs in a folder of its own.
func TestGolden(t *testing.T) {
	testdata, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(testdata, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	t.Chdir(t.TempDir())
	writePEM(t)
	if err := errors.Join(os.Symlink(testdata, "testdata"), os.WriteFile("policy.go", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{}
			for _, f := range archive.Files {
				want[f.Name] = string(f.Data)
			}
			rewritten := &txtar.Archive{Comment: archive.Comment}
			for _, f := range archive.Files {
				name, ok := strings.CutSuffix(f.Name, ".hcl")
				if !ok {
					continue
				}
				got := outcome(f.Data)
				rewritten.Files = append(rewritten.Files, f, txtar.File{Name: name + ".want", Data: []byte(got)})
				t.Run(name, func(t *testing.T) {
					// Checklist S15: no diagnostic and no dump shows a secret.
					if strings.Contains(got, canary) {
						t.Errorf("the outcome shows a secret:\n%s", got)
					}
					if diff := cmp.Diff(want[name+".want"], got); diff != "" && !golden.Update() {
						t.Errorf("-want +got:\n%s", diff)
					}
				})
			}
			if golden.Update() {
				if err := os.WriteFile(file, txtar.Format(rewritten), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func goldenInputs(t testing.TB, path string) [][]byte {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var inputs [][]byte
	for _, f := range archive.Files {
		if strings.HasSuffix(f.Name, ".hcl") {
			inputs = append(inputs, f.Data)
		}
	}
	return inputs
}

func outcome(src []byte) string {
	f, err := config.Parse("testdata/relay.hcl", src, testEnv)
	if err != nil && !f.Decodable() {
		return problems(err)
	}
	p, err := Decode(f)
	if err != nil {
		return problems(err)
	}
	var b strings.Builder
	dumpConfig(&b, f.Config)
	for _, e := range p.Endpoints {
		dumpEndpoint(&b, e)
	}
	for _, t := range p.Types {
		fmt.Fprintf(&b, "event_type %s %q", t.Name, t.Description)
		if t.Schema != nil {
			fmt.Fprintf(&b, " %+v", t.Schema.Fields())
		}
		fmt.Fprintf(&b, " %s\n", t.Example)
	}
	for _, w := range f.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	return b.String()
}

func problems(err error) string {
	d, ok := errors.AsType[config.Diagnostics](err)
	if !ok {
		return "not diagnostics: " + err.Error() + "\n"
	}
	return d.Pretty()
}

func dumpConfig(b *strings.Builder, c config.Config) {
	fmt.Fprintf(b, "ingest max_body=%d\n", c.Ingest.MaxBody)
	for _, u := range c.Ingest.Unix {
		fmt.Fprintf(b, "  unix %s mode=%04o\n", u.Path, u.Mode)
	}
	for _, h := range c.Ingest.HTTP {
		fmt.Fprintf(b, "  http %s token=%v hosts=%q\n", h.Addr, h.Token, h.Hosts)
	}
	fmt.Fprintf(b, "outbox %+v\nadmin %+v\nretention %+v\nlog %+v\n", c.Outbox, c.Admin, c.Retention, c.Log)
}

func dumpEndpoint(b *strings.Builder, e *Endpoint) {
	fmt.Fprintf(b, "endpoint %s %v\n", e.Name, e.URL)
	if !e.Enabled || e.Description != "" {
		fmt.Fprintf(b, "  enabled=%t description=%q\n", e.Enabled, e.Description)
	}
	for _, l := range e.Labels {
		fmt.Fprintf(b, "  label %s=%q\n", l.Name, l.Value)
	}
	fmt.Fprintf(b, "  events include=%q exclude=%q\n", e.Events.include, e.Events.exclude)
	dumpFilter(b, e)
	for _, h := range e.Headers {
		fmt.Fprintf(b, "  header %s: %v (%d bytes)\n", h.Name, h.Value, len(h.Value.Reveal()))
	}
	if e.Body != nil {
		dumpBody(b, e.Body)
	}
	for _, s := range e.Signers {
		fmt.Fprintf(b, "  signs %s\n", strings.Join(s.Names(), ", "))
	}
	fmt.Fprintf(b, "  concurrency=%d timeout=%v\n", e.Concurrency, e.Timeout)
	if e.Handshake {
		fmt.Fprintf(b, "  handshake %s\n", e.Origin)
	}
	if e.HTTP2 {
		fmt.Fprintf(b, "  http2\n")
	}
	var statuses []string
	for code := 0; code < 1000; code++ {
		if e.Retry.On.Status(code) && !e.Retry.On.Status(code-1) {
			statuses = append(statuses, fmt.Sprint(code))
		}
		if !e.Retry.On.Status(code) && e.Retry.On.Status(code-1) {
			if from := &statuses[len(statuses)-1]; *from != fmt.Sprint(code-1) {
				*from += fmt.Sprintf("-%d", code-1)
			}
		}
	}
	fmt.Fprintf(b, "  retry %v\n    jitter=%g network=%t timeout=%t statuses=%s max_retry_after=%v\n", e.Retry.Schedule,
		e.Retry.Jitter, e.Retry.On.Has(0, "connection_reset"), e.Retry.On.Has(0, "timeout"), strings.Join(statuses, ","), e.Retry.MaxRetryAfter)
	for _, c := range e.Retry.Classes {
		fmt.Fprintf(b, "    after %s %v jitter=%g max_age=%v\n", c.Name, c.Schedule, c.Jitter, c.MaxAge)
	}
	if e.Retry.MaxAge > 0 {
		fmt.Fprintf(b, "    max_age=%v\n", e.Retry.MaxAge)
	}
	if e.FleetConcurrency > 0 || e.FreshShare != 0.5 || e.ObeyRateHeaders {
		fmt.Fprintf(b, "  fleet_concurrency=%d fresh_share=%g obey_rate_headers=%t\n", e.FleetConcurrency, e.FreshShare, e.ObeyRateHeaders)
	}
	if e.ConnectionMaxAge != 5*time.Minute {
		fmt.Fprintf(b, "  connection_max_age=%v\n", e.ConnectionMaxAge)
	}
	if e.RateLimit != nil {
		fmt.Fprintf(b, "  rate_limit %+v\n", *e.RateLimit)
	}
	switch {
	case e.Breaker == nil:
		fmt.Fprintf(b, "  no breaker\n")
	case *e.Breaker != defaultBreaker().Breaker:
		shown, _, _ := strings.Cut(fmt.Sprintf("%+v", *e.Breaker), " On:")
		fmt.Fprintf(b, "  breaker %s On:%v}\n", shown, e.Breaker.On.List())
	}
	if e.Batch != nil {
		fmt.Fprintf(b, "  batch %s as %s\n", e.Batch, e.ContentType())
	}
	if e.Disable != defaultDisable() {
		fmt.Fprintf(b, "  disable %+v\n", e.Disable)
	}
	fmt.Fprintf(b, "  egress %+v\n", e.Egress)
	if e.TLS.Roots != nil || e.TLS.Certificate != nil || e.TLS.ServerName != "" || e.TLS.MinVersion == tls.VersionTLS13 {
		client, _, _ := strings.Cut(e.TLS.Client(), ", sha256") // which is another one each time
		fmt.Fprintf(b, "  tls version=%s name=%s own roots=%t client=%s\n", e.TLS.Version(), e.TLS.ServerName, e.TLS.Roots != nil, client)
	}
}

// dumpFilter shows the filters, and what they say of goldenView.
func dumpFilter(b *strings.Builder, e *Endpoint) {
	if e.Filter == nil {
		return
	}
	for _, s := range e.Filter.settings() {
		fmt.Fprintf(b, "  %s: %s\n", s.Name, s.Value)
	}
	d := e.Filter.Decide(e.Name, goldenView())
	fmt.Fprintf(b, "    gets=%t by=%q", d.Gets, d.By)
	if m := d.Term.Mark; m != nil {
		fmt.Fprintf(b, " subject=%s level=%d lower=%t for=%s", d.subject, m.Level, m.Lower, m.For)
	}
	if d.Term.Code != "" {
		fmt.Fprintf(b, " %s: %s", d.Term.Code, d.Term.Error)
	}
	fmt.Fprintln(b)
}

// dumpBody shows what goes out for goldenView.
func dumpBody(b *strings.Builder, body *Body) {
	text, err := body.Masked().Append(nil, goldenView())
	fmt.Fprintf(b, "  body %s %s\n", body.kind, body.ContentType())
	for _, h := range body.AppendHeader(nil, goldenView()) {
		fmt.Fprintf(b, "    %s: %s\n", h.Name, h.Value)
	}
	if err != nil {
		fmt.Fprintf(b, "    error: %v\n", err)
		return
	}
	fmt.Fprintf(b, "    %s\n", text)
}

func goldenView() *View {
	return &View{
		ID: "evt_1", Type: "invoice.paid", Tenant: "acme \"ü\"", Key: "inv-7", Delivery: "dlv_1",
		Time: time.Date(2026, 1, 2, 3, 4, 5, 120_000_000, time.UTC),
		Data: []byte(`{ "amount": 1200.0, "big": 12345678901234567890, "text": "say \"hi\"\n<b> \u00e9", "z": {"b": 1e3, "a": [ true, null ]}, "none": null, "items": [{"name": "x", "n": 2}, {"name": "y", "n": 3}], "odd key": "k", "n": "7" }`),
	}
}
