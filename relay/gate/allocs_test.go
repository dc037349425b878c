//go:build !race

package gate

import (
	"context"
	"testing"
	"time"
)

// A successful attempt without any rule costs its gate no allocation: no timer, no
// context, no error of a reading.
func TestAllocationsOfAnAttempt(t *testing.T) {
	ctx := context.Background()
	m := newFleet().join("a", endpoint())
	m.Passed(ctx)
	n := testing.AllocsPerRun(100, func() {
		v := m.Look(ctx, 16)
		m.Passed(ctx)
		m.Admit(ctx, min(v.N, 1))
		a := wentWell
		a.RetryAfter = ParseRetryAfter("", time.Time{})
		m.Ended(ctx, a)
	})
	if n != 0 {
		t.Errorf("%v objects, want none", n)
	}
}
