package gate

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// ParseRetryAfter reads the Retry-After header, RFC 9110 section 10.2.3, at the time now:
// seconds, or a date in one of the three forms of section 5.6.7. A number from 10^9 on is the
// Unix time that it means, see untilNumber. A time in the past, or anything else, is 0.
func ParseRetryAfter(s string, now time.Time) time.Duration {
	s = strings.TrimSpace(s)
	if s == "" { // most answers; trying to parse it as a date would cost three allocations
		return 0
	}
	if strings.Trim(s, "0123456789") == "" {
		n, _ := strconv.ParseFloat(s, 64) // only digits: the number is too large, which untilNumber handles
		return untilNumber(n, now)
	}
	return untilDate(s, now)
}

// untilDate reads an HTTP date. It returns 0 for one in the past and for anything else.
func untilDate(s string, now time.Time) time.Duration {
	for _, layout := range []string{"Mon, 02 Jan 2006 15:04:05 GMT", time.RFC850, time.ANSIC} {
		if at, err := time.Parse(layout, s); err == nil {
			return max(at.Sub(now), 0)
		}
	}
	return 0
}

// longestWait bounds the meaning of a number of seconds, so that sums with it do not overflow.
const longestWait = 1e9 * time.Second

// untilNumber is how long a number asks to wait: seconds below 10^9, or until the Unix time
// that it is in seconds, milliseconds, microseconds or nanoseconds. The ranges do not overlap: in
// each unit they are the years from 1973 to 5138. The past is 0, and a number beyond the longest wait.
func untilNumber(n float64, now time.Time) time.Duration {
	if math.IsNaN(n) || n <= 0 {
		return 0
	}
	if n < 1e9 {
		return time.Duration(n * float64(time.Second))
	}
	unit := time.Second
	for most := 1e11; n >= most; most *= 1e3 {
		if unit /= 1000; unit == 0 {
			return longestWait
		}
	}
	perSecond := float64(time.Second / unit)
	seconds, part := math.Modf(n / perSecond)
	left := (seconds - float64(now.Unix())) + (part - float64(now.Nanosecond())/1e9)
	return time.Duration(max(0, min(left, longestWait.Seconds())) * float64(time.Second))
}
