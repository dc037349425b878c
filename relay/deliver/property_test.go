package deliver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"pgregory.net/rapid"

	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
	"relay/relay/deliver/delivertest"
	"relay/relay/post"
)

// attack is two Relays that share an outbox and an endpoint, while operators, receiver,
// outbox and orchestrator do their worst.
type attack struct {
	t        *testing.T
	rules    *policy.Endpoint
	net      *delivertest.Network
	store    *outboxtest.Mem
	bucket   *bucket
	relays   [2]*attacked
	problems problems
	faults   float64
	calm     bool // no attempt was cut short, no call failed: nothing is sent twice

	mu       sync.Mutex
	random   *rand.Rand
	mood     string
	accepted []string
	sends    []time.Time
	got      map[string]int  // events that were answered well
	gone     map[string]bool // and those that were answered 410
	held     [2][2]time.Time // from when on the first, second Relay must send nothing, being paused, disabled; zero for never
}

// attacked is a Relay and what it does when it is started again.
type attacked struct {
	*Deliverer
	source *unsteady
	policy *policy.Policy
	halt   context.CancelFunc
	ended  chan error // nil while it is down
}

// act is one thing that happens.
type act struct {
	What  int
	Relay int
	N     int
}

// heardBy is how long it takes at most until a Relay has heard of another's note.
const heardBy = 15 * time.Second

var (
	pauses = []time.Duration{time.Millisecond, 20 * time.Millisecond, 300 * time.Millisecond, 2 * time.Second, 7 * time.Second, 40 * time.Second, 3 * time.Minute}
	moods  = []string{"well", "well", "slow", "down", "wait", "many", "gone", "hang", "reset", "rate", "mixed"}
)

// Promises P7 and P9 and the gates under attack: whatever happens, nothing is lost, nothing
// is sent without a lease or while it is held, the limit holds, and when all works again
// everything is delivered soon.
func TestAttack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		faults := rapid.SampledFrom([]float64{0, 0, 0.1, 0.4}).Draw(rt, "faults")
		var limit *policy.RateLimit
		if rapid.Bool().Draw(rt, "limited") {
			limit = &policy.RateLimit{
				N: rapid.IntRange(5, 100).Draw(rt, "n"), Per: time.Second, Burst: rapid.SampledFrom([]int{1, 3, 20, 100}).Draw(rt, "burst"),
			}
		}
		var breaker *policy.Breaker
		if rapid.Bool().Draw(rt, "with breaker") {
			breaker = &policy.Breaker{
				FailureRatio: 0.5, MinAttempts: 4, Window: time.Minute, Open: 5 * time.Second, MaxOpen: time.Minute, Jitter: 0.1,
				Probes: rapid.IntRange(1, 3).Draw(rt, "probes"), On: retryOn("network", "timeout", "429", "5xx"),
			}
		}
		concurrency := rapid.SampledFrom([]int{1, 4, 16}).Draw(rt, "concurrency")
		fleetMax := rapid.SampledFrom([]int{0, 1, 3}).Draw(rt, "fleet concurrency")
		fresh := rapid.SampledFrom([]float64{0, 0.5}).Draw(rt, "fresh share")
		failing := rapid.SampledFrom([]time.Duration{0, 2 * time.Minute}).Draw(rt, "disable after failing")
		acts := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) act {
			return act{rapid.IntRange(0, 13).Draw(rt, "what"), rapid.IntRange(0, 1).Draw(rt, "relay"), rapid.IntRange(0, 1000).Draw(rt, "n")}
		}), 1, 40).Draw(rt, "acts")

		var wrong []string
		synctest.Test(t, func(t *testing.T) {
			a := newAttack(t, seed)
			e := a.rules
			e.RateLimit, e.Breaker, e.Concurrency, e.FleetConcurrency, e.FreshShare = limit, breaker, concurrency, fleetMax, fresh
			e.Disable.AfterFailing = failing
			a.faults, a.calm = faults, faults == 0
			a.start(0)
			a.start(1)
			for _, act := range acts {
				a.do(act)
			}
			a.recover()
			wrong = a.problems.all
		})
		if len(wrong) > 0 {
			rt.Fatalf("%s", strings.Join(wrong, "\n"))
		}
	})
}

func newAttack(t *testing.T, seed uint64) *attack {
	a := &attack{
		t:      t,
		net:    delivertest.NewNetwork(),
		store:  outboxtest.NewMem(outboxtest.MemOptions{Shared: true}),
		bucket: &bucket{},
		random: rand.New(rand.NewPCG(seed, 1)),
		mood:   "well",
		got:    map[string]int{},
		gone:   map[string]bool{},
	}
	l, err := a.net.Listen("billing.test:80")
	if err != nil {
		t.Fatal(err)
	}
	receiver := delivertest.NewEndpoint()
	receiver.Answer = a.answer
	receiver.Serve(t, l)
	e := endpointAt(t, "billing", &url.URL{Scheme: "http", Host: "billing.test:80", Path: "/hook"})
	e.Timeout.Total = 5 * time.Second
	e.Retry = policy.Retry{On: defaults.On, MaxRetryAfter: 30 * time.Second}
	for range 1000 {
		e.Retry.Schedule = append(e.Retry.Schedule, 2*time.Second)
	}
	e.Disable.OnGone, e.ObeyRateHeaders = true, true
	a.rules = e
	for i := range a.relays {
		a.relays[i] = &attacked{policy: &policy.Policy{Endpoints: []*policy.Endpoint{e}}}
	}
	return a
}

func (a *attack) start(i int) {
	r := a.relays[i]
	a.mu.Lock()
	r.source = newUnsteady(a.store, a.bucket, a.random.Uint64(), a.faults, a.problems.add)
	a.mu.Unlock()
	r.Deliverer = New(Options{
		Source: r.source, Limiter: r.source, Log: zerolog.Nop(), Version: fmt.Sprint(i), network: post.Network{Dial: a.net.Dial}, Grace: 10 * time.Second,
	}, r.policy)
	ctx, halt := context.WithCancel(context.Background())
	r.halt, r.ended = halt, make(chan error, 1)
	go func() { r.ended <- r.Run(ctx) }()
}

func (a *attack) stop(i int) {
	r := a.relays[i]
	r.halt()
	if err := <-r.ended; err != nil {
		a.problems.add("run of Relay %d: %v", i, err)
	}
	r.ended = nil
	synctest.Wait() // the receiver has seen what was cut short
}

// answer is the receiver.
func (a *attack) answer(r *delivertest.Request) delivertest.Step {
	a.mu.Lock()
	defer a.mu.Unlock()
	from := int(r.Header.Get("User-Agent")[len("Relay/")] - '0')
	a.sends = append(a.sends, r.At)
	if !a.relays[from].source.holds(r.Delivery) {
		a.problems.add("Relay %d sends what it holds no lease of", from)
	}
	for what, since := range a.held[from] {
		if !since.IsZero() && r.At.After(since) {
			a.problems.add("Relay %d sends %s after it heard that the endpoint is %s", from, r.At.Sub(since), []string{"paused", "disabled"}[what])
		}
	}
	mood := a.mood
	if mood == "mixed" {
		mood = moods[a.random.IntN(len(moods)-1)]
	}
	switch mood {
	case "down":
		return delivertest.Step{Status: 503}
	case "wait":
		return delivertest.Step{Status: 503, Header: map[string]string{"Retry-After": "20"}}
	case "many":
		return delivertest.Step{Status: 429}
	case "gone":
		a.gone[r.Event] = true
		return delivertest.Step{Status: 410}
	case "hang":
		return delivertest.Step{Fault: delivertest.Hang}
	case "reset":
		return delivertest.Step{Fault: delivertest.Reset}
	}
	a.got[r.Event]++
	step := delivertest.Step{}
	switch mood {
	case "slow":
		step.Delay = 700 * time.Millisecond
	case "rate":
		step.Header = map[string]string{"RateLimit": `"x";r=2;t=10`}
	}
	return step
}

func (a *attack) do(s act) {
	i := s.Relay
	r := a.relays[i]
	up := r.ended != nil
	switch s.What {
	case 0, 1, 2:
		a.accept(1 + s.N%12)
	case 3, 4, 5, 6:
		time.Sleep(pauses[s.N%len(pauses)])
	case 7:
		a.mu.Lock()
		a.mood = moods[s.N%len(moods)]
		a.mu.Unlock()
	case 8:
		if up {
			a.hold(i, 0, r.Pause)
		}
	case 9:
		if up {
			a.free(0, r.Resume)
		}
	case 10:
		if s.N%3 == 0 && up {
			a.hold(i, 1, r.Disable)
		} else if up {
			a.free(1, r.Enable)
		}
	case 11, 12:
		r.policy = a.variant(s.N)
		if up {
			r.Apply(r.policy)
		}
	case 13:
		a.restart(i, s.N)
	}
}

// hold has the endpoint held. The Relay that was asked knows at once.
func (a *attack) hold(i, what int, by func(context.Context, string, string) (Status, error)) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := by(ctx, "billing", "test"); err != nil {
		return // perhaps it is held, perhaps not
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for j := range a.held {
		at := now.Add(heardBy)
		if j == i {
			at = now
		}
		if since := a.held[j][what]; since.IsZero() || at.Before(since) {
			a.held[j][what] = at
		}
	}
}

// free ends it; even if that fails it may have come to pass.
func (a *attack) free(what int, by func(context.Context, string, string) (Status, error)) error {
	a.mu.Lock()
	for j := range a.held {
		a.held[j][what] = time.Time{}
	}
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := by(ctx, "billing", "test")
	return err
}

// variant is the endpoint as another file has it. Its limit stays.
func (a *attack) variant(n int) *policy.Policy {
	e := but(a.rules, func(e *policy.Endpoint) {
		switch n % 8 {
		case 1:
			e.Enabled = false
		case 2:
			e.URL.Path = fmt.Sprint("/", n%3)
		case 3:
			e.Concurrency = 1 + n%5
		case 4:
			e.Breaker = nil
		case 5:
			e.Timeout.Total = time.Duration(1+n%5) * time.Second
		case 6:
			e.Retry.MaxRetryAfter = 5 * time.Second
		}
	})
	if n%8 == 0 {
		return &policy.Policy{}
	}
	return &policy.Policy{Endpoints: []*policy.Endpoint{e}}
}

// restart ends a Relay as an orchestrator does, or a crash, or starts it again.
func (a *attack) restart(i, how int) {
	r := a.relays[i]
	if r.ended == nil {
		a.start(i)
		return
	}
	switch how % 3 {
	case 1:
		a.calm = false
		r.Abort()
	case 2:
		a.calm = false
		r.source.die()
		r.Abort()
	}
	a.stop(i)
	if how%2 == 0 {
		a.start(i)
	}
}

func (a *attack) accept(n int) {
	var b outbox.Batch
	for range n {
		id := fmt.Sprint("evt_", len(a.accepted))
		a.accepted = append(a.accepted, id)
		e := outbox.Event{ID: id, Type: "a.b", Time: time.Now(), Data: []byte(`{}`)}
		b.Entries = append(b.Entries, outbox.Entry{Event: e, Endpoints: []string{"billing"}})
	}
	if _, err := a.store.Accept(a.t.Context(), b); err != nil {
		a.t.Fatal(err)
	}
}

// recover lifts all that is in the way, and checks what came of it.
func (a *attack) recover() {
	a.mu.Lock()
	a.mood = "well"
	a.mu.Unlock()
	a.faults = 0
	for i, r := range a.relays {
		r.policy = &policy.Policy{Endpoints: []*policy.Endpoint{a.rules}}
		if r.ended == nil {
			a.start(i)
		} else {
			r.source.steady()
			r.Apply(r.policy)
		}
	}
	time.Sleep(10 * time.Second) // earlier attempts are over
	for what, by := range []func(context.Context, string, string) (Status, error){a.relays[0].Resume, a.relays[1].Enable} {
		if err := a.free(what, by); err != nil {
			a.problems.add("lift what an operator did: %v", err)
		}
	}
	const most = 3 * time.Minute
	begin := time.Now()
	pending := func() int64 {
		counts, err := a.store.Counts(a.t.Context())
		if err != nil {
			a.t.Fatal(err)
		}
		return counts["billing"].Pending
	}
	for pending() > 0 && time.Since(begin) < most {
		time.Sleep(100 * time.Millisecond)
	}
	if n := pending(); n > 0 {
		for i, r := range a.relays {
			s, _ := r.StatusOf("billing")
			a.problems.add("%d deliveries wait %s after all is well; Relay %d is %s, waiting %q, in flight %d, breaker %s, held until %s, open until %s",
				n, most, i, s.State, s.Waiting, s.InFlight, s.Breaker, s.HeldUntil.Sub(begin), s.OpenUntil.Sub(begin))
		}
	}
	for i := range a.relays {
		a.stop(i)
	}
	a.conserved()
	if r := a.rules.RateLimit; r != nil && a.calm { // an answer that comes late brings its sends with it
		if most, window := surplus(a.sends, float64(r.N)/r.Per.Seconds()); most > float64(r.Burst)+1e-6 {
			a.problems.add("a window of %s had %.2f sends more than %d/s, the burst is %d", window, most, r.N, r.Burst)
		}
	}
}

// conserved checks promise P7, event by event.
func (a *attack) conserved() {
	for _, id := range a.accepted {
		r, err := a.store.Lookup(a.t.Context(), id)
		if err != nil {
			a.problems.add("event %s: %v", id, err)
			continue
		}
		switch d := r.Deliveries[0]; {
		case d.State == outbox.Delivered && a.got[id] > 0:
		case d.State == outbox.Failed && a.gone[id]:
		default:
			a.problems.add("event %s is %s after %d attempts, it arrived %d times", id, d.State, len(d.Attempts), a.got[id])
		}
		if a.calm && a.got[id] > 1 {
			a.problems.add("event %s arrived %d times, though nothing was cut short", id, a.got[id])
		}
	}
	if err := a.store.Close(); err != nil {
		a.problems.add("close: %v", err)
	}
}
