package sink

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// first lists what a script answers to its first n requests.
func first(s Script, n int64) string {
	var answers []string
	for i := range n {
		answers = append(answers, s.answer(i).String())
	}
	return strings.Join(answers, " ")
}

func TestParseScript(t *testing.T) {
	for text, want := range map[string]string{
		"200":                          "200 200 200 200 200 200 200",
		"503x3,200":                    "503 503 503 200 200 200 200",
		"503,200,...":                  "503 200 503 200 503 200 503",
		"503x2,reset,...":              "503 503 reset 503 503 reset 503",
		" reset , close,hang ":         "reset close hang hang hang hang hang",
		"200@1.5s,204@0s":              "200@1.5s 204 204 204 204 204 204",
		"429:retry-after=30,200":       "429:retry-after=30 200 200 200 200 200 200",
		"429:retry-after=30x2,200":     "429:retry-after=30 429:retry-after=30 200 200 200 200 200",
		"503x2:retry-after=0@2s,reset": "503@2s:retry-after=0 503@2s:retry-after=0 reset reset reset reset reset",
		"resetx2,hang@1m,599":          "reset reset hang@1m0s 599 599 599 599",
		"429:retry-after=1000000000000": strings.TrimSpace(
			strings.Repeat("429:retry-after=1000000000000 ", 7)),
		"200x1000000": "200 200 200 200 200 200 200",
	} {
		t.Run(text, func(t *testing.T) {
			s, err := ParseScript(text)
			if err != nil {
				t.Fatal(err)
			}
			if got := first(s, 7); got != want {
				t.Errorf("answers\n got %s\nwant %s", got, want)
			}
			again, err := ParseScript(s.String())
			if err != nil {
				t.Fatalf("read %q again: %v", s, err)
			}
			if got := first(again, 7); got != want {
				t.Errorf("answers of %q\n got %s\nwant %s", s, got, want)
			}
		})
	}
}

func TestZeroScript(t *testing.T) {
	if got := first(Script{}, 3); got != "200 200 200" {
		t.Errorf("answers %s", got)
	}
	if got := (Script{}).String(); got != "200" {
		t.Errorf("printed %q", got)
	}
}

func TestParseScriptErrors(t *testing.T) {
	const (
		status = "write a status from 200 to 599, reset, close or hang, for example 503x3,200"
		count  = "after x comes a count from 1 to 1000000, for example 503x3"
		delay  = "after @ comes a delay of up to 24h, for example 200@1.5s"
		after  = "after a status and : comes retry-after=SECONDS, for example 429:retry-after=30"
	)
	for text, want := range map[string]string{
		"":                                   `column 1: step -: ` + status,
		"200,":                               `column 5: step -: ` + status,
		"200, teapot":                        `column 6: step teapot: ` + status,
		"é,200":                              `column 1: step é: ` + status,
		"200, é,é":                           `column 6: step é: ` + status,
		"100":                                `column 1: step 100: ` + status,
		"199,200":                            `column 1: step 199: ` + status,
		"600":                                `column 1: step 600: ` + status,
		"-200":                               `column 1: step -200: ` + status,
		"2e2":                                `column 1: step 2e2: ` + status,
		"RESET":                              `column 1: step RESET: ` + status,
		"99999999999999999999":               `column 1: step 99999999999999999999: ` + status,
		"\x1b[2J":                            `column 1: step "\x1b[2J": ` + status,
		"503x":                               `column 1: step 503x: ` + count,
		"503x0":                              `column 1: step 503x0: ` + count,
		"503x-1":                             `column 1: step 503x-1: ` + count,
		"503x1000001":                        `column 1: step 503x1000001: ` + count,
		"503 x3":                             `column 1: step "503 x3": ` + status,
		"200@":                               `column 1: step 200@: ` + delay,
		"200@2":                              `column 1: step 200@2: ` + delay,
		"200@-2s":                            `column 1: step 200@-2s: ` + delay,
		"200@25h":                            `column 1: step 200@25h: ` + delay,
		"429:30":                             `column 1: step 429:30: ` + after,
		"429:retry-after=":                   `column 1: step 429:retry-after=: ` + after,
		"429:retry-after=1s":                 `column 1: step 429:retry-after=1s: ` + after,
		"hang:retry-after=1":                 `column 1: step hang:retry-after=1: ` + after,
		"200x2x3":                            `column 1: step 200x2x3: "x" stands twice; write it once`,
		"200@1s@2s":                          `column 1: step 200@1s@2s: "@" stands twice; write it once`,
		"...":                                `column 1: step ...: nothing stands before it to repeat; write for example 503,200,...`,
		"503,...,200":                        `column 5: step ...: steps after it would never run; put it last`,
		strings.Repeat("200,", 1000) + "503": `column 4001: step 503: a script has at most 1000 steps; use a count, as in 503x3`,
	} {
		t.Run(text[:min(len(text), 30)], func(t *testing.T) {
			s, err := ParseScript(text)
			if err == nil {
				t.Fatalf("read as %q, want an error", s)
			}
			if diff := cmp.Diff("script "+want, err.Error()); diff != "" {
				t.Error(diff)
			}
			if got := s.String(); got != "200" {
				t.Errorf("script %q beside the error", got)
			}
		})
	}
}

func FuzzParseScript(f *testing.F) {
	for _, text := range []string{"503x3,200", "429:retry-after=30x2@1s,reset,hang,...", "close", "...", ",", "x@:"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseScript(text)
		if err != nil {
			if len(err.Error()) > 1200 || strings.ContainsAny(err.Error(), "\n\r\x1b") {
				t.Errorf("error is long or not one line: %q", err)
			}
			return
		}
		again, err := ParseScript(s.String())
		if err != nil {
			t.Fatalf("%q printed as %q: %v", text, s, err)
		}
		n := min(2*s.total, 500)
		if diff := cmp.Diff(first(s, n), first(again, n)); diff != "" {
			t.Errorf("%q printed as %q:\n%s", text, s, diff)
		}
		for _, i := range []int64{0, s.total - 1, s.total, s.total + 1, 1<<63 - 1} {
			if a := s.answer(i); (a.Status == 0) == (a.Ending == "") {
				t.Errorf("%q answers %+v to request %d", text, a, i)
			}
		}
	})
}
