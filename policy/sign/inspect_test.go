package sign

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A masked signer writes the lines of the other, with no signature in them.
func TestMasked(t *testing.T) {
	acme, err := New(acmeSpec())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		scheme  *Scheme
		secrets []string
		want    []Header
	}{
		{"standard", Standard(), []string{whsec(1), whsk(2)}, []Header{
			{"webhook-id", message().EventID}, {"webhook-timestamp", "1614265330"}, {"webhook-signature", "v1,… v1a,…"},
		}},
		{"of one's own", acme, []string{rawSecret, rawSecret + "!"}, []Header{
			{"X-Acme-Signature", "sha256=…"}, {"X-Acme-Signature", "sha256=…"}, {"X-Acme-Timestamp", "1614265330"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := NewSigner(c.scheme, c.secrets)
			if err != nil {
				t.Fatal(err)
			}
			m := message()
			m.Time = sent
			if diff := cmp.Diff(c.want, s.Masked().Sign(nil, m)); diff != "" {
				t.Errorf("masked (-want +got):\n%s", diff)
			}
			for _, h := range s.Sign(nil, m) {
				if strings.Contains(h.Value, Hidden) {
					t.Errorf("%s is masked, too: %s", h.Name, h.Value)
				}
			}
			if s.Secrets() != len(c.secrets) || s.Scheme() != c.scheme {
				t.Errorf("%d secrets of %s", s.Secrets(), s.Scheme().Name())
			}
		})
	}
}

func TestSameSecrets(t *testing.T) {
	acme, err := New(acmeSpec())
	if err != nil {
		t.Fatal(err)
	}
	signer := func(s *Scheme, secrets ...string) *Signer {
		signer, err := NewSigner(s, secrets)
		if err != nil {
			t.Fatal(err)
		}
		return signer
	}
	one := signer(Standard(), whsec(1), whsec(2))
	for _, c := range []struct {
		name        string
		other       *Signer
		same, known bool
	}{
		{"the same", signer(Standard(), whsec(1), whsec(2)), true, true},
		{"another order", signer(Standard(), whsec(2), whsec(1)), false, true},
		{"one less", signer(Standard(), whsec(1)), false, true},
		{"another", signer(Standard(), whsec(1), whsec(3)), false, true},
		{"another kind", signer(Standard(), whsec(1), whsk(2)), false, true},
		{"another scheme", signer(acme, rawSecret, rawSecret), false, false},
	} {
		if same, known := one.SameSecrets(c.other); same != c.same || known != c.known {
			t.Errorf("%s: same %t, known %t", c.name, same, known)
		}
	}
	if !Standard().Equal(Standard()) || Standard().Equal(acme) {
		t.Error("schemes are not told apart")
	}
}
