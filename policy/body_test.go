package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"relay/config"
)

// bodyOf decodes an endpoint with these lines.
func bodyOf(t testing.TB, lines string) *Body {
	t.Helper()
	return mustDecode(t, "endpoint \"a\" {\n url = \"https://a.example.com\"\n sign = [\"none\"]\n"+lines+"\n}\n").Endpoints[0].Body
}

func viewOf(data string) *View {
	return &View{ID: "evt_1", Type: "a.b", Time: time.Unix(1_700_000_000, 0), Data: []byte(data), Delivery: "dlv_1"}
}

// The result of an expression on an event's data is bounded, and the error tells no data. In a bubble no
// time passes, so that cost alone decides.
func TestBounds(t *testing.T) { synctest.Test(t, testBounds) }

func testBounds(t *testing.T) {
	long := strings.Repeat("canary", 10_000)
	many := "[" + strings.TrimSuffix(strings.Repeat(`"canary",`, 9_000), ",") + "]"
	some := "[" + strings.TrimSuffix(strings.Repeat(`"canary",`, 1_100), ",") + "]"
	data := fmt.Sprintf(`{"long":%q,"some":%s,"many":%s,"more":[%s,%s],"huge":"1e999999999","n":3,"hugeNumber":1e999999999,"tiny":1e-999999999,"tinyText":"1e-999999999"}`, long, some, many, many, many)
	for _, c := range []struct{ body, want string }{
		{`{ a = [for x in event.data.many : [for y in event.data.many : y]] }`, "it takes more than"},
		{`{ a = [for x in event.data.many : 1 if length([for y in event.data.many : y]) > 1] }`, "it takes"},
		{`{ a = [for x in event.data.many : event.data.many[*]] }`, "it takes more than"},
		{`{ a = [for x in event.data.many : upper(try([for y in event.data.many : y], "x"))] }`, "it takes more than"},
		{`{ a = upper(try(join("", [for x in event.data.many : event.data.long]), "x")) }`, "it takes more than"},
		{`"${"%{ for x in event.data.many }${event.data.long}%{ endfor }"}"`, "it takes more than"},
		{`{ a = length(event.data.more) }`, "10000 values"},
		{`{ a = upper("${event.data.long}${event.data.long}${event.data.long}${event.data.long}"), b = replace(event.data.long, "c", event.data.long) }`, "replace: it could make"},
		{`{ a = regexreplace(event.data.long, "", event.data.long) }`, "regexreplace: it could make"},
		{`{ a = join(event.data.long, event.data.some) }`, "join: it could make"},
		{`{ a = join(",", event.data.many) }`, ""},
		{`{ a = [for x in event.data.some : [for y in event.data.some : join(",", event.data.some)]] }`, "it takes"},
		{`{ a = [for x in event.data.many : contains(event.data.many, "x")] }`, "it takes"},
		{`{ a = format("%99999999d", event.data.n) }`, "format: it could make"},
		{`{ a = format("%d", event.data.huge) }`, "format: it could make"},
		{`{ a = formatlist("%s %s", event.data.many, event.data.long) }`, "formatlist: it could make"},
		{`{ a = distinct(event.data.some) }`, "distinct: it could make"},
		{`{ a = split("", event.data.long) }`, "split: it makes more than 10000 values"},
		{`{ a = range(event.data.huge) }`, "a text stands here that is no number, or one beyond what a double can hold"},
		{`{ a = event.data.huge + 1 }`, "a text stands here that is no number, or one beyond what a double can hold"},
		{`{ a = -event.data.huge }`, "a text stands here that is no number, or one beyond what a double can hold"},
		{`{ a = max(event.data.huge, 1) }`, "a text stands here that is no number, or one beyond what a double can hold"},
		{`{ a = upper("${event.data.hugeNumber}") }`, "beyond what a double can hold"},
		{`{ a = jsondecode("1e999999999") + event.data.n }`, "beyond what a double can hold"},
		{`{ a = jsondecode(event.data.long) }`, "jsondecode: it is not JSON"},
		{`{ a = [` + strings.Repeat("event.data.long, ", 120) + `] }`, "more than 1MiB"},
		{`{ a = ` + strings.Repeat("jsonencode(", 30) + `"\"${event.data.n}"` + strings.Repeat(")", 30) + ` }`, "more than 1MiB"},
		{`{ a = event.data.tinyText + 0, b = event.data.tiny + 0 }`, ""},
		{`{ a = event.data.hugeNumber, b = event.data.many, c = event.data.more }`, ""},
	} {
		out, err := bodyOf(t, "body = "+c.body).Append([]byte("x"), viewOf(data))
		switch {
		case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%.80s: %v, want %s", c.body, err, c.want)
		case err != nil && (strings.Contains(err.Error(), "canary") || string(out) != "x"):
			t.Errorf("%.80s: %.200v, %.100s", c.body, err, out)
		}
	}
}

// The times that formatdate takes are those that an event may have.
func TestFormatDate(t *testing.T) {
	b := bodyOf(t, `body = { a = formatdate("YYYY-MM-DD hh:mm:ss Z", event.data.at) }`)
	for at, want := range map[string]string{
		"2026-11-29t10:00:00z":      `{"a":"2026-11-29 10:00:00 Z"}`,
		"1990-12-31T15:59:60-08:00": `{"a":"1990-12-31 16:00:00 -08:00"}`,
		"2026-11-29T10:00:00,5Z":    "",
		"2026-11-29T10:00:00+24:00": "",
	} {
		got, err := b.Append(nil, viewOf(`{"at":"`+at+`"}`))
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%s: %s, %v", at, got, err)
		}
	}
}

// Half of a surrogate pair in data is passed on as the escape that came; where text is
// written that is no JSON it becomes U+FFFD.
func TestLoneSurrogates(t *testing.T) {
	const data = `{"a":"\ud83d","b":["\uDE00!"],"\ud83d":1,"\ud83e":2,"h":"<\ud83d","l":"\ude00>"}`
	for lines, want := range map[string]string{
		`body = event.data`: data,
		`body = { a = event.data.a, t = "x${event.data.b[0]}y" }`:                                  `{"a":"\ud83d","t":"x\uDE00!y"}`,
		`body = { a = "${event.data.h}${event.data.l}" }`:                                          `{"a":"<\ud83d\ude00>"}`,
		`body = { a = [for x in event.data.b : "${x}?"] }`:                                         `{"a":["\ude00!?"]}`,
		`body = { a = { for k, v in event.data : k => v if v != 1 } }`:                             `{"a":{"a":"\ud83d","b":["\ude00!"],"h":"<\ud83d","l":"\ude00>","\ud83e":2}}`,
		`body = { a = upper("é${event.data.a}"), b = lower(event.data.a) }`:                        "{\"a\":\"É\ufffd\",\"b\":\"\ufffd\"}",
		`body = { a = regexreplace(event.data.a, ".", "x"), b = regexall("(?s).", event.data.l) }`: "{\"a\":\"x\",\"b\":[\"\ufffd\",\">\"]}",
		`body = { a = split("", event.data.a), b = split(",", event.data.a) }`:                     "{\"a\":[\"\ufffd\"],\"b\":[\"\\ud83d\"]}",
		`body = { a = format("%q", event.data.a), b = format("%s", event.data.a) }`:                "{\"a\":\"\\\"\ufffd\\\"\",\"b\":\"\\ud83d\"}",
		`body = { a = jsonencode(event.data.a) }`:                                                  `{"a":"\"\\ud83d\""}`,
		`body = { a = [for x in event.data.b : jsonencode([x, "é"])] }`:                            `{"a":["[\"\\ude00!\",\"é\"]"]}`,
		`body = { a = jsondecode("[\"\\ud83d\"]") }`:                                               `{"a":["\ud83d"]}`,
		`body = { a = base64encode(event.data.a) }`:                                                `{"a":"77+9"}`,
		`body = { a = event.data.a == "\uFFFD", b = event.data.a == "x" }`:                         `{"a":false,"b":false}`,
		"ecmascript = true\n body = event.data":                                                    `{"a":"\ud83d","b":["\ude00!"],"\ud83d":1,"\ud83e":2,"h":"<\ud83d","l":"\ude00>"}`,
		"content_type = \"text/plain\"\n body = \"${event.data.a}\"":                               "\uFFFD",
		"content_type = \"text/plain\"\n body = \"${upper(\"x\")}${event.data.b[0]}\"":             "X\uFFFD!",
		"content_type = \"text/plain\"\n body = \"${[for x in event.data.b : x][0]}\"":             "\uFFFD!",
		"content_type = \"application/x-www-form-urlencoded\"\n body = { a = event.data.a }":       "a=%EF%BF%BD",
	} {
		got, err := bodyOf(t, lines).Append(nil, viewOf(data))
		if err != nil || string(got) != want {
			t.Errorf("%s:\n got %s, %v\nwant %s", lines, got, err, want)
		}
	}
}

// Constants are bounded when the file is read.
func TestConstantBounds(t *testing.T) {
	for _, body := range []string{`{ a = format("%99999999d", 1) }`, `{ a = range(1e9) }`, `{ a = jsondecode("1e999999999") }`} {
		got := outcome([]byte("endpoint \"a\" {\n url = \"https://a.example.com\"\n sign = [\"none\"]\n body = " + body + "\n}\n"))
		if !strings.Contains(got, "Invalid value") {
			t.Errorf("%s: %s", body, got)
		}
	}
}

// hostile draws texts that want to break out of where they stand.
func hostile() *rapid.Generator[string] {
	return rapid.OneOf(rapid.String(), rapid.StringMatching(`["\\${}%,:\[\]\x00-\x1f<é😀]{0,8}`), rapid.SampledFrom([]string{`","x":"`, `\`, `${event.id}`, "\u2028", "\xff"}))
}

// drawJSON draws JSON by hand, with white space and odd forms.
func drawJSON(t *rapid.T, depth int) string {
	space := rapid.SampledFrom([]string{"", "", " ", "\n\t"})
	kinds := 3
	if depth > 0 {
		kinds = 5
	}
	s := ""
	switch rapid.IntRange(0, kinds).Draw(t, "kind") {
	case 0:
		s = rapid.SampledFrom([]string{"null", "true", "false"}).Draw(t, "word")
	case 1:
		s = rapid.SampledFrom([]string{"0", "-0", "1.0", "1E+2", "12345678901234567890", "1e999", "-1.5e-7", "0.10"}).Draw(t, "number")
	case 2, 3:
		quoted, _ := json.Marshal(hostile().Draw(t, "text"))
		s = string(quoted[:len(quoted)-1]) + rapid.SampledFrom([]string{"", "", `\ud83d`, `\uDE00`}).Draw(t, "half") + `"`
	case 4:
		var parts []string
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			parts = append(parts, drawJSON(t, depth-1))
		}
		s = "[" + strings.Join(parts, ",") + "]"
	case 5:
		var parts []string
		for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "\\u0064", "x\\\"y", ""}), 0, 4, rapid.ID).Draw(t, "keys") {
			parts = append(parts, fmt.Sprintf(`%s"%s"%s:%s`, space.Draw(t, "s"), k, space.Draw(t, "s"), drawJSON(t, depth-1)))
		}
		s = "{" + strings.Join(parts, ",") + "}"
	}
	return space.Draw(t, "s") + s + space.Draw(t, "s")
}

// Whatever an event holds, an object body is JSON, has its keys in their order, and its
// members of data are those that encoding/json would pick, byte for byte.
func TestObjectBodies(t *testing.T) {
	body := bodyOf(t, `body = {
		id = event.id, type = event.type, at = event.time, tenant = event.tenant, key = event.key
		data = event.data
		a = try(event.data.a, "absent"), ab = try(event.data.a.b, "absent"), a1 = try(event.data.a[1], "absent"), d = try(event.data.d, "absent"), xy = try(event.data["x\"y"], "absent")
		text = "${event.tenant}: ${try(event.data.a, "")} ${event.key}"
		whole = jsonencode({ d = event.data, k = event.key })
		computed = try(upper(event.data.a), [for x in event.data.b : x], { for k, v in event.data.c : k => v }, event.data.b + 1, event.key)
	}`)
	script := bodyOf(t, "ecmascript = true\n body = { data = event.data, \"1\" = event.key }")
	rapid.Check(t, func(t *rapid.T) {
		v := &View{
			ID: hostile().Draw(t, "id"), Type: hostile().Draw(t, "type"), Tenant: hostile().Draw(t, "tenant"), Key: hostile().Draw(t, "key"),
			Time: time.UnixMicro(rapid.Int64Range(0, 1<<52).Draw(t, "time")), Data: []byte(drawJSON(t, 3)),
		}
		got, err := body.Append(nil, v)
		if err != nil {
			t.Fatalf("%s: %v", v.Data, err)
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(got, &members); err != nil || len(members) != 14 {
			t.Fatalf("%s became %s: %v", v.Data, got, err)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, v.Data); err != nil {
			t.Fatal(err)
		}
		pick := func(path ...any) string {
			at := json.RawMessage(compact.Bytes())
			for _, p := range path {
				var object map[string]json.RawMessage
				var array []json.RawMessage
				switch p := p.(type) {
				case string:
					if json.Unmarshal(at, &object) != nil || object[p] == nil {
						return `"absent"`
					}
					at = object[p]
				case int:
					if json.Unmarshal(at, &array) != nil || len(array) <= p {
						return `"absent"`
					}
					at = array[p]
				}
			}
			return string(at)
		}
		for name, want := range map[string]string{
			"data": compact.String(), "a": pick("a"), "ab": pick("a", "b"), "a1": pick("a", 1), "d": pick("d"), "xy": pick(`x"y`),
		} {
			if string(members[name]) != want {
				t.Errorf("%s of %s is %s, want %s", name, v.Data, members[name], want)
			}
		}
		again, err := body.Append([]byte("x"), v)
		if err != nil || string(again) != "x"+string(got) {
			t.Errorf("another time it is %s, %v", again, err)
		}
		if got, err := script.Append(nil, v); err != nil || !json.Valid(got) {
			t.Errorf("ecmascript: %s, %v", got, err)
		}
	})
}

// Whatever a body and the data are, what comes out is JSON where it says so, and a file that is
// decoded twice gives the same twice.
func FuzzBody(f *testing.F) {
	for _, src := range append(goldenInputs(f, "testdata/body.txtar"), goldenInputs(f, "testdata/body-errors.txtar")...) {
		f.Add(src, goldenView().Data)
	}
	f.Add([]byte("endpoint \"a\" {\nurl = \"https://a.example.com\"\nsign = [\"none\"]\nbody = [for x in event.data : [event.type, upper(x), try(x[*].y, -x)] if x != event.id]\n}"), []byte(`["a",{"b":"1e99"}]`))
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
		if err != nil || len(first.Endpoints) == 0 {
			return
		}
		v := goldenView()
		v.Data = data
		body, again := first.Endpoints[0].Body, second.Endpoints[0].Body
		if body == nil {
			return
		}
		got, err := body.Append(nil, v)
		same, err2 := again.Append(nil, v)
		if !bytes.Equal(got, same) || fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Errorf("%s, %v; then %s, %v", got, err, same, err2)
		}
		if err == nil && (body.kind == "json" || body.check || body.ecmascript) && !json.Valid(got) {
			t.Errorf("not JSON: %s", got)
		}
		if _, err := body.Masked().Append(nil, v); err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("the error has a secret: %v", err)
		}
	})
}

// A body is one for many attempts at the same time.
func TestBodyIsShared(t *testing.T) {
	body := bodyOf(t, `body = { a = [for i in event.data : upper(i)], b = event.id, c = env("NAME") }`)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range 50 {
				text := fmt.Sprintf("x%d-%d", i, n)
				got, err := body.Append(nil, viewOf(`["`+text+`"]`))
				if want := `{"a":["` + strings.ToUpper(text) + `"],"b":"evt_1","c":"X-Name"}`; err != nil || string(got) != want {
					t.Errorf("got %s, %v; want %s", got, err, want)
				}
			}
		})
	}
	all.Wait()
}

// What env and file gave is compared and never shown.
func TestMaskedBody(t *testing.T) {
	secret := bodyOf(t, `body = { key = env("TOKEN"), upper = upper(env("TOKEN")), id = event.id }`)
	other := bodyOf(t, `body = { key = env("TOKEN"), upper = upper(env("TOKEN")), id = event.id }`)
	if !secret.equal(other) {
		t.Error("two of the same differ")
	}
	other.answers = secret.answers
	other.source += " "
	if secret.equal(other) || secret.equal(nil) || secret.equal(secret.Masked()) {
		t.Error("others are the same")
	}
	real, err := secret.Append(nil, viewOf(`1`))
	if err != nil || !strings.Contains(string(real), `"key":"canary-token","upper":"CANARY-TOKEN"`) {
		t.Errorf("real: %s, %v", real, err)
	}
	shown, err := secret.Masked().Append(nil, viewOf(`1`))
	if want := `{"key":"***","upper":"***","id":"evt_1"}`; err != nil || string(shown) != want {
		t.Errorf("shown: %s, %v", shown, err)
	}
	for _, form := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(form, secret.settings()) + fmt.Sprintf(form, secret.answers) + secret.String(); strings.Contains(strings.ToLower(text), canary) {
			t.Errorf("%s shows a secret: %s", form, text)
		}
	}
	numbers := bodyOf(t, `body = { n = jsondecode(env("NUMBER")) }`)
	if got, err := numbers.Append(nil, viewOf(`1`)); err != nil || string(got) != `{"n":[1,2]}` {
		t.Errorf("got %s, %v", got, err)
	}
	if got, err := numbers.Masked().Append(nil, viewOf(`1`)); err == nil {
		t.Errorf("what cannot be masked is shown: %s", got)
	}
}

func BenchmarkBody(b *testing.B) {
	data := `{"amount":1000,"customer":{"id":"cus_1","name":"Acme"},"text":"` + strings.Repeat("x", 1000) + `"}`
	for _, c := range []struct{ name, lines string }{
		{"splices", `body = { event = event.type, timestamp = event.time, delivery_id = delivery.id, data = event.data }`},
		{"members", `body = { amount = event.data.amount, customer = event.data.customer, version = "1.0" }`},
		{"text", "content_type = \"text/plain\"\n body = \"${event.data.customer.name} paid ${event.data.amount} (${event.id})\""},
		{"computed", `body = { name = upper(event.data.customer.name) }`},
		{"ecmascript", `ecmascript = true`},
		{"cloudevent", `body = cloudevent`},
	} {
		b.Run(c.name, func(b *testing.B) {
			body, v := bodyOf(b, c.lines), viewOf(data)
			var out []byte
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if out, err = body.Append(out[:0], v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestDefaultBody(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	for _, c := range []struct {
		name string
		v    View
		want string
	}{
		{"whole second, other zone", View{ID: "evt_1", Type: "a.b", Time: at, Data: []byte(`{"x":1}`)},
			`{"id":"evt_1","type":"a.b","timestamp":"2026-01-02T02:04:05Z","data":{"x":1}}`},
		{"fraction", View{ID: "evt_1", Type: "a.b", Time: at.Add(120 * time.Millisecond), Data: []byte(`null`)},
			`{"id":"evt_1","type":"a.b","timestamp":"2026-01-02T02:04:05.12Z","data":null}`},
		{"bytes of data stay", View{ID: "evt_1", Type: "a", Time: at, Data: []byte("{ \"b\": 1.0e+2,\n\t\"a\": \"<&> \\u00e9 \u2028 \\\" \" , \"n\":12345678901234567890 }\r\n")},
			"{\"id\":\"evt_1\",\"type\":\"a\",\"timestamp\":\"2026-01-02T02:04:05Z\",\"data\":{\"b\":1.0e+2,\"a\":\"<&> \\u00e9 \u2028 \\\" \",\"n\":12345678901234567890}}"},
		{"halves of surrogate pairs", View{ID: "evt_1", Type: "a", Time: at, Data: []byte(`{ "\uD83D" : "\ude00" }`)},
			`{"id":"evt_1","type":"a","timestamp":"2026-01-02T02:04:05Z","data":{"\uD83D":"\ude00"}}`},
		{"an id cannot break out", View{ID: `x","type":"y`, Type: "a", Time: at, Data: []byte(`0`)},
			`{"id":"x\",\"type\":\"y","type":"a","timestamp":"2026-01-02T02:04:05Z","data":0}`},
	} {
		if got, err := (*Body)(nil).Append(nil, &c.v); err != nil || string(got) != c.want {
			t.Errorf("%s: %v\n got %s\nwant %s", c.name, err, got, c.want)
		}
	}
}

// The default body is the one that could be written out.
func FuzzDefaultBody(f *testing.F) {
	f.Add("evt_1", "a.b", int64(1_700_000_000_123_456), []byte(`{"x":[1,"a"]}`))
	f.Add("<\"\\\u2028é\x00\xff>", "", int64(-1), []byte(` "x y" `))
	f.Add("", "\u00ad\x7f", int64(0), []byte("{ \"a\" : 1.0e+2,\t\"a\":\"\\ud800\" }"))
	written := bodyOf(f, `body = { id = event.id, type = event.type, timestamp = event.time, data = event.data }`)
	typed := bodyOf(f, `content_type = "application/x+json"`)
	f.Fuzz(func(t *testing.T, id, kind string, micros int64, data []byte) {
		at := time.UnixMicro(micros)
		if !json.Valid(data) || at.UTC().Year() < 0 || at.UTC().Year() > 9999 {
			return // ingest refuses it
		}
		v := &View{ID: id, Type: kind, Time: at, Data: data}
		want, err := (*Body)(nil).Append(nil, v)
		if err != nil || !json.Valid(want) {
			t.Fatalf("%q, %v: not JSON", want, err)
		}
		for _, b := range []*Body{written, typed} {
			if got, err := b.Append(nil, v); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v: %q, %v; want %q", b, got, err, want)
			}
		}
	})
}
