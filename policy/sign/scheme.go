package sign

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Algorithms, encodings, secret forms and rotations that a Spec may name.
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

	rotationAll    = "all"
	rotationNewest = "newest"
)

// Spec is the `signature` block of the file as data. New fills in the defaults
// of empty fields.
type Spec struct {
	Name      string
	Algorithm string            // hmac-sha1, hmac-sha256 (the default), hmac-sha512 or ed25519; whsec keys choose by themselves when it is empty
	Encoding  string            // of the signature: hex (the default) or base64 (RFC 4648 section 4, padded)
	Secret    string            // how a secret becomes key bytes: raw (the default), base64, hex or whsec
	Rotation  string            // which secrets sign: all (the default) or newest
	Separator string            // joins the signatures of several secrets in one value; when empty, each secret gets its own line
	Versions  map[string]string // prefix of each signature, by algorithm, if keys choose that
	Signed    Template          // the bytes that are signed; must use body or a digest of it
	Headers   []HeaderSpec      // sent headers; at least one must use signature
}

// HeaderSpec is one header that a scheme writes.
type HeaderSpec struct {
	Name  string
	Value Template
}

// SpecError says which field of a Spec cannot be used and why.
type SpecError struct {
	Field  string // as in the file: "algorithm", "headers", …
	Reason string
}

func (e *SpecError) Error() string { return e.Field + ": " + e.Reason }

// Scheme is a checked Spec: one way to sign a request. It holds no key and does
// not change, so it can be shared.
type Scheme struct {
	spec Spec // Algorithm is empty when each key's prefix names it
	// timed schemes write the attempt's time into a header.
	timed bool
}

// New checks the spec and fills in its defaults. It accepts only schemes that a receiver can
// verify: all variables are known, header values can be parsed again, and a time or key id that
// is signed is also sent. The scheme keeps the slices of s. Errors: *SpecError.
func New(s Spec) (*Scheme, error) {
	byKey := s.Algorithm == "" && s.Secret == secretWhsec
	for _, f := range []struct {
		name     string
		value    *string
		accepted []string // the default first
	}{
		{"algorithm", &s.Algorithm, []string{hmacSHA256, hmacSHA1, hmacSHA512, algoEd25519}},
		{"encoding", &s.Encoding, []string{encodingHex, encodingBase64}},
		{"secret", &s.Secret, []string{secretRaw, secretBase64, secretHex, secretWhsec}},
		{"rotation", &s.Rotation, []string{rotationAll, rotationNewest}},
	} {
		if *f.value == "" {
			*f.value = f.accepted[0]
		}
		if !slices.Contains(f.accepted, *f.value) {
			return nil, &SpecError{f.name, fmt.Sprintf("%q is unknown, use one of %s", *f.value, strings.Join(f.accepted, ", "))}
		}
	}
	if byKey {
		s.Algorithm = ""
	}
	if s.Algorithm == algoEd25519 && s.Secret == secretRaw {
		return nil, &SpecError{"secret", "an ed25519 key cannot be raw text, use one of whsec, base64, hex"}
	}
	if err := s.Signed.check(append(variables(), "body")); err != nil {
		return nil, &SpecError{"signed", err.Error()}
	}
	if !s.Signed.uses("body", "body_sha256", "body_sha256_base64", "body_sha512", "body_sha512_base64") {
		return nil, &SpecError{"signed", "neither ${body} nor a digest of it is in it, so nothing would protect the body"}
	}
	if err := checkHeaders(s.Headers); err != nil {
		return nil, &SpecError{"headers", err.Error()}
	}
	if err := s.checkSent(); err != nil {
		return nil, &SpecError{"headers", err.Error()}
	}
	if err := s.checkVersions(); err != nil {
		return nil, &SpecError{"versions", err.Error()}
	}
	if err := s.checkSeparator(); err != nil {
		return nil, &SpecError{"separator", err.Error()}
	}
	return &Scheme{spec: s, timed: s.sends("timestamp", "timestamp_ms", "timestamp_rfc3339")}, nil
}

// sends tells whether a header has one of the variables.
func (s *Spec) sends(variables ...string) bool {
	return slices.ContainsFunc(s.Headers, func(h HeaderSpec) bool { return h.Value.uses(variables...) })
}

// checkSent checks that values which only the sender knows are sent.
func (s *Spec) checkSent() error {
	if !s.sends("signature") {
		return errors.New("no header has ${signature}")
	}
	var missing string
	switch {
	// Seconds can be derived from milliseconds, but not the other way round.
	case s.Signed.uses("timestamp_ms") && !s.sends("timestamp_ms"):
		missing = "timestamp_ms"
	case s.Signed.uses("timestamp", "timestamp_rfc3339") && !s.sends("timestamp", "timestamp_ms", "timestamp_rfc3339"):
		missing = "timestamp"
	}
	for _, v := range keyVariables() {
		if s.Signed.uses(v) && !s.sends(v) {
			missing = v
		}
	}
	if missing != "" {
		return fmt.Errorf("no header has ${%s}, which is signed: receivers could not verify", missing)
	}
	return nil
}

func (s *Spec) checkVersions() error {
	if len(s.Versions) == 0 {
		return nil
	}
	if s.Algorithm != "" {
		return errors.New(`they are for secret = "whsec" without an algorithm, where each key's prefix chooses; else write the text before ${signature}`)
	}
	for name := range s.Versions {
		if name != hmacSHA256 && name != algoEd25519 {
			return fmt.Errorf("%q is unknown, name %s and %s", name, hmacSHA256, algoEd25519)
		}
	}
	for _, name := range []string{hmacSHA256, algoEd25519} {
		text, ok := s.Versions[name]
		switch {
		case !ok:
			return fmt.Errorf("%s is missing, name both %s and %s", name, hmacSHA256, algoEd25519)
		case strings.ContainsFunc(text, isControl):
			return errors.New("control characters cannot be sent in a header")
		case s.Separator != "" && strings.Contains(text, s.Separator):
			return fmt.Errorf("the separator is in %q: receivers could not tell the signatures apart", text)
		}
	}
	return nil
}

func (s *Spec) checkSeparator() error {
	switch {
	case s.Separator == "":
		return nil
	case s.Rotation == rotationNewest:
		return errors.New(`with rotation = "newest" there is only one signature, leave one of the two out`)
	case strings.ContainsFunc(s.Separator, isControl):
		return errors.New("control characters cannot be sent in a header")
	case !strings.ContainsFunc(s.Separator, notEncoded):
		return errors.New("put a character in it that no signature has, such as a space or a comma")
	}
	for _, v := range keyVariables() {
		if s.sends(v) {
			return fmt.Errorf("it joins the signatures of all secrets in one value, but ${%s} is of one key: leave one of the two out", v)
		}
	}
	return nil
}

// Name of the scheme, as in its Spec.
func (s *Scheme) Name() string { return s.spec.Name }

// checkHeaders refuses headers that cannot be sent (RFC 9110 section 5) or cannot be parsed into
// their variables by the receiver.
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

// notToken reports characters that a header name must not have (RFC 9110 section 5.6.2).
func notToken(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// isControl reports characters that a header value must not have (RFC 9110 section 5.5).
func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// notEncoded reports characters that occur neither in hex nor in base64.
func notEncoded(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '+' && r != '/' && r != '='
}
