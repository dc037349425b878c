package gate

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"relay/outbox"
)

func noteOf(c Condition) outbox.Note { return outbox.Note{Endpoint: name, Text: c.Text()} }

// flight is an admitted attempt of a Relay.
type flight struct {
	by    *member
	probe bool
	over  time.Time // it ends until then
}

// Promise P9, for the breakers of a fleet: its Relays hear of each other late, measure the
// outbox's clock wrong by seconds, die with probes under way, and yet no more probes are made at one time
// than the rule says; and once all is over, the endpoint is looked at again.
func TestOneTurnInTheFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		check(t, func(t *rapid.T) {
			ctx := context.Background()
			f := newFleet()
			e := endpoint(withBreaker(t))
			e.Breaker.Probes = rapid.IntRange(1, 3).Draw(t, "probes")
			var relays []*member
			var flights []flight
			for i := range 5 {
				ahead := time.Duration(rapid.IntRange(-2000, 2000).Draw(t, "ahead")) * time.Millisecond
				relays = append(relays, f.joinAhead(string(rune('a'+i)), e, ahead))
			}
			draw := func(t *rapid.T) *member { return rapid.SampledFrom(relays).Draw(t, "relay") }
			end := func(i int, a Attempt) {
				f := flights[i]
				flights = slices.Delete(flights, i, i+1)
				a.Probe = f.probe
				f.by.Ended(ctx, a)
			}
			advance := func(d time.Duration) {
				for until := time.Now().Add(d); ; {
					next := until
					for _, f := range flights {
						if f.over.Before(next) {
							next = f.over
						}
					}
					time.Sleep(time.Until(next))
					for i := 0; i < len(flights); {
						if flights[i].over.After(time.Now()) {
							i++
							continue
						}
						end(i, Attempt{Code: "timeout", Again: true})
					}
					if !next.Before(until) {
						return
					}
				}
			}
			admit := func(t *rapid.T, m *member, slots int) int {
				known := m.State().Condition.Breaker
				n, probe := begin(m.Gate, slots)
				if n == 0 {
					return 0
				}
				if probe != (known != nil) {
					t.Fatalf("probe is %t with the breaker %+v", probe, known)
				}
				if known != nil && m.At(time.Now()).Before(known.Until) {
					t.Fatalf("an open breaker admits %d", n)
				}
				for range n {
					flights = append(flights, flight{m, probe, time.Now().Add(e.Timeout.Total)})
				}
				probes := 0
				for _, f := range flights {
					if f.probe {
						probes++
					}
				}
				if probes > e.Breaker.Probes {
					t.Fatalf("%d probes are under way, at most %d may be", probes, e.Breaker.Probes)
				}
				return n
			}
			t.Repeat(map[string]func(*rapid.T){
				"admit": func(t *rapid.T) { admit(t, draw(t), rapid.IntRange(1, 6).Draw(t, "slots")) },
				"end": func(t *rapid.T) {
					if len(flights) == 0 {
						return
					}
					a := rapid.SampledFrom([]Attempt{broke, broke, wentWell, {Void: true}}).Draw(t, "how")
					end(rapid.IntRange(0, len(flights)-1).Draw(t, "which"), a)
				},
				"hear":  func(t *rapid.T) { draw(t).hear() },
				"write": func(t *rapid.T) { m := draw(t); m.down = !m.down },
				"time":  func(t *rapid.T) { advance(time.Duration(rapid.IntRange(1, 5000).Draw(t, "ms")) * time.Millisecond) },
				"wait": func(t *rapid.T) {
					m := draw(t)
					if v := m.Look(ctx, 1); v.Wait > 0 {
						advance(v.Wait)
					}
					m.hear()
				},
				"die": func(t *rapid.T) {
					i := rapid.IntRange(0, len(relays)-1).Draw(t, "which")
					dead := relays[i]
					flights = slices.DeleteFunc(flights, func(f flight) bool { return f.by == dead })
					relays[i] = f.joinAhead(rapid.StringMatching(`[a-z]{8}`).Draw(t, "id"), e, dead.ahead)
				},
			})
			for _, m := range relays {
				m.down = false
			}
			advance(e.Timeout.Total)
			for _, m := range relays {
				m.hear()
			}
			longest := time.Duration(float64(e.Breaker.MaxOpen)*(1+e.Breaker.Jitter)) + 2*e.Timeout.Total + 5*time.Second
			advance(longest)
			m := draw(t)
			if admit(t, m, 1) == 0 {
				t.Fatalf("nothing begins after %v: %+v with %+v", longest, m.Look(ctx, 1), m.State())
			}
		})
	})
}

// The turn of a Relay that died is another's when it is over, and not sooner.
func TestTurnOfADeadRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet()
		e := endpoint(withBreaker(t))
		a, b := f.join("a", e), f.join("b", e)
		b.ahead = -3 * time.Second // it takes all of a's times for later than they are
		attempts(t, a.Gate, 4, broke)
		time.Sleep(time.Minute)
		b.hear()
		if n, _ := begin(a.Gate, 1); n != 1 {
			t.Fatal("no probe")
		}
		b.hear()
		turn := 2*e.Timeout.Total + 5*time.Second
		want(t, b.Gate, Breaker, turn)
		time.Sleep(turn - time.Millisecond)
		if n, _ := begin(b.Gate, 1); n != 0 {
			t.Error("the turn is another's")
		}
		time.Sleep(time.Millisecond)
		if n, _ := begin(b.Gate, 1); n != 1 {
			t.Error("the turn of a dead Relay never ends")
		}
		a.hear()
		a.Ended(context.Background(), Attempt{Probe: true, Delivered: true, Status: 200}) // it was not dead: too late
		if o := f.condition().Breaker; o == nil || o.Prober != "b" || o.Good != 0 {
			t.Errorf("the outbox knows %+v", o)
		}
	})
}
