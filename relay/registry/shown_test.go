package registry

import "testing"

func TestShown(t *testing.T) {
	for spec, want := range map[string]string{
		`{"url":"https://u:p@a.example/x?key=canary","headers":{"X-Key":"canary"},"timeout":{"total":"3s"}}`: `{"headers":{"X-Key":"***"},"timeout":{"total":"3s"},"url":"https://a.example/x?***"}`,
		`{"url":"https://a.example/x"}`:              `{"url":"https://a.example/x"}`,
		`{"headers":{"X-List":["canary"]}}`:          `{"headers":{"X-List":"***"}}`,
		`{"url":"https://a.example/%zz?key=canary"}`: `{"url":"***"}`,
		`{"tls":{"cert":"c.pem","key":"canary"}}`:    `{"tls":{"cert":"c.pem","key":"***"}}`,
		`[`: `{}`,
	} {
		if got := string(Shown([]byte(spec))); got != want {
			t.Errorf("%s is shown as %s", spec, got)
		}
	}
}

func TestRecorded(t *testing.T) {
	for spec, want := range map[string]string{
		`{"url":"https://u:p@a.example/canary?key=canary","headers":{"X-Key":"canary"},"enabled":false}`: `{"enabled":false,"headers":{"X-Key":"***"},"url":"https://a.example/***?***"}`,
		`{"url":"https://a.example/%63anary"}`:     `{"url":"https://a.example/***"}`,
		`{"url":"https://a.example/"}`:             `{"url":"https://a.example/"}`,
		`{"url":"https://a.example/%zz?k=canary"}`: `{"url":"***"}`,
	} {
		if got := string(Recorded([]byte(spec))); got != want {
			t.Errorf("of %s is kept %s", spec, got)
		}
	}
}
