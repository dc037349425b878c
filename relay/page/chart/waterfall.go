package chart

import (
	"html/template"
	"math"
	"time"
)

// Attempts is what Waterfall draws.
type Attempts struct {
	Attempts                           []Attempt // oldest first; of more than 500, the newest
	DNS, Connect, TLS, FirstByte, Rest string    // phases
	Total                              string    // head of the column of what an attempt took
	Value                              func(ms float64) string
	Later                              func(ms float64) string // of the time between two attempts: "5 min later"
}

// Attempt is one row. Durations are in milliseconds; the phases follow each other, the rest is what is left of Total.
type Attempt struct {
	Name  string // "1", "Attempt 1"
	Note  string // the outcome: "503", "timeout"
	State State  // the colour of the outcome
	Start time.Time

	DNS, Connect, TLS, FirstByte, Total float64
}

// phases are the five durations of an attempt. If clocks disagree, so that Total is less than its parts, there is no rest.
func (a *Attempt) phases() [5]float64 {
	p := [5]float64{}
	sum := 0.0
	for i, v := range []float64{a.DNS, a.Connect, a.TLS, a.FirstByte} {
		p[i] = zero(v)
		sum += p[i]
	}
	p[4] = max(0, zero(a.Total)-sum)
	return p
}

func (a *Attempt) total() float64 {
	sum := 0.0
	for _, v := range a.phases() {
		sum += v
	}
	return sum
}

// zero is v, or 0 if v cannot be drawn.
func zero(v float64) float64 {
	if v = clean(v); !drawn(v) {
		return 0
	}
	return v
}

const (
	rowHigh   = 16.0
	stripHigh = 12.0
)

var phaseClasses = [5]string{"c-dns", "c-connect", "c-tls", "c-first", "c-rest"}

// Waterfall is the attempts of a delivery. A strip shows when each began, to scale; each attempt is a row of its phases, all rows
// from the left and in one scale, so that they can be compared; the time between two of them is not drawn but said.
func Waterfall(t Text, in Attempts) template.HTML {
	attempts := newest(in.Attempts)
	if len(attempts) == 0 {
		return empty("c-waterfall", t)
	}
	words := []string{in.DNS, in.Connect, in.TLS, in.FirstByte, in.Rest}
	keys := []key{}
	for i, word := range words {
		keys = append(keys, key{phaseClasses[i], "■", word})
	}
	rows := &table{heads: append(words, in.Total), rows: len(attempts), row: func(i int) []string {
		cells := []string{attempts[i].Name}
		for _, v := range attempts[i].phases() {
			cells = append(cells, in.Value(v))
		}
		return append(cells, in.Value(attempts[i].total()))
	}}
	return figure("c-waterfall", t, keys, func(m *markup) {
		strip(m, t, attempts)
		longest := 0.0
		for i := range attempts {
			longest = max(longest, attempts[i].total())
		}
		m.raw(`<ol class="c-rows">`)
		for i := range attempts {
			if i > 0 {
				in.between(m, &attempts[i-1], &attempts[i])
			}
			in.row(m, &attempts[i], longest)
		}
		m.raw(`</ol>`)
	}, rows)
}

// strip draws when attempts began, to scale from the first to the end of the last.
func strip(m *markup, t Text, attempts []Attempt) {
	first, last := attempts[0].Start, attempts[0].Start
	for i := range attempts {
		if a := &attempts[i]; a.Start.Before(first) {
			first = a.Start
		}
	}
	for i := range attempts {
		a := &attempts[i]
		if end := a.Start.Add(took(a.total())); end.After(last) {
			last = end
		}
	}
	m.svg(t, " c-strip", wide, stripHigh)
	m.line("c-axis", 0, stripHigh/2, wide, stripHigh/2)
	whole := last.Sub(first).Seconds()
	for i := range attempts {
		a := &attempts[i]
		x := 0.0
		if whole > 0 {
			x = wide * min(1, a.Start.Sub(first).Seconds()/whole)
		}
		m.line("c-line c-"+string(a.State.known()), x, 1, x, stripHigh-1)
	}
	m.raw(`</svg>`)
}

// took is at most some 290 years, the longest Duration.
func took(ms float64) time.Duration {
	return time.Duration(min(ms*1e6, math.MaxInt64/2))
}

// between says how much time passed; nothing if none did, as after a correction of the clock.
func (in *Attempts) between(m *markup, before, after *Attempt) {
	gap := float64(after.Start.Sub(before.Start))/1e6 - before.total()
	if gap <= 0 {
		return
	}
	m.raw(`<li class="c-gap">`)
	m.text(in.Later(gap))
	m.raw(`</li>`)
}

func (in *Attempts) row(m *markup, a *Attempt, longest float64) {
	m.raw(`<li class="c-row"><span class="c-name">`)
	m.text(a.Name)
	m.raw(` <span class="c-mark c-`, string(a.State.known()), `" aria-hidden="true">`, a.State.mark(), `</span> <span class="c-note">`)
	m.text(a.Note)
	m.raw(`</span></span>`)
	m.svg(Text{Title: a.Name, Description: in.said(a)}, "", wide, rowHigh)
	m.raw(`<title>`)
	m.text(in.said(a))
	m.raw(`</title>`)
	left := 0.0
	for i, v := range a.phases() {
		if v == 0 {
			continue
		}
		width := max(1, wide*v/longest)
		m.rect(phaseClasses[i], min(left, wide-1), 0, min(width, max(1, wide-left)), rowHigh)
		left += width
	}
	m.raw(`</svg><span class="c-num">`)
	m.text(in.Value(a.total()))
	m.raw(`</span></li>`)
}

// said is the phases that took any time, in words.
func (in *Attempts) said(a *Attempt) string {
	s := ""
	words := []string{in.DNS, in.Connect, in.TLS, in.FirstByte, in.Rest}
	for i, v := range a.phases() {
		if v > 0 {
			s += words[i] + " " + in.Value(v) + ", "
		}
	}
	return s + in.Total + " " + in.Value(a.total())
}
