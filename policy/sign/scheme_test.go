package sign

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestNewRefuses(t *testing.T) {
	signed, signature := template("${body}"), template("${signature}")
	one := func(name, value string) []HeaderSpec { return []HeaderSpec{{name, template(value)}} }
	tests := []struct {
		name   string
		spec   Spec
		field  string
		reason string // part of it
	}{
		{"algorithm", Spec{Algorithm: "md5"}, "algorithm", `"md5" is unknown, use one of hmac-sha256, hmac-sha1, hmac-sha512, ed25519`},
		{"encoding", Spec{Encoding: "base32"}, "encoding", `"base32" is unknown, use one of hex, base64`},
		{"secret", Spec{Secret: "pem"}, "secret", `"pem" is unknown, use one of raw, base64, hex, whsec`},
		{"raw ed25519", Spec{Algorithm: "ed25519"}, "secret", "use one of whsec, base64, hex"},
		{"nothing signed", Spec{}, "signed", "is empty"},
		{"body not signed", Spec{Signed: template("${timestamp}")}, "signed", "neither ${body} nor a digest of it is in it"},
		{"signed variable", Spec{Signed: template("${timestmp}${body}")}, "signed", `variable "timestmp" is not known here, use one of id, type`},
		{"signature signed", Spec{Signed: template("${signature}${body}")}, "signed", `variable "signature" is not known here`},
		{"empty part", Spec{Signed: Template{{}, {Variable: "body"}}}, "signed", "either text or a variable"},
		{"full part", Spec{Signed: Template{{Literal: "a", Variable: "body"}}}, "signed", "either text or a variable"},
		{"no headers", Spec{Signed: signed}, "headers", "no header has ${signature}"},
		{"no signature", Spec{Signed: signed, Headers: one("X-Id", "${id}")}, "headers", "no header has ${signature}"},
		{"no name", Spec{Signed: signed, Headers: one("", "${signature}")}, "headers", `"" is not a header name`},
		{"bad name", Spec{Signed: signed, Headers: one("X Sig", "${signature}")}, "headers", `"X Sig" is not a header name`},
		{"not ASCII", Spec{Signed: signed, Headers: one("X-Sîg", "${signature}")}, "headers", "is not a header name"},
		{"no value", Spec{Signed: signed, Headers: []HeaderSpec{{Name: "X-Sig"}}}, "headers", `"X-Sig": is empty`},
		{"twice", Spec{Signed: signed, Headers: []HeaderSpec{{"X-Sig", signature}, {"x-sig", signature}}}, "headers", `"x-sig" is there twice`},
		{"line break", Spec{Signed: signed, Headers: one("X-Sig", "a\r\nb: ${signature}")}, "headers", "control characters"},
		{"delete", Spec{Signed: signed, Headers: one("X-Sig", "\x7f${signature}")}, "headers", "control characters"},
		{"body in header", Spec{Signed: signed, Headers: one("X-Sig", "${signature}.${body}")}, "headers", `"X-Sig": variable "body" is not known here`},
		{"cannot be told apart", Spec{Signed: signed, Headers: one("X-Sig", "${id}${signature}")}, "headers", "put text between ${id} and ${signature}"},
		{"time not sent", Spec{Signed: template("${timestamp}.${body}"), Headers: one("X-Sig", "${signature}")}, "headers", "no header has ${timestamp}"},
		{"RFC 3339 not sent", Spec{Signed: template("${timestamp_rfc3339}.${body}"), Headers: one("X-Sig", "${signature}")}, "headers", "no header has ${timestamp}"},
		{"key not sent", Spec{Signed: template("${key_id}.${body}"), Headers: one("X-Sig", "${signature}")}, "headers", "no header has ${key_id}"},
		{"rotation", Spec{Rotation: "oldest"}, "rotation", `"oldest" is unknown, use one of all, newest`},
		{"separator of letters", Spec{Separator: "v1=", Signed: signed, Headers: one("X-Sig", "${signature}")}, "separator", "a character in it that no signature has"},
		{"separator of one", Spec{Separator: ",", Rotation: "newest", Signed: signed, Headers: one("X-Sig", "${signature}")}, "separator", "only one signature"},
		{"separator of lines", Spec{Separator: "\n", Signed: signed, Headers: one("X-Sig", "${signature}")}, "separator", "control characters"},
		{"separator and key", Spec{Separator: ",", Signed: signed, Headers: one("X-Sig", "${key_id}=${signature}")}, "separator", "${key_id} is of one key"},
		{"versions of one", Spec{Secret: "whsec", Versions: map[string]string{"ed25519": "v1a,"}, Signed: signed, Headers: one("X-Sig", "${signature}")}, "versions", "hmac-sha256 is missing"},
		{"versions of raw", Spec{Versions: map[string]string{"ed25519": "v1a,"}, Signed: signed, Headers: one("X-Sig", "${signature}")}, "versions", "they are for"},
		{"too coarse", Spec{Signed: template("${timestamp_ms}.${body}"), Headers: one("X-Sig", "${timestamp},${signature}")}, "headers", "no header has ${timestamp_ms}"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(tt.spec)
			e, ok := errors.AsType[*SpecError](err)
			if !ok {
				t.Fatalf("got %v, want a *SpecError", err)
			}
			if e.Field != tt.field || !strings.Contains(e.Reason, tt.reason) {
				t.Errorf("got %q %q, want %q %q", e.Field, e.Reason, tt.field, tt.reason)
			}
			if want := e.Field + ": " + e.Reason; e.Error() != want {
				t.Errorf("got %q, want %q", e.Error(), want)
			}
		})
	}
}

func TestNewAccepts(t *testing.T) {
	for name, spec := range map[string]Spec{
		"defaults":              acmeSpec(),
		"seconds out of millis": {Signed: template("${timestamp}${body}"), Headers: []HeaderSpec{{"X-Sig", template("${timestamp_ms},${signature}")}}},
		"seconds out of RFC 3339": {Signed: template("${timestamp}${body}"), Headers: []HeaderSpec{
			{"X-Sig", template("${signature}")}, {"X-Time", template("${timestamp_rfc3339}")}}},
		"id in the body": {Signed: template("${id}${body}"), Headers: []HeaderSpec{{"X-Sig", template("${signature}")}}},
		"digest":         {Signed: template("${body_sha512_base64}"), Headers: []HeaderSpec{{"X-Sig", template("${signature}")}}},
		"tab":            {Signed: template("${body}"), Headers: []HeaderSpec{{"X-Sig", template("a\t${signature}")}}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(spec); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNewFillsInDefaults(t *testing.T) {
	got := mustNew(t, acmeSpec()).spec
	want := acmeSpec()
	want.Algorithm, want.Encoding, want.Secret, want.Rotation = "hmac-sha256", "hex", "raw", "all"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
}

func TestBuiltin(t *testing.T) {
	if diff := cmp.Diff([]string{"standard", "github", "github-sha1", "stripe", "slack", "shopify", "svix", "rfc9421"}, BuiltinNames()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	for _, name := range BuiltinNames() {
		s, ok := Builtin(name)
		if !ok || s.Name() != name {
			t.Errorf("Builtin(%q) = %v, %v", name, s, ok)
		}
	}
	if s, ok := Builtin("none"); ok {
		t.Errorf("Builtin(none) = %v", s)
	}
}

func TestTemplate(t *testing.T) {
	for text, want := range map[string]Template{
		"":                {},
		"a":               {{Literal: "a"}},
		"${id}":           {{Variable: "id"}},
		"a=${id}${type}b": {{Literal: "a="}, {Variable: "id"}, {Variable: "type"}, {Literal: "b"}},
	} {
		if diff := cmp.Diff(want, template(text), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

func TestTemplateString(t *testing.T) {
	const text = "t=${timestamp},v1=${signature};"
	if got := template(text).String(); got != text {
		t.Errorf("got %q, want %q", got, text)
	}
}
