package eval

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

func functions() map[string]function.Function {
	return map[string]function.Function{
		"coalesce": stdlib.CoalesceFunc, "contains": stdlib.ContainsFunc, "distinct": stdlib.DistinctFunc, "floor": stdlib.FloorFunc,
		"format": stdlib.FormatFunc, "join": stdlib.JoinFunc, "jsondecode": JSONDecode(stdlib.JSONDecodeFunc), "jsonencode": stdlib.JSONEncodeFunc,
		"length": stdlib.LengthFunc, "lookup": stdlib.LookupFunc, "max": stdlib.MaxFunc, "range": stdlib.RangeFunc, "regex": stdlib.RegexFunc,
		"regexall": stdlib.RegexAllFunc, "regexreplace": stdlib.RegexReplaceFunc, "replace": stdlib.ReplaceFunc, "split": stdlib.SplitFunc,
		"strlen": stdlib.StrlenFunc, "substr": stdlib.SubstrFunc, "trim": stdlib.TrimFunc, "upper": stdlib.UpperFunc,
	}
}

// evaluate evaluates a text with variables within a budget.
func evaluate(t testing.TB, text string, variables map[string]cty.Value, budget time.Duration) (cty.Value, *Allowance, error) {
	t.Helper()
	e, diags := hclsyntax.ParseExpression([]byte(text), "test", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	left := new(Allowance)
	all := map[string]cty.Value{}
	for name, v := range variables {
		all[name] = v
	}
	ctx := &hcl.EvalContext{Functions: Functions(functions(), left), Variables: left.Variables(all)}
	Guard(e, ctx.Functions)
	left.Begin(budget, nil)
	defer left.End()
	v, diags, err := Value(e, ctx, left)
	if err == nil && diags.HasErrors() {
		err = diags
	}
	return v, left, err
}

// hostile is data that makes functions read much.
func hostile() map[string]cty.Value {
	items, object := make([]cty.Value, 9000), map[string]cty.Value{}
	for i := range items {
		items[i] = cty.StringVal(fmt.Sprint("item", i))
		object[fmt.Sprint("k", i)] = cty.NumberIntVal(int64(i))
	}
	return map[string]cty.Value{
		"l": cty.TupleVal(items), "o": cty.ObjectVal(object),
		"s": cty.StringVal(strings.Repeat("x", 150_000)), "u": cty.StringVal(strings.Repeat("é", 70_000)),
	}
}

// Each of these takes seconds to hours without an allowance. The clock stands still in a
// bubble, so that it is the cost which ends them.
func TestCostEnds(t *testing.T) {
	data := hostile()
	for _, text := range []string{
		`[for t in l : regexall("(x+x+)+y", s)]`,
		`regexall("x*y|x", s)`,
		`regexreplace(s, "x*y|x", "")`,
		`[for t in l : regexreplace(s, "y", "")]`,
		`[for t in l : split("y", s)]`,
		`[for t in l : strlen(s)]`,
		`[for t in l : substr(s, 0, 1)]`,
		`[for t in l : replace(s, "y", "zzz")]`,
		`[for t in l : upper(s) == s]`,
		`[for t in l : jsonencode(l) == s]`,
		`[for t in l : contains(l, "x")]`,
		`[for t in l : length(l)]`,
		`[for t in l : l == o]`,
		`[for t in l : "${s}x" == s]`,
		`[for t in range(0, 1000) : lookup(o, "k1", 2)]`,
		`[for a in l : [for b in l : 1]]`,
		`[for a in l : l[*]]`,
		`trim(u, "${u}x")`,
		`true ? l : []`,
		`coalesce(l, ["x"])`,
		`[for t in l : format("${s}%d", 1)]`,
		`[for t in l : replace(s, "x", s)]`,
		`[for t in l : ` + strings.Repeat("1+", 200) + `1]`,
	} {
		synctest.Test(t, func(t *testing.T) {
			_, left, err := evaluate(t, text, data, 50*time.Millisecond)
			if !errors.Is(err, ErrTooLong) && !errors.Is(err, ErrTooMuch) {
				t.Errorf("%.60s ended with %v after %s of cost", text, err, left.Used())
			}
		})
	}
}

// An ordinary expression takes less than a millisecond, so it never looks at the clock:
// nothing that a machine does can fail it.
func TestOrdinaryNeverLooksAtTheClock(t *testing.T) {
	data := map[string]cty.Value{
		"s": cty.StringVal("billing@shop.example.com"), "n": cty.NumberIntVal(7),
		"l": cty.TupleVal([]cty.Value{cty.StringVal("a"), cty.StringVal("b"), cty.StringVal("c")}),
	}
	for text, want := range map[string]cty.Value{
		`n >= 5 && s != ""`:                                        cty.True,
		`join(",", [for x in l : upper(x)])`:                       cty.StringVal("A,B,C"),
		`regex("^([a-z]+)@([a-z.]+)$", s)[1]`:                      cty.StringVal("shop.example.com"),
		`length(regexall("[a-z]+", s))`:                            cty.NumberIntVal(4),
		`regexreplace(s, "@.*", "")`:                               cty.StringVal("billing"),
		`contains(l, "b") ? format("%s has %d", s, n) : "nothing"`: cty.StringVal("billing@shop.example.com has 7"),
		`jsondecode("{\"a\":[1,2]}").a[1]`:                         cty.NumberIntVal(2),
		`max([1, n, 3]...)`:                                        cty.NumberIntVal(7),
	} {
		v, left, err := evaluate(t, text, data, time.Millisecond)
		if err != nil || !v.RawEquals(want) {
			t.Errorf("%s is %#v, %v", text, v, err)
		}
		if !left.seen.IsZero() || left.Used() > 100*time.Microsecond {
			t.Errorf("%s costs %s", text, left.Used())
		}
	}
}

// A machine that stands still once cannot end what is within its cost; work that is slower
// than it was taken for is ended.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a Allowance
		a.Begin(100*time.Millisecond, nil)
		for range 2 {
			if !a.Spend(quantum) {
				t.Fatal("the first millisecond is refused")
			}
		}
		time.Sleep(time.Hour) // SIGSTOP, say
		if !a.Spend(quantum) || a.Used() > 20*time.Millisecond {
			t.Errorf("a machine that stood still: %v, %s", a.Err(), a.Used())
		}
		for n := 0; a.Err() == nil; n++ {
			if n > 10 {
				t.Fatal("slow work is not ended")
			}
			time.Sleep(19 * time.Millisecond)
			a.Spend(quantum)
		}
		if !errors.Is(a.Err(), ErrTooLong) {
			t.Error(a.Err())
		}
	})
}

// An expensive evaluation waits for a place, a cheap one does not; the wait is bounded.
func TestLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lane := NewLane(1)
		var first, second, cheap Allowance
		first.Begin(time.Second, lane)
		if !first.Spend(2 * quantum) {
			t.Fatal(first.Err())
		}
		var wait sync.WaitGroup
		wait.Go(func() {
			second.Begin(time.Second, lane)
			start := time.Now()
			if second.Spend(2*quantum) || !errors.Is(second.Err(), ErrBusy) || time.Since(start) != laneWait {
				t.Errorf("without a place: %v after %s", second.Err(), time.Since(start))
			}
			second.End()
		})
		synctest.Wait()
		cheap.Begin(time.Second, lane)
		if !cheap.Spend(quantum / 2) {
			t.Error(cheap.Err())
		}
		cheap.End()
		wait.Wait()
		first.End()
		second.Begin(time.Second, lane)
		if !second.Spend(2 * quantum) {
			t.Errorf("the place was not given back: %v", second.Err())
		}
		second.End()
	})
}

// No number is so large that its digits fill the memory.
func TestNumbers(t *testing.T) {
	for _, text := range []string{
		`"${1e300*1e300*1e300*1e300*1e300*1e300*1e300*1e300*1e300*1e300}"`,
		`"1e999999999" + 0`, `-"1e999999999"`, `"1p999999999" + 0`, `floor(["1e99999999"]...)`, `max("1e99999999", 1)`,
		`jsonencode(jsondecode("1e999999999"))`, `jsonencode(jsondecode("[1e-999999999]"))`,
		`format("%d", "1e999999999")`, `format("%999999999d", 1)`, `format("%.999999999f", 1)`,
	} {
		if v, _, err := evaluate(t, text, nil, time.Second); err == nil {
			t.Errorf("%s is %.100s", text, fmt.Sprintf("%#v", v))
		}
	}
	for s, want := range map[string]bool{
		"0": true, "0.000": true, "0e999": true, "12.50": true, "1e300": true, "1e-300": true,
		"9e99999999": false, "1e-99999999": false, strings.Repeat("9", 101): false,
	} {
		if got := ValidLiteral(s); got != want {
			t.Errorf("%.20s: %t", s, got)
		}
	}
}
