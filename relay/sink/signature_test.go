package sink

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"relay/policy/sign"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// acme is the scheme that the file's reference shows.
func acme(t *testing.T) *sign.Scheme {
	t.Helper()
	s, err := sign.New(sign.Spec{
		Name:   "acme",
		Signed: sign.Template{{Variable: "timestamp"}, {Literal: "."}, {Variable: "endpoint"}, {Literal: "."}, {Variable: "url"}, {Literal: "."}, {Variable: "body"}},
		Headers: []sign.HeaderSpec{
			{Name: "X-Acme-Signature", Value: sign.Template{{Literal: "sha256="}, {Variable: "signature"}}},
			{Name: "X-Acme-Timestamp", Value: sign.Template{{Variable: "timestamp"}}},
			{Name: "X-Acme-Event", Value: sign.Template{{Variable: "type"}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func verifier(t *testing.T, s *sign.Scheme, secrets ...string) *sign.Verifier {
	t.Helper()
	v, err := sign.NewVerifier(s, secrets)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSignatures(t *testing.T) {
	standard, acme := sign.Standard(), acme(t)
	const body = `{"id":"evt_1","type":"invoice.paid","data":{}}`
	old := sign.Message{Time: time.Now().Add(-6 * time.Minute)}
	for _, tt := range []struct {
		name      string
		signed    []*sign.Scheme
		message   sign.Message // over the right one
		verifiers []*sign.Verifier
		tolerance time.Duration
		want      string // of the error, "" for a good signature
	}{
		{name: "standard", signed: []*sign.Scheme{standard}, verifiers: []*sign.Verifier{verifier(t, standard, secret)}},
		{name: "custom", signed: []*sign.Scheme{acme}, verifiers: []*sign.Verifier{verifier(t, acme, secret)}},
		{
			name: "both", signed: []*sign.Scheme{standard, acme},
			verifiers: []*sign.Verifier{verifier(t, standard, secret), verifier(t, acme, secret)},
		},
		{
			name: "one of both", signed: []*sign.Scheme{standard},
			verifiers: []*sign.Verifier{verifier(t, standard, secret), verifier(t, acme, secret)},
			want:      "header X-Acme-Signature is missing",
		},
		{
			name: "old secret too", signed: []*sign.Scheme{standard},
			verifiers: []*sign.Verifier{verifier(t, standard, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", secret)},
		},
		{
			name: "other secret", signed: []*sign.Scheme{standard},
			verifiers: []*sign.Verifier{verifier(t, standard, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")},
			want:      "no signature matches",
		},
		{
			name: "other body", signed: []*sign.Scheme{acme}, message: sign.Message{Body: []byte("{}")},
			verifiers: []*sign.Verifier{verifier(t, acme, secret)}, want: "no signature matches",
		},
		{
			name: "other URL", signed: []*sign.Scheme{acme}, message: sign.Message{URL: "http://127.0.0.1/"},
			verifiers: []*sign.Verifier{verifier(t, acme, secret)}, want: "no signature matches",
		},
		{
			name: "too old", signed: []*sign.Scheme{standard}, message: old,
			verifiers: []*sign.Verifier{verifier(t, standard, secret)},
			want:      "timestamp is 6m",
		},
		{
			name: "old but tolerated", signed: []*sign.Scheme{standard}, message: old, tolerance: 10 * time.Minute,
			verifiers: []*sign.Verifier{verifier(t, standard, secret)},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, Options{
				Script: script(t, "202,204"), Verifiers: tt.verifiers, Tolerance: tt.tolerance, Endpoint: "billing",
			})
			m := tt.message
			m.EventID, m.EventType, m.Endpoint, m.Method, m.Attempt = "evt_1", "invoice.paid", "billing", http.MethodPost, 1
			if m.URL == "" {
				m.URL = r.url + "/hooks?a=%20b"
			}
			if m.Body == nil {
				m.Body = []byte(body)
			}
			if m.Time.IsZero() {
				m.Time = time.Now()
			}
			var headers []sign.Header
			for _, s := range tt.signed {
				signer, err := sign.NewSigner(s, []string{secret})
				if err != nil {
					t.Fatal(err)
				}
				headers = signer.Sign(headers, &m)
			}
			resp, text, err := r.send("/hooks?a=%20b", body, headers...)
			if err != nil {
				t.Fatal(err)
			}
			got, totals := <-r.came, r.Totals()
			if tt.want == "" {
				if resp.StatusCode != 202 || got.Signature != Good || got.Err != nil || totals.Verified != 1 || totals.Bad != 0 {
					t.Errorf("answered %d %q, observed %s, %v, totals %+v", resp.StatusCode, text, got.Signature, got.Err, totals)
				}
				return
			}
			if resp.StatusCode != 401 || got.Signature != Bad || totals.Verified != 0 || totals.Bad != 1 || totals.Events != 0 {
				t.Errorf("answered %d, observed %s, totals %+v", resp.StatusCode, got.Signature, totals)
			}
			if got.Err == nil || !strings.HasPrefix(got.Err.Error(), tt.want) || !strings.Contains(text, tt.want) {
				t.Errorf("observed %v, answered %q, want %q", got.Err, text, tt.want)
			}
			if a := r.o.Script.answer(r.runs[""]); a.Status != 202 {
				t.Error("the bad request took a step of the script")
			}
		})
	}
}

// Each built-in scheme, signed as the sender does and checked as it arrives.
func TestBuiltinSignatures(t *testing.T) {
	for _, name := range sign.BuiltinNames() {
		t.Run(name, func(t *testing.T) {
			scheme, ok := sign.Builtin(name)
			if !ok {
				t.Fatal("no such scheme")
			}
			signer, err := sign.NewSigner(scheme, []string{secret, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"})
			if err != nil {
				t.Fatal(err)
			}
			r := start(t, Options{Verifiers: []*sign.Verifier{verifier(t, scheme, secret)}})
			const body = `{"id":"evt_1","type":"invoice.paid","data":{}}`
			for _, sent := range []string{body, strings.Replace(body, "paid", "void", 1)} {
				headers := signer.Sign(nil, &sign.Message{
					EventID: "evt_1", EventType: "invoice.paid", Method: http.MethodPost, URL: r.url + "/hooks?a=%20b",
					ContentType: "application/json", Attempt: 1, Time: time.Now(), Body: []byte(body),
				})
				headers = append(headers, sign.Header{Name: "Content-Type", Value: "application/json"})
				if name != "standard" { // as Relay does
					headers = append(headers, sign.Header{Name: "webhook-id", Value: "evt_1"})
				}
				if _, _, err := r.send("/hooks?a=%20b", sent, headers...); err != nil {
					t.Fatal(err)
				}
				got := <-r.came
				if want := map[bool]Signature{true: Good, false: Bad}[sent == body]; got.Signature != want {
					t.Errorf("body %s: %s, %v", sent, got.Signature, got.Err)
				}
			}
		})
	}
}
