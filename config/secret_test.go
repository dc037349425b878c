package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// Checklist S15: no way of printing shows a secret.
func TestSecretIsNeverPrinted(t *testing.T) {
	const canary = "canary-7f3a"
	s := NewSecret(canary)
	type hidden struct{ s Secret }
	type shown struct{ S Secret }
	c := Config{Admin: Admin{Token: s}, Ingest: Ingest{HTTP: []HTTP{{Token: s}}}}

	var printed []string
	for _, verb := range "vsqxXdtTbcoOUeEfFgGp" {
		for _, flags := range []string{"", "+", "#", " ", "010"} {
			for _, value := range []any{s, &s, hidden{s}, &hidden{s}, shown{s}, []Secret{s}, map[string]Secret{"a": s}, c, &c} {
				printed = append(printed, fmt.Sprintf("%"+flags+string(verb), value))
			}
		}
	}
	text, err := json.Marshal(map[string]any{"a": s, "b": shown{s}, "c": c})
	if err != nil {
		t.Fatal(err)
	}
	printed = append(printed, string(text))
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "a", s, "b", shown{s})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "a", s, "b", shown{s})
	printed = append(printed, log.String())

	for _, p := range printed {
		if strings.Contains(p, canary) || strings.Contains(p, fmt.Sprintf("%x", canary)) || strings.Contains(p, fmt.Sprintf("%X", canary)) {
			t.Errorf("secret in %s", p)
		}
	}
}

func TestSecret(t *testing.T) {
	s := NewSecret("x")
	for _, tt := range []struct{ got, want string }{
		{s.Reveal(), "x"},
		{s.String(), "[redacted]"},
		{fmt.Sprintf("%v %s %q %#v", s, s, s, s), `[redacted] [redacted] "[redacted]" "[redacted]"`},
		{Secret{}.Reveal(), ""},
		{fmt.Sprintf("%v|%q", Secret{}, Secret{}), `|""`},
		{NewSecret("").String(), ""},
		{s.LogValue().String(), "[redacted]"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
	if !s.Equal(NewSecret("x")) || s.Equal(NewSecret("y")) || s.Equal(Secret{}) || !(Secret{}).Equal(NewSecret("")) {
		t.Error("Equal does not compare values")
	}
}
