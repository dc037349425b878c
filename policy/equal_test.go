package policy

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"net/url"
	"reflect"
	"testing"
	"time"

	"relay/config"
	"relay/policy/sign"
)

// Equal sees a difference in every field, also in those that the hash must not hold.
func TestEqual(t *testing.T) {
	signer := func(scheme *sign.Scheme, secrets ...string) *sign.Signer {
		s, err := sign.NewSigner(scheme, secrets)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	t.Chdir(t.TempDir())
	writePEM(t)
	pair, err := tls.LoadX509KeyPair("client.pem", "client-key.pem")
	other, err2 := tls.LoadX509KeyPair("other.pem", "other-key.pem")
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	const one, two = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXI="
	endpoint := func() *Endpoint {
		on, err := ParseOutcomes([]string{"5xx"})
		if err != nil {
			t.Fatal(err)
		}
		m, err := NewMatcher([]string{"a.*"})
		if err != nil {
			t.Fatal(err)
		}
		return &Endpoint{
			Name: "a", Description: "d", Labels: []Label{{"project", "web"}}, Enabled: true, Events: m, Concurrency: 4,
			Filter: filterOf(t, `
				tenants = ["one", "two"]
				when    = event.data.a == env("NAME")
				sample  = 0.5
				crossing {
				  value = event.data.n
				  at    = [1, 2]
				  by    = event.key
				}`),
			Body:      bodyOf(t, `body = { id = event.id, k = env("NAME") }`),
			URL:       &url.URL{Scheme: "https", Host: "a.test", Path: "/hooks", RawQuery: "token=one"},
			Headers:   []Header{{Name: "X-Key", Value: config.NewSecret("one")}},
			Signers:   []*sign.Signer{signer(sign.Standard(), one)},
			Handshake: true, Origin: "one.test",
			Timeout: Timeout{Connect: time.Second, Total: time.Minute},
			Retry: Retry{
				Steps: Steps{Schedule: []time.Duration{time.Second}, Jitter: 0.1}, On: on, MaxRetryAfter: time.Hour,
				Classes: []RetryClass{{"5xx", on, Steps{Schedule: []time.Duration{time.Minute}}}},
			},
			ConnectionMaxAge: time.Minute,
			FleetConcurrency: 2, FreshShare: 0.5,
			RateLimit: &RateLimit{N: 1, Per: time.Second, Burst: 2},
			Breaker: &Breaker{
				FailureRatio: 0.5, MinAttempts: 20, Window: time.Minute, Open: time.Second, MaxOpen: time.Minute, Jitter: 0.1, Probes: 1, On: on,
			},
			Batch:   &Batch{MaxEvents: 100, MaxWait: time.Second, MaxBytes: 1 << 20},
			Disable: Disable{OnGone: true, AfterFailing: time.Hour},
			TLS:     TLS{CA: "a", Certificate: &pair, MinVersion: tls.VersionTLS12, ServerName: "a.test"},
			Egress:  Egress{AllowPrivate: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Ports: []uint16{443}},
		}
	}
	first := endpoint()
	if !first.Equal(endpoint()) || !first.Equal(first) {
		t.Fatal("an endpoint is not equal to itself")
	}
	changes := map[string][]func(*Endpoint){
		"Name":        {func(e *Endpoint) { e.Name = "b" }},
		"Description": {func(e *Endpoint) { e.Description = "" }},
		"Labels":      {func(e *Endpoint) { e.Labels = nil }, func(e *Endpoint) { e.Labels[0].Value = "app" }, func(e *Endpoint) { e.Labels[0].Name = "team" }},
		"URL":         {func(e *Endpoint) { e.URL.Path = "/" }, func(e *Endpoint) { e.URL.RawQuery = "token=two" }, func(e *Endpoint) { e.URL.User = url.User("u") }},
		"Enabled":     {func(e *Endpoint) { e.Enabled = false }},
		"Events":      {func(e *Endpoint) { e.Events = Matcher{} }},
		"Headers": {
			func(e *Endpoint) { e.Headers[0].Value = config.NewSecret("two") },
			func(e *Endpoint) { e.Headers[0].Name = "X-Other" },
			func(e *Endpoint) { e.Headers = nil },
		},
		"Signers": {
			func(e *Endpoint) { e.Signers = nil },
			func(e *Endpoint) { e.Signers = []*sign.Signer{signer(sign.Standard(), two)} },
			func(e *Endpoint) { e.Signers = []*sign.Signer{signer(sign.Standard(), one, two)} },
		},
		"Filter": {
			func(e *Endpoint) { e.Filter = nil },
			func(e *Endpoint) { e.Filter.Tenants = nil },
			func(e *Endpoint) { e.Filter.Tenants = []string{"one two"} },
			func(e *Endpoint) { e.Filter.When = nil },
			func(e *Endpoint) { e.Filter.When.source = "true" },
			func(e *Endpoint) { e.Filter.When.answers = config.NewSecret("other") },
			func(e *Endpoint) { e.Filter.Sample = 0 },
			func(e *Endpoint) { e.Filter.Crossing = nil },
			func(e *Endpoint) { e.Filter.Crossing.Value.source = "1" },
			func(e *Endpoint) { e.Filter.Crossing.At = []float64{1, 2.5} },
			func(e *Endpoint) { e.Filter.Crossing.By.source = "event.id" },
			func(e *Endpoint) { e.Filter.Crossing.ResetBelow = 0 },
			func(e *Endpoint) { e.Filter.Crossing.Remember++ },
			func(e *Endpoint) { e.Filter.Dedupe = &Dedupe{By: e.Filter.Crossing.By} },
		},
		"Body": {
			func(e *Endpoint) { e.Body = nil },
			func(e *Endpoint) { e.Body = bodyOf(t, `body = { id = event.id, k = env("HEX") }`) },
			func(e *Endpoint) {
				e.Body = bodyOf(t, "content_type = \"application/x+json\"\nbody = { id = event.id, k = env(\"NAME\") }")
			},
			func(e *Endpoint) {
				e.Body = bodyOf(t, "ecmascript = true\nbody = { id = event.id, k = env(\"NAME\") }")
			},
			func(e *Endpoint) { e.Body.answers = config.NewSecret("other") },
			func(e *Endpoint) { e.Body = bodyOf(t, `body = cloudevent`) },
		},
		"Concurrency":    {func(e *Endpoint) { e.Concurrency++ }},
		"PropagateTrace": {func(e *Endpoint) { e.PropagateTrace = true }},
		"HTTP2":          {func(e *Endpoint) { e.HTTP2 = true }},
		"drawn":          {func(e *Endpoint) { e.drawn = drawn{"url": true} }, func(e *Endpoint) { e.drawn = drawn{"timeout.total": true} }},
		"Handshake":      {func(e *Endpoint) { e.Handshake = false }},
		"Origin":         {func(e *Endpoint) { e.Origin = "two.test" }},
		"Timeout":        {func(e *Endpoint) { e.Timeout.Connect++ }, func(e *Endpoint) { e.Timeout.Total++ }},
		"Budget":         {func(e *Endpoint) { e.Budget.Filter++ }, func(e *Endpoint) { e.Budget.Body++ }},
		"Retry": {
			func(e *Endpoint) { e.Retry.Schedule = append(e.Retry.Schedule, time.Hour) },
			func(e *Endpoint) { e.Retry.Jitter = 0 },
			func(e *Endpoint) { e.Retry.On = Outcomes{} },
			func(e *Endpoint) { e.Retry.MaxRetryAfter = 0 },
			func(e *Endpoint) { e.Retry.MaxAge = time.Hour },
			func(e *Endpoint) { e.Retry.Classes = nil },
			func(e *Endpoint) { e.Retry.Classes[0].Name = "network" }, // what it is of goes with its name
			func(e *Endpoint) { e.Retry.Classes[0].Schedule = nil },
			func(e *Endpoint) { e.Retry.Classes[0].Jitter = 1 },
			func(e *Endpoint) { e.Retry.Classes[0].MaxAge = time.Hour },
		},
		"ConnectionMaxAge": {func(e *Endpoint) { e.ConnectionMaxAge++ }},
		"FleetConcurrency": {func(e *Endpoint) { e.FleetConcurrency = 0 }},
		"FreshShare":       {func(e *Endpoint) { e.FreshShare = 0 }},
		"ObeyRateHeaders":  {func(e *Endpoint) { e.ObeyRateHeaders = true }},
		"RateLimit": {
			func(e *Endpoint) { e.RateLimit = nil },
			func(e *Endpoint) { e.RateLimit.N++ },
			func(e *Endpoint) { e.RateLimit.Per++ },
			func(e *Endpoint) { e.RateLimit.Burst++ },
		},
		"Breaker": {
			func(e *Endpoint) { e.Breaker = nil },
			func(e *Endpoint) { e.Breaker.FailureRatio = 1 },
			func(e *Endpoint) { e.Breaker.MinAttempts++ },
			func(e *Endpoint) { e.Breaker.Window++ },
			func(e *Endpoint) { e.Breaker.Open++ },
			func(e *Endpoint) { e.Breaker.MaxOpen++ },
			func(e *Endpoint) { e.Breaker.Jitter = 0 },
			func(e *Endpoint) { e.Breaker.Probes++ },
			func(e *Endpoint) { e.Breaker.On = Outcomes{} },
		},
		"Batch": {
			func(e *Endpoint) { e.Batch = nil },
			func(e *Endpoint) { e.Batch.MaxEvents++ },
			func(e *Endpoint) { e.Batch.MaxWait++ },
			func(e *Endpoint) { e.Batch.MaxBytes++ },
			func(e *Endpoint) { e.Batch.NDJSON = true },
			func(e *Endpoint) { e.Batch.Split = true },
		},
		"Made":    {func(e *Endpoint) { e.Made = true }},
		"Disable": {func(e *Endpoint) { e.Disable.OnGone = false }, func(e *Endpoint) { e.Disable.AfterFailing = 0 }},
		"TLS": {
			func(e *Endpoint) { e.TLS.CA = "b" }, // which Roots goes with
			func(e *Endpoint) { e.TLS.Certificate = nil },
			func(e *Endpoint) { e.TLS.Certificate = &other },
			func(e *Endpoint) { e.TLS.MinVersion = tls.VersionTLS13 },
			func(e *Endpoint) { e.TLS.ServerName = "" },
		},
		"Egress": {
			func(e *Endpoint) { e.Egress.AllowPrivate = nil },
			func(e *Endpoint) { e.Egress.AllowPlaintext = true },
			func(e *Endpoint) { e.Egress.Ports = nil },
		},
	}
	for i := range reflect.TypeFor[Endpoint]().NumField() {
		name := reflect.TypeFor[Endpoint]().Field(i).Name
		if len(changes[name]) == 0 {
			t.Errorf("field %s is not tested: a change of it must not pass a reload by", name)
		}
		for n, change := range changes[name] {
			e := endpoint()
			if change(e); first.Equal(e) || e.Equal(first) {
				t.Errorf("change %d of %s is not seen", n, name)
			}
		}
	}
	if p, q := New([]*Endpoint{first}), New([]*Endpoint{endpoint()}); p.Hash() != q.Hash() || p.Hash() == New(nil).Hash() || len(p.Hash()) != 12 {
		t.Errorf("hashes are %s and %s", p.Hash(), q.Hash())
	}
}
