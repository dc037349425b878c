package eval

import (
	"math/bits"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// valueCost is what it takes cty to look at a value, in nanoseconds.
const valueCost = 300

// values counts a value and those inside of it, and stops soon after limit.
func values(v cty.Value, limit int) int {
	n := 1
	if !v.IsNull() && v.IsKnown() && v.CanIterateElements() {
		for it := v.ElementIterator(); it.Next() && n <= limit; {
			_, e := it.Element()
			n += values(e, limit-n)
		}
	}
	return n
}

// byteCost is what a function takes for a byte that it reads, in nanoseconds.
func byteCost(function string) int {
	switch function {
	case "strlen", "substr": // of characters as people see them (Unicode Standard Annex 29)
		return 60
	case "jsondecode":
		return 40
	case "upper", "lower", "jsonencode", "format", "formatlist", "split", "regexreplace", "regex", "regexall":
		return 10
	}
	return 3
}

// reads estimates the cost of a call, in nanoseconds, before the call. limit bounds the values
// that are counted for that.
func reads(function string, args []cty.Value, limit int) int {
	number, size := 0, 0
	for _, v := range args {
		if v.Type() == cty.String {
			if number++; !v.IsNull() {
				size += len(v.AsString())
			}
			continue
		}
		number += values(v, limit/valueCost)
		size += weigh(v, limit)
	}
	cost := 200 + number*valueCost + size*byteCost(function)
	switch function {
	case "distinct": // compares each with each
		cost += number * (number*20 + size/20)
	case "coalesce": // finds a type for all
		cost += number * number * unifyCost
	case "sort":
		cost += size * bits.Len(uint(number))
	case "trim": // looks for each character among those to cut off
		cost += len(text(args, 0)) * len(text(args, 1)) / 4
	case "split":
		cost += strings.Count(text(args, 1), text(args, 0)) * valueCost
	case "format", "formatlist": // whose verbs are looked for
		cost += len(text(args, 0)) * 100
	case "replace":
		cost += strings.Count(text(args, 0), text(args, 1)) * 20
	}
	return cost
}

// text is an argument that is a text.
func text(args []cty.Value, i int) string {
	if i >= len(args) || args[i].IsNull() || args[i].Type() != cty.String {
		return ""
	}
	return args[i].AsString()
}
