// Package sorting sorts lists of structs with one algorithm for all types. slices.SortFunc is compiled again for
// every type of struct, some 15 KB of the binary each. It stays right for pointers, which share one copy, and
// where a sort runs for every event or attempt, because it is faster and allocates nothing.
package sorting

import "sort"

// By sorts a list like slices.SortFunc: compare is negative if a comes before b. Equal entries may change places.
func By[E any](list []E, compare func(a, b E) int) {
	sort.Slice(list, func(i, j int) bool { return compare(list[i], list[j]) < 0 })
}

// Stable is By that keeps the order of equal entries, like slices.SortStableFunc.
func Stable[E any](list []E, compare func(a, b E) int) {
	sort.SliceStable(list, func(i, j int) bool { return compare(list[i], list[j]) < 0 })
}
