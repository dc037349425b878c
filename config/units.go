package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/agext/levenshtein"
)

// Day is the unit "d" of the file: always 24 hours.
const Day = 24 * time.Hour

// Sizes in bytes.
const (
	KiB int64 = 1 << (10 * (iota + 1))
	MiB
	GiB
	TiB
)

var (
	errDuration = errors.New(`write a number with its unit, like "1500ms", "5s", "30m", "72h", "30d" or "1h30m"`)
	errSize     = errors.New(`write a whole number of bytes or one with its unit, like "256KiB", "64MB" or "4GiB"`)
)

// ParseDuration reads a duration of the file: one or more numbers, each with its
// unit ms, s, m, h or d, the days first and whole. Negative ones are refused, and
// those over 292 years.
func ParseDuration(s string) (time.Duration, error) {
	days, rest, found := strings.Cut(s, "d")
	if !found {
		days, rest = "0", s
	}
	n, err := strconv.ParseUint(days, 10, 32)
	if err != nil || n > uint64(math.MaxInt64/Day) {
		return 0, errDuration
	}
	total := time.Duration(n) * Day
	if rest == "" && found {
		return total, nil
	}
	// The standard parser also takes signs, "0" without a unit, and units that are too small
	// here.
	if strings.ContainsAny(rest, "+-nuµμ") || !strings.HasSuffix(rest, "s") && !strings.HasSuffix(rest, "m") && !strings.HasSuffix(rest, "h") {
		return 0, errDuration
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d > math.MaxInt64-total {
		return 0, errDuration
	}
	return total + d, nil
}

// ParseSize reads a size of the file: a whole number of bytes, KiB, MiB, GiB,
// TiB (powers of 1024) or KB, MB, GB, TB (powers of 1000).
func ParseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "KMGTiB")
	unit := int64(1)
	switch s[len(digits):] {
	case "", "B":
	case "KiB":
		unit = KiB
	case "MiB":
		unit = MiB
	case "GiB":
		unit = GiB
	case "TiB":
		unit = TiB
	case "KB":
		unit = 1e3
	case "MB":
		unit = 1e6
	case "GB":
		unit = 1e9
	case "TB":
		unit = 1e12
	default:
		return 0, errSize
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || int64(n) > math.MaxInt64/unit {
		return 0, errSize
	}
	return int64(n) * unit, nil
}

// FormatDuration writes d as one would in the file.
func FormatDuration(d time.Duration) string {
	if d >= Day && d%Day == 0 {
		return strconv.FormatInt(int64(d/Day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// FormatSize writes n as one would in the file.
func FormatSize(n int64) string {
	unit := ""
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if n == 0 || n%KiB != 0 {
			break
		}
		n, unit = n/KiB, u
	}
	return strconv.FormatInt(n, 10) + unit
}

// Suggest returns ` Did you mean "x"?` for the one of names that is closest to
// given, or "" when none is within two edits.
func Suggest(given string, names []string) string {
	best, distance := "", 3
	for _, name := range names {
		if d := levenshtein.Distance(given, name, nil); d < distance {
			best, distance = name, d
		}
	}
	if best == "" {
		return ""
	}
	return ` Did you mean "` + best + `"?`
}
