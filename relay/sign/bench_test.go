package sign

import (
	"bytes"
	"testing"
	"time"
)

// BenchmarkSign signs an event of 1 KiB.
func BenchmarkSign(b *testing.B) {
	acme := mustNew(b, acmeSpec())
	for _, bb := range []struct {
		name    string
		scheme  *Scheme
		secrets []string
	}{
		{"standard v1", Standard(), []string{whsec(1)}},
		{"standard v1 rotation", Standard(), []string{whsec(1), whsec(2)}},
		{"standard v1a", Standard(), []string{whsk(1)}},
		{"acme", acme, []string{rawSecret}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			s := mustSigner(b, bb.scheme, bb.secrets...)
			m := &Message{EventID: "evt_01997a3c-6a1e-7c34-8a8c-3b1f7e0c9d11", EventType: "invoice.paid",
				Time: time.Unix(1614265330, 0), Body: bytes.Repeat([]byte("a"), 1024)}
			var headers []Header
			b.SetBytes(int64(len(m.Body)))
			b.ReportAllocs()
			for b.Loop() {
				headers = s.Sign(headers[:0], m)
			}
		})
	}
}
