package policy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relay/config"
	"relay/outbox"
)

// expensive is data of 240 KB that makes an expression read for minutes.
func expensive() string {
	return fmt.Sprintf(`{"l":[%s"canary"],"s":%q}`, strings.Repeat(`"canary",`, 9000), strings.Repeat("x", 150_000))
}

// An expression that costs more than its budget is ended, with a code of its own and no data in the
// error. The clock of a bubble stands still, so it is the cost that ends it.
func TestTooExpensive(t *testing.T) {
	for _, e := range []string{
		`[for t in event.data.l : can(regex("(x+x+)+y", event.data.s))]`,
		`[for t in event.data.l : split("y", event.data.s)]`,
		`[for t in event.data.l : strlen(event.data.s)]`,
		`[for t in event.data.l : sha256(event.data.s)]`,
		`[for t in event.data.l : can(jsondecode(event.data.s))]`,
		`try([for t in event.data.l : upper(event.data.s)], "cheap")`,
		`regexreplace(event.data.s, "x*y|x", "")`,
	} {
		synctest.Test(t, func(t *testing.T) {
			v := viewOf(expensive())
			v.Meter = new(Meter)
			d := filterOf(t, "when = "+e+" == []").Decide("a", v)
			if !d.Gets || d.Term.Code != CodeTooExpensive || strings.Contains(d.Term.Error, "canary") || !strings.Contains(d.Term.Error, "relay.hcl:4") {
				t.Errorf("filter %s: %+v", e, d.Term)
			}
			if v.Meter.Took > 2*time.Second || v.Meter.Share < 0.1 && !strings.Contains(d.Term.Error, "rounds") {
				t.Errorf("filter %s: %+v", e, v.Meter)
			}
			for _, body := range []string{"{ a = " + e + " }", "{ a = try(" + e + `, "cheap") }`} {
				body += "\nbudget {\n body = \"20ms\"\n}"
				_, err := bodyOf(t, "body = "+body).Append(nil, viewOf(expensive()))
				if CostCode(err, "other") != CodeTooExpensive || strings.Contains(err.Error(), "canary") {
					t.Errorf("body %s: %v", body, err)
				}
			}
		})
	}
	if CostCode(errors.New("x"), "other") != "other" {
		t.Error("an error like any other is taken for a cost")
	}
}

// A comparison with a schema is ended as an expression is: by what it has done.
func TestSchemaTooExpensive(t *testing.T) {
	deep := strings.Repeat("[", 60) + "1" + strings.Repeat("]", 60)
	texts := `["` + strings.Repeat("x", 100_000) + `"]`
	for name, c := range map[string]struct{ schema, data string }{
		"a schema that refers to itself twice": {`{"$ref":"#/$defs/n","$defs":{"n":{"anyOf":[{"type":"array","items":{"$ref":"#/$defs/n"}},{"type":"array","items":{"$ref":"#/$defs/n"}}]}}}`, deep},
		"and with allOf":                       {`{"$ref":"#/$defs/n","$defs":{"n":{"allOf":[{"items":{"$ref":"#/$defs/n"}},{"items":{"$ref":"#/$defs/n"}}]}}}`, deep},
		"patterns":                             {`{"items":{"allOf":[` + strings.Repeat(`{"pattern":"(x{1,30}){1,30}z"},`, 20) + `true]}}`, texts},
		"names":                                {`{"patternProperties":{"(x{1,30}){1,30}z":true}}`, `{"` + strings.Repeat("x", 200_000) + `":1}`},
		"unique items":                         {`{"allOf":[` + strings.Repeat(`{"uniqueItems":true},`, 400) + `true]}`, `[1` + numbers(5000) + `]`},
		"numbers":                              {`{"items":{"allOf":[` + strings.Repeat(`{"multipleOf":1e-300},`, 100) + `true]}}`, `[1` + strings.Repeat(",1e300", 2000) + `]`},
		"a regex in the data":                  {`{"items":{"format":"regex"}}`, `["y"` + strings.Repeat(`,"((x{1,30}){1,30}){1,1}y"`, 2000) + `]`},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, err := newSchema(c.schema, 10*time.Millisecond, nil)
			if err != nil {
				t.Fatal(err)
			}
			m := s.Check([]byte(c.data))
			if m == nil || m.Code != CodeTooExpensive || strings.Contains(m.Error(), "x") && strings.Contains(m.Error(), "xx") {
				t.Errorf("%s: %v", name, m)
			}
			if m := s.Check([]byte(`[]`)); m != nil && m.Code != "" {
				t.Errorf("%s, after that: %v", name, m)
			}
		})
	}
	if _, err := newSchema(`{"pattern":"(x{1,30}){1,30}y{1,999}z{1,999}w{1,999}"}`, time.Second, nil); err == nil || !strings.Contains(err.Error(), "3000 instructions") {
		t.Errorf("a pattern of 3,900 instructions: %v", err)
	}
}

func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ",%d", i+2)
	}
	return b.String()
}

// A budget can be set, and has more for more data.
func TestBudget(t *testing.T) {
	e := mustDecode(t, `policy "default" {
 budget {
  filter = "2ms"
 }
}
endpoint "a" {
 url  = "https://a.example.com"
 sign = ["none"]
 when = length([for x in event.data.l : upper(x)]) > 1
 budget {
  body = "1s"
 }
}`).Endpoints[0]
	if e.Budget != (Budget{Filter: 2 * time.Millisecond, Body: time.Second}) {
		t.Fatal(e.Budget)
	}
	list := `{"l":[` + strings.Repeat(`"a",`, 2999) + `"a"]`
	for padding, want := range map[int]string{0: CodeTooExpensive, 1 << 20: ""} {
		v := viewOf(list + `,"p":"` + strings.Repeat("p", padding) + `"}`)
		synctest.Test(t, func(t *testing.T) {
			if d := e.Filter.Decide("a", v); d.Term.Code != want {
				t.Errorf("with %d bytes more: %+v", padding, d)
			}
		})
	}
}

// The filters of one event are bounded together; those that cost little still decide.
func TestBudgetOfAllFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var file strings.Builder
		for i := range 40 {
			fmt.Fprintf(&file, "endpoint \"e%d\" {\n url = \"https://a.example.com\"\n sign = [\"none\"]\n when = regexreplace(event.data.s, \"x*y|x\", \"\") == \"\"\n}\n", i)
		}
		file.WriteString("endpoint \"last\" {\n url = \"https://a.example.com\"\n sign = [\"none\"]\n when = event.data.l[0] == \"canary\"\n}\n")
		p := mustDecode(t, file.String())
		names, terms := p.Route(&outbox.Event{ID: "evt_1", Type: "a.b", Data: []byte(expensive())})
		if len(names) != 41 || terms[0].Code != CodeTooExpensive || terms[39].Code != CodeTooExpensive || terms[40].Code != "" {
			t.Errorf("%d names, terms %+v", len(names), terms)
		}
	})
}

// A file is evaluated within the same bounds, and says where it is too expensive.
func TestFileIsBounded(t *testing.T) {
	const thousand = "range(0, 1000)"
	for _, value := range []string{
		`jsonencode([for a in ` + thousand + ` : [for b in ` + thousand + ` : [for c in ` + thousand + ` : 1]]])`,
		`"${9e99999999}"`,
		`"${-9e-99999999}"`,
		`"${1e300*1e300*1e300*1e300*1e300*1e300*1e300*1e300*1e300}"`,
		`jsonencode(jsondecode("[1e999999999]"))`,
		`format("%1000000000d", 1)`,
		`format("%.1000000000f", 1)`,
		`join("", [for a in ` + thousand + ` : join("", [for b in range(0, 9) : "` + strings.Repeat("x", 1000) + `"])])`,
		`replace(replace(replace("` + strings.Repeat("x", 1000) + `", "x", "` + strings.Repeat("y", 1000) + `"), "y", "zzzzzzzzzz"), "z", "zz")`,
		`regex("((x{1,30}){1,30}){1,30}", "x")`,
		`regex("(x{1,60}){1,16}y{1,999}z{1,999}", "x")`,
		`join("", [for a in ` + thousand + ` : regexreplace("` + strings.Repeat("x", 5000) + `", "x*y|x", "")])`,
	} {
		for _, attribute := range []string{"description = " + value, "secrets = [" + value + "]"} {
			got := outcome([]byte("endpoint \"a\" {\n url = \"https://a.example.com\"\n sign = [\"none\"]\n " + attribute + "\n}\n"))
			if !strings.Contains(got, "testdata/relay.hcl:4,") {
				t.Errorf("%.100s: %.300s", attribute, got)
			}
		}
	}
}

// Any file is read within the budget for files.
func FuzzFileIsBounded(f *testing.F) {
	for _, value := range []string{
		`jsonencode([for a in range(0,1000) : [for b in range(0,1000) : [for c in range(0,1000) : 1]]])`, `"${9e99999999}"`,
		`format("%1000000000d", 1)`, `regexall("x*y|x", join("", [for a in range(0, 1000) : "xxxxxxxxxx"]))`,
		`"%{ for a in range(0, 1000) }%{ for b in range(0, 1000) }x%{ endfor }%{ endfor }"`, `flatten([for a in range(0, 999) : range(0, 999)])`,
		`distinct([for a in range(0, 1000) : [for b in range(0, 9) : a]])[*]`, `zipmap([for a in range(0,999) : "${a}"], range(0,999))`,
	} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		start := time.Now()
		file, err := config.Parse("testdata/relay.hcl", []byte("endpoint \"a\" {\n url = \"https://a.example.com\"\n sign = [\"none\"]\n description = "+value+"\n}\n"), testEnv)
		if err == nil {
			_, _ = Decode(file)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}
