package sign

import (
	"fmt"
	"slices"
	"strings"
)

// Algorithms, encodings and secret forms that a Spec may name.
const (
	hmacSHA1    = "hmac-sha1"
	hmacSHA256  = "hmac-sha256"
	hmacSHA512  = "hmac-sha512"
	algoEd25519 = "ed25519"

	encodingHex    = "hex"
	encodingBase64 = "base64"

	secretRaw    = "raw"
	secretBase64 = "base64"
	secretHex    = "hex"
	secretWhsec  = "whsec"
)

// Spec is the `signature` block of the file as data. New fills in the defaults
// of empty fields.
type Spec struct {
	Name      string
	Algorithm string       // hmac-sha1, hmac-sha256 (the default), hmac-sha512 or ed25519
	Encoding  string       // of the signature: hex (the default) or base64 (RFC 4648 section 4, padded)
	Secret    string       // how a secret becomes key bytes: raw (the default), base64, hex or whsec
	Signed    Template     // the bytes that are signed; must use body
	Headers   []HeaderSpec // what is sent; at least one must use signature
}

// HeaderSpec is one header that a scheme writes.
type HeaderSpec struct {
	Name  string
	Value Template
}

// SpecError says which field of a Spec cannot be used and why.
type SpecError struct {
	Field  string // "algorithm", "encoding", "secret", "signed" or "headers"
	Reason string
}

func (e *SpecError) Error() string { return e.Field + ": " + e.Reason }

// Scheme is a checked Spec: one way to sign a request. It holds no key and does
// not change, so it can be shared.
type Scheme struct {
	spec Spec // Algorithm is empty when each key's prefix names it
	// timed schemes write the attempt's time into a header.
	timed bool
	// separator joins the signatures of several secrets in one value; when empty,
	// each secret gets its own line of the header.
	separator string
	// versions is what stands before a signature, by algorithm.
	versions map[string]string
}

// New checks the spec and fills in its defaults. It accepts only what a receiver
// can verify: all variables known, header values that can be taken apart again,
// and a time that is signed is also sent. The scheme keeps the slices of s.
// Errors: *SpecError.
func New(s Spec) (*Scheme, error) {
	for _, f := range []struct {
		name     string
		value    *string
		accepted []string // the default first
	}{
		{"algorithm", &s.Algorithm, []string{hmacSHA256, hmacSHA1, hmacSHA512, algoEd25519}},
		{"encoding", &s.Encoding, []string{encodingHex, encodingBase64}},
		{"secret", &s.Secret, []string{secretRaw, secretBase64, secretHex, secretWhsec}},
	} {
		if *f.value == "" {
			*f.value = f.accepted[0]
		}
		if !slices.Contains(f.accepted, *f.value) {
			return nil, &SpecError{f.name, fmt.Sprintf("%q is unknown, use one of %s", *f.value, strings.Join(f.accepted, ", "))}
		}
	}
	if s.Algorithm == algoEd25519 && s.Secret == secretRaw {
		return nil, &SpecError{"secret", "an ed25519 key cannot be raw text, use one of whsec, base64, hex"}
	}
	if err := s.Signed.check(append(variables(), "body")); err != nil {
		return nil, &SpecError{"signed", err.Error()}
	}
	if !s.Signed.uses("body") {
		return nil, &SpecError{"signed", "${body} is not in it, so nothing would protect the body"}
	}
	if err := checkHeaders(s.Headers); err != nil {
		return nil, &SpecError{"headers", err.Error()}
	}
	sent := func(v string) bool {
		return slices.ContainsFunc(s.Headers, func(h HeaderSpec) bool { return h.Value.uses(v) })
	}
	if !sent("signature") {
		return nil, &SpecError{"headers", "no header has ${signature}"}
	}
	// Seconds can be told from milliseconds, but not the other way round.
	millis := sent("timestamp_ms")
	timed := millis || sent("timestamp") || sent("timestamp_rfc3339")
	switch {
	case s.Signed.uses("timestamp_ms") && !millis:
		return nil, &SpecError{"headers", "no header has ${timestamp_ms}, which is signed: receivers could not verify"}
	case (s.Signed.uses("timestamp") || s.Signed.uses("timestamp_rfc3339")) && !timed:
		return nil, &SpecError{"headers", "no header has ${timestamp}, which is signed: receivers could not verify"}
	}
	return &Scheme{spec: s, timed: timed}, nil
}

// Name of the scheme, as in its Spec.
func (s *Scheme) Name() string { return s.spec.Name }

// Standard is the scheme of Standard Webhooks 1.0.0: headers webhook-id,
// webhook-timestamp and webhook-signature. Each key's prefix says how it signs:
// whsec_ as v1 (HMAC-SHA256), whsk_ as v1a (Ed25519); the signatures of several
// keys stand in one value, with a space between.
func Standard() *Scheme {
	variable := func(name string) Template { return Template{{Variable: name}} }
	return &Scheme{
		spec: Spec{
			Name:     "standard",
			Encoding: encodingBase64,
			Secret:   secretWhsec,
			Signed:   Template{{Variable: "id"}, {Literal: "."}, {Variable: "timestamp"}, {Literal: "."}, {Variable: "body"}},
			Headers: []HeaderSpec{
				{"webhook-id", variable("id")},
				{"webhook-timestamp", variable("timestamp")},
				{"webhook-signature", variable("signature")},
			},
		},
		timed:     true,
		separator: " ",
		versions:  map[string]string{hmacSHA256: "v1,", algoEd25519: "v1a,"},
	}
}

// Builtin returns the scheme that a file may name without a `signature` block.
func Builtin(name string) (*Scheme, bool) {
	switch name {
	case "standard":
		return Standard(), true
	}
	return nil, false
}

// BuiltinNames are the names that Builtin knows.
func BuiltinNames() []string { return []string{"standard"} }

// checkHeaders refuses what could not be sent (RFC 9110 section 5) or, at the
// other end, not be taken apart into its variables.
func checkHeaders(headers []HeaderSpec) error {
	known := append(variables(), "signature")
	seen := make(map[string]bool)
	for _, h := range headers {
		if h.Name == "" || strings.ContainsFunc(h.Name, notToken) {
			return fmt.Errorf("%q is not a header name", h.Name)
		}
		if seen[strings.ToLower(h.Name)] {
			return fmt.Errorf("%q is there twice", h.Name)
		}
		seen[strings.ToLower(h.Name)] = true
		if err := h.Value.check(known); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
		for i, p := range h.Value {
			if strings.ContainsFunc(p.Literal, isControl) {
				return fmt.Errorf("%q: control characters cannot be sent in a header", h.Name)
			}
			if i > 0 && p.Variable != "" && h.Value[i-1].Variable != "" {
				return fmt.Errorf("%q: put text between ${%s} and ${%s}, or receivers cannot tell them apart",
					h.Name, h.Value[i-1].Variable, p.Variable)
			}
		}
	}
	return nil
}

// notToken tells what may not stand in a header name (RFC 9110 section 5.6.2).
func notToken(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// isControl tells what may not stand in a header value (RFC 9110 section 5.5).
func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
