package sqlite

import (
	"testing"
	"time"
)

// TestSlice: what reads take between two commits is bounded, however many there are, and small beside accepts.
func TestSlice(t *testing.T) {
	for _, test := range []struct {
		commit  time.Duration
		busy    bool
		readers int
		want    time.Duration
	}{
		{0, false, 0, 2 * time.Millisecond},
		{0, false, 1, 2 * time.Millisecond},
		{0, false, 4, 500 * time.Microsecond},
		{0, false, 1000, 100 * time.Microsecond},
		{6 * time.Millisecond, true, 1, 500 * time.Microsecond},
		{6 * time.Millisecond, true, 2, 250 * time.Microsecond},
		{time.Microsecond, true, 1, 100 * time.Microsecond},
		{time.Second, true, 1, 2 * time.Millisecond},
	} {
		if got := slice(test.commit, test.busy, test.readers); got != test.want {
			t.Errorf("slice(%v, %t, %d) = %v, want %v", test.commit, test.busy, test.readers, got, test.want)
		}
	}
}
