package chart

import (
	"html/template"
	"slices"
)

// Bars is what Success draws.
type Bars struct {
	Bars                         []Bar // oldest first; of more than 500, the newest
	Delivered, Failed, Discarded string
	Count                        func(n int64) string
}

// Bar is the deliveries that ended in a step.
type Bar struct {
	Step
	Missing                      bool // nothing is known of the step; it stays empty, and looks different from one with none
	Delivered, Failed, Discarded int64
}

func (b Bar) parts() [3]float64 {
	return [3]float64{float64(max(0, b.Delivered)), float64(max(0, b.Failed)), float64(max(0, b.Discarded))}
}

func (b Bar) total() float64 { p := b.parts(); return p[0] + p[1] + p[2] }

// Success is bars by step: deliveries that were delivered, failed or discarded, one above the other.
func Success(t Text, in Bars) template.HTML {
	bars := newest(in.Bars)
	if !slices.ContainsFunc(bars, func(b Bar) bool { return !b.Missing && b.total() > 0 }) {
		return empty("c-success", t)
	}
	most := 0.0
	p := plot{text: t, label: func(v float64) string { return in.Count(int64(v)) }}
	known := 0
	for _, b := range bars {
		p.steps = append(p.steps, b.Step)
		if !b.Missing && b.total() > 0 {
			most = max(most, b.total())
			known++
		}
	}
	p.scale = linear(most, whole)
	classes := []string{"c-ok", "c-bad", "c-off"}
	rows := &table{heads: []string{in.Delivered, in.Failed, in.Discarded}, rows: len(bars), row: func(i int) []string {
		b := bars[i]
		if b.Missing {
			return []string{b.name(), missing, missing, missing}
		}
		return []string{b.name(), in.Count(max(0, b.Delivered)), in.Count(max(0, b.Failed)), in.Count(max(0, b.Discarded))}
	}}
	keys := []key{{"c-ok", OK.mark(), in.Delivered}, {"c-bad", Bad.mark(), in.Failed}, {"c-off", Off.mark(), in.Discarded}}
	return figure("c-success", t.of(known), keys, func(m *markup) {
		p.draw(m, func() {
			for i, b := range bars {
				m.raw(`<g>`)
				p.tip(m, rows.heads, rows.row(i))
				p.bar(m, i, b, classes)
				m.raw(`</g>`)
			}
		})
	}, rows)
}

func (p *plot) bar(m *markup, i int, b Bar, classes []string) {
	left, width := float64(i)*p.step(), p.step()
	if b.Missing {
		m.rect("c-none", left, 0, width, high)
		return
	}
	m.rect("c-hit", left, 0, width, high)
	below := 0.0
	for j, n := range b.parts() {
		y := p.y(below + n)
		m.rect(classes[j], left+0.1*width, y, 0.8*width, p.y(below)-y)
		below += n
	}
}

// Lines is what Latency draws.
type Lines struct {
	Points   []Point // oldest first; of more than 500, the newest
	P50, P95 string
	Value    func(ms float64) string
	Scale    Scale
	Log      string // says that the axis is logarithmic, in the legend
}

// Point is how long attempts of a step took, in milliseconds. NaN, a negative or an infinite number is a gap.
type Point struct {
	Step
	P50, P95 float64
}

// Scale is the kind of an axis.
type Scale int

// Kinds of axes. A linear one begins at 0.
const (
	Auto Scale = iota // logarithmic if the largest value is more than 30 times the smallest
	Linear
	Logarithmic
)

const autoLog = 30

// Latency is two lines, the median and the 95th percentile of what attempts took.
func Latency(t Text, in Lines) template.HTML {
	source := newest(in.Points)
	p := plot{text: t, label: in.Value}
	p50, p95, all := []float64{}, []float64{}, []float64{}
	for _, point := range source {
		p.steps = append(p.steps, point.Step)
		p50, p95 = append(p50, clean(point.P50)), append(p95, clean(point.P95))
	}
	known := 0
	for i := range p50 {
		before := len(all)
		for _, v := range []float64{p50[i], p95[i]} {
			if drawn(v) {
				all = append(all, v)
			}
		}
		if len(all) > before {
			known++
		}
	}
	if len(all) == 0 {
		return empty("c-latency", t)
	}
	p.scale = latencyScale(in.Scale, all)
	rows := &table{heads: []string{in.P50, in.P95}, rows: len(source), row: func(i int) []string {
		return []string{source[i].name(), cell(p50[i], in.Value), cell(p95[i], in.Value)}
	}}
	keys := []key{{"c-line", "━", in.P50}, {"c-line2", "╍", in.P95}}
	if p.scale.log {
		keys = append(keys, key{"c-axis", "↕", in.Log})
	}
	return figure("c-latency", t.of(known), keys, func(m *markup) {
		p.draw(m, func() {
			p.line(p95).draw(m, "c-line2")
			p.line(p50).draw(m, "c-line")
			p.hits(m, rows.heads, rows.row)
		})
	}, rows)
}

func latencyScale(kind Scale, all []float64) scale {
	most := slices.Max(all)
	if kind == Logarithmic || kind == Auto && most > autoLog*max(slices.Min(all), smallest) {
		return logarithmic(all)
	}
	return linear(most, ofTime)
}

func (p *plot) line(values []float64) points {
	l := points{x: p.x, half: 0.4 * p.step()}
	for _, v := range values {
		if drawn(v) {
			v = p.y(v)
		}
		l.y = append(l.y, v)
	}
	return l
}

func cell(v float64, format func(float64) string) string {
	if !drawn(v) {
		return missing
	}
	return format(v)
}

// Levels is what Backlog draws.
type Levels struct {
	Levels  []Level // oldest first; of more than 500, the newest
	Backlog string  // names the line
	Count   func(n int64) string
}

// Level is how many deliveries were not over at a step.
type Level struct {
	Step
	Missing bool // nothing is known of the step
	Count   int64
}

// Backlog is a line with the area below it: deliveries that wait.
func Backlog(t Text, in Levels) template.HTML {
	levels := newest(in.Levels)
	p := plot{text: t, label: func(v float64) string { return in.Count(int64(v)) }}
	values, most, known := []float64{}, 0.0, 0
	for _, l := range levels {
		v := float64(max(0, l.Count))
		if l.Missing {
			v = Gap()
		} else {
			most = max(most, v)
			known++
		}
		p.steps, values = append(p.steps, l.Step), append(values, v)
	}
	if known == 0 {
		return empty("c-backlog", t)
	}
	p.scale = linear(most, whole)
	rows := &table{heads: []string{in.Backlog}, rows: len(levels), row: func(i int) []string {
		if levels[i].Missing {
			return []string{levels[i].name(), missing}
		}
		return []string{levels[i].name(), in.Count(max(0, levels[i].Count))}
	}}
	return figure("c-backlog", t.of(known), []key{{"c-wait", Wait.mark(), in.Backlog}}, func(m *markup) {
		p.draw(m, func() {
			line := p.line(values)
			line.area(m, "c-area c-wait", high)
			line.draw(m, "c-line c-wait")
			p.hits(m, rows.heads, rows.row)
		})
	}, rows)
}
