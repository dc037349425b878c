package gate

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// RateHeaders are the rate limit headers of an answer, all of one family: the RateLimit field of
// draft-ietf-httpapi-ratelimit-headers, or the older pair RateLimit-Remaining and -Reset, also
// with X- before it.
type RateHeaders struct {
	RateLimit        string
	Remaining, Reset string
}

// Parse reads the headers at the time now. It ignores what it cannot read. If the field has
// several policies, the tightest one counts.
func (h *RateHeaders) Parse(now time.Time) Rate {
	if r := parseField(h.RateLimit, now); r.Reset > 0 {
		return r
	}
	left, ok := parseLeft(h.Remaining)
	if reset := parseReset(h.Reset, now); ok && reset > 0 {
		return Rate{Left: left, Reset: reset}
	}
	return Rate{}
}

// parseField reads `"policy";r=50;t=30` and, from earlier drafts, `limit=100, remaining=50,
// reset=30`.
func parseField(s string, now time.Time) (tightest Rate) {
	if s == "" {
		return Rate{}
	}
	var old RateHeaders
	for item := range strings.SplitSeq(s, ",") {
		var left, reset string
		for part := range strings.SplitSeq(item, ";") {
			name, value, _ := strings.Cut(part, "=")
			switch value = strings.TrimSpace(value); strings.ToLower(strings.TrimSpace(name)) {
			case "r":
				left = value
			case "t":
				reset = value
			case "remaining":
				old.Remaining = value
			case "reset":
				old.Reset = value
			}
		}
		n, ok := parseLeft(left)
		r := Rate{Left: n, Reset: parseReset(reset, now)}
		if ok && r.Reset > 0 && (tightest.Reset == 0 || r.perSecond() < tightest.perSecond()) {
			tightest = r
		}
	}
	if tightest.Reset == 0 && old.Remaining != "" {
		return old.Parse(now)
	}
	return tightest
}

func (r Rate) perSecond() float64 { return float64(r.Left) / r.Reset.Seconds() }

func parseLeft(s string) (int, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil || n < 0 {
		return 0, false
	}
	return int(min(n, unbounded)), true
}

// parseReset reads seconds from now, a Unix time as in untilNumber, or a date.
func parseReset(s string, now time.Time) time.Duration {
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseFloat(s, 64); err == nil && !math.IsInf(n, 0) {
		return untilNumber(n, now)
	}
	return untilDate(s, now)
}
