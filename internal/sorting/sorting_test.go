package sorting

import (
	"cmp"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

type entry struct {
	key, place int
}

// Judge: the standard library's own sort.
func TestSortsLikeSlices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []entry
		for i, key := range rapid.SliceOfN(rapid.IntRange(-5, 5), 0, 100).Draw(t, "keys") {
			list = append(list, entry{key, i})
		}
		byKey := func(a, b entry) int { return cmp.Compare(a.key, b.key) }
		want := slices.Clone(list)
		slices.SortStableFunc(want, byKey)

		stable := slices.Clone(list)
		Stable(stable, byKey)
		if !slices.Equal(stable, want) {
			t.Fatalf("Stable makes %v of %v", stable, list)
		}
		byBoth := func(a, b entry) int { return cmp.Or(byKey(a, b), cmp.Compare(a.place, b.place)) }
		any := slices.Clone(list)
		By(any, byBoth)
		if !slices.Equal(any, want) {
			t.Fatalf("By makes %v of %v", any, list)
		}
	})
}
