package admin

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relay/policy"
)

// ofEndpoints is a configuration with these endpoints: name, tenant, project.
func ofEndpoints(t *testing.T, endpoints ...[3]string) *policy.Policy {
	t.Helper()
	var b strings.Builder
	for _, e := range endpoints {
		fmt.Fprintf(&b, "endpoint %q {\n url = \"https://x.example.com\"\n sign = [\"none\"]\n tenants = [%q]\n labels = { project = %q }\n}\n", e[0], e[1], e[2])
	}
	return decodePolicy(t, b.String())
}

// A reader who follows a label, or may see one tenant, gets the endpoints that fit now: new ones from their first
// attempt on, and of those that no longer fit not one attempt more.
func TestTailFollowsTheConfiguration(t *testing.T) {
	for name, tt := range map[string]struct {
		query  string
		access *Access
		leaves [3]string // billing, so that it no longer fits
	}{
		"label":  {"?label.project=web", nil, [3]string{"billing", "acme", "crm"}},
		"tenant": {"", &Access{Name: "t", May: []Right{Read}, Tenants: []string{"acme"}}, [3]string{"billing", "other", "web"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newTailing(t)
				x.access = tt.access
				before := [3]string{"billing", "acme", "web"}
				x.policy.Store(ofEndpoints(t, before))
				r := x.read(tt.query)
				if first, _ := r.next(); first != ":" {
					t.Fatalf("it begins with %q", first)
				}
				n := 0
				tell := func(endpoints ...string) {
					for _, e := range endpoints {
						n++
						x.gates.tell(attemptOf(n, e, "invoice.paid"))
					}
				}
				want := func(endpoints ...string) {
					t.Helper()
					for _, e := range endpoints {
						for {
							name, data := r.event()
							var got AttemptEnded
							if err := json.Unmarshal([]byte(data), &got); err != nil {
								t.Fatalf("%s %s: %v", name, data, err)
							}
							if name == "endpoint" {
								continue
							}
							if got.Endpoint != e {
								t.Errorf("%s %s, want an attempt of %s", name, data, e)
							}
							break
						}
					}
				}
				tell("later", "billing")
				want("billing")
				x.policy.Store(ofEndpoints(t, before, [3]string{"later", "acme", "web"}))
				tell("later", "billing")
				want("later", "billing")
				x.policy.Store(ofEndpoints(t, tt.leaves, [3]string{"later", "acme", "web"}))
				tell("billing", "later")
				want("later")
				x.policy.Store(ofEndpoints(t, tt.leaves))
				tell("later", "billing")
				x.policy.Store(ofEndpoints(t, before))
				tell("billing")
				want("billing")
				r.close()
				close(x.stop)
				synctest.Wait()
			})
		})
	}
}

// An attempt that waits for a slow reader is not shown once its endpoint is foreign.
func TestTailDropsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTailing(t)
		x.access = &Access{Name: "t", May: []Right{Read}, Tenants: []string{"acme"}}
		x.policy.Store(ofEndpoints(t, [3]string{"billing", "acme", "web"}, [3]string{"mail", "acme", "web"}))
		r := x.read("")
		for i := range 500 { // more than the connection takes
			x.gates.tell(attemptOf(i, "billing", strings.Repeat("x", 100)))
		}
		synctest.Wait()
		x.policy.Store(ofEndpoints(t, [3]string{"billing", "other", "web"}, [3]string{"mail", "acme", "web"}))
		x.gates.tell(attemptOf(1000, "mail", "invoice.paid"))
		of := map[string]int{}
		for of["mail"] == 0 {
			name, data := r.event()
			var got AttemptEnded
			if err := json.Unmarshal([]byte(data), &got); err != nil || name != "attempt" {
				t.Fatalf("%s %s: %v", name, data, err)
			}
			of[got.Endpoint]++
		}
		if of["billing"] == 500 {
			t.Error("all attempts were shown, also those that waited")
		}
		r.close()
		close(x.stop)
		synctest.Wait()
	})
}

// A reader hears of changes of the state of the endpoints that fit now.
func TestTailWatchesTheConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTailing(t)
		x.policy.Store(ofEndpoints(t, [3]string{"billing", "acme", "web"}))
		r := x.read("?label.project=web")
		if name, _ := r.next(); name != ":" {
			t.Fatalf("it begins with %q", name)
		}
		x.policy.Store(ofEndpoints(t, [3]string{"billing", "acme", "web"}, [3]string{"mail", "acme", "web"}))
		time.Sleep(3 * tailCheck)
		pause := func(i int) {
			x.gates.mu.Lock()
			defer x.gates.mu.Unlock()
			x.gates.status[i].State = "paused"
		}
		pause(1)
		if name, data := r.event(); name != "endpoint" || data != `{"endpoint":"mail","state":"paused"}` {
			t.Errorf("%s %s, want that mail is paused", name, data)
		}
		x.policy.Store(ofEndpoints(t, [3]string{"billing", "acme", "crm"}, [3]string{"mail", "acme", "web"}))
		time.Sleep(3 * tailCheck)
		pause(0)
		time.Sleep(3 * tailCheck)
		x.gates.tell(attemptOf(1, "mail", "invoice.paid"))
		if name, data := r.event(); name != "attempt" {
			t.Errorf("%s %s, want nothing of billing", name, data)
		}
		r.close()
		close(x.stop)
		synctest.Wait()
	})
}
