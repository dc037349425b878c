package deliver

import (
	"math"
	"testing"
	"time"

	"relay/policy"
)

func TestBackoff(t *testing.T) {
	r := &policy.Steps{Schedule: []time.Duration{10 * time.Second, time.Hour}, Jitter: 0.1}
	for _, c := range []struct {
		name   string
		n      int
		asked  time.Duration
		random float64
		want   time.Duration
		ok     bool
	}{
		{"middle", 1, 0, 0.5, 10 * time.Second, true},
		{"least", 1, 0, 0, 9 * time.Second, true},
		{"most", 1, 0, 1, 11 * time.Second, true},
		{"second step", 2, 0, 0.5, time.Hour, true},
		{"after the last step", 3, 0, 0.5, 0, false},
		{"after the last step, asked for more", 3, time.Hour, 0.5, 0, false},
		{"asked for less", 1, time.Second, 0.5, 10 * time.Second, true},
		{"asked for more", 1, time.Minute, 0.5, time.Minute, true},
		{"far beyond", 1 << 40, 0, 0.5, 0, false},
	} {
		if got, ok := backoff(r, c.n, c.asked, c.random); got != c.want || ok != c.ok {
			t.Errorf("%s: backoff = %s, %t, want %s, %t", c.name, got, ok, c.want, c.ok)
		}
	}
}

func TestBackoffStaysWithinJitter(t *testing.T) {
	for _, jitter := range []float64{0, 0.1, 0.5, 1} {
		r := &policy.Steps{Schedule: []time.Duration{time.Hour}, Jitter: jitter}
		low, high := time.Duration(float64(time.Hour)*(1-jitter)), time.Duration(float64(time.Hour)*(1+jitter))
		for i := range 1000 {
			got, _ := backoff(r, 1, 0, float64(i)/1000)
			if got < low || got > high {
				t.Fatalf("jitter %v: backoff = %s, want %s to %s", jitter, got, low, high)
			}
		}
	}
}

var retryAfterNow = time.Date(2026, 10, 21, 7, 28, 0, 0, time.UTC)

func TestParseRetryAfter(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"":                                  0,
		"0":                                 0,
		"120":                               2 * time.Minute,
		" 120 ":                             2 * time.Minute,
		"-5":                                0,
		"+5":                                0,
		"1.5":                               0,
		"0x10":                              0,
		"soon":                              0,
		"120 seconds":                       0,
		"1000000000000":                     math.MaxInt64,
		"9223372036":                        9223372036 * time.Second,
		"9223372037":                        math.MaxInt64,
		"99999999999999999999999":           math.MaxInt64,
		"Wed, 21 Oct 2026 07:30:00 GMT":     2 * time.Minute,
		"Wednesday, 21-Oct-26 07:30:00 GMT": 2 * time.Minute,
		"Wed Oct 21 07:30:00 2026":          2 * time.Minute,
		"Wed, 21 Oct 2026 07:00:00 GMT":     0,
		"Wed, 21 Oct 1926 07:00:00 GMT":     0,
		"Wed, 21 Oct 9026 07:00:00 GMT":     math.MaxInt64,
		"Wed, 32 Oct 2026 07:00:00 GMT":     0,
		"2026-10-21T07:30:00Z":              0,
	} {
		if got := parseRetryAfter(in, retryAfterNow); got != want {
			t.Errorf("parseRetryAfter(%q) = %s, want %s", in, got, want)
		}
	}
}

func FuzzParseRetryAfter(f *testing.F) {
	for _, s := range []string{"0", "120", "-1", "1e9", "Wed, 21 Oct 2026 07:30:00 GMT", "\x00", "999999999999999999999"} {
		f.Add(s)
	}
	r := &policy.Steps{Schedule: []time.Duration{time.Minute}}
	f.Fuzz(func(t *testing.T, s string) {
		asked := parseRetryAfter(s, retryAfterNow)
		if asked < 0 {
			t.Errorf("parseRetryAfter(%q) = %s", s, asked)
		}
		if d, ok := backoff(r, 1, min(asked, time.Hour), 0.5); !ok || d < time.Minute || d > time.Hour {
			t.Errorf("backoff after %q = %s, %t, want 1m to 1h", s, d, ok)
		}
	})
}
