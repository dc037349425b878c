package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"relay/config"
	"relay/outbox"
)

// filterOf decodes an endpoint "a" with these lines.
func filterOf(t testing.TB, lines string) *Filter {
	t.Helper()
	return mustDecode(t, "endpoint \"a\" {\n url = \"https://a.example.com\"\n sign = [\"none\"]\n"+lines+"\n}\n").Endpoints[0].Filter
}

// marks remembers as an outbox does, without time.
type marks map[string]int64

// let tells whether a delivery with this term is made.
func (m marks) let(t outbox.Term) bool {
	if t.Mark == nil {
		return true
	}
	before := m[t.Mark.Key]
	if t.Mark.Level > before || t.Mark.Lower {
		m[t.Mark.Key] = t.Mark.Level
	}
	return t.Mark.Level > before
}

// Subjects that differ only in halves of surrogate pairs are different ones, and a condition
// on other data does not mind them.
func TestLoneSurrogatesInFilters(t *testing.T) {
	f := filterOf(t, "when = event.data.n > 1\n dedupe {\n by = event.data.k\n window = \"1h\"\n}")
	seen := marks{}
	for _, c := range []struct {
		key string
		let bool
	}{{`\ud83d`, true}, {`\ud83e`, true}, {`\ufffd`, true}, {`\uD83D`, false}, {`\ud83d\ude00`, true}, {`😀`, false}} {
		d := f.Decide("a", viewOf(`{"n":2,"k":"`+c.key+`"}`))
		if !d.Gets || d.Term.Code != "" || seen.let(d.Term) != c.let {
			t.Errorf("%s: %+v", c.key, d)
		}
		if text := f.Explain(d); !strings.Contains(text, string(d.Subject())) || !json.Valid(d.Subject()) {
			t.Errorf("explained as %s", text)
		}
	}
}

func TestRouteFilters(t *testing.T) {
	p := mustDecode(t, `
endpoint "plain" {
  url    = "https://example.com/"
  sign   = ["none"]
  events = ["a", "plain"]
}
endpoint "acme" {
  url     = "https://example.com/"
  sign    = ["none"]
  events  = ["a", "b"]
  tenants = ["acme"]
}
endpoint "big" {
  url    = "https://example.com/"
  sign   = ["none"]
  events = ["a"]
  when   = event.data.n > 10
}
endpoint "last" {
  url    = "https://example.com/"
  sign   = ["none"]
  events = ["a"]
}
`)
	for _, c := range []struct {
		eventType, tenant, data string
		want                    []string // name, with a code where there is one
	}{
		{"plain", "acme", `{}`, []string{"plain"}},
		{"none", "acme", `{}`, nil},
		{"b", "other", `{}`, []string{}},
		{"b", "", `{}`, []string{}},
		{"a", "acme", `{"n":11}`, []string{"plain", "acme", "big", "last"}},
		{"a", "other", `{"n":10}`, []string{"plain", "last"}},
		{"a", "other", `{"m":10}`, []string{"plain", "big when_error", "last"}},
	} {
		for range 2 { // the second time the type is known
			names, terms := p.Route(&outbox.Event{ID: "evt_1", Type: c.eventType, Tenant: c.tenant, Data: []byte(c.data)})
			if terms != nil && len(terms) != len(names) {
				t.Fatalf("%+v: %d terms of %d names", c, len(terms), len(names))
			}
			var got []string
			if names != nil {
				got = []string{}
			}
			for i, name := range names {
				if terms != nil && terms[i].Code != "" {
					name += " " + terms[i].Code
				}
				got = append(got, name)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s %s %s: -want +got:\n%s", c.eventType, c.tenant, c.data, diff)
			}
		}
	}
	if n := testing.AllocsPerRun(100, func() { p.Route(&outbox.Event{ID: "evt_1", Type: "plain"}) }); n != 0 {
		t.Errorf("an event without filters makes %g allocations", n)
	}
}

// Which events are chosen is pinned: Relays of one outbox agree, whatever their version.
func TestSample(t *testing.T) {
	for _, c := range []struct {
		endpoint, id string
		want         string
	}{{"a", "evt_1", "0.136589"}, {"a", "evt_2", "0.334379"}, {"b", "evt_1", "0.848613"}} {
		if got := fmt.Sprintf("%.6f", position(c.endpoint, c.id)); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.endpoint, c.id, got, c.want)
		}
	}
	const n = 20_000
	f := filterOf(t, "sample = 0.1")
	var a, both int
	for i := range n {
		v := &View{ID: fmt.Sprint("evt_", i), Data: []byte("1")}
		first, other := f.Decide("a", v).Gets, f.Decide("b", v).Gets
		if first {
			a++
		}
		if first && other {
			both++
		}
		if again := f.Decide("a", v).Gets; again != first {
			t.Fatal("the same event is decided in two ways")
		}
	}
	if a < n/10-300 || a > n/10+300 || both < n/100-100 || both > n/100+100 {
		t.Errorf("of %d events %d are chosen, %d for both endpoints", n, a, both)
	}
}

// Each threshold is told once for a subject, until the value is below reset_below.
func TestCrossing(t *testing.T) {
	f := filterOf(t, `
		crossing {
		  value       = event.data.percent
		  at          = range(80, 121, 10)
		  by          = [event.tenant, event.data.plan]
		  reset_below = 50
		}`)
	rapid.Check(t, func(t *rapid.T) {
		remembered, highest := marks{}, map[string]float64{}
		for _, step := range rapid.SliceOfN(rapid.Custom(func(t *rapid.T) [2]int {
			return [2]int{rapid.IntRange(0, 2).Draw(t, "subject"), rapid.IntRange(30, 140).Draw(t, "percent")}
		}), 1, 40).Draw(t, "steps") {
			plan, value := fmt.Sprint("p", step[0]), float64(step[1])
			v := &View{Tenant: "t", Data: fmt.Appendf(nil, `{"plan":%q,"percent":%g}`, plan, value)}
			want := false
			for at := 80.0; at <= 120; at += 10 {
				want = want || at <= value && at > highest[plan]
			}
			highest[plan] = max(highest[plan], value)
			if value < 50 {
				highest[plan] = 0
			}
			d := f.Decide("a", v)
			if got := d.Gets && remembered.let(d.Term); got != want {
				t.Fatalf("%v: told is %t, want %t; %+v", step, got, want, d)
			}
		}
	})
}

func TestDedupe(t *testing.T) {
	f := filterOf(t, "dedupe {\n by = event.data.k\n window = \"10m\"\n}")
	remembered := marks{}
	for i, c := range []struct {
		data string
		want bool
	}{
		{`{"k":"x"}`, true}, {`{"k":"x"}`, false}, {`{"k":"\u0078" , "n":1}`, false}, {`{"k":1}`, true}, {`{"k":1.0}`, false}, {`{"k":"1"}`, true},
		{`{"k":{"a":1,"b":[true]}}`, true}, {`{"k":{"b":[ true ],"a":1e0}}`, false}, {`{"k":false}`, true}, {`{"k":0}`, true},
	} {
		d := f.Decide("a", &View{Data: []byte(c.data)})
		if !d.Gets || d.Term.Mark == nil || d.Term.Mark.For != 10*time.Minute || remembered.let(d.Term) != c.want {
			t.Errorf("%d: %s: %+v, want %t", i, c.data, d, c.want)
		}
	}
}

// No two filters and no two subjects share a key, and none shows a subject.
func TestMarkKeys(t *testing.T) {
	dedupe := "dedupe {\n by = event.data.k\n window = \"10m\"\n}"
	crossing := "crossing {\n by = event.data.k\n value = event.data.n\n at = [%s]\n}"
	keys := map[string]string{}
	for _, endpoint := range []string{"a", "b"} {
		for _, lines := range []string{dedupe, fmt.Sprintf(crossing, "1, 2"), fmt.Sprintf(crossing, "1")} {
			p := mustDecode(t, fmt.Sprintf("endpoint %q {\n url = \"https://a.example.com\"\n sign = [\"none\"]\n%s\n}\n", endpoint, lines))
			for _, k := range []string{`"canary"`, `"canary\n"`, `["canary"]`, `7`} {
				_, terms := p.Route(&outbox.Event{Type: "x", Data: fmt.Appendf(nil, `{"k":%s,"n":5}`, k)})
				key := terms[0].Mark.Key
				what := fmt.Sprintf("%s of %s for %s", k, endpoint, lines)
				if other, taken := keys[key]; taken || len(key) > 128 || strings.Contains(key, canary) {
					t.Errorf("%s has key %s, as %s", what, key, other)
				}
				keys[key] = what
			}
		}
	}
}

// A subject is shown to people without what env gave.
func TestShownSubject(t *testing.T) {
	for by, want := range map[string]string{`event.key`: `"k"`, `[env("TOKEN"), event.key]`: `"***"`} {
		f := filterOf(t, "dedupe {\n by = "+by+"\n window = \"10m\"\n}")
		d := f.Decide("a", &View{Key: "k", Data: []byte("1")})
		if got := string(d.Subject()); got != want || strings.Contains(f.Explain(d), canary) {
			t.Errorf("%s: %s, %s", by, got, f.Explain(d))
		}
	}
}

// The text of an error is bounded and has no data in it.
func TestFilterErrors(t *testing.T) {
	long := strings.Repeat("ü", 300)
	f := filterOf(t, fmt.Sprintf("when = event.data[%q].x && event.data.%s", "k", long))
	for _, data := range []string{`{"k":"canary"}`, `{"k":{"x":true}}`, `["canary"]`, `"canary"`, `null`, `{"canary":1}`, `{"k":{"x":"canary"}}`} {
		d := f.Decide("a", viewOf(data))
		if !d.Gets || d.Term.Code != CodeWhen || len(d.Term.Error) > 512 || strings.Contains(d.Term.Error, canary) ||
			!strings.HasPrefix(d.Term.Error, "when: ") || strings.ToValidUTF8(d.Term.Error, "") != d.Term.Error {
			t.Errorf("%s: %+v", data, d)
		}
	}
}

// Whatever a filter and the data are, nothing panics, an event is always decided alike, and what
// comes out keeps to the outbox's bounds and shows no secret.
func FuzzFilter(f *testing.F) {
	for _, src := range append(goldenInputs(f, "testdata/filter.txtar"), goldenInputs(f, "testdata/filter-errors.txtar")...) {
		f.Add(src, goldenView().Data)
	}
	f.Fuzz(func(t *testing.T, src, data []byte) {
		file, err := config.Parse("relay.hcl", src, testEnv)
		if err != nil || !json.Valid(data) {
			return
		}
		first, err := Decode(file)
		second, err2 := Decode(file)
		if (err == nil) != (err2 == nil) {
			t.Fatalf("decoded: %v, then: %v", err, err2)
		}
		if err != nil {
			return
		}
		v := goldenView()
		e := &outbox.Event{ID: v.ID, Type: v.Type, Tenant: v.Tenant, Key: v.Key, Time: v.Time, Data: data}
		names, terms := first.Route(e)
		again, same := second.Route(e)
		if !slices.Equal(names, again) || !cmp.Equal(terms, same) {
			t.Errorf("%v %+v, then %v %+v", names, terms, again, same)
		}
		for _, term := range terms {
			if len(term.Error) > maxTermError || strings.Contains(term.Error, canary) {
				t.Errorf("the error is %s", term.Error)
			}
			if m := term.Mark; m != nil && (m.Key == "" || len(m.Key) > 128 || m.Level < 0 || m.For <= 0) {
				t.Errorf("the mark is %+v", m)
			}
		}
	})
}

func BenchmarkRoute(b *testing.B) {
	data := []byte(`{"amount":1000,"percent":95,"customer":{"id":"cus_1","name":"Acme"},"text":"` + strings.Repeat("x", 1000) + `"}`)
	for _, c := range []struct{ name, lines string }{
		{"plain", ""},
		{"tenant", `tenants = ["acme", "globex"]`},
		{"when", `when = event.data.amount >= 1000`},
		{"when-three", `when = event.data.amount >= 1000 && event.data.customer.id != "x" && event.tenant == "acme"`},
		{"sample", `sample = 0.999`},
		{"dedupe", "dedupe {\n by = event.data.customer.id\n window = \"10m\"\n}"},
		{"crossing", "crossing {\n value = event.data.percent\n at = range(80, 121, 10)\n by = [event.tenant, event.data.customer.id]\n}"},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := mustDecode(b, "endpoint \"a\" {\n url = \"https://a.example.com\"\n sign = [\"none\"]\n"+c.lines+"\n}\n")
			e := &outbox.Event{ID: "evt_1", Type: "a.b", Tenant: "acme", Time: time.Unix(1_700_000_000, 0), Data: data}
			b.ReportAllocs()
			for b.Loop() {
				if names, _ := p.Route(e); len(names) != 1 {
					b.Fatal(names)
				}
			}
		})
	}
}
