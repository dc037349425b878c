package policy

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"relay/config"
)

// text is a file of n endpoints that differ in name and URL alone.
func manyEndpoints(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "endpoint \"e%d\" {\n url = \"https://a.test/%d\"\n events = [\"invoice.*\", \"!invoice.draft\"]\n secrets = [\"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\"]\n}\n", i, i)
	}
	return b.String()
}

// What an endpoint takes once its file was read and forgotten: what endpoints have in
// common is there once, and the file's syntax, about 6 KB of each, is not there.
func TestMemoryOfEndpoints(t *testing.T) {
	const n, most = 2000, 2200
	text := []byte(manyEndpoints(n))
	inUse := func() uint64 {
		runtime.GC()
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := inUse()
	f, err := config.Parse("relay.hcl", text, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	p, err := Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	f.Forget()
	each := (int64(inUse()) - int64(before)) / n
	if each > most {
		t.Errorf("an endpoint takes %d bytes, want at most %d", each, most)
	}
	t.Logf("%d bytes for each endpoint", each)
	runtime.KeepAlive(text)
	runtime.KeepAlive(f)
	runtime.KeepAlive(p)
}

func TestRulesAreShared(t *testing.T) {
	p := mustDecode(t, `
		policy "default" {
		  rate_limit {
		    limit = 5
		  }
		}
		`+manyEndpoints(2)+`
		endpoint "other" {
		  url     = "https://a.test"
		  events  = ["invoice.*"]
		  secrets = ["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]
		  breaker {
		    open = "1m"
		  }
		  rate_limit {
		    limit = 6
		  }
		}`)
	a, b, other := p.Endpoint("e0"), p.Endpoint("e1"), p.Endpoint("other")
	if a.Breaker != b.Breaker || a.RateLimit != b.RateLimit {
		t.Error("endpoints with the same rules have some of their own")
	}
	if other.Breaker == a.Breaker || other.RateLimit == a.RateLimit || other.RateLimit.N != 6 || a.RateLimit.N != 5 || other.Events.Match("invoice.draft") == a.Events.Match("invoice.draft") {
		t.Errorf("endpoints with other rules share them: %+v, %+v", other, a)
	}
}

// A reload keeps what is as before, once, and nothing else of the old policy.
func TestAdopt(t *testing.T) {
	block := func(name, more string) string {
		return fmt.Sprintf("endpoint %q {\n url = \"https://a.test\"\n sign = [\"none\"]\n %s\n}\n", name, more)
	}
	when := "when = event.data.a == 1"
	old := mustDecode(t, block("same", "")+block("gone", "")+block("changed", "")+block("filtered", when))
	now := mustDecode(t, block("new", "")+block("changed", "concurrency = 3")+block("filtered", when)+block("same", ""))
	before := map[string]*Endpoint{}
	for _, e := range now.Endpoints {
		before[e.Name] = e
	}
	now.Adopt(old)
	for i, name := range []string{"new", "changed", "filtered", "same"} {
		want := before[name]
		if name == "same" {
			want = old.Endpoint(name)
		}
		if e := now.Endpoints[i]; e.Name != name || e != want || now.Endpoint(name) != want {
			t.Errorf("%s is another endpoint than it should be", name)
		}
	}
	if len(Diff(old, now)) != 3 {
		t.Errorf("differences: %+v", Diff(old, now))
	}
}
