package show

import (
	"math"
	"strconv"
)

// Count is n with commas between thousands: "1,234,567".
func (l Lang) Count(n int64) string { return group(n) }

// Short is n in few characters for tight places, rounded down: "999", "1.2k", "12.3k", "123k", "4.5M"; in Chinese "1.2萬", "3.4億".
func (l Lang) Short(n int64) string {
	sign, size := "", uint64(n)
	if n < 0 {
		sign, size = "-", -uint64(n)
	}
	for _, u := range l.words().units {
		if size < uint64(u.size) {
			continue
		}
		tenths := size / (uint64(u.size) / 10)
		s := group(int64(tenths / 10))
		if tenths < 1000 && tenths%10 != 0 {
			s += "." + strconv.FormatUint(tenths%10, 10)
		}
		return sign + s + u.sign
	}
	return group(n)
}

func group(n int64) string {
	s := strconv.FormatInt(n, 10)
	first := len(s) % 3
	if n < 0 {
		first = 1 + (len(s)-1)%3
	}
	b := []byte(s[:first])
	for i := first; i < len(s); i += 3 {
		if i > 0 && b[len(b)-1] != '-' {
			b = append(b, ',')
		}
		b = append(b, s[i:i+3]...)
	}
	return string(b)
}

// Percent is a ratio of 0 to 1 in percent: with two decimal places below 1 and from 99, one in between, zeros at the end left out.
// It is "100 %" or "0 %" only if it is exactly that: "> 99.99 %", "< 0.01 %". Another number is "–".
func (l Lang) Percent(ratio float64) string {
	switch {
	case math.IsNaN(ratio) || ratio < 0 || ratio > 1:
		return none
	case ratio > 0 && ratio < 0.0001:
		return "< 0.01 %"
	case ratio > 0.9999 && ratio < 1:
		return "> 99.99 %"
	}
	places := 10.0
	if ratio < 0.01 || ratio >= 0.99 {
		places = 100
	}
	return strconv.FormatFloat(math.Round(ratio*100*places)/places, 'f', -1, 64) + " %"
}

// Bytes is a size in powers of 1024, as the file writes them: "512 B", "1.5 KiB", "64 KiB". A negative number is "–".
func (l Lang) Bytes(n int64) string {
	if n < 0 {
		return none
	}
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v := float64(n)
	for _, unit := range []string{" KiB", " MiB", " GiB", " TiB", " PiB", " EiB"} {
		v /= 1024
		if v < 9.95 {
			return decimal(v) + unit
		}
		if v < 1023.5 || unit == " EiB" {
			return strconv.FormatFloat(math.Round(v), 'f', -1, 64) + unit
		}
	}
	return none
}
