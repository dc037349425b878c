// Package chart draws charts as inline SVG with the HTML around it, on the server: success, latency, backlog, shares, attempts
// over time. It also adjusts an operator's accent colour until it can be read.
//
// No chart has a style attribute, a colour or a script: classes only, which relay/page/assets/chart.css defines by the custom
// properties of page.css (--ok, --bad, --wait, --held, --off, --ink, --muted, --line, --accent). The classes:
//
//	c-fig               the figure; c-success, c-latency, c-backlog, c-share, c-waterfall say which
//	c-legend c-key      what the colours mean, one key each; c-mark is the mark of a key, c-num a number beside it
//	c-plot c-y c-x      the picture with the labels of its axes, which are never scaled; c-wide is a label that a narrow screen leaves out
//	c-start c-mid c-end where a label of the axis is anchored
//	c-svg               the picture, scaled to the width of its place, and to the height that CSS gives it
//	c-axis c-grid       the base line, the other lines at ticks
//	c-ok c-bad c-wait c-held c-off   states, as everywhere on the page
//	c-none c-hit        a step without data; the invisible surface that shows values under the pointer
//	c-line c-line2      the first line, and the second one, dashed; c-dot is a value between gaps of a tiny line, c-area is below a line
//	c-spark             a tiny line in a row of a table
//	c-dns c-connect c-tls c-first c-rest   phases of an attempt
//	c-rows c-row c-name c-note c-gap c-strip   rows of a waterfall, and the time between them
//	c-data c-empty      the table of values; the words instead of a chart without values
//
// Text inside a picture that scales cannot be read on a narrow screen, so there is none: labels are HTML, or SVG without viewBox.
// Every word and the form of every number come from the caller, in the reader's language. Each chart has an accessible name and
// description, and the same values as a table, or as words if it is tiny. All of it is well-formed XML, too.
package chart

import (
	"html/template"
	"math"
	"slices"
)

// Text has the words that every chart needs.
type Text struct {
	ID          string // unique in the page: letters, digits, "-" and "_", others are left out; without one there are no ids
	Title       string // what the chart shows: its accessible name
	Description string // what there is to see, in a sentence
	Table       string // opens the table of values: "Values"
	Step        string // head of the column of steps: "Hour", "Attempt"
	Empty       string // stands instead of a chart without values: "Nothing ended in this time."
	Few         string // stands beneath a chart in which one step alone has values: "More follows by the hour."
}

// Step is a part of the time that a chart shows.
type Step struct {
	Label string // on the axis, short: "14:00"
	Name  string // in the table and under the pointer: "29 Nov 14:00"; Label if empty
}

// State gives a part its colour and its mark.
type State string

// The states of the page.
const (
	OK   State = "ok"   // delivered
	Wait State = "wait" // pending
	Held State = "held"
	Bad  State = "bad" // failed
	Off  State = "off" // discarded
)

// Gap is the value of a step without data.
func Gap() float64 { return math.NaN() }

const (
	wide, high = 1000.0, 200.0 // of a picture's own coordinates
	maxSteps   = 500           // of more, the newest are drawn
	largest    = 1e15          // value that is drawn; a larger one is drawn as this
	missing    = "–"           // in a cell
)

func (s State) mark() string {
	switch s {
	case OK:
		return "●"
	case Wait:
		return "◔"
	case Held:
		return "‖"
	case Bad:
		return "✕"
	default:
		return "⊘"
	}
}

// known is s, or Off if s is no state: a class is never made of what a stranger wrote.
func (s State) known() State {
	if slices.Contains([]State{OK, Wait, Held, Bad, Off}, s) {
		return s
	}
	return Off
}

func (s Step) name() string {
	if s.Name != "" {
		return s.Name
	}
	return s.Label
}

// newest are the last of steps, as many as are drawn.
func newest[T any](steps []T) []T {
	return steps[max(0, len(steps)-maxSteps):]
}

// clean is v if it can be drawn, or a gap: neither counts nor durations are negative or endless.
func clean(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
		return Gap()
	}
	return min(v, largest)
}

// drawn is whether v is drawn.
func drawn(v float64) bool { return !math.IsNaN(v) }

// key is one entry of a legend.
type key struct {
	class, mark, word string
}

// figure writes a chart: its legend, what draw draws, and the table.
func figure(class string, t Text, keys []key, draw func(m *markup), rows *table) template.HTML {
	m := &markup{}
	m.raw(`<figure class="c-fig `, class, `">`)
	if len(keys) > 0 {
		m.raw(`<figcaption class="c-legend">`)
		for _, k := range keys {
			m.raw(`<span class="c-key"><span class="c-mark `, k.class, `" aria-hidden="true">`, k.mark, `</span> `)
			m.text(k.word)
			m.raw(`</span> `)
		}
		m.raw(`</figcaption>`)
	}
	draw(m)
	if t.Few != "" {
		m.raw(`<p class="c-empty">`)
		m.text(t.Few)
		m.raw(`</p>`)
	}
	if rows != nil {
		rows.write(m, t)
	}
	m.raw(`</figure>`)
	return m.html()
}

// of is t for a chart in which so many steps have values.
func (t Text) of(steps int) Text {
	if steps != 1 {
		t.Few = ""
	}
	return t
}

// empty is a chart without values.
func empty(class string, t Text) template.HTML {
	m := &markup{}
	m.raw(`<figure class="c-fig `, class, `"><p class="c-empty">`)
	m.text(t.Empty)
	m.raw(`</p></figure>`)
	return m.html()
}

// table has the values of a chart for those who cannot see it, or want to copy them.
type table struct {
	heads []string
	rows  int
	row   func(i int) []string
}

func (t *table) write(m *markup, words Text) {
	m.raw(`<details class="c-data"><summary>`)
	m.text(words.Table)
	m.raw(`</summary><table><caption>`)
	m.text(words.Title)
	m.raw(`</caption><thead><tr><th scope="col">`)
	m.text(words.Step)
	m.raw(`</th>`)
	for _, head := range t.heads {
		m.raw(`<th scope="col">`)
		m.text(head)
		m.raw(`</th>`)
	}
	m.raw(`</tr></thead><tbody>`)
	for i := range t.rows {
		for j, cell := range t.row(i) {
			if j == 0 {
				m.raw(`<tr><th scope="row">`)
				m.text(cell)
				m.raw(`</th>`)
				continue
			}
			m.raw(`<td>`)
			m.text(cell)
			m.raw(`</td>`)
		}
		m.raw(`</tr>`)
	}
	m.raw(`</tbody></table></details>`)
}
