package page

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relay/policy"
	"relay/relay/admin"

	"relay/outbox"
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
