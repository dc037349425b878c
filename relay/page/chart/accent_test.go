package chart

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"
)

// grounds are those of page.css, and the stricter ones that accents are made for.
var grounds = map[string][]string{"light": {"#ffffff", "#f7f7f5", lightGround}, "dark": {"#16181c", "#1d2025", darkGround}}

func TestAccentIsReadable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := rgb{rapid.Uint8().Draw(t, "r"), rapid.Uint8().Draw(t, "g"), rapid.Uint8().Draw(t, "b")}
		light, dark := Accent(c.String())
		for kind, accent := range map[string]string{"light": light, "dark": dark} {
			a, ok := parse(accent)
			if !ok {
				t.Fatalf("%s is no colour", accent)
			}
			for _, ground := range grounds[kind] {
				g, _ := parse(ground)
				if ratio := contrast(a, g); ratio < readable {
					t.Fatalf("%s became %s: %.3f on %s", c, accent, ratio, ground)
				}
			}
			if same := contrast(c, a) == 1 || a == c; !same && drift(c, a) > 0.35 {
				t.Fatalf("%s became %s, which has another hue: %.2f", c, accent, drift(c, a))
			}
			readableText(t, accent)
		}
		readableText(t, c.String())
	})
}

func readableText(t *rapid.T, accent string) {
	a, _ := parse(accent)
	text, ok := parse(OnAccent(accent))
	if ratio := contrast(a, text); !ok || ratio < readable {
		t.Fatalf("%.3f of text on %s", ratio, accent)
	}
}

// drift is how far the hue of b is from that of a, in radians; 0 for greys, whose hue is rounding.
func drift(a, b rgb) float64 {
	x, y := a.oklch(), b.oklch()
	if x.c < 0.03 || y.c < 0.03 {
		return 0
	}
	return math.Abs(math.Remainder(x.h-y.h, 2*math.Pi))
}

func TestAccents(t *testing.T) {
	for _, c := range []struct{ hex, light, dark, text string }{ // "" is: anything else than hex
		{"#000000", "#000000", "", "#ffffff"},
		{"#ffffff", "", "#ffffff", "#16181c"},
		{"#ffee00", "", "#ffee00", "#16181c"},
		{"#0a2a66", "#0a2a66", "", "#ffffff"},
		{"#767676", "", "", "#ffffff"},
		{"#7a7a7a", "", "", "#000000"},
	} {
		light, dark := Accent(c.hex)
		if (light == c.hex) != (c.light != "") || (dark == c.hex) != (c.dark != "") || OnAccent(c.hex) != c.text {
			t.Errorf("Accent(%s) = %s, %s; text on it %s", c.hex, light, dark, OnAccent(c.hex))
		}
	}
	whole, _ := Accent(defaultAccent)
	for _, s := range []string{"", "red", "#12", "#12345", "#1234567", "#ggg", "#+12345", "#12345\x00", "url(x)", "#éa"} {
		if light, _ := Accent(s); IsColour(s) || light != whole || OnAccent(s) == "" {
			t.Errorf("%q is a colour, or its accent %s", s, light)
		}
	}
	if a, b := fmt.Sprint(Accent("#abc")), fmt.Sprint(Accent("#AABBCC")); a != b {
		t.Errorf("#abc is %s, #AABBCC is %s", a, b)
	}
}

// The conversion to OKLCH and back keeps every colour; contrast is that of the standard.
func TestColours(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := rgb{rapid.Uint8().Draw(t, "r"), rapid.Uint8().Draw(t, "g"), rapid.Uint8().Draw(t, "b")}
		if back := c.oklch().rgb(); back != c {
			t.Fatalf("%s became %s", c, back)
		}
	})
	if ratio := contrast(rgb{}, rgb{255, 255, 255}); ratio != 21 {
		t.Errorf("black on white: %v", ratio)
	}
	if ratio := contrast(rgb{0x76, 0x76, 0x76}, rgb{255, 255, 255}); math.Abs(ratio-4.54) > 0.005 {
		t.Errorf("#767676 on white: %v", ratio)
	}
}
