package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
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
	later := links.sign(claims{ID: "LATERLATERLATER2", Tenant: "acme", May: []Right{Read}, Made: time.Now().UnixMilli() + 2000, Expires: time.Now().Add(time.Hour).Unix()})
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
	is    atomic.Bool
	calls atomic.Int64 // while it is away
	err   error        // its own; nil for outbox.ErrUnavailable
}

// refuse is the error of a call while it is away. A caller that asks in a spin stops there, so that a bubble goes on.
func (a *adrift) refuse(ctx context.Context) error {
	if a.calls.Add(1) > 1000 {
		<-ctx.Done()
	}
	return cmp.Or(a.err, outbox.ErrUnavailable)
}

func (a *adrift) Documents(ctx context.Context, kind string, after uint64) ([]outbox.Document, uint64, error) {
	if a.is.Load() {
		return nil, 0, a.refuse(ctx)
	}
	return a.Mem.Documents(ctx, kind, after)
}

func (a *adrift) PutDocument(ctx context.Context, d outbox.Document) (outbox.Document, error) {
	if a.is.Load() {
		return outbox.Document{}, a.refuse(ctx)
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
		c := claims{ID: "AAAAAAAAAAAAAAAA", Tenant: "acme", Made: time.Now().UnixMilli()}
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
			if _, err := one.revoke(ctx, which{Tenant: "beta"}, until); err != nil || one.end(&claims{Tenant: "beta", Made: time.Now().UnixMilli()}) != LinkRevoked {
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
		time.Sleep(longestLink + clocksDiffer - 2*time.Hour)
		if two.end(&c) != LinkRevoked {
			t.Error("forgotten while a link may hold")
		}
		time.Sleep(5 * time.Hour)
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

// A link that is made right after all of its tenant were taken back holds.
func TestLinkMadeRightAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOperator(t)
		links := Links{Keys: []string{keyOfLinks}, Revoked: NewRevoked(o.Mem, zerolog.Nop())}
		testkit.Must(t, links.Revoked.Load(t.Context()))
		o.options.Links = func() Links { return links }
		o.use(o.Mem)
		before := done[Link](o, 201, "POST", "/v1/links", `{"tenant":"acme"}`)
		done[LinksRevoked](o, 200, "DELETE", "/v1/links?tenant=acme", "")
		time.Sleep(2 * time.Millisecond)
		after := done[Link](o, 201, "POST", "/v1/links", `{"tenant":"acme"}`)
		if links.Access(before.Token, time.Now()) != nil || links.Access(after.Token, time.Now()) == nil {
			t.Errorf("from before: %q, from after: %q", links.End(before.Token, time.Now()), links.End(after.Token, time.Now()))
		}
	})
}

// An outage is asked about once a second and logged once, also while its error is a timeout of the network.
func TestRevokedRestsDuringAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		box := &adrift{Mem: outboxtest.NewMem(outboxtest.MemOptions{}), err: fmt.Errorf("%w: dial tcp: %w", outbox.ErrUnavailable, context.DeadlineExceeded)}
		box.is.Store(true)
		log := new(testkit.Log)
		go NewRevoked(box, zerolog.New(log)).Follow(ctx)
		time.Sleep(time.Minute + time.Second/2)
		if n, lines := box.calls.Load(), log.Count("cannot be read now"); n != 61 || lines != 1 {
			t.Errorf("%d calls and %d lines in a minute", n, lines)
		}
		stop()
		synctest.Wait()
	})
}

// Documents about links that have ended go in parts, however many there are. An outage ends a part at its first call.
func TestManyAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		box := &adrift{Mem: outboxtest.NewMem(outboxtest.MemOptions{})}
		v := NewRevoked(box, zerolog.Nop())
		for i := range 2*forgetMost + 1 {
			if _, err := v.revoke(ctx, which{Tenant: fmt.Sprint(i)}, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		testkit.Must(t, v.Load(ctx))
		time.Sleep(longestLink + clocksDiffer + time.Second)
		box.is.Store(true)
		if v.forget(ctx); box.calls.Load() != 1 {
			t.Errorf("%d calls of an outbox that is away", box.calls.Load())
		}
		box.is.Store(false)
		if v.forget(ctx); len(v.known) != forgetMost+1 {
			t.Errorf("%d are left by the first part", len(v.known))
		}
		go v.Follow(ctx)
		synctest.Wait()
		if all, _, err := box.Documents(ctx, LinkKind, 0); err != nil || len(all) > 0 || len(v.known)+len(v.names) > 0 {
			t.Errorf("%d documents stay, %d are known, %v", len(all), len(v.known), err)
		}
		stop()
		synctest.Wait()
	})
}

// behind is an outbox whose clock is a year behind that of this machine.
type behind struct{ *outboxtest.Mem }

func (behind) At(t time.Time) time.Time { return t.AddDate(-1, 0, 0) }

// A Relay whose clock is ahead makes no link hold again.
func TestClockThatIsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		box := behind{outboxtest.NewMem(outboxtest.MemOptions{})}
		v := NewRevoked(box, zerolog.Nop())
		c := claims{ID: "AAAAAAAAAAAAAAAA"}
		if _, err := v.revoke(ctx, which{ID: c.ID}, box.At(time.Now())); err != nil {
			t.Fatal(err)
		}
		go v.Follow(ctx)
		time.Sleep(2 * forgetEvery)
		if v.end(&c) != LinkRevoked {
			t.Error("it is forgotten")
		}
		stop()
		synctest.Wait()
	})
}

// slowReads is an outbox that answers reads when it is told to.
type slowReads struct {
	*outboxtest.Mem
	asked, answer chan struct{}
}

func (s *slowReads) Documents(ctx context.Context, kind string, after uint64) ([]outbox.Document, uint64, error) {
	all, revision, err := s.Mem.Documents(ctx, kind, after)
	close(s.asked)
	<-s.answer
	return all, revision, err
}

// A link is taken back, and others are looked at, while a read is under way; its answer, which is older, undoes nothing.
func TestTakenBackAmidRead(t *testing.T) {
	box := &slowReads{outboxtest.NewMem(outboxtest.MemOptions{}), make(chan struct{}), make(chan struct{})}
	v := NewRevoked(box, zerolog.Nop())
	read, revoked := make(chan error, 1), make(chan error, 1)
	go func() { read <- v.Load(t.Context()) }()
	<-box.asked
	go func() {
		_, err := v.revoke(t.Context(), which{Tenant: "acme"}, time.Now())
		revoked <- err
	}()
	select {
	case err := <-revoked:
		testkit.Must(t, err)
	case <-time.After(time.Minute):
		t.Error("it waits for the read")
	}
	close(box.answer)
	if testkit.Must(t, <-read); v.end(&claims{Tenant: "acme"}) != LinkRevoked {
		t.Error("the answer undoes it")
	}
}

// Before it is known which links were taken back, a link is not refused for good.
func TestLinkThatCannotBeChecked(t *testing.T) {
	links := Links{Keys: []string{keyOfLinks}, Revoked: NewRevoked(outboxtest.NewMem(outboxtest.MemOptions{}), zerolog.Nop())}
	token := links.sign(claims{Tenant: "acme", May: []Right{Read}, Expires: time.Now().Add(time.Hour).Unix()})
	refused := 0
	handler := Authorize(func() *Tokens { return &Tokens{Links: links} }, false, func(*http.Request) { refused++ }, http.NotFoundHandler())
	ask := func(token string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "/v1/deliveries", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
	if w := ask(token); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || refused != 0 {
		t.Errorf("%d %s, refused %d", w.Code, w.Body, refused)
	}
	if w := ask(token + "x"); w.Code != http.StatusUnauthorized || refused != 1 {
		t.Errorf("a forged one: %d, refused %d", w.Code, refused)
	}
	testkit.Must(t, links.Revoked.Load(t.Context()))
	if w := ask(token); w.Code != http.StatusNotFound {
		t.Errorf("once it is known: %d", w.Code)
	}
}
