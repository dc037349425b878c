package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"relay/config"
)

func mustDecode(t testing.TB, src string) *Policy {
	t.Helper()
	f, err := config.Parse("relay.hcl", []byte(src), testEnv)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		patterns string // separated by a space
		yes, no  string
	}{
		{"", "a a.b relayed relayed.x x.relay", "relay relay.x relay.delivery.failed"},
		{"**", "a a.b.c", "relay relay.x"},
		{"*", "a relayed", "a.b relay"},
		{"*.*", "a.b", "a a.b.c relay.x"},
		{"a", "a", "b a.b A"},
		{"invoice.*", "invoice.paid invoice.x", "invoice invoice.paid.late invoices.paid"},
		{"invoice.**", "invoice invoice.paid invoice.paid.late", "invoices"},
		{"**.created", "created customer.created a.b.created", "created.x customer.created2 relay.created"},
		{"a.**.z", "a.z a.b.z a.b.c.z a.z.z", "a z a.b a.z.b"},
		{"a.*.z", "a.b.z", "a.z a.b.c.z"},
		{"**.a.**.b.**", "a.b x.a.y.b.z a.a.b.b", "b.a a x.y"},
		{"**.**", "a a.b a.b.c", "relay"},
		{"a.* b.*", "a.x b.x", "c.x"},
		{"!a.*", "b a a.b.c", "a.x relay.x"},
		{"!a.* a.**", "a a.x.y", "a.x b"},
		{"a.** !a.*", "a a.x.y", "a.x b"},
		{"!**", "", "a a.b relay"},
		{"relay.*", "relay.x", "relay relay.x.y a"},
		{"relay.**", "relay relay.x relay.x.y", "a"},
		{"relay", "relay", "relay.x"},
		{"** relay.breaker.*", "a relay.breaker.opened", "relay.endpoint.disabled"},
		{"relay.** !relay.breaker.*", "relay.x relay", "relay.breaker.opened"},
		{"!relay.x", "a", "relay.x relay.y"},
	} {
		t.Run(tt.patterns, func(t *testing.T) {
			m, err := NewMatcher(strings.Fields(tt.patterns))
			if err != nil {
				t.Fatal(err)
			}
			for _, typ := range strings.Fields(tt.yes) {
				if !m.Match(typ) {
					t.Errorf("does not match %s", typ)
				}
			}
			for _, typ := range strings.Fields(tt.no) {
				if m.Match(typ) {
					t.Errorf("matches %s", typ)
				}
			}
		})
	}
	if _, err := NewMatcher([]string{"a", "b*"}); err == nil || !strings.Contains(err.Error(), `"b*"`) {
		t.Errorf("got %v", err)
	}
}

func TestRoute(t *testing.T) {
	p := mustDecode(t, `
endpoint "all" {
  url  = "https://example.com/"
  sign = ["none"]
}
endpoint "paid" {
  url    = "https://example.com/"
  sign   = ["none"]
  events = ["*.paid"]
}
endpoint "off" {
  url     = "https://example.com/"
  sign    = ["none"]
  enabled = false
}
`)
	for range 2 { // the second answer is from the cache
		for typ, want := range map[string][]string{
			"invoice.paid": {"all", "paid", "off"}, "invoice.sent": {"all", "off"}, "relay.delivery.failed": nil,
		} {
			if diff := cmp.Diff(want, p.Match(typ)); diff != "" {
				t.Errorf("%s: -want +got:\n%s", typ, diff)
			}
		}
	}
	if p.Endpoint("paid") != p.Endpoints[1] || p.Endpoint("nobody") != nil {
		t.Error("Endpoint finds another one")
	}
	for i := range 10_000 {
		p.Match(fmt.Sprint("type.", i))
	}
	if n := p.router.types.Len(); n > 4096 {
		t.Errorf("the cache has %d entries", n)
	}
	many := make([]*Endpoint, 10_000)
	for i := range many {
		many[i] = &Endpoint{Name: fmt.Sprint(i)}
	}
	p = New(many)
	for i := range 150 {
		p.Match(fmt.Sprint("type.", i))
	}
	if n := p.router.types.Len(); n != 100 {
		t.Errorf("the cache has %d entries of 10,000 names, want 100", n)
	}
	if got := New(nil).Match("a"); got != nil {
		t.Errorf("no endpoints: %v", got)
	}
}

func TestOutcomes(t *testing.T) {
	for _, tt := range []struct {
		list             string
		network, timeout bool
		status           func(code int) bool
	}{
		{"", false, false, func(int) bool { return false }},
		{"network", true, false, func(int) bool { return false }},
		{"timeout", false, true, func(int) bool { return false }},
		{"network timeout 5xx", true, true, func(c int) bool { return c >= 500 && c < 600 }},
		{"408 409 425 429 5xx", false, false, func(c int) bool { return c >= 500 && c < 600 || slices.Contains([]int{408, 409, 425, 429}, c) }},
		{"3xx 4xx", false, false, func(c int) bool { return c >= 300 && c < 500 }},
		{"300 599", false, false, func(c int) bool { return c == 300 || c == 599 }},
	} {
		t.Run(tt.list, func(t *testing.T) {
			on, err := ParseOutcomes(strings.Fields(tt.list))
			if err != nil {
				t.Fatal(err)
			}
			if network, timeout := on.Has(0, "connection_reset"), on.Has(0, "connect_timeout"); network != tt.network || timeout != tt.timeout {
				t.Errorf("network=%t timeout=%t", network, timeout)
			}
			for code := -10; code < 1100; code++ {
				if got := on.Status(code); got != tt.status(code) {
					t.Errorf("Status(%d) = %t", code, got)
				}
			}
		})
	}
}

func TestValidTypeAndID(t *testing.T) {
	for _, s := range []string{"a", "A.b-c_9", "a.b.c", strings.Repeat("x", 128)} {
		if err := ValidType(s); err != nil {
			t.Errorf("ValidType(%q): %v", s, err)
		}
	}
	for _, s := range []string{"", ".", ".a", "a.", "a..b", "a b", "a/b", "ä", "a*", "a\x00", strings.Repeat("x", 129)} {
		if err := ValidType(s); err == nil {
			t.Errorf("ValidType(%q) accepts it", s)
		}
	}
	for _, s := range []string{"a", "evt_01", "A-b_9", strings.Repeat("x", 64)} {
		if err := ValidID(s); err != nil {
			t.Errorf("ValidID(%q): %v", s, err)
		}
	}
	for _, s := range []string{"", "a.b", "a b", "ä", "a\n", strings.Repeat("x", 65)} {
		if err := ValidID(s); err == nil {
			t.Errorf("ValidID(%q) accepts it", s)
		}
	}
}

// The example shows every block, and what it calls defaults are the defaults.
func TestExampleFile(t *testing.T) {
	env := func(name string) (string, bool) {
		v, ok := map[string]string{
			"BILLING_SECRET": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
			"PARTNER_SECRET": strings.Repeat("0123456789abcdef", 4),
		}[name]
		return v, ok
	}
	path := filepath.Join("..", "relay.hcl.example")
	f, err := config.Load([]string{path}, env)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default(env)
	want.Log.Format = "json" // decided by the terminal
	want.Ingest.HTTP[0].Hosts, want.Admin.Hosts = nil, nil
	if diff := cmp.Diff(want, f.Config, cmpopts.IgnoreUnexported(config.Config{})); diff != "" {
		t.Errorf("the example is not the defaults: -default +example:\n%s", diff)
	}

	plain := mustDecode(t, `
endpoint "billing" {
  url     = "https://billing.example.com/hooks"
  secrets = [env("GOOD")]
}
`).Endpoints[0]
	billing := p.Endpoint("billing")
	if diff := cmp.Diff(plain.settings(), billing.settings()); diff != "" {
		t.Errorf("policy default of the example is not the default: -default +example:\n%s", diff)
	}
	partner := p.Endpoint("partner")
	if got := partner.Retry.After(429, "").Schedule; !slices.Equal(got, []time.Duration{time.Minute, 10 * time.Minute, time.Hour}) || partner.RateLimit == nil {
		t.Errorf("partner: %+v, %+v", partner.Retry, partner.RateLimit)
	}
	if got := partner.Retry.Schedule; len(got) != 9 || got[8] != 1280*time.Second || partner.Concurrency != 4 || partner.Timeout.Total != 30*time.Second {
		t.Errorf("partner: %v, %d, %v", got, partner.Concurrency, partner.Timeout)
	}

	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields("ingest unix mode http token hosts max_body outbox path durability max_size admin retention delivered failed " +
		"log level format policy concurrency timeout connect total retry schedule strategy initial max multiplier max_attempts jitter on max_retry_after " +
		"max_age explicit fleet_concurrency fresh_share obey_rate_headers http2 connection_max_age rate_limit limit per burst breaker failure_ratio min_attempts window open max_open " +
		"probes disable on_gone after_failing tls ca cert key min_version server_name egress allow_private allow_plaintext ports signature algorithm encoding secret signed headers endpoint url events secrets sign description enabled " +
		"strict event_type example handshake origin tenants when sample dedupe by window crossing value at reset_below remember") {
		if !strings.Contains(string(text), name) {
			t.Errorf("the example does not show %s", name)
		}
	}
}

// Checklist S15: whatever prints a policy, a configuration or a problem, no secret
// is in it.
func TestSecretsAreNeverPrinted(t *testing.T) {
	src := `
ingest {
  http "127.0.0.1:1" { token = "canary-token" }
}
admin {
  token = "canary-token"
}
signature "s" {
  signed  = body
  headers = { "X-S" = signature }
}
endpoint "a" {
  url     = "https://example.com/"
  secrets = ["canary-canary-canary", "canary-canary-canary-2"]
  sign    = ["s"]
  headers = { Authorization = "Bearer canary" }
}
endpoint "b" {
  url     = "https://example.com/"
  secrets = [env("GOOD")]
}
`
	f, err := config.Parse("relay.hcl", []byte(src), testEnv)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	e := p.Endpoints[0]
	for _, value := range []any{f, *f, f.Config, p, *p, e, *e, e.Headers, e.Signers, p.Endpoints[1].Signers, *p.Endpoints[1]} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			got := fmt.Sprintf(verb, value)
			for _, secret := range []string{"canary", fmt.Sprintf("%x", "canary"), "[99 97 110 97 114 121", testSecret} {
				if strings.Contains(got, secret) {
					t.Errorf("%s of %T shows a secret: %.200s", verb, value, got)
				}
			}
		}
	}
}

const testSecret = "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5"

// Decode does not change the file: a second time gives the same.
func TestDecodeTwice(t *testing.T) {
	f, err := config.Parse("relay.hcl", []byte("endpoint \"a\" {\n  url = 5\n}\n"), testEnv)
	if err != nil {
		t.Fatal(err)
	}
	_, first := Decode(f)
	_, second := Decode(f)
	if first == nil || second == nil || first.Error() != second.Error() {
		t.Errorf("first %v, then %v", first, second)
	}
}

func FuzzDecode(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		for _, file := range goldenInputs(f, path) {
			f.Add(file)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		file, err := config.Parse("relay.hcl", src, testEnv)
		if err != nil {
			return
		}
		p, err := Decode(file)
		if err != nil {
			return
		}
		for _, e := range p.Endpoints {
			if e.URL == nil || e.Name == "" || e.Concurrency < 1 || e.Timeout.Total <= 0 || p.Endpoint(e.Name) != e || !e.Equal(e) {
				t.Errorf("endpoint %+v", e)
			}
			if r := e.RateLimit; r != nil && (r.N < 1 || r.Per <= 0 || r.Burst < 1) {
				t.Errorf("rate limit %+v", r)
			}
			if r := e.Breaker; r != nil && (!(r.FailureRatio > 0 && r.FailureRatio <= 1) || r.Open <= 0 || r.MaxOpen < r.Open || r.On == (Outcomes{})) {
				t.Errorf("breaker %+v", r)
			}
			all := []Steps{e.Retry.Steps}
			for _, c := range e.Retry.Classes {
				all = append(all, c.Steps)
			}
			for _, s := range all {
				if len(s.Schedule) > 100 || s.Jitter < 0 || s.Jitter > 1 || s.MaxAge < 0 || len(s.Due()) > len(s.Schedule) {
					t.Errorf("steps %+v", s)
				}
				for _, d := range s.Schedule {
					if d <= 0 || d > maxDelay {
						t.Errorf("delay %v", d)
					}
				}
			}
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	endpoints := make([]*Endpoint, 10_000)
	for i := range endpoints {
		m, err := NewMatcher([]string{fmt.Sprintf("invoice.e%d.*", i%100), "!invoice.*.draft"})
		if err != nil {
			b.Fatal(err)
		}
		endpoints[i] = &Endpoint{Name: fmt.Sprint("endpoint-", i), Events: m}
	}
	b.Run("known", func(b *testing.B) {
		p := New(endpoints)
		b.ReportAllocs()
		for b.Loop() {
			p.Match("invoice.e7.paid")
		}
	})
	b.Run("new", func(b *testing.B) {
		p := New(endpoints)
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i++
			p.Match(fmt.Sprint("invoice.e7.paid", i))
		}
	})
}

// What env() or file() put into a URL is not shown, nor is a query.
func TestShownURL(t *testing.T) {
	for source, want := range map[string]string{
		`"https://a.test/hooks"`:                       "https://a.test/hooks",
		`"https://a.test/hooks?token=x"`:               "https://a.test/hooks?***",
		`"https://a.test/services/${env("NAME")}?x=y"`: "https://***/***?***",
		`format("https://a.test/%s", env("NAME"))`:     "https://***/***",
		`"https://${env("NAME")}.test"`:                "https://***",
	} {
		e := mustDecode(t, "endpoint \"a\" {\n url = "+source+"\n sign = [\"none\"]\n}").Endpoints[0]
		if got := e.ShownURL().String(); got != want {
			t.Errorf("%s is shown as %s, want %s", source, got, want)
		}
	}
}

// A trailing dot and the scheme's own port are no part of what a receiver is told.
func TestRequestURL(t *testing.T) {
	for source, want := range map[string]string{
		"https://a.test/x?y":           "https://a.test/x?y",
		"https://a.test:443/x":         "https://a.test/x",
		"https://a.test:8443/":         "https://a.test:8443/",
		"https://a.test./":             "https://a.test/",
		"https://hooks.A.test.:443/in": "https://hooks.A.test/in",
		"https://a.test.:80/":          "https://a.test:80/",
		"https://192.88.100.1:443/":    "https://192.88.100.1/",
		"https://[2a00:1450::1]:443/":  "https://[2a00:1450::1]/",
		"https://[2a00:1450::1]:444/":  "https://[2a00:1450::1]:444/",
	} {
		e := mustDecode(t, "endpoint \"a\" {\n url = \""+source+"\"\n sign = [\"none\"]\n}").Endpoints[0]
		if got := e.RequestURL().String(); got != want {
			t.Errorf("%s is requested as %s, want %s", source, got, want)
		}
		if e.URL.String() != source {
			t.Errorf("%s is kept as %s", source, e.URL)
		}
	}
}
