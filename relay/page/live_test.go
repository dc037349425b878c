package page

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
	"relay/policy"
	"relay/relay/admin"
	"relay/relay/deliver"
)

// nobodyDelivers is a deliverer whose attempts never end.
type nobodyDelivers struct{ admin.Deliverer }

func (nobodyDelivers) Listen(func(*outbox.Item)) (stop func()) { return func() {} }

// What is live ends within about a second once the token is gone, has other rights, or the session is over.
func TestLiveEndsWithItsAccess(t *testing.T) {
	for name, change := range map[string]func(*door){
		"removed": func(g *door) { g.tokens = &admin.Tokens{Whole: wholeToken} },
		"another's tenant": func(g *door) {
			g.tokens = &admin.Tokens{Others: map[string]*admin.Access{acmeToken: {Name: "acme", May: []admin.Right{admin.Read}, Tenants: []string{"globex"}}}}
		},
		"12 hours": func(g *door) { g.now = g.now.Add(sessionFor) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newDoor(t)
				var mu sync.Mutex
				g.Tokens = func() *admin.Tokens { mu.Lock(); defer mu.Unlock(); return g.tokens }
				g.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return g.now }
				g.API = admin.New(admin.Options{Deliverer: nobodyDelivers{}, Policy: func() *policy.Policy { return &policy.Policy{} }})
				r := httptest.NewRequestWithContext(t.Context(), "GET", "http://relay.test:7171/live", nil)
				r.AddCookie(&http.Cookie{Name: "relay_session_7171", Value: g.login(acmeToken)})
				w, ended := httptest.NewRecorder(), make(chan struct{})
				go func() {
					defer close(ended)
					g.ServeHTTP(w, r)
				}()
				time.Sleep(20*time.Second + 500*time.Millisecond)
				synctest.Wait()
				select {
				case <-ended:
					t.Fatalf("it ended too soon: %d %s", w.Code, w.Body)
				default:
				}
				mu.Lock()
				g.tokens = &admin.Tokens{Others: map[string]*admin.Access{acmeToken: {Name: "acme", May: []admin.Right{admin.Read}, Tenants: []string{"acme"}}}} // the same after a reload
				mu.Unlock()
				time.Sleep(5 * time.Second)
				synctest.Wait()
				select {
				case <-ended:
					t.Fatal("a reload that changes nothing ends it")
				default:
				}
				mu.Lock()
				change(g)
				mu.Unlock()
				time.Sleep(1100 * time.Millisecond)
				synctest.Wait()
				select {
				case <-ended:
				default:
					t.Error("it goes on")
				}
			})
		})
	}
}

// changing is a deliverer of an endpoint that somebody pauses.
type changing struct {
	nobodyDelivers
	paused atomic.Bool
}

func (d *changing) Status() []deliver.Status { return nil }

func (d *changing) StatusOf(name string) (deliver.Status, bool) {
	if d.paused.Load() {
		return deliver.Status{Endpoint: name, State: deliver.Paused}, true
	}
	return deliver.Status{Endpoint: name, State: deliver.Active}, true
}

// empty is an outbox without deliveries.
type empty struct{ admin.Outbox }

func (empty) Counts(context.Context) (map[string]outbox.Counts, error) { return nil, nil }

// What is live on the screen of an endpoint hears that its state changed, also where no attempt ends.
func TestLiveHearsOfStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &changing{}
		p := New(Options{Open: true, API: admin.New(admin.Options{Outbox: empty{}, Deliverer: d, Policy: func() *policy.Policy { return &policy.Policy{Endpoints: []*policy.Endpoint{{Name: "shop"}}} }})})
		ctx, cancel := context.WithCancel(t.Context())
		w, ended := httptest.NewRecorder(), make(chan struct{})
		go func() {
			defer close(ended)
			p.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/live?endpoint=shop", nil))
		}()
		time.Sleep(10 * time.Second)
		d.paused.Store(true)
		time.Sleep(1100 * time.Millisecond)
		cancel()
		<-ended
		if got := strings.Count(w.Body.String(), "event: state\n"); got != 1 {
			t.Errorf("%d changes: %d %s", got, w.Code, w.Body)
		}
	})
}
