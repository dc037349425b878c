// Package rfc3339 reads the times of others by the grammar of RFC 3339, section 5.6. The
// time package takes less of it, and more than it.
package rfc3339

import (
	"errors"
	"time"
)

// ErrSyntax is an error of Parse.
var ErrSyntax = errors.New("not a time of RFC 3339, like 2006-01-02T15:04:05Z")

// Parse reads a date-time. Its location is the offset that the text has; digits behind the
// nanosecond are cut off.
//
// A leap second is possible as the last second (UTC) of a month. Time has no value for it,
// so it becomes the second that follows, as in Unix time: 23:59:60 is 00:00:00 of the next
// day, and 23:59:60.5 half a second later. Errors: ErrSyntax.
func Parse(text []byte) (time.Time, error) {
	r := reader{text: text, ok: true}
	year, month, day := r.date()
	r.letter('T')
	hour, minute, second := r.number(2, 23), 0, 0
	r.byte(':')
	minute = r.number(2, 59)
	r.byte(':')
	second = r.number(2, 60)
	nanoseconds := r.fraction()
	zone := r.zone()
	if !r.ok || len(r.text) > 0 {
		return time.Time{}, ErrSyntax
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanoseconds, zone)
	if second == 60 && !beginsMonth(t) {
		return time.Time{}, ErrSyntax
	}
	return t, nil
}

// beginsMonth tells whether the second of t is the first one of a month in UTC.
func beginsMonth(t time.Time) bool {
	u := t.UTC()
	return u.Day() == 1 && u.Hour() == 0 && u.Minute() == 0 && u.Second() == 0
}

// reader takes parts off the front of a text. After the first wrong one ok is false.
type reader struct {
	text []byte
	ok   bool
}

// next takes one byte, 0 at the end.
func (r *reader) next() byte {
	if len(r.text) == 0 {
		r.ok = false
		return 0
	}
	b := r.text[0]
	r.text = r.text[1:]
	return b
}

func (r *reader) byte(want byte) { r.ok = r.next() == want && r.ok }

// letter takes a capital letter or the small one.
func (r *reader) letter(capital byte) { r.ok = r.next()&^0x20 == capital && r.ok }

// number takes a number of so many digits.
func (r *reader) number(digits, most int) int {
	n := 0
	for range digits {
		b := r.next()
		r.ok = r.ok && '0' <= b && b <= '9'
		n = n*10 + int(b-'0')
	}
	r.ok = r.ok && n <= most
	return n
}

func (r *reader) date() (year, month, day int) {
	year = r.number(4, 9999)
	r.byte('-')
	month = r.number(2, 12)
	r.byte('-')
	day = r.number(2, 31)
	// The day 0 of the next month is the last one of this.
	last := time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
	r.ok = r.ok && month > 0 && day > 0 && day <= last
	return year, month, day
}

// fraction takes a dot and digits, if there is a dot, and returns nanoseconds.
func (r *reader) fraction() (n int) {
	if len(r.text) == 0 || r.text[0] != '.' {
		return 0
	}
	r.text = r.text[1:]
	unit := int(time.Second)
	for first := true; first || len(r.text) > 0 && '0' <= r.text[0] && r.text[0] <= '9'; first = false {
		unit /= 10
		n += r.number(1, 9) * unit
	}
	return n
}

// zone takes "Z" or an offset. -00:00 is an offset, too: UTC, with the local one unknown.
func (r *reader) zone() *time.Location {
	sign := 1
	switch r.next() {
	case 'Z', 'z':
		return time.UTC
	case '-':
		sign = -1
	case '+':
	default:
		r.ok = false
	}
	hours := r.number(2, 23)
	r.byte(':')
	minutes := r.number(2, 59)
	return time.FixedZone("", sign*(hours*60+minutes)*60)
}
