package gate

import (
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"relay/policy"
)

func TestConsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &policy.Endpoint{Name: "a", URL: &url.URL{Scheme: "https", Host: "a.test"}, Handshake: true, Origin: "x.test"}
		g := New(Options{}).Gate("a")
		look := func(want Grant) {
			t.Helper()
			if got := g.Look(t.Context(), 1); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
		g.Use(e)
		ask := Grant{Cause: NoConsent}
		look(ask)

		// Refused: asked again ever less often.
		for _, wait := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
			wait *= time.Second
			if again := g.Asked(e, Consent{Why: "no"}); !again.Equal(time.Now().Add(wait)) {
				t.Errorf("asked again at %s", again)
			}
			look(Grant{Cause: NoConsent, Wait: wait})
			time.Sleep(wait)
			look(ask)
		}
		if s := g.State(); s.Cause != NoConsent || s.Why != "no" {
			t.Errorf("state %+v", s)
		}

		// Given: for a day, and the next refusal is the first one again.
		g.Asked(e, Consent{Given: true, Rate: 60})
		look(Grant{N: 1})
		if s := g.State(); s.Limit != 1 || s.Why != "" {
			t.Errorf("state %+v", s)
		}
		time.Sleep(consentLasts)
		look(ask)
		g.Asked(e, Consent{})
		look(Grant{Cause: NoConsent, Wait: consentAgain})
		if s := g.State(); s.Limit != 0 {
			t.Errorf("the rate of a consent that is over holds: %+v", s)
		}

		// The answer to another endpoint is ignored; another URL is asked again.
		same, other := *e, *e
		same.Description = "x"
		other.URL = &url.URL{Scheme: "https", Host: "b.test"}
		g.Asked(e, Consent{Given: true})
		g.Use(&same)
		look(Grant{N: 1})
		g.Use(&other)
		g.Asked(e, Consent{Given: true})
		look(ask)

		// Who asks for none needs none.
		none := *e
		none.Handshake, none.Origin = false, ""
		g.Use(&none)
		look(Grant{N: 1})
	})
}
