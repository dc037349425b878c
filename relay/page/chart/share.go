package chart

import "html/template"

// Parts is what Share draws.
type Parts struct {
	Parts   []Part
	Count   func(n int64) string
	Percent func(ratio float64) string // of 0 to 1
}

// Part is one part of a whole.
type Part struct {
	Name  string
	State State
	Count int64
}

const (
	shareHigh = 10.0
	sliver    = 4.0 // the least width of a part that is not 0, of 1000: so that one failed of a million can be seen
)

// Share is one horizontal bar of parts. Its legend has every count and percentage, so it needs no table.
func Share(t Text, in Parts) template.HTML {
	whole := 0.0
	for _, p := range in.Parts {
		whole += float64(max(0, p.Count))
	}
	if whole == 0 {
		return empty("c-share", t)
	}
	return figure("c-share", t, nil, func(m *markup) {
		m.svg(t, "", wide, shareHigh)
		left := 0.0
		widths := shares(in.Parts, whole)
		for i, p := range in.Parts {
			m.raw(`<g><title>`)
			m.text(p.Name + " " + in.Count(max(0, p.Count)))
			m.raw(`</title>`)
			m.rect("c-"+string(p.State.known()), left, 0, widths[i], shareHigh)
			m.raw(`</g>`)
			left += widths[i]
		}
		m.raw(`</svg>`)
		in.legend(m, whole)
	}, nil)
}

// shares are the widths of parts. The others give what slivers get.
func shares(parts []Part, whole float64) []float64 {
	widths := make([]float64, len(parts))
	sum := 0.0
	for i, p := range parts {
		if p.Count > 0 {
			widths[i] = max(sliver, wide*float64(p.Count)/whole)
			sum += widths[i]
		}
	}
	for i := range widths {
		widths[i] *= wide / sum
	}
	return widths
}

func (in *Parts) legend(m *markup, whole float64) {
	m.raw(`<ul class="c-legend">`)
	for _, p := range in.Parts {
		n := max(0, p.Count)
		m.raw(`<li class="c-key"><span class="c-mark c-`, string(p.State.known()), `" aria-hidden="true">`, p.State.mark(), `</span> `)
		m.text(p.Name)
		m.raw(` <span class="c-num">`)
		m.text(in.Count(n))
		m.raw(`</span> <span class="c-note">`)
		m.text(in.Percent(float64(n) / whole))
		m.raw(`</span></li>`)
	}
	m.raw(`</ul>`)
}
