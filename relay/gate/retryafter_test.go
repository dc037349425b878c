package gate

import (
	"math"
	"testing"
	"time"
)

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
		"999999999":                         999999999 * time.Second,
		"1792567800":                        2 * time.Minute, // a Unix time: 2026-10-21T07:30:00Z
		"1792567800000":                     2 * time.Minute,
		"1792567800000000":                  2 * time.Minute,
		"1792567800000001":                  2*time.Minute + time.Microsecond,
		"1792567800000000000":               2 * time.Minute,
		"1792567000":                        0,
		"1792567000000":                     0,
		"1000000000":                        0, // 2001
		"1000000000000":                     0,
		"9223372036":                        longestWait,
		"9223372037":                        longestWait,
		"99999999999999999999999":           longestWait, // no unit makes a time of it
		"Wed, 21 Oct 2026 07:30:00 GMT":     2 * time.Minute,
		"Wednesday, 21-Oct-26 07:30:00 GMT": 2 * time.Minute,
		"Wed Oct 21 07:30:00 2026":          2 * time.Minute,
		"Wed, 21 Oct 2026 07:00:00 GMT":     0,
		"Wed, 21 Oct 1926 07:00:00 GMT":     0,
		"Wed, 21 Oct 9026 07:00:00 GMT":     math.MaxInt64,
		"Wed, 32 Oct 2026 07:00:00 GMT":     0,
		"2026-10-21T07:30:00Z":              0,
	} {
		if got := ParseRetryAfter(in, retryAfterNow); (got - want).Abs() > time.Microsecond/2 {
			t.Errorf("ParseRetryAfter(%q) = %s, want %s", in, got, want)
		}
	}
}

func FuzzParseRetryAfter(f *testing.F) {
	for _, s := range []string{"0", "120", "-1", "1e9", "Wed, 21 Oct 2026 07:30:00 GMT", "\x00", "999999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if asked := ParseRetryAfter(s, retryAfterNow); asked < 0 {
			t.Errorf("ParseRetryAfter(%q) = %s", s, asked)
		}
	})
}
