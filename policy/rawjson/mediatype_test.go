package rawjson

import "testing"

func TestMediaType(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/json":                           true,
		"Application/JSON; charset=utf-8":            true,
		"text/json":                                  true,
		"application/cloudevents+json":               true,
		"application/problem+json;charset=\"UTF-8\"": true,
		"application/json-seq":                       false,
		"application/x-ndjson":                       false,
		"application/+jsonx":                         false,
		"json":                                       false,
		"":                                           false,
		"application/json; charset":                  false,
		"text/plain":                                 false,
	} {
		if got, _ := MediaType(contentType); got != want {
			t.Errorf("%q: %t, want %t", contentType, got, want)
		}
	}
	if _, charset := MediaType("application/json; charset=Latin1"); charset != "Latin1" {
		t.Errorf("charset %q, want Latin1", charset)
	}
}
