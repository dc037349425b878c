package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func printed(o PrintOptions, r Received) string {
	var b bytes.Buffer
	NewPrinter(&b, o)(r)
	return b.String()
}

var at = time.Date(2026, 11, 21, 10, 11, 12, 345_678_000, time.UTC)

func paid() Received {
	return Received{
		Time: at, Path: "/hooks", EventID: "evt_0199", EventType: "invoice.paid", DeliveryID: "dlv_7", Attempt: 2,
		Body:      []byte(`{"id":"evt_0199","data":{"n":[1,2],"who":"Zoë <z@example.com>"}}`),
		Signature: Good, Answer: Answer{Status: 200},
	}
}

func hostile() Received {
	return Received{
		Time: at, Path: "/\x1b[2J\n/x", EventID: "evt\u202e1 x", EventType: strings.Repeat("é", 150), DeliveryID: "\x00",
		Body:      []byte("\x1b]0;title\x07\r\n\"\u009b2J\u202e\xff\xc3 tab\t🙂\u2028"),
		Signature: Bad, Err: errors.New("header \x1b[31m is\nmissing"), Answer: Answer{Status: 401},
	}
}

func TestPrinter(t *testing.T) {
	duplicate := paid()
	duplicate.Duplicate, duplicate.Answer = true, Answer{Ending: Hang, Delay: time.Second}
	foreign := Received{Time: at, Path: "/", Signature: Unchecked, Answer: Answer{Status: 429, RetryAfter: "30"}}
	plain := Received{Time: at, Path: "/", Body: []byte("a=1\nb=2\n"), Signature: Unchecked, Answer: Answer{Status: 200}}

	for _, tt := range []struct {
		name string
		o    PrintOptions
		r    Received
		want string
	}{
		{"line", PrintOptions{}, paid(),
			"10:11:12.345  200    attempt 2  invoice.paid  evt_0199  /hooks  65 B  signature ok\n"},
		{"duplicate", PrintOptions{}, duplicate,
			"10:11:12.345  hang@1s  attempt 2  invoice.paid  evt_0199  /hooks  65 B  signature ok  duplicate\n"},
		{"foreign", PrintOptions{Body: true}, foreign,
			"10:11:12.345  429:retry-after=30  attempt -  -  -  /  0 B  signature unchecked\n"},
		{"colour", PrintOptions{Color: true}, paid(),
			"\x1b[2m10:11:12.345\x1b[0m  \x1b[32m200  \x1b[0m  attempt 2  invoice.paid  evt_0199  /hooks  65 B  \x1b[32msignature ok\x1b[0m\n"},
		{"body", PrintOptions{Body: true}, paid(), `10:11:12.345  200    attempt 2  invoice.paid  evt_0199  /hooks  65 B  signature ok
    {
      "id": "evt_0199",
      "data": {
        "n": [
          1,
          2
        ],
        "who": "Zoë <z@example.com>"
      }
    }
`},
		{"plain body", PrintOptions{Body: true}, plain, `10:11:12.345  200    attempt -  -  -  /  8 B  signature unchecked
    a=1
    b=2
`},
		{"hostile", PrintOptions{Body: true}, hostile(),
			`10:11:12.345  401    attempt -  "` + strings.Repeat("é", 100) + `"…  "evt\u202e1 x"  "/\x1b[2J\n/x"  34 B  signature BAD  header \x1b[31m is\nmissing
    \x1b]0;title\a\r
    "\u009b2J\u202e\xff\xc3 tab\t🙂\u2028
`},
		{"json", PrintOptions{JSON: true}, paid(),
			`{"time":"2026-11-21T10:11:12.345678Z","path":"/hooks","event_id":"evt_0199","event_type":"invoice.paid","delivery_id":"dlv_7","attempt":2,"size":65,"signature":"ok","duplicate":false,"answer":"200"}` + "\n"},
		{"json body", PrintOptions{JSON: true, Body: true}, paid(),
			`{"time":"2026-11-21T10:11:12.345678Z","path":"/hooks","event_id":"evt_0199","event_type":"invoice.paid","delivery_id":"dlv_7","attempt":2,"size":65,"signature":"ok","duplicate":false,"answer":"200","body":{"id":"evt_0199","data":{"n":[1,2],"who":"Zo\u00eb \u003cz@example.com\u003e"}}}` + "\n"},
		{"json plain body", PrintOptions{JSON: true, Body: true}, plain,
			`{"time":"2026-11-21T10:11:12.345678Z","path":"/","size":8,"signature":"unchecked","duplicate":false,"answer":"200","body_base64":"YT0xCmI9Mgo="}` + "\n"},
		{"json hostile", PrintOptions{JSON: true}, hostile(),
			`{"time":"2026-11-21T10:11:12.345678Z","path":"/\u001b[2J\n/x","event_id":"evt\u202e1 x","event_type":"` + strings.Repeat(`\u00e9`, 150) + `","delivery_id":"\u0000","size":34,"signature":"bad","duplicate":false,"answer":"401","error":"header \u001b[31m is\nmissing"}` + "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, printed(tt.o, tt.r)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The body for people is bounded, and so is the work of indenting it.
func TestPrinterBounds(t *testing.T) {
	for name, tt := range map[string]struct {
		body, head, tail string
	}{
		"long":  {`"` + strings.Repeat("é", 5000) + `"`, `"éé`, "éé\n    … 5.8 KiB more\n"},
		"many":  {"[" + strings.Repeat("1,", 3000) + "1]", "[\n      1,\n", "1,\n      1,\n    … 11 KiB more\n"},
		"deep":  {strings.Repeat("[", 9000) + strings.Repeat("]", 9000), "[[[", "[[[\n    … 14 KiB more\n"},
		"large": {"[" + strings.Repeat("1,", maxPretty) + "1]", "[1,1,", ",1,1,1\n    … 124 KiB more\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := printed(PrintOptions{Body: true}, Received{Body: []byte(tt.body)})
			_, got, _ = strings.Cut(got, "\n    ")
			if len(got) > 4*maxShown || !strings.HasPrefix(got, tt.head) || !strings.HasSuffix(got, tt.tail) {
				t.Errorf("%d bytes: %q … %q", len(got), got[:20], got[len(got)-50:])
			}
		})
	}
}

func TestClip(t *testing.T) {
	for _, tt := range []struct {
		text string
		n    int
		want string
	}{
		{"abc", 3, "abc"},
		{"abcd", 3, "abc"},
		{"aé", 2, "a"},
		{"aéé", 3, "aé"},
		{"🙂🙂", 7, "🙂"},
		{"ab\x80\x80\x80\x80\x80\x80", 6, "ab\x80\x80\x80\x80"}, // never was a character
	} {
		if got := clip(tt.text, tt.n); got != tt.want {
			t.Errorf("%q cut to %d bytes is %q, want %q", tt.text, tt.n, got, tt.want)
		}
	}
}

// lines is a writer that keeps what each Write brought.
type lines struct {
	got []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.got = append(l.got, string(p))
	return 0, errors.New("closed pipe")
}

func TestPrinterOneWriteEach(t *testing.T) {
	var l lines
	observe := NewPrinter(&l, PrintOptions{Body: true})
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() { observe(paid()) })
	}
	wg.Wait()
	want := printed(PrintOptions{Body: true}, paid())
	if len(l.got) != 64 {
		t.Errorf("%d writes", len(l.got))
	}
	for _, got := range l.got {
		if got != want {
			t.Errorf("wrote %q", got)
		}
	}
}

// Whatever comes, no byte of it steers the terminal or forges a line.
func FuzzPrinter(f *testing.F) {
	h := hostile()
	f.Add(h.EventID, h.Body)
	f.Add("evt_1", []byte(`{"a":"`+"\u009b\u2028\x7f"+`"}`))
	f.Add(strings.Repeat("\x80", 300), bytes.Repeat([]byte("[\n"), 3000))
	f.Fuzz(func(t *testing.T, text string, body []byte) {
		r := Received{Time: at, Path: text, EventID: text, EventType: text, DeliveryID: text, Body: body, Err: errors.New(text)}

		line := printed(PrintOptions{}, r)
		if strings.Count(line, "\n") != 1 {
			t.Errorf("not one line: %q", line)
		}
		for i, l := range strings.SplitAfter(printed(PrintOptions{Body: true}, r), "\n") {
			if i > 0 && l != "" && !strings.HasPrefix(l, "    ") {
				t.Errorf("body line looks like another request: %q", l)
			}
			line += l
		}
		if !utf8.ValidString(line) {
			t.Errorf("invalid UTF-8: %q", line)
		}
		for _, c := range line {
			if c != '\n' && !unicode.IsPrint(c) {
				t.Errorf("%U in %q", c, line)
			}
		}

		object := printed(PrintOptions{JSON: true, Body: true}, r)
		for _, c := range strings.TrimSuffix(object, "\n") {
			if c < ' ' || c > '~' {
				t.Errorf("%U in %q", c, object)
			}
		}
		var back struct {
			Path       string `json:"path"`
			BodyBase64 []byte `json:"body_base64"`
		}
		if err := json.Unmarshal([]byte(object), &back); err != nil {
			t.Fatalf("%v: %q", err, object)
		}
		if back.Path != strings.ToValidUTF8(text, "\ufffd") && utf8.ValidString(text) {
			t.Errorf("path %q came back as %q", text, back.Path)
		}
		if !json.Valid(body) && !bytes.Equal(back.BodyBase64, body) {
			t.Errorf("body %q came back as %q", body, back.BodyBase64)
		}
	})
}
