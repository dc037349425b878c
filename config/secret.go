package config

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is a string that no formatting, encoding or logging shows: all of them
// write [redacted], or nothing for an empty one. The zero value is empty.
//
// The value stands behind a pointer, because fmt calls no methods on unexported
// fields, nor for %p: it then prints an address.
type Secret struct{ value *string }

const redacted = "[redacted]"

// NewSecret hides s.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{&s}
}

// Reveal returns the hidden value.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// Equal compares the values.
func (s Secret) Equal(t Secret) bool { return s.Reveal() == t.Reveal() }

// String implements fmt.Stringer.
func (s Secret) String() string {
	if s.value == nil {
		return ""
	}
	return redacted
}

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// Format implements fmt.Formatter, for every verb.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'q' || f.Flag('#') {
		io.WriteString(f, s.GoString())
		return
	}
	io.WriteString(f, s.String())
}

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON implements json.Marshaler.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(s.GoString()), nil }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
