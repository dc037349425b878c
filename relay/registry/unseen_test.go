package registry

import (
	"slices"
	"testing"
)

// A change that Recorded does not show is named.
func TestUnseen(t *testing.T) {
	const before = `{"url":"https://a.example/one?k=1","headers":{"X-A":"1","X-B":"1"},"tls":{"key":"1"}}`
	for now, want := range map[string][]string{
		before: nil,
		`{"url":"https://a.example/two?k=1","headers":{"X-A":"2","X-B":"1"},"tls":{"key":"2"}}`: {"url", "tls.key", "headers.X-A"},
		`{"url":"https://b.example/two?k=1","headers":{"X-B":"1","X-C":"3"},"tls":{"key":"1"}}`: nil,
		`{"url":"https://a.example/one?k=2","headers":{"X-A":"1","X-B":"1"},"tls":{"key":"1"}}`: {"url"},
		`[`: nil,
	} {
		if got := Unseen([]byte(before), []byte(now)); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", now, got, want)
		}
	}
}
