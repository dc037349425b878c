package chart

// plot is a picture with two axes.
type plot struct {
	text  Text
	scale scale
	steps []Step
	label func(v float64) string // of a tick
}

// draw writes the labels of the axes, and between them the picture, whose shapes body draws.
func (p *plot) draw(m *markup, body func()) {
	m.raw(`<div class="c-plot"><div class="c-y" aria-hidden="true">`)
	for i := len(p.scale.ticks) - 1; i >= 0; i-- {
		m.raw(`<span>`)
		if i == 0 && p.scale.least {
			m.raw(`≤ `)
		}
		m.text(p.label(p.scale.ticks[i]))
		m.raw(`</span>`)
	}
	m.raw(`</div>`)
	m.svg(p.text, "", wide, high)
	for _, tick := range p.scale.ticks[1:] {
		y := p.y(tick)
		m.line("c-grid", 0, y, wide, y)
	}
	body()
	m.line("c-axis", 0, high, wide, high)
	m.raw(`</svg>`)
	p.drawSteps(m)
	m.raw(`</div>`)
}

const maxLabels = 8 // of steps; a narrow screen shows every second one

func (p *plot) drawSteps(m *markup) {
	m.raw(`<svg class="c-x" aria-hidden="true">`)
	stride := (len(p.steps) + maxLabels - 1) / maxLabels
	for i := 0; i < len(p.steps); i += stride {
		at := 100 * p.x(i) / wide
		anchor := "c-mid"
		switch {
		case len(p.steps) > 1 && at < 10:
			anchor = "c-start"
		case len(p.steps) > 1 && at > 90:
			anchor = "c-end"
		}
		if i/stride%2 == 1 {
			anchor += " c-wide"
		}
		m.raw(`<text class="`, anchor, `" x="`)
		m.num(at)
		m.raw(`%" y="12">`)
		m.text(p.steps[i].Label)
		m.raw(`</text>`)
	}
	m.raw(`</svg>`)
}

// x is the middle of a step.
func (p *plot) x(i int) float64 { return (float64(i) + 0.5) * p.step() }

func (p *plot) step() float64 { return wide / float64(len(p.steps)) }

func (p *plot) y(v float64) float64 { return high * (1 - p.scale.at(v)) }

// hits are invisible surfaces, one for each step, which show its values under the pointer.
func (p *plot) hits(m *markup, heads []string, row func(i int) []string) {
	for i := range p.steps {
		m.raw(`<g>`)
		p.tip(m, heads, row(i))
		m.rect("c-hit", float64(i)*p.step(), 0, p.step(), high)
		m.raw(`</g>`)
	}
}

// tip writes a row of the table as a title.
func (p *plot) tip(m *markup, heads, row []string) {
	m.raw(`<title>`)
	m.text(row[0])
	for j, cell := range row[1:] {
		m.raw("\n")
		m.text(heads[j])
		m.raw(` `)
		m.text(cell)
	}
	m.raw(`</title>`)
}

// points are a line's values by step, at heights of a picture; a gap is no number.
type points struct {
	x    func(i int) float64
	y    []float64
	half float64 // of the width of a value between gaps; 0 for a dot
}

// runs calls each with every run of steps without gaps.
func (l points) runs(each func(from, to int)) {
	for from := 0; from < len(l.y); from++ {
		to := from
		for to < len(l.y) && drawn(l.y[to]) {
			to++
		}
		if to > from {
			each(from, to)
			from = to
		}
	}
}

// draw writes the line. One value between gaps is a short line within its step, or a dot: a line of almost no length with round ends.
func (l points) draw(m *markup, class string) {
	alone := []int{}
	m.raw(`<path class="`, class, `" d="`)
	l.runs(func(from, to int) {
		if to == from+1 && l.half > 0 {
			l.short(m, from)
			return
		}
		if to == from+1 {
			alone = append(alone, from)
			return
		}
		l.pen(m, from, to)
	})
	m.raw(`"/>`)
	if len(alone) == 0 {
		return
	}
	m.raw(`<path class="`, class, ` c-dot" d="`)
	for _, i := range alone {
		l.pen(m, i, i+1)
		m.raw(`h.1`)
	}
	m.raw(`"/>`)
}

// area fills what is between the line and a height.
func (l points) area(m *markup, class string, base float64) {
	m.raw(`<path class="`, class, `" d="`)
	l.runs(func(from, to int) {
		left := l.x(from)
		switch {
		case to > from+1:
			l.pen(m, from, to)
		case l.half > 0:
			left -= l.half
			l.short(m, from)
		default:
			return
		}
		m.raw(`V`)
		m.num(base)
		m.raw(`H`)
		m.num(left)
		m.raw(`Z`)
	})
	m.raw(`"/>`)
}

// short writes a value as a line within its step.
func (l points) short(m *markup, i int) {
	m.raw(`M`)
	m.num(l.x(i) - l.half)
	m.raw(` `)
	m.num(l.y[i])
	m.raw(`h`)
	m.num(2 * l.half)
}

func (l points) pen(m *markup, from, to int) {
	for i := from; i < to; i++ {
		if i == from {
			m.raw(`M`)
		} else {
			m.raw(`L`)
		}
		m.num(l.x(i))
		m.raw(` `)
		m.num(l.y[i])
	}
}
