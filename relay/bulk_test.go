package main

import (
	"strings"
	"testing"

	"relay/relay/admin"
)

// A number that nobody knows is told as such: counting may end before it has found anything.
func TestTextsOfTotals(t *testing.T) {
	for _, x := range []struct {
		total        admin.Total
		short, match string
	}{
		{admin.Total{N: 0}, "0", "0 deliveries match"},
		{admin.Total{N: 1}, "1", "1 delivery matches"},
		{admin.Total{N: 2}, "2", "2 deliveries match"},
		{admin.Total{N: 1, AtLeast: true}, "at least 1", "at least 1 deliveries match"},
		{admin.Total{AtLeast: true}, "unknown", "how many deliveries match is not known"},
	} {
		if got := totalOf(&x.total); got != x.short {
			t.Errorf("%+v: %q, want %q", x.total, got, x.short)
		}
		if got := matchOf(&x.total); !strings.HasPrefix(got, x.match) {
			t.Errorf("%+v: %q, want %q", x.total, got, x.match)
		}
		if got := deliveriesOf(&x.total) + resentOf(&admin.BulkAnswer{Resent: &x.total}) + moreOf(20, &x.total, new("c")); strings.Contains(got, "at least 0") {
			t.Errorf("%+v: %q", x.total, got)
		}
	}
	if got := resentOf(&admin.BulkAnswer{Resent: &admin.Total{AtLeast: true}}); !strings.HasPrefix(got, " (an unknown number of them") {
		t.Errorf("%q", got)
	}
}
