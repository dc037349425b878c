package page

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"relay/relay/page/show"
)

// states gives each state of deliveries, endpoints, jobs and attempts its class, which has a colour and a shape.
func states() map[string]string {
	return map[string]string{
		"delivered": "ok", "active": "ok", "done": "ok", "running": "wait",
		"pending": "wait", "waiting": "wait", "retry": "wait",
		"held": "held", "paused": "held",
		"failed": "bad", "disabled": "bad", "invalid": "bad", "refused": "bad", "gone": "bad",
		"discarded": "off", "cancelled": "off", "removed": "off", "elsewhere": "off",
	}
}

// formats are the functions of templates that show values.
func formats(texts words, now func() time.Time) map[string]any {
	lang := show.Lang(texts.lang)
	return map[string]any{
		"stateClass": func(s any) string { return states()[fmt.Sprint(s)] },
		"utc":        func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
		"when":       func(t time.Time) string { return lang.Ago(t, now()) }, // one to come, too
		"coming": func(t time.Time) string { // of a next attempt: one whose time has come waits for the endpoint
			if t.Before(now()) {
				return texts.text("deliveries.due")
			}
			return lang.In(t, now())
		},
		"clock": func(t time.Time) string { return lang.Moment(t.UTC()) },
		"waitsFor": func(cause string) string { // what a delivery waits for beside its time, in short
			if texts.has("deliveries.waits." + cause) {
				return texts.text("deliveries.waits." + cause)
			}
			return cause
		},
		"visible": visible, // of a stranger, in an attribute
		"daytime": func(t time.Time) []string { // the instant and its time of day, nil for one that is a day old
			if age := now().Sub(t); t.IsZero() || age >= 24*time.Hour {
				return nil
			}
			return []string{t.UTC().Format(time.RFC3339Nano), t.UTC().Format("15:04:05 MST")}
		},
		"dur":       lang.Duration, // of milliseconds
		"ms":        func(n int64) string { return lang.Duration(float64(n)) },
		"join":      func(all []string) string { return strings.Join(all, ", ") },
		"num":       lang.Count,
		"short":     lang.Short,
		"pct":       lang.Percent, // of 0 to 1
		"bytes":     lang.Bytes,
		"text":      show.Text, // of a stranger: what cannot be seen is shown
		"body":      show.Body, // a payload, with what is to be said of it
		"n":         func(key string, n int64) string { return texts.count(key, n, lang.Count(n)) },
		"codeText":  func(code string) string { return codeText(texts, code) },
		"codeShort": spaced,
		"refusalText": func(code string) string { // of the API, in a sentence; the code itself if there is none
			if texts.has("refusal." + code) {
				return texts.text("refusal." + code)
			}
			return code
		},
		"advice":  texts.advice,
		"foreign": func() bool { return texts.lang != languages()[0] }, // what the API says in English is marked as a quotation
		"yesno": func(b bool) string {
			if b {
				return "yes"
			}
			return "no"
		},
		"rightOf": func(action string) string {
			if action == "retry" || action == "redeliver" {
				return "redeliver"
			}
			return "operate"
		},
	}
}

// visible is a text for an attribute, in which markup cannot stand: what cannot be seen, or changes how the text around it is
// read, is shown by its number.
func visible(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsGraphic(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "⟨U+%04X⟩", r)
		}
	}
	return b.String()
}
