// Package show writes times, durations, sizes, numbers, payloads and texts of strangers as people read them, in English,
// traditional and simplified Chinese. It has no state and asks no clock.
//
// The classes in its HTML, which relay/page/assets/show.css defines: j-key, j-str, j-num, j-lit and j-punc for the parts of JSON,
// j-chip for a character that cannot be seen or would change how the text around it is read, j-hex for a dump, j-cut for what
// follows what is shown.
package show

import "strings"

// Lang is a language of the page, by its tag of BCP 47. Any other is treated as English.
type Lang string

// The languages of the page.
const (
	En   Lang = "en"
	Hant Lang = "zh-Hant"
	Hans Lang = "zh-Hans"
)

// Langs are all languages.
func Langs() []Lang { return []Lang{En, Hant, Hans} }

// words are what a language needs; %s stands for a number with its unit, or for a number.
type words struct {
	justNow, ago, yesterday string
	now, in, tomorrow       string
	second, minute, hour    string // of a time that is past or to come
	ms, sec, min, hr, day   string // of a duration
	date                    string // layout of package time
	units                   []unit // of a short count, from the largest
}

// unit is a power of ten with its sign.
type unit struct {
	size int64
	sign string
}

func (l Lang) words() words {
	switch l {
	case Hant:
		return words{
			justNow: "剛剛", ago: "%s前", yesterday: "昨天", now: "現在", in: "%s後", tomorrow: "明天",
			second: "%s 秒", minute: "%s 分鐘", hour: "%s 小時",
			ms: "%s 毫秒", sec: "%s 秒", min: "%s 分", hr: "%s 小時", day: "%s 天",
			date: "2006年1月2日", units: []unit{{1e12, "兆"}, {1e8, "億"}, {1e4, "萬"}},
		}
	case Hans:
		return words{
			justNow: "刚刚", ago: "%s前", yesterday: "昨天", now: "现在", in: "%s后", tomorrow: "明天",
			second: "%s 秒", minute: "%s 分钟", hour: "%s 小时",
			ms: "%s 毫秒", sec: "%s 秒", min: "%s 分", hr: "%s 小时", day: "%s 天",
			date: "2006年1月2日", units: []unit{{1e12, "万亿"}, {1e8, "亿"}, {1e4, "万"}},
		}
	default:
		return words{
			justNow: "just now", ago: "%s ago", yesterday: "yesterday", now: "now", in: "in %s", tomorrow: "tomorrow",
			second: "%s s", minute: "%s min", hour: "%s h",
			ms: "%s ms", sec: "%s s", min: "%s min", hr: "%s h", day: "%s d",
			date: "2 Jan 2006", units: []unit{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}},
		}
	}
}

// fill puts s at the %s of form.
func fill(form, s string) string { return strings.Replace(form, "%s", s, 1) }

// Plural chooses between forms for one and for others, "%d delivery|%d deliveries", and writes n at the %d. A language that has
// one form for both, like Chinese, gives one.
func (l Lang) Plural(n int64, forms string) string {
	one, many, two := strings.Cut(forms, "|")
	if two && (n != 1 || l == Hant || l == Hans) {
		one = many
	}
	return strings.ReplaceAll(one, "%d", l.Count(n))
}
