package eval

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// Functions wraps functions of cty, so that they take from an allowance. One evaluation uses them
// at a time.
func Functions(of map[string]function.Function, left *Allowance) map[string]function.Function {
	all := make(map[string]function.Function, len(of))
	regex := regexFunctions(left)
	for name, f := range of {
		if own, ok := regex[name]; ok {
			f = own
		}
		all[name] = Bounded(name, f, left)
	}
	return all
}

// Bounded wraps a function, so that it takes from an allowance and refuses results over MaxText
// or MaxValues. Functions that could make gigabytes of a few bytes are refused before the call.
func Bounded(name string, f function.Function, left *Allowance) function.Function {
	return function.New(&function.Spec{
		Params:   unmarked(f.Params()),
		VarParam: unmarkedOne(f.VarParam()),
		Type:     function.StaticReturnType(cty.DynamicPseudoType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			for _, v := range args {
				if huge(v) {
					return cty.NilVal, ErrNumber
				}
			}
			if !left.Spend(reads(name, args, int(left.budget))) {
				return cty.NilVal, left.Err()
			}
			if name == "range" && ranges(args) > maxRange {
				return cty.NilVal, errRange
			}
			if makes(name, args) > MaxText {
				return cty.NilVal, BoundError(fmt.Sprintf("it could make more than %d bytes", MaxText))
			}
			v, err := f.Call(args)
			switch {
			case err != nil, v.IsNull():
			case v.Type() == cty.String && len(v.AsString()) > MaxText:
				return cty.NilVal, BoundError(fmt.Sprintf("it makes more than %d bytes", MaxText))
			case v.CanIterateElements() && v.LengthInt() > MaxValues:
				return cty.NilVal, BoundError(fmt.Sprintf("it makes more than %d values", MaxValues))
			}
			return v, err
		},
	})
}

// unmarked declares that parameters accept marked values, so that cty does not look for marks,
// which never occur.
func unmarked(params []function.Parameter) []function.Parameter {
	for i := range params {
		params[i].AllowMarked = true
	}
	return params
}

func unmarkedOne(p *function.Parameter) *function.Parameter {
	if p == nil {
		return nil
	}
	q := *p
	q.AllowMarked = true
	return &q
}

// Verbs of format with a width of four digits or more, and those that take a number.
var (
	wide    = regexp.MustCompile(`%[^%a-zA-Z]*[0-9]{4}`)
	numeric = regexp.MustCompile(`%[^%a-zA-Z]*[bcdeEfFgGoxX]`)
)

// makes is a lower bound of the result's size for functions that can multiply their arguments, 0
// for the others.
func makes(name string, args []cty.Value) int {
	switch name {
	case "replace":
		return len(text(args, 0)) + strings.Count(text(args, 0), text(args, 1))*len(text(args, 2))
	case "regexreplace": // each group is of one match, so all of a group's texts are at most the text
		s, replacement := text(args, 0), text(args, 2)
		return len(s) + (len(s)+1)*len(replacement) + strings.Count(replacement, "$")*len(s)
	case "join":
		n := 0
		for _, list := range args[1:] {
			if !list.IsNull() {
				n += weigh(list, MaxText) + list.LengthInt()*len(text(args, 0))
			}
		}
		return n
	case "distinct": // which compares each with each
		if !args[0].IsNull() && args[0].LengthInt() > 1000 {
			return MaxText + 1
		}
	case "format", "formatlist":
		return formatMakes(name, args)
	}
	return 0
}

// maxRange is how many numbers cty's range makes at most.
const maxRange = 1024

var errRange = BoundError(fmt.Sprintf("it makes more than %d values", maxRange))

// ranges is how many numbers range makes of numbers that it takes, 0 where it takes none.
func ranges(args []cty.Value) float64 {
	var n [3]float64
	if len(args) > len(n) {
		return 0
	}
	for i, v := range args {
		if v.IsNull() || !v.IsKnown() || v.Type() != cty.Number {
			return 0
		}
		n[i], _ = v.AsBigFloat().Float64()
	}
	switch len(args) {
	case 1:
		return math.Ceil(math.Abs(n[0]))
	case 2:
		return math.Ceil(math.Abs(n[1] - n[0]))
	case 3:
		return math.Ceil((n[1] - n[0]) / n[2]) // without end where the step is 0
	}
	return 0
}

func formatMakes(name string, args []cty.Value) int {
	spec := text(args, 0)
	takesNumber := numeric.MatchString(spec)
	most, rows := 0, 1
	for i, a := range args[1:] {
		most += weigh(a, MaxText)
		if !a.IsNull() && name == "formatlist" && a.CanIterateElements() {
			rows = max(rows, a.LengthInt())
		}
		if takesNumber {
			if _, err := strconv.ParseFloat(text(args, i+1), 64); errors.Is(err, strconv.ErrRange) {
				return MaxText + 1 // 1e999999999 with all its digits
			}
		}
	}
	if wide.MatchString(spec) {
		return MaxText + 1
	}
	return rows * (len(spec) + strings.Count(spec, "%")*(most+1000))
}

// JSONDecode is f, the function jsondecode of cty, without values that are too large: numbers
// that a double cannot hold, and more than MaxValues values.
func JSONDecode(f function.Function) function.Function {
	return function.New(&function.Spec{
		Params: f.Params(),
		Type:   function.StaticReturnType(cty.DynamicPseudoType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			d := json.NewDecoder(strings.NewReader(args[0].AsString()))
			d.UseNumber()
			for n := 0; ; n++ {
				token, err := d.Token()
				if err != nil { // the end, or what cty has words for
					return f.Call(args)
				}
				if number, ok := token.(json.Number); ok && !ValidLiteral(strings.TrimPrefix(number.String(), "-")) {
					return cty.NilVal, ErrNumber
				}
				if n > 2*MaxValues {
					return cty.NilVal, BoundError(fmt.Sprintf("it makes more than %d values", MaxValues))
				}
			}
		},
	})
}
