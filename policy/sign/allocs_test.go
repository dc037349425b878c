//go:build !race

package sign

import "testing"

// The values of a request's headers are one object together, whatever their number.
func TestAllocationsOfSign(t *testing.T) {
	for _, secrets := range [][]string{{whsec(1)}, {whsec(1), whsec(2)}} {
		s, m := mustSigner(t, mustNew(t, acmeSpec()), secrets...), message()
		var header []Header
		if n := testing.AllocsPerRun(100, func() { header = s.Sign(header[:0], m) }); n != 1 {
			t.Errorf("%d headers are %v objects, want 1", len(header), n)
		}
	}
}
