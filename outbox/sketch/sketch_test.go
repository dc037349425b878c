package sketch

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// accurate tells whether a quantile is within Accuracy, of which rounding to a nanosecond and the borders of
// bins, which are not exact, take a little.
func accurate(got, exact time.Duration) bool {
	return math.Abs(float64(got-exact)) <= Accuracy*float64(exact)+0.5+1e-9*float64(exact)
}

// The shortest and the longest duration of every bin but the last one, which has no longest.
func TestBordersOfBins(t *testing.T) {
	for bin := range binCount - 1 {
		border := time.Duration(float64(shortest) * math.Pow(gamma, float64(bin)))
		for d := border - 1; d <= border+1; d++ {
			var s Sketch
			s.Add(d)
			if got := s.Quantile(0.5); d >= shortest && !accurate(got, d) {
				t.Errorf("%v is shown as %v", d, got)
			}
		}
	}
}

// Quantiles are within Accuracy of the exact ones, over merges and encodings.
func TestQuantiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(math.Pow(10, rapid.Float64Range(4, 12.5).Draw(t, "exponent")))
		}), 1, 300).Draw(t, "durations")
		var a, b Sketch
		var sum time.Duration
		for i, d := range all {
			sum += d
			if i%2 == 0 {
				a.Add(d)
			} else {
				b.Add(d)
			}
		}
		parsed, err := Parse(b.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		a.Merge(&parsed)
		if a.Count() != int64(len(all)) || a.Mean() != sum/time.Duration(len(all)) {
			t.Fatalf("count %d, mean %v; want %d, %v", a.Count(), a.Mean(), len(all), sum/time.Duration(len(all)))
		}
		slices.Sort(all)
		for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.95, 0.99, 1} {
			exact := all[max(0, int(math.Ceil(q*float64(len(all))))-1)]
			got := a.Quantile(q)
			if q > 0 && !accurate(got, exact) {
				t.Fatalf("quantile %v is %v, exact is %v", q, got, exact)
			}
		}
	})
}

func TestEnds(t *testing.T) {
	var s Sketch
	if s.Quantile(0.5) != 0 || s.Mean() != 0 || len(s.Append(nil)) == 0 {
		t.Fatal("an empty sketch has quantiles")
	}
	s.Add(-time.Second)
	s.Add(1000 * time.Hour)
	if got := s.Quantile(0.5); got != shortest {
		t.Errorf("shortest is %v", got)
	}
	if got := s.Quantile(1); got < 50*time.Minute {
		t.Errorf("longest is %v", got)
	}
}

func FuzzParse(f *testing.F) {
	var s Sketch
	s.Add(time.Millisecond)
	s.Add(time.Second)
	f.Add(s.Append(nil))
	f.Add([]byte{0, 0xff, 0xff, 0x03, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err != nil {
			return
		}
		again, err := Parse(s.Append(nil))
		if err != nil || again.Count() != s.Count() || again.Quantile(0.5) != s.Quantile(0.5) {
			t.Fatalf("%x: %v", b, err)
		}
	})
}
