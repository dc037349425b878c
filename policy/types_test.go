package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func mustSchema(t testing.TB, text string) *Schema {
	t.Helper()
	s, err := newSchema(text, time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSchemaCheck(t *testing.T) {
	const invoice = `{
		"type": "object",
		"required": ["amount", "currency"],
		"additionalProperties": false,
		"properties": {
			"amount": {"type": "integer", "minimum": 1, "multipleOf": 2},
			"currency": {"enum": ["eur", "usd"]},
			"at": {"type": "string", "format": "date-time"},
			"code": {"type": "string", "pattern": "^[A-Z]+$"},
			"lines": {"type": "array", "uniqueItems": true, "items": {"$ref": "#/$defs/line"}},
			"pay": {"anyOf": [{"required": ["card"]}, {"required": ["iban"]}]},
			"a/b~c": {"type": "null"}
		},
		"$defs": {"line": {"type": "object", "required": ["sku"], "properties": {"lines": {"items": {"$ref": "#/$defs/line"}}}}}
	}`
	for _, c := range []struct{ schema, data, pointer, keyword, detail string }{
		{schema: invoice, data: `{"amount":2,"currency":"eur"}`},
		{schema: invoice, data: `{"amount":12.0,"currency":"usd","at":"2026-01-02T03:04:05Z","code":"A","lines":[{"sku":1,"lines":[{"sku":2}]}]}`},
		{schema: invoice, data: `{"amount":123456789012345678901234567892,"currency":"eur"}`},
		{invoice, `7`, "", "type", "is of type number, not object"},
		{invoice, `{}`, "", "required", "lacks amount, currency"},
		{invoice, `{"amount":"canary","currency":"canary"}`, "/amount", "type", "is of type string, not integer"},
		{invoice, `{"amount":0,"currency":"eur"}`, "/amount", "minimum", `does not fit "minimum"`},
		{invoice, `{"amount":3,"currency":"eur"}`, "/amount", "multipleOf", `does not fit "multipleOf"`},
		{invoice, `{"amount":2,"currency":"canary"}`, "/currency", "enum", "is none of the values that the schema lists"},
		{invoice, `{"amount":2,"currency":"eur","canary":1}`, "", "additionalProperties", "has a property that the schema does not allow"},
		{invoice, `{"amount":2,"currency":"eur","at":"canary"}`, "/at", "format", "is not of the format date-time"},
		{invoice, `{"amount":2,"currency":"eur","at":"2026-11-29T+1:00:00Z"}`, "/at", "format", "is not of the format date-time"},
		{invoice, `{"amount":2,"currency":"eur","code":"canary"}`, "/code", "pattern", `does not fit "pattern"`},
		{invoice, `{"amount":2,"currency":"eur","lines":[{"sku":1},{"sku":1}]}`, "/lines", "uniqueItems", `does not fit "uniqueItems"`},
		{invoice, `{"amount":2,"currency":"eur","lines":[{"sku":1},{"sku":1,"lines":[{}]}]}`, "/lines/1/lines/0", "required", "lacks sku"},
		{invoice, `{"amount":2,"currency":"eur","pay":{}}`, "/pay", "anyOf", `does not fit "anyOf"`},
		{invoice, `{"amount":2,"currency":"eur","a/b~c":1}`, "/a~1b~0c", "type", "is of type number, not null"},
		{invoice, `{"amount":1e999999999,"currency":"eur"}`, "/amount", "type", "is a number of more than 1000 digits, or with an exponent beyond 400"},
		{invoice, `{"x":[1,` + strings.Repeat("1", maxDigits+1) + `]}`, "/x/1", "type", "is a number of more than 1000 digits, or with an exponent beyond 400"},
		{`false`, `1`, "", "false", `does not fit "false"`},
		{schema: `true`, data: `1`},
		{`{"$schema":"http://json-schema.org/draft-07/schema#","definitions":{"x":{"type":"string"}},"properties":{"a":{"$ref":"#/definitions/x"}}}`, `{"a":1}`, "/a", "type", "is of type number, not string"},
		{`{"$id":"https://example.com/s.json","$defs":{"x":{"type":"string"}},"properties":{"a":{"$ref":"s.json#/$defs/x"}}}`, `{"a":1}`, "/a", "type", "is of type number, not string"},
		{`{"additionalProperties":{"type":"string"}}`, `{"` + strings.Repeat("é", 999) + `":1}`, "/" + strings.Repeat("é", maxPointer-1), "type", "is of type number, not string"},
	} {
		m := mustSchema(t, c.schema).Check([]byte(c.data))
		var want *Mismatch
		if c.keyword != "" {
			want = &Mismatch{Pointer: c.pointer, Keyword: c.keyword, Detail: c.detail}
		}
		if diff := cmp.Diff(want, m); diff != "" {
			t.Errorf("%.80s: -want +got:\n%s", c.data, diff)
		}
		if m != nil && strings.Contains(m.Error(), "canary") {
			t.Errorf("it shows the data: %v", m)
		}
	}
}

// What a schema says is nested, refers to itself, and is written in several ways.
func TestFields(t *testing.T) {
	names := func(fields []Field) string {
		var all []string
		for _, f := range fields {
			name := f.Name + " " + f.Type
			if f.Required {
				name += " required"
			}
			if f.Description != "" {
				name += " " + f.Description
			}
			all = append(all, name)
		}
		return strings.Join(all, "; ")
	}
	for _, c := range []struct{ schema, want string }{
		{`{"type":"string","description":"a word"}`, " string required a word"},
		{`true`, " any required"},
		{`{"type":"array","items":{"properties":{"a":{"const":1}}}}`, "[].a 1"},
		{`{"required":["b"],"properties":{"b":{"type":["string","null"]},"a":{"enum":["x","y"],"description":"which"}}}`, `a "x" or "y" which; b null or string required`},
		{`{"properties":{"n":{"$ref":"#"},"c":{"type":"number"}}}`, "c number; n object"},
		{`{"properties":{"c":{"$ref":"#/$defs/c","description":"who"}},"$defs":{"c":{"type":"object","description":"any","required":["id"],"properties":{"id":{"type":"string","format":"uuid"}}}}}`,
			"c object who; c.id string (uuid) required"},
		{`{"allOf":[{"required":["a"],"properties":{"a":{"type":"integer"}}},{"properties":{"a":{"description":"A"},"b":{}}}]}`, "a integer required A; b any"},
		{`{"$schema":"http://json-schema.org/draft-07/schema#","properties":{"l":{"items":{"properties":{"sku":{"type":"string"}}}}}}`, "l any; l[].sku string"},
	} {
		if got := names(mustSchema(t, c.schema).Fields()); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.schema, got, c.want)
		}
	}

	var b strings.Builder // doubles with each step
	b.WriteString(`{"$ref":"#/$defs/s0","$defs":{"s40":{}`)
	for i := range 40 {
		fmt.Fprintf(&b, `,"s%d":{"properties":{"a":{"$ref":"#/$defs/s%d"},"b":{"$ref":"#/$defs/s%d"}}}`, i, i+1, i+1)
	}
	b.WriteString("}}")
	if n := len(mustSchema(t, b.String()).Fields()); n != maxFields {
		t.Errorf("%d fields", n)
	}
}

func TestTypes(t *testing.T) {
	file := func(types string) *Policy { return mustDecode(t, "log {}\n"+types) }
	p := file(`event_type "a" {}`)
	if got, known := p.Type("a"); got != p.Types[0] || !known {
		t.Error("a is not known")
	}
	if got, known := p.Type("b"); got != nil || known {
		t.Error("b is known")
	}
	if got, known := New(nil).Type("b"); got != nil || !known {
		t.Error("where none is declared, all are known")
	}

	old := file("event_type \"a\" {}\nevent_type \"b\" {}\nevent_type \"c\" {}")
	now := file("event_type \"d\" {}\nevent_type \"c\" {}\nevent_type \"b\" {\n schema = \"true\"\n}")
	want := []TypeChange{{"d", Added}, {"b", Changed}, {"a", Removed}}
	if diff := cmp.Diff(want, DiffTypes(old, now)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	var hashes []string
	for _, types := range []string{"", `event_type "a" {}`, `event_type "b" {}`, `event_type "a" { schema = "true" }`, `event_type "a" { schema = "{}" }`,
		`event_type "a" { description = "x" }`, `event_type "a" { example = "1" }`} {
		hashes = append(hashes, file(types).Hash())
	}
	if slices.Sort(hashes); len(slices.Compact(hashes)) != 7 {
		t.Errorf("hashes agree where types do not: %v", hashes)
	}
}

// FuzzSchema: no schema and no data make it panic, and its errors are one line.
func FuzzSchema(f *testing.F) {
	f.Add(`{"type":"object","required":["a"],"properties":{"a":{"$ref":"#/$defs/x"}},"$defs":{"x":{"minimum":1.5,"multipleOf":1e2}}}`, `{"a":1e5}`)
	f.Add(`{"anyOf":[{"const":1},{"uniqueItems":true}],"unevaluatedProperties":false}`, `[1,1.0]`)
	f.Add(`{"$schema":"http://json-schema.org/draft-04/schema#","items":[{"format":"uri"}],"additionalItems":false}`, `["x",2]`)
	f.Add(`{"$dynamicRef":"#a","$dynamicAnchor":"a","items":{"$dynamicRef":"#a"}}`, `[[[]]]`)
	f.Fuzz(func(t *testing.T, schema, data string) {
		s, err := newSchema(schema, time.Minute, nil)
		if err != nil {
			return
		}
		if n := len(s.Fields()); n < 1 || n > maxFields {
			t.Fatalf("%d fields", n)
		}
		if m := s.Check([]byte(data)); m != nil && m.Detail == "" {
			t.Fatalf("%+v says nothing", m)
		}
	})
}

// BenchmarkCheck is an event of 1 KiB with its schema; without one there is only a look
// into a map.
func BenchmarkCheck(b *testing.B) {
	s := mustSchema(b, `{"type":"object","required":["id","amount","currency","lines"],"properties":{"id":{"type":"string","pattern":"^in_"},
		"amount":{"type":"integer","minimum":0},"currency":{"enum":["eur","usd"]},"at":{"type":"string","format":"date-time"},
		"lines":{"type":"array","items":{"type":"object","required":["sku"],"properties":{"sku":{"type":"string"},"n":{"type":"integer"}}}}}}`)
	line := `{"sku":"abcdefghijklmnopqrstuvwxyz-0123456789","n":12}`
	data := []byte(`{"id":"in_1","amount":1200,"currency":"eur","at":"2026-01-02T03:04:05Z","lines":[` + strings.Repeat(line+",", 17) + line + `]}`)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if m := s.Check(data); m != nil {
			b.Fatal(m)
		}
	}
}
