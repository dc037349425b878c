package gate

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/policy"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const name = "billing"

// check runs a property in a bubble, where testing.T has no deadline to ask for.
func check(t *testing.T, property func(*rapid.T)) {
	t.Helper()
	rapid.Check(struct{ rapid.TB }{t}, property)
}

// endpoint returns one with the defaults of the file, less its breaker.
func endpoint(change ...func(*policy.Endpoint)) *policy.Endpoint {
	e := &policy.Endpoint{
		Name:    name,
		URL:     &url.URL{Scheme: "https", Host: "billing.example", Path: "/hooks"},
		Enabled: true,
		Timeout: policy.Timeout{Connect: 5 * time.Second, Total: 15 * time.Second},
		Retry:   policy.Retry{MaxRetryAfter: 24 * time.Hour},
		Disable: policy.Disable{OnGone: true, AfterFailing: 120 * time.Hour},
	}
	for _, c := range change {
		c(e)
	}
	return e
}

func failures(t rapid.TB) policy.Outcomes {
	t.Helper()
	on, err := policy.ParseOutcomes([]string{"network", "timeout", "5xx", "429"})
	if err != nil {
		t.Fatal(err)
	}
	return on
}

func withBreaker(t rapid.TB) func(*policy.Endpoint) {
	return func(e *policy.Endpoint) {
		e.Breaker = &policy.Breaker{
			FailureRatio: 0.5, MinAttempts: 4, Window: time.Minute,
			Open: 30 * time.Second, MaxOpen: 5 * time.Minute, Jitter: 0.1, Probes: 2,
			On: failures(t),
		}
	}
}

// How attempts end.
var (
	wentWell = Attempt{Status: 200, Delivered: true}
	broke    = Attempt{Status: 500, Again: true}
	gone     = Attempt{Status: 410, Gone: true}
)

// fleet is Relays that share an outbox.
type fleet struct {
	store   *outboxtest.Mem
	limiter outbox.Limiter

	mu     sync.Mutex
	raised []Transition
}

// member is one of them, and the way to the outbox that it has.
type member struct {
	*Gate
	all   *Gates
	fleet *fleet

	ahead time.Duration // by which the outbox's clock is ahead, as this Relay has measured it

	slow time.Duration // that writing a note takes
	down bool          // the outbox does not take its notes
	lost bool          // it takes them, and does not say so
	soon bool          // which is heard before the answer is given up
}

// listen returns a channel that has a token once the gate has called.
func listen(g *Gate) <-chan struct{} {
	told := make(chan struct{}, 1)
	g.Tell(func() {
		select {
		case told <- struct{}{}:
		default:
		}
	})
	return told
}

func newFleet() *fleet { return &fleet{store: outboxtest.NewMem(outboxtest.MemOptions{})} }

// join adds a Relay with the endpoint's rules.
func (f *fleet) join(relay string, e *policy.Endpoint) *member { return f.joinAhead(relay, e, 0) }

// joinAhead adds a Relay that takes the outbox's clock to be ahead.
func (f *fleet) joinAhead(relay string, e *policy.Endpoint, ahead time.Duration) *member {
	m := &member{fleet: f, ahead: ahead}
	m.all = New(Options{
		Notes: m, Clock: m, Relay: relay, Limiter: f.limiter,
		Raise: func(h Transition) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.raised = append(f.raised, h)
		},
	})
	m.Gate = m.all.Gate(name)
	m.Use(e)
	m.hear()
	return m
}

// Notes, AwaitNotes and SetNote make a member the Notebook of its gates.
func (m *member) Notes(ctx context.Context) ([]outbox.Note, uint64, error) {
	return m.fleet.store.Notes(ctx)
}

func (m *member) AwaitNotes(ctx context.Context, after uint64) error {
	return m.fleet.store.AwaitNotes(ctx, after)
}

func (m *member) SetNote(ctx context.Context, n outbox.Note) (outbox.Note, error) {
	if m.slow > 0 {
		time.Sleep(m.slow)
	}
	if m.down {
		return n, outbox.ErrUnavailable
	}
	n, err := m.fleet.store.SetNote(ctx, n)
	if m.lost {
		if m.soon {
			m.hear()
		}
		return n, outbox.ErrUnavailable
	}
	return n, err
}

// happened returns what was raised, in order.
func (f *fleet) happened() (what []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.raised {
		what = append(what, h.What)
	}
	return what
}

// condition is what the outbox knows.
func (f *fleet) condition() Condition {
	notes, _, err := f.store.Notes(context.Background())
	if err != nil {
		panic(err)
	}
	if len(notes) == 0 {
		return Condition{}
	}
	return parse(notes[0].Text)
}

func parse(text []byte) Condition {
	c, err := ParseCondition(text)
	if err != nil {
		panic(err)
	}
	return c
}

// remember writes what change makes of the condition, as a Relay would.
func (m *member) remember(ctx context.Context, change func(*Condition) bool) (written bool, err error) {
	return m.all.update(ctx, name, change)
}

// At makes a member the Clock of its outbox.
func (m *member) At(t time.Time) time.Time { return t.Add(m.ahead) }

// hear lets the gate know what others wrote.
func (m *member) hear() {
	if err := m.all.Read(context.Background()); err != nil {
		panic(err)
	}
}

// until is a receiver's wish from now on.
func until(t time.Time) *Hold {
	return &Hold{Since: time.Now().UTC().Round(0), Until: t.UTC().Round(0)}
}

// begin looks and admits, as a loop with work for n slots does.
func begin(g *Gate, n int) (admitted int, probe bool) {
	v := g.Look(context.Background(), n)
	if v.N == 0 {
		return 0, false
	}
	return g.Admit(context.Background(), v.N)
}

// attempts makes n attempts, one after the other, that all end alike.
func attempts(t rapid.TB, g *Gate, n int, a Attempt) {
	t.Helper()
	for range n {
		admitted, probe := begin(g, 1)
		if admitted != 1 {
			t.Fatalf("no attempt may begin: %+v", g.Look(context.Background(), 1))
		}
		a.Probe = probe
		g.Ended(context.Background(), a)
	}
}

// want fails the test unless the gate says so, on being asked now.
func want(t rapid.TB, g *Gate, cause Cause, wait time.Duration) {
	t.Helper()
	v := g.Look(context.Background(), 1)
	if v.Cause != cause || v.Wait < wait-time.Millisecond || v.Wait > wait+time.Millisecond {
		t.Fatalf("the gate says %q for %v, want %q for %v", v.Cause, v.Wait, cause, wait)
	}
}

// rule is a rate limit that was in force from the send with this number.
type rule struct {
	from int
	policy.RateLimit
}

// bounded fails unless each window between two sends has at most N × (window + late) / Per
// + Burst of them, by the largest of the rules that were in force in it.
func bounded(t rapid.TB, sends []time.Time, rules []rule, late time.Duration) {
	t.Helper()
	for i := range sends {
		first := len(rules) - 1
		for rules[first].from > i {
			first--
		}
		rate, burst, next := 0.0, 0, first
		for j := i; j < len(sends); j++ {
			for ; next < len(rules) && rules[next].from <= j; next++ {
				rate = max(rate, float64(rules[next].N)/rules[next].Per.Seconds())
				burst = max(burst, rules[next].Burst)
			}
			window := sends[j].Sub(sends[i])
			if most := rate*(window+late).Seconds() + float64(burst) + 1e-6; float64(j-i+1) > most {
				t.Fatalf("%d sends in %v, at most %v are allowed by the rules %+v", j-i+1, window, most, rules[first:next])
			}
		}
	}
}

func sorted(times []time.Time) []time.Time {
	slices.SortFunc(times, time.Time.Compare)
	return times
}

func wantHappened(t rapid.TB, f *fleet, want ...string) {
	t.Helper()
	if got := f.happened(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("raised %v, want %v", got, want)
	}
}
