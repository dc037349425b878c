package chart

import (
	"html/template"
	"slices"
)

// Kind is what a tiny line shows.
type Kind int

// Kinds of tiny lines.
const (
	SparkSuccess Kind = iota // success rates, 0 to 1: the axis is the whole of it, and what fails hangs from the top
	SparkLatency             // durations in milliseconds, from 0
	SparkBacklog             // counts, from 0
)

const sparkHigh = 24.0

// Spark is a tiny line for a row of a table. label is its accessible name; the values follow as its description, as format
// writes them. One value alone is a short line at its place; without any it is "–", with the label for screen readers.
func Spark(kind Kind, label string, values []float64, format func(v float64) string) template.HTML {
	values = newest(values)
	m := &markup{}
	l, most, known := points{}, 0.0, 0
	for _, v := range values {
		v = clean(v)
		if drawn(v) {
			most = max(most, v)
			known++
		}
		l.y = append(l.y, v)
	}
	if !hasValue(l.y) {
		m.raw(`<span class="c-spark c-empty" role="img" aria-label="`)
		m.text(label)
		m.raw(`">`, missing, `</span>`)
		return m.html()
	}
	m.svg(Text{Title: label, Description: listed(l.y, format)}, " c-spark", float64(max(1, len(values)-1)), sparkHigh)
	if known == 1 {
		l.y = widened(l.y)
	}
	l.x = func(i int) float64 { return float64(i) } // a step is as wide as a coordinate, which makes the path short
	l.drawSpark(m, kind, most)
	m.raw(`</svg>`)
	return m.html()
}

// widened is values of which one is drawn, with that one a step wide: a line has two points, and a dot looks like dirt.
func widened(y []float64) []float64 {
	at := slices.IndexFunc(y, drawn)
	if len(y) == 1 {
		return []float64{y[0], y[0]}
	}
	to := max(at, 1)
	y[to-1], y[to] = y[at], y[at]
	return y
}

func (l points) drawSpark(m *markup, kind Kind, most float64) {
	if kind == SparkSuccess || most == 0 {
		most = 1
	}
	const room = 2.0 // above and below, for the width of the line
	for i, v := range l.y {
		if drawn(v) {
			l.y[i] = sparkHigh - room - (sparkHigh-2*room)*min(1, v/most)
		}
	}
	switch kind {
	case SparkSuccess:
		l.area(m, "c-area c-bad", room)
		l.draw(m, "c-line c-ok")
	case SparkBacklog:
		l.area(m, "c-area c-wait", sparkHigh-room)
		l.draw(m, "c-line c-wait")
	default:
		l.draw(m, "c-line")
	}
}

func hasValue(values []float64) bool {
	for _, v := range values {
		if drawn(v) {
			return true
		}
	}
	return false
}

func listed(values []float64, format func(float64) string) string {
	b := []byte{}
	for i, v := range values {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(b, cell(v, format)...)
	}
	return string(b)
}
