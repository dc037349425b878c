package page

import (
	"fmt"
	"html/template"
	"strings"
	"time"
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
func formats(texts *catalogue, lang string) template.FuncMap {
	return template.FuncMap{
		"stateClass": func(s any) string { return states()[fmt.Sprint(s)] },
		"utc":        func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
		"when":       func(t time.Time) string { return t.UTC().Format(time.DateTime) },
		"clock":      func(t time.Time) string { return t.UTC().Format(time.DateTime) + " UTC" },
		"num":        func(n int64) string { return fmt.Sprint(n) },
		"n":          func(key string, n int64) string { return texts.count(lang, key, n, fmt.Sprint(n)) },
		"codeText":   func(code string) string { return codeText(texts, lang, code) },
		"codeShort":  func(code string) string { return strings.ReplaceAll(code, "_", " ") },
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

// codeText says what a code of an attempt or a state means, and what to do.
func codeText(texts *catalogue, lang, code string) string {
	if key := "code." + code; texts.has(key) {
		return texts.text(lang, key)
	}
	return code
}
