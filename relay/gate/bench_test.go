package gate

import (
	"context"
	"testing"
	"time"

	"relay/policy"
)

// What a gate costs an attempt where nothing is in the way.
func BenchmarkGate(b *testing.B) {
	limited := func(e *policy.Endpoint) {
		e.RateLimit = &policy.RateLimit{N: 1e9, Per: time.Second, Burst: 1e9}
	}
	for _, bb := range []struct {
		name  string
		rules []func(*policy.Endpoint)
	}{
		{"none", nil},
		{"limit", []func(*policy.Endpoint){limited}},
		{"breaker", []func(*policy.Endpoint){withBreaker(b)}},
		{"both", []func(*policy.Endpoint){limited, withBreaker(b)}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			ctx := context.Background()
			m := newFleet().join("a", endpoint(bb.rules...))
			b.ReportAllocs()
			for b.Loop() {
				v := m.Look(ctx, 16)
				m.Passed(ctx)
				n, probe := m.Admit(ctx, min(v.N, 1))
				if n != 1 {
					b.Fatalf("%+v", v)
				}
				a := wentWell
				a.Probe = probe
				m.Ended(ctx, a)
			}
		})
	}
}
