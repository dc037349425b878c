package config

import (
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"1500ms": 1500 * time.Millisecond, "5s": 5 * time.Second, "30m": 30 * time.Minute, "72h": 72 * time.Hour,
		"30d": 720 * time.Hour, "1h30m": 90 * time.Minute, "1d12h": 36 * time.Hour, "1.5s": 1500 * time.Millisecond,
		"0s": 0, "0d": 0, "106751d": 106751 * Day,
	} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "5", "0", "d", "s", "-5s", "+5s", "-1d", "1d-5s", "1h2d", "5 s", "1.5d", "5us", "5ns", "5µs", "1e9h", "NaN", "inf",
		"1000000000h", "106752d", "106751d24h", "99999999999d", "5S", "5w", "1d2d", "dd", "٣s",
	} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", in, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "1048576": MiB, "12B": 12, "256KiB": 256 * KiB, "4GiB": 4 * GiB, "64MB": 64e6, "1TiB": TiB, "2KB": 2000,
		"9223372036854775807": 1<<63 - 1, "3GB": 3e9, "1TB": 1e12, "7MiB": 7 * MiB,
	} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "KiB", "-1", "+1", "1.5GiB", "1 KiB", "1kib", "1iB", "1KK", "1KiBB", "9223372036854775808", "9007199254740992KiB", "1e3", "NaN", "٣"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("ParseSize(%q) = %v, want an error", in, got)
		}
	}
}

func TestFormatUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Millisecond: "1ms", time.Minute: "1m", time.Hour: "1h", 90 * time.Minute: "1h30m", 30 * Day: "30d", 36 * time.Hour: "36h", 65 * time.Second: "1m5s",
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("FormatDuration(%d) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 1000: "1000", KiB: "1KiB", 64 * MiB: "64MiB", 3 * TiB: "3TiB", KiB + 1: "1025"} {
		if got := FormatSize(n); got != want {
			t.Errorf("FormatSize(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestSuggest(t *testing.T) {
	names := []string{"endpoint", "policy", "log"}
	for given, want := range map[string]string{"endpont": ` Did you mean "endpoint"?`, "polcy": ` Did you mean "policy"?`, "something": "", "": ""} {
		if got := Suggest(given, names); got != want {
			t.Errorf("Suggest(%q) = %q, want %q", given, got, want)
		}
	}
}
