package sign

import "testing"

func TestSignersAreEqual(t *testing.T) {
	scheme := func(name, prefix string) *Scheme {
		s, err := New(Spec{
			Name: name, Algorithm: "hmac-sha256", Encoding: "hex", Secret: "raw",
			Signed:  Template{{Variable: "body"}},
			Headers: []HeaderSpec{{Name: "X-Signature", Value: Template{{Literal: prefix}, {Variable: "signature"}}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	signer := func(s *Scheme, secrets ...string) *Signer {
		made, err := NewSigner(s, secrets)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	const one, two = "one one one one one", "two two two two two"
	first := signer(scheme("acme", "v1="), one, two)
	for _, c := range []struct {
		name string
		s    *Signer
		want bool
	}{
		{"made again", signer(scheme("acme", "v1="), one, two), true},
		{"other order", signer(scheme("acme", "v1="), two, one), false},
		{"one secret less", signer(scheme("acme", "v1="), one), false},
		{"another secret", signer(scheme("acme", "v1="), one, "three three three"), false},
		{"another template", signer(scheme("acme", "v2="), one, two), false},
		{"another scheme", signer(Standard(), "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"), false},
	} {
		if got := first.Equal(c.s); got != c.want {
			t.Errorf("%s: equal is %t", c.name, got)
		}
	}
}
