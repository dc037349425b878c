package eval

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// A number like 1e999999999 is short, and fills the memory when it is written out. So
// expressions only ever hold numbers that a double can hold, and what one operation makes
// of them.

// ErrNumber is the error for a number that a double cannot hold.
var ErrNumber = BoundError("a number is beyond what a double can hold, or has more than 100 digits")

const maxDigits = 100

// ParseNumber reads a number exactly, if a double can hold it.
func ParseNumber(s string) (cty.Value, error) {
	f, err := strconv.ParseFloat(s, 64)
	switch {
	case err != nil, math.IsNaN(f), math.IsInf(f, 0), len(s) > maxDigits:
		return cty.NilVal, ErrNumber
	case f == 0:
		return cty.Zero, nil // also 1e-999999999
	}
	v, err := cty.ParseNumberVal(s)
	if err != nil {
		return cty.NilVal, ErrNumber
	}
	return v, nil
}

// ValidLiteral reports whether a number of a file can be used. A number other than 0 that a
// double rounds to 0 is refused as a mistake.
func ValidLiteral(s string) bool {
	if _, err := strconv.ParseFloat(s, 64); errors.Is(err, strconv.ErrSyntax) {
		return true // the parser has words for it
	}
	v, err := ParseNumber(s)
	if err != nil {
		return false
	}
	mantissa, _, _ := strings.Cut(strings.ToLower(s), "e")
	return !v.RawEquals(cty.Zero) || strings.Trim(mantissa, "0.") == ""
}

// huge reports a number whose digits must not be written out. The product of two numbers that a
// double can hold is not.
func huge(v cty.Value) bool {
	if v.Type() != cty.Number || v.IsNull() || !v.IsKnown() {
		return false
	}
	f := v.AsBigFloat()
	exponent := f.MantExp(nil)
	return !f.IsInf() && (exponent > 1<<12 || exponent < -1<<12)
}
