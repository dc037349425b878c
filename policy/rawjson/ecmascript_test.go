package rawjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
)

// What node says of these was looked up once; TestNode asks it again.
func fixed() [][2]string {
	return [][2]string{
		{`1.0`, `1`}, {`1e3`, `1000`}, {`-0`, `0`}, {`-0.0e5`, `0`}, {`0.1`, `0.1`}, {`1E400`, `null`}, {`-1e999`, `null`}, {`1e-400`, `0`},
		{`12345678901234567890`, `12345678901234567000`}, {`9007199254740993`, `9007199254740992`}, {`123456789012345`, `123456789012345`},
		{`1e21`, `1e+21`}, {`999999999999999999999`, `1e+21`}, {`123456789012345680000`, `123456789012345680000`},
		{`0.000001`, `0.000001`}, {`0.0000001`, `1e-7`}, {`1.5e-10`, `1.5e-10`}, {`5e-324`, `5e-324`}, {`1.7976931348623157e308`, `1.7976931348623157e+308`},
		{`-12.50`, `-12.5`}, {`0.30000000000000004`, `0.30000000000000004`}, {`100`, `100`},
		{`"a\u0062\/"`, `"ab/"`}, {`"\u00e9\u2028` + "\u2029\u007f" + `"`, "\"é\u2028\u2029\u007f\""}, {`"\u001f\u0008\u000c\n\r\t\u0022\u005c"`, `"\u001f\b\f\n\r\t\"\\"`},
		{`"\ud83d\ude00"`, `"😀"`}, {`"\ud83d"`, `"\ud83d"`}, {`"\uDE00\uD83D"`, `"\ude00\ud83d"`}, {`"\ud83d\ud83d\ude00x"`, `"\ud83d😀x"`}, {`"\ud83d\u0061"`, `"\ud83da"`},
		{`"<>&"`, `"<>&"`},
		{` { "b" : 1 , "a" : [ ] , "c" : { } } `, `{"b":1,"a":[],"c":{}}`}, {`[ true , false,null ]`, `[true,false,null]`},
		{`{"a":1,"b":2,"a":3}`, `{"a":3,"b":2}`}, {`{"\u0061":1,"a":2}`, `{"a":2}`}, {`{"\ud83d":1,"\uD83D":2}`, `{"\ud83d":2}`},
		{`{"b":0,"10":1,"9":2,"a":3,"09":4,"-1":5,"4294967294":6,"4294967295":7,"1.5":8,"0":9,"":10}`,
			`{"0":9,"9":2,"10":1,"4294967294":6,"b":0,"a":3,"09":4,"-1":5,"4294967295":7,"1.5":8,"":10}`},
		{`{"x":{"2":{"z":1,"1":2},"1":[{"1":0,"0":1}]}}`, `{"x":{"1":[{"0":1,"1":0}],"2":{"1":2,"z":1}}}`},
		{`{"__proto__":{"a":1},"constructor":1,"toString":2}`, `{"__proto__":{"a":1},"constructor":1,"toString":2}`}, {`{"__proto__":1,"x":2,"__proto__":null}`, `{"__proto__":null,"x":2}`},
		{`""`, `""`}, {`{"1":1,"2":2,"1":3}`, `{"1":3,"2":2}`},
	}
}

func TestECMAScript(t *testing.T) {
	for _, c := range fixed() {
		got, err := AppendECMAScript([]byte("x"), []byte(c[0]))
		if err != nil || string(got) != "x"+c[1] {
			t.Errorf("%s became %s, %v; want %s", c[0], got[1:], err, c[1])
		}
	}
	for _, bad := range []string{``, `{`, `01`, `nul`, `"\x"`, "\"\n\"", `[1,]`, `{} {}`} {
		if got, err := AppendECMAScript([]byte("x"), []byte(bad)); !errors.Is(err, ErrInvalid) || string(got) != "x" {
			t.Errorf("%q became %s, %v", bad, got, err)
		}
	}
}

// The result may be written behind its own source.
func TestECMAScriptInPlace(t *testing.T) {
	src := []byte(`{"b":1.0,"1":[1e3]}`)
	buf := append(make([]byte, 0, 100), src...)
	got, err := AppendECMAScript(buf, buf)
	if want := string(src) + `{"1":[1000],"b":1}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

// Node.js is the judge: of the fixed cases, and of some thousand drawn ones.
func TestNode(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("this test needs Node.js; make setup installs it:", err)
	}
	var texts []string
	for _, c := range fixed() {
		texts = append(texts, c[0])
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	d := drawer{rand.New(rand.NewPCG(seed, 1))}
	for range 4000 {
		texts = append(texts, d.value(4))
	}
	in, err := json.Marshal(texts)
	if err != nil {
		t.Fatal(err)
	}
	const script = `const texts = JSON.parse(require("fs").readFileSync(0, "utf8"));
		process.stdout.write(JSON.stringify(texts.map(t => JSON.stringify(JSON.parse(t)))))`
	cmd := exec.CommandContext(t.Context(), node, "-e", script)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	if err := json.Unmarshal(out, &want); err != nil || len(want) != len(texts) {
		t.Fatal(len(want), err)
	}
	for i, text := range texts {
		got, err := AppendECMAScript(nil, []byte(text))
		if err != nil || string(got) != want[i] {
			t.Fatalf("%s became\n%s, %v; node says\n%s", text, got, err, want[i])
		}
	}
}

// drawer draws JSON as it is seldom written.
type drawer struct{ *rand.Rand }

func (d drawer) pick(of ...string) string { return of[d.IntN(len(of))] }

func (d drawer) space() string { return d.pick("", "", "", " ", "\n\t\r ") }

func (d drawer) string() string {
	var b strings.Builder
	b.WriteByte('"')
	for range d.IntN(5) {
		switch d.IntN(4) {
		case 0:
			fmt.Fprintf(&b, `\u%04x`, d.IntN(0x10000))
		case 1:
			fmt.Fprintf(&b, `\u%04X`, 0xd800+d.IntN(0x800)) // surrogates, often in pairs
		default:
			b.WriteString(d.pick("a", "é", "\u2028", "😀", `\n`, `\/`, `\"`, `\\`, "0", "7", "\u007f", "<"))
		}
	}
	b.WriteByte('"')
	return b.String()
}

func (d drawer) key() string {
	if d.IntN(2) == 0 {
		return d.string()
	}
	return `"` + d.pick("a", "b", "__proto__", "0", "1", "2", "10", "01", "-1", "1.5", "4294967294", "4294967295", "4294967296", "99999999999") + `"`
}

func (d drawer) number() string {
	n := d.pick("", "-") + d.pick("0", fmt.Sprint(1+d.IntN(100)), fmt.Sprint(1+d.Uint64()>>1), "123456789012345678901234567890")
	if d.IntN(2) == 0 {
		n += d.pick(".0", ".5", ".10", fmt.Sprintf(".%d", d.Uint64()))
	}
	if d.IntN(2) == 0 {
		n += d.pick("e", "E") + d.pick("", "+", "-") + fmt.Sprint(d.IntN(d.IntN(400)+1))
	}
	return n
}

func (d drawer) value(depth int) string {
	kinds := 4
	if depth > 0 {
		kinds = 8
	}
	var parts []string
	switch d.IntN(kinds) {
	case 0:
		return d.space() + d.pick("true", "false", "null") + d.space()
	case 1:
		return d.space() + d.string() + d.space()
	case 2, 3:
		return d.space() + d.number() + d.space()
	case 4:
		for range d.IntN(4) {
			parts = append(parts, d.value(depth-1))
		}
		return "[" + d.space() + strings.Join(parts, ",") + "]" + d.space()
	}
	for range d.IntN(d.IntN(24) + 1) {
		parts = append(parts, d.space()+d.key()+d.space()+":"+d.value(depth-1))
	}
	return "{" + d.space() + strings.Join(parts, ",") + "}" + d.space()
}

// The form is JSON, stays as it is, and means the same to encoding/json.
func FuzzECMAScript(f *testing.F) {
	for _, c := range fixed() {
		f.Add([]byte(c[0]))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		got, err := AppendECMAScript(nil, src)
		if (err == nil) != json.Valid(src) {
			t.Fatalf("%q: %v", src, err)
		}
		if err != nil {
			return
		}
		if !json.Valid(got) {
			t.Fatalf("%q became %q", src, got)
		}
		again, err := AppendECMAScript(nil, got)
		if err != nil || !bytes.Equal(again, got) {
			t.Fatalf("%q became %q, and that %q, %v", src, got, again, err)
		}
	})
}
