// Package sketch counts durations in logarithmic bins, so that quantiles of many processes and
// periods can be added up. It is DDSketch (Masson, Rim, Lee: "DDSketch: A Fast and Fully-Mergeable
// Quantile Sketch with Relative-Error Guarantees", VLDB 2019) for durations: the bins have fixed
// borders, so sketches are added bin by bin and lose nothing.
package sketch

import (
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"slices"
	"time"
)

// Accuracy is the largest relative error of a quantile.
const Accuracy = 0.02

// binCount is how many bins there are. The first one has all up to 10 µs, the last one all from about an hour on.
const binCount = 496

const shortest = 10 * time.Microsecond

// gamma is the ratio of a bin's borders.
const gamma = (1 + Accuracy) / (1 - Accuracy)

// Sketch is a distribution of durations. The zero value is empty.
type Sketch struct {
	bins  map[int]int64
	count int64
	sum   time.Duration
}

// binOf returns the bin of a duration, from 0 to binCount-1.
func binOf(d time.Duration) int {
	if d <= shortest {
		return 0
	}
	i := int(math.Ceil(math.Log(float64(d)/float64(shortest)) / math.Log(gamma)))
	return min(i, binCount-1)
}

// value is the duration that is within Accuracy of all in the bin, rounded to a nanosecond.
func value(bin int) time.Duration {
	if bin == 0 {
		return shortest
	}
	return time.Duration(math.Round(float64(shortest) * 2 * math.Pow(gamma, float64(bin)) / (gamma + 1)))
}

// Add counts one duration.
func (s *Sketch) Add(d time.Duration) { s.addBin(binOf(d), 1, max(d, 0)) }

// addBin counts n durations of a bin, with their sum. A bin or number that cannot be is ignored.
func (s *Sketch) addBin(bin int, n int64, sum time.Duration) {
	if bin < 0 || bin >= binCount || n <= 0 {
		return
	}
	if s.bins == nil {
		s.bins = map[int]int64{}
	}
	s.bins[bin] += n
	s.count += n
	s.sum += sum
}

// Merge adds all of o.
func (s *Sketch) Merge(o *Sketch) {
	for bin, n := range o.bins {
		s.addBin(bin, n, 0)
	}
	s.sum += o.sum
}

// Clone returns a copy.
func (s *Sketch) Clone() Sketch { return Sketch{maps.Clone(s.bins), s.count, s.sum} }

// Count returns how many durations were counted.
func (s *Sketch) Count() int64 { return s.count }

// Mean returns the exact mean, 0 if the sketch is empty.
func (s *Sketch) Mean() time.Duration {
	if s.count == 0 {
		return 0
	}
	return s.sum / time.Duration(s.count)
}

// Quantile returns the duration that a part q of all does not exceed (0 to 1), within Accuracy; 0
// if the sketch is empty.
func (s *Sketch) Quantile(q float64) time.Duration {
	if s.count == 0 {
		return 0
	}
	rank := int64(math.Ceil(q * float64(s.count)))
	for _, bin := range slices.Sorted(maps.Keys(s.bins)) {
		if rank -= s.bins[bin]; rank <= 0 {
			return value(bin)
		}
	}
	return 0
}

// Append appends the sketch in a compact form: sum, then bins by their distance, as uvarints.
func (s *Sketch) Append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(s.sum))
	last := 0
	for _, bin := range slices.Sorted(maps.Keys(s.bins)) {
		b = binary.AppendUvarint(b, uint64(bin-last))
		b = binary.AppendUvarint(b, uint64(s.bins[bin]))
		last = bin
	}
	return b
}

// Parse reads what Append wrote.
func Parse(b []byte) (Sketch, error) {
	var s Sketch
	if len(b) == 0 {
		return s, nil
	}
	sum, n := binary.Uvarint(b)
	if n <= 0 {
		return s, errBroken
	}
	b = b[n:]
	for bin := 0; len(b) > 0; {
		distance, n := binary.Uvarint(b)
		if n <= 0 || distance >= binCount {
			return Sketch{}, errBroken
		}
		count, m := binary.Uvarint(b[n:])
		bin += int(distance)
		if m <= 0 || bin >= binCount || count == 0 || count > math.MaxInt64/2 {
			return Sketch{}, errBroken
		}
		s.addBin(bin, int64(count), 0)
		b = b[n+m:]
	}
	s.sum = time.Duration(sum)
	return s, nil
}

var errBroken = errors.New("sketch is broken")

// Subtract takes away all of o, which must be a part of s.
func (s *Sketch) Subtract(o *Sketch) {
	for bin, n := range o.bins {
		n = min(n, s.bins[bin])
		if s.bins[bin] -= n; s.bins[bin] == 0 {
			delete(s.bins, bin)
		}
		s.count -= n
	}
	s.sum -= o.sum
}
