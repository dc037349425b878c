package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
)

const keyOfLinks = "0123456789abcdef0123456789abcdef"

// A link is taken back alone, with all of its tenant, or with those that were made for somebody. Others hold, and so do later ones.
func TestLinksAreTakenBack(t *testing.T) {
	h := newHouse(t)
	revoked := NewRevoked(h.store, zerolog.Nop())
	testkit.Must(t, revoked.Load(t.Context()))
	links := Links{Keys: []string{keyOfLinks}, Revoked: revoked}
	h.o.Links = func() Links { return links }
	link := func(body string) *Link {
		t.Helper()
		l := &Link{}
		if w := h.as(nil, "POST", "/v1/links", body); w.Code != http.StatusCreated || json.Unmarshal(w.Body.Bytes(), l) != nil || IDOfLink(l.Token) != l.ID {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		return l
	}
	check := func(when string, want map[*Link]LinkEnd) {
		t.Helper()
		for l, end := range want {
			access := links.Access(l.Token, time.Now())
			if got := links.End(l.Token, time.Now()); got != end || (access != nil) != (end == LinkHolds) {
				t.Errorf("%s: the link of %s for %q: %q, access %v", when, l.Tenant, l.For, got, access)
			}
		}
	}
	del := func(target string) {
		t.Helper()
		if w := h.as(nil, "DELETE", target, ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"ends":"`) {
			t.Fatalf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	ann, bob, cy, beta := link(`{"tenant":"acme","for":"Ann"}`), link(`{"tenant":"acme","for":"Bob"}`), link(`{"tenant":"acme"}`), link(`{"tenant":"beta","for":"Bob"}`)
	del("/v1/links/" + cy.ID)
	check("one", map[*Link]LinkEnd{ann: LinkHolds, bob: LinkHolds, cy: LinkRevoked, beta: LinkHolds})
	del("/v1/links?tenant=acme&for=Bob")
	check("those of Bob", map[*Link]LinkEnd{ann: LinkHolds, bob: LinkRevoked, cy: LinkRevoked, beta: LinkHolds})
	del("/v1/links?tenant=acme")
	check("all of acme", map[*Link]LinkEnd{ann: LinkRevoked, bob: LinkRevoked, beta: LinkHolds})
	old := links.sign(claims{Tenant: "acme", May: []Right{Read}, Expires: time.Now().Add(time.Hour).Unix()})
	if links.End(old, time.Now()) != LinkRevoked || IDOfLink(old) != "" {
		t.Error("a link of an earlier version, which says neither its id nor when it was made, holds")
	}
	later := links.sign(claims{ID: "LATERLATERLATER2", Tenant: "acme", May: []Right{Read}, Made: time.Now().Unix() + 2, Expires: time.Now().Add(time.Hour).Unix()})
	if links.End(later, time.Now()) != LinkHolds {
		t.Error("a link that was made later does not hold")
	}
	if log := h.as(nil, "GET", "/v1/audit?verb=link", "").Body.String(); !strings.Contains(log, `"verb":"link revoke","what":"link `+cy.ID+`"`) || !strings.Contains(log, `"what":"tenant acme","after":{"for":"Bob"}`) ||
		!strings.Contains(log, `"after":{"id":"`+ann.ID+`"`) || strings.Contains(log, LinkPrefix) {
		t.Errorf("the audit has %s", log)
	}
}

func TestWhatCannotBeTakenBack(t *testing.T) {
	h := newHouse(t)
	h.o.Links = func() Links { return Links{Keys: []string{keyOfLinks}, Revoked: NewRevoked(h.store, zerolog.Nop())} }
	for target, want := range map[string]string{
		"/v1/links/short": "invalid_parameter", "/v1/links/" + LinkPrefix + "x.y": "invalid_parameter", "/v1/links/AAAAAAAAAAAAAAAA?x=1": "unknown_parameter",
		"/v1/links": "invalid_parameter", "/v1/links?for=Ann": "invalid_parameter", "/v1/links?tenant=a&tenant=b": "invalid_parameter", "/v1/links?tenant=acme&for=": "invalid_parameter",
		"/v1/links?tenant=a%0Ab": "invalid_parameter", "/v1/links?tenant=acme&id=AAAAAAAAAAAAAAAA": "unknown_parameter",
	} {
		if w := h.as(nil, "DELETE", target, ""); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `"`+want+`"`) {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	h.o.Links = func() Links { return Links{} }
	if w := h.as(nil, "DELETE", "/v1/links/AAAAAAAAAAAAAAAA", ""); w.Code != http.StatusConflict {
		t.Errorf("without a key: %d %s", w.Code, w.Body)
	}
}

// adrift is an outbox that can be away.
type adrift struct {
	*outboxtest.Mem
	is atomic.Bool
}

func (a *adrift) Documents(ctx context.Context, kind string, after uint64) ([]outbox.Document, uint64, error) {
	if a.is.Load() {
		return nil, 0, outbox.ErrUnavailable
	}
	return a.Mem.Documents(ctx, kind, after)
}

func (a *adrift) PutDocument(ctx context.Context, d outbox.Document) (outbox.Document, error) {
	if a.is.Load() {
		return outbox.Document{}, outbox.ErrUnavailable
	}
	return a.Mem.PutDocument(ctx, d)
}

// A link that one Relay takes back ends at the others within a second. Before a Relay has read what was taken back no link holds there;
// one that loses its outbox goes on with what it knows. What is about links that have ended is forgotten.
func TestFleetTakesLinksBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		box := &adrift{Mem: outboxtest.NewMem(outboxtest.MemOptions{})}
		one, two := NewRevoked(box.Mem, zerolog.Nop()), NewRevoked(box, zerolog.Nop())
		box.is.Store(true)
		c := claims{ID: "AAAAAAAAAAAAAAAA", Tenant: "acme", Made: time.Now().Unix()}
		go one.Follow(ctx)
		go two.Follow(ctx)
		synctest.Wait()
		if one.end(&c) != LinkHolds || two.end(&c) != LinkUnsure {
			t.Errorf("before the first read: %q, %q", one.end(&c), two.end(&c))
		}
		box.is.Store(false)
		time.Sleep(1100 * time.Millisecond)
		if two.end(&c) != LinkHolds {
			t.Errorf("after the first read: %q", two.end(&c))
		}
		if _, err := one.revoke(ctx, which{ID: c.ID}, time.Now()); err != nil || one.end(&c) != LinkRevoked {
			t.Errorf("%v, %q", err, one.end(&c))
		}
		time.Sleep(time.Second)
		if two.end(&c) != LinkRevoked {
			t.Errorf("at the other: %q", two.end(&c))
		}
		if _, err := two.revoke(ctx, which{ID: c.ID}, time.Now()); err != nil {
			t.Errorf("a second time: %v", err)
		}
		for _, until := range []time.Time{time.Now(), time.Now().Add(-time.Hour)} { // by a clock that is behind
			if _, err := one.revoke(ctx, which{Tenant: "beta"}, until); err != nil || one.end(&claims{Tenant: "beta", Made: time.Now().Unix()}) != LinkRevoked {
				t.Errorf("until %s: %v", until, err)
			}
		}
		box.is.Store(true)
		if _, err := two.revoke(ctx, which{Tenant: "acme"}, time.Now()); !errors.Is(err, outbox.ErrUnavailable) {
			t.Errorf("while the outbox is away: %v", err)
		}
		if two.end(&c) != LinkRevoked || two.end(&claims{ID: "B", Tenant: "acme"}) != LinkHolds {
			t.Error("an outage changes what is known")
		}
		box.is.Store(false)
		time.Sleep(longestLink - time.Hour)
		if two.end(&c) != LinkRevoked {
			t.Error("forgotten while a link may hold")
		}
		time.Sleep(4 * time.Hour)
		for _, v := range []*Revoked{one, two} {
			if v.end(&c) != LinkHolds {
				t.Error("it is known still")
			}
		}
		if all, _, err := box.Mem.Documents(ctx, LinkKind, 0); err != nil || len(all) > 0 {
			t.Errorf("%d documents stay, %v", len(all), err)
		}
		stop()
		synctest.Wait()
	})
}
