package page

import (
	"fmt"

	"relay/relay/page/chart"
)

// accentStyle is the accent colour of the file, in lightnesses that can be read on both grounds.
func accentStyle(accent string) []byte {
	light, dark := chart.Accent(accent)
	return fmt.Appendf(nil, "\n:root { --accent: light-dark(%s, %s); --on-accent: light-dark(%s, %s);"+
		" --accent-tint: color-mix(in oklab, var(--accent) 10%%, var(--paper)); }\n", light, dark, chart.OnAccent(light), chart.OnAccent(dark))
}
