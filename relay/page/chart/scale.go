package chart

import (
	"math"
	"slices"
)

// scale is an axis from bottom to top. Its ticks are at equal distances, so that HTML can lay out their labels.
type scale struct {
	ticks []float64 // from the bottom to the top
	log   bool
	least bool // the lowest tick stands for smaller values, too
}

// at is the height of v: 0 at the bottom, 1 at the top.
func (s scale) at(v float64) float64 {
	lo, hi := s.ticks[0], s.ticks[len(s.ticks)-1]
	if s.log {
		v, lo, hi = math.Log10(max(v, lo)), math.Log10(lo), math.Log10(hi)
	}
	return min(1, max(0, (v-lo)/(hi-lo)))
}

// intervals is how many of them an axis has at most.
const intervals = 4

// linear is a scale from 0 to a tick at or above the largest value, by steps that nice chooses.
func linear(largest float64, nice func(atLeast float64) float64) scale {
	step := nice(largest / intervals)
	n := max(1, math.Ceil(largest/step))
	s := scale{}
	for i := range int(n) + 1 {
		s.ticks = append(s.ticks, float64(i)*step)
	}
	return s
}

// decimal is 1, 2 or 5 times a power of ten.
func decimal(atLeast float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(max(atLeast, 1e-6))))
	for _, f := range []float64{1, 2, 5} {
		if f*power >= atLeast {
			return f * power
		}
	}
	return 10 * power
}

// whole is a step of counts.
func whole(atLeast float64) float64 { return max(1, decimal(atLeast)) }

// ofTime is a step of durations, in milliseconds: one that is nice in seconds, minutes, hours or days.
func ofTime(atLeast float64) float64 {
	const second, minute, hour, day = 1e3, 6e4, 36e5, 864e5
	if atLeast <= second/2 {
		return decimal(atLeast)
	}
	steps := []float64{
		second, 2 * second, 5 * second, 10 * second, 15 * second, 30 * second,
		minute, 2 * minute, 5 * minute, 10 * minute, 15 * minute, 30 * minute,
		hour, 2 * hour, 3 * hour, 6 * hour, 12 * hour,
	}
	if i, _ := slices.BinarySearch(steps, atLeast); i < len(steps) {
		return steps[i]
	}
	return day * max(1, decimal(atLeast/day))
}

const smallest = 0.001 // on a logarithmic axis, in milliseconds

// logarithmic is a scale by powers of ten, around positive values. Smaller ones, 0 included, are at the bottom.
func logarithmic(values []float64) scale {
	lo, hi, least := largest, smallest, false
	for _, v := range values {
		least = least || v < smallest
		lo, hi = min(lo, max(v, smallest)), max(hi, v)
	}
	from, to := math.Floor(math.Log10(lo)+1e-9), math.Ceil(math.Log10(hi)-1e-9)
	if to <= from {
		to = from + 1
	}
	stride := math.Ceil((to - from) / (intervals + 1))
	s := scale{log: true, least: least}
	for e := from; ; e += stride {
		s.ticks = append(s.ticks, power(e))
		if e >= to {
			return s
		}
	}
}

// power is ten to the power of e, without the rounding error of 1e-3.
func power(e float64) float64 {
	if e < 0 {
		return 1 / math.Pow(10, -e)
	}
	return math.Pow(10, e)
}
