package registry

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"

	"relay/policy"
)

// Shown is settings without what may be a credential: the values of headers and a private key of TLS, which are ***, and
// user and query of the URL.
func Shown(spec json.RawMessage) json.RawMessage { return shown(spec, func(*url.URL) {}) }

// Recorded is Shown without the path of the URL, which is a credential at some receivers, for what is kept.
func Recorded(spec json.RawMessage) json.RawMessage {
	return shown(spec, func(u *url.URL) {
		if len(u.Path) > 1 {
			u.Path, u.RawPath = "/"+policy.Hidden, "/"+policy.Hidden // String leaves * as it is
		}
	})
}

func shown(spec json.RawMessage, clean func(*url.URL)) json.RawMessage {
	var members map[string]json.RawMessage
	if json.Unmarshal(spec, &members) != nil {
		return json.RawMessage("{}")
	}
	hide(members, "headers", func(string) bool { return true })
	hide(members, "tls", func(name string) bool { return name == "key" })
	var text string
	if json.Unmarshal(members["url"], &text) == nil && text != "" {
		u, err := url.Parse(text)
		if err != nil {
			u = &url.URL{Opaque: policy.Hidden}
		}
		u.User = nil
		clean(u)
		e := policy.Endpoint{URL: u}
		members["url"], _ = json.Marshal(e.ShownURL().String())
	}
	shown, _ := json.Marshal(members)
	return shown
}

// Unseen names the settings that differ between two specs and look the same in Recorded: url, headers.NAME, tls.key.
func Unseen(old, now json.RawMessage) []string {
	var names []string
	before, after := Recorded(old), Recorded(now)
	for _, path := range [][]string{{"url"}, {"tls", "key"}} {
		if differs(old, now, path...) && !differs(before, after, path...) {
			names = append(names, strings.Join(path, "."))
		}
	}
	var headers struct{ Headers map[string]json.RawMessage }
	_ = json.Unmarshal(now, &headers) // what is no object has no headers
	for _, name := range slices.Sorted(maps.Keys(headers.Headers)) {
		if differs(old, now, "headers", name) && !differs(before, after, "headers", name) {
			names = append(names, "headers."+name)
		}
	}
	return names
}

// differs tells whether two objects have different values at a path.
func differs(a, b json.RawMessage, path ...string) bool {
	for _, name := range path {
		a, b = member(a, name), member(b, name)
	}
	return !bytes.Equal(a, b)
}

func member(object json.RawMessage, name string) json.RawMessage {
	var members map[string]json.RawMessage
	_ = json.Unmarshal(object, &members) // nil for what is no object
	return members[name]
}

// hide replaces values of an object by ***.
func hide(members map[string]json.RawMessage, object string, secret func(name string) bool) {
	var values map[string]any
	if json.Unmarshal(members[object], &values) != nil || values == nil {
		return
	}
	for name := range values {
		if secret(name) {
			values[name] = policy.Hidden
		}
	}
	members[object], _ = json.Marshal(values) // it was JSON
}
