package sign

import (
	"bytes"
	"fmt"
	"testing"
)

// BenchmarkSign signs an event of 1 KiB by each scheme, with one secret and during a
// rotation.
func BenchmarkSign(b *testing.B) {
	secrets := map[string][]string{"hmac": {whsec(1)}, "hmac rotation": {whsec(1), whsec(2)}, "ed25519": {whsk(1)}}
	schemes := []*Scheme{mustNew(b, acmeSpec())}
	for _, name := range BuiltinNames() {
		schemes = append(schemes, builtin(b, name))
	}
	for _, scheme := range schemes {
		for _, kind := range []string{"hmac", "hmac rotation", "ed25519"} {
			if kind == "ed25519" && scheme.spec.Algorithm != "" {
				continue // to these it is a shared secret
			}
			b.Run(fmt.Sprint(scheme.Name(), " ", kind), func(b *testing.B) {
				s := mustSigner(b, scheme, secrets[kind]...)
				m := message()
				m.Body = bytes.Repeat([]byte("a"), 1024)
				var headers []Header
				b.SetBytes(int64(len(m.Body)))
				b.ReportAllocs()
				for b.Loop() {
					headers = s.Sign(headers[:0], m)
				}
			})
		}
	}
}
