package chart

import (
	"math"
	"strconv"
)

// The grounds on which an accent must be readable: a little darker and a little lighter than those of page.css, so that it is
// readable on a card or a row under the pointer, too.
const (
	lightGround = "#f2f2ee"
	darkGround  = "#22262c"
)

// defaultAccent is used for a string that is no colour.
const defaultAccent = "#2f6fde"

// readable is the least contrast of text (WCAG 2.2, success criterion 1.4.3).
const readable = 4.5

// IsColour is whether s is #rgb or #rrggbb, in hexadecimal digits of either case.
func IsColour(s string) bool {
	_, ok := parse(s)
	return ok
}

// Accent adjusts the lightness of a colour, #rgb or #rrggbb, until it has a contrast of 4.5:1 or more as text, border or button on
// the light and on the dark ground of the page. Hue stays, and chroma as far as the screen has it (OKLCH). A colour that has the
// contrast stays as it is. Another string gives the page's own accent. Both are #rrggbb.
func Accent(hex string) (light, dark string) {
	c, ok := parse(hex)
	if !ok {
		c, _ = parse(defaultAccent)
	}
	return c.against(lightGround).String(), c.against(darkGround).String()
}

// OnAccent is the colour of text on an accent, with a contrast of 4.5:1 or more: white, the page's dark ink, or black.
func OnAccent(hex string) string {
	c, ok := parse(hex)
	if !ok {
		c, _ = parse(defaultAccent)
	}
	for _, text := range []string{"#ffffff", "#16181c"} {
		if t, _ := parse(text); contrast(c, t) >= readable {
			return text
		}
	}
	return "#000000"
}

// rgb is a colour of sRGB.
type rgb struct{ r, g, b uint8 }

func parse(s string) (rgb, bool) {
	if len(s) == 4 {
		s = string([]byte{s[0], s[1], s[1], s[2], s[2], s[3], s[3]})
	}
	if len(s) != 7 || s[0] != '#' {
		return rgb{}, false
	}
	n, err := strconv.ParseUint(s[1:], 16, 24)
	return rgb{uint8(n >> 16), uint8(n >> 8), uint8(n)}, err == nil
}

func (c rgb) String() string {
	n := uint64(c.r)<<16 | uint64(c.g)<<8 | uint64(c.b)
	return "#" + strconv.FormatUint(1<<24|n, 16)[1:]
}

// against is c, or the nearest lightness of it that is readable on ground.
func (c rgb) against(ground string) rgb {
	g, _ := parse(ground)
	if contrast(c, g) >= readable {
		return c
	}
	from := c.oklch()
	end := 0.0 // black
	if luminance(g) < 0.18 {
		end = 1 // white
	}
	near, far := from.l, end
	for range 24 {
		middle := (near + far) / 2
		if contrast(oklch{middle, from.c, from.h}.rgb(), g) >= readable {
			far = middle
		} else {
			near = middle
		}
	}
	return oklch{far, from.c, from.h}.rgb()
}

// contrast is the ratio of two colours, 1 to 21 (WCAG 2.2, definition of contrast ratio).
func contrast(a, b rgb) float64 {
	x, y := luminance(a), luminance(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func luminance(c rgb) float64 {
	return 0.2126*linearLight(c.r) + 0.7152*linearLight(c.g) + 0.0722*linearLight(c.b)
}

func linearLight(v uint8) float64 {
	s := float64(v) / 255
	if s <= 0.04045 {
		return s / 12.92
	}
	return math.Pow((s+0.055)/1.055, 2.4)
}

func gamma(v float64) float64 {
	if v <= 0.0031308 {
		return 12.92 * v
	}
	return 1.055*math.Pow(v, 1/2.4) - 0.055
}

// oklch is a colour as lightness, chroma and hue (CSS Color 4, section 9).
type oklch struct{ l, c, h float64 }

func (c rgb) oklch() oklch {
	r, g, b := linearLight(c.r), linearLight(c.g), linearLight(c.b)
	l := math.Cbrt(0.4122214708*r + 0.5363325363*g + 0.0514459929*b)
	m := math.Cbrt(0.2119034982*r + 0.6806995451*g + 0.1073969566*b)
	s := math.Cbrt(0.0883024619*r + 0.2817188376*g + 0.6299787005*b)
	x := 1.9779984951*l - 2.4285922050*m + 0.4505937099*s
	y := 0.0259040371*l + 0.7827717662*m - 0.8086757660*s
	return oklch{0.2104542553*l + 0.7936177850*m - 0.0040720468*s, math.Hypot(x, y), math.Atan2(y, x)}
}

// rgb reduces the chroma until the screen has the colour.
func (c oklch) rgb() rgb {
	if !c.shown() {
		less, more := 0.0, c.c
		for range 20 {
			middle := (less + more) / 2
			if (oklch{c.l, middle, c.h}).shown() {
				less = middle
			} else {
				more = middle
			}
		}
		c.c = less
	}
	r, g, b := c.light()
	return rgb{eight(r), eight(g), eight(b)}
}

// shown is whether the screen has the colour.
func (c oklch) shown() bool {
	const margin = 1e-4 // of rounding
	r, g, b := c.light()
	return min(r, g, b) >= -margin && max(r, g, b) <= 1+margin
}

// light is the linear light of red, green and blue; outside 0 to 1 if the screen does not have the colour.
func (c oklch) light() (r, g, b float64) {
	x, y := c.c*math.Cos(c.h), c.c*math.Sin(c.h)
	l := cube(c.l + 0.3963377774*x + 0.2158037573*y)
	m := cube(c.l - 0.1055613458*x - 0.0638541728*y)
	s := cube(c.l - 0.0894841775*x - 1.2914855480*y)
	return 4.0767416621*l - 3.3077115913*m + 0.2309699292*s,
		-1.2684380046*l + 2.6097574011*m - 0.3413193965*s,
		-0.0041960863*l - 0.7034186147*m + 1.7076147010*s
}

func cube(v float64) float64 { return v * v * v }

func eight(light float64) uint8 {
	return uint8(math.Round(255 * gamma(min(1, max(0, light)))))
}
