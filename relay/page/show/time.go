package show

import (
	"math"
	"strconv"
	"time"
)

// none stands for what is not known.
const none = "–"

// Ago is how long before now t was: "just now" within ten seconds, then seconds, minutes and hours, rounded down; "yesterday"; and
// then the date. A t that is up to ten seconds after now, by another clock, is "just now", too; a later one is as In says. Days
// are counted in the location that now has. The zero time is "–".
func (l Lang) Ago(t, now time.Time) string {
	w := l.words()
	passed := now.Sub(t)
	switch {
	case t.IsZero():
		return none
	case passed <= -10*time.Second:
		return l.In(t, now)
	case passed < 10*time.Second:
		return w.justNow
	case passed < time.Minute:
		return fill(w.ago, fill(w.second, strconv.Itoa(int(passed/time.Second))))
	case passed < time.Hour:
		return fill(w.ago, fill(w.minute, strconv.Itoa(int(passed/time.Minute))))
	case passed < 24*time.Hour:
		return fill(w.ago, fill(w.hour, strconv.Itoa(int(passed/time.Hour))))
	case sameDay(t, now, -1):
		return w.yesterday
	}
	return l.Date(t.In(now.Location()))
}

// In is how long after now t is: "now" if it is not after it, seconds rounded up, minutes and hours rounded to the nearest;
// "tomorrow"; and then the date. Days are counted in the location that now has. The zero time is "–".
func (l Lang) In(t, now time.Time) string {
	w := l.words()
	left := t.Sub(now)
	seconds := int(math.Ceil(left.Seconds()))
	minutes := int(left.Round(time.Minute) / time.Minute)
	hours := int(left.Round(time.Hour) / time.Hour)
	switch {
	case t.IsZero():
		return none
	case left <= 0:
		return w.now
	case seconds < 60:
		return fill(w.in, fill(w.second, strconv.Itoa(seconds)))
	case minutes < 60:
		return fill(w.in, fill(w.minute, strconv.Itoa(minutes)))
	case hours < 24:
		return fill(w.in, fill(w.hour, strconv.Itoa(hours)))
	case sameDay(t, now, 1):
		return w.tomorrow
	}
	return l.Date(t.In(now.Location()))
}

// sameDay is whether t is as many days after now, in the location that now has.
func sameDay(t, now time.Time, days int) bool {
	y, m, d := t.In(now.Location()).Date()
	yy, mm, dd := now.AddDate(0, 0, days).Date()
	return y == yy && m == mm && d == dd
}

// Date is the date of t, in its location: "29 Nov 2026". The zero time is "–".
func (l Lang) Date(t time.Time) string {
	if t.IsZero() {
		return none
	}
	return t.Format(l.words().date)
}

// Moment is date and time of t to the second, with its zone, as it sorts: "2026-11-29 23:48:01 UTC". The zero time is "–".
func (l Lang) Moment(t time.Time) string {
	if t.IsZero() {
		return none
	}
	return t.Format("2006-01-02 15:04:05 MST")
}

// Duration is a duration of milliseconds in the largest units that say it well: "3.2 ms", "1.4 s", "2 min 5 s", "3 h 12 min",
// "2 d 4 h". Less than a tenth of a millisecond is "< 0.1 ms"; a negative number or NaN is "–".
func (l Lang) Duration(ms float64) string {
	const second, minute, hour, day = 1e3, 6e4, 36e5, 864e5
	w := l.words()
	switch {
	case math.IsNaN(ms) || ms < 0:
		return none
	case ms == 0:
		return fill(w.ms, "0")
	case ms < 0.1:
		return "< " + fill(w.ms, "0.1")
	case ms < 9.95:
		return fill(w.ms, decimal(ms))
	case ms < 999.5:
		return fill(w.ms, strconv.Itoa(int(math.Round(ms))))
	case ms < minute-50:
		return fill(w.sec, decimal(ms/second))
	case ms < hour-second/2:
		return pair(ms, minute, second, [2]string{w.min, w.sec})
	case ms < day-minute/2:
		return pair(ms, hour, minute, [2]string{w.hr, w.min})
	case ms < 1e5*day:
		return pair(ms, day, hour, [2]string{w.day, w.hr})
	}
	return "> " + fill(w.day, "99,999")
}

// decimal is v with one decimal place, if that is not 0.
func decimal(v float64) string {
	return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64)
}

// pair is ms in a large and a small unit, rounded to the small one.
func pair(ms, large, small float64, forms [2]string) string {
	n := int64(math.Round(ms / small))
	each := int64(large / small)
	s := fill(forms[0], group(n/each))
	if n%each != 0 {
		s += " " + fill(forms[1], strconv.FormatInt(n%each, 10))
	}
	return s
}
